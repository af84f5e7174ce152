//! Faults that only the simulation has: partitions, injected loss, duplication, delay, resets.
#![cfg(madsim)]

mod net_common;

use madsim::net::NetSim;
use madsim::runtime::Handle;
use net_common::*;
use std::cell::Cell;
use std::rc::Rc;
use tokio::time::sleep;
use world::clock::now;
use world::net::inject::{Passing, Verdict, set_judge};
use world::net::{CallError, Kind, Limits, Link};
use world::testing::block_on_test;

/// The first frame of this kind gets this verdict.
fn first(kind: Kind, verdict: Verdict) -> Rc<Cell<bool>> {
    let done = Rc::new(Cell::new(false));
    let judged = done.clone();
    set_judge(Some(Box::new(move |passing: &Passing<'_>| {
        let (from, to) = if kind == Kind::Reply {
            (100, 1)
        } else {
            (1, 100)
        };
        assert!(passing.kind != kind || (passing.from.node, passing.to.node) == (from, to));
        if passing.kind == kind && !judged.replace(true) {
            verdict
        } else {
            Verdict::Pass
        }
    })));
    done
}

async fn connected() -> (Running, Link) {
    set_judge(None);
    let server = serve(Limits::default()).await;
    let link = link_to(server.addr, Limits::default());
    link.mail(0, bytes(0));
    until("connected", || link.peer().is_some()).await;
    (server, link)
}

#[test]
fn mail_is_dropped_doubled_delayed_or_reset_as_judged() {
    let cases = [
        (Verdict::Pass, vec![1, 2, 3]),
        (Verdict::Drop, vec![2, 3]),
        (Verdict::Duplicate, vec![1, 1, 2, 3]),
        (Verdict::Delay(50 * MS), vec![2, 3, 1]),
        (Verdict::Reset, vec![]),
    ];
    for (verdict, expected) in cases {
        block_on_test(async move {
            let (server, link) = connected().await;
            let judged = first(Kind::Mail, verdict);
            for i in 1..=3 {
                assert!(link.mail(0, bytes(i)));
            }
            sleep(200 * MS).await;
            assert!(judged.get());
            let seen = server.room.seen.lock().unwrap();
            let numbers: Vec<u64> = seen.mail.iter().map(|m| number(m)).collect();
            assert_eq!(numbers, expected, "{verdict:?}");
            assert_eq!(link.peer().is_none(), verdict == Verdict::Reset);
            set_judge(None);
        });
    }
}

#[test]
fn requests_and_replies_are_judged_too() {
    let cases = [
        (Kind::Request, Verdict::Drop, false, 0),
        (Kind::Request, Verdict::Duplicate, true, 2),
        (Kind::Request, Verdict::Delay(50 * MS), true, 1),
        (Kind::Request, Verdict::Reset, false, 0),
        (Kind::Reply, Verdict::Drop, false, 1),
        (Kind::Reply, Verdict::Duplicate, true, 1),
        (Kind::Reply, Verdict::Delay(50 * MS), true, 1),
        (Kind::Reply, Verdict::Reset, false, 1),
    ];
    for (kind, verdict, answered, served) in cases {
        block_on_test(async move {
            let (server, link) = connected().await;
            let judged = first(kind, verdict);
            let started = now();
            let answer = link.call(SLOW, bytes(1), SECOND).await;
            assert!(judged.get());
            assert_eq!(answer.is_ok(), answered, "{kind:?} {verdict:?}: {answer:?}");
            assert!(
                answered || matches!(answer, Err(CallError::NoAnswer { .. })),
                "{answer:?}"
            );
            if let Verdict::Delay(time) = verdict {
                assert!(started.elapsed() >= time);
            }
            sleep(100 * MS).await;
            assert_eq!(
                server.room.seen.lock().unwrap().calls.len(),
                served,
                "{kind:?} {verdict:?}"
            );
            assert_eq!(link.call(ECHO, bytes(5), SECOND).await, Ok(bytes(5)));
            set_judge(None);
        });
    }
}

#[test]
fn a_healed_partition_is_noticed_within_two_seconds() {
    block_on_test(async {
        let handle = Handle::current();
        let node = |ip: &str| handle.create_node().ip(ip.parse().unwrap()).build();
        let (far, near) = (node("10.0.0.1"), node("10.0.0.2"));
        let (far_id, near_id) = (far.id(), near.id());
        far.spawn(async {
            let _server = serve_at("10.0.0.1:7000", Limits::default(), Room::default()).await;
            std::future::pending::<()>().await
        });
        let client = near.spawn(async move {
            let link = link_to("10.0.0.1:7000".parse().unwrap(), Limits::default());
            let net = NetSim::current();
            until("connected", || link.mail(0, bytes(0))).await;
            for both in [true, false] {
                net.clog_link(far_id, near_id);
                if both {
                    net.clog_link(near_id, far_id);
                }
                // Long enough for the old stream to fall silent for up to ten seconds more.
                let started = now();
                while started.elapsed() < 20 * SECOND {
                    let failed = link.call(ECHO, bytes(1), SECOND).await;
                    assert!(failed.is_err());
                }
                net.unclog_link(far_id, near_id);
                net.unclog_link(near_id, far_id);
                let healed = now();
                while link.call(ECHO, bytes(1), SECOND).await.is_err() {}
                assert!(healed.elapsed() < 2 * SECOND, "{:?}", healed.elapsed());
            }
        });
        client.await.unwrap();
    });
}

#[test]
fn a_name_is_resolved_afresh_at_each_connection() {
    block_on_test(async {
        let handle = Handle::current();
        let node = |ip: &str| handle.create_node().ip(ip.parse().unwrap()).build();
        let (old, new, near) = (node("10.0.0.1"), node("10.0.0.3"), node("10.0.0.2"));
        for (node, addr) in [(&old, "10.0.0.1:7000"), (&new, "10.0.0.3:7000")] {
            node.spawn(async move {
                let _server = serve_at(addr, Limits::default(), Room::default()).await;
                std::future::pending::<()>().await
            });
        }
        let net = NetSim::current();
        net.add_dns_record("moved", "10.0.0.1".parse().unwrap());
        let old = old.id();
        let client = near.spawn(async move {
            let hello = std::sync::Arc::new(|| hello(1));
            let link = Link::new(
                "moved:7000",
                Limits::default(),
                hello,
                std::sync::Arc::new(|_| Ok(())),
            );
            until("connected", || link.mail(0, bytes(0))).await;
            Handle::current().kill(old);
            until("lost", || link.peer().is_none()).await;
            NetSim::current().add_dns_record("moved", "10.0.0.3".parse().unwrap());
            let started = now();
            while link.call(ECHO, bytes(1), SECOND).await.is_err() {
                assert!(started.elapsed() < 5 * SECOND);
            }
        });
        client.await.unwrap();
    });
}
