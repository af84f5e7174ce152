//! Connections that break, peers that stop answering, servers that come back.

mod net_common;

use bytes::Bytes;
use net_common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use world::clock::now;
use world::net::{CallError, HEADER, Kind, Limits, Link};
use world::testing::block_on_test;

/// A server made by hand that says hello and then never answers, but reads when `reads`.
async fn mute(reads: bool) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(ANY).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        let mut kept: Vec<TcpStream> = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            let mut said = vec![0; HEADER + hello(1).to_bytes().len()];
            stream.read_exact(&mut said).await.unwrap();
            send_raw(&mut stream, &frame(Kind::Hello, &hello(100).to_bytes())).await;
            if reads {
                tokio::spawn(async move {
                    let mut sink = vec![0; 1 << 16];
                    while matches!(stream.read(&mut sink).await, Ok(1..)) {}
                });
            } else {
                kept.push(stream);
            }
        }
    });
    (addr, connections)
}

#[test]
fn a_link_finds_a_restarted_server() {
    block_on_test(async {
        let mut server = serve(Limits::default()).await;
        let addr = server.addr;
        let link = link_to(addr, Limits::default());
        for round in 0..5 {
            let started = now();
            // The first call may find the old connection broken.
            while link.call(ECHO, bytes(round), SECOND).await.is_err() {
                assert!(started.elapsed() < 5 * SECOND);
            }
            drop(server);
            until("the link saw the end", || link.peer().is_none()).await;
            let started = now();
            let failed = link.call(ECHO, bytes(round), 5 * SECOND).await;
            assert!(
                matches!(failed, Err(CallError::NotSent { .. })),
                "{failed:?}"
            );
            assert!(
                started.elapsed() < SECOND,
                "failed late: {:?}",
                started.elapsed()
            );
            server = serve_at(&addr.to_string(), Limits::default(), Room::default()).await;
        }
        let started = now();
        while !link.mail(0, bytes(1)) {
            assert!(started.elapsed() < 5 * SECOND);
            sleep(MS).await;
        }
    });
}

/// Nobody says anything: the first mail after the start, and after each restart, is not lost.
#[test]
fn a_kept_link_connects_by_itself() {
    block_on_test(async {
        let mut server = serve(Limits::default()).await;
        let addr = server.addr;
        let link = link_to(addr, Limits::default());
        link.keep();
        for round in 0..3 {
            until("the link is connected", || link.peer().is_some()).await;
            assert!(link.mail(0, bytes(round)));
            drop(server);
            until("the link saw the end", || link.peer().is_none()).await;
            server = serve_at(&addr.to_string(), Limits::default(), Room::default()).await;
        }
    });
}

/// A peer that fell silent while there was nothing to say is found out before there is.
#[test]
fn a_kept_link_finds_out_that_its_peer_is_silent() {
    block_on_test(async {
        let (addr, connections) = mute(true).await;
        let link = link_to(
            addr,
            Limits {
                idle_limit: 200 * MS,
                ..Limits::default()
            },
        );
        link.keep();
        until("it connected again, unasked", || {
            connections.load(Ordering::Relaxed) >= 2
        })
        .await;
    });
}

#[test]
fn calls_in_flight_when_the_connection_breaks_have_no_answer() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        let flying = tokio::spawn({
            let link = link.clone();
            async move { link.call(NEVER, bytes(1), 20 * SECOND).await }
        });
        let seen = server.room.seen.clone();
        until("the call arrived", || seen.lock().unwrap().running == 1).await;
        let started = now();
        drop(server);
        let answer = flying.await.unwrap();
        assert!(
            matches!(answer, Err(CallError::NoAnswer { .. })),
            "{answer:?}"
        );
        assert!(started.elapsed() < 5 * SECOND);
        until("the request was dropped", || {
            seen.lock().unwrap().dropped == 1
        })
        .await;
    });
}

#[test]
fn nobody_listening_is_said_at_once_and_attempts_are_spaced() {
    block_on_test(async {
        // Bound and dropped: a port where nobody listens.
        let addr = serve(Limits::default()).await.addr;
        let asked = Arc::new(AtomicUsize::new(0));
        let link = link_to(addr, Limits::default());
        until("nobody listens", || true).await;
        let started = now();
        while started.elapsed() < SECOND {
            let failed = link.call(ECHO, bytes(1), SECOND).await;
            if matches!(failed, Err(CallError::NotSent { .. })) {
                asked.fetch_add(1, Ordering::Relaxed);
            }
        }
        // One at once, the next after 50 ms, then every 100 ms.
        let asked = asked.load(Ordering::Relaxed);
        assert!((5..=13).contains(&asked), "{asked}");
    });
}

#[test]
fn a_peer_that_stops_answering_is_dropped_and_dialled_again() {
    for reads in [true, false] {
        block_on_test(async move {
            let limits = Limits {
                idle_limit: 200 * MS,
                ..Limits::default()
            };
            let (addr, connections) = mute(reads).await;
            let link = link_to(addr, limits);
            for round in 1..=3 {
                let started = now();
                let answer = link.call(ECHO, bytes(1), 20 * SECOND).await;
                assert!(
                    matches!(answer, Err(CallError::NoAnswer { .. })),
                    "{answer:?}"
                );
                let took = started.elapsed();
                assert!((200 * MS..SECOND).contains(&took), "{took:?}");
                assert_eq!(connections.load(Ordering::Relaxed), round);
            }
        });
    }
}

