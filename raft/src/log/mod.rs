//! The log on disk: segment files of checksummed batches.
//!
//! # The bytes
//!
//! ```text
//! log/0000000000000007.seg                        numbers in sequence, 16 decimal digits
//! log/new.tmp, log/spare.tmp                      not yet part of the log; removed at start
//! log/last-record                                 only while a recovery is under way
//!
//! segment:  | header | header again | record | record | … | zeros … |
//!           0        4096           8192     (each at a multiple of 512)   length
//!
//! header:   0 "HOLDFLOG"   8 format version u32   12 body length u32   16 segment id u128
//!           32 crc32 u32   36 body, zero-padded to 4096
//!   body    postcard of a versioned enum: owner (group, node, disk), number, kind (normal or
//!           reset), length of the file, hard state, log base, and, before the first record,
//!           the batch number and the last (index, term)
//!
//! record:   0 "BTCH"             4 crc32 of the header's rest     8 body length u32
//!           12 crc32 of the body 16 batch number   24 term        32 vote (0: none)
//!           40 abstains (0 or 1) 48 its term       56 its index   64 last index after it
//!           72 its term          80 its own offset 88 commit      96 body, zero-padded to 512
//!   body    postcard of a versioned enum: a new base, if any; runs of entries
//!
//! last-record: 0 "HFRECORD"    8 format version u32   12 body length u32   16 crc32 u32   20 body
//!   body    postcard of a versioned enum: a segment's number and id, an offset in it; then the
//!           record that lies there
//! ```
//!
//! Numbers are little endian. Every crc32 in a segment begins with its random id, so that a value
//! chosen by a client, which may contain what looks like a record, is not taken for one.
//!
//! # How it is written
//!
//! One batch is one record, one write and one fdatasync, begun only after the one before had
//! returned. So a power failure can hurt the last record alone. Files are append-only: a
//! conflicting suffix is superseded by a later batch and never cut in place. A file has its full
//! length, and the space next to be used is zeros (written ahead by a [`Chore`], or by
//! [`Log::prepare`]), so that a sync changes no metadata. A file becomes part of the log by a rename after its header is
//! synced, and is used only after the directory is synced too.
//!
//! # How it is read
//!
//! A record that is missing or bad is a *torn tail* if nothing valid was written after it: it is
//! overwritten with zeros, and the zeros synced, before anything is appended. If a later record
//! header, or a later segment, is valid, the bad record was synced once: this is *damage*. The log is then cut there and the node abstains from voting until its
//! log matches a leader's again; cut and abstention are one new segment that hides the older
//! ones from the moment of its rename. A crash before that finds the damage again.
//!
//! The last record may have been read from a page that the kernel shows and never wrote (a sync of
//! it failed), so recovery writes it once more in its place. Until that is synced its bytes are kept
//! in a file beside the segments, `last-record`, from which the next recovery writes them if this one
//! is broken off; the file is gone, durably, before the log opens. It is renamed into place whole:
//! one that is unreadable has rotted, and then a torn tail may be that record, and is damage. A start
//! needs that much room on the disk, once what was not yet part of the log is removed.
//!
//! When no term can be known any more (the newest segment holds data and both copies of its
//! header are unreadable, it was truncated, or all segments are gone though the state says there
//! was a log), the log refuses to open. Abstaining is not enough then: 1 (leader of term 4) is cut
//! off, 2 and this node commit an entry of term 5; this node comes back believing in term 3 and
//! acknowledges to 1 another entry at that index.
//!
//! What the state holds durably need not be read: a start opens the newest segments that hold nothing
//! else, [`LogOptions::recover_bytes`] of them, and removes the older ones once a record with the base
//! that follows from that is synced.
//!
//! While the log is written, a [`LogReader`] reads entries of it for followers. An index may lie in it
//! several times, where a suffix was replaced: the entry of the term that is asked for counts, of which
//! there is one (§5.3, Log Matching).
//!
//! # Assumptions
//!
//! - A sector of 512 bytes is written wholly or not at all, or reads back as neither, whatever it
//!   held before; a write leaves other sectors alone. So synced bytes that are the only copy are
//!   never overwritten.
//! - What fdatasync, or a directory's fsync, confirmed survives a power failure.
//! - After a failed write or sync nothing is known: the log is not used again.
//! - Rot in the very last record, with nothing written after it, cannot be told from a torn write.
//!   [`Log::seal`] makes the data of an idle log provable.

mod chore;
mod format;
mod reader;
mod recover;
mod replay;
mod restart;
mod room;
mod segment;
mod twice;

pub use chore::{Chore, Finished};
pub use format::MAX_BATCH_BYTES;
pub use reader::{LogReader, Place};

