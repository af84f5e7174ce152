//! The bytes on the wire: golden, and judged bit by bit.

mod net_common;

use bytes::BytesMut;
use net_common::hello;
use world::net::{Frame, FrameError, HEADER, Head, Hello, Kind, common_protocol, header, take};

fn request() -> Vec<u8> {
    let head = Head {
        kind: Kind::Request,
        channel: 3,
        id: 0x0102_0304_0506_0708,
        deadline_ms: 1500,
    };
    [&header(head, b"body")[..], b"body"].concat()
}

#[test]
fn golden_frame() {
    #[rustfmt::skip]
    let golden = [
        0xf2, 3, 3, 0,                      // mark, request, channel, no flags
        4, 0, 0, 0,                         // length of the body
        8, 7, 6, 5, 4, 3, 2, 1,             // request id
        0xdc, 0x05, 0, 0,                   // 1500 ms
        0x3a, 0xef, 0x34, 0x3b,             // crc32 of the above
        0xb2, 0x0b, 0xa8, 0xdb,             // crc32 of the body
        b'b', b'o', b'd', b'y',
    ];
    assert_eq!(request(), golden);
}

#[test]
fn golden_hello() {
    let full = Hello {
        protocol: (1, 2),
        cluster: Some(3),
        group: Some(4),
        node: 5,
        disk: 6,
        boot: 7,
        nonce: 300,
        to: Some((8, 9)),
        before: vec![10, 300],
        level: 300,
    };
    // Variant 0, then the fields in order, as postcard's variable-length numbers.
    let first = [
        0, 1, 2, 1, 3, 1, 4, 5, 6, 7, 0xac, 2, 1, 8, 9, 2, 10, 0xac, 2,
    ];
    let golden = [&first[..], &[0xac, 2]].concat();
    assert_eq!(full.to_bytes()[..], golden);
    // Fields appended by a newer build are ignored.
    let newer = [&golden[..], &[1, 2, 3]].concat();
    assert_eq!(Hello::from_bytes(&newer).as_ref(), Ok(&full));
    for cut in 0..golden.len() {
        // The hello of the first build, which had no level, ends here.
        let old = Hello {
            level: 1,
            ..full.clone()
        };
        let expected = (cut == first.len()).then_some(old);
        assert_eq!(Hello::from_bytes(&golden[..cut]).ok(), expected, "{cut}");
    }
    let client = Hello {
        cluster: None,
        group: None,
        node: 0,
        disk: 0,
        boot: 0,
        nonce: 0,
        ..hello(0)
    };
    assert_eq!(client.to_bytes()[..], [0, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
}

#[test]
fn frames_come_apart_wherever_the_stream_was_cut() {
    let stream = [request(), net_common::frame(Kind::Pong, b""), request()].concat();
    for cut in 0..stream.len() {
        let mut input = BytesMut::from(&stream[..cut]);
        let mut frames = Vec::new();
        while let Some(frame) = take(&mut input, 100).unwrap() {
            frames.push(frame);
        }
        input.extend_from_slice(&stream[cut..]);
        while let Some(frame) = take(&mut input, 100).unwrap() {
            frames.push(frame);
        }
        let kinds: Vec<Kind> = frames.iter().map(|f| f.head.kind).collect();
        assert_eq!(kinds, [Kind::Request, Kind::Pong, Kind::Request]);
        let Frame { head, body } = &frames[2];
        assert_eq!(
            (head.id, head.deadline_ms, head.channel),
            (0x0102_0304_0506_0708, 1500, 3)
        );
        assert_eq!(body[..], *b"body");
    }
}

#[test]
fn no_flipped_bit_makes_a_frame() {
    let sound = request();
    for bit in 0..sound.len() * 8 {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // A damaged length is not waited for.
        let taken = take(&mut BytesMut::from(&flipped[..]), 1 << 20);
        assert!(taken.is_err(), "bit {bit}: {taken:?}");
        // Room for a length that a flip made larger.
        flipped.resize(HEADER + 300, 0);
        let taken = take(&mut BytesMut::from(&flipped[..]), 100);
        assert!(taken.is_err(), "bit {bit}: {taken:?}");
    }
}

#[test]
fn errors_say_what_was_expected_and_what_was_found() {
    let error = |bytes: &[u8]| take(&mut BytesMut::from(bytes), 3).unwrap_err();
    assert_eq!(
        error(b"G").to_string(),
        "expected a frame that starts with 0xf2, found 0x47"
    );
    assert_eq!(
        error(&request()),
        FrameError::TooLong {
            length: 4,
            limit: 3
        }
    );
    let mut unknown = request();
    unknown[1] = 8;
    assert_eq!(error(&unknown), FrameError::Kind { found: 8 });
    unknown[1] = 1;
    unknown[3] = 2;
    assert_eq!(error(&unknown), FrameError::Flags { found: 2 });
}

#[test]
fn the_highest_common_protocol_is_spoken() {
    assert_eq!(common_protocol((1, 3), (2, 5)), Ok(3));
    assert_eq!(common_protocol((4, 4), (2, 5)), Ok(4));
    assert_eq!(common_protocol((1, 1), (1, 1)), Ok(1));
    let refusal = common_protocol((1, 2), (3, 4)).unwrap_err();
    assert!(
        refusal.contains("1 to 2") && refusal.contains("3 to 4"),
        "{refusal}"
    );
    assert!(common_protocol((3, 4), (1, 2)).is_err());
}