#[test]
fn one_way_mail_notices_a_dead_peer() {
    block_on_test(async {
        let limits = Limits {
            idle_limit: 200 * MS,
            ..Limits::default()
        };
        let (addr, connections) = mute(true).await;
        let link = link_to(addr, limits);
        link.mail(0, bytes(0));
        until("connected", || link.peer().is_some()).await;
        assert!(link.mail(0, bytes(1)));
        let started = now();
        until("dropped", || link.peer().is_none()).await;
        let took = started.elapsed();
        assert!((100 * MS..SECOND).contains(&took), "{took:?}");
        link.mail(0, bytes(2));
        until("dialled again", || connections.load(Ordering::Relaxed) == 2).await;
    });
}

#[test]
fn an_idle_link_notices_a_dead_peer_too() {
    block_on_test(async {
        let limits = Limits {
            idle_limit: 40 * MS,
            ..Limits::default()
        };
        let (addr, _) = mute(true).await;
        let link = link_to(addr, limits);
        link.mail(0, bytes(0));
        until("connected", || link.peer().is_some()).await;
        until("dropped", || link.peer().is_none()).await;
    });
}

#[test]
fn a_living_connection_is_kept_however_idle_or_one_sided() {
    block_on_test(async {
        let limits = Limits {
            idle_limit: 100 * MS,
            ..Limits::default()
        };
        let server = serve(limits.clone()).await;
        let link = link_to(server.addr, limits);
        let room = server.room.clone();
        link.mail(0, bytes(0));
        until("connected", || link.peer().is_some()).await;
        let steady = |time| {
            let link = link.clone();
            async move {
                let started = now();
                while started.elapsed() < time {
                    assert!(link.peer().is_some(), "lost after {:?}", started.elapsed());
                    sleep(5 * MS).await;
                }
            }
        };
        // Idle for longer than the server's patience of 20 idle limits.
        steady(2500 * MS).await;
        // A slow request.
        let call = link.call(SLOW, bytes(800), 5 * SECOND);
        let (answer, ()) = tokio::join!(call, steady(700 * MS));
        assert_eq!(answer, Ok(bytes(800)));
        // Mail alone.
        for i in 0..100u64 {
            assert!(link.mail(0, bytes(i)));
            sleep(8 * MS).await;
        }
        assert!(link.peer().is_some());
        // The very first was dropped for want of a connection.
        until("all mail came", || {
            room.seen.lock().unwrap().mail.len() == 100
        })
        .await;
    });
}

#[test]
fn a_server_that_accepts_and_says_nothing_fails_the_attempt() {
    block_on_test(async {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let silent = tokio::spawn(async move {
            let mut kept = Vec::new();
            loop {
                kept.push(listener.accept().await.unwrap());
            }
        });
        let link = link_to(
            addr,
            Limits {
                connect_timeout: 200 * MS,
                ..Limits::default()
            },
        );
        let started = now();
        let failed = link.call(ECHO, bytes(1), 20 * SECOND).await;
        assert!(
            matches!(failed, Err(CallError::NotSent { .. })),
            "{failed:?}"
        );
        assert!((200 * MS..SECOND).contains(&started.elapsed()));
        // A shorter deadline wins.
        let started = now();
        let failed = link.call(ECHO, bytes(1), 50 * MS).await;
        assert!(
            matches!(failed, Err(CallError::NotSent { .. })),
            "{failed:?}"
        );
        assert!(started.elapsed() < 150 * MS, "{:?}", started.elapsed());
        silent.abort();
    });
}

#[test]
fn the_connection_ends_with_the_last_clone_of_its_link() {
    block_on_test(async {
        let listener = TcpListener::bind(ANY).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let link = link_to(addr, Limits::default());
        let clone = link.clone();
        link.mail(0, bytes(0));
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut said = vec![0; HEADER + hello(1).to_bytes().len()];
        stream.read_exact(&mut said).await.unwrap();
        send_raw(&mut stream, &frame(Kind::Hello, &hello(100).to_bytes())).await;
        until("connected", || clone.peer().is_some()).await;
        drop(link);
        assert!(
            timeout(50 * MS, stream.read_u8()).await.is_err(),
            "one clone still lives"
        );
        drop(clone);
        assert!(ends_within(&mut stream, SECOND).await);
    });
}

#[test]
fn host_names_are_resolved() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link_of = |host: &str| {
            let target = format!("{host}:{}", server.addr.port());
            Link::new(
                target,
                Limits::default(),
                Arc::new(|| hello(1)),
                Arc::new(|_| Ok(())),
            )
        };
        assert_eq!(
            link_of("localhost").call(ECHO, bytes(1), 5 * SECOND).await,
            Ok(bytes(1))
        );
        for nowhere in ["no-such-host.invalid", "not a name", ""] {
            let failed = link_of(nowhere).call(ECHO, Bytes::new(), 5 * SECOND).await;
            assert!(
                matches!(failed, Err(CallError::NotSent { .. })),
                "{failed:?}"
            );
        }
        let garbled = Link::new(
            "x",
            Limits::default(),
            Arc::new(|| hello(1)),
            Arc::new(|_| Ok(())),
        );
        let failed = garbled.call(ECHO, Bytes::new(), 5 * SECOND).await;
        assert!(
            matches!(failed, Err(CallError::NotSent { .. })),
            "{failed:?}"
        );
    });
}

#[test]
fn binding_twice_is_an_error_that_names_the_address() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let addr = server.addr.to_string();
        let taken = world::net::Server::bind(&addr, Limits::default()).await;
        let error = taken.err().expect("the address is taken").to_string();
        assert!(error.contains(&addr), "{error}");
    });
}