use format::{Kind, Point, RecordHeader, SegmentHeader};
use raft_protocol::{Entry, HardState, Index, SnapshotMeta};
use restart::{Restart, remove, segment_length};
use segment::{Active, Spare};
use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use world::disk::Disk;

/// The encoding buffer keeps at most this much between appends.
const BUFFER_BYTES: usize = 4 << 20;
/// Bytes of a record besides its entries, as they are counted, if no base is in it.
const SLACK: usize = 1 << 10;

/// Fixed numbers of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Length of a segment file; one is made longer only for a batch that would not fit.
    pub segment_bytes: u64,
    /// Zero-filled ahead in steps of this many bytes.
    pub fill_bytes: u64,
    /// Of the segments that hold nothing but what the state holds durably, a start keeps the newest
    /// ones of about this many bytes; the older ones it removes unread.
    pub recover_bytes: u64,
    /// With fewer bytes than this free on the disk, nothing is made ahead (no spare segment, no
    /// zeros), and a segment is an eighth of what is free, at least 1 MiB.
    pub reserve_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            segment_bytes: 16 << 20,
            fill_bytes: 1 << 20,
            recover_bytes: 64 << 20,
            reserve_bytes: 64 << 20,
        }
    }
}

/// Identities in every segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogOwner {
    /// The replica group.
    pub group: u64,
    /// The node.
    pub node: u64,
    /// The disk id.
    pub disk: u128,
}

/// One batch: what one sync makes durable.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Hard state from this batch on.
    pub hard_state: HardState,
    /// Entries through here are committed, and in this batch or in earlier ones.
    pub commit: Index,
    /// Runs of consecutive entries, in the order written; each run replaces everything at and
    /// behind its first index.
    pub runs: Vec<Vec<Entry>>,
}

/// What a log was found to hold. All of it is synced.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Term, vote and abstention.
    pub hard_state: HardState,
    /// The highest [`Batch::commit`] of what was kept: entries through here are committed.
    pub commit: Index,
    /// The log's base.
    pub base: SnapshotMeta,
    /// Entries behind the base, consecutive.
    pub entries: Vec<Entry>,
    /// True when the directory held no log.
    pub fresh: bool,
    /// A torn tail was cut here (an ordinary power failure): what and where.
    pub torn: Option<String>,
    /// Synced data were found damaged, and cut: path and reason. `hard_state.abstain` is set.
    pub damage: Option<String>,
}

/// Why the log cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file is not what it should be and recovery cannot prove what was there.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The segments belong to another node.
    #[error("{path} belongs to {found:?}, not to {expected:?}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: LogOwner,
        /// What was asked for.
        expected: LogOwner,
    },
    /// The disk failed; the log must not be used again.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// A segment that is no longer written to.
#[derive(Clone, Copy, Debug)]
struct Closed {
    number: u64,
    /// The log's last index at its end.
    last: u64,
    /// Bytes used.
    bytes: u64,
}

/// The log of one replica, in directory `log/` of its disk. Every method blocks and belongs in a
/// job.
pub struct Log {
    disk: Disk,
    owner: LogOwner,
    options: LogOptions,
    closed: VecDeque<Closed>,
    active: Active,
    /// What readers know of these.
    extents: reader::Extents,
    spare: Option<Spare>,
    /// Segments to be removed: below the base.
    obsolete: Vec<u64>,
    /// A chore is under way.
    busy: bool,
    /// Bytes that were free on the disk when that was last looked at: before each write.
    free: u64,
    /// There was no room for a spare; not tried again before something changes.
    no_spare: bool,
    hard_state: HardState,
    /// Known to be committed.
    commit: Index,
    base: SnapshotMeta,
    /// Last index and term.
    last: Point,
    /// Number of the last batch.
    batch: u64,
    /// Nothing was appended since the last empty batch.
    sealed: bool,
    /// The first error; nothing is done after it.
    failed: Option<String>,
    buffer: Vec<u8>,
}

impl Log {
    /// Opens, recovers and syncs what it keeps. `stamp` is what the durable state covers
    /// (index 0 on a fresh disk): needed to decide about a kept suffix and about lost state.
    ///
    /// When the log ends before the stamp, or has another term at its index (a crash between
    /// installing a snapshot and the reset of the log), it restarts empty behind the stamp. When
    /// it reaches through the stamp with the same term, it is kept as it is. When `stamp` lies
    /// below the returned base, the state is older than what the log still holds: it is lost.
    pub fn open(
        disk: &Disk,
        owner: LogOwner,
        options: LogOptions,
        stamp: &SnapshotMeta,
    ) -> Result<(Log, Recovered), LogError> {
        let (mut log, recovered) = recover::open(disk, owner, options, stamp)?;
        log.free = disk.free()?;
        log.tell_readers();
        Ok((log, recovered))
    }

