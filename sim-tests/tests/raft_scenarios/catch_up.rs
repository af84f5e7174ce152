//! Members that lag are fed from the log on disk; those that are too slow for it hold clients back.

use super::common::*;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::{RaftCluster, RaftOptions, trace, wire};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;
use world::net::inject::{Verdict, set_judge};

/// Bytes of a command.
const SIZE: usize = 1000;

fn big(name: &str, number: usize) -> Vec<u8> {
    let mut command = command(name, number);
    command.resize(SIZE, b'.');
    command
}

/// Hardly anything stays in memory, and a megabyte on disk.
fn long_on_disk() -> RaftOptions {
    RaftOptions::small_log(3).and(|replica| {
        replica.keep_log_bytes = 1 << 20;
        replica.log.recover_bytes = 4 << 20;
        replica.max_append_bytes = 8 << 10;
    })
}

fn count(kind: &'static str) -> Arc<AtomicU64> {
    let seen = Arc::new(AtomicU64::new(0));
    let counter = seen.clone();
    trace::check(move |_, event| {
        if event.kind == kind {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    seen
}

fn hits(mark: &str) -> u64 {
    trace::marks().get(mark).copied().unwrap_or(0)
}

const FED: &str = "log: a follower is fed from the disk";
const THROTTLED: &str = "throttle: proposals wait for a member that catches up";

async fn writes(c: &RaftCluster, leader: u64, name: &str, count: usize) {
    for burst in 0..count / 10 {
        let fired: Vec<_> = (0..10)
            .map(|i| fire(c, leader, big(name, 10 * burst + i), LONG))
            .collect();
        for task in fired {
            assert!(task.await.expect("not cancelled").1, "the leader stays");
        }
    }
}

/// A member was away for longer than the log in memory reaches back, and not for longer than the log
/// on disk does: no snapshot is sent. The leader's log has entries of several terms, and it may lose
/// mail and members in the middle of it.
#[madsim::test]
async fn who_was_away_is_fed_from_the_disk() {
    scenario(long_on_disk(), |c| async move {
        let installs = count("install");
        let mut all = Vec::new();
        for round in 0..4 {
            let leader = c.wait_leader(&c.ids()).await;
            let others = c.others(&[leader]);
            let victim = others[round % 2];
            c.kill(victim);
            writes(&c, leader, &format!("missed {round}"), 100).await;
            if round % 2 == 1 {
                // Another one leads when it comes back, if its log has all.
                wire::faults(wire::Faults::unreliable());
                c.crash(leader);
                c.start(leader);
            }
            c.start(victim);
            let command = big("together", round);
            let index = c.agree(&command, LONG).await;
            all.push(command);
            c.settle(&c.ids(), index).await;
            wire::faults(wire::Faults::default());
        }
        assert!(hits(FED) >= 40, "fed {} times", hits(FED));
        assert_eq!(
            installs.load(Ordering::Relaxed),
            0,
            "nobody was sent a snapshot"
        );
        heal_and_settle(&c).await;
        exactly_once(&c, &all).await;
    })
    .await;
}

/// A member restarts under load: for a while the log is left where it was, and it needs no snapshot. One
/// that stays away is a reason to keep the log no more.
#[madsim::test]
async fn who_restarts_under_load_needs_no_snapshot() {
    let options = RaftOptions::small_log(3).and(|replica| {
        replica.patience = Duration::from_secs(5);
    });
    scenario(options, |c| async move {
        let installs = count("install");
        let leader = c.wait_leader(&c.ids()).await;
        let victim = c.others(&[leader])[0];
        for round in 0..3 {
            writes(&c, leader, &format!("before {round}"), 20).await;
            c.settle(&c.ids(), 0).await;
            c.kill(victim);
            writes(&c, leader, &format!("missed {round}"), 200).await;
            c.start(victim);
            let index = c.agree(&big("together", round), LONG).await;
            c.settle(&c.ids(), index).await;
        }
        assert_eq!(installs.load(Ordering::Relaxed), 0, "no snapshot was sent");
        c.kill(victim);
        writes(&c, leader, "alone", 200).await;
        let long = c.status(leader).expect("up");
        assert!(long.last - long.base >= 200, "the log is left for it");
        eventually("the log is cut", LONG, || async {
            c.status(leader).is_some_and(|s| s.last - s.base <= 30)
        })
        .await;
        c.start(victim);
        heal_and_settle(&c).await;
        assert_eq!(installs.load(Ordering::Relaxed), 1);
    })
    .await;
}

/// A start finds more entries behind the state than the state machine takes at once: each stays in
/// memory until it is handed over.
#[madsim::test]
async fn what_is_not_handed_over_stays_in_memory() {
    let options = RaftOptions::small_log(3).and(|replica| {
        replica.flush_log_bytes = 64 << 20;
        replica.log.segment_bytes = 16 << 20;
    });
    scenario(options, |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let mut all = Vec::new();
        for number in 0..60 {
            // Three times what is handed over at once.
            let mut command = command("long", number);
            command.resize(64 << 10, b'.');
            all.push(command);
        }
        for command in &all {
            assert!(
                fire(&c, leader, command.clone(), LONG)
                    .await
                    .expect("done")
                    .1
            );
        }
        c.settle(&c.ids(), 0).await;
        c.ids().into_iter().for_each(|node| c.crash(node));
        c.ids().into_iter().for_each(|node| c.start(node));
        c.agree(&big("after", 0), LONG).await;
        heal_and_settle(&c).await;
        exactly_once(&c, &all).await;
    })
    .await;
}

/// What a follower needs has rotted on the leader's disk: it is not sent on, and the follower gets a
/// snapshot instead.
#[madsim::test]
async fn what_has_rotted_is_not_sent_to_anybody() {
    scenario(long_on_disk(), |c| async move {
        let installs = count("install");
        let leader = c.wait_leader(&c.ids()).await;
        let victim = c.others(&[leader])[0];
        writes(&c, leader, "before", 10).await;
        c.settle(&c.ids(), 0).await;
        c.kill(victim);
        writes(&c, leader, "missed", 300).await;
        let disk = c.nodes.disk(c.key(leader));
        let segments = disk.files().into_iter().map(|(name, _)| name);
        let mut segments: Vec<String> = segments.filter(|n| n.ends_with(".seg")).collect();
        segments.sort();
        assert!(segments.len() >= 4, "{segments:?}");
        for segment in &segments[1..3] {
            let at = 8192 + 20_000 + wire::below(20_000);
            assert!(disk.flip_bit(segment, at, 5));
        }
        c.start(victim);
        let index = c.agree(&big("together", 0), LONG).await;
        c.settle(&c.ids(), index).await;
        assert_eq!(installs.load(Ordering::Relaxed), 1);
        assert!(hits(FED) > 0, "up to the rot it was fed");
        heal_and_settle(&c).await;
    })
    .await;
}

/// From now on it takes so many milliseconds to this member, and as many from it.
fn far_away(victim: u64, ms: u64) {
    set_judge(Some(Box::new(move |passing| {
        match passing.from.node == victim || passing.to.node == victim {
            true => Verdict::Delay(Duration::from_millis(ms)),
            false => Verdict::Pass,
        }
    })));
}

/// What is written in a second, over so many of them.
async fn rate(written: &AtomicU64, seconds: u64) -> u64 {
    let before = written.load(Ordering::Relaxed);
    millis(1000 * seconds).await;
    (written.load(Ordering::Relaxed) - before) / seconds
}

/// So many writers, until they are told to end; counts what is written.
fn write_all_the_time(
    c: &RaftCluster,
    leader: u64,
    writers: usize,
    done: &Arc<AtomicBool>,
) -> (Arc<AtomicU64>, Vec<JoinHandle<()>>) {
    let written = Arc::new(AtomicU64::new(0));
    let write = |writer: usize| {
        let (c, done, written) = (c.clone(), done.clone(), written.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                let command = big(&format!("writer {writer}"), number);
                let proposed = c.propose(leader, command, LONG).await;
                proposed.expect("it is written");
                written.fetch_add(1, Ordering::Relaxed);
                number += 1;
            }
        })
    };
    let writers = (0..writers).map(write).collect();
    (written, writers)
}

