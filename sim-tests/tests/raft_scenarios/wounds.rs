//! Bugs that earlier implementations had, each with the schedule that shows it.

use super::common::*;
use raft::replica::ProposeError;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::{RaftCluster, RaftOptions, trace, wire};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn slow_disks(replicas: u64) -> RaftOptions {
    let mut options = RaftOptions::of(replicas);
    options.disk.latency = (Duration::from_millis(20), Duration::from_millis(150));
    options
}

/// A candidate asked for votes, or a voter gave its vote, before term and vote were on disk: after
/// a crash it voted a second time in the term. Here every node that has a vote under way to its
/// disk loses its power there.
#[madsim::test]
async fn a_vote_is_synced_before_it_is_given() {
    scenario(slow_disks(3), |c| async move {
        let voting = Arc::new(Mutex::new(Vec::new()));
        let seen = voting.clone();
        let mut known = std::collections::BTreeMap::new();
        trace::check(move |_, event| {
            let get = |name| event.fields.iter().find(|f| f.0 == name).map(|f| f.1);
            if event.kind == "write" {
                let state = (get("term"), get("vote"));
                let before = known.insert(event.site.node, state);
                if before != Some(state) && get("vote") != Some(0) {
                    seen.lock().expect("one thread").push(event.site.node);
                }
            }
        });
        let crashes = AtomicU64::new(0);
        for _ in 0..10 {
            let leader = c.wait_leader(&c.ids()).await;
            c.kill(leader);
            c.start(leader);
            voting.lock().expect("one thread").clear();
            let since = world::clock::now();
            while since.elapsed() < Duration::from_secs(3) {
                millis(1).await;
                let nodes = std::mem::take(&mut *voting.lock().expect("one thread"));
                for node in nodes {
                    millis(wire::below(40)).await;
                    c.kill(node);
                    c.start(node);
                    crashes.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        assert!(crashes.load(Ordering::Relaxed) >= 10, "votes were caught");
        heal_and_settle(&c).await;
    })
    .await;
}

/// Commands of `size` bytes that a quorum agrees on, one after another in bursts.
async fn bulk(c: &RaftCluster, nodes: &[u64], name: &str, count: usize, size: usize) {
    let leader = c.wait_leader(nodes).await;
    let fired: Vec<_> = (0..count)
        .map(|i| {
            let mut command = command(name, i);
            command.resize(size, b'.');
            fire(c, leader, command, LONG)
        })
        .collect();
    for task in fired {
        assert!(task.await.expect("not cancelled").1);
    }
}

fn installs() -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    trace::check(move |_, event| {
        if event.kind == "install" {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    count
}

/// The index in a conflict hint was counted from the start of the slice left after compaction
/// instead of from the start of the log. Here a tail conflicts while both logs are compacted, and
/// is repaired from the log, without a snapshot.
#[madsim::test]
async fn conflict_behind_a_compacted_log() {
    let mut options = RaftOptions::small_log(3);
    let small = options.adjust.clone();
    options.adjust = Arc::new(move |o| {
        small(o);
        o.keep_log_bytes = 16 << 10;
    });
    scenario(options, |c| async move {
        let installs = installs();
        bulk(&c, &c.ids(), "before", 300, 100).await;
        c.settle(&c.ids(), 0).await;
        bulk(&c, &c.ids(), "more", 10, 100).await;
        c.settle(&c.ids(), 0).await;
        millis(300).await;
        for node in c.ids() {
            let base = c.status(node).expect("up").base;
            assert!(base > 50, "node {node} compacted only through {base}");
        }
        let first = c.wait_leader(&c.ids()).await;
        c.isolate(&[first]);
        futile(&c, first, "tail", 20).await;
        let rest = c.others(&[first]);
        bulk(&c, &rest, "instead", 10, 50).await;
        // A leader elected now begins at the end of its log: only the hint leads it back.
        let second = c.wait_leader(&rest).await;
        c.kill(second);
        c.start(second);
        c.wait_leader(&rest).await;
        heal_and_settle(&c).await;
        for i in 0..20 {
            assert_eq!(c.times(&command("tail", i)), 0);
        }
        assert_eq!(installs.load(Ordering::Relaxed), 0, "the log was enough");
    })
    .await;
}

/// InstallSnapshot kept the log behind the snapshot's index although the term there differed. Here
/// a deposed leader's long tail reaches beyond the snapshot that it is given.
#[madsim::test]
async fn a_snapshot_does_not_keep_a_tail_of_another_term() {
    scenario(RaftOptions::small_log(3), |c| async move {
        let installs = installs();
        bulk(&c, &c.ids(), "before", 20, 50).await;
        c.settle(&c.ids(), 0).await;
        let first = c.wait_leader(&c.ids()).await;
        c.isolate(&[first]);
        futile(&c, first, "tail", 300).await;
        let last = c.status(first).expect("up").last;
        let rest = c.others(&[first]);
        for burst in 0..8 {
            bulk(&c, &rest, &format!("instead{burst}"), 10, 200).await;
            millis(100).await; // a flush for each burst
        }
        millis(1500).await;
        for node in &rest {
            let status = c.status(*node).expect("up");
            assert!(status.base > 30 && status.last < last, "{status:?}");
        }
        heal_and_settle(&c).await;
        assert!(installs.load(Ordering::Relaxed) >= 1, "by snapshot");
        let ends: Vec<_> = c
            .ids()
            .iter()
            .map(|n| c.status(*n).expect("up").last)
            .collect();
        assert!(ends.iter().all(|end| *end < last), "{ends:?}, was {last}");
        assert!(trace::marks().contains_key("install: the log behind it is dropped"));
        for i in 0..300 {
            assert_eq!(c.times(&command("tail", i)), 0);
        }
    })
    .await;
}

/// A request waited for ever when its entry was overwritten.
#[madsim::test]
async fn an_overwritten_request_is_answered() {
    scenario(RaftOptions::of(3), |c| async move {
        c.agree(b"before", LONG).await;
        let first = c.wait_leader(&c.ids()).await;
        c.isolate(&[first]);
        let waiting: Vec<_> = (0..10)
            .map(|i| {
                let c = c.clone();
                tokio::spawn(async move {
                    let hour = Duration::from_secs(3600);
                    c.propose(first, command("lost", i), hour).await
                })
            })
            .collect();
        let rest = c.others(&[first]);
        for i in 0..20 {
            c.agree_among(&rest, &command("instead", i), LONG).await;
        }
        c.rejoin(&[first]);
        for task in waiting {
            let ended = tokio::time::timeout(Duration::from_secs(15), task).await;
            let result = ended.expect("answered").expect("not cancelled");
            assert!(
                matches!(result, Err(ProposeError::Unknown(_))),
                "{result:?}"
            );
        }
        heal_and_settle(&c).await;
    })
    .await;
}

/// As above while the leader never notices that it was replaced: it sleeps through the change.
#[madsim::test]
async fn a_request_of_a_leader_that_slept_is_answered() {
    scenario(RaftOptions::of(3), |c| async move {
        c.agree(b"before", LONG).await;
        let first = c.wait_leader(&c.ids()).await;
        let rest = c.others(&[first]);
        // Appends to the others are cut, so the entry stays uncommitted; then the leader sleeps.
        c.isolate(&[first]);
        let waiting = {
            let c = c.clone();
            tokio::spawn(async move {
                let hour = Duration::from_secs(3600);
                c.propose(first, *b"lost", hour).await
            })
        };
        millis(60).await;
        c.nodes.pause(c.key(first));
        for i in 0..10 {
            c.agree_among(&rest, &command("instead", i), LONG).await;
        }
        c.rejoin(&[first]);
        c.nodes.resume(c.key(first));
        let ended = tokio::time::timeout(Duration::from_secs(15), waiting).await;
        let result = ended.expect("answered").expect("not cancelled");
        assert!(
            matches!(result, Err(ProposeError::Unknown(_))),
            "{result:?}"
        );
        eventually("it follows", LONG, || async {
            c.status(first)
                .expect("up")
                .leader
                .is_some_and(|l| l != first)
        })
        .await;
        heal_and_settle(&c).await;
        assert_eq!(c.times(b"lost"), 0);
    })
    .await;
}

/// A read in the first milliseconds after an election sees everything committed before (thesis
/// §6.4: a leader reads only after an entry of its own term is committed).
#[madsim::test]
async fn a_read_right_after_an_election() {
    scenario(slow_disks(3), |c| async move {
        let mut expected = 0;
        for round in 0..15 {
            let leader = c.wait_leader(&c.ids()).await;
            if c.propose(leader, command("r", round), LONG).await.is_ok() {
                expected += 1;
            }
            let seen = Arc::new(AtomicU64::new(0));
            if wire::chance(0.5) {
                c.kill(leader);
            } else {
                c.isolate(&[leader]);
            }
            let readers: Vec<_> = c
                .others(&[leader])
                .into_iter()
                .map(|node| {
                    let (c, seen) = (c.clone(), seen.clone());
                    tokio::spawn(async move {
                        let since = world::clock::now();
                        while since.elapsed() < Duration::from_secs(4) {
                            let read = c.read(node, Duration::from_millis(300)).await;
                            if let Some(all) = read {
                                seen.fetch_add(1, Ordering::Relaxed);
                                assert!(
                                    all.len() as u64 >= expected,
                                    "node {node} read {} of {expected} commands",
                                    all.len()
                                );
                            }
                            millis(5).await;
                        }
                    })
                })
                .collect();
            for task in readers {
                task.await.expect("not cancelled");
            }
            assert!(seen.load(Ordering::Relaxed) > 0, "somebody could read");
            if c.is_up(leader) {
                c.rejoin(&[leader]);
            } else {
                c.start(leader);
            }
        }
        heal_and_settle(&c).await;
    })
    .await;
}

/// A deposed leader that does not know it answers no read from its own state (thesis §6.4).
#[madsim::test]
async fn no_read_from_a_deposed_leader() {
    scenario(RaftOptions::of(3), |c| async move {
        for round in 0..6 {
            let old = c.wait_leader(&c.ids()).await;
            c.isolate(&[old]);
            let rest = c.others(&[old]);
            let since = world::clock::now();
            let before = c.times(b"new");
            let reads = {
                let c = c.clone();
                tokio::spawn(async move {
                    let mut answers = 0;
                    while since.elapsed() < Duration::from_secs(4) {
                        let read = c.read(old, Duration::from_millis(100)).await;
                        answers += u32::from(read.is_some());
                        millis(5).await;
                    }
                    answers
                })
            };
            c.agree_among(&rest, &command("new", round), LONG).await;
            assert_eq!(before, 0);
            assert_eq!(reads.await.expect("not cancelled"), 0, "cut off, it read");
            c.rejoin(&[old]);
            heal_and_settle(&c).await;
        }
    })
    .await;
}
