//! The paper's §5 and §8, sentence by sentence.

mod support;

use raft_protocol::*;
use support::{asks_again, settings, solo::*};

// §5.1

#[test]
fn a_smaller_term_is_updated_to_the_larger_one() {
    let mut solo = Solo::new(3, &[], 1);
    solo.heartbeat(2, 5, 0);
    assert_eq!(solo.status().term, 5);
    assert_eq!(solo.hard.term, 5, "and it is written");
}

#[test]
fn a_candidate_or_leader_that_finds_its_term_out_of_date_becomes_a_follower() {
    let mut leader = Solo::leader(3, &[], 0);
    leader.receive(
        3,
        Message::AppendReply {
            term: 7,
            verdict: AppendVerdict::Stale,
        },
    );
    assert_eq!(
        (leader.status().role, leader.status().term),
        (Role::Follower, 7)
    );
    let mut candidate = Solo::new(3, &[], 0);
    candidate.campaign();
    candidate.receive(
        2,
        Message::PreVoteReply {
            term: 1,
            granted: true,
        },
    );
    assert_eq!(candidate.status().role, Role::Candidate);
    candidate.receive(
        2,
        Message::VoteReply {
            term: 9,
            granted: false,
        },
    );
    assert_eq!(
        (candidate.status().role, candidate.status().term),
        (Role::Follower, 9)
    );
}

#[test]
fn a_request_of_a_stale_term_is_rejected_and_told_the_term() {
    let mut solo = Solo::new(3, &[], 5);
    let out = solo.append(4, (0, 0), 0, &[4]);
    assert_eq!(verdict_in(&out), Some(AppendVerdict::Stale));
    assert_eq!(out.messages[0].message.term(), 5);
    assert!(solo.terms().is_empty());
    let out = solo.vote(2, 4, (9, 4));
    assert_eq!(vote_in(&out), Some(false));
    assert_eq!(out.messages[0].message.term(), 5);
}

// §5.2

#[test]
fn servers_start_as_followers_and_stay_so_while_they_hear_a_leader() {
    let mut solo = Solo::new(3, &[], 0);
    for round in 0..20 {
        for _ in 0..9 {
            assert!(solo.step(Input::Tick).messages.is_empty());
        }
        solo.heartbeat(2, 1, round);
        assert_eq!(solo.status().role, Role::Follower);
    }
}

#[test]
fn leaders_send_heartbeats_to_all_followers() {
    let mut solo = Solo::leader(5, &[], 0);
    let mut to = Vec::new();
    for _ in 0..3 {
        to.extend(solo.step(Input::Tick).messages.into_iter().map(|e| e.to));
    }
    assert_eq!(to, [2, 3, 4, 5]);
}

#[test]
fn to_begin_an_election_a_follower_raises_its_term_votes_for_itself_and_asks_the_others() {
    let mut solo = Solo::new(3, &[], 3);
    solo.campaign();
    let out = solo.receive(
        2,
        Message::PreVoteReply {
            term: 4,
            granted: true,
        },
    );
    let write = out.write.expect("term and vote are written");
    assert_eq!((write.hard_state.term, write.hard_state.vote), (4, Some(1)));
    assert!(
        out.messages.is_empty(),
        "nobody is asked before they are synced"
    );
    let out = solo.persist();
    let asked: Vec<NodeId> = out.messages.iter().map(|e| e.to).collect();
    assert_eq!(asked, [2, 3]);
    assert!(
        out.messages
            .iter()
            .all(|e| matches!(e.message, Message::Vote { term: 4, .. }))
    );
}

