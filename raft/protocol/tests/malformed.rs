//! A member that says what no working member can: nothing it sends overflows, ends or misleads a
//! core. (That a liar among the members can lie is not defended against: Raft trusts its members.)

mod support;

use raft_protocol::*;
use support::solo::*;

const BAD: [u64; 3] = [MAX_NUMBER + 1, u64::MAX - 1, u64::MAX];

/// Every kind of message; the numbers that are terms or indices are taken from `n`, one by one.
fn kinds(mut n: impl FnMut() -> u64) -> Vec<Message> {
    let mut one = |kind: usize| match kind {
        0 => Message::PreVote {
            term: n(),
            last_index: n(),
            last_term: n(),
        },
        1 => Message::PreVoteReply {
            term: n(),
            granted: false,
        },
        2 => Message::PreVoteReply {
            term: n(),
            granted: true,
        },
        3 => Message::Vote {
            term: n(),
            last_index: n(),
            last_term: n(),
            transfer: true,
        },
        4 => Message::VoteReply {
            term: n(),
            granted: true,
        },
        5 => Message::Append {
            term: n(),
            prev_index: n(),
            prev_term: n(),
            commit: n(),
            entries: Vec::new(),
        },
        6 => Message::AppendReply {
            term: n(),
            verdict: AppendVerdict::Matched { index: n() },
        },
        7 => Message::AppendReply {
            term: n(),
            verdict: AppendVerdict::Conflict {
                prev_index: n(),
                hint_index: n(),
                hint_term: n(),
            },
        },
        8 => Message::Heartbeat {
            term: n(),
            round: 1,
            prev_index: n(),
            prev_term: n(),
            commit: n(),
        },
        9 => Message::HeartbeatReply {
            term: n(),
            round: 1,
            verdict: HeartbeatVerdict::Matched {
                received: n(),
                synced: n(),
            },
        },
        10 => Message::HeartbeatReply {
            term: n(),
            round: 1,
            verdict: HeartbeatVerdict::Lost {
                hint_index: n(),
                hint_term: n(),
            },
        },
        11 => Message::ReadIndex {
            term: n(),
            life: 1,
            id: 1,
        },
        12 => Message::ReadIndexReply {
            term: n(),
            life: 1,
            id: 1,
            index: Some(n()),
        },
        _ => Message::AppendReply {
            term: n(),
            verdict: AppendVerdict::NeedSnapshot,
        },
    };
    (0..14).map(&mut one).collect()
}

/// A follower, a leader and a node that asks for votes, all with the log 1, 1, 2.
fn roles() -> Vec<Solo> {
    let mut stands = Solo::new(3, &[1, 1, 2], 2);
    stands.campaign();
    let mut lost = start(3, &[1, 1, 2], 2);
    lost.state_lost = true;
    vec![
        Solo::follower(3, &[1, 1, 2], 2),
        Solo::leader(3, &[1, 1, 2], 2),
        stands,
        Solo::from(lost),
    ]
}

/// Time passes and the disk works: what was taken in is counted on from.
fn go_on(solo: &mut Solo) {
    for _ in 0..60 {
        solo.step(Input::Tick);
        solo.persist();
        solo.step(Input::Propose(vec![Payload::from("x")]));
    }
    solo.core.check_invariants().expect("invariants");
}

#[test]
fn a_number_out_of_range_is_ignored_wherever_it_stands() {
    // Which of the numbers of all kinds together is the bad one.
    let mut numbers = 0;
    kinds(|| {
        numbers += 1;
        0
    });
    for (at, bad) in (0..numbers).flat_map(|at| BAD.map(|bad| (at, bad))) {
        for mut solo in roles() {
            let mut count = 0;
            let messages = kinds(|| {
                count += 1;
                if count == at + 1 { bad } else { 2 }
            });
            let is_bad = |m: &&Message| format!("{m:?}").contains(&bad.to_string());
            let message = messages.iter().find(is_bad).expect("one holds it").clone();
            let before = solo.status();
            let out = solo.receive(2, message.clone());
            assert!(out.malformed.is_some(), "{message:?} is said to be bad");
            assert_eq!(solo.status(), before, "{message:?} changes nothing");
            assert!(out.messages.is_empty() && out.write.is_none());
            go_on(&mut solo);
        }
    }
}

#[test]
fn the_highest_number_in_range_overflows_nothing() {
    for at in 0..14 {
        for mut solo in roles() {
            let message = kinds(|| MAX_NUMBER)[at].clone();
            assert_eq!(solo.receive(2, message).malformed, None);
            go_on(&mut solo);
        }
    }
}

