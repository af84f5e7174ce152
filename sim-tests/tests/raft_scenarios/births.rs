//! Members that have not met everybody yet.

use super::common::*;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::{RaftCluster, RaftOptions, ledger};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::net::Kind;
use world::net::inject::{Verdict, set_judge};

/// What is lost on its way between members, in both directions: calls, mail.
type Lost = Arc<Mutex<(Vec<(u64, u64)>, Vec<(u64, u64)>)>>;

fn judged() -> Lost {
    let lost = Lost::default();
    let judge = lost.clone();
    set_judge(Some(Box::new(move |passing| {
        let (calls, mails) = &*judge.lock().expect("one thread");
        let (from, to) = (passing.from.node, passing.to.node);
        let between =
            |lost: &[(u64, u64)]| lost.contains(&(from, to)) || lost.contains(&(to, from));
        match passing.kind {
            Kind::Mail if between(mails) => Verdict::Drop,
            Kind::Request if calls.contains(&(from, to)) => Verdict::Drop,
            _ => Verdict::Pass,
        }
    })));
    lost
}

/// Only the log: the identity, and with it the disk's name, is kept.
fn lose_log(c: &RaftCluster, node: u64) {
    let disk = c.nodes.disk(c.key(node));
    for (name, _) in disk.files() {
        if name.starts_with("log/") {
            assert!(disk.delete(&name), "{name}");
        }
    }
    ledger::replaced(1, node);
}

/// A member that was not born yet acknowledged an entry, lost its log, was born, and voted the
/// entry away. Here node 2 cannot meet `third`; the leader's entries reach it and not `third`.
#[madsim::test]
async fn a_log_lost_before_birth_takes_no_acknowledged_entry_along() {
    scenario(RaftOptions::of(3), |c| async move {
        let lost = judged();
        lost.lock().expect("one thread").0 = vec![(2, 1), (2, 3)];
        let leader = c.wait_leader(&[1, 3]).await;
        let third = 4 - leader;
        assert!(c.status(2).is_some_and(|s| s.not_voting.is_some()));
        lost.lock().expect("one thread").0 = vec![(2, third)];
        lost.lock().expect("one thread").1 = vec![(leader, third)];
        let (entry, acknowledged) = fire(&c, leader, b"entry".to_vec(), Duration::from_secs(2))
            .await
            .expect("not cancelled");
        assert!(
            c.status(2).is_some_and(|s| s.not_voting.is_some()),
            "not born"
        );
        c.kill(2);
        lose_log(&c, 2);
        // Node 2 is born, and hears of nobody but `third`: they elect one that never heard of it.
        *lost.lock().expect("one thread") = (vec![], vec![(leader, third), (leader, 2)]);
        c.start(2);
        eventually("it is born", LONG, || async {
            c.status(2).is_some_and(|s| s.not_voting.is_none())
        })
        .await;
        c.wait_leader(&[2, third]).await;
        c.agree_among(&[2, third], b"later", LONG).await;
        lost.lock().expect("one thread").1.clear();
        heal_and_settle(&c).await;
        let kept = if acknowledged { vec![entry] } else { vec![] };
        exactly_once(&c, &kept).await;
    })
    .await;
}

/// A member that is cut off from one other while the group is young: the rest elects and commits
/// without it, and it counts as soon as they have met.
#[madsim::test]
async fn a_late_birth_stalls_nobody_and_then_counts() {
    scenario(RaftOptions::of(3), |c| async move {
        let lost = judged();
        lost.lock().expect("one thread").0 = vec![(2, 1), (2, 3)];
        let leader = c.wait_leader(&[1, 3]).await;
        let mut acknowledged = Vec::new();
        for i in 0..100 {
            acknowledged.push(command("young", i));
            c.agree_among(&[1, 3], &acknowledged[i], LONG).await;
        }
        assert!(c.status(2).is_some_and(|s| s.not_voting.is_some()));
        lost.lock().expect("one thread").0.clear();
        eventually("it is born", LONG, || async {
            c.status(2).is_some_and(|s| s.not_voting.is_none())
        })
        .await;
        // From now on the third may go.
        c.kill(4 - leader);
        acknowledged.push(b"grown".to_vec());
        c.agree_among(&[leader, 2], b"grown", Duration::from_secs(3))
            .await;
        heal_and_settle(&c).await;
        exactly_once(&c, &acknowledged).await;
    })
    .await;
}
