//! Values that contain perfect records of another segment id, at the very places where recovery
//! looks for records. Whoever writes a value may choose all its bytes; what it cannot know is the
//! random id of the segment that the value will lie in.

use super::format::{RECORD_HEADER, RecordHeader, SECTOR, encode_record};
use super::*;
use raft_protocol::{Abstain, Body, Configuration, SnapshotMeta};
use std::collections::BTreeMap;
use world::disk::{Image, SimDisk, SimDiskOptions};
use world::testing::block_on_test;

const OWNER: LogOwner = LogOwner {
    group: 1,
    node: 2,
    disk: 3,
};
/// Sectors of the crafted value.
const SECTORS: u64 = 24;
/// The term that the forger would like.
const EVIL: u64 = 1_000_000;
/// The file that holds everything here after the first two batches.
const FILE: &str = "log/0000000000000002.seg";

fn stamp() -> SnapshotMeta {
    SnapshotMeta {
        configuration: Configuration {
            voters: BTreeMap::from([(1, 10), (2, 3), (3, 30)]),
            ..Configuration::default()
        },
        ..SnapshotMeta::default()
    }
}

fn open(disk: &SimDisk) -> (Log, Recovered) {
    let options = LogOptions {
        segment_bytes: 64 << 10,
        fill_bytes: 4 << 10,
        recover_bytes: 0,
        reserve_bytes: 0,
    };
    Log::open(&disk.disk(), OWNER, options, &stamp()).expect("the log opens")
}

fn entry(index: u64, payload: &[u8]) -> Entry {
    Entry {
        term: 3,
        index,
        body: Body::Command(payload.into()),
    }
}

fn hard_state() -> HardState {
    HardState {
        term: 3,
        vote: Some(2),
        abstain: None,
    }
}

fn append(log: &mut Log, entry: Entry) -> u64 {
    let at = log.active.end;
    log.append(&Batch {
        commit: 0,
        hard_state: hard_state(),
        runs: vec![vec![entry]],
    })
    .expect("append");
    at
}

/// Where in its record a value of this length begins.
fn value_begins(index: u64, len: usize) -> usize {
    let marked = entry(index, &vec![0xEE; len]);
    let header = RecordHeader {
        body_len: 0,
        body_crc: 0,
        number: 1,
        hard_state: hard_state(),
        commit: 0,
        last: (index, 3),
    };
    let mut bytes = Vec::new();
    assert!(encode_record(&mut bytes, 7, 0, header, None, &[&[marked]]));
    let found = bytes.windows(16).position(|w| w == [0xEE; 16]);
    found.expect("the value is in it")
}

/// A value that will lie behind `at` + header, and in every sector of it a record that would be
/// read there if `id` were the segment's. `number` of the n-th.
fn crafted(id: u128, index: u64, at: u64, number: impl Fn(u64) -> u64) -> Vec<u8> {
    let len = (SECTORS * SECTOR) as usize;
    let begin = value_begins(index, len);
    let mut value = vec![b'.'; len];
    for n in 1..SECTORS {
        let offset = at + n * SECTOR;
        let header = RecordHeader {
            body_len: 0,
            body_crc: 0,
            number: number(n),
            hard_state: HardState {
                term: EVIL,
                vote: Some(3),
                abstain: None,
            },
            commit: 0,
            last: (index, EVIL),
        };
        let mut evil = entry(index, b"evil");
        evil.term = EVIL;
        let mut record = Vec::new();
        assert!(encode_record(
            &mut record,
            id,
            offset,
            header,
            None,
            &[&[evil]]
        ));
        assert!(record.len() as u64 <= SECTOR);
        assert!(RecordHeader::decode(id, offset, &record).is_some());
        let place = (n * SECTOR) as usize - begin;
        value[place..place + record.len()].copy_from_slice(&record);
    }
    value
}

/// Two segments; the second begins with an ordinary batch, then the crafted value, then
/// `behind` more batches.
struct Made {
    disk: SimDisk,
    image: Image,
    entries: Vec<Entry>,
    /// Where in [`FILE`] each of its batches lies.
    places: Vec<u64>,
}

