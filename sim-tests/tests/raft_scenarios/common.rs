//! What the scenarios share.

use sim_tests::sim::{RaftCluster, RaftOptions};
use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Enough for any agreement that a quorum can reach.
pub const LONG: Duration = Duration::from_secs(30);

/// Runs a scenario on a fresh cluster. The invariants of `sim_tests::sim::invariants` are checked
/// throughout.
pub async fn scenario<F>(options: RaftOptions, body: impl FnOnce(RaftCluster) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let cluster = RaftCluster::new(options);
    cluster.nodes.run(body(cluster.clone())).await;
    cluster.nodes.finish().await;
}

/// Sleeps.
pub async fn millis(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Unique commands.
pub fn command(name: &str, number: usize) -> Vec<u8> {
    format!("{name}-{number}").into_bytes()
}

/// Proposes on one node without waiting: (command, acknowledged).
pub fn fire(
    c: &RaftCluster,
    node: u64,
    command: Vec<u8>,
    deadline: Duration,
) -> JoinHandle<(Vec<u8>, bool)> {
    let c = c.clone();
    tokio::spawn(async move {
        let result = c.propose(node, command.clone(), deadline).await;
        (command, result.is_ok())
    })
}

/// Proposes `count` commands on a node that cannot commit them, and sees none acknowledged.
pub async fn futile(c: &RaftCluster, node: u64, name: &str, count: usize) {
    let fired: Vec<_> = (0..count)
        .map(|i| fire(c, node, command(name, i), Duration::from_millis(300)))
        .collect();
    for task in fired {
        let (command, acknowledged) = task.await.expect("not cancelled");
        assert!(
            !acknowledged,
            "{} was acknowledged without a quorum",
            String::from_utf8_lossy(&command)
        );
    }
}

/// Agrees on `count` commands among the given nodes; the last index.
pub async fn agree_many(c: &RaftCluster, nodes: &[u64], name: &str, count: usize) -> u64 {
    let leader = c.wait_leader(nodes).await;
    let fired: Vec<_> = (0..count)
        .map(|i| fire(c, leader, command(name, i), LONG))
        .collect();
    let mut last = 0;
    for task in fired {
        let (command, acknowledged) = task.await.expect("not cancelled");
        if !acknowledged {
            last = last.max(c.agree_among(nodes, &command, LONG).await);
        }
    }
    for i in 0..count {
        assert!(c.times(&command(name, i)) > 0, "{name}-{i} is missing");
    }
    let applied = c.applied();
    last.max(applied.last_key_value().map_or(0, |(i, _)| *i))
}

/// Heals the network, agrees on one more command and waits until all nodes are equal.
pub async fn heal_and_settle(c: &RaftCluster) {
    sim_tests::sim::wire::faults(Default::default());
    c.nodes.heal();
    for node in c.ids() {
        if !c.is_up(node) {
            c.start(node);
        }
    }
    let index = c.agree(b"settled", LONG).await;
    c.settle(&c.ids(), index).await;
}

/// What a healthy cluster answers on this node. A read whose messages were lost with an old
/// connection is refused, and asked again.
pub async fn read(c: &RaftCluster, node: u64) -> Vec<Vec<u8>> {
    for _ in 0..20 {
        if let Some(state) = c.read(node, LONG).await {
            return state;
        }
        millis(50).await;
    }
    panic!("node {node} of a healthy cluster answers no read");
}

/// Every acknowledged command is in the state of every node exactly once, and nothing at all
/// is there twice.
pub async fn exactly_once(c: &RaftCluster, acknowledged: &[Vec<u8>]) {
    for node in c.ids() {
        let state = read(c, node).await;
        let mut times: BTreeMap<&[u8], usize> = BTreeMap::new();
        for command in &state {
            *times.entry(command).or_default() += 1;
        }
        for command in acknowledged {
            assert_eq!(
                times.get(&command[..]),
                Some(&1),
                "node {node}: {} was acknowledged once",
                String::from_utf8_lossy(command)
            );
        }
    }
}