    /// Whether the directory holds any segment. Makes nothing.
    pub fn exists(disk: &Disk) -> Result<bool, LogError> {
        disk.create_dir(segment::DIR)?;
        let files = disk.list(segment::DIR)?;
        Ok(files.iter().any(|file| segment::number(file).is_some()))
    }

    /// Appends one batch and syncs it. At most [`MAX_BATCH_BYTES`] encoded.
    pub fn append(&mut self, batch: &Batch) -> Result<(), LogError> {
        self.guarded(|log| {
            let runs: Vec<&[Entry]> = batch.runs.iter().map(Vec::as_slice).collect();
            log.commit = log.commit.max(batch.commit);
            log.write(batch.hard_state, None, &runs)?;
            log.sealed = false;
            Ok(())
        })
    }

    /// Starts afresh behind `base` with `suffix`: a new segment of kind reset, synced, directory
    /// synced, then the older ones are removed.
    pub fn reset(
        &mut self,
        hard_state: HardState,
        base: &SnapshotMeta,
        suffix: &[Entry],
    ) -> Result<(), LogError> {
        self.guarded(|log| {
            let kept = suffix.last().map_or(base.index, |e| e.index);
            log.commit = log.commit.min(kept).max(base.index);
            let after = Restart {
                commit: log.commit,
                number: log.active.number + 1,
                batch: log.batch,
                hard_state,
                base,
                suffix,
            };
            let (active, batch) = after.write(&log.disk, log.owner, &log.options)?;
            let mut old: Vec<u64> = log.closed.iter().map(|c| c.number).collect();
            old.push(log.active.number);
            log.closed.clear();
            log.active = active;
            log.batch = batch;
            log.hard_state = hard_state;
            log.base = base.clone();
            log.tell_readers();
            log.last = suffix
                .last()
                .map_or((base.index, base.term), |e| (e.index, e.term));
            log.sealed = true;
            remove(&log.disk, &old)
        })
    }

    /// The state covers everything through `base.index` durably: segments that lie wholly below
    /// are no part of the log any more, and a [`Log::chore`] removes them, oldest first. The base
    /// is durable before the first one goes. Entries at and below it may remain on disk; the base
    /// is then remembered for the next segment's header.
    pub fn purge(&mut self, base: &SnapshotMeta) -> Result<(), LogError> {
        self.guarded(|log| {
            if base.index <= log.base.index || base.index > log.last.0 {
                return Ok(());
            }
            let covered = |c: &&Closed| c.last <= base.index;
            let old: Vec<u64> = log
                .closed
                .iter()
                .take_while(covered)
                .map(|c| c.number)
                .collect();
            log.base = base.clone();
            if old.is_empty() {
                return Ok(());
            }
            world::mark!("log: old segments are purged");
            log.write(log.hard_state, Some(base), &[])?;
            log.sealed = true; // an empty batch proves what came before it
            log.closed.drain(..old.len());
            log.tell_readers();
            log.obsolete.extend(old);
            Ok(())
        })
    }

    /// Writes one empty batch so that the last data at rest are provable; once per idle period
    /// (nothing happens when nothing was appended since).
    pub fn seal(&mut self) -> Result<(), LogError> {
        self.guarded(|log| {
            if !log.sealed {
                log.write(log.hard_state, None, &[])?;
                log.sealed = true;
            }
            Ok(())
        })
    }

    /// True when [`Log::prepare`] has something to do.
    pub fn prepare_due(&self) -> bool {
        self.failed.is_none() && self.fill_due()
    }

    /// Zero-fills the file in use ahead, if it is due: one step of [`LogOptions::fill_bytes`] with
    /// its sync per call, between appends. Only a file that did not wait full as a spare needs it:
    /// the first after a start, and one that was needed too soon.
    pub fn prepare(&mut self) -> Result<(), LogError> {
        self.guarded(|log| {
            if log.fill_due() {
                let active = &mut log.active;
                let n = log.options.fill_bytes.min(active.length - active.filled);
                segment::zero(&active.file, active.filled, n)?;
                active.file.sync_data()?;
                active.filled += n;
            }
            Ok(())
        })
    }

    /// For reading entries beside the appends.
    pub fn reader(&self) -> LogReader {
        LogReader {
            disk: self.disk.clone(),
            owner: self.owner,
            extents: self.extents.clone(),
        }
    }

    fn tell_readers(&self) {
        let (base, active) = (self.base.index, self.active.number);
        self.extents.set(base, &self.closed, active);
    }

