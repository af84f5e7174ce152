//! Entries that have left the memory, members that are fed from the disk, and what is kept for them.

use super::{Mutant, edit};

pub const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "X83",
        star: true,
        what: "entries leave the memory before they are handed to the state machine",
        seen: "the limit of a window hides it: most entries are handed out at once",
        edits: &[edit(
            "raft/src/replica/consensus.rs",
            "            self.step(Input::Evict(self.handed));",
            "            self.step(Input::Evict(self.apply_through));",
        )],
        tests: &["sim-tests/raft_scenarios::catch_up::what_is_not_handed"],
    },
    Mutant {
        id: "X84",
        star: true,
        what: "an entry that was replaced later is read from the disk for a follower",
        seen: "two entries of one index lie in the segments",
        edits: &[edit(
            "raft/src/log/reader.rs",
            "if entry.index < self.next() || self.term(entry.index) != Some(entry.term) {",
            "if entry.index < self.next() {",
        )],
        tests: &["raft/log_read::what_was_replaced", "raft/log_walk::"],
    },
    Mutant {
        id: "X85",
        star: true,
        what: "what was read for one place is sent at another",
        seen: "the follower loses entries while the disk is read for it",
        edits: &[edit(
            "raft/protocol/src/replication.rs",
            "        let own = entry.index == *index && log.term(*index) == Some(entry.term);",
            "        let own = log.term(*index).is_some();",
        )],
        tests: &["raft-protocol/snapshots::what_was_read"],
    },
    Mutant {
        id: "X86",
        star: true,
        what: "segments that a start left unread go before the new base is durable",
        seen: "the next start finds a log that begins behind its base: damage",
        edits: &[edit(
            "raft/src/log/recover.rs",
            "            log.write(recovered.hard_state, Some(&recovered.base), &[])?;",
            "            log.base = recovered.base.clone();",
        )],
        tests: &["raft/log_read::a_start_leaves"],
    },
    Mutant {
        id: "X87",
        star: true,
        what: "a record is read back without its checksum",
        seen: "what has rotted on the leader's disk is sent to a follower",
        edits: &[edit(
            "raft/src/log/reader.rs",
            "body.filter(|body| format::body_is_valid(id, &header, body))",
            "body.filter(|body| format::body_is_valid(id, &header, body) || !body.is_empty())",
        )],
        tests: &[
            "raft/log_read::what_is_gone",
            "sim-tests/raft_scenarios::catch_up::what_has_rotted",
        ],
    },
    Mutant {
        id: "X88",
        star: true,
        what: "clients write faster than the member that is waited for comes on",
        seen: "the log reaches its limit, and the member is sent the whole state again",
        edits: &[edit(
            "raft/src/replica/throttle.rs",
            "const SHARE: f64 = 0.5;",
            "const SHARE: f64 = 1.5;",
        )],
        tests: &[
            "raft/lib::replica::throttle::tests::a_slow",
            "sim-tests/raft_scenarios::catch_up::who_is_slower",
        ],
    },
    Mutant {
        id: "X89",
        star: true,
        what: "a follower whose entries cannot be read is sent nothing",
        seen: "the answer is taken for one that comes later",
        edits: &[edit(
            "raft/protocol/src/replication.rs",
            "            return self.need_snapshot(to, \"the entries it needs cannot be read\");",
            "            return;",
        )],
        tests: &["sim-tests/raft_scenarios::catch_up::what_has_rotted"],
    },
    Mutant {
        id: "X90",
        star: true,
        what: "a follower is fed from the disk once, and then no more",
        seen: "the mark that a reading is under way stays",
        edits: &[edit(
            "raft/protocol/src/replication.rs",
            "        p.fetching = false;",
            "        p.fetching = !entries.is_empty();",
        )],
        tests: &[
            "raft-protocol/walk::random",
            "sim-tests/raft_scenarios::catch_up::who_was_away",
        ],
    },
    Mutant {
        id: "X91",
        star: true,
        what: "a start leaves unread what the state does not hold",
        seen: "the newest segments alone are kept, whatever the state says",
        edits: &[edit(
            "raft/src/log/recover.rs",
            "segments.iter().rposition(|s| begins(s) <= stamp) {",
            "segments.iter().rposition(|s| begins(s) <= stamp.max(1) * 1000) {",
        )],
        tests: &["raft/log_read::a_start_leaves", "raft/log_walk::"],
    },
    Mutant {
        id: "X92",
        star: true,
        what: "the log is kept for nobody who has not just installed a snapshot",
        seen: "a member that restarts under load is sent the whole state",
        edits: &[edit(
            "raft/src/replica/snapshots.rs",
            "|m: &&Member| m.installed || m.since.elapsed() < patience;",
            "|m: &&Member| m.installed && m.since.elapsed() >= Duration::ZERO.min(patience);",
        )],
        tests: &[
            "raft/lib::replica::consensus::snapshots::tests::who_lags",
            "sim-tests/raft_scenarios::catch_up::who_restarts",
        ],
    },
    Mutant {
        id: "X93",
        star: true,
        what: "the log is kept for a member that never comes back",
        seen: "the disk of the others fills",
        edits: &[edit(
            "raft/src/replica/snapshots.rs",
            "            self.since = now();\n        }\n        self.installed",
            "            self.since = now();\n        }\n        self.since = now();\n        self.installed",
        )],
        tests: &[
            "raft/lib::replica::consensus::snapshots::tests::who_lags",
            "sim-tests/raft_scenarios::catch_up::who_restarts",
        ],
    },
    Mutant {
        id: "X94",
        star: true,
        what: "a write states as committed what is only appended",
        seen: "a restart applies it before it has heard a leader",
        edits: &[edit(
            "raft/protocol/src/writes.rs",
            "            commit: self.commit,",
            "            commit: self.log.last_index(),",
        )],
        tests: &[
            "raft-protocol/walk::random",
            "sim-tests/explore_raft::elections_with_a_crash",
        ],
    },
    Mutant {
        id: "X95",
        star: true,
        what: "what is known to be committed is not on disk",
        seen: "after a restart of all nothing is applied until there is a leader",
        edits: &[
            edit(
                "raft/src/replica/log_task.rs",
                "                            batch.commit = write.commit;",
                "                            batch.commit = 0;",
            ),
            edit(
                "raft/src/replica/log_task.rs",
                "                    commit: first.commit,",
                "                    commit: 0,",
            ),
        ],
        tests: &["sim-tests/raft_scenarios::persistence::the_log_is_applied"],
    },
    Mutant {
        id: "X96",
        star: true,
        what: "a start that leaves old segments unread does not miss any",
        seen: "what is lost behind the state was synced, and the member votes on",
        edits: &[edit(
            "raft/src/log/recover.rs",
            "let restarts = files.skipped && stamp.index >= found.chain.start.0;",
            "let restarts = files.skipped;",
        )],
        tests: &["raft/log_read::a_gap_behind"],
    },
    Mutant {
        id: "X97",
        star: false,
        what: "an entry that has rotted is searched for to the end of the log",
        seen: "gigabytes are read for every answer to a follower",
        edits: &[edit(
            "raft/src/log/reader.rs",
            "            if wanted.misses {",
            "            if wanted.misses && wanted.bytes == usize::MAX {",
        )],
        tests: &["raft/log_read::what_is_missing"],
    },
];
