//! The controller's scenarios of MIT 6.5840. Moves are counted against the fewest possible.
#![cfg(madsim)]

use ctrler::api::{Request, Response};
use ctrler::client::ClientError;
use ctrler::config::{Config, Group, GroupId};
use sim_tests::configs::{check_history, loads};
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::unrest::{between, reliable, unreliable};
use sim_tests::sim::{Key, KvCluster, KvOptions};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::sleep;

const LONG: Duration = Duration::from_secs(60);

fn controllers() -> KvCluster {
    KvCluster::new(KvOptions {
        groups: 0,
        ..KvOptions::default()
    })
}

/// A group that exists on paper only.
fn paper(group: GroupId) -> Group {
    Group {
        servers: (1..=3).map(|n| format!("10.200.{group}.{n}:1")).collect(),
        birth: u128::from(group) + 1000,
    }
}

fn papers(groups: &[GroupId]) -> BTreeMap<GroupId, Group> {
    groups.iter().map(|g| (*g, paper(*g))).collect()
}

async fn history(client: &ctrler::client::Client) -> Vec<Config> {
    let latest = client.query(None, LONG).await.expect("latest");
    let mut configs = Vec::new();
    for num in 0..=latest.num {
        configs.push(
            client
                .query(Some(num), LONG)
                .await
                .expect("a config that exists"),
        );
    }
    assert_eq!(configs.last(), Some(&latest));
    check_history(&configs).expect("each follows from the one before");
    configs
}

fn members(config: &Config) -> Vec<GroupId> {
    config.groups.keys().copied().collect()
}

#[madsim::test]
async fn basic() {
    let cluster = controllers();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            let first = client.query(None, LONG).await.expect("answers");
            assert_eq!((first.num, members(&first)), (0, vec![]));
            assert_eq!(first.shards, vec![None; 10]);
            assert_eq!(client.join(papers(&[1]), LONG).await, Ok(1));
            assert_eq!(client.join(papers(&[2]), LONG).await, Ok(2));
            let two = client.query(None, LONG).await.expect("answers");
            assert_eq!(two.groups, papers(&[1, 2]));
            assert_eq!(loads(&two), BTreeMap::from([(1, 5), (2, 5)]));
            assert_eq!(client.leave(vec![1], LONG).await, Ok(3));
            let one = client.query(None, LONG).await.expect("answers");
            assert_eq!(loads(&one), BTreeMap::from([(2, 10)]));
            assert_eq!(client.query(Some(2), LONG).await, Ok(two), "history");
            // The last group leaves: nobody owns anything, and what it holds is not forgotten.
            assert_eq!(client.leave(vec![2], LONG).await, Ok(4));
            let none = client.query(None, LONG).await.expect("answers");
            assert_eq!((members(&none), &none.shards), (vec![], &vec![None; 10]));
            assert_eq!(none.holders, vec![Some(2); 10]);
            assert_eq!(client.join(papers(&[1, 2, 3]), LONG).await, Ok(5));
            history(&client).await;
        })
        .await;
    cluster.agreed(0).await;
    cluster.nodes.finish().await;
}

/// A Move pins: later joins and leaves keep it, unless its group leaves.
#[madsim::test]
async fn moves_are_pins() {
    let cluster = controllers();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            client.join(papers(&[1, 2]), LONG).await.expect("join");
            for shard in 0..10 {
                let group = if shard < 5 { 1 } else { 2 };
                client.move_shard(shard, group, LONG).await.expect("move");
                let config = client.query(None, LONG).await.expect("answers");
                assert_eq!(config.shards[shard as usize], Some(group));
            }
            let pinned = client.query(None, LONG).await.expect("answers").shards;
            client.join(papers(&[3]), LONG).await.expect("join");
            let config = client.query(None, LONG).await.expect("answers");
            assert_eq!(config.shards, pinned, "a join moved pinned shards");
            client.leave(vec![1], LONG).await.expect("leave");
            let config = client.query(None, LONG).await.expect("answers");
            assert_eq!(
                config.shards[5..],
                pinned[5..],
                "a leave moved another's pins"
            );
            assert_eq!(
                config.shards[..5],
                [Some(3); 5],
                "pins of a group that left"
            );
            client.join(papers(&[4]), LONG).await.expect("join");
            let config = client.query(None, LONG).await.expect("answers");
            assert_eq!(config.shards[5..], pinned[5..]);
            assert_eq!(loads(&config).values().sum::<usize>(), 10);
            assert!(loads(&config)[&4] >= 2, "{config:?}");
            history(&client).await;
        })
        .await;
    cluster.nodes.finish().await;
}

