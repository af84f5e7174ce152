//! Restarts; every kill is a power failure that loses what was not synced.

use super::common::*;
use sim_tests::sim::RaftOptions;
use sim_tests::sim::nodes::eventually;

/// All at once, the leader, a follower.
#[madsim::test]
async fn persist_1() {
    scenario(RaftOptions::default(), |c| async move {
        c.agree(b"11", LONG).await;
        c.ids().into_iter().for_each(|n| c.kill(n));
        c.ids().into_iter().for_each(|n| c.start(n));
        c.agree(b"12", LONG).await;
        let leader = c.wait_leader(&c.ids()).await;
        c.kill(leader);
        c.start(leader);
        c.agree(b"13", LONG).await;
        let leader = c.wait_leader(&c.ids()).await;
        c.kill(leader);
        c.agree_among(&c.others(&[leader]), b"14", LONG).await;
        c.start(leader);
        let index = c.agree(b"15", LONG).await;
        c.settle(&c.ids(), index).await;
        let leader = c.wait_leader(&c.ids()).await;
        let follower = c.others(&[leader])[0];
        c.kill(follower);
        c.agree(b"16", LONG).await;
        c.start(follower);
        c.agree(b"17", LONG).await;
        heal_and_settle(&c).await;
        let all: Vec<_> = (11..=17).map(|i| i.to_string().into_bytes()).collect();
        exactly_once(&c, &all).await;
    })
    .await;
}

/// Two of five, then the other three, over and over: each in turn.
#[madsim::test]
async fn persist_2() {
    scenario(RaftOptions::of(5), |c| async move {
        let mut all = Vec::new();
        for round in 0..5usize {
            let agreed = async |nodes: &[u64], step| {
                let command = command("p", round * 10 + step);
                c.agree_among(nodes, &command, LONG).await;
                command
            };
            all.push(agreed(&c.ids(), 1).await);
            let leader = c.wait_leader(&c.ids()).await;
            let o = c.others(&[leader]);
            c.kill(o[0]);
            c.kill(o[1]);
            all.push(agreed(&[leader, o[2], o[3]], 2).await);
            for node in [leader, o[2], o[3]] {
                c.kill(node);
            }
            c.start(o[0]);
            c.start(o[1]);
            millis(700).await;
            c.start(o[2]);
            all.push(agreed(&[o[0], o[1], o[2]], 3).await);
            c.start(o[3]);
            c.start(leader);
        }
        heal_and_settle(&c).await;
        exactly_once(&c, &all).await;
    })
    .await;
}

/// A leader and a follower restart apart from each other while the third was cut off.
#[madsim::test]
async fn persist_3() {
    scenario(RaftOptions::default(), |c| async move {
        c.agree(b"101", LONG).await;
        let leader = c.wait_leader(&c.ids()).await;
        let o = c.others(&[leader]);
        c.isolate(&[o[1]]);
        c.agree_among(&[leader, o[0]], b"102", LONG).await;
        c.kill(leader);
        c.kill(o[0]);
        c.rejoin(&[o[1]]);
        c.start(leader);
        c.agree_among(&[leader, o[1]], b"103", LONG).await;
        c.start(o[0]);
        c.agree(b"104", LONG).await;
        heal_and_settle(&c).await;
        let all = [&b"101"[..], b"102", b"103", b"104"].map(Vec::from);
        exactly_once(&c, &all).await;
    })
    .await;
}

/// Power cuts of all in the middle of load: what was acknowledged is there.
#[madsim::test]
async fn power_cut_of_all_under_load() {
    let mut options = RaftOptions::of(3);
    options.disk.garbage = 1.0;
    scenario(options, |c| async move {
        let mut all = Vec::new();
        for round in 0..8 {
            let leader = c.wait_leader(&c.ids()).await;
            let fired: Vec<_> = (0..60)
                .map(|i| {
                    let mut command = command("load", round * 100 + i);
                    command.resize(
                        command.len() + sim_tests::sim::wire::below(3000) as usize,
                        b'.',
                    );
                    fire(&c, leader, command, LONG)
                })
                .collect();
            millis(sim_tests::sim::wire::below(60)).await;
            c.ids().into_iter().for_each(|n| c.kill(n));
            c.ids().into_iter().for_each(|n| c.start(n));
            for task in fired {
                if let (command, true) = task.await.expect("not cancelled") {
                    all.push(command);
                }
            }
            c.wait_leader(&c.ids()).await;
            for node in c.ids() {
                if let Some(status) = c.status(node) {
                    let why = status.not_voting;
                    assert_eq!(why, None, "a power cut is no damage: node {node}");
                }
            }
        }
        heal_and_settle(&c).await;
        exactly_once(&c, &all).await;
    })
    .await;
}

/// All members restart, and there is no leader yet: what was committed before is applied meanwhile, but
/// for what the last write said (a client that asks the next leader does not wait for all of the log).
#[madsim::test]
async fn the_log_is_applied_before_there_is_a_leader() {
    scenario(RaftOptions::of(3), |c| async move {
        let mut last = 0;
        for number in 0..200 {
            last = c.agree(&command("before", number), LONG).await;
        }
        c.settle(&c.ids(), last).await;
        c.ids().into_iter().for_each(|node| c.crash(node));
        c.isolate(&c.ids());
        c.ids().into_iter().for_each(|node| c.start(node));
        eventually("the log is applied", LONG, || async {
            let most = |node| c.status(node).is_some_and(|s| s.applied + 2 >= last);
            c.ids().into_iter().all(most)
        })
        .await;
        for node in c.ids() {
            let status = c.status(node).expect("up");
            assert_eq!((status.leader, status.durable), (None, 0));
        }
        c.nodes.heal();
        heal_and_settle(&c).await;
    })
    .await;
}
