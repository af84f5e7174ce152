//! Disks that refuse, fill up or are swapped.

use super::common::*;
use sim_tests::sim::ledger;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::{RaftCluster, RaftOptions};
use std::io::ErrorKind;
use std::time::Duration;
use world::disk::{DiskOp, SimDisk, SimDiskOptions};

/// Waits until a server ended, and says why.
async fn ended(c: &RaftCluster, node: u64) -> String {
    let mut reason = None;
    let since = world::clock::now();
    while reason.is_none() {
        for (key, why) in c.nodes.take_fatal() {
            assert_eq!(key, c.key(node), "only this one was to end: {why}");
            reason = Some(why);
        }
        assert!(since.elapsed() < LONG, "the server never ended");
        millis(20).await;
    }
    reason.expect("just seen")
}

/// A disk that is full: that server ends with path and reason, the others go on, and it returns
/// when there is room.
#[madsim::test]
async fn full_disk() {
    scenario(RaftOptions::of(3), |c| async move {
        c.agree(b"before", LONG).await;
        let leader = c.wait_leader(&c.ids()).await;
        let node = c.others(&[leader])[0];
        let disk = c.nodes.disk(c.key(node));
        let mut options = disk.options();
        options.capacity = disk.used() + (64 << 10);
        disk.set_options(options.clone());
        let mut acknowledged = Vec::new();
        let mut why = String::new();
        for i in 0..200 {
            let mut big = command("big", i);
            big.resize(64 << 10, b'.');
            c.agree_among(&c.others(&[node]), &big, LONG).await;
            acknowledged.push(big);
            if let Some((key, reason)) = c.nodes.take_fatal().pop() {
                assert_eq!(key, c.key(node));
                why = reason;
                break;
            }
        }
        assert!(!why.is_empty(), "the server with the full disk ended");
        let path = disk.disk().path("").display().to_string();
        assert!(why.contains(&path), "names the path: {why}");
        let says = why.to_lowercase();
        assert!(says.contains("space") || says.contains("full"), "{why}");
        c.kill(node);
        c.agree_among(&c.others(&[node]), b"without it", LONG).await;
        options.capacity = u64::MAX;
        disk.set_options(options);
        c.start(node);
        heal_and_settle(&c).await;
        exactly_once(&c, &acknowledged).await;
    })
    .await;
}

/// A sync that fails: the dirty pages are gone and a second sync would say Ok (fsyncgate), so the
/// server ends. Nothing acknowledged is lost.
#[madsim::test]
async fn failed_sync() {
    scenario(RaftOptions::of(3), |c| async move {
        let mut acknowledged = Vec::new();
        for round in 0..4 {
            let leader = c.wait_leader(&c.ids()).await;
            let disk = c.nodes.disk(c.key(leader));
            let nth = 1 + sim_tests::sim::wire::below(4);
            disk.fail_nth(DiskOp::Sync, nth, ErrorKind::Other);
            let fired: Vec<_> = (0..50)
                .map(|i| {
                    fire(
                        &c,
                        leader,
                        command("s", round * 100 + i),
                        Duration::from_secs(3),
                    )
                })
                .collect();
            for i in 0..6 {
                drop(fire(
                    &c,
                    leader,
                    command("later", i),
                    Duration::from_secs(3),
                ));
                millis(30).await;
            }
            let why = ended(&c, leader).await;
            let path = disk.disk().path("").display().to_string();
            assert!(why.contains(&path), "names the path: {why}");
            for task in fired {
                if let (command, true) = task.await.expect("not cancelled") {
                    acknowledged.push(command);
                }
            }
            c.kill(leader);
            c.agree_among(&c.others(&[leader]), &command("on", round), LONG)
                .await;
            c.start(leader);
        }
        heal_and_settle(&c).await;
        exactly_once(&c, &acknowledged).await;
    })
    .await;
}

/// Reading and writing that fails now and then: servers end, are started again, nothing is lost.
#[madsim::test]
async fn flaky_disks() {
    scenario(RaftOptions::small_log(3), |c| async move {
        let mut acknowledged = Vec::new();
        c.wait_leader(&c.ids()).await;
        for round in 0..10 {
            let node = 1 + sim_tests::sim::wire::below(3);
            let disk = c.nodes.disk(c.key(node));
            let op = [DiskOp::Write, DiskOp::Sync, DiskOp::Name][round % 3];
            disk.fail_nth(op, 1 + sim_tests::sim::wire::below(20), ErrorKind::Other);
            let leader = c.wait_leader(&c.ids()).await;
            let fired: Vec<_> = (0..40)
                .map(|i| {
                    fire(
                        &c,
                        leader,
                        command("w", round * 100 + i),
                        Duration::from_secs(4),
                    )
                })
                .collect();
            for task in fired {
                if let (command, true) = task.await.expect("not cancelled") {
                    acknowledged.push(command);
                }
            }
            millis(500).await;
            disk.clear_faults();
            for (key, why) in c.nodes.take_fatal() {
                assert_eq!(key, c.key(node), "{why}");
                c.kill(node);
                c.start(node);
            }
            c.agree(&command("on", round), LONG).await;
        }
        heal_and_settle(&c).await;
        exactly_once(&c, &acknowledged).await;
    })
    .await;
}