/// `older`: the forger knows the id of the segment before this one; otherwise it takes 0.
fn make(older: bool, behind: u64, number: impl Fn(u64, u64) -> u64) -> Made {
    let disk = SimDisk::new("forged", 1, SimDiskOptions::default());
    let (mut log, _) = open(&disk);
    let id = if older { log.active.id } else { 0 };
    let mut entries = Vec::new();
    let mut places = Vec::new();
    let mut put = |log: &mut Log, make: &dyn Fn(u64, u64, u64) -> Entry| {
        // Where it lies is known before: it is where the log ends, or at a segment's beginning.
        let entry = make(entries.len() as u64 + 1, log.active.end, log.batch + 1);
        entries.push(entry.clone());
        append(log, entry)
    };
    let first = log.active.number;
    while log.active.number == first {
        put(&mut log, &|index, _, _| entry(index, &[b'a'; 6000]));
    }
    places.push(super::format::DATA_START);
    let craft = |index, at, batch| entry(index, &crafted(id, index, at, |n| number(batch, n)));
    places.push(put(&mut log, &craft));
    for _ in 0..behind {
        places.push(put(&mut log, &|index, _, _| entry(index, b"ordinary")));
    }
    assert_eq!(log.active.number, first + 1, "all of it in one segment");
    drop(log);
    disk.power_fail();
    Made {
        image: disk.image(),
        disk,
        entries,
        places,
    }
}

impl Made {
    /// As if the power had failed before these bytes reached the disk.
    fn lose(&self, from: u64, len: u64) {
        let zeros = vec![0; len as usize];
        assert!(self.disk.overwrite(FILE, from, &zeros));
    }
}

/// All the numbers that a forger might choose: the next, later ones, its place's.
fn numbers() -> [fn(u64, u64) -> u64; 4] {
    [
        |batch, _| batch,
        |batch, _| batch + 1,
        |batch, n| batch + n,
        |_, _| u64::MAX,
    ]
}

fn everywhere(behind: u64, check: impl Fn(&Made) + 'static) {
    block_on_test(async move {
        for older in [true, false] {
            for number in numbers() {
                let made = make(older, behind, number);
                check(&made);
            }
        }
    });
}

#[test]
fn an_intact_value_is_read_back_as_a_value() {
    everywhere(2, |made| {
        let (_, found) = open(&made.disk);
        assert_eq!((found.torn, found.damage), (None, None));
        assert_eq!(found.entries, made.entries);
        assert_eq!(found.hard_state, hard_state());
    });
}

/// The last batch is torn wherever it may be; the records inside the value, all there, neither
/// are read as batches nor prove that something synced is gone.
#[test]
fn a_torn_value_is_an_ordinary_power_cut() {
    everywhere(0, |made| {
        let whole = made.entries.len();
        for lost in 0..SECTORS {
            made.disk.restore(&made.image);
            made.lose(made.places[1] + lost * SECTOR, SECTOR);
            let (log, found) = open(&made.disk);
            assert!(found.torn.is_some(), "sector {lost}: it is torn");
            assert_eq!(found.damage, None, "sector {lost}");
            assert_eq!(found.entries, made.entries[..whole - 1]);
            assert_eq!(found.hard_state, hard_state());
            assert_eq!(
                (log.active.end, log.last),
                (made.places[1], (whole as u64 - 1, 3))
            );
        }
    });
}

/// A batch before the value is damaged: what the node is known to have had is told by its own
/// headers, not by those in the value.
#[test]
fn damage_is_not_judged_by_what_a_value_says() {
    everywhere(2, |made| {
        made.lose(made.places[0], SECTOR);
        let (_, found) = open(&made.disk);
        assert!(found.damage.is_some());
        let abstain = Abstain {
            term: 3,
            index: made.entries.len() as u64,
        };
        let expected = HardState {
            abstain: Some(abstain),
            ..hard_state()
        };
        assert_eq!(found.hard_state, expected);
        let evil = |e: &Entry| e.term == EVIL;
        assert!(!found.entries.iter().any(evil));
    });
}

/// The record's place is part of it: bytes of this very segment, under its own id, are no record
/// where they do not belong. (A value that holds what was read off the disk, and lies in the same
/// segment.)
#[test]
fn a_record_copied_into_a_value_is_none() {
    block_on_test(async {
        let disk = SimDisk::new("copied", 1, SimDiskOptions::default());
        let (mut log, _) = open(&disk);
        let first = append(&mut log, entry(1, b"ordinary"));
        let file = super::segment::name(log.active.number);
        let record = disk.read(&file).expect("there")[first as usize..][..SECTOR as usize].to_vec();
        let at = log.active.end;
        let begin = value_begins(2, (SECTORS * SECTOR) as usize);
        let mut value = vec![b'.'; (SECTORS * SECTOR) as usize];
        for n in 1..SECTORS {
            let place = (n * SECTOR) as usize - begin;
            value[place..place + SECTOR as usize - RECORD_HEADER]
                .copy_from_slice(&record[..SECTOR as usize - RECORD_HEADER]);
        }
        append(&mut log, entry(2, &value));
        drop(log);
        disk.power_fail();
        assert!(disk.overwrite(&file, at, &[0; SECTOR as usize]));
        let (_, found) = open(&disk);
        assert!(found.torn.is_some());
        assert_eq!(found.damage, None);
        assert_eq!(found.entries, [entry(1, b"ordinary")]);
    });
}
