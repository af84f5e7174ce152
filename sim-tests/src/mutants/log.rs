//! The log on disk.

use super::{Mutant, edit};

const LOG: &str = "raft/src/log/mod.rs";
const WRITE: &str = "        active.file.write_all_at(&self.buffer, active.end)?;
        active.file.sync_data()?;";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "L01",
        star: false,
        what: "replay stops at a torn tail that is left in place, the next append goes behind it",
        seen: "etcd #5230",
        edits: &[edit(
            "raft/src/log/recover.rs",
            "            segment::zero(&file, at, to - at)?;
            at
        }",
            "            to.max(at)
        }",
        )],
        tests: &[
            "raft/log_walk::",
            "sim-tests/raft_scenarios::disks::power_fails_inside",
        ],
    },
    Mutant {
        id: "L02",
        star: false,
        what: "any checksum error taken for the end of the log",
        seen: "PAR, FAST'18; NATS 2.12.1",
        edits: &[edit(
            "raft/src/log/replay.rs",
            "let later = later.iter().find(|(o, h)| *o != at || h.number != expected);",
            "let later = later.iter().find(|(o, h)| *o < at && h.number != expected);",
        )],
        tests: &["raft/log_damage::", "sim-tests/raft_scenarios::damage"],
    },
    Mutant {
        id: "L03",
        star: false,
        what: "a failed sync repeated and believed",
        seen: "ATC'20",
        edits: &[edit(
            LOG,
            WRITE,
            "        active.file.write_all_at(&self.buffer, active.end)?;
        if active.file.sync_data().is_err() {
            active.file.sync_data()?;
        }",
        )],
        tests: &[
            "raft/log_walk::",
            "sim-tests/raft_scenarios::disks::failed_sync",
        ],
    },
    Mutant {
        id: "L04",
        star: false,
        what: "no directory sync after a segment is created and renamed",
        seen: "ALICE, OSDI'14",
        edits: &[edit(
            "raft/src/log/segment.rs",
            "        disk.sync_dir(DIR)?;
        Ok(self.active)",
            "        Ok(self.active)",
        )],
        tests: &["raft/log_walk::", "raft/log_damage::a_reset_survives"],
    },
    Mutant {
        id: "L06",
        star: false,
        what: "truncate and append reordered on disk",
        seen: "openraft",
        edits: &[edit(
            "raft/src/replica/log_task.rs",
            "_ => batch.runs.push(write.entries),",
            "_ => batch.runs.insert(0, write.entries),",
        )],
        tests: &["raft/lib::replica::log_task::tests::what_replaces"],
    },
    Mutant {
        id: "L07",
        star: false,
        what: "log prefix deleted before the snapshot is durable",
        seen: "RedisRaft #43",
        edits: &[edit(
            "raft/src/replica/apply.rs",
            "            .tell(Internal::Durable(self.store.durable().meta()));",
            "            .tell(Internal::Durable(self.store.stamp().meta()));",
        )],
        tests: &["sim-tests/raft_scenarios::compaction::"],
    },
    Mutant {
        id: "L10",
        star: false,
        what: "ENOSPC swallowed after a partial append",
        seen: "",
        edits: &[edit(
            LOG,
            WRITE,
            "        match active.file.write_all_at(&self.buffer, active.end) {
            Err(e) if e.kind() != io::ErrorKind::StorageFull => return Err(e.into()),
            _ => {}
        }
        active.file.sync_data()?;",
        )],
        tests: &[
            "raft/log_walk::",
            "sim-tests/raft_scenarios::disks::full_disk",
        ],
    },
    Mutant {
        id: "L11",
        star: false,
        what: "a batch of several writes carries its first one's hard state instead of its last one's",
        seen: "an audit: a vote that shares a sync is told, and lost with the power",
        edits: &[edit(
            "raft/src/replica/log_task.rs",
            "                            batch.hard_state = write.hard_state;
",
            "",
        )],
        tests: &["raft/lib::replica::log_task::tests::a_shared_sync_holds"],
    },
];
