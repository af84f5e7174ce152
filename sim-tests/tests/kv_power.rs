//! Power failures and killed members under load: what was acknowledged is there, once.
#![cfg(madsim)]

use ctrler::config::GroupId;
use sim_tests::sim::kv_cluster::small;
use sim_tests::sim::unrest::between;
use sim_tests::sim::{KvCluster, KvOptions, Load, Mix};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use world::entropy::random_u64;

async fn two_groups(adjust: bool) -> KvCluster {
    let mut options = KvOptions {
        groups: 3,
        ..KvOptions::default()
    };
    if adjust {
        options.adjust = Arc::new(small);
    }
    KvCluster::with_groups(options, &[1, 2]).await
}

async fn power_cuts(small: bool, mix: Mix) {
    let cluster = two_groups(small).await;
    let load = Load::start(&cluster, mix);
    for _ in 0..5 {
        load.book().progress(20).await;
        sleep(between(0, 500)).await;
        cluster.power_cut(between(1, 2000)).await;
    }
    load.book().progress(20).await;
    let book = load.finish().await;
    assert!(book.errors().is_empty(), "{:#?}", book.errors());
    for group in 0..=2 {
        cluster.agreed(group).await;
    }
    cluster.nodes.finish().await;
}

#[madsim::test]
async fn power_cut_of_all_nodes() {
    power_cuts(
        false,
        Mix {
            clients: 8,
            keys: 12,
            ..Mix::default()
        },
    )
    .await;
}

/// With snapshots, flushes and rewrites going on all the time.
#[madsim::test]
async fn power_cut_of_all_nodes_small_limits() {
    let mix = Mix {
        clients: 8,
        keys: 12,
        padding: 500,
        ..Mix::default()
    };
    power_cuts(
        true,
        Mix {
            pause: Duration::from_millis(10),
            ..mix
        },
    )
    .await;
}

/// During moves, and with the machines coming back one after the other.
#[madsim::test]
async fn power_cut_in_the_middle_of_moves() {
    let cluster = two_groups(true).await;
    let mix = Mix {
        clients: 6,
        keys: 12,
        appends_only: true,
        ..Mix::default()
    };
    let load = Load::start(&cluster, mix);
    for round in 0..4 {
        load.book().progress(20).await;
        match round % 2 {
            0 => cluster.join(&[3]).await,
            _ => cluster.leave(&[3]).await,
        };
        sleep(between(0, 400)).await;
        for key in cluster.all() {
            cluster.nodes.kill(key);
        }
        sleep(between(1, 500)).await;
        for key in cluster.all() {
            cluster.nodes.start(key);
            sleep(between(0, 200)).await;
        }
    }
    load.book().progress(20).await;
    cluster.settled().await;
    let book = load.finish().await;
    assert!(book.errors().is_empty(), "{:#?}", book.errors());
    cluster.swept(&[1, 2, 3]).await;
    for group in 0..=3 {
        cluster.agreed(group).await;
    }
    cluster.nodes.finish().await;
}

/// Power fails inside disk operations of a member of each group at a time: between a write and its
/// sync, between a sync and the next write, during recovery.
#[madsim::test]
async fn power_fails_inside_disk_operations() {
    let cluster = two_groups(true).await;
    let mix = Mix {
        clients: 6,
        keys: 12,
        padding: 500,
        ..Mix::default()
    };
    let load = Load::start(&cluster, mix);
    for _ in 0..6 {
        load.book().progress(20).await;
        let mut victims = Vec::new();
        for group in 0..=2 {
            let key = cluster.key(group, 1 + random_u64() % 3);
            cluster.nodes.disk(key).crash_at(1 + random_u64() % 60);
            victims.push((key, 1 + random_u64() % 2));
        }
        let since = world::clock::now();
        // A member that has nothing to write does not reach its crash.
        while !victims.is_empty() && since.elapsed() < Duration::from_secs(4) {
            for (key, again) in &mut victims {
                let disk = cluster.nodes.disk(*key);
                if disk.crashed() {
                    cluster.nodes.kill(*key);
                    sleep(between(1, 500)).await;
                    cluster.nodes.start(*key);
                    *again = again.saturating_sub(1);
                    if *again > 0 {
                        disk.crash_at(1 + random_u64() % 30);
                    }
                }
            }
            victims.retain(|(_, again)| *again > 0);
            sleep(Duration::from_millis(1)).await;
        }
        for key in cluster.all() {
            let disk = cluster.nodes.disk(key);
            disk.clear_faults();
            if disk.crashed() {
                cluster.nodes.restart(key);
            }
        }
        // Between the crash and the kill a server may have noticed that its disk is gone.
        cluster.nodes.take_fatal();
    }
    load.book().progress(20).await;
    let book = load.finish().await;
    assert!(book.errors().is_empty(), "{:#?}", book.errors());
    for group in 0..=2 {
        cluster.agreed(group).await;
    }
    cluster.nodes.finish().await;
}

/// One member of each group and one controller die under load, leaders among them: nothing is
/// lost or doubled, and no write or read takes longer than 3 s. The processes die (`kill -9`), or the
/// machines' power does.
async fn one_of_each(power: bool) {
    const LIMIT: Duration = Duration::from_secs(3);
    let cluster = two_groups(false).await;
    let load = Load::start(
        &cluster,
        Mix {
            clients: 8,
            keys: 16,
            ..Mix::default()
        },
    );
    for round in 0..3u64 {
        load.book().progress(30).await;
        let mut killed = Vec::new();
        for group in 0..=2 as GroupId {
            let leader = cluster.leader(group).await;
            // The leader of every group in the first round, anybody later.
            let node = match round {
                0 => leader,
                _ => 1 + random_u64() % 3,
            };
            killed.push(cluster.key(group, node));
        }
        println!("round {round}: {killed:?} go at {:?}", world::clock::now());
        for key in &killed {
            if power {
                cluster.nodes.kill(*key);
            } else {
                cluster.nodes.crash(*key);
            }
        }
        sleep(Duration::from_secs(4)).await;
        load.book().progress(30).await;
        for key in &killed {
            cluster.nodes.start(*key);
        }
        sleep(Duration::from_secs(1)).await;
    }
    let book = load.finish().await;
    assert!(book.errors().is_empty(), "{:#?}", book.errors());
    for writes in [true, false] {
        let (slowest, which) = book.slowest(writes);
        assert!(slowest <= LIMIT, "{slowest:?} for {which}");
    }
    for group in 0..=2 {
        cluster.agreed(group).await;
    }
    cluster.nodes.finish().await;
}

#[madsim::test]
async fn kill_one_of_each_group() {
    one_of_each(false).await;
}

#[madsim::test]
async fn power_off_one_of_each_group() {
    one_of_each(true).await;
}
