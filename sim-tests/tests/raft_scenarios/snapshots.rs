//! Log compaction (§7): followers that lag behind the log are brought up by a snapshot.

use super::common::*;
use raft::protocol::Role;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::{RaftCluster, RaftOptions, trace, wire};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use world::net::Kind;
use world::net::inject::{Verdict, set_judge};

/// Longer than what `RaftOptions::small_log` keeps.
const SIZE: usize = 100;
/// Entries a log may hold at rest: what is kept, what is unflushed, and room for entries that
/// arrived while a flush was under way.
const BOUND: u64 = 150;

fn big(name: &str, number: usize) -> Vec<u8> {
    let mut command = command(name, number);
    command.resize(SIZE, b'.');
    command
}

/// Counts snapshots installed from now on.
fn count_installs() -> Arc<AtomicU64> {
    let installs = Arc::new(AtomicU64::new(0));
    let counter = installs.clone();
    trace::check(move |_, event| {
        if event.kind == "install" {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    });
    installs
}

async fn many(c: &RaftCluster, nodes: &[u64], name: &str, count: usize) {
    let leader = c.wait_leader(nodes).await;
    let mut left = Vec::new();
    for burst in 0..count.div_ceil(10) {
        let fired: Vec<_> = (burst * 10..count.min(burst * 10 + 10))
            .map(|i| fire(c, leader, big(name, i), LONG))
            .collect();
        for task in fired {
            if let (command, false) = task.await.expect("not cancelled") {
                left.push(command);
            }
        }
    }
    for command in left {
        c.agree_among(nodes, &command, LONG).await;
    }
}

fn assert_bounded(c: &RaftCluster) {
    for node in c.ids() {
        let status = c.status(node).expect("up");
        let length = status.last - status.base;
        assert!(length <= BOUND, "node {node} keeps {length} entries");
    }
}

/// Everybody compacts and the log stays bounded; nobody needs a snapshot.
#[madsim::test]
async fn snapshot_basic() {
    scenario(RaftOptions::small_log(3), |c| async move {
        let installs = count_installs();
        for round in 0..6 {
            many(&c, &c.ids(), "basic", 60).await;
            c.settle(&c.ids(), 0).await;
            millis(300).await;
            assert_bounded(&c);
            for node in c.ids() {
                let base = c.status(node).expect("up").base;
                assert!(round == 0 || base > 0, "node {node} never compacted");
            }
        }
        heal_and_settle(&c).await;
        assert_eq!(installs.load(Ordering::Relaxed), 0, "nobody lagged");
    })
    .await;
}

/// The leader has heard that everybody has the log through `index`. (A member that has only installed a
/// snapshot is waited for, for some seconds, when it dies before it is heard of again.)
async fn known_to_be_up(c: &RaftCluster, index: u64) {
    eventually("the leader knows it", LONG, || async {
        let leading = c.ids().into_iter().filter_map(|node| c.status(node));
        leading
            .filter(|status| status.role == Role::Leader)
            .any(|status| {
                let known = status.matched.iter().filter(|(_, at)| *at >= index);
                known.count() + 1 == c.ids().len()
            })
    })
    .await;
    // A tick looks at it.
    millis(100).await;
}

async fn lagging(c: RaftCluster, faults: wire::Faults, crash: bool) {
    let installs = count_installs();
    many(&c, &c.ids(), "first", 10).await;
    wire::faults(faults);
    // While one is in transfer the log behind it is kept, and then nobody else needs one.
    for round in 0..16 {
        if round >= 8 && installs.load(Ordering::Relaxed) >= 4 {
            break;
        }
        let leader = c.wait_leader(&c.ids()).await;
        let mut victim = c.others(&[leader])[wire::below(2) as usize];
        if round % 3 == 2 {
            victim = leader;
        }
        if crash {
            c.kill(victim);
        } else {
            c.isolate(&[victim]);
        }
        let rest = c.others(&[victim]);
        many(&c, &rest, &format!("round{round}"), 80).await;
        if crash {
            c.start(victim);
        } else {
            // A stream that was cut only for a moment would deliver what it held.
            millis(2500).await;
            c.rejoin(&[victim]);
        }
        let index = c.agree(&big("together", round), LONG).await;
        c.settle(&c.ids(), index).await;
        known_to_be_up(&c, index).await;
    }
    heal_and_settle(&c).await;
    assert_bounded(&c);
    let installs = installs.load(Ordering::Relaxed);
    assert!(installs >= 4, "only {installs} snapshots were installed");
}

/// A follower that was cut off.
#[madsim::test]
async fn snapshot_install() {
    let options = RaftOptions::small_log(3);
    scenario(options, |c| lagging(c, wire::Faults::default(), false)).await;
}

/// The same while messages and chunks are lost.
#[madsim::test]
async fn snapshot_install_unreliable() {
    let options = RaftOptions::small_log(3);
    scenario(options, |c| lagging(c, wire::Faults::unreliable(), false)).await;
}

/// A follower that was without power.
#[madsim::test]
async fn snapshot_install_crash() {
    let options = RaftOptions::small_log(3);
    scenario(options, |c| lagging(c, wire::Faults::default(), true)).await;
}

/// Both.
#[madsim::test]
async fn snapshot_install_unreliable_crash() {
    let options = RaftOptions::small_log(3);
    scenario(options, |c| lagging(c, wire::Faults::unreliable(), true)).await;
}

/// Answers to chunks are lost, and nothing says so (the connection stands): each costs about a
/// second, not the patience that installing the last chunk needs.
#[madsim::test]
async fn snapshot_install_with_lost_answers() {
    scenario(RaftOptions::small_log(3), |c| async move {
        let installs = count_installs();
        many(&c, &c.ids(), "first", 10).await;
        c.settle(&c.ids(), 0).await;
        let leader = c.wait_leader(&c.ids()).await;
        let victim = c.others(&[leader])[0];
        c.kill(victim);
        many(&c, &c.others(&[victim]), "missed", 300).await;
        let answers = Arc::new(AtomicU64::new(0));
        let counter = answers.clone();
        set_judge(Some(Box::new(move |passing| {
            if passing.kind != Kind::Reply || passing.from.node != victim {
                return Verdict::Pass;
            }
            match counter.fetch_add(1, Ordering::Relaxed) % 8 {
                7 => Verdict::Drop,
                _ => Verdict::Pass,
            }
        })));
        let index = c.status(leader).expect("up").commit;
        c.start(victim);
        eventually("the snapshot arrives", Duration::from_secs(20), || async {
            c.status(victim).is_some_and(|s| s.applied >= index)
        })
        .await;
        assert_eq!(installs.load(Ordering::Relaxed), 1);
        let lost = answers.load(Ordering::Relaxed) / 8;
        assert!(lost >= 3, "only {lost} answers were lost");
        set_judge(None);
        heal_and_settle(&c).await;
    })
    .await;
}

/// Writes go on while a follower that is far away installs a snapshot and takes the log behind it. That
/// is kept for it until it is past it: one snapshot is enough, and then the log is short again.
#[madsim::test]
async fn snapshot_install_under_load() {
    let mut options = RaftOptions::small_log(3);
    let small = options.adjust.clone();
    options.adjust = Arc::new(move |replica| {
        small(replica);
        replica.store.chunk_bytes = 1 << 20;
    });
    scenario(options, |c| async move {
        many(&c, &c.ids(), "first", 10).await;
        c.settle(&c.ids(), 0).await;
        let leader = c.wait_leader(&c.ids()).await;
        let victim = c.others(&[leader])[0];
        c.kill(victim);
        many(&c, &c.others(&[victim]), "missed", 100).await;
        let installs = count_installs();
        // A round trip takes as long as twenty commands, and the log keeps ten.
        set_judge(Some(Box::new(move |passing| {
            match passing.from.node == victim || passing.to.node == victim {
                true => Verdict::Delay(Duration::from_millis(200)),
                false => Verdict::Pass,
            }
        })));
        c.start(victim);
        let mut under_way = Vec::new();
        for i in 0..500 {
            under_way.push(fire(&c, leader, big("meanwhile", i), LONG));
            millis(20).await;
        }
        for task in under_way {
            let (_, done) = task.await.expect("not cancelled");
            assert!(done, "the leader stays");
        }
        let index = c.status(leader).expect("up").commit;
        eventually("it is brought up", LONG, || async {
            c.status(victim).is_some_and(|s| s.applied >= index)
        })
        .await;
        assert_eq!(installs.load(Ordering::Relaxed), 1);
        set_judge(None);
        heal_and_settle(&c).await;
        eventually("every log is cut", LONG, || async {
            let short = |node| c.status(node).is_some_and(|s| s.last - s.base <= BOUND);
            c.ids().into_iter().all(short)
        })
        .await;
    })
    .await;
}

/// The follower loses its power again and again while it is given a snapshot: it always ends with
/// the whole state, never with a mixture.
#[madsim::test]
async fn crash_inside_an_install() {
    scenario(RaftOptions::small_log(3), |c| async move {
        many(&c, &c.ids(), "first", 10).await;
        for round in 0..6 {
            let leader = c.wait_leader(&c.ids()).await;
            let victim = c.others(&[leader])[0];
            c.kill(victim);
            many(&c, &c.others(&[victim]), &format!("r{round}"), 80).await;
            for _ in 0..4 {
                c.start(victim);
                millis(20 + wire::below(700)).await;
                c.kill(victim);
            }
            c.start(victim);
            let index = c.agree(&big("together", round), LONG).await;
            c.settle(&c.ids(), index).await;
        }
        heal_and_settle(&c).await;
    })
    .await;
}

/// Everybody loses power: the durable state never goes back (checked at every start and apply),
/// and nothing acknowledged is lost.
#[madsim::test]
async fn snapshot_all_crash() {
    scenario(RaftOptions::small_log(3), |c| async move {
        let mut all = Vec::new();
        for round in 0..6 {
            let name = format!("r{round}");
            let count = 20 + wire::below(40) as usize;
            many(&c, &c.ids(), &name, count).await;
            all.extend((0..count).map(|i| big(&name, i)));
            let before = c.applied().last_key_value().map_or(0, |(i, _)| *i);
            c.ids().into_iter().for_each(|n| c.kill(n));
            c.ids().into_iter().for_each(|n| c.start(n));
            let index = c.agree(&big("after", round), LONG).await;
            assert!(index > before, "index {index} after {before}");
        }
        heal_and_settle(&c).await;
        exactly_once(&c, &all).await;
    })
    .await;
}

/// Restarts from a state without a log behind it, then with one entry behind it.
#[madsim::test]
async fn snapshot_init() {
    scenario(RaftOptions::small_log(3), |c| async move {
        many(&c, &c.ids(), "init", 100).await;
        c.settle(&c.ids(), 0).await;
        millis(1500).await;
        let durable: Vec<u64> = c
            .ids()
            .iter()
            .map(|n| c.status(*n).expect("up").durable)
            .collect();
        assert!(durable.iter().all(|d| *d > 0), "{durable:?}");
        for round in 0..3 {
            c.ids().into_iter().for_each(|n| c.kill(n));
            c.ids().into_iter().for_each(|n| c.start(n));
            c.agree(&big("one", round), LONG).await;
            for (node, durable) in c.ids().into_iter().zip(&durable) {
                let status = c.status(node).expect("up");
                assert!(status.applied >= *durable, "node {node} went back");
            }
        }
        heal_and_settle(&c).await;
    })
    .await;
}

/// A leader that writes faster than a follower's slow disk: bounded memory, no loss.
#[madsim::test]
async fn follower_with_a_slow_disk() {
    let mut options = RaftOptions::small_log(3);
    options.disk.stall = 0.2;
    scenario(options, |c| async move {
        many(&c, &c.ids(), "slow", 200).await;
        heal_and_settle(&c).await;
        let all: Vec<_> = (0..200).map(|i| big("slow", i)).collect();
        for command in &all {
            assert!(c.times(command) > 0);
        }
        // A flush may be under way on the stalling disk still (seed 35); its log is cut when it ends.
        eventually("every log is cut", LONG, || async {
            let short = |node| c.status(node).is_some_and(|s| s.last - s.base <= BOUND);
            c.ids().into_iter().all(short)
        })
        .await;
    })
    .await;
}