/// Another node's data directory is refused, and both are named.
#[madsim::test]
async fn foreign_directory() {
    scenario(RaftOptions::of(3), |c| async move {
        c.agree(b"before", LONG).await;
        c.kill(2);
        c.kill(3);
        let (two, three) = (c.nodes.disk(c.key(2)), c.nodes.disk(c.key(3)));
        let own = three.image();
        three.restore(&two.image());
        c.start(3);
        let why = ended(&c, 3).await;
        for part in ["node 2", "node 3", "group 1"] {
            assert!(why.contains(part), "{part}: {why}");
        }
        c.kill(3);
        three.restore(&own);
        heal_and_settle(&c).await;
    })
    .await;
}

/// An older copy of a node's own directory is refused by those who met the newer one.
#[madsim::test]
async fn older_copy_of_the_directory() {
    scenario(RaftOptions::of(3), |c| async move {
        c.agree(b"before", LONG).await;
        c.kill(2);
        let disk = c.nodes.disk(c.key(2));
        let old = disk.image();
        c.start(2);
        let index = c.agree(b"after", LONG).await;
        c.settle(&c.ids(), index).await;
        c.kill(2);
        let new = disk.image();
        disk.restore(&old);
        c.start(2);
        millis(5000).await;
        let others = c.others(&[2]);
        c.agree_among(&others, b"without it", LONG).await;
        let why = c.status(2).and_then(|status| status.not_voting);
        let why = why.expect("it says that it is not heard");
        assert!(why.contains("an older image of the disk"), "{why}");
        // Its boot number is that of a start the others have met already: they hear nothing it
        // says, so it makes no quorum.
        let leader = c.wait_leader(&others).await;
        let third = c.others(&[2, leader]);
        c.isolate(&third);
        futile(&c, leader, "with it", 3).await;
        millis(10_000).await;
        assert_eq!(c.leader_among(&[2, leader]), None);
        c.rejoin(&third);
        c.kill(2);
        disk.restore(&new);
        ledger::replaced(1, 2);
        heal_and_settle(&c).await;
        assert_eq!(c.status(2).and_then(|status| status.not_voting), None);
    })
    .await;
}

/// Followers have nothing to say to each other, and still know of each other's starts: one that comes
/// back with an older image of its disk is refused by the other, not only by the leader. Found by the
/// campaign: with the other's vote it led, and its old leader refused it for ever.
#[madsim::test]
async fn an_older_copy_is_refused_by_a_fellow_follower() {
    scenario(RaftOptions::of(3), |c| async move {
        c.agree(b"before", LONG).await;
        c.settle(&c.ids(), 0).await;
        let leader = c.wait_leader(&c.ids()).await;
        let (node, fellow) = (c.others(&[leader])[0], c.others(&[leader])[1]);
        let disk = c.nodes.disk(c.key(node));
        let old = disk.image();
        c.kill(node);
        c.start(node);
        millis(3000).await;
        assert_eq!(
            c.leader_among(&c.ids()),
            Some(leader),
            "it was not disturbed"
        );
        c.kill(node);
        let new = disk.image();
        disk.restore(&old);
        c.isolate(&[leader]);
        c.start(node);
        for _ in 0..50 {
            millis(200).await;
            assert_eq!(c.leader_among(&[node, fellow]), None);
        }
        c.kill(node);
        disk.restore(&new);
        ledger::replaced(1, node);
        c.rejoin(&[leader]);
        heal_and_settle(&c).await;
    })
    .await;
}

/// Nobody even asks it: a candidate that gets its quorum from others has no answer of an older image
/// among its votes, and the older image forms no opinion that it cannot stand by. Found by the
/// campaign, in a group of five: links judged the disk at their other end and not its start.
#[madsim::test]
async fn an_older_copy_is_not_asked_for_its_vote() {
    scenario(RaftOptions::of(5), |c| async move {
        c.agree(b"before", LONG).await;
        c.settle(&c.ids(), 0).await;
        let leader = c.wait_leader(&c.ids()).await;
        let node = c.others(&[leader])[0];
        let disk = c.nodes.disk(c.key(node));
        let old = disk.image();
        c.kill(node);
        c.start(node);
        c.agree(b"since then", LONG).await;
        c.settle(&c.ids(), 0).await;
        millis(3000).await;
        c.kill(node);
        let new = disk.image();
        disk.restore(&old);
        ledger::replaced(1, node);
        c.start(node);
        let leader = c.wait_leader(&c.others(&[node])).await;
        c.isolate(&[leader]);
        // Should it vote: I19, it lacks what it helped to commit.
        let rest = c.others(&[node, leader]);
        c.wait_leader(&rest).await;
        c.agree_among(&rest, b"without both", LONG).await;
        c.kill(node);
        disk.restore(&new);
        ledger::replaced(1, node);
        c.rejoin(&[leader]);
        heal_and_settle(&c).await;
    })
    .await;
}

