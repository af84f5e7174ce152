//! Bytes that were synced and are not what they were: the node abstains until it is repaired.

use super::common::*;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::{RaftCluster, RaftOptions, wire};
use world::net::Kind;
use world::net::inject::{Verdict, set_judge};

/// Where records begin in a segment.
const DATA_START: u64 = 8192;

/// The newest log segment with records in it.
fn segment(c: &RaftCluster, node: u64) -> String {
    let disk = c.nodes.disk(c.key(node));
    let mut segments: Vec<String> = disk
        .files()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| name.starts_with("log/"))
        .filter(|name| {
            let bytes = disk.read(name).unwrap_or_default();
            bytes.iter().skip(DATA_START as usize).any(|b| *b != 0)
        })
        .collect();
    segments.sort();
    segments.pop().expect("a segment with records")
}

/// Flips a bit in the header of the first batch of the newest segment.
fn damage(c: &RaftCluster, node: u64) {
    let name = segment(c, node);
    let offset = DATA_START + 16 + wire::below(8);
    let flipped = c
        .nodes
        .disk(c.key(node))
        .flip_bit(&name, offset, wire::below(8) as u8);
    assert!(flipped, "{name} at {offset}");
}

/// A synced batch is damaged on a follower: it says so, does not vote, is repaired by the leader,
/// and votes again.
#[madsim::test]
async fn damaged_segment() {
    scenario(RaftOptions::of(3), |c| async move {
        for i in 0..20 {
            c.agree(&command("before", i), LONG).await;
        }
        c.settle(&c.ids(), 0).await;
        let leader = c.wait_leader(&c.ids()).await;
        let (node, third) = (c.others(&[leader])[0], c.others(&[leader])[1]);
        c.kill(node);
        damage(&c, node);
        // Alone with the third it is no quorum: it abstains.
        c.isolate(&[leader]);
        c.start(node);
        eventually("it says why it does not vote", LONG, || async {
            let why = c.status(node).and_then(|s| s.not_voting);
            why.is_some_and(|why| why.contains("damage"))
        })
        .await;
        for _ in 0..50 {
            millis(200).await;
            assert_eq!(c.leader_among(&[node, third]), None);
        }
        // And it still does after the next start.
        c.kill(node);
        c.start(node);
        for _ in 0..25 {
            millis(200).await;
            assert_eq!(c.leader_among(&[node, third]), None);
        }
        c.rejoin(&[leader]);
        let index = c.agree(b"after", LONG).await;
        c.settle(&c.ids(), index).await;
        eventually("it votes again", LONG, || async {
            c.status(node).is_some_and(|s| s.not_voting.is_none())
        })
        .await;
        let leader = c.wait_leader(&c.ids()).await;
        let away = if leader == node { third } else { leader };
        c.kill(away);
        let rest = c.others(&[away]);
        c.agree_among(&rest, b"with its vote", LONG).await;
        heal_and_settle(&c).await;
        let all: Vec<_> = (0..20).map(|i| command("before", i)).collect();
        exactly_once(&c, &all).await;
    })
    .await;
}

/// Damage on one node after another, under load, repaired each time: nothing is lost.
#[madsim::test]
async fn damage_in_turn() {
    scenario(RaftOptions::of(3), |c| async move {
        let mut acknowledged = Vec::new();
        for round in 0..6 {
            let leader = c.wait_leader(&c.ids()).await;
            for i in 0..10 {
                let command = command("d", round * 10 + i);
                if c.propose(leader, command.clone(), LONG).await.is_ok() {
                    acknowledged.push(command);
                }
            }
            c.settle(&c.ids(), 0).await;
            let node = 1 + round as u64 % 3;
            c.kill(node);
            let name = segment(&c, node);
            let disk = c.nodes.disk(c.key(node));
            let bytes = disk.read(&name).expect("just seen");
            // Anywhere in what was written but the last batch: there it cannot be told from a tear.
            let used = bytes.iter().rposition(|b| *b != 0).expect("records") as u64;
            let offset = DATA_START + wire::below((used - DATA_START) / 2);
            assert!(disk.flip_bit(&name, offset, 3));
            c.start(node);
            let index = c.agree(&command("on", round), LONG).await;
            c.settle(&c.ids(), index).await;
            eventually("it votes again", LONG, || async {
                c.status(node).is_some_and(|s| s.not_voting.is_none())
            })
            .await;
        }
        heal_and_settle(&c).await;
        exactly_once(&c, &acknowledged).await;
    })
    .await;
}

