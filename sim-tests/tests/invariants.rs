//! Every invariant that is judged on what servers tell can fail: the shortest story that breaks it,
//! told by nobody, is refused at its last event and not before.
#![cfg(madsim)]

use sim_tests::sim::{invariants, ledger, ownership, trace};
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::Site;
use world::observe;

const FOLLOWER: u64 = 0;
const LEADER: u64 = 3;

/// What one server tells: group, node, kind, numbers.
type Told = (u64, u64, &'static str, Vec<(&'static str, u64)>);

fn told(node: u64, kind: &'static str, fields: &[(&'static str, u64)]) -> Told {
    (1, node, kind, fields.to_vec())
}

/// A start that finds an empty log, or what was synced before.
fn start(node: u64, boot: u64, (term, vote): (u64, u64), damaged: bool) -> [Told; 2] {
    let fields = [
        ("boot", boot),
        ("members", 3),
        ("damaged", damaged.into()),
        ("lost", 0),
        ("abstains", 0),
        ("term", term),
        ("vote", vote),
        ("base", 0),
        ("base_term", 0),
    ];
    [told(node, "start", &fields), told(node, "started", &[])]
}

fn write(node: u64, number: u64, term: u64, vote: u64) -> Told {
    told(
        node,
        "write",
        &[("number", number), ("term", term), ("vote", vote)],
    )
}

fn append(node: u64, term: u64, first: u64, last: u64, sum: u64) -> Told {
    let fields = [
        ("term", term),
        ("first", first),
        ("last", last),
        ("sum", sum),
    ];
    told(node, "append", &fields)
}

fn sync(node: u64, write: u64) -> Told {
    told(node, "sync", &[("write", write)])
}

fn role(node: u64, role: u64, term: u64, commit: u64) -> Told {
    told(
        node,
        "role",
        &[("role", role), ("term", term), ("commit", commit)],
    )
}

/// It comes to lead: it and the next vote for it, and have it on disk.
fn elected(node: u64, term: u64, commit: u64) -> Vec<Told> {
    let mut story = Vec::new();
    for voter in [node, node % 3 + 1] {
        let number = 50 + term;
        let vote = told(voter, "vote", &[("to", node), ("term", term)]);
        story.extend([write(voter, number, term, node), sync(voter, number), vote]);
    }
    story.push(role(node, LEADER, term, commit));
    story
}

fn commit(node: u64, index: u64, term: u64, commit: u64) -> Told {
    let fields = [("index", index), ("term", term), ("commit", commit)];
    told(node, "commit", &fields)
}

fn apply(node: u64, index: u64, digest: u64, time: u64) -> Told {
    let fields = [
        ("index", index),
        ("digest", digest),
        ("time", time),
        ("durable", 0),
    ];
    told(node, "apply", &fields)
}

fn ack(node: u64, to: u64, term: u64, index: u64) -> Told {
    told(node, "ack", &[("to", to), ("term", term), ("index", index)])
}

/// Three members start; then each has one entry of term 1 on its disk, as far as told.
fn group(with_entry: &[u64]) -> Vec<Told> {
    let mut story: Vec<Told> = (1..=3).flat_map(|n| start(n, 1, (0, 0), false)).collect();
    for node in with_entry {
        story.extend([
            write(*node, 1, 1, 1),
            append(*node, 1, 1, 1, 7),
            sync(*node, 1),
        ]);
    }
    story
}

fn open(group: u64, session: u64, index: u64) -> Told {
    let fields = [("shard", 0), ("session", session), ("index", index)];
    (group, 1, "open", fields.into())
}

fn serve(group: u64, index: u64, session: u64, seq: u64, incarnation: u64) -> Told {
    let fields = [
        ("shard", 0),
        ("index", index),
        ("session", session),
        ("seq", seq),
        ("incarnation", incarnation),
    ];
    (group, 1, "serve", fields.into())
}

fn owner(group: u64, index: u64, accepts: bool, incarnation: u64) -> Told {
    let fields = [
        ("shard", 0),
        ("index", index),
        ("accepts", accepts.into()),
        ("incarnation", incarnation),
    ];
    (group, 1, "ownership", fields.into())
}

fn enter(config: u64, index: u64) -> Told {
    told(1, "enter", &[("config", config), ("index", index)])
}

