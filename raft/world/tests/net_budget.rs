//! What hostile clients may hold, and that others are served meanwhile. The simulated socket takes
//! everything and has no buffers to fill, so most of this is for the real one.

mod net_common;

use net_common::*;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use world::clock::now;
use world::net::{Head, Kind, LEAST_MEMORY, Limits, Link, header};
use world::testing::{SIMULATED, block_on_test};

/// Time for the sockets to fill.
const IDLE: Duration = Duration::from_millis(50);
const LONG: usize = 10 << 20;

fn limits() -> Limits {
    Limits {
        memory: LEAST_MEMORY,
        frame_timeout: 5 * SECOND,
        ..Limits::default()
    }
}

/// The most of a long frame that is never whole, until the server takes no more.
async fn half_frame(server: &Running) -> TcpStream {
    let mut stream = raw_as(server.addr, &client()).await.expect("a place");
    let body = vec![7; LONG];
    let head = Head {
        kind: Kind::Request,
        channel: ECHO,
        id: 1,
        deadline_ms: 60_000,
    };
    let bytes = [&header(head, &body)[..], &body[..LONG - 1024]].concat();
    let _ = timeout(IDLE, stream.write_all(&bytes)).await;
    stream
}

fn client_link(server: &Running) -> Link {
    Link::new(
        server.addr.to_string(),
        Limits::default(),
        std::sync::Arc::new(client),
        std::sync::Arc::new(|_| Ok(())),
    )
}

#[test]
fn half_frames_keep_nobody_out() {
    block_on_test(async {
        let server = serve(limits()).await;
        let mut hogs = Vec::new();
        for _ in 0..20 {
            hogs.push(half_frame(&server).await);
        }
        let link = client_link(&server);
        let short = link.call(ECHO, bytes(7), SECOND).await;
        assert_eq!(
            short,
            Ok(bytes(7)),
            "a short request needs no room of theirs"
        );
        // A long one waits for its turn: those before it have a tenth of their time.
        let long = vec![1; LONG - 8];
        let answer = link.call(ECHO, long.clone().into(), 30 * SECOND).await;
        assert_eq!(answer.map(|body| body.len()), Ok(long.len()));
    });
}

#[test]
fn a_frame_that_does_not_come_to_its_end_closes_the_connection() {
    block_on_test(async {
        let server = serve(Limits {
            frame_timeout: SECOND,
            ..limits()
        })
        .await;
        for length in [1, 27, 40] {
            let mut stream = raw_as(server.addr, &client()).await.expect("a place");
            let whole = request(ECHO, 1, &[7; 20]);
            send_raw(&mut stream, &whole[..length]).await;
            let started = now();
            // It talks all the time; that is no excuse.
            let drip = whole[length..].iter().take(6);
            for byte in drip {
                sleep(SECOND / 4).await;
                send_raw(&mut stream, &[*byte]).await;
            }
            assert!(ends_within(&mut stream, 5 * SECOND).await, "{length} bytes");
            assert!(started.elapsed() >= SECOND);
        }
    });
}

/// Every tiny reply is counted with what it takes besides its bytes.
#[test]
fn tiny_requests_of_a_peer_that_reads_nothing_have_an_end() {
    if SIMULATED {
        return;
    }
    block_on_test(async {
        for channel in [ECHO, YIELD, NEVER] {
            let server = serve(limits()).await;
            let mut deaf = raw_as(server.addr, &client()).await.expect("a place");
            let many = request(channel, 1, b"").repeat(10_000);
            let mut sent = 0;
            while sent < 100 {
                match timeout(SECOND / 2, deaf.write_all(&many)).await {
                    Ok(written) => written.expect("it is open"),
                    Err(_) => break,
                }
                sent += 1;
            }
            assert!(sent < 100, "channel {channel}: a million were taken");
            // What the sockets hold was answered besides.
            let served = server.room.seen.lock().unwrap().calls.len();
            assert!(served < 600_000, "channel {channel}: {served} were served");
        }
    });
}

/// Whoever has much to ask takes turns with whoever has little. All of it is there before the server
/// runs again.
#[cfg(not(madsim))]
#[test]
fn one_connection_does_not_keep_others_waiting() {
    block_on_test(async {
        let server = serve(limits()).await;
        let greedy = raw_as(server.addr, &client()).await.expect("a place");
        let modest = raw_as(server.addr, &client()).await.expect("a place");
        let many = request(ECHO, 1, b"greedy").repeat(1000);
        let mut asked = 0;
        while let Ok(written) = greedy.try_write(&many[asked % many.len()..]) {
            asked += written;
        }
        let frames = asked * 1000 / many.len();
        assert!(frames > 20_000, "{frames} fit into the sockets");
        let one = request(ECHO, 1, b"modest");
        assert_eq!(modest.try_write(&one).ok(), Some(one.len()));
        let place = || {
            let seen = server.room.seen.lock().unwrap();
            seen.calls.iter().position(|call| &call[..] == b"modest")
        };
        until("the other is served", || place().is_some()).await;
        let place = place();
        assert!(place.is_some_and(|place| place < 2000), "{place:?}");
    });
}
