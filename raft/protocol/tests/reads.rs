//! Thesis §6.4: linearizable reads without the log, and §6.2, §9.6 as far as they concern
//! leases against elections.

mod support;

use raft_protocol::*;
use support::solo::*;
use support::{Cluster, settings};

/// Leads term 1 of three, its no-op committed.
fn leader() -> Solo {
    let mut solo = Solo::leader(3, &[], 0);
    solo.persist();
    solo.acknowledge(2, 1, 1);
    assert_eq!(solo.status().commit, 1);
    solo
}

fn answers(out: &Output) -> Vec<(u64, Result<Index, ReadRefusal>)> {
    out.reads.iter().map(|r| (r.id, r.result)).collect()
}

#[test]
fn before_an_entry_of_its_term_is_committed_a_leader_does_not_know_the_commit_index() {
    let mut solo = Solo::leader(3, &[1, 1], 1);
    solo.persist();
    assert!(rounds_in(&solo.step(Input::Read(1))).is_empty());
    for round in 1..5 {
        (0..3).for_each(|_| drop(solo.step(Input::Tick)));
        assert!(solo.answer(2, 2, round).reads.is_empty());
    }
    let out = solo.acknowledge(2, 2, 3);
    let round = rounds_in(&out)[0];
    assert_eq!(answers(&solo.answer(2, 2, round)), [(1, Ok(3))]);
}

#[test]
fn the_read_index_is_the_commit_index_when_the_round_is_sent() {
    let mut solo = leader();
    let round = rounds_in(&solo.step(Input::Read(1)))[0];
    solo.step(Input::Propose(vec![Payload::from("a")]));
    solo.persist();
    solo.acknowledge(2, 1, 2);
    assert_eq!(solo.status().commit, 2);
    assert_eq!(answers(&solo.answer(2, 1, round)), [(1, Ok(1))]);
}

#[test]
fn a_leader_answers_only_after_a_majority_acknowledged_a_heartbeat() {
    let mut solo = Solo::leader(5, &[], 0);
    solo.persist();
    solo.acknowledge(2, 1, 1);
    solo.acknowledge(3, 1, 1);
    let round = rounds_in(&solo.step(Input::Read(1)))[0];
    assert!(solo.answer(2, 1, round).reads.is_empty());
    assert!(
        solo.answer(2, 1, round).reads.is_empty(),
        "the same follower again"
    );
    assert_eq!(answers(&solo.answer(3, 1, round)), [(1, Ok(1))]);
}

#[test]
fn a_round_serves_only_reads_that_arrived_before_it_was_sent() {
    let mut solo = leader();
    let early = rounds_in(&solo.step(Input::Read(1)))[0];
    let late = rounds_in(&solo.step(Input::Read(2)))[0];
    assert!(early < late);
    assert_eq!(answers(&solo.answer(2, 1, early)), [(1, Ok(1))]);
    assert_eq!(answers(&solo.answer(3, 1, late)), [(2, Ok(1))]);
}

#[test]
fn a_later_round_answers_for_earlier_ones_that_were_lost() {
    let mut solo = leader();
    solo.step(Input::Read(1));
    let late = rounds_in(&solo.step(Input::Read(2)))[0];
    assert_eq!(answers(&solo.answer(2, 1, late)), [(1, Ok(1)), (2, Ok(1))]);
}

#[test]
fn an_answer_to_a_round_that_was_not_sent_is_ignored() {
    let mut solo = leader();
    solo.answer(2, 1, 100);
    let round = rounds_in(&solo.step(Input::Read(1)))[0];
    assert!(solo.step(Input::Tick).reads.is_empty());
    assert_eq!(answers(&solo.answer(2, 1, round)), [(1, Ok(1))]);
}

#[test]
fn reads_gather_while_rounds_are_under_way() {
    let mut solo = leader();
    let sent: Vec<u64> = (1..=20)
        .flat_map(|id| rounds_in(&solo.step(Input::Read(id))))
        .collect();
    assert_eq!(sent.len(), 4, "rounds under way are bounded");
    let next = rounds_in(&solo.answer(2, 1, sent[0]));
    assert_eq!(next.len(), 1);
    let out = solo.answer(2, 1, next[0]);
    assert_eq!(out.reads.len(), 19, "one round for all that gathered");
}

#[test]
fn a_group_of_one_answers_by_itself() {
    let mut solo = Solo::leader(1, &[], 0);
    assert!(solo.step(Input::Read(1)).reads.is_empty());
    assert_eq!(answers(&solo.persist()), [(1, Ok(1))]);
    assert_eq!(answers(&solo.step(Input::Read(2))), [(2, Ok(1))]);
}

#[test]
fn a_deposed_leader_answers_nothing() {
    let mut solo = leader();
    let round = rounds_in(&solo.step(Input::Read(1)))[0];
    let out = solo.heartbeat(3, 2, 1);
    assert_eq!(answers(&out), [(1, Err(ReadRefusal::Deposed))]);
    assert!(solo.answer(2, 1, round).reads.is_empty());
}

