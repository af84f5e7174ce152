//! The state machine a replica drives.

use crate::store::{Rows, StoreError};
use bytes::Bytes;

/// Where in the log a command stands, and the log's own time there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Index of the entry.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Log time in milliseconds: the leaders' elapsed time summed up, never a wall clock. Never
    /// goes back along the log.
    pub time_ms: u64,
}

/// A deterministic state machine. All its state lives in the rows; what it keeps in memory is a
/// cache rebuilt by `load`. It does no I/O of its own, reads no clock and draws no chance.
pub trait Machine: Send + 'static {
    /// Rebuilds the caches from the rows: at start, and after a snapshot was installed.
    fn load(&mut self, rows: &Rows) -> Result<(), StoreError>;

    /// Applies one committed command and returns the reply for the client that waits, if any.
    /// Total: a malformed or refused command is a reply, not an error. The error is the store's
    /// own (a failed or corrupt disk) and ends the server.
    fn apply(&mut self, rows: &mut Rows, at: At, command: &[u8]) -> Result<Bytes, StoreError>;

    /// Answers a query from the state as it is. Changes nothing.
    fn read(&self, rows: &Rows, query: &[u8]) -> Result<Bytes, StoreError>;

    /// Bytes that the answer to a query has at least, as far as that is cheap to know. Long answers
    /// are refused before short ones where many wait to be sent.
    fn least_answer(&self, rows: &Rows, query: &[u8]) -> Result<usize, StoreError> {
        let _ = (rows, query);
        Ok(0)
    }
}