/// §5.1: servers retry requests that are not answered in time. Whom a node that stands has the vote of
/// is not asked again; nobody is asked before term and own vote are synced, the first time or later.
#[test]
fn requests_for_votes_are_repeated_within_the_timeout() {
    let asked = |solo: &mut Solo| {
        let mut asked = Vec::new();
        for _ in 0..settings().heartbeat_ticks {
            for envelope in solo.step(Input::Tick).messages {
                let term = envelope.message.term();
                let pre = matches!(envelope.message, Message::PreVote { .. });
                assert!(pre || matches!(envelope.message, Message::Vote { .. }));
                asked.push((pre, term, envelope.to));
            }
        }
        asked
    };
    let mut solo = Solo::new(5, &[1, 2], 2);
    solo.campaign();
    let all = |pre| [2, 3, 4, 5].map(|to| (pre, 3, to)).to_vec();
    assert_eq!(asked(&mut solo), all(true));
    solo.pre_vote_granted(4, 3);
    assert_eq!(
        asked(&mut solo),
        [2, 3, 5].map(|to| (true, 3, to)),
        "who would vote for it is not asked again"
    );
    solo.pre_vote_granted(2, 3);
    assert_eq!(solo.status().role, Role::Candidate);
    assert_eq!(asked(&mut solo), [], "its own vote is not synced");
    assert_eq!(solo.persist().messages.len(), 4);
    assert_eq!(asked(&mut solo), all(false));
    let granted = true;
    solo.receive(5, Message::VoteReply { term: 3, granted });
    assert_eq!(asked(&mut solo), [2, 3, 4].map(|to| (false, 3, to)));
    assert!(solo.status().role == Role::Candidate && solo.status().term == 3);
}

#[test]
fn a_repeated_request_is_granted_again_by_whom_it_was_granted() {
    let mut solo = Solo::new(3, &[], 3);
    solo.vote(2, 4, (0, 0));
    let out = solo.vote(2, 4, (0, 0));
    assert!(out.write.is_none() && out.messages.is_empty(), "not synced");
    assert_eq!(vote_in(&solo.persist()), Some(true));
    let out = solo.vote(2, 4, (0, 0));
    assert_eq!((out.write.is_none(), vote_in(&out)), (true, Some(true)));
    assert_eq!(vote_in(&solo.vote(3, 4, (0, 0))), Some(false));
}

#[test]
fn a_candidate_wins_with_votes_from_a_majority_of_the_full_cluster() {
    for (nodes, votes) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (7, 3)] {
        for given in 0..=votes {
            let mut solo = Solo::new(nodes, &[], 0);
            solo.campaign();
            for from in 2..=votes + 1 {
                solo.receive(
                    from,
                    Message::PreVoteReply {
                        term: 1,
                        granted: true,
                    },
                );
            }
            solo.persist();
            for from in 2..2 + given {
                solo.receive(
                    from,
                    Message::VoteReply {
                        term: 1,
                        granted: true,
                    },
                );
            }
            let leads = solo.status().role == Role::Leader;
            assert_eq!(
                leads,
                given == votes,
                "{given} votes of others among {nodes}"
            );
        }
    }
}

#[test]
fn a_repeated_vote_counts_once_and_a_late_one_not_at_all() {
    let mut solo = Solo::new(5, &[], 4);
    solo.campaign();
    for from in 2..=3 {
        solo.receive(
            from,
            Message::PreVoteReply {
                term: 5,
                granted: true,
            },
        );
    }
    solo.persist();
    for _ in 0..3 {
        solo.receive(
            2,
            Message::VoteReply {
                term: 5,
                granted: true,
            },
        );
    }
    solo.receive(
        3,
        Message::VoteReply {
            term: 4,
            granted: true,
        },
    );
    assert_eq!(solo.status().role, Role::Candidate);
}

#[test]
fn a_server_votes_for_one_candidate_per_term_first_come_first_served() {
    let mut solo = Solo::new(3, &[], 0);
    solo.vote(2, 1, (0, 0));
    assert_eq!(vote_in(&solo.persist()), Some(true));
    assert_eq!(vote_in(&solo.vote(3, 1, (0, 0))), Some(false));
    // The same candidate asks again, its answer was lost.
    assert_eq!(vote_in(&solo.vote(2, 1, (0, 0))), Some(true));
    assert_eq!(solo.hard.vote, Some(2));
}

#[test]
fn a_vote_is_remembered_over_a_restart() {
    let mut start = start(3, &[], 1);
    start.hard_state.vote = Some(2);
    let mut solo = Solo::from(start);
    assert_eq!(vote_in(&solo.vote(3, 1, (0, 0))), Some(false));
    assert_eq!(vote_in(&solo.vote(2, 1, (0, 0))), Some(true));
}

