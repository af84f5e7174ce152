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
    Mutant {
        id: "X70",
        star: false,
        what: "a spare segment is made of a disk's last bytes",
        seen: "an operator: a full disk was kept full by the spare file, at every start",
        edits: &[edit(
            "raft/src/log/chore.rs",
            "    if options.is_short(disk.free()?.saturating_sub(missing)) {",
            "    if options.is_short(disk.free()?.saturating_add(options.reserve_bytes + missing)) {",
        )],
        tests: &["raft/log_room::the_spare_gives_way"],
    },
    Mutant {
        id: "X71",
        star: false,
        what: "leftovers are removed after the identity file is written",
        seen: "an operator: they filled the disk, and no start got past that write",
        edits: &[edit(
            "raft/src/identity.rs",
            "    clear(disk).map_err(&failed)?;
    save(disk, &identity)?;",
            "    save(disk, &identity)?;
    clear(disk).map_err(&failed)?;",
        )],
        tests: &["raft/identity::leftovers_are_removed"],
    },
    Mutant {
        id: "X72",
        star: false,
        what: "segments on a small disk are as long as ever",
        seen: "an operator: 48 MiB of log for 1 MB of rows ended the server",
        edits: &[edit(
            "raft/src/log/room.rs",
            "            true => (free / SHARE).max(LEAST).min(self.segment_bytes),",
            "            true => self.segment_bytes,",
        )],
        tests: &["raft/log_room::a_small_disk_is_enough"],
    },
];
