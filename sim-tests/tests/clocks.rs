//! Members whose clocks differ: one fast, one slow, one that jumps. Clocks decide when somebody loses
//! patience, never what is true.
#![cfg(madsim)]

use kv::client::ClientError;
use sim_tests::sim::kv_cluster::small;
use sim_tests::sim::{KvCluster, KvOptions, Load, Mix, trace};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// A fifth.
const FIFTH: i64 = 200_000;
/// Sessions are dropped after an hour of log time.
const HOUR: Duration = Duration::from_secs(3_600);

/// One member a fifth fast, one a fifth slow, one that jumps by half a minute again and again, the
/// leader killed now and then: histories stay linearizable and states equal.
#[madsim::test]
async fn fast_slow_and_jumping() {
    let options = KvOptions {
        adjust: Arc::new(small),
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1]).await;
    let nodes = &cluster.nodes;
    for group in [0, 1] {
        nodes.clock_rate(cluster.key(group, 1), FIFTH);
        nodes.clock_rate(cluster.key(group, 2), -FIFTH);
    }
    let load = Load::start(&cluster, Mix::default());
    for round in 0..6 {
        for group in [0, 1] {
            nodes.clock_jump(cluster.key(group, 3), Duration::from_secs(30));
        }
        sleep(Duration::from_secs(2)).await;
        if round % 2 == 1 {
            let leader = cluster.key(1, cluster.leader(1).await);
            nodes.kill(leader);
            sleep(Duration::from_secs(3)).await;
            nodes.start(leader);
        }
        load.book().progress(40).await;
    }
    let book = load.finish().await;
    assert!(book.errors().is_empty(), "{:#?}", book.errors());
    cluster.agreed(1).await;
    nodes.finish().await;
}

/// The leader's clock jumps by more than an hour. Log time is the leader's, so every member drops the
/// idle session at the same place of the log, whatever its own clock says; and the client is told that
/// the outcome of a write in it is unknown, never that it was done or not.
#[madsim::test]
async fn an_hour_in_a_moment() {
    let cluster = KvCluster::with_groups(KvOptions::default(), &[1]).await;
    let nodes = &cluster.nodes;
    let c = cluster.clone();
    nodes
        .run(async move {
            let (idle, other) = (c.client(), c.client());
            assert_eq!(idle.put(b"k", b"1").await, Ok(()));
            // Members that do not lead jump too, by much more, and that changes nothing.
            let leader = c.leader(1).await;
            for node in c.members(1) {
                let by = if node == leader { HOUR } else { 24 * HOUR };
                c.nodes
                    .clock_jump(c.key(1, node), by + Duration::from_secs(1));
            }
            // A session opened finds the idle one expired.
            assert_eq!(other.append(b"k", b"2").await, Ok(2));
            assert!(trace::marks().contains_key("session: dropped after an hour"));
            let told = idle.append(b"k", b"3").await;
            assert!(matches!(told, Err(ClientError::Unknown(_))), "{told:?}");
            assert_eq!(c.client().get(b"k").await, Ok(Some("12".into())));
            // It goes on with a new session.
            assert_eq!(idle.append(b"k", b"4").await, Ok(3));
            // Under another leader, whose clock is far ahead.
            c.nodes.kill(c.key(1, leader));
            assert_eq!(other.append(b"k", b"5").await, Ok(4));
            assert_eq!(idle.append(b"k", b"6").await, Ok(5));
            c.nodes.start(c.key(1, leader));
        })
        .await;
    cluster.agreed(1).await;
    nodes.finish().await;
}