/// Tells a story; where it was refused, and how.
fn refused(strict: bool, story: &[Told]) -> Option<(usize, String)> {
    trace::start();
    invariants::install();
    ownership::install();
    if strict {
        ledger::strict();
    }
    for (at, (group, node, kind, fields)) in story.iter().enumerate() {
        if *kind == "damage 2" {
            ledger::damaged(1, 2);
            continue;
        }
        let site = Site {
            group: *group,
            node: *node,
        };
        let tell = AssertUnwindSafe(|| observe(site, kind, fields));
        if let Err(panic) = catch_unwind(tell) {
            let words = panic.downcast_ref::<String>().cloned();
            return Some((at, words.expect("a formatted message")));
        }
    }
    None
}

/// The story breaks `invariant` with its last event.
#[track_caller]
fn breaks(invariant: &str, story: Vec<Told>) {
    breaks_when(false, invariant, story);
}

#[track_caller]
fn breaks_when(strict: bool, invariant: &str, story: Vec<Told>) {
    let Some((at, why)) = refused(strict, &story) else {
        panic!("{invariant} holds in a story that breaks it");
    };
    assert!(why.starts_with(&format!("{invariant}: ")), "{why}");
    assert_eq!(at, story.len() - 1, "too early: {why}");
}

/// The same, with the disk of member 2 damaged between the two halves.
#[track_caller]
fn breaks_after_damage(invariant: &str, before: Vec<Told>, after: Vec<Told>) {
    let damaged = (0, 0, "damage 2", Vec::new());
    breaks_when(true, invariant, with(with(before, [damaged]), after));
}

fn with(mut story: Vec<Told>, end: impl IntoIterator<Item = Told>) -> Vec<Told> {
    story.extend(end);
    story
}

#[test]
fn a_story_without_fault_is_believed() {
    let story = with(
        with(group(&[1, 2]), elected(1, 1, 0)),
        [
            ack(2, 1, 1, 1),
            told(1, "match", &[("follower", 2), ("index", 1)]),
            commit(1, 1, 1, 1),
            apply(1, 1, 5, 5),
            apply(2, 1, 5, 5),
            enter(1, 1),
            owner(1, 1, true, 1),
            open(1, 1, 2),
            serve(1, 3, 1, 1, 1),
            serve(1, 4, 1, 2, 1),
        ],
    );
    assert_eq!(refused(true, &story), None);
}

#[test]
fn i1_one_leader_in_a_term() {
    let led = || with(group(&[]), elected(1, 1, 0));
    breaks("I1", with(led(), [role(2, LEADER, 1, 0)]));
    // Nor without the votes of a quorum, in this very term.
    breaks("I1", with(group(&[]), [role(1, LEADER, 1, 0)]));
    breaks("I1", with(led(), [role(1, LEADER, 2, 0)]));
}

/// The answer to the first request may be lost.
#[test]
fn i1_a_vote_is_given_again() {
    let asked = |terms: &[u64]| {
        let stand = |term: &u64| told(1, "stand", &[("to", 2), ("term", *term)]);
        let on_disk = [write(1, 1, 2, 1), sync(1, 1), write(2, 1, 2, 1), sync(2, 1)];
        let vote = told(2, "vote", &[("to", 1), ("term", 2)]);
        let deny = told(2, "deny", &[("to", 1), ("term", 2)]);
        let stands = with(with(group(&[]), on_disk), terms.iter().map(stand));
        with(stands, [vote, deny])
    };
    breaks("I1", asked(&[2]));
    let led = elected(1, 2, 0);
    let late = told(2, "deny", &[("to", 1), ("term", 2)]);
    assert_eq!(refused(false, &with(with(group(&[]), led), [late])), None);
}

#[test]
fn i2_logs_match() {
    // The same entry at 2, and others before it.
    breaks(
        "I2",
        with(
            group(&[1]),
            [
                write(1, 2, 2, 0),
                append(1, 2, 2, 2, 8),
                write(2, 1, 2, 0),
                append(2, 2, 1, 2, 8),
            ],
        ),
    );
    // The same index and term, and another entry.
    breaks(
        "I2",
        with(group(&[1]), [write(2, 1, 1, 1), append(2, 1, 1, 1, 9)]),
    );
    // An acknowledged entry that the leader does not have.
    breaks(
        "I2",
        with(
            group(&[2]),
            [
                write(2, 2, 2, 1),
                sync(2, 2),
                write(1, 1, 2, 1),
                append(1, 2, 1, 1, 9),
            ]
            .into_iter()
            .chain(elected(1, 2, 0))
            .chain([ack(2, 1, 2, 1)]),
        ),
    );
    // A hole.
    breaks(
        "I2",
        with(group(&[1]), [write(1, 2, 1, 1), append(1, 1, 3, 3, 9)]),
    );
}

