//! Reading a log back beside its appends, and what a start leaves unread of it.

mod log_support;

use log_support::{Rng, entry, hard_state, meta, open};
use raft::log::{Batch, Log, LogError};
use raft_protocol::{Entry, Fetch};
use world::disk::{SimDisk, SimDiskOptions};
use world::testing::block_on_test;

fn disk() -> SimDisk {
    SimDisk::new("read", 1, SimDiskOptions::default())
}

fn append(log: &mut Log, term: u64, indices: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
    let run: Vec<Entry> = indices.map(|i| entry(i, term, &[i as u8; 900])).collect();
    let batch = Batch {
        commit: 0,
        hard_state: hard_state(term, None),
        runs: vec![run.clone()],
    };
    log.append(&batch).expect("appends");
    run
}

fn fetch(after: u64, terms: &[(u64, u64)], max_bytes: usize) -> Fetch {
    Fetch {
        to: 2,
        after,
        terms: terms.to_vec(),
        max_bytes,
    }
}

/// A log of thirty batches of ten entries.
fn of_tens(disk: &SimDisk) -> Log {
    let (mut log, _) = open(&disk.disk(), &meta(0, 0)).expect("opens");
    for n in 0..30 {
        append(&mut log, 1, 10 * n + 1..=10 * n + 10);
    }
    log
}

/// Its segments: each holds ten entries (but for the very first one, which is too short and left out).
fn segments_of_tens(disk: &SimDisk) -> Vec<String> {
    let mut names: Vec<String> = disk.files().into_iter().map(|(name, _)| name).collect();
    names.split_off(names.len() - 30)
}

/// Entries of three terms over several segments, replaced in part by later ones: whoever asks for a
/// term gets the entry of that term, from wherever the reading begins.
#[test]
fn what_was_replaced_is_not_read() {
    block_on_test(async {
        let disk = disk();
        let (mut log, _) = open(&disk.disk(), &meta(0, 0)).expect("opens");
        let mut held = append(&mut log, 1, 1..=30);
        held.truncate(19);
        append(&mut log, 2, 20..=60); // replaced as a whole
        held.extend(append(&mut log, 3, 20..=25));
        held.extend(append(&mut log, 3, 26..=90));
        assert!(disk.files().len() > 4, "several segments");
        let terms = [(19, 1), (90, 3)];
        let reader = log.reader();
        for after in 0..90 {
            let (entries, _) = reader
                .read(&fetch(after, &terms, 5000), None)
                .expect("reads");
            let expected = &held[after as usize..];
            let n = expected.len().min(5000 / expected[0].size());
            assert_eq!(entries, expected[..n], "behind {after}");
        }
        assert_eq!(
            reader.read(&fetch(90, &terms, 1), None).expect("reads").0,
            []
        );
        // One after the other, each from where the one before ended.
        let mut rng = Rng(7);
        let (mut all, mut place) = (Vec::new(), None);
        while all.len() < held.len() {
            let max_bytes = rng.between(1, 9000) as usize;
            let fetch = fetch(all.len() as u64, &terms, max_bytes);
            let (entries, reached) = reader.read(&fetch, place).expect("reads");
            assert!(!entries.is_empty());
            all.extend(entries);
            place = reached;
        }
        assert_eq!(all, held);
    });
}

/// The header of a record has rotted: what is before it is read, what is in it is missed at the next
/// record, and the rest of the log, which may be long, is not searched for it.
#[test]
fn what_is_missing_is_missed_at_the_next_record() {
    block_on_test(async {
        let disk = disk();
        let mut log = of_tens(&disk);
        let (reader, read) = (log.reader(), [(300, 1)]);
        // Segments behind the one that is asked for are not there to be opened.
        let names = segments_of_tens(&disk);
        disk.flip_bit(&names[10], 8192 + 20, 3);
        for name in &names[12..] {
            disk.disk().remove(name).expect("removed");
        }
        let whole = |after| reader.read(&fetch(after, &read, 1 << 20), None);
        let (entries, place) = whole(90).expect("reads");
        let found: Vec<u64> = entries.iter().map(|e| e.index).collect();
        assert_eq!((found, place), ((91..=100).collect(), None));
        match whole(100) {
            Err(LogError::Damaged { reason, .. }) => {
                assert_eq!(reason, "entry 101 is not in the log");
            }
            other => panic!("{:?}", other.map(|(entries, _)| entries.len())),
        }
        append(&mut log, 1, 301..=301);
    });
}

