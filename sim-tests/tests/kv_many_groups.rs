//! The kv scenarios of MIT 6.5840 on many groups: shards on the move under load and failures.
#![cfg(madsim)]

use ctrler::config::GroupId;
use kv::client::{Client, ClientError};
use sim_tests::sim::kv_cluster::small;
use sim_tests::sim::unrest::{between, reliable, unreliable};
use sim_tests::sim::{KvCluster, KvOptions, Load, Mix};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

const GROUPS: [GroupId; 3] = [1, 2, 3];

async fn three_groups() -> KvCluster {
    let options = KvOptions {
        groups: 3,
        ..KvOptions::default()
    };
    KvCluster::with_groups(options, &[1]).await
}

/// What a single client knows to be in the store.
struct Model {
    client: Client,
    values: BTreeMap<Vec<u8>, String>,
}

impl Model {
    /// Puts `count` keys.
    async fn fill(client: Client, count: u64, padding: usize) -> Model {
        let mut values = BTreeMap::new();
        for n in 0..count {
            let (key, value) = (
                format!("key-{n}").into_bytes(),
                format!("{n}{}", ".".repeat(padding)),
            );
            client.put(&key, value.as_bytes()).await.expect("put");
            values.insert(key, value);
        }
        Model { client, values }
    }

    /// Reads every key; appends to every key.
    async fn check_and_append(&mut self, more: &str) {
        self.check().await;
        for (key, value) in &mut self.values {
            value.push_str(more);
            let length = self.client.append(key, more.as_bytes()).await;
            assert_eq!(length, Ok(value.len() as u64), "{key:?}");
        }
        self.check().await;
    }

    async fn check(&self) {
        for (key, value) in &self.values {
            let found = self.client.get(key).await.expect("get");
            let found = found.unwrap_or_else(|| panic!("{key:?} is gone"));
            assert_eq!(String::from_utf8_lossy(&found), value.as_str(), "{key:?}");
        }
    }
}

/// With one of two groups down exactly its shards are unavailable.
#[madsim::test]
async fn static_shards() {
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
                    .put(&c.key_of(shard, 0), &[shard as u8])
                    .await
                    .expect("put");
            }
            c.kill_group(2);
            let owners = c.config().await.shards;
            let mut asked = Vec::new();
            for (shard, owner) in owners.iter().enumerate() {
                let c = c.clone();
                let owner = *owner;
                asked.push(tokio::spawn(async move {
                    let key = c.key_of(shard as u32, 0);
                    let client = c.client_within(Duration::from_secs(4));
                    let got = client.get(&key).await;
                    let put = client.put(&key, &[shard as u8]).await;
                    if owner == Some(1) {
                        assert_eq!(got, Ok(Some(vec![shard as u8].into())), "shard {shard}");
                        assert_eq!(put, Ok(()), "shard {shard}");
                    } else {
                        assert!(
                            matches!(got, Err(ClientError::Unavailable(_))),
                            "{shard}: {got:?}"
                        );
                        assert!(put.is_err(), "{shard}: {put:?}");
                    }
                }));
            }
            for one in asked {
                one.await.expect("as its owner is");
            }
            assert_eq!(owners.iter().filter(|o| **o == Some(1)).count(), 5);
            c.start_group(2);
            for shard in 0..10 {
                let value = client.get(&c.key_of(shard, 0)).await;
                assert_eq!(value, Ok(Some(vec![shard as u8].into())), "shard {shard}");
            }
        })
        .await;
    cluster.nodes.finish().await;
}

/// Values survive, and a group that has handed over everything can be shut down.
#[madsim::test]
async fn join_leave() {
    let cluster = three_groups().await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let mut model = Model::fill(c.client(), 30, 0).await;
            c.join(&[2]).await;
            c.settled().await;
            model.check_and_append("x").await;
            let num = c.leave(&[1]).await;
            c.left(1, num).await;
            c.kill_group(1);
            model.check_and_append("y").await;
        })
        .await;
    cluster.nodes.finish().await;
}

