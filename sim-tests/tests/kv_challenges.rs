//! Beyond correctness: shards that are not concerned, shards that have arrived, bytes that are gone.
#![cfg(madsim)]

use ctrler::config::{GroupId, ShardId};
use kv::api::ShardState;
use kv::client::ClientError;
use sim_tests::sim::kv_cluster::small;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::unrest::{between, reliable, unreliable_between_groups};
use sim_tests::sim::{KvCluster, KvOptions, Load, Mix};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The bytes of moved shards are gone from idle disks after so long.
const GONE: Duration = Duration::from_secs(60);

/// Bytes of keys and values that a member holds, as it counts them, and in which shards.
async fn held(cluster: &KvCluster, group: GroupId, node: u64) -> (u64, Vec<ShardId>) {
    let page = cluster.status(group, node).await.expect("answers");
    let bytes = page.shards.iter().map(|s| s.bytes).sum();
    (bytes, page.shards.iter().map(|s| s.shard).collect())
}

/// After moves there is one copy per replica of the owner: rows are gone, and so are their bytes
/// from the disks of groups that then have nothing to do. (A file keeps the size that redb gives an
/// empty one, and the newest segments of the log.)
#[madsim::test]
async fn challenge_1_delete() {
    const KEYS: u64 = 40;
    const VALUE: usize = 64 << 10;
    const EMPTY: u64 = 1800 << 10;
    let options = KvOptions {
        groups: 3,
        adjust: Arc::new(small),
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1]).await;
    let c = cluster.clone();
    let key = |n| format!("key-{n}").into_bytes();
    cluster
        .nodes
        .run(async move {
            let client = c.client();
            let mut all = 0;
            for n in 0..KEYS {
                let value = [format!("value-{n}-").into_bytes(), vec![b'#'; VALUE]].concat();
                all += (key(n).len() + value.len()) as u64;
                client.put(&key(n), &value).await.expect("put");
            }
            c.join(&[2, 3]).await;
            c.settled().await;
            let num = c.leave(&[1]).await;
            c.left(1, num).await;
            one_copy(&c, &[2, 3], all, EMPTY).await;
            c.join(&[1]).await;
            let num = c.leave(&[2, 3]).await;
            c.left(2, num).await;
            c.left(3, num).await;
            c.settled().await;
            one_copy(&c, &[1], all, EMPTY).await;
            for n in 0..KEYS {
                let value = client.get(&key(n)).await.expect("get").expect("present");
                assert_eq!(value.len(), format!("value-{n}-").len() + VALUE);
            }
        })
        .await;
    cluster.nodes.finish().await;
}

/// The owners hold `all` bytes per replica, the others nothing, and the disks follow.
async fn one_copy(cluster: &KvCluster, owners: &[GroupId], all: u64, empty: u64) {
    cluster.swept(&[1, 2, 3]).await;
    for group in 1..=3 {
        cluster.agreed(group).await;
    }
    for node in 1..=3 {
        let mut sum = 0;
        for group in 1..=3 {
            let (bytes, shards) = held(cluster, group, node).await;
            let owns = owners.contains(&group);
            assert!(owns != shards.is_empty(), "{group}.{node}: {shards:?}");
            assert!(owns || bytes == 0, "{group}.{node}: {bytes}");
            sum += bytes;
        }
        assert_eq!(sum, all, "node {node} of all groups");
    }
    for group in 1..=3 {
        let limit = match owners.contains(&group) {
            // The store lets a file be four times as big as a fresh one, and a fresh one of values
            // as long as these is bigger than they are.
            true => empty + 5 * all,
            false => empty,
        };
        for node in cluster.members(group) {
            let disk = &cluster.nodes.disk(cluster.key(group, node));
            let since = world::clock::now();
            while disk.used() > limit {
                let files = disk.files();
                assert!(
                    since.elapsed() < GONE,
                    "{group}.{node}, limit {limit}: {files:?}"
                );
                sleep(Duration::from_millis(500)).await;
            }
        }
    }
}

