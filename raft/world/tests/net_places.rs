//! Who gets one of a server's connections.

mod net_common;

use net_common::*;
use tokio::net::TcpStream;
use tokio::time::sleep;
use world::clock::now;
use world::net::{Kind, Limits};
use world::testing::block_on_test;

fn limits() -> Limits {
    Limits {
        max_connections: 2,
        reserve: 2,
        ..Limits::default()
    }
}

/// A server with two clients, its limit.
async fn full() -> (Running, Vec<TcpStream>) {
    let server = serve(limits()).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(raw_as(server.addr, &client()).await.unwrap());
    }
    (server, clients)
}

/// Connections that say nothing.
async fn strangers(server: &Running, number: usize) -> Vec<TcpStream> {
    let mut silent = Vec::new();
    for _ in 0..number {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    silent
}

#[test]
fn clients_beyond_the_limit_are_refused_and_places_are_given_back() {
    block_on_test(async {
        let (server, mut clients) = full().await;
        let refused = raw_as(server.addr, &client()).await.unwrap_err();
        assert_eq!(refused, "all 2 connections for clients are taken");
        // A member of another group is one of them.
        let other = world::net::Hello {
            group: Some(2),
            ..hello(1)
        };
        assert_eq!(raw_as(server.addr, &other).await.unwrap_err(), refused);
        clients.pop();
        // The server learns of it in its own time.
        let started = now();
        while raw_as(server.addr, &client()).await.is_err() {
            assert!(started.elapsed() < 5 * SECOND);
            sleep(MS).await;
        }
    });
}

/// Clients that stay for ever do not keep a server from its own group.
#[test]
fn members_of_the_group_have_places_of_their_own() {
    block_on_test(async {
        let (server, _clients) = full().await;
        let _one = raw_as(server.addr, &hello(1)).await.expect("a member");
        let _two = raw_as(server.addr, &hello(2)).await.expect("a member");
        // Of these, too, there is an end.
        let refused = raw_as(server.addr, &hello(1)).await.unwrap_err();
        assert_eq!(refused, "", "closed at once");
    });
}

/// Members take none of the clients' places.
#[test]
fn clients_have_their_places_beside_members() {
    block_on_test(async {
        let server = serve(limits()).await;
        let mut kept = Vec::new();
        for own in [hello(1), hello(2), client(), client()] {
            kept.push(raw_as(server.addr, &own).await.expect("a place"));
        }
    });
}

/// Connections that say no hello, as many as one likes, long before the time for a hello is over.
#[test]
fn strangers_keep_nobody_out() {
    block_on_test(async {
        let (server, mut clients) = full().await;
        let silent = strangers(&server, 20).await;
        let _one = raw_as(server.addr, &hello(1)).await.expect("a member");
        let more = strangers(&server, 20).await;
        let _two = raw_as(server.addr, &hello(2)).await.expect("a member");
        // Those that said hello are all there.
        for client in &mut clients {
            send_raw(client, &frame(Kind::Ping, b"")).await;
            assert!(!ends_within(client, 20 * MS).await);
        }
        drop((silent, more));
    });
}

/// Nor do they count as clients.
#[test]
fn strangers_are_no_clients() {
    block_on_test(async {
        let server = serve(limits()).await;
        let _silent = strangers(&server, 4).await;
        for _ in 0..2 {
            std::mem::forget(raw_as(server.addr, &client()).await.expect("a client"));
        }
    });
}

/// Without newcomers they have the time for a hello.
#[test]
fn strangers_have_their_time() {
    block_on_test(async {
        let server = serve(Limits {
            hello_timeout: 200 * MS,
            ..limits()
        })
        .await;
        let mut silent = strangers(&server, 4).await;
        assert!(!ends_within(&mut silent[0], 100 * MS).await);
        assert!(ends_within(&mut silent[0], SECOND).await);
    });
}

/// Whatever is accepted, what the disk needs is left.
#[test]
fn connections_leave_files_to_the_disk() {
    let most = |files| {
        let limits = Limits::default().within(files);
        limits.map(|limits| limits.max_connections)
    };
    assert_eq!(most(u64::MAX), Ok(1024));
    assert_eq!(most(1024 + 64 + 192), Ok(1024));
    assert_eq!(most(1024), Ok(1024 - 64 - 192));
    assert_eq!(most(16 + 64 + 192), Ok(16));
    // With fewer it would serve next to nobody.
    assert_eq!(most(16 + 64 + 191), Err(16 + 64 + 192));
    assert_eq!(most(0), Err(16 + 64 + 192));
}