#[test]
fn a_follower_asks_its_leader() {
    let mut solo = Solo::follower(3, &[1], 1);
    let out = solo.step(Input::Read(7));
    let Message::ReadIndex {
        term: 1,
        life,
        id: 7,
    } = out.messages[0].message
    else {
        panic!("{out:?}");
    };
    assert_eq!(out.messages[0].to, 2);
    let reply = |life, index| Message::ReadIndexReply {
        term: 1,
        life,
        id: 7,
        index,
    };
    assert!(
        solo.receive(2, reply(life + 1, Some(0))).reads.is_empty(),
        "of another life"
    );
    assert_eq!(
        answers(&solo.receive(2, reply(life, Some(4)))),
        [(7, Ok(4))]
    );
    assert!(
        solo.receive(2, reply(life, Some(4))).reads.is_empty(),
        "once"
    );
}

#[test]
fn lives_of_a_node_have_different_names() {
    let life = |seed| {
        let mut solo = Solo::from(Start {
            seed,
            ..start(3, &[], 1)
        });
        solo.heartbeat(2, 1, 0);
        match solo.step(Input::Read(1)).messages[0].message {
            Message::ReadIndex { life, .. } => life,
            ref other => panic!("{other:?}"),
        }
    };
    assert_ne!(life(1), life(2));
}

#[test]
fn a_follower_gives_up_after_a_while() {
    let mut solo = Solo::follower(3, &[1], 1);
    solo.step(Input::Read(7));
    let out: Vec<_> = (0..10)
        .flat_map(|_| answers(&solo.step(Input::Tick)))
        .collect();
    assert_eq!(out, [(7, Err(ReadRefusal::NoLeader))]);
}

#[test]
fn a_follower_gives_up_when_the_term_is_over() {
    let mut solo = Solo::follower(3, &[1], 1);
    solo.step(Input::Read(7));
    assert_eq!(
        answers(&solo.heartbeat(3, 2, 0)),
        [(7, Err(ReadRefusal::NoLeader))]
    );
}

#[test]
fn without_a_leader_a_read_is_refused_at_once() {
    let mut solo = Solo::new(3, &[1], 1);
    assert_eq!(
        answers(&solo.step(Input::Read(1))),
        [(1, Err(ReadRefusal::NoLeader))]
    );
}

#[test]
fn a_leader_serves_reads_of_its_followers() {
    let mut solo = leader();
    let out = solo.receive(
        3,
        Message::ReadIndex {
            term: 1,
            life: 5,
            id: 9,
        },
    );
    let round = rounds_in(&out)[0];
    let out = solo.answer(2, 1, round);
    let reply = Message::ReadIndexReply {
        term: 1,
        life: 5,
        id: 9,
        index: Some(1),
    };
    assert!(out.messages.contains(&Envelope {
        to: 3,
        message: reply
    }));
}

#[test]
fn who_does_not_lead_says_so() {
    let mut solo = Solo::follower(3, &[1], 1);
    let out = solo.receive(
        3,
        Message::ReadIndex {
            term: 1,
            life: 5,
            id: 9,
        },
    );
    let reply = Message::ReadIndexReply {
        term: 1,
        life: 5,
        id: 9,
        index: None,
    };
    assert_eq!(
        out.messages,
        [Envelope {
            to: 3,
            message: reply
        }]
    );
}

// Thesis §6.2, §4.2.3: leases against elections.

#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut solo = leader();
    let roles: Vec<Role> = (0..25)
        .filter_map(|_| solo.step(Input::Tick).role)
        .map(|r| r.role)
        .collect();
    assert_eq!(roles.first(), Some(&Role::Follower));
    assert_eq!(solo.status().term, 1, "the term stays");
}

#[test]
fn a_leader_with_a_quorum_stays() {
    let mut solo = leader();
    for _ in 0..100 {
        solo.step(Input::Tick);
        solo.acknowledge(3, 1, 1);
        assert_eq!(solo.status().role, Role::Leader);
    }
}

/// It would commit with its followers' disks for ever, apply nothing and answer nobody.
#[test]
fn a_leader_whose_disk_stands_still_steps_down() {
    let mut solo = leader();
    let commits = |solo: &mut Solo| {
        solo.step(Input::Propose(vec![Payload::from("a")]));
        let last = solo.status().last_index;
        solo.acknowledge(2, 1, last);
        solo.acknowledge(3, 1, last);
        assert_eq!(solo.status().commit, last);
    };
    let steps_down = |solo: &mut Solo, ticks: u32| {
        (0..ticks).any(|_| {
            solo.step(Input::Tick);
            solo.acknowledge(2, 1, 1);
            solo.status().role == Role::Follower
        })
    };
    commits(&mut solo);
    assert!(!steps_down(&mut solo, 75), "a slow disk is no reason");
    solo.persist();
    commits(&mut solo);
    assert!(!steps_down(&mut solo, 75), "it moved");
    assert!(steps_down(&mut solo, 40), "it does not");
    assert_eq!(solo.status().term, 1, "the term stays");
    // Nor does it commit anything when the follower that it would take needs a snapshot.
    let mut solo = leader();
    solo.step(Input::Propose(vec![Payload::from("a")]));
    assert!(steps_down(&mut solo, 115), "whatever is committed");
}