#[test]
fn a_candidate_that_hears_a_leader_of_its_term_recognises_it() {
    let mut solo = Solo::new(3, &[], 0);
    solo.campaign();
    solo.receive(
        2,
        Message::PreVoteReply {
            term: 1,
            granted: true,
        },
    );
    solo.heartbeat(3, 1, 0);
    let status = solo.status();
    assert_eq!(
        (status.role, status.term, status.leader),
        (Role::Follower, 1, Some(3))
    );
    assert_eq!(status.vote, Some(1), "the vote of a term stays given");
    let asked = solo.persist().messages;
    let votes = asked
        .iter()
        .filter(|e| matches!(e.message, Message::Vote { .. }))
        .count();
    assert_eq!(votes, 0, "and it asks for no votes any more");
}

#[test]
fn a_candidate_ignores_a_leader_of_an_earlier_term() {
    let mut solo = Solo::new(3, &[], 4);
    solo.campaign();
    solo.receive(
        2,
        Message::PreVoteReply {
            term: 5,
            granted: true,
        },
    );
    solo.heartbeat(3, 4, 0);
    assert_eq!(
        (solo.status().role, solo.status().term),
        (Role::Candidate, 5)
    );
}

#[test]
fn election_timeouts_are_drawn_from_a_fixed_interval_anew_each_time() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let mut start = start(3, &[], 0);
        start.seed = seed;
        let mut solo = Solo::from(start);
        for _ in 0..3 {
            let ticks = (1..100).find(|_| {
                let out = solo.step(Input::Tick);
                !out.messages.is_empty() && !asks_again(&out)
            });
            seen.insert(ticks.expect("it campaigns"));
        }
    }
    assert_eq!(seen.first(), Some(&10));
    assert_eq!(seen.last(), Some(&19));
    assert_eq!(seen.len(), 10);
}

// §5.3

#[test]
fn a_leader_appends_a_command_and_sends_it_to_all_in_parallel() {
    let mut solo = Solo::leader(3, &[], 0);
    solo.persist();
    solo.acknowledge(2, 1, 1);
    solo.acknowledge(3, 1, 1);
    let out = solo.step(Input::Propose(vec![Payload::from("a")]));
    assert_eq!(out.proposed, Some(Proposed::Accepted { term: 1, first: 2 }));
    assert_eq!(out.write.as_ref().expect("it is written").entries.len(), 1);
    assert_eq!(appends_in(&out), [2, 3], "before its own sync");
}

#[test]
fn an_entry_is_committed_once_a_majority_has_it() {
    for (nodes, needed) in [(2, 1), (3, 1), (4, 2), (5, 2)] {
        let mut solo = Solo::leader(nodes, &[], 0);
        solo.persist();
        for from in 2..2 + needed {
            assert_eq!(solo.status().commit, 0);
            solo.acknowledge(from, 1, 1);
        }
        assert_eq!(solo.status().commit, 1, "{nodes} nodes");
    }
}

#[test]
fn committing_an_entry_commits_all_that_precede_it() {
    let mut solo = Solo::leader(3, &[1, 2], 2);
    solo.persist();
    let out = solo.acknowledge(2, 3, 3);
    assert_eq!((solo.status().commit, out.apply_through), (3, Some(3)));
}

#[test]
fn a_follower_learns_of_commits_and_applies_in_order() {
    let mut solo = Solo::follower(3, &[1, 1], 1);
    let out = solo.append(1, (2, 1), 2, &[]);
    assert_eq!(out.apply_through, Some(2));
}

#[test]
fn a_follower_commits_no_further_than_what_the_append_verified() {
    // Its own (2, t1) and (3, t1) are perhaps not the leader's.
    let mut solo = Solo::follower(3, &[1, 1, 1], 2);
    solo.append(2, (1, 1), 3, &[]);
    assert_eq!(solo.status().commit, 1);
}

#[test]
fn a_commit_index_is_only_raised() {
    let mut solo = Solo::follower(3, &[1, 1], 1);
    solo.append(1, (2, 1), 2, &[]);
    solo.append(1, (2, 1), 1, &[]);
    assert_eq!(solo.status().commit, 2);
}

