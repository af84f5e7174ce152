//! Recovery writes the last record once more in its place, and the power may fail while it does: a
//! sector that was being overwritten then holds neither what it held before nor what was written.

mod log_support;

use log_support::{Rng, entry, hard_state, meta, open};
use raft::log::{Batch, Log, Recovered};
use raft_protocol::SnapshotMeta;
use std::io::ErrorKind;
use world::disk::{DiskOp, Image, Open, SimDisk, SimDiskOptions};
use world::testing::block_on_test;

const FILE: &str = "log/last-record";

fn torn_disk(seed: u64) -> SimDisk {
    let options = SimDiskOptions {
        torn_overwrites: 0.5,
        ..SimDiskOptions::default()
    };
    SimDisk::new("torn", seed, options)
}

fn batch(index: u64) -> Batch {
    Batch {
        commit: 0,
        hard_state: hard_state(index, Some(2)),
        runs: vec![vec![entry(index, index, &[index as u8; 2500])]],
    }
}

fn append(log: &mut Log, indices: std::ops::RangeInclusive<u64>) {
    for index in indices {
        log.append(&batch(index)).expect("appends");
    }
}

/// Everything through batch `last` is there, and nothing else is known.
fn holds(found: &Recovered, last: u64, what: &str) {
    let indices: Vec<u64> = found.entries.iter().map(|e| e.index).collect();
    assert_eq!(indices, Vec::from_iter(1..=last), "{what}: {found:?}");
    for entry in &found.entries {
        assert_eq!(*entry, batch(entry.index).runs[0][0], "{what}");
    }
    assert_eq!(found.hard_state, batch(last).hard_state, "{what}");
    assert_eq!(found.damage, None, "{what}");
}

fn has_file(disk: &SimDisk) -> bool {
    disk.read(FILE).is_some()
}

/// What the last life left behind its last acknowledged batch.
#[derive(Clone, Copy, Debug)]
enum Tail {
    Nothing,
    /// Half a batch.
    Torn,
}

const TAILS: [Tail; 2] = [Tail::Nothing, Tail::Torn];

/// Two batches, acknowledged; the process was killed.
fn killed(tail: Tail) -> Image {
    let disk = torn_disk(1);
    let (mut log, _) = open(&disk.disk(), &meta(0, 0)).expect("opens");
    append(&mut log, 1..=2);
    if let Tail::Torn = tail {
        let end = log.bytes();
        let (name, _) = disk.files().pop().expect("one");
        let file = disk.disk().open(&name, Open::Write).expect("there");
        file.write_all_at(&[9; 1024], end).expect("written");
    }
    disk.process_kill();
    disk.image()
}

/// Recovers, with the power failing inside the `nth` operation; false when it came to its end.
fn is_broken_off(disk: &SimDisk, nth: u64, what: &str) -> bool {
    disk.crash_at(nth);
    let opened = open(&disk.disk(), &meta(0, 0));
    let crashed = disk.crashed();
    disk.clear_faults();
    match opened {
        Ok((_, found)) => holds(&found, 2, what),
        Err(error) => assert!(crashed, "{what}: {error}"),
    }
    crashed
}

/// The power fails inside every operation of a recovery, and then inside every operation of the next.
#[test]
fn a_recovery_broken_off_anywhere_forgets_nothing() {
    block_on_test(async {
        let (mut broken, mut with_file) = (0, 0);
        for (tail, seed) in TAILS.iter().flat_map(|t| (0..20).map(move |s| (*t, s))) {
            let image = killed(tail);
            'first: for first in 1.. {
                for second in 1.. {
                    let what = format!("{tail:?}, seed {seed}, operations {first} and {second}");
                    let disk = torn_disk(seed * 1000 + first);
                    disk.restore(&image);
                    if !is_broken_off(&disk, first, &what) {
                        break 'first;
                    }
                    broken += 1;
                    with_file += u32::from(has_file(&disk));
                    let again = is_broken_off(&disk, second, &what);
                    let (mut log, found) = open(&disk.disk(), &meta(0, 0)).expect(&what);
                    holds(&found, 2, &what);
                    assert!(
                        !has_file(&disk),
                        "{what}: the file is gone before an append"
                    );
                    append(&mut log, 3..=3);
                    disk.power_fail();
                    let found = open(&disk.disk(), &meta(0, 0)).expect(&what).1;
                    holds(&found, 3, &what);
                    if !again {
                        break;
                    }
                }
            }
        }
        assert!(
            broken > 1000 && with_file > 200,
            "{broken} times, {with_file} times with the file"
        );
    });
}