#[test]
fn a_leader_at_rest_stays_whatever_its_disk_does() {
    let mut solo = leader();
    for _ in 0..300 {
        solo.step(Input::Tick);
        solo.acknowledge(3, 1, 1);
    }
    assert_eq!(solo.status().role, Role::Leader);
}

#[test]
fn with_a_live_leader_neither_vote_nor_pre_vote_nor_term_is_given() {
    let mut solo = Solo::follower(3, &[1], 1);
    assert_eq!(vote_in(&solo.pre_vote(3, 2, (9, 1))), Some(false));
    assert!(solo.vote(3, 2, (9, 1)).messages.is_empty());
    assert_eq!(solo.status().term, 1);
    (0..9).for_each(|_| drop(solo.step(Input::Tick)));
    assert_eq!(vote_in(&solo.pre_vote(3, 2, (9, 1))), Some(false));
    solo.step(Input::Tick);
    assert_eq!(vote_in(&solo.pre_vote(3, 2, (9, 1))), Some(true));
    assert_eq!(solo.status().term, 1, "a pre-vote changes no term");
}

/// It has given its leader up: it names none to clients, and stands in no other's way for its sake.
#[test]
fn a_pre_candidate_follows_nobody() {
    let mut solo = Solo::follower(3, &[1], 1);
    assert!(solo.status().leader.is_some());
    solo.campaign();
    assert_eq!(solo.status().role, Role::PreCandidate);
    assert_eq!(solo.status().leader, None);
    assert_eq!(vote_in(&solo.pre_vote(3, 3, (9, 1))), Some(true));
    // Its leader, heard again, is its leader again.
    solo.heartbeat(2, 1, 1);
    assert_eq!(
        (solo.status().role, solo.status().leader),
        (Role::Follower, Some(2))
    );
}

/// Of two survivors whose timeouts end within one tick each would otherwise vote for itself, and
/// nobody would lead before another timeout.
#[test]
fn of_two_that_ask_for_pre_votes_at_once_one_stands_and_is_elected() {
    let mut cluster = Cluster::new(3, settings(), 1);
    cluster.crash(3);
    for id in [1, 2] {
        cluster.campaign(id);
        assert_eq!(cluster.core(id).status().role, Role::PreCandidate);
    }
    cluster.settle();
    assert_eq!(cluster.leader(), Some(2));
    assert_eq!(cluster.core(2).status().term, 1, "in the first attempt");
}

#[test]
fn a_pre_candidate_prefers_itself_only_to_a_lower_number_with_an_equal_log_for_a_while() {
    let start = || {
        let mut start = start(3, &[1, 1], 1);
        start.id = 2;
        let mut solo = Solo::from(start);
        solo.campaign();
        solo
    };
    let asked = |from, term, last| vote_in(&start().pre_vote(from, term, last));
    assert_eq!(asked(1, 2, (2, 1)), Some(false));
    assert_eq!(asked(3, 2, (2, 1)), Some(true), "a higher number");
    assert_eq!(asked(1, 2, (3, 1)), Some(true), "a longer log");
    assert_eq!(asked(1, 3, (2, 1)), Some(true), "a higher term");
    let mut solo = start();
    (0..5).for_each(|_| drop(solo.step(Input::Tick)));
    assert_eq!(
        vote_in(&solo.pre_vote(1, 2, (2, 1))),
        Some(false),
        "asked again"
    );
    solo.step(Input::Tick);
    assert_eq!(solo.status().role, Role::PreCandidate);
    assert_eq!(vote_in(&solo.pre_vote(1, 2, (2, 1))), Some(true), "later");
}

#[test]
fn an_election_the_leader_asked_for_passes_the_lease() {
    let mut solo = Solo::follower(3, &[1], 1);
    let vote = Message::Vote {
        term: 2,
        last_index: 1,
        last_term: 1,
        transfer: true,
    };
    solo.receive(3, vote);
    assert_eq!(vote_in(&solo.persist()), Some(true));
}

#[test]
fn a_pre_vote_of_a_lower_term_is_told_the_term() {
    let mut solo = Solo::new(3, &[1], 5);
    let out = solo.pre_vote(2, 2, (9, 1));
    assert_eq!(
        out.messages[0].message,
        Message::PreVoteReply {
            term: 5,
            granted: false
        }
    );
    let mut asker = Solo::new(3, &[1, 1], 1);
    asker.campaign();
    asker.receive(
        2,
        Message::PreVoteReply {
            term: 5,
            granted: false,
        },
    );
    assert_eq!(
        (asker.status().term, asker.status().role),
        (5, Role::Follower)
    );
}
