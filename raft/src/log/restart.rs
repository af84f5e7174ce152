//! Beginning a chain of segments anew, and removing the old one.

use super::format::{self, DATA_START, Kind, RecordHeader, SECTOR, SegmentHeader};
use super::segment::{self, Active, DIR};
use super::{LogError, LogOptions, LogOwner, MAX_BATCH_BYTES, refuse};
use raft_protocol::{Entry, HardState, Index, SnapshotMeta};
use world::disk::Disk;

/// Entries kept at a reset are written in records of about this many bytes.
const RESET_RECORD_BYTES: usize = 1 << 20;
/// The smallest segment.
const MIN_SEGMENT_BYTES: u64 = DATA_START + 8 * SECTOR;

/// Length of a segment that must hold `span` bytes of records, when `free` bytes are free.
pub(super) fn segment_length(options: &LogOptions, free: u64, span: u64) -> u64 {
    let least = format::whole_sectors(DATA_START + span + SECTOR);
    format::whole_sectors(options.usual_length(free).max(MIN_SEGMENT_BYTES)).max(least)
}

/// Removes segments in the order given.
pub(super) fn remove(disk: &Disk, numbers: &[u64]) -> Result<(), LogError> {
    for number in numbers {
        disk.remove(&segment::name(*number))?;
    }
    if !numbers.is_empty() {
        disk.sync_dir(DIR)?;
    }
    Ok(())
}

/// A log that begins anew.
pub(super) struct Restart<'a> {
    /// Number of the new segment.
    pub number: u64,
    /// The last batch before.
    pub batch: u64,
    pub hard_state: HardState,
    /// Known to be committed, so far as it is kept.
    pub commit: Index,
    pub base: &'a SnapshotMeta,
    pub suffix: &'a [Entry],
}

impl Restart<'_> {
    /// Makes the new segment durable with all its contents in one step: it is nothing before its
    /// name is there and hides everything older afterwards. Returns it and the last batch number.
    pub fn write(
        &self,
        disk: &Disk,
        owner: LogOwner,
        options: &LogOptions,
    ) -> Result<(Active, u64), LogError> {
        let mut batch = self.batch + 1; // the reset counts as one: no other header has its number
        let mut records: Vec<&[Entry]> = Vec::new();
        let mut rest = self.suffix;
        while !rest.is_empty() {
            let mut bytes = 0;
            let full = |e: &Entry| {
                bytes += e.size();
                bytes > RESET_RECORD_BYTES
            };
            let n = rest.iter().position(full).unwrap_or(rest.len()).max(1);
            let (record, others) = rest.split_at(n);
            records.push(record);
            rest = others;
        }
        if !records.is_empty() {
            records.push(&[]); // proves the last one
        }
        let room = |r: &&[Entry]| {
            // Encoded numbers take at most ten bytes each.
            let bytes: usize = r.iter().map(|e| 2 * e.size() + 64).sum();
            format::whole_sectors(format::RECORD_HEADER as u64 + bytes as u64 + 64)
        };
        let header = SegmentHeader {
            owner,
            number: self.number,
            kind: Kind::Reset,
            length: segment_length(options, disk.free()?, records.iter().map(room).sum()),
            hard_state: self.hard_state,
            base: self.base.clone(),
            batch,
            last: (self.base.index, self.base.term),
        };
        let mut last = header.last;
        let mut new = segment::begin(disk, header, None)?;
        let mut buffer = Vec::new();
        for entries in records {
            let active = new.active();
            batch += 1;
            last = entries.last().map_or(last, |e| (e.index, e.term));
            let header = RecordHeader {
                body_len: 0,
                body_crc: 0,
                number: batch,
                hard_state: self.hard_state,
                commit: self.commit.max(self.base.index),
                last,
            };
            buffer.clear();
            let runs = [entries];
            let runs = if entries.is_empty() {
                &runs[..0]
            } else {
                &runs
            };
            if !format::encode_record(&mut buffer, active.id, active.end, header, None, runs) {
                return Err(refuse(format!(
                    "an entry is longer than {MAX_BATCH_BYTES} bytes"
                )));
            }
            active.file.write_all_at(&buffer, active.end)?;
            active.end += buffer.len() as u64;
            active.filled = active.end;
        }
        Ok((new.publish(disk)?, batch))
    }
}
