//! The state on disk, and snapshots.

use super::{Edit, Mutant, edit};

const SPOOL: &str = "raft/src/store/spool.rs";

/// A snapshot without some rows whose sums agree with what is in it.
const SUMS: Edit = edit(
    SPOOL,
    "    if totals != expected {
        return Err",
    "    (spool.stamp.digest, spool.stamp.rows) = (totals.digest, totals.rows);
    if totals.rows > expected.rows {
        return Err",
);

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "S02",
        star: false,
        what: "snapshot merged into the state instead of replacing it",
        seen: "jgroups-raft #301",
        edits: &[edit(
            "raft/src/store/engine.rs",
            "                self.clean(old.base, Some(old.overlay));",
            "                self.rows.overlay = old.overlay;
                self.clean(old.base, None);",
        )],
        tests: &["raft/store_install::an_install_replaces"],
    },
    Mutant {
        id: "S03",
        star: true,
        what: "sessions missing from the snapshot",
        seen: "6.824 lab 3B",
        edits: &[
            edit(
                SPOOL,
                "        if let Some((key, value)) = row {",
                "        let session = |k: &[u8]| k.first() == Some(&0x10) && k.get(13) == Some(&b's');
        if let Some((key, value)) = row.filter(|(key, _)| !session(key)) {",
            ),
            SUMS,
        ],
        tests: &["sim-tests/kv_one_group::snapshot"],
    },
    Mutant {
        id: "S05",
        star: false,
        what: "snapshot's index read after its state while applies go on",
        seen: "openraft",
        edits: &[edit(
            "raft/src/replica/apply.rs",
            "                let result = result.map(|mut spool| {",
            "                let result = result.map(|mut spool| {
                    let late = self.store.stamp();
                    (spool.stamp.index, spool.stamp.term) = (late.index, late.term);
                    spool.stamp.time_ms = late.time_ms;",
        )],
        tests: &[
            "sim-tests/raft_scenarios::churn::churn_with_snapshots",
            "sim-tests/raft_scenarios::compaction::no_more_is_applied",
        ],
    },
    Mutant {
        id: "S07",
        star: false,
        what: "the whole log dropped on install although a suffix matches",
        seen: "etcd #1763",
        edits: &[edit(
            "raft/protocol/src/log.rs",
            "let keep = meta.index >= self.evicted && self.term(meta.index) == Some(meta.term);",
            "let keep = self.term(meta.index) == Some(meta.term) && meta.index == self.last_index();",
        )],
        tests: &["raft-protocol/snapshots::a_snapshot_keeps_a_suffix"],
    },
];