#[test]
fn entries_out_of_range_are_ignored() {
    let mut solo = Solo::follower(3, &[1, 1, 2], 2);
    for (term, index) in [(2, u64::MAX), (u64::MAX, 4), (2, 5), (1, 4), (3, 4)] {
        let out = solo.receive(
            2,
            Message::Append {
                term: 2,
                prev_index: 3,
                prev_term: 2,
                commit: 0,
                entries: vec![support::entry(term, index)],
            },
        );
        assert!(out.malformed.is_some(), "({index}, t{term})");
        assert_eq!(solo.terms(), [1, 1, 2]);
    }
}

#[test]
fn a_snapshot_out_of_range_is_refused() {
    for (term, index, of) in [
        (u64::MAX, 9, 2),
        (2, u64::MAX, 2),
        (2, MAX_NUMBER + 1, 2),
        (2, 9, u64::MAX),
        (2, 9, 3),
    ] {
        let mut solo = Solo::follower(3, &[1, 1, 2], 2);
        let meta = SnapshotMeta {
            index,
            term: of,
            configuration: support::configuration(3),
        };
        let offer = Input::SnapshotOffered {
            from: 2,
            term,
            meta,
        };
        let out = solo.step(offer);
        assert_eq!(out.snapshot_accepted, Some(false), "({index}, t{of})");
        assert!(out.malformed.is_some());
        assert_eq!(solo.status().term, 2);
        go_on(&mut solo);
    }
}

#[test]
fn a_snapshot_that_contradicts_what_is_committed_is_dropped() {
    let mut solo = Solo::follower(3, &[1, 1, 2], 2);
    let meta = SnapshotMeta {
        index: 4,
        term: 1,
        configuration: support::configuration(3),
    };
    let offer = Input::SnapshotOffered {
        from: 2,
        term: 2,
        meta: meta.clone(),
    };
    assert_eq!(solo.step(offer).snapshot_accepted, Some(true));
    // While it is on its way 4 and 5 are committed, and not yet synced here.
    solo.append(2, (3, 2), 5, &[2, 2]);
    assert_eq!(solo.status().commit, 5);
    assert_eq!(solo.step(Input::SnapshotReady(meta)).write, None);
    assert_eq!(solo.terms(), [1, 1, 2, 2, 2]);
    go_on(&mut solo);
}

/// Messages of numbers drawn from those that are near something, for hours, into one core after
/// another. What the core asserts after every step holds.
#[test]
fn no_babble_breaks_an_invariant() {
    for seed in 0..4000 {
        let mut state = 0x9e37_79b9_7f4a_7c15u64 ^ (seed + 1);
        let mut draw = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let mut solo = roles().swap_remove(draw(4) as usize);
        let mut arriving = Vec::new();
        for _ in 0..150 {
            let status = solo.status();
            let near = [
                status.term,
                status.last_index,
                status.commit,
                status.base_index,
                2,
                if draw(20) == 0 { MAX_NUMBER } else { 3 },
                BAD[draw(3) as usize],
            ];
            let mut number = || {
                let choices = if draw(8) == 0 { 7 } else { 6 };
                let near = near[draw(choices) as usize];
                match draw(3) {
                    0 => near,
                    1 => near.saturating_add(1),
                    _ => near.saturating_sub(1),
                }
            };
            let mut messages = kinds(&mut number);
            let (index, term) = (number(), number());
            let count = number() % 4;
            if let Message::Append {
                prev_index,
                prev_term,
                entries,
                ..
            } = &mut messages[5]
            {
                for i in 1..=count {
                    let term = prev_term.saturating_add(draw(2));
                    entries.push(support::entry(term, prev_index.saturating_add(i)));
                }
            }
            let from = 2 + draw(2);
            let meta = SnapshotMeta {
                index,
                term,
                configuration: support::configuration(3),
            };
            match draw(10) {
                0 => (0..draw(25)).for_each(|_| drop(solo.step(Input::Tick))),
                1 => drop(solo.persist()),
                2 => drop(solo.step(Input::Compact(index))),
                7 => drop(solo.step(Input::Evict(index))),
                8 => {
                    let entries =
                        (0..draw(3)).map(|i| support::entry(term, index.saturating_add(i)));
                    let entries = entries.collect();
                    drop(solo.step(Input::Fetched { to: from, entries }));
                }
                3 => {
                    let offer = Input::SnapshotOffered {
                        from,
                        term: status.term.saturating_add(draw(2)),
                        meta: meta.clone(),
                    };
                    if solo.step(offer).snapshot_accepted == Some(true) {
                        arriving.push(meta);
                    }
                }
                4 => drop(solo.step(Input::SnapshotSent {
                    to: from,
                    installed: Some(index),
                })),
                5 => drop(solo.step(Input::Propose(vec![Payload::from("x")]))),
                6 => drop(
                    arriving
                        .pop()
                        .map(|meta| solo.step(Input::SnapshotReady(meta))),
                ),
                _ => {
                    let at = draw(14) as usize;
                    solo.receive(from, messages.swap_remove(at));
                }
            }
            solo.core.check_invariants().expect("invariants");
        }
    }
}