/// Clients write all the time, and faster than a member that is far away can be fed behind its snapshot.
/// The log that is kept for it has a limit; before it is reached the clients are slowed down until the
/// member has caught up, in one install. Then they are as fast as before.
#[madsim::test]
async fn who_is_slower_than_the_clients_catches_up() {
    const LONGEST: u64 = 2 << 20;
    let options = RaftOptions::small_log(3).and(|replica| {
        replica.max_kept_log_bytes = LONGEST;
        // More than is under way to it.
        replica.keep_log_bytes = 128 << 10;
        replica.store.chunk_bytes = 1 << 20;
        // One entry in an append: some eighty of them in a second at this distance.
        replica.max_append_bytes = 1;
    });
    scenario(options, |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let victim = c.others(&[leader])[0];
        writes(&c, leader, "before", 10).await;
        c.settle(&c.ids(), 0).await;
        c.kill(victim);
        writes(&c, leader, "missed", 50).await;
        let (installs, done) = (count("install"), Arc::new(AtomicBool::new(false)));
        far_away(victim, 200);
        c.start(victim);
        let (written, writers) = write_all_the_time(&c, leader, 16, &done);
        let rate = async |seconds| rate(&written, seconds).await;
        let usual = rate(1).await;
        assert!(usual > 500, "{usual} writes in a second");
        let slowed = AtomicBool::new(false);
        // What is kept anyway holds some 130 commands.
        eventually("it catches up", 4 * LONG, || async {
            let leading = c.status(leader).expect("up");
            if let Some(why) = &leading.writes_limited {
                assert!(why.starts_with("slowed down"), "{why}");
                slowed.store(true, Ordering::Relaxed);
            }
            let last = leading.last;
            let caught_up = |applied| applied > 100 && last - applied < 140;
            c.status(victim).is_some_and(|s| caught_up(s.applied))
        })
        .await;
        assert!(hits(THROTTLED) > 0);
        assert!(slowed.load(Ordering::Relaxed), "its page says so");
        assert_eq!(
            installs.load(Ordering::Relaxed),
            1,
            "one snapshot was enough"
        );
        // When nobody is waited for, nobody is slowed down.
        set_judge(None);
        millis(1000).await;
        let after = rate(1).await;
        assert!(
            after > usual / 2,
            "{usual} writes in a second, then {after}"
        );
        assert_eq!(c.status(leader).expect("up").writes_limited, None);
        done.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("not cancelled");
        }
        eventually("the log is cut", LONG, || async {
            c.status(leader).is_some_and(|s| s.last - s.base <= 300)
        })
        .await;
        heal_and_settle(&c).await;
    })
    .await;
}

