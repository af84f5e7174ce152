//! What a session table writes into rows.
//!
//! Behind the table's prefix: `M` the table itself, `S` + session its state, `R` + session + seq
//! a stored reply; numbers big-endian, so that rows sort by them.

use super::Refusal;
use crate::store::{Rows, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub(super) const TABLE: u8 = b'M';
pub(super) const SESSION: u8 = b'S';
pub(super) const REPLY: u8 = b'R';

/// Row `M`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TableRow {
    V1 {
        /// The next session's id; ids are never used twice.
        next: u64,
    },
}

/// Row `S`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SessionRow {
    V1(Session),
}

/// Row `R`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ReplyRow {
    V1(Bytes),
}

/// The state of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Session {
    /// The last executed number. Replies of `acked + 1 ..= last` are stored.
    pub(super) last: u64,
    /// The highest `acked` a write of this session carried; never above `last`.
    pub(super) acked: u64,
    /// Log time of the last write, milliseconds. Below zero when the session came from a group
    /// in which it was idle for longer than this group's log time has lasted.
    pub(super) active_ms: i64,
    /// The client said it is done.
    pub(super) closed: bool,
    /// Bytes of the stored replies.
    pub(super) bytes: u64,
}

impl Session {
    /// Milliseconds since the last write.
    pub(super) fn idle_ms(&self, now_ms: u64) -> i64 {
        signed(now_ms).saturating_sub(self.active_ms)
    }
}

pub(super) fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

pub(super) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    let mut bytes = postcard::to_stdvec(row).expect("plain data encodes into memory");
    // It is kept as it is.
    bytes.shrink_to_fit();
    bytes
}

pub(super) fn decode<'a, T: Deserialize<'a>>(
    rows: &Rows,
    key: &[u8],
    value: &'a [u8],
) -> Result<T, StoreError> {
    postcard::from_bytes(value)
        .map_err(|e| rows.damaged(format_args!("session row {key:02x?}: {e}")))
}

/// A row on its way out of a table into another group's: log time is replaced by idle age, since
/// two groups' clocks have nothing in common. `suffix` is the key behind the table's prefix; rows
/// that carry no time come back as they are. A row that does not decode is refused.
pub fn outgoing(suffix: &[u8], value: &[u8], now_ms: u64) -> Result<Bytes, Refusal> {
    shift(suffix, value, |active| {
        active.saturating_sub(signed(now_ms))
    })
}

/// The other half of [`outgoing`]: age becomes time in the log of the group the row comes to.
pub fn incoming(suffix: &[u8], value: &[u8], now_ms: u64) -> Result<Bytes, Refusal> {
    shift(suffix, value, |active| {
        active.saturating_add(signed(now_ms))
    })
}

fn shift(suffix: &[u8], value: &[u8], by: impl Fn(i64) -> i64) -> Result<Bytes, Refusal> {
    if suffix.first() != Some(&SESSION) {
        return Ok(Bytes::copy_from_slice(value));
    }
    let SessionRow::V1(mut session) =
        postcard::from_bytes(value).map_err(|_| Refusal::Malformed)?;
    session.active_ms = by(session.active_ms);
    Ok(encode(&SessionRow::V1(session)).into())
}

#[cfg(test)]
#[path = "row_tests.rs"]
mod tests;
