//! The kv scenarios of MIT 6.5840 on one group. Every history is checked for linearizability, and
//! every append for being there once, in its client's order.
#![cfg(madsim)]

use bytes::Bytes;
use kv::api::{Request, Response};
use sim_tests::history::Call;
use sim_tests::sim::kv_cluster::small;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::unrest::{between, reliable, unreliable};
use sim_tests::sim::{Book, KvCluster, KvOptions, Load, Mix};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use world::disk::SimDiskOptions;

/// What a trial is made of.
#[derive(Clone, Copy, Default)]
struct Plan {
    clients: u64,
    one_key: bool,
    unreliable: bool,
    partitions: bool,
    /// All members lose their power, several times.
    crashes: bool,
    /// Small limits, so that logs are cut and followers need snapshots.
    snapshots: bool,
    /// Clients give up after a second, and leave operations behind whose outcome is open.
    impatient: bool,
}

async fn trial(plan: Plan) {
    let mut options = KvOptions {
        replicas: 5,
        ..KvOptions::default()
    };
    if plan.snapshots {
        options.adjust = Arc::new(small);
    }
    let cluster = KvCluster::with_groups(options, &[1]).await;
    if plan.unreliable {
        unreliable();
    }
    let load = Load::start(
        &cluster,
        Mix {
            clients: plan.clients,
            keys: if plan.one_key { 1 } else { plan.clients.max(3) },
            // One key, or operations of open outcome, are judged quickly only where every answer
            // tells the state.
            appends_only: plan.one_key || plan.impatient,
            padding: if plan.snapshots { 1500 } else { 0 },
            pause: Duration::from_millis(if plan.snapshots { 15 } else { 50 }),
            deadline: plan.impatient.then_some(Duration::from_secs(1)),
        },
    );
    for _ in 0..4 {
        if plan.partitions {
            for _ in 0..3 {
                cluster.split(1);
                sleep(between(500, 1500)).await;
            }
        } else {
            sleep(between(1000, 2000)).await;
        }
        if plan.crashes {
            cluster.kill_group(1);
            cluster.nodes.heal();
            sleep(between(10, 1000)).await;
            cluster.start_group(1);
        }
        cluster.nodes.heal();
        let more = if plan.snapshots {
            150
        } else {
            10 * plan.clients
        };
        load.book().progress(more as usize).await;
    }
    reliable();
    let book = load.finish().await;
    assert!(
        plan.impatient || book.errors().is_empty(),
        "{:#?}",
        book.errors()
    );
    cluster.agreed(1).await;
    if plan.snapshots {
        for node in cluster.members(1) {
            bounded(&cluster, node).await;
        }
    }
    cluster.nodes.finish().await;
}

/// A member's log and files do not outgrow the limits of [`small`].
async fn bounded(cluster: &KvCluster, node: u64) {
    let status = cluster.replica(1, node).await.expect("answers");
    assert!(status.base > 0, "node {node}: the log was never cut");
    let used = cluster.nodes.disk(cluster.key(1, node)).used();
    let files = cluster.nodes.disk(cluster.key(1, node)).files();
    assert!(used < 3 << 20, "node {node} uses {used} bytes: {files:?}");
}

#[madsim::test]
async fn basic() {
    let cluster = KvCluster::with_groups(KvOptions::default(), &[1]).await;
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let client = c.client();
            assert_eq!(client.get(b"a").await, Ok(None));
            assert_eq!(client.put(b"a", b"1").await, Ok(()));
            assert_eq!(client.append(b"a", b"23").await, Ok(3));
            assert_eq!(client.get(b"a").await, Ok(Some("123".into())));
            assert_eq!(client.delete(b"a").await, Ok(true));
            assert_eq!(client.get(b"a").await, Ok(None));
        })
        .await;
    cluster.nodes.finish().await;
}