/// A failed sync breaks it off too, and may leave pages that nothing but another write writes.
#[test]
fn a_recovery_whose_syncs_fail_forgets_nothing() {
    block_on_test(async {
        let image = killed(Tail::Nothing);
        for seed in 0..100 {
            let disk = torn_disk(seed);
            disk.restore(&image);
            let mut dice = Rng(seed);
            for _ in 0..4 {
                let op = [DiskOp::Sync, DiskOp::Write, DiskOp::Name][dice.below(3) as usize];
                disk.fail_nth(op, dice.between(1, 6), ErrorKind::Other);
                let opened = open(&disk.disk(), &meta(0, 0));
                disk.clear_faults();
                if let Ok((_, found)) = opened {
                    holds(&found, 2, &format!("seed {seed}"));
                }
                match dice.below(2) {
                    0 => disk.power_fail(),
                    _ => disk.process_kill(),
                }
            }
            let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            holds(&found, 2, &format!("seed {seed}"));
        }
    });
}

/// A log of two batches, and the file as a recovery that was broken off leaves it.
fn broken_off() -> (SimDisk, Vec<u8>) {
    let image = killed(Tail::Nothing);
    for nth in 1.. {
        let disk = torn_disk(nth);
        disk.restore(&image);
        assert!(is_broken_off(&disk, nth, "looking for the file"));
        if let Some(bytes) = disk.read(FILE) {
            return (disk, bytes);
        }
    }
    unreachable!()
}

fn put(disk: &SimDisk, bytes: &[u8]) {
    disk.disk().write_atomic(FILE, bytes).expect("written");
}

/// The beginning of the last record of [`broken_off`]'s log.
fn destroy_the_last_record(disk: &SimDisk) {
    let name = segments(disk).pop().expect("one");
    let bytes = disk.read(&name).expect("there");
    let records = bytes[8192..].chunks(512);
    let last = records.rev().position(|s| s.starts_with(b"BTCH"));
    let at = bytes.len() - (last.expect("a record") + 1) * 512;
    assert!(disk.overwrite(&name, at as u64, &[3; 1024]));
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let names = disk.files().into_iter().map(|(name, _)| name);
    names.filter(|name| name.ends_with(".seg")).collect()
}

#[test]
fn a_record_that_was_destroyed_is_written_from_the_file() {
    block_on_test(async {
        let (disk, _) = broken_off();
        destroy_the_last_record(&disk);
        let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
        holds(&found, 2, "restored");
        assert_eq!(found.torn, None);
        disk.power_fail();
        let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
        holds(&found, 2, "and synced");
    });
}

#[test]
fn a_garbled_file_is_ignored() {
    block_on_test(async {
        let (disk, bytes) = broken_off();
        let image = disk.image();
        let dense = |at: &usize| *at < 200 || at.is_multiple_of(37);
        let flipped = (0..bytes.len()).filter(dense).map(|at| {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << (at % 8);
            bytes
        });
        let cut = [0, 1, 19, 20, 30, 500, bytes.len() - 1].map(|len| bytes[..len].to_vec());
        for (n, garbled) in flipped.chain(cut).enumerate() {
            disk.restore(&image);
            put(&disk, &garbled);
            let (mut log, found) = open(&disk.disk(), &meta(0, 0)).expect("opens");
            holds(&found, 2, &format!("garbled {n}"));
            assert!(!has_file(&disk));
            append(&mut log, 3..=3);
            disk.power_fail();
            let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            holds(&found, 3, &format!("garbled {n}"));
        }
    });
}

