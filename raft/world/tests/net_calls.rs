//! Calls and mail over links to a living server, in both worlds.

mod net_common;

use bytes::Bytes;
use net_common::*;
use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::time::timeout;
use world::clock::now;
use world::net::{CallError, Hello, Limits, Link};
use world::testing::block_on_test;

#[test]
fn concurrent_calls_get_their_own_answers() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        let callers: Vec<_> = (0..64u64)
            .map(|caller| {
                let link = link.clone();
                tokio::spawn(async move {
                    for i in 0..50 {
                        let body = bytes(caller * 1000 + i);
                        // Later callers answer sooner: replies come out of order.
                        let (channel, body) = match i {
                            0 => (SLOW, bytes(64 - caller)),
                            _ => (ECHO, body),
                        };
                        assert_eq!(link.call(channel, body.clone(), 5 * SECOND).await, Ok(body));
                    }
                })
            })
            .collect();
        for caller in callers {
            caller.await.unwrap();
        }
        assert_eq!(server.room.seen.lock().unwrap().calls.len(), 64 * 50);
        assert_eq!(link.peer().map(|p| p.node), Some(100));
    });
}

#[test]
fn mail_arrives_in_order_and_is_dropped_without_a_connection() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        assert!(!link.mail(0, bytes(0)), "not connected: dropped");
        until("mail made the link connect", || link.peer().is_some()).await;
        for i in 1..=5000u64 {
            assert!(link.mail(0, bytes(i)));
            if i % 100 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let seen = server.room.seen.clone();
        until("all mail came", || seen.lock().unwrap().mail.len() == 5000).await;
        let numbers: Vec<u64> = seen
            .lock()
            .unwrap()
            .mail
            .iter()
            .map(|m| number(m))
            .collect();
        assert_eq!(numbers, (1..=5000).collect::<Vec<_>>());
    });
}

#[test]
fn calls_reach_the_service_in_the_order_they_were_made() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        let mut calls = Vec::new();
        for i in 0..200 {
            let link = link.clone();
            let mut call = Box::pin(async move { link.call(SLOW, bytes(i % 3), 5 * SECOND).await });
            // The first poll queues it.
            assert_eq!(timeout(Duration::ZERO, &mut call).await.ok(), None);
            calls.push(call);
        }
        for (i, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await, Ok(bytes(i as u64 % 3)));
        }
        let order: Vec<u64> = server
            .room
            .seen
            .lock()
            .unwrap()
            .calls
            .iter()
            .map(|b| number(b))
            .collect();
        assert_eq!(order, (0..200).map(|i| i % 3).collect::<Vec<_>>());
    });
}

#[test]
fn the_deadline_travels_as_what_remains() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        let arrived = link.call(DEADLINE, Bytes::new(), 700 * MS).await.unwrap();
        assert!(
            (300..=700).contains(&number(&arrived)),
            "{}",
            number(&arrived)
        );
    });
}

#[test]
fn an_unanswered_call_ends_at_its_deadline_and_so_does_the_request() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        assert!(link.call(ECHO, Bytes::new(), SECOND).await.is_ok());
        let started = now();
        let answer = link.call(NEVER, Bytes::new(), 100 * MS).await;
        assert!(
            matches!(answer, Err(CallError::NoAnswer { .. })),
            "{answer:?}"
        );
        assert!(
            (100 * MS..600 * MS).contains(&started.elapsed()),
            "{:?}",
            started.elapsed()
        );
        // The server does not keep a place for what nobody waits for.
        let seen = server.room.seen.clone();
        until("the request was dropped", || {
            seen.lock().unwrap().dropped == 1
        })
        .await;
        assert!(started.elapsed() < SECOND, "{:?}", started.elapsed());
        assert!(link.peer().is_some(), "the connection stays");
    });
}

#[test]
fn a_cancelled_call_leaves_the_link_usable() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        for _ in 0..20 {
            // Cancelled before it is sent, on its way, or while it is served.
            for pause in [0, 1, 10] {
                let call = link.call(SLOW, bytes(20), SECOND);
                assert!(timeout(MS * pause, call).await.is_err());
                assert_eq!(link.call(ECHO, bytes(9), SECOND).await, Ok(bytes(9)));
            }
        }
    });
}

#[test]
fn large_bodies_pass_and_larger_ones_are_refused_here() {
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = link_to(server.addr, Limits::default());
        let large = Bytes::from(
            (0..8u32 << 20)
                .map(|i| ((i * 31) >> 7) as u8)
                .collect::<Vec<_>>(),
        );
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let (link, large) = (link.clone(), large.clone());
                tokio::spawn(async move { link.call(ECHO, large, 20 * SECOND).await })
            })
            .collect();
        for call in calls {
            assert!(call.await.unwrap().unwrap() == large);
        }
        let size = Limits::default().max_frame + 1;
        let limit = size - 1;
        let too_large = Bytes::from(vec![0; size]);
        let refused = link.call(ECHO, too_large.clone(), SECOND).await;
        assert_eq!(refused, Err(CallError::TooLarge { size, limit }));
        assert!(!link.mail(0, too_large));
        // A reply beyond the limit is not sent, and harms nobody else.
        let none = link.call(LARGE, bytes(size as u64), 300 * MS).await;
        assert!(matches!(none, Err(CallError::NoAnswer { .. })), "{none:?}");
        assert_eq!(link.call(ECHO, bytes(1), SECOND).await, Ok(bytes(1)));
    });
}

