//! The bytes of a segment file: headers and records, to and from memory. See the drawing in the
//! module above.

use super::LogOwner;
use crc32fast::Hasher;
use raft_protocol::{Abstain, Entry, HardState, Index, SnapshotMeta, Term};
use serde::{Deserialize, Serialize};

/// Records start at multiples of this, so that no append touches a sector that holds synced bytes.
/// (What does is recovery, which keeps those bytes elsewhere meanwhile.)
pub(super) const SECTOR: u64 = 512;
/// Room for one copy of the segment header; there are two.
pub(super) const HEADER_COPY: u64 = 4096;
/// Where the first record starts.
pub(super) const DATA_START: u64 = 2 * HEADER_COPY;
/// Fixed part of a segment header.
const PREFIX: usize = 36;
/// Header of a record.
pub(super) const RECORD_HEADER: usize = 96;
const SEGMENT_MAGIC: [u8; 8] = *b"HOLDFLOG";
const RECORD_MAGIC: [u8; 4] = *b"BTCH";
const FORMAT_VERSION: u32 = 1;

/// One batch, encoded, is at most this long; a longer one is refused when appended and a record
/// that claims more is invalid.
pub const MAX_BATCH_BYTES: usize = 128 << 20;

/// An index and its term.
pub(super) type Point = (Index, Term);

/// Why a segment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// The one before is full.
    Normal,
    /// The log starts afresh here; everything older is void.
    Reset,
}

/// What a segment header says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SegmentHeader {
    pub owner: LogOwner,
    /// Position in the chain, as in the file's name.
    pub number: u64,
    pub kind: Kind,
    /// Bytes the file was given before it was put into use: a shorter one was truncated.
    pub length: u64,
    pub hard_state: HardState,
    pub base: SnapshotMeta,
    /// The batch before the first one in this segment.
    pub batch: u64,
    /// The log's last index and term before the first batch.
    pub last: Point,
}

#[derive(Serialize, Deserialize)]
enum VersionedHeader {
    V1(SegmentHeader),
}

/// What a copy of a segment header turned out to be.
pub(super) enum HeaderCopy {
    Valid(u128, Box<SegmentHeader>),
    /// Intact, and of a format this program does not know.
    UnknownVersion(u32),
    Bad,
}

/// A checksum that only who knows the segment's random id can make: a client's value may contain
/// what looks like a record.
fn keyed(id: u128, parts: &[&[u8]]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&id.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// `n` rounded up to whole sectors.
pub(super) fn whole_sectors(n: u64) -> u64 {
    n.div_ceil(SECTOR) * SECTOR
}

/// One copy of a header, zero-padded; `None` when the membership in it is too large.
pub(super) fn encode_segment(id: u128, header: &SegmentHeader) -> Option<Vec<u8>> {
    let body = postcard::to_stdvec(&VersionedHeader::V1(header.clone())).ok()?;
    let mut copy = Vec::with_capacity(HEADER_COPY as usize);
    copy.extend_from_slice(&SEGMENT_MAGIC);
    copy.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    copy.extend_from_slice(&(body.len() as u32).to_le_bytes());
    copy.extend_from_slice(&id.to_le_bytes());
    let crc = keyed(id, &[&copy, &body]);
    copy.extend_from_slice(&crc.to_le_bytes());
    copy.extend_from_slice(&body);
    if copy.len() as u64 > HEADER_COPY {
        return None;
    }
    copy.resize(HEADER_COPY as usize, 0);
    Some(copy)
}

/// Reads one copy of a header.
pub(super) fn decode_segment(copy: &[u8]) -> HeaderCopy {
    let Some((prefix, rest)) = copy.split_at_checked(PREFIX) else {
        return HeaderCopy::Bad;
    };
    if prefix[..8] != SEGMENT_MAGIC {
        return HeaderCopy::Bad;
    }
    let version = u32_at(prefix, 8);
    let id = u128::from_le_bytes(array(&prefix[16..32]));
    let Some(body) = rest.get(..u32_at(prefix, 12) as usize) else {
        return HeaderCopy::Bad;
    };
    if keyed(id, &[&prefix[..32], body]) != u32_at(prefix, 32) {
        return HeaderCopy::Bad;
    }
    if version != FORMAT_VERSION {
        return HeaderCopy::UnknownVersion(version);
    }
    match postcard::from_bytes(body) {
        Ok(VersionedHeader::V1(header)) => HeaderCopy::Valid(id, Box::new(header)),
        Err(_) => HeaderCopy::Bad,
    }
}

/// What a record header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    pub body_len: u32,
    pub body_crc: u32,
    pub number: u64,
    pub hard_state: HardState,
    /// What was known to be committed; 0 in what older builds wrote.
    pub commit: Index,
    pub last: Point,
}

