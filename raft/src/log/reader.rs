//! Reading entries back while the log is written: what a follower needs and is not in memory.

use super::format::{self, DATA_START, HEADER_COPY, HeaderCopy, RecordHeader, SECTOR};
use super::segment::{self, Reader};
use super::{Closed, LogError, LogOwner};
use raft_protocol::{Entry, Fetch, Index, Term};
use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use world::disk::{Disk, Open};

/// A segment that holds entries: its number, and the log's last index at its end so far as known.
#[derive(Clone, Copy, Debug)]
struct Extent {
    number: u64,
    last: Index,
}

/// The log's base, and its segments: for those that read it.
#[derive(Clone, Debug, Default)]
pub(super) struct Extents(Arc<Mutex<(Index, Vec<Extent>)>>);

impl Extents {
    /// What lies behind `base` is in these, and in `active`, which grows.
    pub(super) fn set(&self, base: Index, closed: &VecDeque<Closed>, active: u64) {
        let closed = closed.iter().map(|c| Extent {
            number: c.number,
            last: c.last,
        });
        let last = Index::MAX;
        let active = std::iter::once(Extent {
            number: active,
            last,
        });
        let mut extents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *extents = (base, closed.chain(active).collect());
    }

    /// Those that may hold what is behind `after`; `None` when that is below the base.
    fn behind(&self, after: Index) -> Option<Vec<Extent>> {
        let extents = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (base, extents) = &*extents;
        // Not a bisection: an index comes twice where a suffix was replaced.
        let first = extents.iter().position(|e| e.last > after)?;
        (after >= *base).then(|| extents[first..].to_vec())
    }
}

/// Where the reading for a follower has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// What was read last.
    after: Index,
    segment: u64,
    /// Of the record that holds it.
    offset: u64,
}

/// Reads entries of a log that is being written. Cheap to clone; every method blocks and belongs in a
/// job.
#[derive(Clone)]
pub struct LogReader {
    pub(super) disk: Disk,
    pub(super) owner: LogOwner,
    pub(super) extents: Extents,
}

/// What is looked for.
struct Wanted<'a> {
    fetch: &'a Fetch,
    found: Vec<Entry>,
    bytes: usize,
    /// One behind the next came first: as a log is written in order (§5.3), the next is not there.
    misses: bool,
}

impl Wanted<'_> {
    fn next(&self) -> Index {
        self.fetch.after + 1 + self.found.len() as Index
    }

    /// The term that counts at this index; `None` behind what is asked for.
    fn term(&self, index: Index) -> Option<Term> {
        let terms = &self.fetch.terms;
        let at = terms.partition_point(|(last, _)| *last < index);
        terms.get(at).map(|(_, term)| *term)
    }

    fn is_complete(&self) -> bool {
        self.term(self.next()).is_none()
    }

    /// Takes the entry if it is the next one; false when there is no room for it, or one is missing.
    fn take(&mut self, entry: Entry) -> bool {
        if entry.index < self.next() || self.term(entry.index) != Some(entry.term) {
            return true; // it was read before, or was replaced later
        }
        if entry.index > self.next() {
            self.misses = true;
            return false;
        }
        let bytes = self.bytes.saturating_add(entry.size());
        if !self.found.is_empty() && bytes > self.fetch.max_bytes {
            return false;
        }
        self.bytes = bytes;
        self.found.push(entry);
        true
    }
}

impl LogReader {
    /// Entries behind `fetch.after`, consecutive, at most `fetch.max_bytes` of them but at least one;
    /// none when segments that would hold them were removed. `place` is what the reading before it for
    /// the same follower returned, if that is known: without it a segment is read from its beginning.
    ///
    /// # Errors
    ///
    /// [`LogError::Damaged`] when the entries are not where they must be.
    pub fn read(
        &self,
        fetch: &Fetch,
        place: Option<Place>,
    ) -> Result<(Vec<Entry>, Option<Place>), LogError> {
        let mut wanted = Wanted {
            fetch,
            found: Vec::new(),
            bytes: 0,
            misses: false,
        };
        let mut reached = None;
        if wanted.is_complete() {
            return Ok((wanted.found, reached));
        }
        let Some(extents) = self.extents.behind(fetch.after) else {
            return Ok((Vec::new(), None));
        };
        let known = place.filter(|p| p.after == fetch.after);
        let begin = known.and_then(|p| {
            let at = extents.iter().position(|e| e.number == p.segment);
            at.map(|at| (at, p.offset))
        });
        let (skip, mut offset) = begin.unwrap_or((0, DATA_START));
        for extent in &extents[skip.min(extents.len())..] {
            let Some((id, mut reader)) = self.open(extent.number)? else {
                return Ok((Vec::new(), None)); // removed meanwhile
            };
            let full = self.records(&mut reader, id, offset, extent.number, &mut wanted)?;
            if wanted.misses {
                break;
            }
            if let Some(offset) = full {
                reached = Some(Place {
                    after: wanted.next() - 1,
                    segment: extent.number,
                    offset,
                });
                break;
            }
            offset = DATA_START;
        }
        if wanted.found.is_empty() {
            return match self.extents.behind(fetch.after).as_deref() {
                Some([first, ..]) => {
                    let reason = format!("entry {} is not in the log", fetch.after + 1);
                    Err(self.damaged(first.number, reason))
                }
                _ => Ok((Vec::new(), None)), // removed meanwhile
            };
        }
        Ok((wanted.found, reached))
    }

    /// Reads records until no more is wanted: then where the last one taken from begins.
    fn records(
        &self,
        reader: &mut Reader,
        id: u128,
        mut offset: u64,
        number: u64,
        wanted: &mut Wanted<'_>,
    ) -> Result<Option<u64>, LogError> {
        // The file may be that of the log's end: what is not yet synced there is behind what is wanted.
        while let Some(sector) = reader.bytes(offset, SECTOR as usize)? {
            let Some(header) = RecordHeader::decode(id, offset, sector) else {
                return Ok(None);
            };
            let at = offset;
            offset += header.span();
            if header.last.0 < wanted.next() {
                continue;
            }
            let from = at + format::RECORD_HEADER as u64;
            let body = reader.bytes(from, header.body_len as usize)?;
            let Some(body) = body.filter(|body| format::body_is_valid(id, &header, body)) else {
                return Err(self.damaged(number, format!("the record at byte {at} is unreadable")));
            };
            let contents = format::decode_body(body)
                .map_err(|why| self.damaged(number, format!("the record at byte {at}: {why}")))?;
            let mut entries = contents.runs.into_iter().flatten();
            if !entries.all(|entry| wanted.take(entry)) || wanted.is_complete() {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }

    /// A segment to be read; `None` when it is gone.
    fn open(&self, number: u64) -> Result<Option<(u128, Reader)>, LogError> {
        let file = match self.disk.open(&segment::name(number), Open::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let reader = Reader::new(file)?;
        for at in [0, HEADER_COPY] {
            if let Some(copy) = reader.just(at, HEADER_COPY as usize)?
                && let HeaderCopy::Valid(id, header) = format::decode_segment(&copy)
                && header.number == number
                && header.owner == self.owner
            {
                return Ok(Some((id, reader)));
            }
        }
        Err(self.damaged(number, "no valid header".into()))
    }

    fn damaged(&self, number: u64, reason: String) -> LogError {
        LogError::Damaged {
            path: self.disk.path(&segment::name(number)),
            reason,
        }
    }
}
