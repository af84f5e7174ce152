//! Log replication (§5.3) on a network that loses nothing but connections.

use super::common::*;
use sim_tests::sim::{RaftOptions, wire};
use std::time::Duration;

/// Commands land once, in order, at the same index everywhere; none before it is proposed.
#[madsim::test]
async fn basic_agree() {
    scenario(RaftOptions::default(), |c| async move {
        c.wait_leader(&c.ids()).await;
        let mut last = 0;
        for i in 0..20u8 {
            assert_eq!(c.times(&[i]), 0, "{i} is there before it was proposed");
            let index = c.agree(&[i], LONG).await;
            assert!(index > last);
            last = index;
        }
        c.settle(&c.ids(), last).await;
        let commands: Vec<u8> = c.applied().into_values().map(|c| c[0]).collect();
        assert_eq!(commands, (0..20).collect::<Vec<_>>());
    })
    .await;
}

/// Each entry crosses the network once per follower.
#[madsim::test]
async fn rpc_bytes() {
    const PAYLOAD: usize = 5000;
    const ENTRIES: usize = 20;
    const ASIDE: u64 = 20_000;
    scenario(RaftOptions::default(), |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        c.agree(b"warm", LONG).await;
        let before = wire::count().mail_bytes;
        for i in 0..ENTRIES {
            let result = c.propose(leader, vec![i as u8; PAYLOAD], LONG).await;
            result.expect("the leader commits");
        }
        c.settle(&c.ids(), 0).await;
        let bytes = wire::count().mail_bytes - before;
        let needed = (PAYLOAD * ENTRIES * 2) as u64;
        assert!(
            (needed..needed + ASIDE).contains(&bytes),
            "{bytes} bytes for {needed} bytes of entries"
        );
    })
    .await;
}

/// A follower less: agreement. Two less: none, until one is back.
#[madsim::test]
async fn follower_failure() {
    scenario(RaftOptions::default(), |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        c.agree(b"all", LONG).await;
        let followers = c.others(&[leader]);
        c.isolate(&followers[..1]);
        let done = c.propose(leader, *b"two of three", Duration::from_secs(2));
        assert!(done.await.is_ok());
        millis(2000).await;
        let done = c.propose(leader, *b"still two", Duration::from_secs(2));
        assert!(done.await.is_ok());
        c.isolate(&followers[1..]);
        futile(&c, leader, "alone", 3).await;
        millis(3000).await;
        for i in 0..3 {
            assert_eq!(c.times(&command("alone", i)), 0);
        }
        c.rejoin(&followers[..1]);
        c.agree_among(&[leader, followers[0]], b"two again", LONG)
            .await;
        heal_and_settle(&c).await;
    })
    .await;
}

/// Leader after leader is cut off: agreement with one gone, none with two.
#[madsim::test]
async fn leader_failure() {
    scenario(RaftOptions::default(), |c| async move {
        c.agree(b"all", LONG).await;
        let first = c.wait_leader(&c.ids()).await;
        c.isolate(&[first]);
        let rest = c.others(&[first]);
        c.agree_among(&rest, b"two", LONG).await;
        let second = c.wait_leader(&rest).await;
        c.isolate(&[second]);
        for node in c.ids() {
            futile(&c, node, "none", 1).await;
        }
        millis(3000).await;
        assert_eq!(c.times(&command("none", 0)), 0);
        heal_and_settle(&c).await;
    })
    .await;
}

/// A follower that was away catches up.
#[madsim::test]
async fn fail_agree() {
    scenario(RaftOptions::default(), |c| async move {
        c.agree(b"before", LONG).await;
        let leader = c.wait_leader(&c.ids()).await;
        let away = c.others(&[leader])[1];
        c.isolate(&[away]);
        let rest = c.others(&[away]);
        let last = agree_many(&c, &rest, "away", 10).await;
        millis(2000).await;
        assert!(c.status(away).expect("up").applied < last);
        c.rejoin(&[away]);
        c.settle(&c.ids(), last).await;
        heal_and_settle(&c).await;
        exactly_once(&c, &[command("away", 0), command("away", 9)]).await;
    })
    .await;
}

/// With three of five cut off nothing commits; after healing it does.
#[madsim::test]
async fn fail_no_agree() {
    scenario(RaftOptions::of(5), |c| async move {
        let first = c.agree(b"before", LONG).await;
        c.settle(&c.ids(), first).await;
        let leader = c.wait_leader(&c.ids()).await;
        let cut = &c.others(&[leader])[..3];
        c.isolate(cut);
        futile(&c, leader, "lost", 5).await;
        millis(3000).await;
        for node in c.ids() {
            let status = c.status(node).expect("up");
            assert!(status.commit <= first + 1, "node {node} committed");
        }
        c.rejoin(cut);
        c.agree(b"after", LONG).await;
        heal_and_settle(&c).await;
    })
    .await;
}