impl RecordHeader {
    /// Bytes of the whole record with its padding.
    pub fn span(&self) -> u64 {
        whole_sectors(RECORD_HEADER as u64 + u64::from(self.body_len))
    }

    pub fn encode(&self, id: u128, offset: u64) -> [u8; RECORD_HEADER] {
        let abstain = self.hard_state.abstain;
        let mut bytes = [0; RECORD_HEADER];
        bytes[..4].copy_from_slice(&RECORD_MAGIC);
        bytes[8..12].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.body_crc.to_le_bytes());
        let words = [
            self.number,
            self.hard_state.term,
            self.hard_state.vote.unwrap_or(0), // 0 is not a node
            u64::from(abstain.is_some()),
            abstain.map_or(0, |a| a.term),
            abstain.map_or(0, |a| a.index),
            self.last.0,
            self.last.1,
            offset, // a block that came to lie elsewhere is no record
            self.commit,
        ];
        for (place, word) in bytes[16..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let crc = keyed(id, &[&bytes[8..]]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads what stands at `offset`; `None` unless it is a header written there under `id`.
    pub fn decode(id: u128, offset: u64, bytes: &[u8]) -> Option<RecordHeader> {
        let bytes = bytes.get(..RECORD_HEADER)?;
        if bytes[..4] != RECORD_MAGIC || keyed(id, &[&bytes[8..]]) != u32_at(bytes, 4) {
            return None;
        }
        let word = |n: usize| u64::from_le_bytes(array(&bytes[16 + 8 * n..24 + 8 * n]));
        let body_len = u32_at(bytes, 8);
        if word(8) != offset || body_len as usize > MAX_BATCH_BYTES {
            return None;
        }
        Some(RecordHeader {
            body_len,
            body_crc: u32_at(bytes, 12),
            number: word(0),
            hard_state: HardState {
                term: word(1),
                vote: (word(2) != 0).then_some(word(2)),
                abstain: (word(3) != 0).then_some(Abstain {
                    term: word(4),
                    index: word(5),
                }),
            },
            commit: word(9),
            last: (word(6), word(7)),
        })
    }
}

#[derive(Serialize)]
enum BodyRef<'a> {
    V1 {
        base: Option<&'a SnapshotMeta>,
        runs: &'a [&'a [Entry]],
    },
}

#[derive(Deserialize)]
enum Body {
    V1 {
        base: Option<SnapshotMeta>,
        runs: Vec<Vec<Entry>>,
    },
}

/// The body of a record in memory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// A new base, before older segments are removed.
    pub base: Option<SnapshotMeta>,
    pub runs: Vec<Vec<Entry>>,
}

/// Appends a whole record, padded to whole sectors, to `out`; false when it exceeds
/// [`MAX_BATCH_BYTES`]. The lengths in `header` are filled in.
pub(super) fn encode_record(
    out: &mut Vec<u8>,
    id: u128,
    offset: u64,
    mut header: RecordHeader,
    base: Option<&SnapshotMeta>,
    runs: &[&[Entry]],
) -> bool {
    let start = out.len();
    out.resize(start + RECORD_HEADER, 0);
    let Ok(mut bytes) = postcard::to_extend(&BodyRef::V1 { base, runs }, std::mem::take(out))
    else {
        return false;
    };
    let body = &bytes[start + RECORD_HEADER..];
    if body.len() > MAX_BATCH_BYTES {
        return false;
    }
    header.body_len = body.len() as u32;
    header.body_crc = keyed(id, &[body]);
    bytes[start..start + RECORD_HEADER].copy_from_slice(&header.encode(id, offset));
    bytes.resize(start + header.span() as usize, 0);
    *out = bytes;
    true
}

/// True when `body` is what `header` was written with.
pub(super) fn body_is_valid(id: u128, header: &RecordHeader, body: &[u8]) -> bool {
    keyed(id, &[body]) == header.body_crc
}

/// Decodes a body whose checksum is right.
pub(super) fn decode_body(body: &[u8]) -> Result<Contents, postcard::Error> {
    let Body::V1 { base, runs } = postcard::from_bytes(body)?;
    Ok(Contents { base, runs })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(&bytes[at..at + 4]))
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the caller sliced N bytes")
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
