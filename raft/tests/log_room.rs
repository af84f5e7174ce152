//! A log on a disk that has little room, or runs short of it.

mod log_support;

use log_support::{OWNER, entry, hard_state, meta};
use raft::log::{Batch, Log, LogOptions};
use std::io::ErrorKind;
use world::disk::{DiskOp, SimDisk, SimDiskOptions};
use world::testing::block_on_test;

const SPARE: &str = "log/spare.tmp";

fn disk(capacity: u64) -> SimDisk {
    let options = SimDiskOptions {
        capacity,
        ..SimDiskOptions::default()
    };
    SimDisk::new("room", 1, options)
}

fn open(disk: &SimDisk) -> Log {
    let options = LogOptions::default();
    let opened = Log::open(&disk.disk(), OWNER, options, &meta(0, 0));
    opened.expect("the log opens").0
}

fn append(log: &mut Log, index: u64, bytes: usize) {
    let batch = Batch {
        commit: 0,
        hard_state: hard_state(1, None),
        runs: vec![vec![entry(index, 1, &vec![7; bytes])]],
    };
    log.append(&batch).expect("appended");
}

/// Does all the upkeep that is due.
fn chores(log: &mut Log) {
    while let Some(chore) = log.chore() {
        let ended = chore.run();
        log.finished(ended).expect("no chore ends the log");
    }
}

fn has_spare(disk: &SimDisk) -> bool {
    disk.files().iter().any(|(name, _)| name == SPARE)
}

/// Many times the disk goes through a log of which the last two MiB are needed.
#[test]
fn a_small_disk_is_enough_for_a_log_that_is_cut() {
    block_on_test(async {
        for mib in [12, 28, 60] {
            let disk = disk(mib << 20);
            let mut log = open(&disk);
            for index in 1..=4 * mib {
                append(&mut log, index, 1 << 20);
                chores(&mut log);
                assert!(!has_spare(&disk), "less than the reserve is free");
                if index > 2 {
                    log.purge(&meta(index - 2, 1)).expect("purged");
                    chores(&mut log);
                }
            }
        }
    });
}

/// The spare is made while there is room, and goes when there is less than the reserve.
#[test]
fn the_spare_gives_way_to_a_short_disk() {
    block_on_test(async {
        let reserve = LogOptions::default().reserve_bytes;
        let disk = disk(reserve + (48 << 20));
        let mut log = open(&disk);
        append(&mut log, 1, 9 << 20);
        chores(&mut log);
        assert!(has_spare(&disk));
        let mut options = disk.options();
        options.capacity = disk.used() + reserve - 1;
        disk.set_options(options.clone());
        append(&mut log, 2, 10);
        chores(&mut log);
        assert!(!has_spare(&disk));
        // Not made of the last bytes above the reserve, to be removed at once.
        options.capacity = disk.used() + reserve + (15 << 20);
        disk.set_options(options.clone());
        append(&mut log, 3, 8 << 20);
        append(&mut log, 4, 8 << 20);
        chores(&mut log);
        assert!(!has_spare(&disk));
        // Tried again in the next segment.
        options.capacity = u64::MAX;
        disk.set_options(options);
        for index in 5..9 {
            append(&mut log, index, 8 << 20);
            chores(&mut log);
        }
        assert!(has_spare(&disk));
    });
}

/// Whatever says that there is no room (a quota is not seen before), the log goes on without a spare.
#[test]
fn a_spare_for_which_there_is_no_room_is_no_error() {
    block_on_test(async {
        for op in [DiskOp::Write, DiskOp::Sync] {
            for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
                for nth in 1..4 {
                    let disk = disk(u64::MAX);
                    let mut log = open(&disk);
                    append(&mut log, 1, 9 << 20);
                    disk.fail_nth(op, nth, kind);
                    chores(&mut log);
                    disk.clear_faults();
                    assert!(!has_spare(&disk), "what was begun of it is gone");
                    append(&mut log, 2, 10);
                }
            }
        }
    });
}
