//! One shard on its way, and what its two owners say to each other lost or late: nothing is deleted
//! before the other has committed it, and nobody enters a history that is not its own.
#![cfg(madsim)]

use ctrler::config::{Group, GroupId, ShardId};
use kv::api::{GROUP_CHANNEL, ShardState};
use kv::mover::wire::{Answer, Ask, Party, What};
use sim_tests::sim::{KvCluster, KvOptions, wire};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::time::sleep;
use world::net::Kind;
use world::net::inject::{Passing, Verdict, set_judge};

const LONG: Duration = Duration::from_secs(30);
/// An answer of this size between groups carries rows.
const ROWS: usize = 2_000;

/// Two groups, and a shard of the first with a few values in it.
async fn two_groups() -> (KvCluster, ShardId, Vec<Vec<u8>>) {
    let options = KvOptions {
        groups: 2,
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1, 2]).await;
    let owners = cluster.config().await.shards;
    let shard = owners.iter().position(|owner| *owner == Some(1));
    let shard = shard.expect("the first group has some") as ShardId;
    let keys: Vec<Vec<u8>> = (0..4).map(|n| cluster.key_of(shard, n)).collect();
    let (c, of) = (cluster.clone(), keys.clone());
    let filled = async move {
        let client = c.client();
        for key in &of {
            client.put(key, &[b'v'; 1_000]).await.expect("put");
        }
    };
    cluster.nodes.run(filled).await;
    (cluster, shard, keys)
}

async fn all_there(cluster: &KvCluster, keys: Vec<Vec<u8>>) {
    let c = cluster.clone();
    let read = async move {
        let client = c.client();
        for key in keys {
            let value = client.get(&key).await.expect("get");
            assert_eq!(value.map(|v| v.len()), Some(1_000), "{key:?}");
        }
    };
    cluster.nodes.run(read).await;
}

fn way(passing: &Passing<'_>) -> (Option<GroupId>, Option<GroupId>) {
    (passing.from.group, passing.to.group)
}

/// An answer of the first group that carries rows to the second.
fn carries_rows(passing: &Passing<'_>) -> bool {
    passing.kind == Kind::Reply
        && passing.channel == GROUP_CHANNEL
        && passing.size > ROWS
        && way(passing) == (Some(1), Some(2))
}

/// The answers that carry the rows are lost three times. The old owner must still have them: it
/// deletes nothing because it was sent.
#[madsim::test]
async fn rows_that_are_lost_on_the_way_are_sent_again() {
    let (cluster, shard, keys) = two_groups().await;
    let lost = Arc::new(AtomicU64::new(0));
    let count = lost.clone();
    set_judge(Some(Box::new(move |passing| {
        match carries_rows(passing) && count.fetch_add(1, Relaxed) < 3 {
            true => Verdict::Reset,
            false => Verdict::Pass,
        }
    })));
    cluster.move_shard(shard, 2).await;
    cluster.settled().await;
    assert!(lost.load(Relaxed) > 3, "the rows were sent again");
    wire::install();
    all_there(&cluster, keys).await;
    cluster.nodes.finish().await;
}

/// A→B→A→B, and B's word that the shard has arrived the first time comes when it is on its way
/// for the second time, frozen and not yet committed by B.
#[madsim::test]
async fn a_notice_of_an_earlier_move_deletes_nothing() {
    /// Less than a group waits for an answer: then it would close the connection.
    const LATE: Duration = Duration::from_millis(1_800);
    let (cluster, shard, keys) = two_groups().await;
    let mut in_time = false;
    for _ in 0..6 {
        let (sent, late) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let withheld = Arc::new(AtomicBool::new(false));
        let (rows, delayed, hold) = (sent.clone(), late.clone(), withheld.clone());
        set_judge(Some(Box::new(move |passing| {
            if passing.channel != GROUP_CHANNEL {
                return Verdict::Pass;
            }
            match (passing.kind, way(passing)) {
                (Kind::Reply, (Some(1), Some(2))) if passing.size > ROWS => {
                    rows.fetch_add(1, Relaxed);
                    match hold.load(Relaxed) {
                        true => Verdict::Reset,
                        false => Verdict::Pass,
                    }
                }
                // What the new owner says next is that they have arrived.
                (Kind::Request, (Some(2), Some(1)))
                    if rows.load(Relaxed) > 0 && !delayed.swap(true, Relaxed) =>
                {
                    Verdict::Delay(LATE)
                }
                _ => Verdict::Pass,
            }
        })));
        let since = world::clock::now();
        for group in [2, 1] {
            cluster.move_shard(shard, group).await;
            cluster.settled().await;
        }
        assert!(late.load(Relaxed), "the notice was delayed");
        let before = sent.load(Relaxed);
        withheld.store(true, Relaxed);
        cluster.move_shard(shard, 2).await;
        while sent.load(Relaxed) == before {
            sleep(Duration::from_millis(5)).await;
        }
        // It is frozen now, and the notice is still on its way: that was to be tried.
        in_time |= since.elapsed() < LATE;
        sleep(LATE).await;
        withheld.store(false, Relaxed);
        cluster.settled().await;
        wire::install();
        all_there(&cluster, keys.clone()).await;
        cluster.move_shard(shard, 1).await;
        cluster.settled().await;
    }
    assert!(in_time, "the notice never came when it could do harm");
    cluster.nodes.finish().await;
}