#[test]
fn an_append_is_refused_when_the_entry_before_it_is_missing() {
    let mut solo = Solo::follower(3, &[1, 1], 2);
    let conflict = |out: Output| matches!(verdict_in(&out), Some(AppendVerdict::Conflict { .. }));
    assert!(conflict(solo.append(2, (3, 2), 0, &[2])), "too short");
    assert!(conflict(solo.append(2, (2, 2), 0, &[2])), "another term");
    assert_eq!(solo.terms(), [1, 1], "nothing is cut by a refusal");
}

#[test]
fn conflicting_entries_are_deleted_with_all_that_follow() {
    let mut solo = Solo::follower(3, &[1, 1, 1, 1], 2);
    let out = solo.append(2, (1, 1), 0, &[2]);
    assert_eq!(solo.terms(), [1, 2]);
    assert_eq!(out.write.expect("the cut is written").entries.len(), 1);
}

#[test]
fn entries_that_match_are_left_alone_with_all_that_follow() {
    let mut solo = Solo::follower(3, &[1, 1, 1, 1], 1);
    let out = solo.append(1, (0, 0), 0, &[1, 1]);
    assert_eq!(solo.terms(), [1, 1, 1, 1]);
    assert_eq!(out.write, None);
    assert_eq!(verdict_in(&out), Some(AppendVerdict::Matched { index: 2 }));
}

#[test]
fn a_leader_starts_with_next_behind_its_log_and_goes_back_until_the_logs_match() {
    let mut solo = Solo::leader(3, &[1, 2, 3], 3);
    let verdict = AppendVerdict::Conflict {
        prev_index: 3,
        hint_index: 2,
        hint_term: 1,
    };
    let out = solo.receive(2, Message::AppendReply { term: 4, verdict });
    // The follower's terms up to 2 are at most 1: only (1, t1) may agree.
    let Message::Append {
        prev_index,
        prev_term,
        entries,
        ..
    } = &out.messages[0].message
    else {
        panic!("{out:?}");
    };
    assert_eq!((*prev_index, *prev_term, entries.len()), (1, 1, 3));
}

#[test]
fn a_leader_never_deletes_its_own_entries() {
    let mut solo = Solo::leader(3, &[1], 1);
    solo.append(2, (0, 0), 0, &[2]);
    assert_eq!(solo.terms(), [1, 2]);
    assert_eq!(solo.status().role, Role::Leader);
}

#[test]
fn match_indices_are_raised_by_late_answers_never_lowered() {
    let mut solo = Solo::leader(3, &[1, 1, 1], 1);
    solo.acknowledge(2, 2, 4);
    solo.acknowledge(2, 2, 2);
    let verdict = AppendVerdict::Conflict {
        prev_index: 3,
        hint_index: 1,
        hint_term: 1,
    };
    solo.receive(2, Message::AppendReply { term: 2, verdict });
    assert_eq!(solo.status().matched[0], (2, 4));
}

#[test]
fn answers_of_an_earlier_term_are_not_counted() {
    let mut solo = Solo::leader(3, &[1, 1], 1);
    solo.persist();
    solo.acknowledge(2, 1, 3);
    assert_eq!(
        (solo.status().commit, solo.status().matched[0]),
        (0, (2, 0))
    );
}

#[test]
fn a_compacted_previous_entry_is_no_conflict() {
    let mut solo = Solo::follower(3, &[1, 1, 1, 1], 1);
    solo.append(1, (4, 1), 3, &[]);
    solo.step(Input::Compact(3));
    assert_eq!(solo.core.base().index, 3);
    let out = solo.append(1, (1, 1), 3, &[1, 1, 1, 1]);
    solo.persist();
    assert_eq!(solo.terms(), [1, 1]);
    assert!(verdict_in(&out).is_none_or(|v| v == AppendVerdict::Matched { index: 5 }));
    assert_eq!(solo.status().synced_index, 5);
}

// §5.4.1