/// Shards untouched by a stuck reconfiguration keep serving: the old owner of the others is dead.
#[madsim::test]
async fn challenge_2_unaffected() {
    let options = KvOptions {
        groups: 2,
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1, 2]).await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.client();
            for shard in 0..10 {
                client
                    .put(&c.key_of(shard, 0), b"before")
                    .await
                    .expect("put");
            }
            c.settled().await;
            let owners = c.config().await.shards;
            c.kill_group(1);
            c.leave(&[1]).await;
            sleep(Duration::from_secs(2)).await;
            let quick = c.client_within(Duration::from_secs(3));
            for (shard, owner) in owners.iter().enumerate() {
                let key = c.key_of(shard as u32, 0);
                if *owner == Some(2) {
                    assert_eq!(quick.append(&key, b"+").await, Ok(7), "shard {shard}");
                    assert_eq!(quick.get(&key).await, Ok(Some("before+".into())));
                }
            }
            let lost = owners
                .iter()
                .position(|o| *o == Some(1))
                .expect("half of them") as u32;
            let got = quick.get(&c.key_of(lost, 0)).await;
            assert!(matches!(got, Err(ClientError::Unavailable(_))), "{got:?}");
            c.start_group(1);
            for (shard, owner) in owners.iter().enumerate() {
                let value = client.get(&c.key_of(shard as u32, 0)).await;
                let expected = if *owner == Some(2) {
                    "before+"
                } else {
                    "before"
                };
                assert_eq!(value, Ok(Some(expected.into())), "shard {shard}");
            }
            c.settled().await;
        })
        .await;
    cluster.nodes.finish().await;
}

/// A shard is given to a group that cannot take it: its old owner goes on serving it, and clients
/// that know the configuration find it there.
async fn given_to_the_dead(ruin: impl Fn(&KvCluster) + Send + 'static) {
    let options = KvOptions {
        groups: 3,
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1, 2, 3]).await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.client_within(Duration::from_secs(5));
            for shard in 0..10 {
                let put = client.put(&c.key_of(shard, 0), b"before").await;
                assert_eq!(put, Ok(()));
            }
            c.settled().await;
            let owners = c.config().await.shards;
            let mut given = (0u32..).zip(&owners).filter(|(_, o)| **o != Some(3));
            let mut next = || given.next().expect("seven of ten").0;
            let (first, second, third) = (next(), next(), next());
            ruin(&c);
            c.move_shard(first, 3).await;
            let fresh = c.client_within(Duration::from_secs(5));
            assert_eq!(fresh.append(&c.key_of(first, 0), b"+").await, Ok(7));
            assert_eq!(client.append(&c.key_of(first, 0), b"+").await, Ok(8));
            assert_eq!(
                fresh.get(&c.key_of(first, 0)).await,
                Ok(Some("before++".into()))
            );
            // Later configurations that leave the shard where it is change nothing.
            c.move_shard(second, 3).await;
            c.move_shard(third, 3).await;
            for shard in [first, second, third] {
                for client in [&fresh, &client] {
                    let key = c.key_of(shard, 1);
                    let length = client.append(&key, b"*").await;
                    assert!(length.is_ok(), "shard {shard}: {length:?}");
                }
                let newcomer = c.client_within(Duration::from_secs(5));
                let value = newcomer.get(&c.key_of(shard, 1)).await;
                assert_eq!(value, Ok(Some("**".into())), "shard {shard}");
            }
            c.nodes.heal();
            for node in c.members(3) {
                if !c.nodes.is_up(c.key(3, node)) {
                    c.nodes.start(c.key(3, node));
                }
            }
            c.settled().await;
            assert_eq!(c.config().await.shards[first as usize], Some(3));
            assert_eq!(client.append(&c.key_of(first, 0), b"+").await, Ok(9));
            assert_eq!(client.append(&c.key_of(second, 1), b"+").await, Ok(3));
        })
        .await;
    cluster.nodes.finish().await;
}

#[madsim::test]
async fn challenge_2_given_to_a_group_that_is_down() {
    given_to_the_dead(|c| c.kill_group(3)).await;
}