/// A member dies while it is sent a snapshot: the log is kept for it until its sender gives up, but
/// clients are slowed down for no longer than it may have been making the snapshot durable.
#[madsim::test]
async fn who_dies_while_it_is_sent_a_snapshot_slows_nobody_down_for_long() {
    let options = RaftOptions::small_log(3).and(|replica| {
        replica.max_kept_log_bytes = 1 << 20;
    });
    scenario(options, |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let victim = c.others(&[leader])[0];
        writes(&c, leader, "before", 10).await;
        c.settle(&c.ids(), 0).await;
        c.kill(victim);
        writes(&c, leader, "missed", 200).await;
        // Each of its two hundred chunks takes this long.
        far_away(victim, 100);
        c.start(victim);
        let done = Arc::new(AtomicBool::new(false));
        let (written, writers) = write_all_the_time(&c, leader, 8, &done);
        let rate = async |seconds| rate(&written, seconds).await;
        let usual = rate(1).await;
        assert!(usual > 100, "{usual} writes in a second");
        millis(5000).await;
        c.kill(victim);
        let before = hits(THROTTLED);
        millis(65_000).await;
        assert!(hits(THROTTLED) > before, "it may be at work for a while");
        let then = hits(THROTTLED);
        let after = rate(5).await;
        assert_eq!(hits(THROTTLED), then, "and then it may not");
        assert!(
            after > usual / 2,
            "{usual} writes in a second, then {after}"
        );
        assert_eq!(c.status(leader).expect("up").writes_limited, None);
        done.store(true, Ordering::Relaxed);
        for writer in writers {
            writer.await.expect("not cancelled");
        }
        set_judge(None);
        c.settle(&c.others(&[victim]), 0).await;
    })
    .await;
}
