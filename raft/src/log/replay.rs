//! Reading consecutive segments: what they hold, where they end, and why there.

use super::format::{self, DATA_START, Point, RecordHeader, SECTOR};
use super::segment::{self, Found};
use super::{Closed, LogError};
use raft_protocol::{Entry, HardState, Index, SnapshotMeta, Term};
use std::ops::Range;
use std::path::Path;
use world::disk::Disk;

/// The log as far as it was read.
pub(super) struct Chain {
    /// The point before the first entry; its term is 0 when it is not known.
    pub start: Point,
    pub base: SnapshotMeta,
    pub entries: Vec<Entry>,
    pub hard_state: HardState,
    /// The highest that a record says.
    pub commit: Index,
    pub batch: u64,
}

impl Chain {
    pub fn last(&self) -> Point {
        self.entries
            .last()
            .map_or(self.start, |e| (e.index, e.term))
    }

    pub fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.start.0 {
            return Some(self.start.1);
        }
        let at = index.checked_sub(self.start.0 + 1)?;
        self.entries.get(at as usize).map(|e| e.term)
    }

    /// True when nothing is missing between the base and the first entry.
    pub fn complete(&self) -> bool {
        self.start.0 == self.base.index
    }

    pub fn set_base(&mut self, base: SnapshotMeta) -> Result<(), String> {
        if base.index <= self.base.index {
            return Ok(());
        }
        if base.index >= self.start.0 {
            // An entry that was overwritten stood there last; its successor went with the segment.
            let unknown = base.index == self.start.0 && self.start.1 == 0;
            if !unknown && self.term_at(base.index) != Some(base.term) {
                return Err(format!(
                    "base {} of term {} is not in the log",
                    base.index, base.term
                ));
            }
            self.entries.drain(..(base.index - self.start.0) as usize);
            self.start = (base.index, base.term);
        }
        self.base = base;
        Ok(())
    }

    fn apply(&mut self, header: &RecordHeader, body: &[u8]) -> Result<(), String> {
        let contents = format::decode_body(body).map_err(|e| e.to_string())?;
        for run in contents.runs {
            let Some(first) = run.first().map(|e| e.index) else {
                continue;
            };
            if first > self.last().0 + 1 || first == 0 {
                return Err(format!("entry {first} follows entry {}", self.last().0));
            }
            if run.windows(2).any(|w| w[1].index != w[0].index + 1) {
                return Err(format!("entries from {first} are not consecutive"));
            }
            if first > self.start.0 {
                self.entries.truncate((first - self.start.0 - 1) as usize);
            } else {
                // Only when older segments are missing: this overwrites what was in them.
                self.entries.clear();
                self.start = (first - 1, 0);
            }
            self.entries.extend(run);
        }
        if let Some(base) = contents.base {
            self.set_base(base)?;
        }
        if self.last() != header.last {
            return Err(format!(
                "the log ends at {:?} and its header says {:?}",
                self.last(),
                header.last
            ));
        }
        self.batch = header.number;
        self.hard_state = header.hard_state;
        self.commit = self.commit.max(header.commit);
        Ok(())
    }
}

/// How reading a chain ended.
pub(super) enum End {
    /// Everything accounted for; the next record goes here.
    Clean { at: u64 },
    /// The last record is torn: bytes from `at` to `to` are to be zeroed.
    Torn { at: u64, to: u64, what: String },
    /// Synced bytes are bad.
    Damage(String),
}

pub(super) struct Replayed {
    pub chain: Chain,
    pub closed: Vec<Closed>,
    /// Where the last record of the newest segment begins, and where it ends; no bytes when it has
    /// none.
    pub last_record: Range<u64>,
    pub end: End,
}

