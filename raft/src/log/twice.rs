//! The file in which recovery keeps the last record while it writes it once more in its place.
//!
//! That record was perhaps acknowledged long ago, and a power failure may leave of a sector that is
//! being overwritten neither what was there nor what is written. So its bytes stand in a file of
//! their own before the first of them is overwritten, and the file goes when they are synced in
//! their place:
//!
//! ```text
//! power fails …                     the next start finds
//! before the file has its name      the record in its place, untouched
//! before the file is removed        the file, and writes the record in its place from it
//! before the removal is durable     the file, perhaps: it writes what stands there already
//! ```
//!
//! Nothing is appended while the file may still come back: its removal is synced before the log
//! opens, and a start syncs the directory before it takes a file that it does not see for gone. An
//! old one could do no harm even so. It names its segment by number and random id, and what it holds
//! is what lies there for as long as that segment does: the record was kept, and kept records are
//! never cut or replaced in place. So neither a purge nor a restart has to know of the file.
//!
//! It is written for every last record. One that is an empty batch may carry a base that segments
//! were removed for, or a vote, or prove the record in front of it.

use super::LogError;
use super::format::{self, MAX_BATCH_BYTES, RECORD_HEADER, RecordHeader};
use super::segment::{DIR, Found, Reader};
use serde::{Deserialize, Serialize};
use std::io;
use world::disk::Disk;

/// The file, in the log's directory.
pub(super) const FILE: &str = "last-record";
const PATH: &str = "log/last-record";
const MAGIC: [u8; 8] = *b"HFRECORD";
const FORMAT_VERSION: u32 = 1;
/// Before the body.
const PREFIX: usize = 20;
/// A longer file is none.
const MAX_FILE_BYTES: usize = MAX_BATCH_BYTES + 4096;

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The segment's number.
    pub segment: u64,
    /// And its id.
    pub id: u128,
    pub offset: u64,
}

/// What stands in front of the record.
#[derive(Serialize, Deserialize)]
enum Versioned {
    V1(Place),
}

/// What the file turned out to be.
#[derive(Debug, PartialEq, Eq)]
enum Contents<'a> {
    Record(Place, &'a [u8]),
    /// Intact, and of a format this program does not know.
    UnknownVersion(u32),
    Bad,
}

fn checksum(prefix: &[u8], body: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix);
    hasher.update(body);
    hasher.finalize().to_le_bytes()
}

fn encode(place: Place, record: &[u8]) -> Result<Vec<u8>, postcard::Error> {
    let mut body = postcard::to_stdvec(&Versioned::V1(place))?;
    body.extend_from_slice(record);
    let mut bytes = Vec::with_capacity(PREFIX + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes, &body));
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Contents<'_> {
    let Some((prefix, body)) = bytes.split_at_checked(PREFIX) else {
        return Contents::Bad;
    };
    let word = |at: usize| {
        let bytes = prefix[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes)
    };
    let whole = prefix[..8] == MAGIC
        && word(12) as usize == body.len()
        && checksum(&prefix[..16], body) == prefix[16..];
    if !whole {
        return Contents::Bad;
    }
    if word(8) != FORMAT_VERSION {
        return Contents::UnknownVersion(word(8));
    }
    match postcard::take_from_bytes(body) {
        Ok((Versioned::V1(place), record)) if is_record(place, record) => {
            Contents::Record(place, record)
        }
        Ok(_) | Err(_) => Contents::Bad,
    }
}

/// True when the bytes are one whole record of that place.
fn is_record(place: Place, record: &[u8]) -> bool {
    let header = RecordHeader::decode(place.id, place.offset, record);
    header.is_some_and(|header| {
        let end = RECORD_HEADER + header.body_len as usize;
        header.span() == record.len() as u64
            && format::body_is_valid(place.id, &header, &record[RECORD_HEADER..end])
    })
}

/// Makes the file, durably.
pub(super) fn keep(disk: &Disk, place: Place, record: &[u8]) -> io::Result<()> {
    let bytes = encode(place, record).map_err(io::Error::other)?;
    disk.write_atomic(PATH, &bytes)
}

/// Writes what the file holds, if there is one, in its place, and syncs it. To be called when the
/// directory is synced, and before records are read. False when the file cannot be read: rot, since
/// it has its name only when it is synced. Then what it held is not known.
pub(super) fn restore(disk: &Disk, segments: &mut [Found]) -> Result<bool, LogError> {
    let bytes = match disk.read(PATH, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match decode(&bytes) {
        Contents::Record(place, record) => {
            put_back(place, record, segments)?;
            Ok(true)
        }
        Contents::UnknownVersion(version) => Err(LogError::Damaged {
            path: disk.path(PATH),
            reason: format!("format {version} is not known to this program"),
        }),
        Contents::Bad => Ok(false),
    }
}

fn put_back(place: Place, record: &[u8], segments: &mut [Found]) -> io::Result<()> {
    let is_its = |s: &&mut Found| {
        let id = s.header.as_ref().map(|(id, _)| *id);
        (s.number, id) == (place.segment, Some(place.id)) && !s.truncated()
    };
    let Some(segment) = segments.iter_mut().find(is_its) else {
        return Ok(()); // removed since, or refused in a moment
    };
    let file = segment.reader.file.clone();
    world::mark!("log: the last record is written from its copy");
    file.write_all_at(record, place.offset)?;
    file.sync_data()?;
    segment.reader = Reader::new(file)?; // it may hold what was there before
    Ok(())
}

/// Removes the file, if there is one, durably.
pub(super) fn remove(disk: &Disk) -> io::Result<()> {
    if disk.exists(PATH)? {
        disk.remove(PATH)?;
        disk.sync_dir(DIR)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "twice_tests.rs"]
mod tests;