/// Parallel proposals in one term: all commit, none is lost, none is there twice.
#[madsim::test]
async fn concurrent_starts() {
    scenario(RaftOptions::default(), |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let term = c.status(leader).expect("up").term;
        let mut all = Vec::new();
        for burst in 0..5 {
            let fired: Vec<_> = (0..40)
                .map(|i| fire(&c, leader, command("c", burst * 40 + i), LONG))
                .collect();
            for task in fired {
                let (command, acknowledged) = task.await.expect("not cancelled");
                assert!(acknowledged);
                all.push(command);
            }
        }
        assert_eq!(c.status(leader).expect("up").term, term, "one term");
        c.settle(&c.ids(), 0).await;
        exactly_once(&c, &all).await;
        assert_eq!(c.applied().len(), 200);
    })
    .await;
}

/// The uncommitted tail of a deposed leader is overwritten.
#[madsim::test]
async fn rejoin() {
    scenario(RaftOptions::default(), |c| async move {
        c.agree(b"101", LONG).await;
        let first = c.wait_leader(&c.ids()).await;
        c.isolate(&[first]);
        futile(&c, first, "tail", 3).await;
        let rest = c.others(&[first]);
        c.agree_among(&rest, b"103", LONG).await;
        let second = c.wait_leader(&rest).await;
        c.isolate(&[second]);
        c.rejoin(&[first]);
        let pair = c.others(&[second]);
        c.agree_among(&pair, b"104", LONG).await;
        c.rejoin(&[second]);
        c.agree(b"105", LONG).await;
        heal_and_settle(&c).await;
        for i in 0..3 {
            assert_eq!(c.times(&command("tail", i)), 0, "overwritten");
        }
        let all = [&b"101"[..], b"103", b"104", b"105"].map(Vec::from);
        exactly_once(&c, &all).await;
    })
    .await;
}

/// Long tails that differ are repaired, and in few round trips (§5.3, the conflicting term).
#[madsim::test]
async fn backup() {
    const TAIL: usize = 60;
    scenario(RaftOptions::of(5), |c| async move {
        c.agree(b"first", LONG).await;
        let one = c.wait_leader(&c.ids()).await;
        let ids = c.others(&[one]);
        // The leader with one follower: a tail nobody will ever commit.
        c.isolate(&ids[1..]);
        futile(&c, one, "a", TAIL).await;
        c.isolate(&[one, ids[0]]);
        c.rejoin(&ids[1..]);
        agree_many(&c, &ids[1..], "b", TAIL).await;
        // The next leader loses one of its two, and gets another such tail.
        let two = c.wait_leader(&ids[1..]).await;
        let three = ids[1..].iter().copied().filter(|n| *n != two);
        let three: Vec<u64> = three.collect();
        c.isolate(&three[..1]);
        futile(&c, two, "d", TAIL).await;
        // Now the first two with the third that was left out.
        c.isolate(&ids[1..]);
        let mixed = [one, ids[0], three[0]];
        c.rejoin(&mixed);
        agree_many(&c, &mixed, "e", TAIL).await;

        let before = wire::count().mails;
        let since = world::clock::now();
        heal_and_settle(&c).await;
        let mails = wire::count().mails - before;
        // Five nodes exchange about 110 heartbeats a second; one mail per entry to be repaired
        // would be hundreds more.
        let heartbeats = 120 * (since.elapsed().as_millis() as u64) / 1000;
        assert!(
            mails < heartbeats + 150,
            "{mails} mails, {heartbeats} heartbeats"
        );
        for i in 0..TAIL {
            assert_eq!(c.times(&command("a", i)), 0);
            assert_eq!(c.times(&command("d", i)), 0);
            assert_eq!(c.times(&command("b", i)), 1);
            assert_eq!(c.times(&command("e", i)), 1);
        }
    })
    .await;
}

/// An election, ten entries and an idle second stay within these numbers of mails.
#[madsim::test]
async fn count() {
    scenario(RaftOptions::default(), |c| async move {
        let leader = c.wait_leader(&c.ids()).await;
        let election = wire::count().mails;
        // Pre-votes, votes, the no-op, and heartbeats while its sync goes on; a split vote doubles.
        assert!(election <= 80, "{election} mails for an election");
        c.settle(&c.ids(), 0).await;

        let before = wire::count().mails;
        let fired: Vec<_> = (0..10)
            .map(|i| fire(&c, leader, command("ten", i), LONG))
            .collect();
        for task in fired {
            assert!(task.await.expect("not cancelled").1);
        }
        let entries = wire::count().mails - before;
        assert!(entries <= 40, "{entries} mails for ten entries");

        let before = wire::count().mails;
        millis(1000).await;
        let idle = wire::count().mails - before;
        assert!((8..=80).contains(&idle), "{idle} mails in an idle second");
    })
    .await;
}
