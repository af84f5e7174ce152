//! Bugs of this very tree that the campaign found, or its readers.

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
        tests: &["raft/store_rewrite::a_rewrite_without_room"],
    },
    Mutant {
        id: "X25",
        star: true,
        what: "after a failed sync the next life syncs what it reads back, and does not write it again",
        seen: "Rebello et al., USENIX ATC 2020: the kernel takes the page for clean",
        edits: &[edit(
            "raft/src/log/recover.rs",
            "        reader.file.write_all_at(&record, last_record.start)?;",
            "        drop(record);",
        )],
        tests: &["raft/log_kept::what_a_failed_sync_left"],
    },
    Mutant {
        id: "X26",
        star: false,
        what: "the last batch of an earlier life is never proved: damage to it is taken for a torn tail",
        seen: "a reader",
        edits: &[edit(
            "raft/src/replica/log_task.rs",
            "    let mut sealed = false;",
            "    let mut sealed = true;",
        )],
        tests: &["raft/lib::replica::log_task::tests::the_last_batch_of_an_earlier_life"],
    },
    Mutant {
        id: "X27",
        star: false,
        what: "a leader whose disk hangs leads for ever, and answers nobody",
        seen: "a reader; and half of it, a leader that commits nothing either, the campaign",
        edits: &[edit(
            "raft/protocol/src/lead.rs",
            "        times >= PATIENCE",
            "        times >= u32::MAX",
        )],
        tests: &["raft-protocol/reads::a_leader_whose_disk_stands_still"],
    },
    Mutant {
        id: "X28",
        star: true,
        what: "a client names no cluster: another one at the same addresses takes its writes",
        seen: "a reader: session ids count from 1 in every cluster",
        edits: &[edit(
            "kv/src/client/router.rs",
            "            self.cluster.get_or_init(|| cluster);",
            "            let _ = cluster;",
        )],
        tests: &["kv/client_fake::a_server_of_another_cluster"],
    },
    Mutant {
        id: "X29",
        star: false,
        what: "who waits for a flush waits for a rewrite that gave way, and nothing begins the flush",
        seen: "found by the campaign (I21) in the very change that let a rewrite give way sooner",
        edits: &[edit(
            "raft/src/store/engine.rs",
            "let urgent = self.full() || self.gave_way;",
            "let urgent = self.full();",
        )],
        tests: &["raft/store_rewrite::a_rewrite_that_gave_way"],
    },
    Mutant {
        id: "X46",
        star: false,
        what: "what a running flush makes durable is not counted as unflushed: the log in memory grows",
        seen: "the limit that the simulation checked was not the one that was kept",
        edits: &[
            edit(
                "raft/src/replica/apply.rs",
                "let much = unflushed >= self.longest_unflushed()",
                "let much = self.unflushed >= 3 * self.longest_unflushed()",
            ),
            edit(
                "raft/src/replica/apply.rs",
                "let entries = self.longest_unflushed().saturating_sub(unflushed);",
                "let entries = 3 * self.longest_unflushed().max(unflushed);",
            ),
        ],
        tests: &["sim-tests/raft_scenarios::compaction::no_more_is_applied"],
    },
    Mutant {
        id: "X47",
        star: false,
        what: "a flush leaves rows in the file that were deleted; stamp and digest are right",
        seen: "replicas compared a digest that is kept up row by row, and nobody counted the rows",
        edits: &[edit(
            "raft/src/store/generation.rs",
            "rows.remove(&key[..]).map_err(|e| place.redb(e))?;",
            "",
        )],
        tests: &[
            "raft/store::the_digest_is_that",
            "raft/store_walk::a_walk_agrees",
        ],
    },
    Mutant {
        id: "X48",
        star: false,
        what: "a job that fails while an install waits for it is told to the sender, and the server lives on",
        seen: "read: nothing is flushed any more, and the apply task stands still when the log is full",
        edits: &[edit(
            "raft/src/replica/apply.rs",
            "Err(error) if self.store.has_failed() => return Err(error.into()),",
            "",
        )],
        tests: &["raft/lib::replica::apply::tests::a_flush_that_fails_under"],
    },
    Mutant {
        id: "X49",
        star: true,
        what: "recovery writes the last record once more in its place and keeps it nowhere meanwhile",
        seen: "read: a power failure in that moment leaves neither what was there nor what is written",
        edits: &[edit(
            "raft/src/log/recover.rs",
            "twice::keep(disk, place, &record)?;",
            "let _ = (place, twice::keep);",
        )],
        tests: &["raft/log_overwrite::a_recovery_broken_off_anywhere"],
    },
    Mutant {
        id: "X50",
        star: false,
        what: "the copy of the last record goes before what it stands for is synced",
        seen: "the same moment, a little later",
        edits: &[edit(
            "raft/src/log/recover.rs",
            "reader.file.write_all_at(&record, last_record.start)?;",
            "reader.file.write_all_at(&record, last_record.start)?;\n        twice::remove(disk)?;",
        )],
        tests: &["raft/log_overwrite::a_recovery_broken_off_anywhere"],
    },
    Mutant {
        id: "X51",
        star: true,
        what: "only the answer to the newest heartbeat tells that appends were lost",
        seen: "a reader: with answers slower than the next round a follower is sent nothing for the rest of the term",
        edits: &[edit(
            "raft/protocol/src/lead.rs",
            "p.beat.get_or_insert((lead.round, p.next - 1));",
            "p.beat = Some((lead.round, p.next - 1));",
        )],
        tests: &["raft-protocol/flow::a_window_that_was_lost"],
    },
    Mutant {
        id: "X52",
        star: false,
        what: "what waits for a write that never ends piles up",
        seen: "a reader: a hung disk's server keeps an answer for each read",
        edits: &[edit(
            "raft/protocol/src/writes.rs",
            "if waiting.len() < MAX_WAITING {",
            "if waiting.len() < usize::MAX - MAX_WAITING {",
        )],
        tests: &["raft-protocol/durability::what_waits_for_a_write"],
    },
    Mutant {
        id: "X53",
        star: false,
        what: "room for rows is looked for once in a batch of entries",
        seen: "a reader: of short appends to long values a batch may hold thousands",
        edits: &[edit(
            "raft/src/replica/apply.rs",
            "if self.lacks_room() {",
            "if bytes == entry.size() && self.lacks_room() {",
        )],
        tests: &["raft/lib::replica::apply::tests::short_commands"],
    },
    Mutant {
        id: "X54",
        star: false,
        what: "a write may concern any amount of present values",
        seen: "a reader: twenty kilobytes made every member gather gigabytes, again after each restart",
        edits: &[edit(
            "kv/src/machine/write.rs",
            "if self.found > MAX_FOUND_BYTES {",
            "if self.found > MAX_FOUND_BYTES * MAX_BATCH {",
        )],
        tests: &["kv/machine::operations::a_short_write_to_many"],
    },
    Mutant {
        id: "X55",
        star: false,
        what: "the log behind a snapshot may go as soon as it is installed",
        seen: "a reader: under a steady load a follower is sent the whole state again and again",
        edits: &[edit(
            "raft/src/replica/snapshots.rs",
            "        self.installed &= self.has < near && self.since.elapsed() < PATIENCE;\n",
            "        self.installed &= self.has < near && self.since.elapsed() < PATIENCE && near == 0;\n",
        )],
        tests: &["sim-tests/raft_scenarios::snapshots::snapshot_install_under_load"],
    },
    Mutant {
        id: "X56",
        star: false,
        what: "a build goes on past a level that it does not know",
        seen: "a reader: it answers Malformed to what newer members carry out",
        edits: &[edit(
            "kv/src/machine/mod.rs",
            "        StoreError::check_level(level, LEVEL)?;\n",
            "        let _ = StoreError::check_level(level, LEVEL);\n",
        )],
        tests: &["kv/machine::operations::a_level_above_this_builds"],
    },
];
