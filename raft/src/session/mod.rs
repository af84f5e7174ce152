//! Sessions: exactly-once writes. A session is one ordered stream of writes to one table (a shard,
//! or the controllers' state).

use crate::machine::At;
use crate::store::{Rows, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Unanswered or unacknowledged writes of one session.
pub const WINDOW_REPLIES: u64 = 256;
/// Stored replies of one session, bytes.
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
    /// No room for another session.
    Busy,
}

/// A session table kept in rows whose keys start with `prefix`.
pub struct Table {
    /// Row prefix.
    pub prefix: Vec<u8>,
}

impl Table {
    /// The table under a prefix.
    pub fn new(prefix: &[u8]) -> Table {
        Table {
            prefix: prefix.to_vec(),
        }
    }
    /// Opens a session and returns its id, or refuses as busy.
    pub fn open(&mut self, rows: &mut Rows, at: At) -> Result<Result<u64, Refusal>, StoreError> {
        let _ = (rows, at);
        todo!()
    }
    /// Closes a session (it goes first under pressure).
    pub fn close(&mut self, rows: &mut Rows, session: u64) -> Result<(), StoreError> {
        let _ = (rows, session);
        todo!()
    }
    /// Judges a write, after pruning by its `acked`.
    pub fn judge(&mut self, rows: &mut Rows, at: At, seq: Seq) -> Result<Verdict, StoreError> {
        let _ = (rows, at, seq);
        todo!()
    }
    /// Stores the reply of the write just executed.
    pub fn store(
        &mut self,
        rows: &mut Rows,
        at: At,
        seq: Seq,
        reply: &Bytes,
    ) -> Result<(), StoreError> {
        let _ = (rows, at, seq, reply);
        todo!()
    }
    /// Drops sessions idle for more than an hour; at most `max` of them; called by commands now
    /// and then.
    pub fn expire(&mut self, rows: &mut Rows, at: At, max: usize) -> Result<(), StoreError> {
        let _ = (rows, at, max);
        todo!()
    }
}
