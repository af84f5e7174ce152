//! What of the log may go.

use super::common::*;
use sim_tests::sim::RaftOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Under load, with a log that keeps nothing more than it must: it never begins behind what the
/// state has on disk, although more is applied while a flush runs.
#[madsim::test]
async fn the_log_begins_where_the_durable_state_ends() {
    let mut options = RaftOptions::small_log(3);
    let small = options.adjust.clone();
    options.adjust = Arc::new(move |o| {
        small(o);
        o.keep_log_bytes = 0;
    });
    scenario(options, |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let mut fired = Vec::new();
        let mut furthest = 0;
        for i in 0..400 {
            let mut command = command("load", i);
            command.resize(command.len() + 200, b'.');
            fired.push(fire(&c, leader, command, LONG));
            millis(2).await;
            for node in c.ids() {
                let status = c.status(node).expect("up");
                furthest = furthest.max(status.base);
                assert!(
                    status.base <= status.durable,
                    "node {node}: the log begins behind {}, the state is durable through {}",
                    status.base,
                    status.durable
                );
            }
        }
        assert!(furthest > 50, "the log was cut only through {furthest}");
        for task in fired {
            task.await.expect("not cancelled");
        }
        heal_and_settle(&c).await;
    })
    .await;
}

/// A log is full of what the state holds durably: the life before ended between the flush and the
/// cut. It takes nothing in until it is cut, so that must not wait for the next flush. Found by the
/// campaign (seed 404140): a group stood still for ever after a restart of all.
#[madsim::test]
async fn a_log_that_starts_full_is_cut() {
    let mut options = RaftOptions::small_log(3);
    let (small, grown) = (options.adjust.clone(), Arc::new(AtomicBool::new(false)));
    let narrow = grown.clone();
    options.adjust = Arc::new(move |o| {
        small(o);
        // The first life keeps what the second has no room for.
        let room = if narrow.load(Ordering::Relaxed) {
            4 << 10
        } else {
            1 << 20
        };
        (o.keep_log_bytes, o.max_unapplied_bytes) = (room / 4, room);
    });
    scenario(options, |c| async move {
        for i in 0..40 {
            let mut command = command("before", i);
            command.resize(1000, b'.');
            c.agree(&command, LONG).await;
        }
        c.settle(&c.ids(), 0).await;
        // At rest everything is flushed.
        millis(15_000).await;
        for node in c.ids() {
            c.kill(node);
        }
        grown.store(true, Ordering::Relaxed);
        for node in c.ids() {
            c.start(node);
        }
        c.agree(b"after", LONG).await;
        heal_and_settle(&c).await;
    })
    .await;
}

/// The state flushes more slowly than entries arrive: what is applied and not durable, and so the
/// log in memory, has an end.
#[madsim::test]
async fn no_more_is_applied_than_half_a_log_before_its_flush() {
    const SIZE: usize = 1000;
    const WRITERS: usize = 16;
    const ROOM: usize = 32 << 10;
    let mut options = RaftOptions::small_log(3);
    let small = options.adjust.clone();
    options.adjust = Arc::new(move |o| {
        small(o);
        (o.max_unflushed_bytes, o.store.chunk_bytes) = (ROOM / 2, 64 << 10);
    });
    // Now and then a flush stands still for a while, and the log does not.
    options.disk.stall = 0.02;
    scenario(options, |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let (mut writers, mut most) = (Vec::new(), 0);
        for writer in 0..WRITERS {
            let c = c.clone();
            writers.push(tokio::spawn(async move {
                for i in 0..150 {
                    let mut command = command("load", 1000 * writer + i);
                    command.resize(SIZE, b'.');
                    let _ = c.propose(leader, command, LONG).await;
                }
            }));
        }
        while writers.iter().any(|writer| !writer.is_finished()) {
            millis(1).await;
            let status = c.status(leader).expect("up");
            most = most.max((status.applied - status.durable) as usize * SIZE);
        }
        // The last batch may go beyond the half: it holds one command of each writer at the most.
        assert!(
            most <= ROOM / 2 + WRITERS * SIZE,
            "{most} bytes were applied and not durable"
        );
        heal_and_settle(&c).await;
    })
    .await;
}