/// A and B hold an acknowledged entry, C lags. B's directory is emptied and B comes back under its
/// old flags: B must not vote C in, for the entry would be gone.
#[madsim::test]
async fn emptied_directory_does_not_vote() {
    scenario(RaftOptions::of(3), |c| async move {
        c.agree(b"before", LONG).await;
        let a = c.wait_leader(&c.ids()).await;
        let (b, lags) = (c.others(&[a])[0], c.others(&[a])[1]);
        c.isolate(&[lags]);
        c.agree_among(&[a, b], b"acknowledged", LONG).await;
        c.kill(b);
        c.isolate(&[a]);
        let disk = c.nodes.disk(c.key(b));
        let empty = SimDisk::new("empty", 0, SimDiskOptions::default());
        disk.restore(&empty.image());
        c.rejoin(&[lags]);
        c.start(b);
        for _ in 0..100 {
            millis(200).await;
            assert_eq!(c.leader_among(&[b, lags]), None);
        }
        let why = c.status(b).and_then(|s| s.not_voting);
        let why = why.expect("says that it does not vote");
        assert!(why.contains("emptied"), "says why: {why}");
        // The other two are a quorum and hold the entry.
        c.rejoin(&[a]);
        let index = c.agree_among(&[a, lags], b"after", LONG).await;
        c.settle(&[a, lags], index).await;
        let state = c.read(lags, LONG).await.expect("answered");
        assert!(state.iter().any(|c| c == b"acknowledged"));
        eventually("still no vote", LONG, || async {
            c.status(b).is_some_and(|s| s.not_voting.is_some())
        })
        .await;
    })
    .await;
}

/// Power that fails in the middle of a write or a sync, torn sectors and all: no damage, nothing
/// lost.
#[madsim::test]
async fn power_fails_inside_disk_operations() {
    scenario(RaftOptions::of(3), |c| async move {
        let mut acknowledged = Vec::new();
        for round in 0..12usize {
            let leader = c.wait_leader(&c.ids()).await;
            let node = 1 + sim_tests::sim::wire::below(3);
            let disk = c.nodes.disk(c.key(node));
            disk.crash_at(1 + sim_tests::sim::wire::below(12));
            let fired: Vec<_> = (0..40)
                .map(|i| {
                    let mut command = command("cut", round * 100 + i);
                    command.resize(900, b'.');
                    fire(&c, leader, command, Duration::from_secs(3))
                })
                .collect();
            millis(400).await;
            disk.clear_faults();
            if disk.crashed() {
                c.kill(node);
                c.nodes.take_fatal();
                c.start(node);
            }
            for task in fired {
                if let (command, true) = task.await.expect("not cancelled") {
                    acknowledged.push(command);
                }
            }
            c.agree(&command("on", round), LONG).await;
            eventually("it is open again", LONG, || async {
                c.status(node).is_some()
            })
            .await;
            let status = c.status(node).expect("just seen");
            assert_eq!(status.not_voting, None, "a torn write is no damage");
        }
        heal_and_settle(&c).await;
        exactly_once(&c, &acknowledged).await;
    })
    .await;
}

/// A leader whose own disk is slow is no part of a quorum before its sync (the checkers look at
/// every commit).
#[madsim::test]
async fn a_slow_leader_counts_itself_after_its_sync() {
    scenario(RaftOptions::of(3), |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        c.isolate(&c.others(&[leader])[..1]);
        let disk = c.nodes.disk(c.key(leader));
        let mut options = disk.options();
        options.latency = (Duration::from_millis(200), Duration::from_millis(300));
        disk.set_options(options);
        for i in 0..8 {
            let done = c.propose(leader, command("slow", i), LONG).await;
            assert!(done.is_ok());
        }
        heal_and_settle(&c).await;
    })
    .await;
}

/// Followers hold more uncommitted entries than their log in memory may have, and their leader is
/// gone: the next leader's first entry stands behind all of them, and must get through. Found by the
/// campaign: followers dropped every append then, and the group stood still for ever.
#[madsim::test]
async fn a_new_leader_commits_behind_a_full_log() {
    const BIG: usize = 6 << 10;
    let small = RaftOptions::small_log(3);
    let adjust = small.adjust.clone();
    let options = RaftOptions {
        adjust: std::sync::Arc::new(move |options| {
            adjust(options);
            options.max_unapplied_bytes = 64 << 10;
        }),
        ..small
    };
    scenario(options, |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let others = c.others(&[leader]);
        // They hear it, and it does not hear them.
        for other in &others {
            c.nodes.cut(c.key(*other), c.key(leader));
        }
        for i in 0..40 {
            let mut big = command("big", i);
            big.resize(BIG, b'.');
            fire(&c, leader, big, LONG);
        }
        millis(400).await;
        c.kill(leader);
        c.agree_among(&others, &command("next", 0), LONG).await;
        c.nodes.heal();
        c.start(leader);
        heal_and_settle(&c).await;
    })
    .await;
}