#[test]
fn beyond_max_calls_the_socket_is_not_read_and_nothing_is_lost() {
    block_on_test(async {
        let limits = Limits {
            max_calls: 8,
            idle_limit: 200 * MS,
            ..Limits::default()
        };
        let server = serve(limits.clone()).await;
        let link = link_to(server.addr, limits);
        let calls: Vec<_> = (0..40)
            .map(|_| {
                let link = link.clone();
                // Slower than the link's patience: a full server must not pass for a dead one.
                tokio::spawn(async move { link.call(SLOW, bytes(500), 20 * SECOND).await })
            })
            .collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), Ok(bytes(500)));
        }
        assert_eq!(server.room.seen.lock().unwrap().most_running, 8);
    });
}

#[test]
fn beyond_max_call_bytes_the_socket_is_not_read() {
    block_on_test(async {
        let limits = Limits {
            max_call_bytes: 100 << 10,
            ..Limits::default()
        };
        let server = serve(limits.clone()).await;
        let link = link_to(server.addr, limits);
        let started = now();
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let link = link.clone();
                let body = Bytes::from(vec![1; 50 << 10]);
                tokio::spawn(async move { link.call(YIELD, body, 20 * SECOND).await })
            })
            .collect();
        for call in calls {
            assert!(call.await.unwrap().is_ok());
        }
        // Reading goes on as soon as there is a place, not at the next tick.
        assert!(started.elapsed() < 1500 * MS, "{:?}", started.elapsed());
        let most = server.room.seen.lock().unwrap().most_running;
        assert!((1..=2).contains(&most), "{most}");
    });
}

#[test]
fn a_full_send_queue_drops_mail_and_lets_calls_wait() {
    block_on_test(async {
        let limits = Limits {
            send_queue: 10_000,
            ..Limits::default()
        };
        let server = serve(limits.clone()).await;
        let link = link_to(server.addr, limits);
        assert!(link.call(ECHO, Bytes::new(), SECOND).await.is_ok());
        // Without an await the background task cannot send: the queue fills.
        let body = Bytes::from(vec![0; 1000 - world::net::HEADER]);
        let queued = (0..20).filter(|_| link.mail(0, body.clone())).count();
        assert_eq!(queued, 10);
        // A call waits for room; so does one larger than the whole queue.
        let large = Bytes::from(vec![1; 100_000]);
        let (one, two) = tokio::join!(
            link.call(ECHO, body.clone(), SECOND),
            link.call(ECHO, large.clone(), SECOND)
        );
        assert_eq!((one, two), (Ok(body.clone()), Ok(large)));
        assert_eq!(server.room.seen.lock().unwrap().mail.len(), 10);
        assert_eq!(
            (0..20).filter(|_| link.mail(0, body.clone())).count(),
            10,
            "room is given back"
        );
    });
}

/// Calls of one task, made in one go: more than its cooperative budget lets through, or more than
/// there is room for. They leave in that order, whatever order they are polled in afterwards.
#[test]
fn calls_leave_in_the_order_they_were_made() {
    for send_queue in [1 << 20, 300] {
        block_on_test(async move {
            let limits = Limits {
                send_queue,
                ..Limits::default()
            };
            let server = serve(Limits::default()).await;
            let link = link_to(server.addr, limits);
            let call = |n| Some(Box::pin(link.call(ECHO, bytes(n), 20 * SECOND)));
            let mut calls: Vec<_> = (0..256).map(call).collect();
            let mut first = true;
            poll_fn(|cx| {
                for call in &mut calls {
                    if let Some(waiting) = call
                        && let Poll::Ready(answer) = waiting.as_mut().poll(cx)
                    {
                        answer.unwrap();
                        *call = None;
                    }
                }
                if std::mem::take(&mut first) {
                    calls.reverse();
                }
                match calls.iter().all(Option::is_none) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            })
            .await;
            let order: Vec<_> = (0..256).map(bytes).collect();
            assert_eq!(server.room.seen.lock().unwrap().calls, order);
        });
    }
}

#[test]
fn a_name_below_localhost_that_nobody_knows_is_this_machine() {
    if world::testing::SIMULATED {
        return;
    }
    block_on_test(async {
        let server = serve(Limits::default()).await;
        let link = Link::new(
            format!("nobody-knows-it.localhost:{}", server.addr.port()),
            Limits::default(),
            Arc::new(|| hello(1)),
            Arc::new(|_: &Hello| Ok(())),
        );
        assert_eq!(
            link.call(ECHO, bytes(1), 5 * SECOND).await,
            Ok(bytes(1)),
            "as RFC 6761 has it"
        );
    });
}