#[test]
fn i3_a_leader_holds_what_was_committed() {
    let led = with(group(&[1, 2]), elected(1, 1, 0));
    let committed = with(led, [commit(1, 1, 1, 1)]);
    breaks("I3", with(committed.clone(), elected(3, 2, 0)));
    // And nobody calls another entry committed.
    breaks(
        "I3",
        with(
            committed,
            [
                write(3, 1, 2, 0),
                append(3, 2, 1, 1, 9),
                sync(3, 1),
                commit(3, 1, 2, 1),
            ],
        ),
    );
}

/// A follower that has applied an entry has it in common with every later leader.
#[test]
fn i3_a_follower_refuses_nothing_that_it_has_applied() {
    let applied = || with(group(&[1, 2]), [apply(2, 1, 5, 5)]);
    let refuse = |previous, hint| told(2, "refuse", &[("previous", previous), ("hint", hint)]);
    assert_eq!(refused(false, &with(applied(), [refuse(5, 1)])), None);
    breaks("I3", with(applied(), [refuse(1, 0)]));
    breaks("I3", with(applied(), [refuse(5, 0)]));
}

#[test]
fn i4_the_same_entry_makes_the_same_state() {
    for (digest, time) in [(6, 5), (5, 6)] {
        breaks(
            "I4",
            with(
                group(&[1, 2]),
                [apply(1, 1, 5, 5), apply(2, 1, digest, time)],
            ),
        );
    }
}

#[test]
fn i5_committed_is_synced_by_a_quorum() {
    let led = |with_entry: &[u64], term| with(group(with_entry), elected(1, term, 0));
    breaks("I5", with(led(&[1], 1), [commit(1, 1, 1, 1)]));
    // Figure 8: an entry of an earlier term, by counting.
    breaks("I5", with(led(&[1, 2], 2), [commit(1, 1, 1, 1)]));
    // A follower is believed to hold what is not on its disk.
    let believed = told(1, "match", &[("follower", 2), ("index", 1)]);
    breaks("I5", with(led(&[1], 1), [believed]));
}

/// An acknowledgement is on its way while the entry is replaced by one of a later term: only a leader
/// of an earlier term may believe it still. Found by the campaign (seed 1001340, five members).
#[test]
fn i5_a_late_acknowledgement_is_believed_by_an_older_leader_only() {
    let replaced = |vote| [write(2, 90, 2, vote), append(2, 2, 1, 1, 8), sync(2, 90)];
    let believed = told(1, "match", &[("follower", 2), ("index", 1)]);
    let led = |term| with(group(&[1, 2]), elected(1, term, 0));
    let late = with(with(led(1), replaced(0)), [believed.clone()]);
    assert_eq!(refused(false, &late), None);
    breaks("I5", with(with(led(2), replaced(1)), [believed]));
}

#[test]
fn i6_nothing_goes_back() {
    breaks(
        "I6",
        with(
            group(&[]),
            [role(1, FOLLOWER, 2, 0), role(1, FOLLOWER, 1, 0)],
        ),
    );
    // The vote of a term.
    breaks("I6", with(group(&[1]), [write(1, 2, 1, 2)]));
    breaks(
        "I6",
        with(group(&[1, 2]), [commit(1, 1, 1, 1), commit(1, 1, 1, 0)]),
    );
    breaks(
        "I6",
        with(group(&[1, 2]), [apply(1, 2, 5, 5), apply(1, 1, 5, 5)]),
    );
    // What is said of terms.
    let say = |term| told(1, "say", &[("to", 2), ("term", term)]);
    let later = [write(1, 2, 2, 0), sync(1, 2), say(2), say(1)];
    breaks("I6", with(group(&[1]), later));
    // Over a restart, a vote that was on disk.
    let forgotten = [start(1, 2, (1, 2), false)].into_iter().flatten();
    breaks("I6", with(group(&[1]), forgotten));
    // Damage where nobody did any, when the harness says what it damages.
    let [claims, _] = start(1, 2, (1, 1), true);
    breaks_when(true, "I6", with(group(&[1]), [claims]));
}

#[test]
fn i7_what_was_synced_is_there() {
    let empty = [start(1, 2, (1, 1), false)].into_iter().flatten();
    breaks("I7", with(group(&[1]), empty));
    // The log is not cut before the state is durable.
    let durable = told(1, "durable", &[("index", 1)]);
    let cut = told(1, "compact", &[("index", 2)]);
    breaks("I7", with(group(&[1]), [durable, cut]));
}