#[madsim::test]
async fn one_client() {
    trial(Plan {
        clients: 1,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn concurrent() {
    trial(Plan {
        clients: 5,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn unreliable_net() {
    trial(Plan {
        clients: 5,
        unreliable: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn unreliable_one_key() {
    trial(Plan {
        clients: 5,
        one_key: true,
        unreliable: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn many_partitions_one_client() {
    trial(Plan {
        clients: 1,
        partitions: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn many_partitions_many_clients() {
    trial(Plan {
        clients: 5,
        partitions: true,
        ..Plan::default()
    })
    .await;
}

/// Operations of unknown outcome stay open: each takes effect later, once, or never.
#[madsim::test]
async fn many_partitions_impatient_clients() {
    trial(Plan {
        clients: 5,
        partitions: true,
        impatient: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn persist_one_client() {
    trial(Plan {
        clients: 1,
        crashes: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn persist_concurrent() {
    trial(Plan {
        clients: 5,
        crashes: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn persist_concurrent_unreliable() {
    trial(Plan {
        clients: 5,
        crashes: true,
        unreliable: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn persist_partition() {
    trial(Plan {
        clients: 5,
        crashes: true,
        partitions: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn persist_partition_unreliable() {
    trial(Plan {
        clients: 5,
        crashes: true,
        partitions: true,
        unreliable: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn persist_impatient_partition_unreliable() {
    let plan = Plan {
        clients: 5,
        crashes: true,
        partitions: true,
        ..Plan::default()
    };
    trial(Plan {
        unreliable: true,
        impatient: true,
        ..plan
    })
    .await;
}

#[madsim::test]
async fn snapshot_recover() {
    trial(Plan {
        clients: 1,
        crashes: true,
        snapshots: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn snapshot_recover_many_clients() {
    trial(Plan {
        clients: 10,
        crashes: true,
        snapshots: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn snapshot_unreliable() {
    trial(Plan {
        clients: 5,
        unreliable: true,
        snapshots: true,
        ..Plan::default()
    })
    .await;
}

#[madsim::test]
async fn snapshot_unreliable_recover() {
    let plan = Plan {
        clients: 5,
        unreliable: true,
        snapshots: true,
        ..Plan::default()
    };
    trial(Plan {
        crashes: true,
        ..plan
    })
    .await;
}

#[madsim::test]
async fn snapshot_unreliable_recover_partition() {
    let plan = Plan {
        clients: 5,
        unreliable: true,
        snapshots: true,
        ..Plan::default()
    };
    trial(Plan {
        crashes: true,
        partitions: true,
        ..plan
    })
    .await;
}

/// The minority makes no progress and tells nothing old; after healing what waited there is done.
#[madsim::test]
async fn one_partition() {
    let options = KvOptions {
        replicas: 5,
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1]).await;
    let book = Book::default();
    write(&cluster, &book, 1, Call::Put("1".into())).await;
    let leader = cluster.leader(1).await;
    let other = leader % 5 + 1;
    let minority = [cluster.key(1, leader), cluster.key(1, other)];
    let majority: Vec<_> = cluster
        .group(1)
        .into_iter()
        .filter(|key| !minority.contains(key))
        .collect();
    // A client that hears the minority and the controllers only.
    let (c, b) = (cluster.clone(), book.clone());
    let stranded = cluster.nodes.add(
        "stranded",
        Ipv4Addr::new(10, 50, 0, 1),
        SimDiskOptions::default(),
        Arc::new(move |_, _| {
            let (c, b) = (c.clone(), b.clone());
            Box::pin(async move {
                let scribe = b.scribe(c.client(), 3);
                assert!(scribe.perform(b"k", Call::Append("3".into())).await);
                Ok(())
            })
        }),
    );
    cluster
        .nodes
        .partition(&[&[minority[0], minority[1], stranded], &majority]);
    cluster.nodes.start(stranded);
    write(&cluster, &book, 2, Call::Append("2".into())).await;
    let done = book.answered();
    let key = Bytes::from_static(b"k");
    let shard = kv::slot::shard(&key, 10);
    for node in [leader, other] {
        for request in [
            Request::Get {
                shard,
                key: key.clone(),
            },
            Request::Open { shard },
        ] {
            let answer = cluster.ask(1, node, &request, Duration::from_secs(3)).await;
            assert!(
                !matches!(answer, Some(Response::Value(_) | Response::Session(_))),
                "node {node} of the minority answered {answer:?}"
            );
        }
    }
    assert_eq!(book.answered(), done, "the minority made progress");
    cluster.nodes.heal();
    let b = &book;
    eventually(
        "the stranded client goes on",
        Duration::from_secs(5),
        || async move { b.answered() > done },
    )
    .await;
    write(&cluster, &book, 2, Call::Get).await;
    book.judge();
    cluster.agreed(1).await;
    cluster.nodes.finish().await;
}

async fn write(cluster: &KvCluster, book: &Book, client: u64, call: Call) {
    let (c, book) = (cluster.clone(), book.clone());
    cluster
        .nodes
        .run(async move {
            let scribe = book.scribe(c.client(), client);
            assert!(scribe.perform(b"k", call).await);
        })
        .await;
}

/// Wound 9: a request that waits for ever when its log entry is overwritten. A deposed leader
/// answers what it took in alone as soon as it hears of its successor.
#[madsim::test]
async fn wound_9_an_overwritten_request_is_answered() {
    let cluster = KvCluster::with_groups(KvOptions::default(), &[1]).await;
    let book = Book::default();
    write(&cluster, &book, 1, Call::Put("1".into())).await;
    let leader = cluster.leader(1).await;
    let alone = cluster.key(1, leader);
    let others: Vec<_> = cluster
        .group(1)
        .into_iter()
        .filter(|k| *k != alone)
        .collect();
    cluster.nodes.partition(&[&[alone], &others]);
    let c = cluster.clone();
    let waiting = tokio::spawn(async move {
        let request = Request::Open {
            shard: kv::slot::shard(b"k", 10),
        };
        let answer = c.ask(1, leader, &request, Duration::from_secs(60)).await;
        (answer, world::clock::now())
    });
    sleep(Duration::from_millis(10)).await;
    // Its successor's entries take the place of that one.
    for n in 0..5 {
        write(&cluster, &book, 1, Call::Append(n.to_string().into())).await;
    }
    let healed = world::clock::now();
    cluster.nodes.heal();
    let (answer, at) = waiting.await.expect("does not panic");
    assert!(
        matches!(answer, Some(Response::Unknown | Response::NotLeader(_))),
        "{answer:?}"
    );
    let waited = at.saturating_duration_since(healed);
    assert!(
        waited < Duration::from_secs(5),
        "answered {waited:?} after healing"
    );
    book.judge();
    cluster.nodes.finish().await;
}

/// A member that was away while the log behind the state was cut is brought up by a snapshot, and
/// counts in a majority afterwards.
#[madsim::test]
async fn snapshot_rpc() {
    let options = KvOptions {
        adjust: Arc::new(small),
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1]).await;
    let book = Book::default();
    write(&cluster, &book, 1, Call::Put("1".into())).await;
    let leader = cluster.leader(1).await;
    let (away, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    let keys = |nodes: &[u64]| -> Vec<_> { nodes.iter().map(|n| cluster.key(1, *n)).collect() };
    cluster
        .nodes
        .partition(&[&keys(&[away]), &keys(&[leader, other])]);
    let last = cluster.replica(1, away).await.expect("answers").last;
    for n in 0..80 {
        let value = format!("{n}{}", ".".repeat(1000));
        write(&cluster, &book, 1, Call::Put(value.into())).await;
    }
    let base = cluster.replica(1, leader).await.expect("answers").base;
    assert!(
        base > last,
        "the log begins behind {base}, the follower has {last}"
    );
    cluster.nodes.heal();
    cluster.agreed(1).await;
    let base = cluster.replica(1, away).await.expect("answers").base;
    assert!(base > last, "it cannot have come entry by entry");
    cluster
        .nodes
        .partition(&[&keys(&[other]), &keys(&[leader, away])]);
    write(&cluster, &book, 1, Call::Append("x".into())).await;
    write(&cluster, &book, 1, Call::Get).await;
    cluster.nodes.heal();
    book.judge();
    cluster.nodes.finish().await;
}

/// Log and state stay small under writes without end to a few keys.
#[madsim::test]
async fn snapshot_size() {
    let options = KvOptions {
        adjust: Arc::new(small),
        ..KvOptions::default()
    };
    let cluster = KvCluster::with_groups(options, &[1]).await;
    let load = Load::start(
        &cluster,
        Mix {
            clients: 5,
            keys: 3,
            padding: 2000,
            pause: Duration::from_millis(10),
            ..Mix::default()
        },
    );
    let mut most = 0;
    for _ in 0..10 {
        load.book().progress(100).await;
        for node in cluster.members(1) {
            let status = cluster.replica(1, node).await.expect("answers");
            let entries = status.last - status.base;
            assert!(entries < 1500, "node {node} keeps {entries} entries");
            most = most.max(cluster.nodes.disk(cluster.key(1, node)).used());
        }
    }
    assert!(most < 3 << 20, "{most} bytes on one disk");
    load.finish().await;
    cluster.nodes.finish().await;
}

/// A client that does not reach the leader, but followers, writes through one of them: exactly once,
/// and in order. It goes on so when leaders change, and its answers are those of the leader.
#[madsim::test]
async fn followers_carry_the_writes_of_a_client_that_is_cut_off_from_the_leader() {
    let cluster = KvCluster::with_groups(KvOptions::default(), &[1]).await;
    let book = Book::default();
    write(&cluster, &book, 1, Call::Put("0".into())).await;
    let leader = cluster.leader(1).await;
    let machine = cluster.nodes.client_node();
    let client = {
        let cluster = cluster.clone();
        let made = machine.spawn(async move {
            let client = cluster.client();
            client.put(b"cut off", b"").await.expect("all is well");
            client
        });
        made.await.expect("does not panic")
    };
    cluster.nodes.cut_client(&machine, cluster.key(1, leader));
    let started = world::clock::now();
    let appends = machine.spawn(async move {
        for n in 1..=50u64 {
            let appended = client.append(b"cut off", b"x").await;
            assert_eq!(appended, Ok(n), "after {:?}", started.elapsed());
        }
        let read = client.get(b"cut off").await.expect("followers serve reads");
        (read.map(|value| value.len()), started.elapsed())
    });
    let (read, took) = appends.await.expect("does not panic");
    assert_eq!(read, Some(50));
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert_eq!(cluster.leader(1).await, leader, "nobody else had to lead");
    book.judge();
    cluster.nodes.finish().await;
}
