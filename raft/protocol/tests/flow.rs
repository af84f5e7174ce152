//! What is under way to a follower, and what tells that it was lost.

mod support;

use raft_protocol::*;
use support::solo::*;

/// Leads term 1 of three, and both followers have its no-op.
fn leader() -> Solo {
    let mut solo = Solo::leader(3, &[], 0);
    solo.persist();
    for follower in [2, 3] {
        solo.acknowledge(follower, 1, 1);
    }
    solo
}

/// The follower has everything through `index`, as of a heartbeat round.
fn has(solo: &mut Solo, index: Index, round: u64) -> Output {
    let verdict = HeartbeatVerdict::Matched {
        received: index,
        synced: index,
    };
    let reply = Message::HeartbeatReply {
        term: 1,
        round,
        verdict,
    };
    solo.receive(3, reply)
}

/// The round of the next heartbeat.
fn next_round(solo: &mut Solo) -> u64 {
    loop {
        if let Some(round) = rounds_in(&solo.step(Input::Tick)).first() {
            // Or its followers are not heard from, and it steps down.
            solo.acknowledge(2, 1, 1);
            return *round;
        }
    }
}

/// A whole window is lost, with the connection that it was sent on, and every answer to a heartbeat
/// takes longer than the next round does to come: none is ever the answer to the newest one.
#[test]
fn a_window_that_was_lost_is_noticed_however_late_heartbeats_are_answered() {
    let mut solo = leader();
    let mut sent = 0;
    for n in 0..10 {
        let out = solo.step(Input::Propose(vec![Payload::from(n.to_string().as_str())]));
        sent += appends_in(&out).iter().filter(|to| **to == 3).count();
    }
    assert_eq!(sent, 4, "the window is full");
    let mut round = next_round(&mut solo);
    for _ in 0..5 {
        let newer = next_round(&mut solo);
        if appends_in(&has(&mut solo, 1, round)).contains(&3) {
            return;
        }
        round = newer;
    }
    panic!("the follower is sent nothing any more");
}

/// What was sent after a round may still be on its way when that round is answered.
#[test]
fn what_was_sent_after_a_round_is_not_taken_for_lost() {
    let mut solo = leader();
    for _ in 0..5 {
        let round = next_round(&mut solo);
        let out = solo.step(Input::Propose(vec![Payload::from("a")]));
        assert!(appends_in(&out).contains(&3));
        let last = solo.terms().len() as Index;
        assert!(!appends_in(&has(&mut solo, last - 1, round)).contains(&3));
        solo.acknowledge(3, 1, last);
    }
}