/// It has its name only when it is synced, so it has rotted; and what is torn may be what it held.
#[test]
fn a_garbled_file_beside_a_torn_tail_is_damage() {
    block_on_test(async {
        let (disk, mut bytes) = broken_off();
        destroy_the_last_record(&disk);
        bytes[100] ^= 1;
        put(&disk, &bytes);
        let image = disk.image();
        for nth in 1.. {
            disk.restore(&image);
            disk.crash_at(nth);
            let _ = open(&disk.disk(), &meta(0, 0));
            let crashed = disk.crashed();
            disk.clear_faults();
            let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
            assert!(found.hard_state.abstain.is_some(), "operation {nth}");
            assert_eq!(found.entries.len(), 1);
            assert!(!has_file(&disk));
            if !crashed {
                break;
            }
        }
    });
}

/// However a file of an earlier start came back, it changes nothing.
#[test]
fn a_file_left_over_changes_nothing() {
    block_on_test(async {
        let (disk, bytes) = broken_off();
        let image = disk.image();
        let reopened = |what: &str, stamp: &SnapshotMeta| {
            let before = open(&disk.disk(), stamp).expect(what).1;
            disk.power_fail();
            put(&disk, &bytes);
            let files = segments(&disk);
            let contents: Vec<_> = files.iter().map(|f| disk.read(f)).collect();
            let after = open(&disk.disk(), stamp).expect(what).1;
            assert_eq!(after.entries, before.entries, "{what}");
            assert_eq!(after.hard_state, before.hard_state, "{what}");
            assert_eq!((after.damage, after.torn), (None, None), "{what}");
            let now: Vec<_> = files.iter().map(|f| disk.read(f)).collect();
            assert!(now == contents, "{what}: a segment has changed");
            assert!(!has_file(&disk), "{what}");
        };
        let start = || {
            disk.restore(&image);
            open(&disk.disk(), &meta(0, 0)).expect("opens").0
        };
        let zero = meta(0, 0);

        append(&mut start(), 3..=4);
        reopened("more in the same segment", &zero);

        append(&mut start(), 3..=12);
        assert!(segments(&disk).len() > 1);
        reopened("more segments", &zero);

        let mut log = start();
        append(&mut log, 3..=12);
        log.purge(&meta(9, 9)).expect("purges");
        while let Some(chore) = log.chore() {
            log.finished(chore.run()).expect("finished");
        }
        drop(log);
        assert!(!segments(&disk)[0].contains("0001.seg"));
        reopened("its segment is purged", &meta(9, 9));

        let stamp = meta(1, 1);
        let suffix = [entry(2, 7, b"another"), entry(3, 7, b"another")];
        let reset = start().reset(hard_state(7, None), &stamp, &suffix);
        reset.expect("resets");
        reopened("its segment is replaced", &stamp);

        // The same numbers, another id.
        disk.wipe();
        let (mut log, _) = open(&disk.disk(), &meta(0, 0)).expect("opens");
        append(&mut log, 1..=1);
        drop(log);
        reopened("another log", &zero);

        // No record in the newest segment.
        disk.wipe();
        drop(open(&disk.disk(), &meta(0, 0)).expect("opens"));
        reopened("an empty log", &zero);

        // No segment at all: the file makes no log, and hides none that is gone.
        disk.wipe();
        disk.disk().create_dir("log").expect("made");
        put(&disk, &bytes);
        assert!(!Log::exists(&disk.disk()).expect("looked"));
        open(&disk.disk(), &meta(5, 5))
            .map(|_| ())
            .expect_err("the log is gone");
        let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
        assert!(found.fresh && found.entries.is_empty() && !has_file(&disk));
    });
}
