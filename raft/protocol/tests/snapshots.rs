//! Snapshots and compaction (§7), and membership as a value in log and snapshot (§6).

mod support;

use raft_protocol::*;
use support::solo::*;

fn meta(index: Index, term: Term) -> SnapshotMeta {
    SnapshotMeta {
        index,
        term,
        configuration: support::configuration(3),
    }
}

#[test]
fn a_snapshot_keeps_a_suffix_that_matches_and_drops_one_that_does_not() {
    for (term, kept) in [(1, 2), (2, 0)] {
        let mut solo = Solo::follower(3, &[1, 1, 1, 1], 2);
        let out = solo.step(Input::SnapshotReady(meta(2, term)));
        let write = out.write.expect("a reset is written");
        assert_eq!(
            (write.reset, write.entries.len()),
            (Some(meta(2, term)), kept)
        );
        assert_eq!((solo.status().base_index, solo.status().commit), (2, 2));
        let entries = solo.terms().len();
        assert_eq!(entries, kept);
        // All of it is durable with that write and not before.
        assert!(solo.append(2, (2, term), 2, &[]).messages.is_empty());
        assert_eq!(
            verdict_in(&solo.persist()),
            Some(AppendVerdict::Matched { index: 2 })
        );
        assert_eq!(solo.status().synced_index, 2 + kept as u64);
    }
}

#[test]
fn a_snapshot_that_is_not_ahead_is_neither_accepted_nor_installed() {
    let mut solo = Solo::follower(3, &[1, 1, 1], 1);
    solo.append(1, (3, 1), 3, &[]);
    for (term, index, wanted) in [(1, 3, false), (1, 4, true), (0, 9, false)] {
        let offer = Input::SnapshotOffered {
            from: 2,
            term,
            meta: meta(index, 1),
        };
        assert_eq!(
            solo.step(offer).snapshot_accepted,
            Some(wanted),
            "{index} in {term}"
        );
    }
    assert_eq!(solo.step(Input::SnapshotReady(meta(3, 1))).write, None);
}

#[test]
fn an_offer_of_a_later_term_is_heard_and_written() {
    let mut solo = Solo::leader(3, &[1], 1);
    let out = solo.step(Input::SnapshotOffered {
        from: 3,
        term: 5,
        meta: meta(9, 4),
    });
    assert_eq!(out.snapshot_accepted, Some(true));
    assert_eq!(out.write.map(|w| w.hard_state.term), Some(5));
    assert_eq!(
        (solo.status().role, solo.status().leader),
        (Role::Follower, Some(3))
    );
}

#[test]
fn a_node_that_lost_its_state_asks_for_a_snapshot_and_takes_one_at_its_base() {
    let mut lost = start(3, &[], 3);
    lost.base = meta(4, 2);
    lost.applied = 4;
    lost.entries = vec![support::entry(2, 5), support::entry(3, 6)];
    lost.state_lost = true;
    let mut solo = Solo::from(lost);
    assert_eq!(
        verdict_in(&solo.append(3, (6, 3), 6, &[])),
        Some(AppendVerdict::NeedSnapshot)
    );
    let offer = |index| Input::SnapshotOffered {
        from: 2,
        term: 3,
        meta: meta(index, 2),
    };
    assert_eq!(
        solo.step(offer(3)).snapshot_accepted,
        Some(false),
        "acknowledged entries would go"
    );
    assert_eq!(solo.step(offer(4)).snapshot_accepted, Some(true));
    let write = solo
        .step(Input::SnapshotReady(meta(4, 2)))
        .write
        .expect("a reset");
    assert_eq!(write.entries.len(), 2);
    solo.persist();
    assert_eq!(
        verdict_in(&solo.append(3, (6, 3), 6, &[])),
        Some(AppendVerdict::Matched { index: 6 })
    );
}

#[test]
fn a_follower_behind_the_base_is_named_once() {
    let mut solo = Solo::leader(3, &[], 0);
    solo.step(Input::Propose((0..4).map(|n| Payload::from([n])).collect()));
    solo.persist();
    solo.acknowledge(2, 1, 1);
    solo.acknowledge(2, 1, 5);
    solo.step(Input::Compact(4));
    let verdict = AppendVerdict::Conflict {
        prev_index: 0,
        hint_index: 0,
        hint_term: 0,
    };
    let out = solo.receive(3, Message::AppendReply { term: 1, verdict });
    assert_eq!(out.snapshots, [3]);
    let mut again = Vec::new();
    for round in 1..4 {
        (0..3).for_each(|_| drop(solo.step(Input::Tick)));
        again.extend(solo.answer(3, 1, round).snapshots);
    }
    assert!(again.is_empty(), "while a transfer is under way");
    let out = solo.step(Input::SnapshotSent {
        to: 3,
        installed: Some(5),
    });
    let Message::Append { prev_index: 5, .. } = out.messages[0].message else {
        panic!("{out:?}");
    };
    assert_eq!(
        solo.status().matched[1],
        (3, 0),
        "the follower's own word counts"
    );
}

#[test]
fn compaction_stops_at_what_is_applied() {
    let mut solo = Solo::follower(3, &[1, 1, 1], 1);
    solo.append(1, (3, 1), 2, &[]);
    solo.step(Input::Compact(3));
    assert_eq!(solo.core.base().index, 0);
    solo.step(Input::Compact(2));
    assert_eq!(
        (solo.core.base().index, solo.core.base().term, solo.terms()),
        (2, 1, vec![1])
    );
    assert!(solo.core.entries(2, 3, 1000).is_empty());
}

// Membership is a value in the log (§6).