/// Several groups in one operation, at random, through changes of leader.
#[madsim::test]
async fn multi_and_minimal_moves() {
    let cluster = KvCluster::new(KvOptions {
        groups: 0,
        shards: 64,
        ..KvOptions::default()
    });
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            let mut inside: Vec<GroupId> = Vec::new();
            let mut outside: Vec<GroupId> = (1..=24).collect();
            for round in 0..25u64 {
                let coin = world::entropy::random_u64().is_multiple_of(2);
                let join = inside.is_empty() || (coin && !outside.is_empty());
                let (from, to) = if join {
                    (&mut outside, &mut inside)
                } else {
                    (&mut inside, &mut outside)
                };
                let count = 1 + world::entropy::random_u64() as usize % from.len().clamp(1, 6);
                let mut chosen = Vec::new();
                for _ in 0..count.min(from.len()) {
                    let at = world::entropy::random_u64() as usize % from.len();
                    chosen.push(from.swap_remove(at));
                }
                to.extend(&chosen);
                let num = if join {
                    client.join(papers(&chosen), LONG).await
                } else {
                    client.leave(chosen, LONG).await
                };
                assert_eq!(num, Ok(round + 1));
                if round % 8 == 7 {
                    let leader = c.key(0, c.leader(0).await);
                    c.nodes.kill(leader);
                    sleep(between(10, 1500)).await;
                    c.nodes.start(leader);
                }
            }
            inside.sort_unstable();
            let configs = history(&client).await;
            assert_eq!(members(&configs[25]), inside);
        })
        .await;
    cluster.agreed(0).await;
    cluster.nodes.finish().await;
}

/// After the loss of a leader every server has the same history, the lost one too when it is back.
#[madsim::test]
async fn same_config_everywhere_after_leader_loss() {
    let cluster = controllers();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            for group in 1..=6 {
                client.join(papers(&[group]), LONG).await.expect("join");
            }
            let lost = c.leader(0).await;
            c.nodes.kill(c.key(0, lost));
            client.leave(vec![2, 3], LONG).await.expect("leave");
            let configs = history(&client).await;
            same_on(&c, &configs, |node| node != lost).await;
            c.nodes.start(c.key(0, lost));
            same_on(&c, &configs, |_| true).await;
        })
        .await;
    cluster.agreed(0).await;
    cluster.nodes.finish().await;
}

async fn same_on(cluster: &KvCluster, configs: &[Config], which: impl Fn(u64) -> bool) {
    for node in cluster.members(0).into_iter().filter(|n| which(*n)) {
        for config in configs {
            let request = &Request::Query(Some(config.num));
            eventually(
                "the config is there",
                Duration::from_secs(20),
                || async move {
                    match cluster
                        .ask_controller(node, request, Duration::from_secs(1))
                        .await
                    {
                        Some(Response::Config(found)) => {
                            assert_eq!(&found, config, "node {node}");
                            true
                        }
                        _ => false,
                    }
                },
            )
            .await;
        }
    }
}

#[madsim::test]
async fn history_while_each_server_is_down() {
    let cluster = controllers();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            for group in 1..=5 {
                client.join(papers(&[group]), LONG).await.expect("join");
            }
            client.leave(vec![4], LONG).await.expect("leave");
            client.move_shard(3, 5, LONG).await.expect("move");
            let configs = history(&client).await;
            for node in c.members(0) {
                c.nodes.kill(c.key(0, node));
                assert_eq!(
                    history(&c.controller()).await,
                    configs,
                    "without node {node}"
                );
                c.nodes.start(c.key(0, node));
            }
            assert_eq!(history(&client).await, configs);
        })
        .await;
    cluster.nodes.finish().await;
}

/// Ten clients at once, over a network that loses and doubles: a repeated Join or Leave that took
/// effect twice would be refused ("a member already"), and nothing may be.
async fn concurrent(lossy: bool) {
    let cluster = controllers();
    cluster.leader(0).await;
    if lossy {
        unreliable();
    }
    let mut clients = Vec::new();
    for number in 0..10u64 {
        let c = cluster.clone();
        clients.push(cluster.nodes.client_node().spawn(async move {
            let client = c.controller();
            let (stays, goes) = (100 + number, 200 + number);
            client.join(papers(&[goes]), LONG).await.expect("join");
            client.join(papers(&[stays]), LONG).await.expect("join");
            client.leave(vec![goes], LONG).await.expect("leave");
        }));
    }
    for client in clients {
        client.await.expect("a client panicked");
    }
    reliable();
    let c = cluster.clone();
    let configs = cluster
        .nodes
        .run(async move { history(&c.controller()).await })
        .await;
    assert_eq!(configs.len(), 31, "each change made one configuration");
    assert_eq!(members(&configs[30]), (100..110).collect::<Vec<_>>());
    cluster.agreed(0).await;
    cluster.nodes.finish().await;
}

#[madsim::test]
async fn concurrent_joins_and_leaves() {
    concurrent(false).await;
}

#[madsim::test]
async fn concurrent_joins_and_leaves_unreliable() {
    concurrent(true).await;
}

/// The leader, whom the other controllers do not hear from now on (clients do).
async fn cut_off_leader(c: &KvCluster) -> (u64, Key) {
    let leader = c.leader(0).await;
    let key = c.key(0, leader);
    let all = c.group(0).into_iter();
    let others: Vec<_> = all.filter(|k| *k != key).collect();
    c.nodes.partition(&[&[key], &others]);
    (leader, key)
}