/// What is removed meanwhile is no damage; what has rotted is, and is not sent to anybody.
#[test]
fn what_is_gone_is_told_from_what_is_damaged() {
    block_on_test(async {
        let disk = disk();
        let (mut log, _) = open(&disk.disk(), &meta(0, 0)).expect("opens");
        append(&mut log, 1, 1..=20);
        append(&mut log, 1, 21..=60);
        append(&mut log, 1, 61..=100);
        let reader = log.reader();
        let read = |after| reader.read(&fetch(after, &[(100, 1)], 1 << 20), None);
        assert_eq!(read(0).expect("reads").0.len(), 100);
        // (The very first segment is empty: a batch is longer than it.)
        let (first, _) = disk.files().swap_remove(1);
        disk.flip_bit(&first, 9000, 3);
        match read(0) {
            Err(LogError::Damaged { path, reason }) => {
                assert!(path.ends_with(&first), "{}", path.display());
                assert_eq!(reason, "the record at byte 8192 is unreadable");
            }
            other => panic!("{:?}", other.map(|(entries, _)| entries.len())),
        }
        log.purge(&meta(20, 1)).expect("purges");
        while let Some(chore) = log.chore() {
            let ended = chore.run();
            log.finished(ended).expect("removes");
        }
        assert_eq!(read(0).expect("gone").0, []);
        assert_eq!(read(20).expect("reads").0.len(), 80);
    });
}

/// A log that was kept long for a follower is not read whole at the next start: what the state holds
/// goes unread, but for the newest segments, and is removed once the new base is durable.
#[test]
fn a_start_leaves_unread_what_the_state_holds() {
    block_on_test(async {
        let disk = disk();
        drop(of_tens(&disk));
        let image = disk.image();
        let files = disk.files().len();
        assert!(files > 15, "{files} segments");
        let (first, _) = disk.files().swap_remove(0);
        for (seed, crash) in (1..40).map(|n| (n, n % 20)) {
            let disk = SimDisk::new("read", seed, SimDiskOptions::default());
            disk.restore(&image);
            // It is not even looked at.
            disk.flip_bit(&first, 9000, 3);
            if crash > 0 {
                disk.crash_at(crash);
                if let Err(error) = open(&disk.disk(), &meta(250, 1)) {
                    assert!(disk.crashed(), "{error}");
                }
                disk.power_fail();
                disk.clear_faults();
            }
            let (mut log, found) = open(&disk.disk(), &meta(250, 1)).expect("opens");
            assert_eq!((&found.damage, &found.torn), (&None, &None), "{crash}");
            assert!((200..250).contains(&found.base.index), "{:?}", found.base);
            assert_eq!(found.base.term, 1);
            let last = found.entries.last().map(|e| e.index);
            assert_eq!(last, Some(300));
            assert_eq!(found.entries[0].index, found.base.index + 1);
            assert!(disk.files().len() < 10, "{} segments", disk.files().len());
            // All that was said is durable, and holds without what was removed.
            drop(log);
            disk.power_fail();
            let (again, at_once) = open(&disk.disk(), &meta(250, 1)).expect("opens");
            assert_eq!(at_once.damage, None);
            assert_eq!(at_once.base, found.base);
            assert_eq!(at_once.entries, found.entries);
            log = again;
            append(&mut log, 1, 301..=302);
            drop(log);
            disk.power_fail();
            let again = open(&disk.disk(), &meta(250, 1)).expect("opens").1;
            assert_eq!(again.damage, None);
            assert_eq!(again.base.index, found.base.index);
            assert_eq!(again.entries.len(), found.entries.len() + 2);
        }
        // Without a state all of it counts.
        let disk = SimDisk::new("read", 1, SimDiskOptions::default());
        disk.restore(&image);
        let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
        assert_eq!((found.base.index, found.entries.len()), (0, 300));
    });
}

/// What is missing behind the state was synced and is lost, however much before it goes unread; what is
/// missing before the state's end is not missed.
#[test]
fn a_gap_behind_the_state_is_damage_although_a_start_reads_little() {
    block_on_test(async {
        let disk = disk();
        drop(of_tens(&disk));
        let image = disk.image();
        let names = segments_of_tens(&disk);
        for (gone, name) in names.iter().enumerate().take(29).skip(20) {
            disk.restore(&image);
            disk.disk().remove(name).expect("removed");
            let (log, found) = open(&disk.disk(), &meta(255, 1)).expect("opens");
            drop(log);
            let first = 10 * gone as u64 + 1;
            if first + 9 <= 255 {
                assert_eq!(found.damage, None, "{gone}");
                assert_eq!(found.entries.last().map(|e| e.index), Some(300));
                continue;
            }
            assert!(found.damage.is_some(), "{gone}");
            let abstain = found.hard_state.abstain.expect("it abstains");
            assert_eq!(abstain.index, 300);
            let last = found.entries.last().map_or(found.base.index, |e| e.index);
            assert_eq!(last, (first - 1).max(255), "{gone}: what is before the gap");
        }
        // A snapshot was installed and the log not yet reset: past its end, or of another term.
        for stamp in [meta(400, 2), meta(295, 2)] {
            disk.restore(&image);
            let found = open(&disk.disk(), &stamp).expect("opens").1;
            assert_eq!((found.damage, found.base), (None, stamp));
            assert_eq!(found.entries, []);
        }
    });
}