#[test]
fn the_newest_membership_in_the_log_is_in_force_until_it_is_overwritten() {
    let five = Entry {
        term: 1,
        index: 2,
        body: Body::Configuration(support::configuration(5)),
    };
    let mut solo = Solo::new(3, &[1], 1);
    let message = Message::Append {
        term: 1,
        prev_index: 1,
        prev_term: 1,
        commit: 0,
        entries: vec![five],
    };
    solo.receive(2, message);
    assert_eq!(solo.campaign().messages.len(), 4);
    solo.append(2, (1, 1), 0, &[2]);
    assert_eq!(
        solo.campaign()
            .messages
            .iter()
            .filter(|e| matches!(e.message, Message::PreVote { .. }))
            .count(),
        2
    );
}

#[test]
fn a_joint_membership_needs_both_majorities_and_learners_do_not_count() {
    let mut start = start(3, &[], 0);
    let disk = |n: NodeId| (n, u128::from(n));
    start.base.configuration = Configuration {
        voters: [1, 2, 3].map(disk).into(),
        outgoing: [4, 5, 6].map(disk).into(),
        learners: [7, 8].map(disk).into(),
    };
    let mut solo = Solo::from(start);
    assert_eq!(solo.campaign().messages.len(), 5);
    for from in [2, 3, 4, 7, 8] {
        solo.receive(
            from,
            Message::PreVoteReply {
                term: 1,
                granted: true,
            },
        );
        assert_eq!(solo.status().role, Role::PreCandidate, "{from}");
    }
    solo.receive(
        5,
        Message::PreVoteReply {
            term: 1,
            granted: true,
        },
    );
    assert_eq!(solo.status().role, Role::Candidate);
    solo.persist();
    let out: Vec<Output> = [2, 4, 5]
        .map(|n| {
            solo.receive(
                n,
                Message::VoteReply {
                    term: 1,
                    granted: true,
                },
            )
        })
        .into();
    assert_eq!(
        appends_in(&out[2]),
        [2, 3, 4, 5, 6, 7, 8],
        "learners receive entries"
    );
}

#[test]
fn a_candidate_whose_log_is_replaced_stands_no_more() {
    // It was about to tell the others of entries that it does not have any longer.
    let mut solo = Solo::new(3, &[1, 1, 1, 1], 2);
    solo.campaign();
    solo.receive(
        2,
        Message::PreVoteReply {
            term: 3,
            granted: true,
        },
    );
    solo.step(Input::SnapshotReady(meta(2, 2)));
    assert_eq!(solo.status().role, Role::Follower);
    assert!(solo.persist().messages.is_empty());
    solo.receive(
        2,
        Message::VoteReply {
            term: 3,
            granted: true,
        },
    );
    assert_eq!(solo.status().role, Role::Follower);
}

#[test]
fn nothing_behind_a_snapshot_is_applied_before_the_switch_is_durable() {
    let mut solo = Solo::follower(3, &[1, 1, 1, 1], 2);
    solo.step(Input::SnapshotReady(meta(2, 1)));
    let out = solo.append(2, (4, 1), 4, &[]);
    assert_eq!((solo.status().commit, out.apply_through), (4, None));
    assert_eq!(solo.persist().apply_through, Some(4));
}

/// What was read for one place is of no use at another: the follower lost entries meanwhile, and the
/// leader asks anew from where it is now.
#[test]
fn what_was_read_for_another_place_is_not_sent() {
    let mut solo = Solo::leader(3, &[], 0);
    solo.step(Input::Propose((0..9).map(|n| Payload::from([n])).collect()));
    solo.persist();
    solo.acknowledge(2, 1, 1);
    solo.acknowledge(2, 1, 10);
    solo.acknowledge(3, 1, 5);
    let read = |solo: &Solo, after: Index| {
        let entries = solo.core.entries(after + 1, 9, usize::MAX);
        entries.to_vec()
    };
    let (behind_3, behind_5) = (read(&solo, 3), read(&solo, 5));
    solo.step(Input::Evict(10));
    assert_eq!(solo.status().evicted_index, 10);
    let lost = |hint_index| Message::HeartbeatReply {
        term: 1,
        round: 0,
        verdict: HeartbeatVerdict::Lost {
            hint_index,
            hint_term: 1,
        },
    };
    let asked = |out: &Output| {
        out.fetches
            .iter()
            .map(|f| (f.to, f.after))
            .collect::<Vec<_>>()
    };
    assert_eq!(asked(&solo.receive(3, lost(5))), [(3, 5)]);
    // Nothing more is asked for while that is read, and then for what it needs now.
    assert_eq!(asked(&solo.receive(3, lost(3))), []);
    let fetched = |entries| Input::Fetched { to: 3, entries };
    let out = solo.step(fetched(behind_5.clone()));
    assert_eq!((appends_in(&out), asked(&out)), (vec![], vec![(3, 3)]));
    let out = solo.step(fetched(behind_3));
    let Message::Append {
        prev_index: 3,
        prev_term: 1,
        entries,
        ..
    } = &out.messages[0].message
    else {
        panic!("{out:?}");
    };
    assert_eq!(entries[0].index, 4);
    // An answer that nobody waits for, and one that is not of this log.
    let out = solo.step(fetched(behind_5));
    assert_eq!(
        out,
        Output {
            reasons: out.reasons.clone(),
            ..Output::default()
        }
    );
    assert_eq!(asked(&solo.receive(3, lost(2))), [(3, 2)]);
    let out = solo.step(fetched(vec![support::entry(9, 3)]));
    assert_eq!((appends_in(&out), asked(&out)), (vec![], vec![(3, 2)]));
    let out = solo.step(fetched(vec![]));
    assert_eq!((out.snapshots, out.fetches), (vec![3], vec![]));
}
