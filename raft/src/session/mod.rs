//! Sessions: exactly-once writes. A session is one ordered stream of writes to one table (a shard,
//! or the controllers' state). Only [`Table::open`] makes one; it lives in rows, so it goes
//! wherever the rows go.
//!
//! | write (session, seq, acked) | answer |
//! |---|---|
//! | `acked >= seq` | [`Refusal::Malformed`] |
//! | unknown session | [`Refusal::SessionExpired`] |
//! | seq = last + 1 | [`Verdict::Execute`], then [`Table::store`] |
//! | acked < seq <= last | [`Verdict::Repeat`] with the stored reply |
//! | seq <= acked | [`Refusal::Stale`] |
//! | seq > last + 1 | [`Refusal::Gap`] |
//!
//! Here `acked` is the highest the session ever sent. Why a stream and not "the highest number
//! per client": an earlier write that was lost and overtaken would be taken for a duplicate. Why
//! nothing but `open` makes a session: a late retry that makes one anew is applied twice.

mod row;
mod table;

pub use row::{incoming, outgoing};
pub use table::Table;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Unanswered or unacknowledged writes of one session.
pub const WINDOW_REPLIES: u64 = 256;
/// Stored replies of one session, bytes: a write is refused when so much is stored.
pub const WINDOW_BYTES: usize = 1 << 20;
/// A write's reply, bytes.
pub const MAX_REPLY: usize = 64 << 10;
/// Sessions of one table.
pub const MAX_SESSIONS: usize = 4096;
/// Stored replies of one table, bytes.
pub const MAX_TABLE_BYTES: usize = 64 << 20;
/// A session idle for longer is dropped, milliseconds of log time.
pub const EXPIRY_MS: u64 = 3_600_000;
/// A session idle for less is never dropped to make room.
pub const MIN_IDLE_MS: u64 = 60_000;

/// The header of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seq {
    /// The session.
    pub session: u64,
    /// Its number in the session's stream, from 1.
    pub seq: u64,
    /// Every write through this number has been answered; their replies may be forgotten.
    pub acked: u64,
}

/// What the table says about a write before it is executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// New: execute it and store the reply with [`Table::store`].
    Execute,
    /// Done before: here is the reply.
    Repeat(Bytes),
    /// Refused; nothing consumed, nothing stored.
    Refused(Refusal),
}

/// Why a write was refused by its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refusal {
    /// The session is unknown: expired, or never opened.
    SessionExpired,
    /// seq <= acked: answered and forgotten.
    Stale,
    /// seq > last + 1; `last` is the session's last executed number. Re-send from there.
    Gap(u64),
    /// Too many replies are stored; acknowledge some.
    Window,
    /// `acked >= seq`.
    Malformed,
    /// No room for another session, or the table holds too many replies of others.
    Busy,
}