/// Somebody who is no member of any group says what would have the old owner delete the only copy: that
/// the shard has arrived, and to the controllers that the new owner has settled. The new owner is asked.
#[madsim::test]
async fn what_anybody_may_say_deletes_nothing() {
    let (cluster, shard, keys) = two_groups().await;
    let withheld = Arc::new(AtomicBool::new(true));
    let (frozen, hold) = (Arc::new(AtomicBool::new(false)), withheld.clone());
    let asked = frozen.clone();
    set_judge(Some(Box::new(move |passing| {
        if !carries_rows(passing) || !hold.load(Relaxed) {
            return Verdict::Pass;
        }
        asked.store(true, Relaxed);
        Verdict::Reset
    })));
    let num = cluster.move_shard(shard, 2).await;
    while !frozen.load(Relaxed) {
        sleep(Duration::from_millis(5)).await;
    }
    let c = cluster.clone();
    let identified = async move { (c.identify(2).await, c.identify(1).await) };
    let (from, to) = cluster.nodes.run(identified).await;
    let party = |group, birth| Party { group, birth };
    let arrived = Ask {
        from: party(2, from.birth),
        to: party(1, to.birth),
        num,
        what: What::Arrived {
            shards: vec![shard],
        },
    };
    let c = cluster.clone();
    let settled = async move {
        let controller = c.controller();
        controller.settled(2, from, num, true, LONG).await
    };
    cluster.nodes.run(settled).await.expect("taken for true");
    for _ in 0..20 {
        for node in cluster.members(1) {
            let answer = cluster.ask_as_a_group(1, node, &arrived).await;
            let known = matches!(answer, Some(Answer::Noted | Answer::NotLeader(_)));
            assert!(known, "{answer:?}");
        }
        sleep(Duration::from_millis(100)).await;
    }
    let leader = cluster.leader(1).await;
    let page = cluster.status(1, leader).await.expect("answers");
    let kept = page.shards.iter().find(|s| s.shard == shard);
    assert_eq!(kept.map(|s| s.state), Some(ShardState::Leaving));
    withheld.store(false, Relaxed);
    cluster.settled().await;
    wire::install();
    all_there(&cluster, keys).await;
    cluster.nodes.finish().await;
}

/// The controllers know a group's number with another birth id: as when its servers were given
/// empty disks since. It must not enter the history that was made for the other.
#[madsim::test]
async fn a_group_recorded_with_another_birth_id_stays_out() {
    let options = KvOptions {
        groups: 2,
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[2]).await;
    let c = cluster.clone();
    let joined = async move {
        let mut group: Group = c.identify(1).await;
        group.birth ^= 1;
        let controller = c.controller();
        controller.join(BTreeMap::from([(1, group)]), LONG).await
    };
    cluster.nodes.run(joined).await.expect("joined");
    sleep(Duration::from_secs(20)).await;
    for node in cluster.members(1) {
        let page = cluster.status(1, node).await.expect("answers");
        assert_eq!(
            page.config, 0,
            "it entered a configuration: {:?}",
            page.shards
        );
        assert!(page.shards.is_empty(), "it has shards: {:?}", page.shards);
    }
    let leader = cluster.leader(2).await;
    let page = cluster.status(2, leader).await.expect("answers");
    let kept = |state| state == ShardState::Serving || state == ShardState::Leaving;
    assert!(
        page.shards.iter().all(|s| kept(s.state) && !s.frozen),
        "what it cannot hand over it goes on serving: {:?}",
        page.shards
    );
    cluster.nodes.finish().await;
}