/// A leader that was cut off answers no Query for the latest configuration.
#[madsim::test]
async fn a_deposed_leader_answers_nothing_old() {
    let cluster = controllers();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            client.join(papers(&[1]), LONG).await.expect("join");
            let (old, _) = cut_off_leader(&c).await;
            // At once, while it still takes itself for the leader, and after the change.
            client.join(papers(&[2]), LONG).await.expect("join");
            for _ in 0..5 {
                let request = Request::Query(None);
                let answer = c
                    .ask_controller(old, &request, Duration::from_millis(700))
                    .await;
                assert!(!matches!(answer, Some(Response::Config(_))), "{answer:?}");
            }
            c.nodes.heal();
            history(&client).await;
        })
        .await;
    cluster.agreed(0).await;
    cluster.nodes.finish().await;
}

/// A leader that stood still while another one was elected, and still takes itself for the leader when
/// it goes on: it may pass the question on, and answers nothing old.
#[madsim::test]
async fn a_leader_that_stood_still_answers_nothing_old() {
    let cluster = controllers();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            client.join(papers(&[1]), LONG).await.expect("join");
            let (old, key) = cut_off_leader(&c).await;
            c.nodes.pause(key);
            let new = client.join(papers(&[2]), LONG).await.expect("join");
            c.nodes.resume(key);
            for _ in 0..20 {
                let request = Request::Query(None);
                let patience = Duration::from_millis(500);
                let answer = c.ask_controller(old, &request, patience).await;
                if let Some(Response::Config(config)) = answer {
                    assert!(config.num >= new, "configuration {} is old", config.num);
                }
            }
            c.nodes.heal();
            history(&client).await;
        })
        .await;
    cluster.agreed(0).await;
    cluster.nodes.finish().await;
}

/// Wound 8: a timeout in the controller's client reported as success.
#[madsim::test]
async fn wound_8_a_timeout_is_no_success() {
    let cluster = controllers();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            client.join(papers(&[1]), LONG).await.expect("join");
            let all = c.group(0);
            c.nodes.partition(&[&all[..1], &all[1..2], &all[2..]]);
            let short = Duration::from_secs(3);
            let joined = c.controller().join(papers(&[2]), short).await;
            assert!(
                matches!(
                    joined,
                    Err(ClientError::Unknown(_) | ClientError::Unavailable(_))
                ),
                "{joined:?}"
            );
            let asked = c.controller().query(None, short).await;
            assert!(
                matches!(asked, Err(ClientError::Unavailable(_))),
                "{asked:?}"
            );
            c.nodes.heal();
            // What was unknown has happened, or not, but not in part and not twice.
            match client.join(papers(&[2]), LONG).await {
                Ok(2) => {}
                Err(ClientError::Invalid(reason)) => assert!(reason.contains("member"), "{reason}"),
                other => panic!("{other:?}"),
            }
            sleep(Duration::from_secs(5)).await;
            let configs = history(&client).await;
            assert_eq!(configs.len(), 3);
            assert_eq!(members(&configs[2]), vec![1, 2]);
        })
        .await;
    cluster.nodes.finish().await;
}

/// Wound 12: a query for a number that cannot be, an unknown group in a Move, a Join without
/// servers or with a group that exists: clear errors, and the controllers live.
#[madsim::test]
async fn wound_12_bad_requests_get_clear_errors() {
    let cluster = controllers();
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.controller();
            client.join(papers(&[1]), LONG).await.expect("join");
            let invalid = |what: &str, result: Result<u64, ClientError>, says: &str| match result {
                Err(ClientError::Invalid(reason)) => {
                    assert!(reason.contains(says), "{what}: {reason}");
                }
                other => panic!("{what}: {other:?}"),
            };
            for num in [2, 1 << 40, u64::MAX - 1, u64::MAX] {
                let result = client.query(Some(num), LONG).await.map(|config| config.num);
                invalid("query of the future", result, "configuration");
            }
            invalid("move", client.move_shard(0, 9, LONG).await, "9");
            invalid("move", client.move_shard(10, 1, LONG).await, "10");
            invalid(
                "join again",
                client.join(papers(&[1]), LONG).await,
                "member",
            );
            invalid(
                "join of nothing",
                client.join(BTreeMap::new(), LONG).await,
                "",
            );
            let empty = BTreeMap::from([(
                2,
                Group {
                    servers: vec![],
                    birth: 7,
                },
            )]);
            invalid("no servers", client.join(empty, LONG).await, "server");
            invalid("group 0", client.join(papers(&[0]), LONG).await, "0");
            invalid("leave", client.leave(vec![9], LONG).await, "9");
            assert_eq!(
                history(&client).await.len(),
                2,
                "a refused change changed something"
            );
        })
        .await;
    cluster.agreed(0).await;
    cluster.nodes.finish().await;
}
