//! Bounded runs of a copy of a shard on their way from one group to another: the rows of keys, of
//! pieces of values, and of sessions alike, in their order. A row is never cut: none is longer than
//! a chunk.

use super::keys::{self, DATA, PIECES, SESSIONS};
use super::state::{Counters, Cursor, ShardRow};
use super::value::{Head, PIECE_BYTES, Stored};
use bytes::Bytes;
use ctrler::config::{ConfigNum, ShardId};
use raft::session;
use raft::store::{Rows, StoreError};
use serde::{Deserialize, Serialize};

/// Bytes of keys and values in one chunk. The longest row is a key of 64 KiB with a reply of 64 KiB
/// or a piece of a value.
pub const CHUNK_BYTES: usize = 240 << 10;
/// Rows in one chunk.
pub const CHUNK_ROWS: usize = 1024;
/// No shard has seen as many changes: a number above it is nonsense, and would end the count.
const MAX_CHANGES: u64 = u64::MAX / 2;

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedRow {
    /// Its key without the copy's prefix.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
}

/// A run of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The rows, in order.
    pub rows: Vec<CopiedRow>,
    /// The highest number that a change of the shard can have had.
    pub changes: u64,
    /// Where the next chunk begins; `None`: this was the last.
    pub next: Option<Cursor>,
}

/// The rows of a frozen copy from a cursor on. Ages of sessions are counted up to its freeze, so
/// that every member of the group gives the same answer at any time.
pub fn export(
    rows: &Rows,
    shard: ShardId,
    here: &ShardRow,
    from: &Cursor,
) -> Result<Chunk, StoreError> {
    let start = [&keys::copy(shard, here.incarnation)[..], &from.key].concat();
    let end = keys::copy_end(shard, here.incarnation);
    let found = rows.range(&start, &end, CHUNK_ROWS, CHUNK_BYTES)?;
    let mut chunk = Chunk {
        rows: Vec::with_capacity(found.len()),
        changes: here.changes,
        next: None,
    };
    let behind = found.last().map(|(row, _)| [&row[..], &[0]].concat());
    for (row, value) in found {
        let key = row.slice(keys::COPY_LEN..);
        let value = match key.first() {
            Some(&SESSIONS) => {
                session::outgoing(&key[1..], &value, here.frozen_ms).map_err(|refusal| {
                    rows.damaged(format_args!("session row {row:02x?}: {refusal:?}"))
                })?
            }
            _ => value,
        };
        chunk.rows.push(CopiedRow { key, value });
    }
    if let Some(behind) = behind
        && !rows.range(&behind, &end, 1, 1)?.is_empty()
    {
        if chunk.rows.last().is_some_and(|row| row.key[0] == PIECES) {
            world::mark!("move: a long value lies across chunks");
        }
        let key = Bytes::from(behind).slice(keys::COPY_LEN..);
        chunk.next = Some(Cursor { key });
    }
    Ok(chunk)
}

/// Whether a row of a chunk can be read.
fn check_row(row: &CopiedRow, changes: u64, now_ms: u64) -> Result<(), String> {
    match row.key.first() {
        Some(&DATA) => {
            let head = Head::from_row(&row.value)?;
            if head.change > changes {
                return Err("a change that the shard has not seen".to_owned());
            }
        }
        Some(&PIECES) => {
            if row.key.len() < 5 || !(1..=PIECE_BYTES).contains(&row.value.len()) {
                return Err("not a piece of a value".to_owned());
            }
        }
        Some(&SESSIONS) => {
            session::incoming(&row.key[1..], &row.value, now_ms)
                .map_err(|_| "a session that cannot be read".to_owned())?;
        }
        _ => return Err("a row of no known kind".to_owned()),
    }
    Ok(())
}

/// Whether a chunk can be installed at a cursor. The reason says what is wrong with it.
pub fn check(from: &Cursor, chunk: &Chunk, now_ms: u64) -> Result<(), String> {
    if chunk.changes > MAX_CHANGES {
        return Err("more changes than can be".to_owned());
    }
    let mut last: Option<&Bytes> = None;
    for row in &chunk.rows {
        if last.is_some_and(|last| *last >= row.key) || row.key < from.key {
            return Err("rows out of order".to_owned());
        }
        check_row(row, chunk.changes, now_ms)?;
        last = Some(&row.key);
    }
    match (&chunk.next, last) {
        (Some(next), Some(last)) if next.key <= *last => {
            Err("the next cursor lies behind".to_owned())
        }
        (Some(next), _) if next <= from => Err("the next cursor is no progress".to_owned()),
        _ => Ok(()),
    }
}

/// What a row (its key without the copy's prefix) counts for in the bytes of a shard: keys and
/// values of clients.
pub fn counted(key: &[u8], value: &Bytes) -> u64 {
    let bytes = match key.first() {
        Some(&DATA) => match Head::from_row(value).map(|head| head.value) {
            Ok(Stored::Whole(value)) => key.len() - 1 + value.len(),
            _ => key.len() - 1,
        },
        Some(&PIECES) => value.len(),
        _ => 0,
    };
    bytes as u64
}

/// Installs a chunk that [`check`] let pass.
pub fn install(
    rows: &mut Rows,
    shard: ShardId,
    incarnation: ConfigNum,
    chunk: &Chunk,
    now_ms: u64,
    counters: &mut Counters,
) -> Result<(), StoreError> {
    let prefix = keys::copy(shard, incarnation);
    for row in &chunk.rows {
        let kind = row.key.first();
        let value = if kind == Some(&SESSIONS) {
            world::mark!("move: a session arrives with its shard");
            session::incoming(&row.key[1..], &row.value, now_ms)
                .map_err(|refusal| rows.damaged(format_args!("session row: {refusal:?}")))?
        } else {
            // A copy: a row must not keep a whole chunk alive.
            Bytes::copy_from_slice(&row.value)
        };
        counters.keys += u64::from(kind == Some(&DATA));
        counters.bytes += counted(&row.key, &value);
        let key = [&prefix[..], &row.key].concat();
        rows.entry(key.into())?.set(value);
    }
    Ok(())
}