#[test]
fn i8_a_read_sees_what_was_committed_before_it() {
    let ask = told(2, "ask", &[("read", 1)]);
    let index = |index| told(2, "read-index", &[("read", 1), ("index", index)]);
    breaks(
        "I8",
        with(group(&[1, 2]), [commit(1, 1, 1, 1), ask, index(0)]),
    );
    let answer = told(2, "answer", &[("index", 2), ("applied", 1)]);
    breaks("I8", with(group(&[]), [answer]));
}

#[test]
fn i9_once_and_in_order() {
    let opened = || vec![enter(1, 1), owner(1, 1, true, 1), open(1, 1, 2)];
    breaks("I9", with(opened(), [open(1, 1, 3)]));
    breaks("I9", with(opened(), [serve(1, 3, 1, 2, 1)]));
    let written = || with(opened(), [serve(1, 3, 1, 1, 1)]);
    breaks("I9", with(written(), [serve(1, 4, 1, 1, 1)]));
}

#[test]
fn i10_never_in_a_session_that_is_gone() {
    let served = vec![enter(1, 1), owner(1, 1, true, 1)];
    breaks("I10", with(served.clone(), [serve(1, 3, 1, 1, 1)]));
    let fields = [("shard", 0), ("session", 1), ("index", 3)];
    let expired = told(1, "expired", &fields);
    breaks(
        "I10",
        with(served, [open(1, 1, 2), expired, serve(1, 4, 1, 1, 1)]),
    );
}

#[test]
fn i11_one_owner() {
    breaks("I11", vec![owner(1, 1, true, 1), owner(2, 1, true, 2)]);
    let opened = || vec![owner(1, 1, true, 1), open(1, 1, 2)];
    breaks("I11", with(opened(), [serve(2, 3, 1, 1, 1)]));
    let given = [owner(1, 3, false, 1), serve(1, 4, 1, 1, 1)];
    breaks("I11", with(opened(), given));
}

#[test]
fn i13_what_was_given_away_is_not_seen_again() {
    let given = vec![
        owner(1, 1, true, 1),
        owner(1, 2, false, 1),
        owner(2, 1, true, 2),
        owner(2, 2, false, 2),
    ];
    breaks("I13", with(given, [owner(1, 3, true, 1)]));
    let other_copy = [owner(1, 1, true, 2), open(1, 1, 2), serve(1, 3, 1, 1, 1)];
    breaks("I13", other_copy.into());
}

#[test]
fn i15_no_configuration_is_skipped() {
    breaks("I15", vec![enter(1, 1), enter(3, 2)]);
    // Nor entered at two places.
    breaks("I15", vec![enter(1, 1), enter(1, 2)]);
}

#[test]
fn i16_no_promise_before_its_sync() {
    let unsynced = || with(group(&[]), [write(1, 1, 1, 2), append(1, 1, 1, 1, 7)]);
    let vote = told(1, "vote", &[("to", 2), ("term", 1)]);
    breaks("I16", with(unsynced(), [vote]));
    let stand = told(1, "stand", &[("to", 2), ("term", 1)]);
    breaks("I16", with(unsynced(), [stand]));
    breaks("I16", with(unsynced(), [ack(1, 2, 1, 1)]));
    let say = told(1, "say", &[("to", 2), ("term", 1)]);
    breaks("I16", with(unsynced(), [say]));
    // Nor is anything applied.
    breaks("I16", with(unsynced(), [commit(1, 1, 1, 1)]));
    // Only the log is missing.
    let voted = with(group(&[]), [write(1, 1, 1, 2), sync(1, 1)]);
    breaks("I16", with(voted, [ack(1, 2, 1, 1)]));
}

#[test]
fn i19_nobody_votes_with_a_hole() {
    // The harness damaged its disk, and it does not notice what it lost.
    let empty = || start(2, 2, (1, 1), false).into_iter();
    breaks_after_damage("I19", group(&[1, 2]), empty().collect());
    // It notices, and votes all the same.
    let led = with(group(&[1, 2]), elected(1, 1, 0));
    let committed = with(led, [ack(2, 1, 1, 1), commit(1, 1, 1, 1)]);
    let damaged = start(2, 2, (1, 1), true).into_iter();
    let vote = told(2, "vote", &[("to", 3), ("term", 2)]);
    let votes = [write(2, 90, 2, 3), sync(2, 90), vote];
    breaks_after_damage("I19", committed, damaged.chain(votes).collect());
}

#[test]
fn i20_sizes_are_bounded() {
    breaks(
        "I20",
        vec![told(1, "sizes", &[("mail", 11), ("limit", 10)])],
    );
}
