//! Replication and commit.

use super::{Mutant, edit};

const FOLLOWER: &str = "raft/protocol/src/follower.rs";
const REPLICATION: &str = "raft/protocol/src/replication.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "R01",
        star: true,
        what: "an entry of an older term committed by counting (figure 8)",
        seen: "LogCabin #44; CCF #4472; Raft §5.4.2",
        edits: &[edit(
            REPLICATION,
            "if self.log.term(index) != Some(self.hard.term) {",
            "if self.log.term(index).is_none() {",
        )],
        tests: &[
            "raft-protocol/paper::entries_of_earlier_terms",
            "sim-tests/raft_scenarios::figure8::figure_8_chain",
        ],
    },
    Mutant {
        id: "R02",
        star: true,
        what: "log truncated on a stale append although the entries match",
        seen: "willemt/raft #37; raftos #26",
        edits: &[edit(
            FOLLOWER,
            "take_while(|e| held(e)).count();",
            "take_while(|e| held(e) && e.index <= self.commit).count();",
        )],
        tests: &["raft-protocol/paper::entries_that_match_are_left_alone"],
    },
    Mutant {
        id: "R03",
        star: false,
        what: "conflicting entry overwritten, the suffix behind it kept",
        seen: "mofa #1151",
        edits: &[edit(
            "raft/protocol/src/log.rs",
            "        self.truncate(first);
        for entry in entries {",
            "        let old: Vec<Entry> = self.entries[self.offset(first)..].to_vec();
        self.truncate(first);
        let new: Vec<Entry> = entries.collect();
        let suffix = old.into_iter().skip(new.len());
        for entry in new.into_iter().chain(suffix) {",
        )],
        tests: &["raft-protocol/paper::conflicting_entries_are_deleted"],
    },
    Mutant {
        id: "R05",
        star: false,
        what: "match index taken from the reply instead of the maximum",
        seen: "raft.tla #18",
        edits: &[edit(
            "raft/protocol/src/progress.rs",
            "        if index <= self.matched {
            return false;
        }",
            "        if index == self.matched {
            return false;
        }",
        )],
        tests: &["raft-protocol/paper::match_indices_are_raised"],
    },
    Mutant {
        id: "R06",
        star: false,
        what: "follower commits up to the leader's commit, past what this append verified",
        seen: "copycat #265",
        edits: &[edit(
            FOLLOWER,
            "let commit = commit.min(self.verified);",
            "let commit = commit.min(self.log.last_index());",
        )],
        tests: &["raft-protocol/paper::a_follower_commits_no_further"],
    },
    Mutant {
        id: "R08",
        star: false,
        what: "commit index set, not raised",
        seen: "PySyncObj #166",
        edits: &[edit(
            FOLLOWER,
            "if commit > self.commit {",
            "if commit != self.commit {",
        )],
        tests: &["raft-protocol/paper::a_commit_index_is_only_raised"],
    },
    Mutant {
        id: "R09",
        star: false,
        what: "append acknowledged before the sync",
        seen: "NATS 2.12.1",
        edits: &[edit(
            FOLLOWER,
            "self.send_after(write, from, Message::AppendReply { term, verdict });",
            "let _ = write;
        self.send(from, Message::AppendReply { term, verdict });",
        )],
        tests: &["raft-protocol/durability::an_acknowledgement_waits"],
    },
    Mutant {
        id: "R10",
        star: false,
        what: "leader counts itself before its own sync",
        seen: "etcd #14370",
        edits: &[edit(
            REPLICATION,
            "let own = self.log.synced();",
            "let own = self.log.last_index();",
        )],
        tests: &[
            "raft-protocol/durability::a_leader_counts_itself",
            "sim-tests/raft_scenarios::disks::a_slow_leader",
        ],
    },
    Mutant {
        id: "R13",
        star: false,
        what: "quorum is n/2",
        seen: "openraft",
        edits: &[edit(
            "raft/protocol/src/types.rs",
            "nodes.contains(n)).count() > members.len() / 2",
            "nodes.contains(n)).count() >= members.len() / 2",
        )],
        tests: &["raft-protocol/paper::a_candidate_wins_with_votes"],
    },
    Mutant {
        id: "R14",
        star: false,
        what: "a compacted previous index treated as a conflict",
        seen: "openraft #511",
        edits: &[edit(
            FOLLOWER,
            "if index < self.log.base().index || self.log.term(index) == Some(term) {",
            "if self.log.term(index) == Some(term) {",
        )],
        tests: &["raft-protocol/paper::a_compacted_previous_entry"],
    },
    Mutant {
        id: "R16",
        star: false,
        what: "append response of an earlier term counted",
        seen: "CCF #5927",
        edits: &[edit(
            "raft/protocol/src/core.rs",
            "            _ if !current => why!(",
            "            Message::AppendReply { verdict, .. } if !current => {
                self.on_append_reply(from, verdict);
            }
            _ if !current => why!(",
        )],
        tests: &["raft-protocol/paper::answers_of_an_earlier_term"],
    },
    Mutant {
        id: "R22",
        star: false,
        what: "last applied raised when scheduled, not when applied",
        seen: "openraft",
        edits: &[
            edit(
                "raft/src/replica/apply.rs",
                "        let before = self.store.pressure();
        let mut turn",
                "        let before = self.store.pressure();
        let covered = self.store.applied_index();
        if let Some(Committed { entry, .. }) = batch.last()
            && entry.index > covered
        {
            self.store.applied(entry.index, entry.term, self.time_ms);
            let force = self.unflushed >= self.shared.options.flush_log_bytes;
            self.flush(force);
        }
        let mut turn",
            ),
            edit(
                "raft/src/replica/apply.rs",
                "if entry.index <= self.store.applied_index() {",
                "if entry.index <= covered {",
            ),
            edit(
                "raft/src/replica/apply.rs",
                "            self.store.applied(entry.index, entry.term, self.time_ms);
            self.unflushed += entry.size();",
                "            self.unflushed += entry.size();",
            ),
            edit(
                "raft/src/replica/apply.rs",
                "        self.flush(force);
        self.waiting_reads()?;",
                "        let _ = force;
        self.waiting_reads()?;",
            ),
        ],
        tests: &["sim-tests/raft_scenarios::snapshots::snapshot_all_crash"],
    },
    Mutant {
        id: "R23",
        star: false,
        what: "the leader's scan for a new commit index stops at an entry of an older term",
        seen: "an audit: a follower that died within an old tail stops the commit for ever",
        edits: &[edit(
            REPLICATION,
            "let Some(index) = indices.into_iter().find(quorum) else {",
            "let own_term = |i: &Index| self.log.term(*i) == Some(self.hard.term);
        let upwards = indices.into_iter().rev().take_while(own_term);
        let Some(index) = upwards.filter(quorum).last() else {",
        )],
        tests: &[
            "raft-protocol/paper::a_follower_that_died_within_an_old_tail",
            "raft-protocol/paper::what_is_committed_is_what_a_quorum_has",
        ],
    },
    Mutant {
        id: "R24",
        star: false,
        what: "the match indices are taken unsorted when a new commit index is looked for",
        seen: "an audit: what a dead follower has is met first, and is of an older term",
        edits: &[edit(
            REPLICATION,
            "        indices.sort_unstable_by(|a, b| b.cmp(a));
",
            "",
        )],
        tests: &[
            "raft-protocol/paper::a_follower_that_died_within_an_old_tail",
            "raft-protocol/paper::what_is_committed_is_what_a_quorum_has",
        ],
    },
];