#[test]
fn a_vote_is_denied_to_a_log_that_is_less_up_to_date() {
    // Own log ends in (3, t2). The later last term wins; of equal ones, the longer log.
    let cases = [
        ((2, 2), false),
        ((3, 2), true),
        ((4, 2), true),
        ((9, 1), false),
        ((1, 3), true),
    ];
    for (last, granted) in cases {
        let mut solo = Solo::new(3, &[1, 2, 2], 3);
        assert_eq!(
            vote_in(&solo.pre_vote(2, 4, last)),
            Some(granted),
            "{last:?}"
        );
        solo.vote(2, 4, last);
        assert_eq!(vote_in(&solo.persist()), Some(granted), "{last:?}");
    }
}

#[test]
fn a_refused_vote_leaves_the_vote_free() {
    let mut solo = Solo::new(3, &[1, 2, 2], 3);
    solo.vote(2, 4, (1, 1));
    solo.persist();
    solo.vote(3, 4, (3, 2));
    assert_eq!(vote_in(&solo.persist()), Some(true));
}

// §5.4.2

#[test]
fn entries_of_earlier_terms_are_not_committed_by_counting() {
    let mut solo = Solo::leader(3, &[1, 2], 2);
    solo.persist();
    solo.acknowledge(2, 3, 2);
    assert_eq!(solo.status().commit, 0, "(2, t2) is on a majority");
    solo.acknowledge(2, 3, 3);
    assert_eq!(solo.status().commit, 3);
}

/// A new leader has a tail of an earlier term, a follower acknowledged a part of it and died, and the
/// other one follows: what its quorum has is found behind what the dead one has, in whatever order
/// they are named, and whether or not an entry of the earlier term is found on the way.
#[test]
fn a_follower_that_died_within_an_old_tail_does_not_stop_the_commit() {
    for (dead, alive) in [(2, 3), (3, 2)] {
        for part in 1..=4 {
            let mut solo = Solo::leader(3, &[1, 1, 2, 2], 2);
            solo.persist();
            solo.acknowledge(dead, 3, part);
            assert_eq!(solo.status().commit, 0);
            solo.acknowledge(alive, 3, 5);
            assert_eq!(solo.status().commit, 5, "{dead} stopped at {part}");
        }
    }
}

/// Of five, in every order of acknowledgements, with and without an old tail: committed is exactly the
/// newest entry of the own term that three have synced.
#[test]
fn what_is_committed_is_what_a_quorum_has_in_any_order() {
    let old = [1, 2, 2];
    let first = old.len() as Index + 1; // the no-op of term 3
    let reached = [2, 3, first, first + 2];
    for n in 0..reached.len().pow(4) {
        let mut rest = n;
        let mut solo = Solo::leader(5, &old, 2);
        solo.step(Input::Propose(vec![Payload::from("a"), Payload::from("b")]));
        let last = solo.status().last_index;
        assert_eq!(last, first + 2);
        let mut held = Vec::new();
        for from in 2..=5 {
            let index = reached[rest % reached.len()];
            rest /= reached.len();
            solo.acknowledge(from, 3, index);
            held.push(index);
        }
        solo.persist();
        let told = held.clone();
        held.push(last);
        held.sort_unstable();
        let quorum = held[2];
        let expected = if quorum >= first { quorum } else { 0 };
        assert_eq!(solo.status().commit, expected, "{told:?}");
    }
}

// §5.5

#[test]
fn a_request_repeated_after_a_crash_changes_nothing() {
    let mut solo = Solo::follower(3, &[1], 1);
    solo.append(1, (1, 1), 0, &[1, 1]);
    solo.persist();
    let out = solo.append(1, (1, 1), 0, &[1, 1]);
    assert_eq!((out.write.is_none(), solo.terms().len()), (true, 3));
    assert_eq!(verdict_in(&out), Some(AppendVerdict::Matched { index: 3 }));
}

// §8

#[test]
fn a_leader_begins_its_term_with_a_no_op() {
    let solo = Solo::leader(3, &[1, 1], 4);
    let last = solo.core.entries(3, 3, 0);
    assert_eq!((last[0].term, &last[0].body), (5, &Body::Noop));
}
