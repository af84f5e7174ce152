//! What a start keeps of the last life's log is durable before it is relied on.

mod log_support;

use log_support::{entry, hard_state, meta, open};
use raft::log::Batch;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use world::disk::{DiskOp, Open, SimDisk, SimDiskOptions};
use world::testing::block_on_test;

/// A failed sync leaves pages that the kernel shows and takes for clean, so that the next sync says Ok
/// and writes nothing: the next life writes what it keeps once more.
#[test]
fn what_a_failed_sync_left_is_written_again() {
    block_on_test(async {
        let mut kept = 0;
        for seed in 0..50 {
            let disk = SimDisk::new("failed", seed, SimDiskOptions::default());
            let (mut log, _) = open(&disk.disk(), &meta(0, 0)).expect("opens");
            let batch = |index| Batch {
                commit: 0,
                hard_state: hard_state(1, Some(2)),
                runs: vec![vec![entry(index, 1, &[5; 3000])]],
            };
            log.append(&batch(1)).expect("appends");
            disk.fail_nth(DiskOp::Sync, 1, ErrorKind::Other);
            log.append(&batch(2)).expect_err("its sync fails");
            drop(log);
            let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            kept += usize::from(found.entries.len() == 2);
            disk.power_fail();
            let again = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            assert_eq!(again.entries, found.entries, "seed {seed}");
            assert_eq!(again.hard_state, found.hard_state, "seed {seed}");
        }
        assert!(kept > 10, "it was shown {kept} times of 50");
    });
}

/// What was read back after a killed process is synced before it is relied on.
#[test]
fn what_recovery_keeps_survives_the_power() {
    block_on_test(async {
        for seed in 0..50 {
            let disk = SimDisk::new("kept", seed, SimDiskOptions::default());
            let (mut log, _) = open(&disk.disk(), &meta(0, 0)).expect("opens");
            disk.fail_nth(DiskOp::Sync, 1, ErrorKind::Other);
            let batch = Batch {
                commit: 0,
                hard_state: hard_state(1, None),
                runs: vec![vec![entry(1, 1, &[5; 3000])]],
            };
            // The write is there, its sync never ran.
            disk.crash_at(2);
            let _ = log.append(&batch);
            disk.clear_faults();
            let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            disk.power_fail();
            let again = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            assert_eq!(again.entries, found.entries);
            assert_eq!(again.hard_state, found.hard_state);
        }
        // Killed between write and sync: everything is read back, and must stay.
        let disk = SimDisk::new("killed", 1, SimDiskOptions::default());
        drop(open(&disk.disk(), &meta(0, 0)).expect("opens"));
        let image = disk.image();
        let mut made = BTreeMap::new();
        for seed in 0..50 {
            let disk = SimDisk::new("killed", seed, SimDiskOptions::default());
            disk.restore(&image);
            // What an append writes, without its sync: copied from a log that did append.
            let donor = SimDisk::new("donor", seed, SimDiskOptions::default());
            donor.restore(&image);
            let (mut log, _) = open(&donor.disk(), &meta(0, 0)).expect("opens");
            log.append(&Batch {
                commit: 0,
                hard_state: hard_state(1, None),
                runs: vec![vec![entry(1, 1, &[5; 3000])]],
            })
            .expect("append");
            let (name, _) = donor.files().pop().expect("one");
            let bytes = donor.read(&name).expect("there");
            let file = disk.disk().open(&name, Open::Write).expect("there");
            file.write_all_at(&bytes[8192..12288], 8192)
                .expect("written");
            disk.process_kill();
            let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            assert_eq!(found.entries.len(), 1);
            disk.power_fail();
            let again = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            made.insert(seed, again.entries.len());
        }
        assert!(made.values().all(|n| *n == 1), "{made:?}");
    });
}