    /// Bytes used in all segment files.
    pub fn bytes(&self) -> u64 {
        self.closed.iter().map(|c| c.bytes).sum::<u64>() + self.active.end
    }

    /// Bytes that were free on the disk at the last write.
    pub fn free(&self) -> u64 {
        self.free
    }

    fn fill_due(&self) -> bool {
        let a = &self.active;
        let short = self.options.is_short(self.free);
        !short && a.filled < a.length && a.filled - a.end < self.options.fill_bytes
    }

    /// After the first error nothing is known about the files: no retry may turn into an
    /// acknowledgement.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Log) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        if let Some(first) = &self.failed {
            let why = format!("the log is not used after its first error: {first}");
            return Err(io::Error::other(why).into());
        }
        let done = work(self);
        if let Err(error) = &done {
            self.failed = Some(error.to_string());
        }
        done
    }

    /// Writes one record and syncs it.
    fn write(
        &mut self,
        hard_state: HardState,
        base: Option<&SnapshotMeta>,
        runs: &[&[Entry]],
    ) -> Result<(), LogError> {
        let mut last = self.last;
        for run in runs.iter().filter(|run| !run.is_empty()) {
            let first = run[0].index;
            let consecutive = run.windows(2).all(|w| w[1].index == w[0].index + 1);
            if first <= self.base.index || first > last.0 + 1 || !consecutive {
                return Err(refuse(format!(
                    "entries from {first} do not continue a log of {} to {}",
                    self.base.index, last.0
                )));
            }
            last = run.last().map_or(last, |e| (e.index, e.term));
        }
        let header = RecordHeader {
            body_len: 0,
            body_crc: 0,
            number: self.batch + 1,
            hard_state,
            commit: self.commit,
            last,
        };
        let mut span = self.encode(&header, base, runs)?;
        self.free = self.disk.free()?;
        if self.is_used_up(span) {
            self.roll(span)?;
            span = self.encode(&header, base, runs)?; // its place and key are others now
        }
        let active = &mut self.active;
        active.file.write_all_at(&self.buffer, active.end)?;
        active.file.sync_data()?;
        active.end += span;
        active.filled = active.filled.max(active.end);
        match self.buffer.capacity() {
            ..=BUFFER_BYTES => self.buffer.clear(),
            _ => self.buffer = Vec::new(),
        }
        self.batch += 1;
        self.hard_state = hard_state;
        self.last = last;
        Ok(())
    }

    fn encode(
        &mut self,
        header: &RecordHeader,
        base: Option<&SnapshotMeta>,
        runs: &[&[Entry]],
    ) -> Result<u64, LogError> {
        self.buffer.clear();
        // All at once: growing, it would become up to twice as long.
        let entries = runs.iter().copied().flatten().map(Entry::size);
        self.buffer.reserve_exact(SLACK + entries.sum::<usize>());
        let Active { id, end, .. } = self.active;
        if format::encode_record(&mut self.buffer, id, end, header.clone(), base, runs) {
            Ok(self.buffer.len() as u64)
        } else {
            Err(refuse(format!(
                "a batch is longer than {MAX_BATCH_BYTES} bytes"
            )))
        }
    }

    /// Whether a record of `span` bytes belongs in the next segment: the one in use has no room for
    /// it, or is longer than one should be on a disk that has become short.
    fn is_used_up(&self, span: u64) -> bool {
        let Active { end, length, .. } = self.active;
        let used = end > format::DATA_START && self.options.is_short(self.free);
        end + span > length || (used && end + span > self.options.usual_length(self.free))
    }

    /// Goes on in a new segment with room for a record of `span` bytes.
    fn roll(&mut self, span: u64) -> Result<(), LogError> {
        let length = segment_length(&self.options, self.free, span);
        let header = SegmentHeader {
            owner: self.owner,
            number: self.active.number + 1,
            kind: Kind::Normal,
            length,
            hard_state: self.hard_state,
            base: self.base.clone(),
            batch: self.batch,
            last: self.last,
        };
        let spare = self.spare.take_if(|spare| spare.length >= length);
        let next = segment::begin(&self.disk, header, spare)?.publish(&self.disk)?;
        self.closed.push_back(Closed {
            number: self.active.number,
            last: self.last.0,
            bytes: self.active.end,
        });
        self.active = next;
        self.tell_readers();
        self.no_spare = false;
        Ok(())
    }
}

/// An append that the caller should not have made.
fn refuse(why: String) -> LogError {
    io::Error::new(io::ErrorKind::InvalidInput, why).into()
}

#[cfg(test)]
#[path = "forged_tests.rs"]
mod forged_tests;
