//! What is stored of a key: one row that begins with a header and, of a longer value, rows with
//! pieces of it. So an append to a long value costs its own length and a piece, not the whole.
//!
//! ```text
//!  the row of a key
//!  ┌─────────┬──────┬───────┬────────────┬───────────┐
//!  │ version │ kind │ flags │ change u64 │ value     │   at most a piece
//!  └─────────┴──────┴───────┴────────────┴───────────┘
//!  ┌─────────┬──────┬───────┬────────────┬───────────┐
//!  │ version │ kind │ 1     │ change u64 │ bytes u32 │   a longer value: only its length
//!  └─────────┴──────┴───────┴────────────┴───────────┘
//! ```
//!
//! Numbers are big-endian. The change number is the one of the key's last change: it rises with
//! every change of a key of the shard, whichever group has the shard, so a key deleted and set
//! again has another one. Flag 2 is kept for a deadline (a u64 behind the change number): a build
//! that does not keep it must not read past it. Pieces are full, but for the last; their length is
//! part of the version.

use super::keys;
use crate::api::MAX_VALUE;
use bytes::{Bytes, BytesMut};
use ctrler::config::{ConfigNum, ShardId};
use raft::store::{Rows, StoreError};
use std::ops::Range;

/// Longest value that stands in the row of its key, and length of the pieces of a longer one, bytes.
pub const PIECE_BYTES: usize = 16 << 10;
/// Bytes before the value.
const HEADER: usize = 11;
const VERSION: u8 = 1;
/// The only kind so far: bytes without a structure.
const STRING: u8 = 1;
/// The value stands in pieces.
const PIECES: u8 = 1;

/// The row of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Number of its last change.
    pub change: u64,
    /// Its value.
    pub value: Stored,
}

/// A value as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// In the row of its key.
    Whole(Bytes),
    /// In pieces, so many bytes of them.
    Pieces(usize),
}

impl Stored {
    /// Bytes of the value.
    pub fn len(&self) -> usize {
        match self {
            Stored::Whole(value) => value.len(),
            Stored::Pieces(len) => *len,
        }
    }

    /// True when the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of its pieces.
    pub fn pieces(&self) -> u32 {
        match self {
            Stored::Whole(_) => 0,
            Stored::Pieces(len) => pieces(*len),
        }
    }
}

/// Pieces of so many bytes.
pub fn pieces(len: usize) -> u32 {
    len.div_ceil(PIECE_BYTES) as u32
}

/// The bytes of a value of `len` bytes that stand in a piece.
pub fn span(number: u32, len: usize) -> Range<usize> {
    let start = number as usize * PIECE_BYTES;
    start..len.min(start + PIECE_BYTES)
}

impl Head {
    /// The row.
    pub fn to_row(&self) -> Bytes {
        let (flags, rest, len) = match &self.value {
            Stored::Whole(value) => (0, &value[..], [0; 4]),
            Stored::Pieces(len) => (PIECES, &[][..], (*len as u32).to_be_bytes()),
        };
        let mut row = Vec::with_capacity(HEADER + rest.len() + len.len() * usize::from(flags));
        row.extend_from_slice(&[VERSION, STRING, flags]);
        row.extend_from_slice(&self.change.to_be_bytes());
        match flags {
            PIECES => row.extend_from_slice(&len),
            _ => row.extend_from_slice(rest),
        }
        row.into()
    }

    /// Reads a row; the reason says what of it is unknown.
    pub fn from_row(row: &Bytes) -> Result<Head, String> {
        let unknown = |what: &str, found: &[u8]| {
            let reason = "the row of a key: unreadable, or of a newer version";
            Err(format!("{reason}: {what} {found:02x?}"))
        };
        let Some((header, rest)) = row.split_first_chunk::<HEADER>() else {
            return unknown("its bytes are", row);
        };
        let [version, kind, flags, change @ ..] = header;
        if (*version, *kind) != (VERSION, STRING) {
            return unknown("version and kind are", &header[..2]);
        }
        let value = match *flags {
            0 if rest.len() <= PIECE_BYTES => Stored::Whole(row.slice(HEADER..)),
            PIECES => match rest.try_into().map(u32::from_be_bytes) {
                Ok(len) if (PIECE_BYTES + 1..=MAX_VALUE).contains(&(len as usize)) => {
                    Stored::Pieces(len as usize)
                }
                _ => return unknown("its length is", &rest[..rest.len().min(4)]),
            },
            _ => return unknown("flags are", &[*flags]),
        };
        let change = u64::from_be_bytes(*change);
        Ok(Head { change, value })
    }
}

/// The row of a key, read.
pub fn head(rows: &Rows, row: &Bytes) -> Result<Head, StoreError> {
    Head::from_row(row).map_err(|reason| rows.damaged(reason))
}

/// A piece of a value of `len` bytes.
pub fn piece(
    rows: &Rows,
    (shard, incarnation): (ShardId, ConfigNum),
    key: &[u8],
    number: u32,
    len: usize,
) -> Result<Bytes, StoreError> {
    let row = keys::piece(shard, incarnation, key, number);
    match rows.get(&row)? {
        Some(piece) if piece.len() == span(number, len).len() => Ok(piece),
        found => {
            let found = found.map(|piece| piece.len());
            Err(rows.damaged(format_args!(
                "piece {number} of a value of {len} bytes, under {row:02x?}: its length is {found:?}"
            )))
        }
    }
}

/// Bytes of a key's value; 0 when there is none.
pub fn length(
    rows: &Rows,
    shard: ShardId,
    incarnation: ConfigNum,
    key: &[u8],
) -> Result<usize, StoreError> {
    match rows.get(&keys::data(shard, incarnation, key))? {
        Some(row) => Ok(head(rows, &row)?.value.len()),
        None => Ok(0),
    }
}

/// The whole value of a key.
pub fn get(
    rows: &Rows,
    shard: ShardId,
    incarnation: ConfigNum,
    key: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    let Some(row) = rows.get(&keys::data(shard, incarnation, key))? else {
        return Ok(None);
    };
    let len = match head(rows, &row)?.value {
        Stored::Whole(value) => return Ok(Some(value)),
        Stored::Pieces(len) => len,
    };
    let mut whole = BytesMut::with_capacity(len);
    for number in 0..pieces(len) {
        whole.extend_from_slice(&piece(rows, (shard, incarnation), key, number, len)?);
    }
    Ok(Some(whole.freeze()))
}
