use super::*;

fn session(active_ms: i64) -> Session {
    Session {
        last: 300,
        acked: 298,
        active_ms,
        closed: true,
        bytes: 5,
    }
}

#[test]
fn rows_keep_their_bytes() {
    // What older versions wrote must stay readable: change these only with a new variant.
    let golden: [(&[u8], Vec<u8>); 3] = [
        (&[0, 7], encode(&TableRow::V1 { next: 7 })),
        (
            &[0, 0xac, 2, 0xaa, 2, 0x9f, 0x1f, 1, 5],
            encode(&SessionRow::V1(session(-2000))),
        ),
        (
            &[0, 2, b'h', b'i'],
            encode(&ReplyRow::V1(Bytes::from_static(b"hi"))),
        ),
    ];
    for (expected, encoded) in golden {
        assert_eq!(expected, &encoded[..]);
    }
}

#[test]
fn a_move_carries_ages_not_times() {
    let key = [&[SESSION][..], &9u64.to_be_bytes()].concat();
    let row = encode(&SessionRow::V1(session(10_000)));
    let age = outgoing(&key, &row, 25_000).unwrap();
    // The new group is younger than the session was idle.
    let arrived = incoming(&key, &age, 4_000).unwrap();
    let SessionRow::V1(arrived) = postcard::from_bytes(&arrived).unwrap();
    assert_eq!(arrived.active_ms, -11_000);
    assert_eq!(arrived.idle_ms(4_000), 15_000);
    // Other rows pass unchanged; nonsense is refused.
    assert_eq!(
        outgoing(&[TABLE], b"x", 1).unwrap(),
        Bytes::from_static(b"x")
    );
    assert_eq!(incoming(&key, b"", 1), Err(Refusal::Malformed));
}