/// 30 keys over joins and leaves with small limits: disks stay bounded, and a restart of
/// everything keeps all.
#[madsim::test]
async fn snapshot() {
    let options = KvOptions {
        groups: 3,
        adjust: Arc::new(small),
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1]).await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let mut model = Model::fill(c.client(), 30, 3000).await;
            let more = ".".repeat(50);
            c.join(&[2, 3]).await;
            model.check_and_append(&more).await;
            let num = c.leave(&[1]).await;
            model.check_and_append(&more).await;
            c.left(1, num).await;
            let num = c.leave(&[2]).await;
            c.join(&[1]).await;
            model.check_and_append(&more).await;
            c.left(2, num).await;
            c.settled().await;
            for group in 0..=3 {
                for node in c.members(group) {
                    let disk = c.nodes.disk(c.key(group, node));
                    assert!(
                        disk.used() < 3 << 20,
                        "group {group} node {node}: {:?}",
                        disk.files()
                    );
                    let status = c.replica(group, node).await.expect("answers");
                    assert!(
                        group == 0 || status.base > 0,
                        "group {group}: the log was never cut"
                    );
                }
            }
            model.check().await;
            c.power_cut(Duration::from_secs(1)).await;
            model.check_and_append(&more).await;
            c.swept(&GROUPS).await;
        })
        .await;
    cluster.nodes.finish().await;
}

/// A group that joins late is not slowed by what happened before it came: it goes past it in one
/// entry of its log. So does a member group that the later moves do not concern.
#[madsim::test]
async fn a_group_that_joins_late_skips_what_does_not_concern_it() {
    let cluster = three_groups().await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            c.join(&[2]).await;
            for round in 0..30 {
                c.move_shard(0, 1 + round % 2).await;
            }
            c.settled().await;
            let mut model = Model::fill(c.client(), 20, 0).await;
            let num = c.join(&[3]).await;
            c.settled().await;
            model.check_and_append("x").await;
            let status = c.replica(3, 1).await.expect("answers");
            assert!(
                num > 30 && status.applied < 25,
                "configuration {num} after {} entries",
                status.applied
            );
        })
        .await;
    cluster.nodes.finish().await;
}

/// Servers that were down through several configurations catch up.
#[madsim::test]
async fn miss_change() {
    let cluster = three_groups().await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let down = |node| GROUPS.iter().for_each(|g| c.nodes.kill(c.key(*g, node)));
            let up = |node| GROUPS.iter().for_each(|g| c.nodes.start(c.key(*g, node)));
            let mut model = Model::fill(c.client(), 15, 0).await;
            c.join(&[2]).await;
            down(1);
            c.join(&[3]).await;
            let num = c.leave(&[1]).await;
            c.left(1, num).await;
            c.join(&[1]).await;
            model.check_and_append("a").await;
            up(1);
            model.check_and_append("b").await;
            // Whoever was away is needed for a majority from here on.
            down(2);
            let num = c.leave(&[2]).await;
            c.left(2, num).await;
            c.leave(&[3]).await;
            model.check_and_append("c").await;
            c.join(&[2]).await;
            up(2);
            down(3);
            c.settled().await;
            model.check_and_append("d").await;
            up(3);
            c.settled().await;
            model.check_and_append("e").await;
        })
        .await;
    for group in GROUPS {
        cluster.agreed(group).await;
    }
    cluster.nodes.finish().await;
}

/// When the last groups leave, their shards belong to nobody and are kept; the next group gets them.
#[madsim::test]
async fn nobody_owns_and_nothing_is_lost() {
    let cluster = three_groups().await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let mut model = Model::fill(c.client(), 20, 0).await;
            c.join(&[2]).await;
            c.settled().await;
            let num = c.leave(&[1, 2]).await;
            let config = c.config().await;
            assert_eq!(config.shards, vec![None; 10]);
            let quick = c.client_within(Duration::from_secs(2));
            let got = quick.get(b"key-0").await;
            assert!(matches!(got, Err(ClientError::Unavailable(_))), "{got:?}");
            let put = quick.put(b"key-0", b"lost").await;
            assert!(put.is_err(), "{put:?}");
            c.power_cut(Duration::from_millis(200)).await;
            // One of those that hold shards comes back, and so does another.
            c.join(&[1, 3]).await;
            c.left(2, num).await;
            c.kill_group(2);
            model.check_and_append("x").await;
            let num = c.leave(&[1]).await;
            c.left(1, num).await;
            c.kill_group(1);
            model.check_and_append("y").await;
        })
        .await;
    cluster.nodes.finish().await;
}

