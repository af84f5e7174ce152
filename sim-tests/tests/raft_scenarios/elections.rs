//! Elections (§5.2).

use super::common::*;
use sim_tests::sim::RaftOptions;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::wire;
use std::time::Duration;

/// One leader, known to all in the same term, which stays when nothing fails.
#[madsim::test]
async fn initial_election() {
    scenario(RaftOptions::default(), |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let term = c.status(leader).expect("up").term;
        assert!(term >= 1);
        millis(5000).await;
        for node in c.ids() {
            let status = c.status(node).expect("up");
            let seen = (status.term, status.leader);
            assert_eq!(seen, (term, Some(leader)), "node {node}");
        }
    })
    .await;
}

/// A leader that is cut off is replaced and returns as a follower without disturbing; without a
/// quorum nobody leads; with one somebody does again.
#[madsim::test]
async fn re_election() {
    scenario(RaftOptions::default(), |c| async move {
        let first = c.wait_leader(&c.ids()).await;
        c.isolate(&[first]);
        let rest = c.others(&[first]);
        let second = c.wait_leader(&rest).await;
        let term = c.status(second).expect("up").term;

        c.rejoin(&[first]);
        eventually("the old leader follows", LONG, || async {
            c.status(first).expect("up").leader == Some(second)
        })
        .await;
        millis(3000).await;
        for node in c.ids() {
            let status = c.status(node).expect("up");
            let seen = (status.term, status.leader);
            assert_eq!(seen, (term, Some(second)), "disturbed: node {node}");
        }

        let third = c.others(&[first, second])[0];
        c.isolate(&[second, third]);
        millis(3000).await;
        assert_eq!(c.leader_among(&c.ids()), None, "nobody has a quorum");
        futile(&c, second, "no quorum", 1).await;
        millis(5000).await;
        assert_eq!(c.leader_among(&c.ids()), None, "nobody has a quorum");

        c.rejoin(&[third]);
        c.wait_leader(&[first, third]).await;
        c.rejoin(&[second]);
        heal_and_settle(&c).await;
    })
    .await;
}

/// Seven servers, three cut off at random in every round: the other four always elect.
#[madsim::test]
async fn many_elections() {
    scenario(RaftOptions::of(7), |c| async move {
        c.wait_leader(&c.ids()).await;
        for round in 0..12 {
            let mut cut = Vec::new();
            while cut.len() < 3 {
                let node = 1 + wire::below(7);
                if !cut.contains(&node) {
                    cut.push(node);
                }
            }
            c.isolate(&cut);
            let rest = c.others(&cut);
            let leader = c.wait_leader(&rest).await;
            assert!(!cut.contains(&leader));
            c.agree_among(&rest, &command("round", round), LONG).await;
            c.rejoin(&cut);
            millis(wire::below(1500)).await;
        }
        heal_and_settle(&c).await;
        for round in 0..12 {
            assert!(c.times(&command("round", round)) > 0);
        }
    })
    .await;
}

/// A leader that is heard but hears nobody steps down (check-quorum, thesis §6.2), else it would
/// reign for ever and commit nothing.
#[madsim::test]
async fn half_deaf_leader_steps_down() {
    scenario(RaftOptions::of(3), |c| async move {
        let deaf = c.wait_leader(&c.ids()).await;
        let others = c.others(&[deaf]);
        for node in &others {
            c.nodes.cut(c.key(*node), c.key(deaf));
        }
        let index = c.agree_among(&others, b"without it", LONG).await;
        c.settle(&others, index).await;
        assert!(c.leader_among(&others).is_some());
        heal_and_settle(&c).await;
    })
    .await;
}

/// One node that flaps between cut off and connected at about the election timeout does not keep
/// the others from working under the same leader (pre-vote, thesis §9.6).
#[madsim::test]
async fn flapping_follower_disturbs_nobody() {
    scenario(RaftOptions::of(3), |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let term = c.status(leader).expect("up").term;
        let flapping = c.others(&[leader])[0];
        for round in 0..15 {
            c.isolate(&[flapping]);
            millis(400 + wire::below(1200)).await;
            c.rejoin(&[flapping]);
            millis(wire::below(1200)).await;
            let done = c.propose(leader, command("f", round), Duration::from_secs(2));
            assert!(done.await.is_ok(), "round {round}: the leader works on");
        }
        let status = c.status(leader).expect("up");
        assert_eq!((status.term, status.leader), (term, Some(leader)));
        heal_and_settle(&c).await;
    })
    .await;
}

/// Two survivors whose connection to each other was broken, both ways, when their leader died: what
/// they ask each other arrives as soon as the network lets it, and one of them leads within the
/// election timeout that the death began. (Followers had no connection to each other until they had
/// something to say, and the first request of each was lost with the attempt to say it.)
#[madsim::test]
async fn survivors_that_were_not_connected_elect_within_one_timeout() {
    scenario(RaftOptions::of(3), |c| async move {
        let options = raft::replica::Options::new(1, 1, Default::default());
        let longest = options.tick * 2 * options.election_ticks;
        // An attempt to connect is due at least so often; the request is repeated twice at the most.
        let delay = Duration::from_millis(250) + options.tick * (2 * options.heartbeat_ticks);
        for round in 0..5 {
            let leader = c.wait_leader(&c.ids()).await;
            c.agree(&command("before", round), LONG).await;
            let rest = c.others(&[leader]);
            for (a, b) in [(rest[0], rest[1]), (rest[1], rest[0])] {
                c.nodes.cut(c.key(a), c.key(b));
            }
            millis(5000).await;
            assert!(
                c.leader_among(&c.ids()) == Some(leader),
                "nothing disturbs it"
            );
            c.nodes.heal();
            c.kill(leader);
            let died = world::clock::now();
            c.wait_leader(&rest).await;
            let took = died.elapsed();
            assert!(took <= longest + delay, "round {round}: {took:?}");
            c.start(leader);
        }
        heal_and_settle(&c).await;
    })
    .await;
}
