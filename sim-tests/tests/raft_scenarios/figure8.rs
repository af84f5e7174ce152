//! Figure 8 of the paper: leaders that die one after another with entries half replicated. An
//! entry of an older term must not be called committed by counting (§5.4.2).

use super::common::*;
use sim_tests::sim::{RaftCluster, RaftOptions, wire};
use std::time::Duration;

const ROUNDS: usize = 300;

/// A burst of proposals at whoever leads among the nodes that are up.
fn propose_at_leaders(c: &RaftCluster, round: usize) -> Option<u64> {
    let mut leader = None;
    for node in c.ids() {
        let Some(status) = c.status(node) else {
            continue;
        };
        if c.is_up(node) && status.role == raft::protocol::Role::Leader {
            // Nobody waits for it: what counts is that the logs agree.
            drop(fire(c, node, command("f8", round * 10), LONG));
            leader = Some(node);
        }
    }
    leader
}

async fn figure_8_with(c: RaftCluster, power: bool) {
    c.agree(b"first", LONG).await;
    for round in 0..ROUNDS {
        let leader = propose_at_leaders(&c, round);
        if wire::chance(0.1) {
            millis(wire::below(400)).await;
        } else {
            millis(wire::below(13)).await;
        }
        if let Some(leader) = leader.filter(|n| c.is_up(*n)) {
            if power {
                c.kill(leader);
            } else {
                c.crash(leader);
            }
        }
        let up = c.ids().into_iter().filter(|n| c.is_up(*n)).count();
        let node = 1 + wire::below(5);
        if up < 3 {
            let down: Vec<_> = c.ids().into_iter().filter(|n| !c.is_up(*n)).collect();
            c.start(down[wire::below(down.len() as u64) as usize]);
        } else if !c.is_up(node) && wire::chance(0.2) {
            c.start(node);
        }
        if wire::chance(0.5) {
            // Time for the next leader: without it most rounds find none.
            millis(wire::below(1500)).await;
        }
    }
    heal_and_settle(&c).await;
}

/// Leaders lose their power.
#[madsim::test]
async fn figure_8() {
    scenario(RaftOptions::of(5), |c| figure_8_with(c, true)).await;
}

/// Leaders' processes die; what they wrote and did not sync survives.
#[madsim::test]
async fn figure_8_crashes() {
    scenario(RaftOptions::of(5), |c| figure_8_with(c, false)).await;
}

/// Leaders are cut off, and messages are lost, doubled and delayed past elections.
#[madsim::test]
async fn figure_8_unreliable() {
    scenario(RaftOptions::of(5), |c| async move {
        c.agree(b"first", LONG).await;
        let mut cut: Vec<u64> = Vec::new();
        for round in 0..ROUNDS {
            if round == ROUNDS / 3 {
                wire::faults(wire::Faults::very_late());
            }
            let leader = propose_at_leaders(&c, round);
            if wire::chance(0.1) {
                millis(wire::below(500)).await;
            } else {
                millis(wire::below(13)).await;
            }
            if let Some(leader) = leader
                && wire::chance(0.5)
                && !cut.contains(&leader)
            {
                c.isolate(&[leader]);
                cut.push(leader);
            }
            while cut.len() > 2 || (!cut.is_empty() && wire::chance(0.1)) {
                let node = cut.remove(wire::below(cut.len() as u64) as usize);
                c.rejoin(&[node]);
            }
            if wire::chance(0.3) {
                millis(wire::below(1200)).await;
            }
        }
        heal_and_settle(&c).await;
    })
    .await;
}

/// The schedule of the figure itself, step by step, many times: leader 1 replicates an entry to
/// one follower and dies; another leads and writes at the same index alone; the first returns.
#[madsim::test]
async fn figure_8_chain() {
    scenario(RaftOptions::of(5), |c| async move {
        for round in 0..12 {
            let one = c.wait_leader(&c.ids()).await;
            let o = c.others(&[one]);
            // (a) the leader and one follower alone.
            c.isolate(&o[1..]);
            drop(fire(&c, one, command("a", round), Duration::from_secs(5)));
            millis(wire::below(60)).await;
            c.kill(one);
            c.isolate(&[o[0]]);
            // (b) somebody else, and at once cut off with its entry.
            c.rejoin(&o[1..]);
            let two = c.wait_leader(&o[1..]).await;
            c.isolate(&o[1..]);
            drop(fire(&c, two, command("b", round), Duration::from_secs(5)));
            millis(wire::below(40)).await;
            c.kill(two);
            // (c) the first is back with the one it had reached, and one more.
            c.start(one);
            let third = o[1..].iter().copied().find(|n| *n != two).expect("three");
            c.rejoin(&[o[0], third]);
            let _ = c.wait_leader(&[one, o[0], third]).await;
            millis(wire::below(80)).await;
            // (d) it dies again, the second is back.
            if wire::chance(0.5) {
                c.kill(one);
            }
            c.rejoin(&o[1..]);
            c.start(two);
            c.wait_leader(&c.others(&[one])).await;
            heal_and_settle(&c).await;
        }
    })
    .await;
}
