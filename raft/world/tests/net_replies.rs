//! Replies that wait for a peer to take them. The simulated socket takes everything, so most of this is
//! for the real one.

mod net_common;

use net_common::*;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use world::clock::now;
use world::net::{Kind, Limits};
use world::testing::{SIMULATED, block_on_test};

/// Twenty of these are the server's patience.
const IDLE: Duration = Duration::from_millis(50);
const REPLIES: u64 = 60;
const REPLY: u64 = 1 << 20;

/// A server, and a client that has asked for much more than a socket holds.
async fn asked(limits: Limits) -> (Running, TcpStream) {
    let server = serve(Limits {
        idle_limit: IDLE,
        ..limits
    })
    .await;
    let mut stream = raw_as(server.addr, &client()).await.unwrap();
    for id in 1..=REPLIES {
        send_raw(&mut stream, &request(LARGE, id, &bytes(REPLY))).await;
    }
    (server, stream)
}

/// Its requests fill the server's room for replies: reading no more of it is no reason to keep it.
#[test]
fn a_peer_that_takes_no_replies_loses_its_place() {
    if SIMULATED {
        return;
    }
    block_on_test(async {
        let limits = Limits {
            send_queue: 8 << 20,
            max_connections: 1,
            ..Limits::default()
        };
        let (server, _deaf) = asked(limits).await;
        let taken = raw_as(server.addr, &client()).await;
        assert!(taken.is_err(), "there is one place");
        let started = now();
        while raw_as(server.addr, &client()).await.is_err() {
            assert!(started.elapsed() < 30 * SECOND, "it keeps its place");
            sleep(IDLE).await;
        }
    });
}

/// There is room for all its replies, and it goes on talking: that is no sign of reading.
#[test]
fn a_peer_that_talks_and_takes_no_replies_loses_its_place_too() {
    if SIMULATED {
        return;
    }
    block_on_test(async {
        let limits = Limits {
            send_queue: 128 << 20,
            ..Limits::default()
        };
        let (_server, mut deaf) = asked(limits).await;
        let mut lost = false;
        for _ in 0..100 {
            sleep(IDLE).await;
            let ping = frame(Kind::Ping, b"");
            lost |= deaf.write_all(&ping).await.is_err();
        }
        assert!(lost, "it is closed");
    });
}

/// Whoever takes a little now and then is served to the end, however long that takes.
#[test]
fn a_peer_that_reads_slowly_is_kept() {
    block_on_test(async {
        let limits = Limits {
            send_queue: 8 << 20,
            ..Limits::default()
        };
        let (_server, mut slow) = asked(limits).await;
        let mut buffer = vec![0; 1 << 20];
        let (mut left, mut rounds) = ((REPLIES * REPLY) as usize, 0);
        while left > 0 {
            let read = slow.read(&mut buffer).await.expect("it is open");
            assert!(read > 0, "closed with {left} bytes left");
            left = left.saturating_sub(read);
            rounds += 1;
            if rounds < 60 {
                sleep(IDLE).await;
            }
        }
    });
}

/// The replica counts replies until nobody holds them any more: a connection that has nothing left to
/// send must not.
#[test]
fn a_reply_that_was_sent_is_let_go_of() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        let seen = server.room.seen.clone();
        for (call, size) in [(1, 100), (2, REPLY)] {
            assert!(link.call(COUNTED, bytes(size), SECOND).await.is_ok());
            until("it is let go of", || seen.lock().unwrap().released == call).await;
        }
        assert!(link.peer().is_some(), "its connection is open");
    });
}
