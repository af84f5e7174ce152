//! A promise waits for its sync; what may overtake it does.

mod support;

use raft_protocol::*;
use support::solo::*;

#[test]
fn a_vote_waits_for_term_and_vote() {
    let mut solo = Solo::new(3, &[], 0);
    let out = solo.vote(2, 1, (0, 0));
    assert!(out.messages.is_empty());
    let write = out.write.expect("term and vote are one write");
    assert_eq!((write.hard_state.term, write.hard_state.vote), (1, Some(2)));
    assert_eq!(vote_in(&solo.persist()), Some(true));
}

#[test]
fn a_refusal_that_reveals_a_new_term_waits_for_it() {
    let mut solo = Solo::new(3, &[2, 2], 2);
    assert!(solo.vote(2, 3, (1, 1)).messages.is_empty());
    assert_eq!(vote_in(&solo.persist()), Some(false));
    let out = solo.append(4, (5, 3), 0, &[]);
    assert!(
        out.messages.is_empty(),
        "a conflict reveals the term as well"
    );
    assert!(matches!(
        verdict_in(&solo.persist()),
        Some(AppendVerdict::Conflict { .. })
    ));
}

#[test]
fn an_acknowledgement_waits_for_its_entries() {
    let mut solo = Solo::follower(3, &[1], 1);
    assert!(solo.append(1, (1, 1), 0, &[1]).messages.is_empty());
    // A repeated append finds the entry in the log, not on disk.
    assert!(solo.append(1, (1, 1), 0, &[1]).messages.is_empty());
    assert!(solo.append(1, (2, 1), 0, &[]).messages.is_empty());
    let out = solo.persist();
    assert_eq!(verdict_in(&out), Some(AppendVerdict::Matched { index: 2 }));
    assert_eq!(out.messages.len(), 1, "acknowledgements are cumulative");
}

#[test]
fn an_acknowledgement_of_what_is_synced_waits_for_nothing() {
    let mut solo = Solo::follower(3, &[1, 1], 1);
    solo.append(1, (2, 1), 0, &[1]);
    let out = solo.append(1, (1, 1), 0, &[1]);
    assert_eq!(verdict_in(&out), Some(AppendVerdict::Matched { index: 2 }));
}

#[test]
fn a_heartbeat_is_answered_while_a_sync_runs_and_claims_only_what_is_synced() {
    let mut solo = Solo::follower(3, &[1], 1);
    solo.append(1, (1, 1), 0, &[1]);
    let out = solo.receive(
        2,
        Message::Heartbeat {
            term: 1,
            round: 4,
            prev_index: 1,
            prev_term: 1,
            commit: 0,
        },
    );
    let verdict = HeartbeatVerdict::Matched {
        received: 2,
        synced: 1,
    };
    assert_eq!(
        out.messages[0].message,
        Message::HeartbeatReply {
            term: 1,
            round: 4,
            verdict
        }
    );
}

#[test]
fn a_candidate_counts_itself_when_its_vote_is_synced() {
    let mut solo = Solo::follower(2, &[], 1);
    solo.append(1, (0, 0), 0, &[1]);
    solo.persist();
    solo.append(1, (1, 1), 0, &[1]);
    let entry = solo.written;
    solo.campaign();
    solo.receive(
        2,
        Message::PreVoteReply {
            term: 2,
            granted: true,
        },
    );
    // An answer to nothing that was asked: still only one vote of two.
    solo.receive(
        2,
        Message::VoteReply {
            term: 2,
            granted: true,
        },
    );
    solo.step(Input::Persisted(entry));
    assert_eq!(
        solo.status().role,
        Role::Candidate,
        "an earlier write is durable, the vote is not"
    );
    solo.persist();
    assert_eq!(solo.status().role, Role::Leader);
}

#[test]
fn a_leader_counts_itself_when_its_entries_are_synced() {
    let mut solo = Solo::leader(3, &[], 0);
    solo.acknowledge(2, 1, 1);
    assert_eq!(solo.status().commit, 0);
    let out = solo.persist();
    assert_eq!((solo.status().commit, out.apply_through), (1, Some(1)));
}

#[test]
fn what_others_committed_is_applied_when_it_is_synced_here() {
    let mut leader = Solo::leader(3, &[], 0);
    leader.acknowledge(2, 1, 1);
    let out = leader.acknowledge(3, 1, 1);
    assert_eq!((leader.status().commit, out.apply_through), (1, None));
    assert_eq!(leader.persist().apply_through, Some(1));
    let mut follower = Solo::follower(3, &[], 1);
    let out = follower.append(1, (0, 0), 2, &[1, 1]);
    assert_eq!((follower.status().commit, out.apply_through), (2, None));
    assert_eq!(follower.persist().apply_through, Some(2));
}

#[test]
fn an_index_is_durable_when_the_last_write_touching_it_is() {
    // (2, t1) is being written, a leader of t2 overwrites it, one of t3 sends (2, t1) again.
    let mut solo = Solo::new(3, &[1], 1);
    solo.append(1, (1, 1), 0, &[1]);
    solo.receive(
        3,
        Message::Append {
            term: 2,
            prev_index: 1,
            prev_term: 1,
            commit: 0,
            entries: vec![support::entry(2, 2)],
        },
    );
    solo.append(3, (1, 1), 0, &[1, 3]);
    assert_eq!(solo.written, 3);
    for number in 1..3 {
        assert!(
            solo.step(Input::Persisted(number)).messages.is_empty(),
            "write {number}"
        );
        assert_eq!(solo.status().synced_index, 1);
    }
    let out = solo.step(Input::Persisted(3));
    assert_eq!(verdict_in(&out), Some(AppendVerdict::Matched { index: 3 }));
    assert_eq!(solo.status().synced_index, 3);
}