fn appends() -> Mix {
    Mix {
        clients: 6,
        keys: 12,
        appends_only: true,
        ..Mix::default()
    }
}

/// The end of a run under load: everything at rest, histories judged, no member differs.
async fn end(cluster: KvCluster, load: Load) {
    reliable();
    load.book().progress(30).await;
    cluster.settled().await;
    let book = load.finish().await;
    assert!(book.errors().is_empty(), "{:#?}", book.errors());
    cluster.swept(&GROUPS).await;
    for group in 0..=3 {
        cluster.agreed(group).await;
    }
    cluster.nodes.finish().await;
}

/// Appends during joins, leaves and staggered restarts.
#[madsim::test]
async fn concurrent_1() {
    let cluster = three_groups().await;
    let load = Load::start(&cluster, appends());
    load.book().progress(30).await;
    cluster.join(&[2]).await;
    sleep(between(100, 1000)).await;
    cluster.join(&[3]).await;
    sleep(between(100, 1000)).await;
    cluster.leave(&[1]).await;
    cluster.rolling_restart(&GROUPS, between(100, 1500)).await;
    cluster.join(&[1]).await;
    sleep(between(10, 300)).await;
    cluster.leave(&[2]).await;
    end(cluster, load).await;
}

/// Configurations follow each other without a pause.
#[madsim::test]
async fn concurrent_2() {
    let cluster = three_groups().await;
    let load = Load::start(
        &cluster,
        Mix {
            appends_only: false,
            ..appends()
        },
    );
    load.book().progress(10).await;
    for _ in 0..3 {
        cluster.join(&[2]).await;
        cluster.join(&[3]).await;
        cluster.leave(&[1]).await;
        sleep(between(0, 500)).await;
        cluster.join(&[1]).await;
        cluster.leave(&[2]).await;
        sleep(between(0, 500)).await;
        cluster.leave(&[3]).await;
    }
    end(cluster, load).await;
}

/// All groups lose their power in the middle of moves, again and again.
#[madsim::test]
async fn concurrent_3() {
    let options = KvOptions {
        groups: 3,
        adjust: Arc::new(small),
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1]).await;
    let load = Load::start(&cluster, appends());
    for round in 0..4 {
        load.book().progress(20).await;
        match round % 2 {
            0 => cluster.join(&[2, 3]).await,
            _ => cluster.leave(&[3, 2]).await,
        };
        sleep(between(0, 300)).await;
        GROUPS.iter().for_each(|g| cluster.kill_group(*g));
        sleep(between(10, 1000)).await;
        GROUPS.iter().for_each(|g| cluster.start_group(*g));
    }
    end(cluster, load).await;
}

/// One client, joins and leaves, a network that loses, doubles and delays.
#[madsim::test]
async fn unreliable_1() {
    let cluster = three_groups().await;
    unreliable();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let mut model = Model::fill(c.client(), 20, 0).await;
            c.join(&[2, 3]).await;
            model.check_and_append("a").await;
            let num = c.leave(&[1]).await;
            model.check_and_append("b").await;
            c.left(1, num).await;
            c.kill_group(1);
            reliable();
            model.check_and_append("c").await;
        })
        .await;
    cluster.nodes.finish().await;
}

async fn unreliable_moves(mix: Mix) {
    let cluster = three_groups().await;
    unreliable();
    let load = Load::start(&cluster, mix);
    load.book().progress(20).await;
    cluster.join(&[2, 3]).await;
    sleep(between(0, 1000)).await;
    cluster.leave(&[1]).await;
    sleep(between(0, 1000)).await;
    cluster.join(&[1]).await;
    sleep(between(0, 1000)).await;
    cluster.leave(&[2, 3]).await;
    sleep(between(0, 1000)).await;
    cluster.join(&[2]).await;
    load.book().progress(30).await;
    end(cluster, load).await;
}

#[madsim::test]
async fn unreliable_2() {
    unreliable_moves(appends()).await;
}

/// With all kinds of operations.
#[madsim::test]
async fn unreliable_3() {
    unreliable_moves(Mix {
        appends_only: false,
        ..appends()
    })
    .await;
}
