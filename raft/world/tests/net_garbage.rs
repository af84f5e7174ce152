//! What strangers may send to the port: the server closes the connection and lives.

mod net_common;

use bytes::Bytes;
use net_common::*;
use std::sync::Arc;
use tokio::net::TcpStream;
use world::clock::now;
use world::net::{CallError, HEADER, Head, Kind, Limits, Link, header};
use world::testing::block_on_test;

/// Deterministic noise.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    (0..length).map(step).collect()
}

async fn assert_alive(server: &Running) {
    let link = link_to(server.addr, Limits::default());
    assert_eq!(link.call(ECHO, bytes(1), 5 * SECOND).await, Ok(bytes(1)));
}

#[test]
fn garbage_closes_the_connection_and_nothing_else() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let witness = link_to(server.addr, Limits::default());
        assert!(witness.call(ECHO, Bytes::new(), 5 * SECOND).await.is_ok());
        let http = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        let one_wrong_byte = vec![0];
        for seed in 0..20 {
            for garbage in [
                noise(seed, 1 + 97 * seed as usize),
                http.clone(),
                one_wrong_byte.clone(),
            ] {
                if garbage[0] == world::net::MARK {
                    continue;
                }
                // Before the hello, and after it.
                let mut stream = TcpStream::connect(server.addr).await.unwrap();
                send_raw(&mut stream, &garbage).await;
                assert!(ends_within(&mut stream, SECOND).await);
                let mut stream = raw(server.addr).await;
                send_raw(&mut stream, &garbage).await;
                assert!(ends_within(&mut stream, SECOND).await);
            }
        }
        assert!(witness.call(ECHO, Bytes::new(), 5 * SECOND).await.is_ok());
        assert_eq!(server.room.seen.lock().unwrap().mail.len(), 0);
        assert_alive(&server).await;
    });
}

#[test]
fn an_over_long_frame_is_refused_by_its_header() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        for length in [Limits::default().max_frame as u32 + 1, u32::MAX] {
            let mut long = header(Head::plain(Kind::Mail, 0), b"");
            long[4..8].copy_from_slice(&length.to_le_bytes());
            let mut stream = raw(server.addr).await;
            send_raw(&mut stream, &long).await;
            assert!(ends_within(&mut stream, SECOND).await);
        }
        // Before the hello already a small frame is over-long.
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        send_raw(&mut stream, &frame(Kind::Hello, &[0; 5000])[..HEADER]).await;
        assert!(ends_within(&mut stream, SECOND).await);
        assert_alive(&server).await;
    });
}

#[test]
fn a_flipped_bit_is_not_delivered() {
    block_on_test(async {
        // A flip in the length may leave the server waiting for the rest: its patience ends that.
        let limits = Limits {
            idle_limit: 10 * MS,
            ..Limits::default()
        };
        let server = serve(limits).await;
        let sound = frame(Kind::Mail, b"sixteen bytes...");
        for bit in (0..sound.len() * 8).step_by(3) {
            let mut flipped = sound.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let mut stream = raw(server.addr).await;
            send_raw(&mut stream, &flipped).await;
            assert!(ends_within(&mut stream, 5 * SECOND).await, "bit {bit}");
        }
        assert!(server.room.seen.lock().unwrap().mail.is_empty());
        let mut stream = raw(server.addr).await;
        send_raw(&mut stream, &sound).await;
        let seen = server.room.seen.clone();
        until("the sound frame came", || {
            seen.lock().unwrap().mail.len() == 1
        })
        .await;
    });
}

#[test]
fn a_silent_client_is_closed_after_the_hello_timeout() {
    block_on_test(async {
        let limits = Limits {
            hello_timeout: 300 * MS,
            ..Limits::default()
        };
        let server = serve(limits).await;
        let started = now();
        let mut silent = TcpStream::connect(server.addr).await.unwrap();
        let mut slow = TcpStream::connect(server.addr).await.unwrap();
        send_raw(&mut slow, &frame(Kind::Hello, &hello(1).to_bytes())[..30]).await;
        assert_alive(&server).await;
        assert!(!ends_within(&mut silent, 200 * MS).await);
        assert!(ends_within(&mut silent, 5 * SECOND).await);
        assert!(ends_within(&mut slow, 5 * SECOND).await);
        assert!(started.elapsed() >= 300 * MS);
        assert_alive(&server).await;
    });
}

