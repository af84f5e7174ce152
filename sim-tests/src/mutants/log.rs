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
    Mutant {
        id: "X73",
        star: false,
        what: "writes are taken until the disk is full",
        seen: "a server that ended at a flush and could not start",
        edits: &[edit(
            "kv/src/server/door.rs",
            "let grows = ops.iter().any(Op::stores);",
            "let grows = ops.is_empty();",
        )],
        tests: &["sim-tests/kv_disks::a_full_disk"],
    },
    Mutant {
        id: "X74",
        star: false,
        what: "on a full disk deletions are refused too",
        seen: "nothing but a person can make room then",
        edits: &[edit(
            "kv/src/server/door.rs",
            "let grows = ops.iter().any(Op::stores);",
            "let grows = !ops.is_empty();",
        )],
        tests: &["sim-tests/kv_disks::a_full_disk"],
    },
    Mutant {
        id: "X75",
        star: false,
        what: "rows of a shard are taken onto a full disk",
        seen: "the mover does not look at the room",
        edits: &[edit(
            "kv/src/mover/work.rs",
            "        let Some(disk) = self.mover.replica.full_disk(CHUNK_BYTES) else {",
            "        let Some(disk) = self.mover.replica.full_disk(CHUNK_BYTES).filter(|_| shard > 1 << 20) else {",
        )],
        tests: &["sim-tests/kv_disks::a_shard_waits"],
    },
    Mutant {
        id: "X76",
        star: false,
        what: "a rewrite asks for as much room as any copy, so deleting makes none on a full disk",
        seen: "a full disk stays full",
        edits: &[edit(
            "raft/src/store/jobs.rs",
            "let room = (self.options.reserve_bytes / 4,",
            "let room = (8 * self.options.reserve_bytes,",
        )],
        tests: &["sim-tests/kv_disks::a_full_disk"],
    },
    Mutant {
        id: "X77",
        star: false,
        what: "on a short disk a row is counted by its bytes, not by the pages that its flush writes",
        seen: "a flush of scattered rows",
        edits: &[edit(
            "raft/src/store/engine.rs",
            "        overlay.bytes() + overlay.rows() * ROW_PAGES",
            "        overlay.bytes()",
        )],
        tests: &["raft/lib::replica::apply::tests::on_a_short_disk"],
    },
    Mutant {
        id: "X78",
        star: false,
        what: "old state files are removed only after the start has written its boot",
        seen: "a disk that the copy of a state fills",
        edits: &[edit(
            "raft/src/identity.rs",
            "let leftovers = crate::store::leftovers(disk)?;",
            "let leftovers = Vec::<String>::new();",
        )],
        tests: &["raft/identity::an_unfinished_state_file"],
    },
    Mutant {
        id: "X79",
        star: false,
        what: "a leader looks only at its own disk: a follower's is full before",
        seen: "copy-on-write files of members differ by more than what is kept",
        edits: &[edit(
            "raft/src/replica/peers.rs",
            "    let room = shared.room();",
            "    let room = shared.room().filter(|_| count > 1 << 20);",
        )],
        tests: &["sim-tests/kv_disks::a_follower"],
    },
    Mutant {
        id: "X99",
        star: false,
        what: "a command is let in for what is free now, whatever else is on its way to the disk",
        seen: "read: one long value, or many commands that waited for room, fill the last bytes",
        edits: &[edit(
            "raft/src/replica/handle.rs",
            "shared.full_disk(shared.on_the_way()) {",
            "shared.full_disk(0) {",
        )],
        tests: &["sim-tests/kv_disks::long_values"],
    },
    Mutant {
        id: "X100",
        star: false,
        what: "a snapshot that would make room is refused on a full disk",
        seen: "found by the campaign (I17): a full follower stayed behind, and nothing more was stored",
        edits: &[edit(
            "raft/src/store/engine.rs",
            "        let room = (self.options.reserve_bytes / 4, self.options.cache_bytes);
        self.disk",
            "        let room = (self.options.reserve_bytes, self.options.cache_bytes);
        self.disk",
        )],
        tests: &["raft/store_install::a_small_snapshot"],
    },
    Mutant {
        id: "X102",
        star: false,
        what: "a small file is never rewritten, however short the disk",
        seen: "found by the campaign (I17): a small disk stayed full after everything was deleted",
        edits: &[edit(
            "raft/src/store/jobs.rs",
            "            Shortage::Short | Shortage::NearlyFull => usual.min(LEAST_REWRITE),",
            "            Shortage::Short | Shortage::NearlyFull => usual,",
        )],
        tests: &["raft/store_rewrite::the_less_room"],
    },
    Mutant {
        id: "X103",
        star: false,
        what: "on a disk that is nearly full the room inside a state's file stays there",
        seen: "found by the campaign (I17): half of a shard had arrived, and for the rest there was no room",
        edits: &[edit(
            "raft/src/store/jobs.rs",
            "            Shortage::NearlyFull => 5,",
            "            Shortage::NearlyFull => 8,",
        )],
        tests: &["raft/store_rewrite::the_less_room"],
    },
    Mutant {
        id: "X82",
        star: true,
        what: "old state files are removed before it is durable which one is current",
        seen: "a killed process renamed CURRENT, and the power fails in the next start",
        edits: &[edit(
            "raft/src/identity.rs",
            "        disk.sync_dir(\"\")?;
    }
    for leftover in leftovers {",
            "    }
    for leftover in leftovers {",
        )],
        tests: &["raft/identity::what_current_may"],
    },
];