/// Reads consecutive segments with valid headers.
pub(super) fn replay(disk: &Disk, segments: &mut [Found]) -> Result<Replayed, LogError> {
    let heads: Vec<_> = segments.iter().filter_map(|s| s.header.clone()).collect();
    assert_eq!(heads.len(), segments.len(), "the caller chose valid ones");
    let first = &heads[0].1;
    let mut chain = Chain {
        start: first.last,
        base: first.base.clone(),
        entries: Vec::new(),
        hard_state: first.hard_state,
        commit: 0,
        batch: first.batch,
    };
    if first.base.index == first.last.0 {
        chain.start = (first.base.index, first.base.term);
    }
    let mut closed = Vec::new();
    for (n, segment) in segments.iter_mut().enumerate() {
        let (id, header) = &heads[n];
        let path = disk.path(&segment::name(segment.number));
        let set_base = chain.set_base(header.base.clone());
        set_base.map_err(|reason| LogError::Damaged {
            path: path.clone(),
            reason,
        })?;
        let (last_record, why) = read_records(segment, *id, &mut chain, &path)?;
        let at = last_record.end;
        let what = format!(
            "{}: batch {} at byte {at}: {why}",
            path.display(),
            chain.batch + 1
        );
        let end = match heads.get(n + 1) {
            Some((_, next)) if next.batch == chain.batch => {
                closed.push(Closed {
                    number: segment.number,
                    last: chain.last().0,
                    bytes: at,
                });
                continue;
            }
            Some((_, next)) => End::Damage(format!(
                "{what}, though the next segment begins behind batch {}",
                next.batch
            )),
            None => judge_tail(segment, *id, at, chain.batch + 1, what)?,
        };
        return Ok(Replayed {
            chain,
            closed,
            last_record,
            end,
        });
    }
    unreachable!("the last one returns, and there is one")
}

/// What stands behind the last good record of the newest segment.
fn judge_tail(
    segment: &mut Found,
    id: u128,
    at: u64,
    expected: u64,
    what: String,
) -> Result<End, LogError> {
    let later = segment.reader.headers(id, at)?;
    // A header in the right place with the right number may be that of the torn record itself.
    let later = later.iter().find(|(o, h)| *o != at || h.number != expected);
    if let Some((offset, header)) = later {
        return Ok(End::Damage(format!(
            "{what}, though batch {} at byte {offset} was written after it",
            header.number
        )));
    }
    Ok(match segment.reader.last_used(at)? {
        Some(to) => End::Torn { at, to, what },
        None => End::Clean { at },
    })
}

/// Applies the records of a segment; returns where the last one lies and why none follows.
fn read_records(
    segment: &mut Found,
    id: u128,
    chain: &mut Chain,
    path: &Path,
) -> Result<(Range<u64>, &'static str), LogError> {
    let (mut last, mut at) = (DATA_START, DATA_START);
    loop {
        let Some(sector) = segment.reader.bytes(at, SECTOR as usize)? else {
            return Ok((last..at, "the file ends"));
        };
        let Some(header) = RecordHeader::decode(id, at, sector) else {
            return Ok((last..at, "no valid header"));
        };
        if header.number != chain.batch + 1 {
            return Ok((last..at, "another batch is in its place"));
        }
        let from = at + format::RECORD_HEADER as u64;
        let Some(body) = segment.reader.bytes(from, header.body_len as usize)? else {
            return Ok((last..at, "the file ends inside it"));
        };
        if !format::body_is_valid(id, &header, body) {
            return Ok((last..at, "its checksum is wrong"));
        }
        chain
            .apply(&header, body)
            .map_err(|why| LogError::Damaged {
                path: path.to_path_buf(),
                reason: format!(
                    "batch {} at byte {at} contradicts the log: {why}",
                    header.number
                ),
            })?;
        (last, at) = (at, at + header.span());
    }
}

/// The newest valid header of records and segments: batch number, hard state, last index.
pub(super) fn last_known(segments: &mut [Found]) -> Result<(u64, HardState, Index), LogError> {
    let mut known = (0, HardState::default(), 0);
    for segment in segments {
        let Some((id, header)) = &segment.header else {
            continue;
        };
        if header.batch >= known.0 {
            known = (header.batch, header.hard_state, header.last.0);
        }
        for (_, header) in segment.reader.headers(*id, DATA_START)? {
            if header.number >= known.0 {
                known = (header.number, header.hard_state, header.last.0);
            }
        }
    }
    Ok(known)
}
