//! Calls and mail over links to a living server, in both worlds.

mod net_common;

use bytes::Bytes;
use net_common::*;
use std::sync::Arc;
use tokio::time::{Instant, sleep, timeout};
use world::net::{CallError, Limits, Link};
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
            assert_eq!(
                timeout(std::time::Duration::ZERO, &mut call).await.ok(),
                None
            );
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
