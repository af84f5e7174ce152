use super::*;
use crate::testing::block_on_test;
use tokio::net::TcpListener;

const LONG: usize = 9 << 20;

async fn pair() -> (Wire, Wire) {
    let any = if cfg!(madsim) {
        "127.0.0.1:7000"
    } else {
        "127.0.0.1:0"
    };
    let listener = TcpListener::bind(any).await.expect("a port");
    let address = listener.local_addr().expect("its address");
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let wire = |stream| Wire::new(stream, 10 << 20);
    (
        wire(near.expect("connected")),
        wire(far.expect("accepted").0),
    )
}

/// Sends these bodies and receives them; the frames are let go of one by one.
async fn exchange(from: &mut Wire, to: &mut Wire, bodies: &[usize]) {
    let send = async {
        for length in bodies {
            let head = Head::plain(Kind::Mail, 1);
            from.send(head, vec![7; *length].into())
                .await
                .expect("sent");
        }
    };
    let receive = async {
        for length in bodies {
            let frame = to.receive().await.expect("a frame");
            assert_eq!(frame.body.len(), *length);
        }
    };
    tokio::join!(send, receive);
}

#[test]
fn a_long_frame_leaves_no_long_buffer() {
    block_on_test(async {
        let (mut near, mut far) = pair().await;
        exchange(&mut near, &mut far, &[LONG]).await;
        assert!(far.held() <= READ && far.block <= 2 * READ);
        // Nor does one with short frames close behind it.
        exchange(&mut near, &mut far, &[100, LONG, 100, 100]).await;
        assert!(far.held() <= READ && far.block <= 2 * READ);
        near.rest();
        far.rest();
        assert_eq!((near.held(), far.held()), (0, 0));
    });
}

#[test]
fn a_long_frame_is_wanted_whole_and_read_without_more() {
    block_on_test(async {
        let (mut near, mut far) = pair().await;
        let send = near.send(Head::plain(Kind::Mail, 1), vec![7; LONG].into());
        let receive = async {
            let mut wants = Vec::new();
            loop {
                if let Some(frame) = far.next_frame().expect("sound") {
                    return (wants, frame);
                }
                match far.wanted() {
                    0 => {}
                    more => wants.push(more),
                }
                poll_fn(|cx| far.poll_fill(cx)).await.expect("open");
            }
        };
        let (sent, (wants, frame)) = tokio::join!(send, receive);
        sent.expect("sent");
        assert_eq!(frame.body.len(), LONG);
        assert_eq!(wants, [FIRST_READ, HEADER + LONG]);
    });
}