#[test]
fn waiting_messages_of_an_earlier_term_are_dropped() {
    let mut solo = Solo::new(3, &[], 0);
    solo.vote(2, 1, (0, 0));
    solo.vote(3, 2, (0, 0));
    let out = solo.persist();
    assert_eq!(out.messages.len(), 1);
    assert_eq!(
        out.messages[0],
        Envelope {
            to: 3,
            message: Message::VoteReply {
                term: 2,
                granted: true
            }
        }
    );
}

#[test]
fn the_term_after_a_restart_is_the_highest_stated_anywhere_and_its_vote_is_free() {
    let mut raised = start(3, &[1, 4], 2);
    raised.hard_state.vote = Some(3);
    assert_eq!(
        (Core::new(raised).status().term, None),
        (4, Core::new(start(3, &[1, 4], 2)).status().vote)
    );
    let mut based = start(3, &[], 2);
    based.hard_state.vote = Some(3);
    based.base.term = 6;
    based.base.index = 9;
    based.applied = 9;
    let status = Core::new(based).status();
    assert_eq!((status.term, status.vote), (6, None));
    let mut kept = start(3, &[1, 2], 2);
    kept.hard_state.vote = Some(3);
    assert_eq!(Core::new(kept).status().vote, Some(3));
}

#[test]
fn a_node_with_uncommitted_bytes_at_the_limit_is_busy() {
    let mut solo = Solo::leader(3, &[], 0);
    let big = || vec![Payload::from(vec![0u8; 3000])];
    assert!(matches!(
        solo.step(Input::Propose(big())).proposed,
        Some(Proposed::Accepted { .. })
    ));
    let out = solo.step(Input::Propose(big()));
    assert_eq!((out.proposed, out.write), (Some(Proposed::Busy), None));
    solo.persist();
    solo.acknowledge(2, 1, 2);
    assert!(matches!(
        solo.step(Input::Propose(big())).proposed,
        Some(Proposed::Accepted { .. })
    ));
}

#[test]
fn the_pipeline_to_a_follower_is_bounded_in_appends_and_bytes() {
    for (size, most) in [(1, 4), (300, 3)] {
        let mut solo = Solo::leader(3, &[], 0);
        solo.persist();
        solo.acknowledge(2, 1, 1);
        let mut sent = 0;
        for _ in 0..8 {
            let out = solo.step(Input::Propose(vec![Payload::from(vec![0u8; size])]));
            sent += appends_in(&out).iter().filter(|to| **to == 2).count();
        }
        assert_eq!(sent, most, "payloads of {size}");
        assert!(
            !appends_in(&solo.acknowledge(2, 1, 2)).is_empty(),
            "an answer makes room"
        );
    }
}

// Damage.

#[test]
fn abstention_ends_with_a_later_terms_entry_synced() {
    let mut damaged = start(3, &[1], 2);
    damaged.hard_state.abstain = Some(Abstain { term: 2, index: 5 });
    let mut solo = Solo::from(damaged);
    solo.append(3, (1, 1), 0, &[1, 2]);
    solo.persist();
    assert!(
        solo.hard.abstain.is_some(),
        "entries of earlier terms do not end it"
    );
    solo.append(3, (3, 2), 0, &[3]);
    assert!(solo.hard.abstain.is_some(), "nor one that is not synced");
    let out = solo.persist();
    assert_eq!(
        out.write.expect("its end is written").hard_state.abstain,
        None
    );
}

#[test]
fn abstention_ends_in_its_own_term_with_all_it_had() {
    let mut damaged = start(3, &[1], 2);
    damaged.hard_state.abstain = Some(Abstain { term: 2, index: 3 });
    let mut solo = Solo::from(damaged);
    solo.append(2, (1, 1), 0, &[2]);
    solo.persist();
    assert!(solo.hard.abstain.is_some());
    solo.append(2, (2, 2), 0, &[2]);
    solo.persist();
    assert_eq!(solo.hard.abstain, None);
}

#[test]
fn a_node_that_abstains_is_unborn_or_lost_its_state_neither_votes_nor_stands() {
    let damaged = |s: &mut Start| s.hard_state.abstain = Some(Abstain { term: 1, index: 1 });
    let unborn = |s: &mut Start| s.born = false;
    let lost = |s: &mut Start| s.state_lost = true;
    for bar in [&damaged as &dyn Fn(&mut Start), &unborn, &lost] {
        let mut start = start(3, &[1], 1);
        bar(&mut start);
        let mut solo = Solo::from(start);
        (0..50).for_each(|_| assert!(solo.step(Input::Tick).messages.is_empty()));
        assert_eq!(vote_in(&solo.pre_vote(2, 2, (9, 9))), Some(false));
        solo.vote(2, 2, (9, 9));
        assert_eq!(vote_in(&solo.persist()), Some(false));
    }
}

/// A disk hangs while its group goes on: what cannot be said yet does not pile up.
#[test]
fn what_waits_for_a_write_that_never_ends_is_bounded() {
    let mut solo = Solo::follower(3, &[1], 1);
    solo.persist();
    // The term is news, and its write does not end.
    for round in 1..=10_000 {
        solo.heartbeat(2, 2, round);
    }
    for id in 1..=100_000 {
        solo.step(Input::Read(id));
        if id % 500 == 0 {
            // Those asked in vain are given up.
            (0..30).for_each(|_| drop(solo.step(Input::Tick)));
            solo.heartbeat(2, 2, 10_000 + id);
        }
    }
    let said = solo.persist().messages;
    assert!(said.len() <= 5000, "{} messages waited", said.len());
    let beats = said
        .iter()
        .filter(|e| matches!(e.message, Message::HeartbeatReply { .. }));
    assert!(beats.count() <= 1);
}