#[test]
fn a_peer_silent_after_its_hello_is_closed_too() {
    block_on_test(async {
        let limits = Limits {
            idle_limit: 20 * MS,
            ..Limits::default()
        };
        let server = serve(limits).await;
        let started = now();
        let mut silent = raw(server.addr).await;
        assert!(ends_within(&mut silent, 5 * SECOND).await);
        assert!(started.elapsed() >= 350 * MS, "{:?}", started.elapsed());
        assert_alive(&server).await;
    });
}

#[test]
fn kinds_without_a_place_close_the_connection() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        for kind in [Kind::Hello, Kind::Refused, Kind::Reply, Kind::Pong] {
            let mut stream = raw(server.addr).await;
            send_raw(&mut stream, &frame(kind, b"")).await;
            assert!(ends_within(&mut stream, SECOND).await, "{kind:?}");
        }
        for kind in [Kind::Mail, Kind::Request, Kind::Ping] {
            let mut stream = TcpStream::connect(server.addr).await.unwrap();
            send_raw(&mut stream, &frame(kind, b"")).await;
            assert!(
                ends_within(&mut stream, SECOND).await,
                "{kind:?} before the hello"
            );
        }
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        send_raw(&mut stream, &frame(Kind::Hello, b"unreadable")).await;
        assert!(ends_within(&mut stream, SECOND).await);
        assert!(server.room.seen.lock().unwrap().mail.is_empty());
        assert_alive(&server).await;
    });
}

#[test]
fn a_refusal_says_why_in_either_direction() {
    block_on_test(async {
        let refuse = Some("this is cluster 5, you are of 6".to_string());
        let server = serve_at(
            ANY,
            Limits::default(),
            Room {
                refuse,
                ..Room::default()
            },
        )
        .await;
        let link = link_to(server.addr, Limits::default());
        let Err(CallError::Refused { target, reason }) = link.call(ECHO, bytes(1), SECOND).await
        else {
            panic!("not refused")
        };
        assert_eq!(target, server.addr.to_string());
        assert_eq!(reason, "this is cluster 5, you are of 6");
        assert!(server.room.seen.lock().unwrap().calls.is_empty());
        drop(server);

        let server = serve(Limits::default()).await;
        let check = Arc::new(|peer: &world::net::Hello| Err(format!("not node {}", peer.node)));
        let picky = Link::new(
            server.addr.to_string(),
            Limits::default(),
            Arc::new(|| hello(1)),
            check,
        );
        let refused = picky.call(ECHO, bytes(1), SECOND).await;
        assert!(
            matches!(refused, Err(CallError::Refused { reason, .. }) if reason == "not node 100")
        );
        assert!(server.room.seen.lock().unwrap().calls.is_empty());
    });
}

#[test]
fn protocols_without_overlap_are_refused_naming_both_ranges() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let say = |protocol| {
            Arc::new(move || world::net::Hello {
                protocol,
                ..hello(1)
            })
        };
        let link_of = |protocol| {
            let target = server.addr.to_string();
            Link::new(
                target,
                Limits::default(),
                say(protocol),
                Arc::new(|_| Ok(())),
            )
        };
        let refused = link_of((5, 6)).call(ECHO, bytes(1), SECOND).await;
        let Err(CallError::Refused { reason, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(
            reason.contains("1 to 2") && reason.contains("5 to 6"),
            "{reason}"
        );
        assert_eq!(
            link_of((0, 6)).call(ECHO, bytes(1), SECOND).await,
            Ok(bytes(1))
        );
    });
}
