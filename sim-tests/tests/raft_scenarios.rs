//! The raft scenarios of MIT 6.5840, against the real replica.
#![cfg(madsim)]

use sim_tests::sim::{RaftCluster, RaftOptions};
use std::time::Duration;

#[madsim::test]
async fn initial_election() {
    let cluster = RaftCluster::new(RaftOptions::default());
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let leader = c.wait_leader(&c.ids()).await;
            let term = c.status(leader).expect("up").term;
            assert!(term >= 1);
            tokio::time::sleep(Duration::from_secs(5)).await;
            for node in c.ids() {
                let status = c.status(node).expect("up");
                assert_eq!((status.term, status.leader), (term, Some(leader)), "node {node}");
            }
        })
        .await;
    cluster.nodes.finish().await;
}

#[madsim::test]
async fn basic_agree() {
    let cluster = RaftCluster::new(RaftOptions::default());
    let c = cluster.clone();
    cluster
        .nodes
        .run(async move {
            let mut last = 0;
            for i in 0..20u8 {
                let index = c.agree(&[i], Duration::from_secs(20)).await;
                assert!(index > last);
                last = index;
            }
            c.settle(&c.ids(), last).await;
            let commands: Vec<u8> = c.applied().into_values().map(|c| c[0]).collect();
            assert_eq!(commands, (0..20).collect::<Vec<_>>());
        })
        .await;
    cluster.nodes.finish().await;
}
