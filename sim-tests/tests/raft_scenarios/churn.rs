//! Clients that go on while the network loses messages and servers come and go.

use super::common::*;
use sim_tests::sim::{RaftCluster, RaftOptions, wire};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Five servers on a network that loses, doubles and delays messages: what is acknowledged is
/// there exactly once.
#[madsim::test]
async fn unreliable_agree() {
    scenario(RaftOptions::of(5), |c| async move {
        c.wait_leader(&c.ids()).await;
        c.nodes
            .network(0.05, Duration::from_millis(1)..Duration::from_millis(20));
        wire::faults(wire::Faults::unreliable());
        let mut all = Vec::new();
        for round in 0..30 {
            let mut fired = Vec::new();
            for node in c.ids() {
                for i in 0..4 {
                    let command = command("u", round * 100 + node as usize * 10 + i);
                    fired.push(fire(&c, node, command, Duration::from_secs(10)));
                }
            }
            for task in fired {
                if let (command, true) = task.await.expect("not cancelled") {
                    all.push(command);
                }
            }
            all.push(command("agreed", round));
            c.agree(&command("agreed", round), LONG).await;
        }
        let agreed = |c: &Vec<u8>| c.starts_with(b"agreed");
        // A command that is tried again after an unknown outcome may be there twice.
        all.retain(|c| !agreed(c));
        assert!(all.len() >= 60, "{} acknowledged", all.len());
        heal_and_settle(&c).await;
        exactly_once(&c, &all).await;
    })
    .await;
}

fn client(c: &RaftCluster, name: &str, stop: &Arc<AtomicBool>) -> JoinHandle<Vec<Vec<u8>>> {
    let (c, name, stop) = (c.clone(), name.to_string(), stop.clone());
    tokio::spawn(async move {
        let mut acknowledged = Vec::new();
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let command = command(&name, number);
            for node in c.ids() {
                let done = c.propose(node, command.clone(), Duration::from_millis(800));
                match done.await {
                    Ok(_) => {
                        acknowledged.push(command);
                        break;
                    }
                    // Its fate is open: it must not be proposed again.
                    Err(raft::replica::ProposeError::Unknown(_)) => break,
                    Err(_) => {}
                }
            }
            millis(1 + wire::below(40)).await;
        }
        acknowledged
    })
}

async fn churn(c: RaftCluster, faults: wire::Faults) {
    c.wait_leader(&c.ids()).await;
    wire::faults(faults);
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = ["x", "y", "z"]
        .iter()
        .map(|name| client(&c, name, &stop))
        .collect();
    let mut cut = BTreeSet::new();
    for _ in 0..30 {
        let node = 1 + wire::below(5);
        if wire::chance(0.2) {
            c.isolate(&[node]);
            cut.insert(node);
        }
        if wire::chance(0.5) {
            let node = 1 + wire::below(5);
            if !c.is_up(node) {
                c.start(node);
            }
            c.rejoin(&[node]);
            cut.remove(&node);
        }
        let node = 1 + wire::below(5);
        if wire::chance(0.2) && c.is_up(node) {
            if wire::chance(0.5) {
                c.kill(node);
            } else {
                c.crash(node);
            }
        }
        // Beyond a minority nothing happens any more; a little of that is enough.
        millis(wire::below(300)).await;
        while cut.len() > 2 {
            cut.pop_first().into_iter().for_each(|n| c.rejoin(&[n]));
        }
        let troubled = |n: &u64| !c.is_up(*n) || cut.contains(n);
        if c.ids().iter().filter(|n| troubled(n)).count() > 2 {
            let down = c.ids().into_iter().filter(|n| !c.is_up(*n));
            down.for_each(|n| c.start(n));
        }
        millis(wire::below(900)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = Vec::new();
    for task in clients {
        all.extend(task.await.expect("not cancelled"));
    }
    heal_and_settle(&c).await;
    assert!(!all.is_empty(), "somebody was served");
    exactly_once(&c, &all).await;
}

/// Servers come and go.
#[madsim::test]
async fn churn_reliable() {
    scenario(RaftOptions::of(5), |c| churn(c, wire::Faults::default())).await;
}

/// Servers come and go, and the network is bad.
#[madsim::test]
async fn churn_unreliable() {
    scenario(RaftOptions::of(5), |c| churn(c, wire::Faults::unreliable())).await;
}

/// As above with a log so small that everybody needs snapshots, and disks that stall.
#[madsim::test]
async fn churn_with_snapshots() {
    let mut options = RaftOptions::small_log(5);
    options.disk.stall = 0.02;
    scenario(options, |c| churn(c, wire::Faults::unreliable())).await;
}