#[madsim::test]
async fn challenge_2_given_to_a_group_without_a_majority() {
    given_to_the_dead(|c| {
        for node in c.members(3).into_iter().take(2) {
            c.nodes.kill(c.key(3, node));
        }
    })
    .await;
}

#[madsim::test]
async fn challenge_2_given_to_a_group_that_is_cut_off() {
    given_to_the_dead(|c| {
        for node in c.members(3) {
            c.nodes.isolate(c.key(3, node));
        }
    })
    .await;
}

/// Wound 10: a shard that has arrived serves at once, while others of the same configuration are
/// still on their way: their old owner is dead. Whichever shards those are.
async fn partial(dead: GroupId) {
    let alive = 4 - dead;
    let options = KvOptions {
        groups: 3,
        shards: 30,
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1, 2, 3]).await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.client();
            for shard in 0..30 {
                client
                    .put(&c.key_of(shard, 0), b"before")
                    .await
                    .expect("put");
            }
            c.settled().await;
            let owners = c.config().await.shards;
            c.kill_group(dead);
            c.leave(&[1, 3]).await;
            // None of the groups settles this configuration, and these shards arrive.
            let quick = c.client_within(Duration::from_secs(5));
            for (shard, owner) in owners.iter().enumerate() {
                if *owner != Some(dead) {
                    let key = c.key_of(shard as u32, 0);
                    assert_eq!(quick.append(&key, b"+").await, Ok(7), "shard {shard}");
                }
            }
            c.nodes.assert_no_fatal();
            let c2 = &c;
            eventually(
                "all that can arrive has arrived",
                Duration::from_secs(10),
                || async move {
                    let node = c2.leader(2).await;
                    let Some(page) = c2.status(2, node).await else {
                        return false;
                    };
                    let count = |state| page.shards.iter().filter(|s| s.state == state).count();
                    (count(ShardState::Arriving), count(ShardState::Serving)) == (10, 20)
                },
            )
            .await;
            c.start_group(dead);
            c.settled().await;
            for (shard, owner) in owners.iter().enumerate() {
                let value = client.get(&c.key_of(shard as u32, 0)).await;
                let expected = if *owner == Some(dead) {
                    "before"
                } else {
                    "before+"
                };
                assert_eq!(value, Ok(Some(expected.into())), "shard {shard}");
            }
            let num = c.config().await.num;
            c.left(alive, num).await;
            c.left(dead, num).await;
        })
        .await;
    cluster.nodes.finish().await;
}

#[madsim::test]
async fn challenge_2_partial_wound_10_low_shards_missing() {
    partial(1).await;
}

#[madsim::test]
async fn challenge_2_partial_wound_10_high_shards_missing() {
    partial(3).await;
}

/// Wounds 3 and 4: A→B→A→B faster than deletion, while what groups say to each other is lost,
/// doubled and up to three seconds late, and members crash: a late install or a late release
/// touches no shard that has come back, and every old copy is swept in the end.
#[madsim::test]
async fn back_and_forth_wound_3_wound_4() {
    let options = KvOptions {
        groups: 2,
        adjust: Arc::new(small),
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1, 2]).await;
    let load = Load::start(
        &cluster,
        Mix {
            clients: 5,
            keys: 10,
            appends_only: true,
            ..Mix::default()
        },
    );
    load.book().progress(30).await;
    unreliable_between_groups();
    for round in 0..12u64 {
        for shard in 0..10 {
            if (round + shard).is_multiple_of(3) {
                cluster
                    .move_shard(shard as u32, 1 + (round + shard / 3) % 2)
                    .await;
            }
        }
        if round % 4 == 3 {
            let key = cluster.key(1 + round / 4 % 2, cluster.leader(1 + round / 4 % 2).await);
            cluster.nodes.restart(key);
        }
        sleep(between(0, 400)).await;
    }
    reliable();
    load.book().progress(30).await;
    cluster.settled().await;
    let book = load.finish().await;
    assert!(book.errors().is_empty(), "{:#?}", book.errors());
    cluster.swept(&[1, 2]).await;
    for group in 1..=2 {
        cluster.agreed(group).await;
    }
    cluster.nodes.finish().await;
}