/// A bit of the state file flips: the state is rebuilt from the log or from a peer, and wrong
/// bytes are never served (the digests agree).
#[madsim::test]
async fn damaged_state() {
    scenario(RaftOptions::small_log(3), |c| async move {
        for round in 0..4 {
            for i in 0..8 {
                let mut big = command("state", round * 10 + i);
                big.resize(600, b'.');
                c.agree(&big, LONG).await;
            }
            c.settle(&c.ids(), 0).await;
            millis(500).await;
            let leader = c.wait_leader(&c.ids()).await;
            let node = c.others(&[leader])[round % 2];
            c.kill(node);
            let disk = c.nodes.disk(c.key(node));
            let state = disk.files().into_iter().map(|(name, _)| name);
            let mut state: Vec<_> = state.filter(|n| n.starts_with("state-")).collect();
            state.sort();
            let name = state.pop().expect("a state file");
            let (offset, bit) = disk.rot(&name).expect("it has bytes");
            c.start(node);
            millis(3000).await;
            for (key, why) in c.nodes.take_fatal() {
                assert_eq!(key, c.key(node), "{why}");
                assert!(why.contains("state"), "{name} {offset}:{bit}: {why}");
                c.kill(node);
                c.start(node);
            }
            let index = c.agree(&command("on", round), LONG).await;
            c.settle(&c.ids(), index).await;
        }
        heal_and_settle(&c).await;
    })
    .await;
}

/// All state files of a member are gone, and its log no longer begins at the beginning: what is in
/// the log is no state, so it acknowledges nothing and takes part in no election until a peer's
/// snapshot is there.
#[madsim::test]
async fn a_lost_state_behind_a_compacted_log() {
    scenario(RaftOptions::small_log(3), |c| async move {
        for i in 0..200 {
            let mut big = command("state", i);
            big.resize(100, b'.');
            c.agree(&big, LONG).await;
        }
        c.settle(&c.ids(), 0).await;
        millis(500).await;
        let leader = c.wait_leader(&c.ids()).await;
        let (node, third) = (c.others(&[leader])[0], c.others(&[leader])[1]);
        let base = c.status(node).expect("up").base;
        assert!(base > 0, "its log was never compacted");
        c.kill(node);
        let disk = c.nodes.disk(c.key(node));
        for (name, _) in disk.files() {
            if name.starts_with("state-") || name == "CURRENT" {
                assert!(disk.delete(&name), "{name}");
            }
        }
        // The leader could commit with its acknowledgement alone.
        c.isolate(&[third]);
        set_judge(Some(Box::new(move |passing| {
            match passing.kind == Kind::Request && passing.to.node == node {
                true => Verdict::Drop, // the snapshot, above all
                false => Verdict::Pass,
            }
        })));
        let commit = c.status(leader).expect("up").commit;
        c.start(node);
        let alone = c.propose(leader, command("with it", 0), LONG / 10).await;
        assert!(alone.is_err(), "acknowledged by a member without a state");
        set_judge(None);
        c.rejoin(&[third]);
        heal_and_settle(&c).await;
        assert!(
            c.status(node).expect("up").base >= commit,
            "from a peer's snapshot"
        );
    })
    .await;
}

/// The log of a member that has had its vote is gone: it refuses to start, and so it does when it
/// is started again (as a supervisor would). Found by the campaign: the first refusal had left an
/// empty log behind, with which the second start went on, and voted.
#[madsim::test]
async fn a_lost_log_is_refused_at_every_start() {
    scenario(RaftOptions::of(3), |c| async move {
        for i in 0..5 {
            c.agree(&command("before", i), LONG).await;
        }
        c.settle(&c.ids(), 0).await;
        let node = c.others(&[c.wait_leader(&c.ids()).await])[0];
        c.kill(node);
        let disk = c.nodes.disk(c.key(node));
        for (name, _) in disk.files() {
            if name.starts_with("log/") {
                assert!(disk.delete(&name), "{name}");
            }
        }
        for _ in 0..3 {
            c.start(node);
            millis(2000).await;
            let fatal = c.nodes.take_fatal();
            let [(key, why)] = &fatal[..] else {
                panic!("it goes on without its log: {fatal:?}");
            };
            assert_eq!(*key, c.key(node));
            assert!(why.contains("the log is gone"), "{why}");
            c.kill(node);
        }
        c.agree(&command("after", 0), LONG).await;
    })
    .await;
}
