//! Bugs of this very tree that the campaign found.

use super::{Mutant, edit};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "X21",
        star: true,
        what: "a log that is full of what the state holds is not cut at the start: it takes nothing in for ever",
        seen: "found by a sweep: power failed between a flush and the cut behind it",
        edits: &[edit(
            "raft/src/replica/apply.rs",
            "        self.durable();
        loop {",
            "        loop {",
        )],
        tests: &["sim-tests/raft_scenarios::compaction::a_log_that_starts_full"],
    },
    Mutant {
        id: "X22",
        star: false,
        what: "a link judges the disk at its other end, and not that disk's start: an older image is asked for its vote",
        seen: "found by the campaign, in a group of five",
        edits: &[edit(
            "raft/src/replica/meet.rs",
            "    let judged = own
        .clone()
        .meet(node, peer.disk, peer.boot, peer.nonce, &peer.before);",
            "    let judged = match own.met.get(&node) {
        Some(disk) if *disk != peer.disk => Meeting::Refused(emptied(node, *disk, peer.disk)),
        _ => Meeting::Known,
    };",
        )],
        tests: &["sim-tests/raft_scenarios::disks::an_older_copy_is_not_asked"],
    },
    Mutant {
        id: "X23",
        star: false,
        what: "an install that finds no room leaves its file behind, each time another one",
        seen: "found by the campaign: what lies on disks at rest",
        edits: &[edit(
            "raft/src/store/generation.rs",
            "let generation = opened.inspect_err(|_| place.remove())?;",
            "let generation = opened?;",
        )],
        tests: &["raft/store_install::an_install_without_room"],
    },
    Mutant {
        id: "X24",
        star: false,
        what: "a rewrite that finds no room ends the server",
        seen: "last words of servers in the campaign",
        edits: &[edit(
            "raft/src/store/rewrite.rs",
            "Err(error) if error.is_full() => {",
            "Err(error) if error.is_full() && error.to_string().is_empty() => {",
        )],
        tests: &["raft/store::a_rewrite_without_room"],
    },
];
