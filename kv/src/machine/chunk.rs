//! Bounded pieces of a copy of a shard on their way from one group to another: keys and sessions
//! alike, in the order of their rows. A value longer than a chunk travels in pieces.

use super::keys::{self, DATA, SESSIONS};
use super::state::{Counters, Cursor};
use bytes::Bytes;
use ctrler::config::{ConfigNum, ShardId};
use raft::session;
use raft::store::{Rows, StoreError};
use serde::{Deserialize, Serialize};

/// Bytes of keys and values in one chunk. A session's row is never cut (its replies are rows of
/// their own, at most 64 KiB each), so every chunk stays below this.
pub const CHUNK_BYTES: usize = 240 << 10;
/// Rows in one chunk.
pub const CHUNK_ROWS: usize = 1024;

/// A row, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Its key without the copy's prefix.
    pub key: Bytes,
    /// Bytes of the value before these.
    pub offset: u64,
    /// The value from there, perhaps not to its end.
    pub value: Bytes,
}

/// A run of rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// The rows, in order.
    pub pieces: Vec<Piece>,
    /// Where the next chunk begins; `None`: this was the last.
    pub next: Option<Cursor>,
}

/// The rows of a frozen copy from a cursor on. Ages of sessions are counted up to `frozen_ms`, so
/// that every member of the group gives the same answer at any time.
pub fn export(
    rows: &Rows,
    shard: ShardId,
    incarnation: ConfigNum,
    frozen_ms: u64,
    from: &Cursor,
) -> Result<Chunk, StoreError> {
    let prefix = keys::copy(shard, incarnation);
    let start = [&prefix[..], &from.key].concat();
    let end = keys::copy_end(shard, incarnation);
    let found = rows.range(&start, &end, CHUNK_ROWS, CHUNK_BYTES)?;
    let mut pieces: Vec<Piece> = Vec::with_capacity(found.len());
    let mut room = CHUNK_BYTES;
    for (row, value) in found {
        let key = row.slice(keys::COPY_LEN..);
        // Only the row the cursor names can have been begun before.
        let offset = if key == from.key {
            from.offset.min(value.len() as u64)
        } else {
            0
        };
        if key.first() == Some(&SESSIONS) {
            let value = session::outgoing(&key[1..], &value, frozen_ms).map_err(|refusal| {
                rows.damaged(format_args!("session row {row:02x?}: {refusal:?}"))
            })?;
            if key.len() + value.len() > room && !pieces.is_empty() {
                return Ok(Chunk {
                    pieces,
                    next: Some(Cursor { key, offset: 0 }),
                });
            }
            room = room.saturating_sub(key.len() + value.len());
            pieces.push(Piece {
                key,
                offset: 0,
                value,
            });
            continue;
        }
        let rest = value.slice(offset as usize..);
        if key.len() + rest.len() <= room {
            room -= key.len() + rest.len();
            pieces.push(Piece {
                key,
                offset,
                value: rest,
            });
        } else if pieces.is_empty() {
            world::mark!("move: a value travels in pieces");
            // Keys are at most 64 KiB: there is room for a part of the value.
            let part = rest.slice(..room.saturating_sub(key.len()).max(1).min(rest.len()));
            let next = Cursor {
                key: key.clone(),
                offset: offset + part.len() as u64,
            };
            pieces.push(Piece {
                key,
                offset,
                value: part,
            });
            return Ok(Chunk {
                pieces,
                next: Some(next),
            });
        } else {
            return Ok(Chunk {
                pieces,
                next: Some(Cursor { key, offset: 0 }),
            });
        }
    }
    let Some(last) = pieces.last() else {
        return Ok(Chunk { pieces, next: None });
    };
    let behind = Bytes::from([&last.key[..], &[0]].concat());
    let more = !rows
        .range(&[&prefix[..], &behind].concat(), &end, 1, 1)?
        .is_empty();
    Ok(Chunk {
        pieces,
        next: more.then_some(Cursor {
            key: behind,
            offset: 0,
        }),
    })
}

/// Whether a chunk can be installed at a cursor. Nothing is changed; the reason says what is
/// wrong with it.
pub fn check(
    rows: &Rows,
    shard: ShardId,
    incarnation: ConfigNum,
    from: &Cursor,
    chunk: &Chunk,
    now_ms: u64,
) -> Result<Result<(), String>, StoreError> {
    if from.offset > 0 && chunk.pieces.first().is_none_or(|p| p.key != from.key) {
        return Ok(Err("a begun value is not continued".to_owned()));
    }
    let mut last: Option<&Bytes> = None;
    for (n, piece) in chunk.pieces.iter().enumerate() {
        let kind = piece.key.first();
        if kind != Some(&DATA) && kind != Some(&SESSIONS) {
            return Ok(Err("a row of no known kind".to_owned()));
        }
        if last.is_some_and(|last| *last >= piece.key) || piece.key < from.key {
            return Ok(Err("rows out of order".to_owned()));
        }
        last = Some(&piece.key);
        let begun = if n == 0 && piece.key == from.key {
            from.offset
        } else {
            0
        };
        if piece.offset != begun {
            return Ok(Err(format!(
                "a value from byte {} where {begun} are here",
                piece.offset
            )));
        }
        if kind == Some(&SESSIONS)
            && session::incoming(&piece.key[1..], &piece.value, now_ms).is_err()
        {
            return Ok(Err("a session that cannot be read".to_owned()));
        }
        if begun > 0 {
            let key = [&keys::copy(shard, incarnation)[..], &piece.key].concat();
            if rows.get(&key)?.map(|v| v.len() as u64) != Some(begun) {
                return Ok(Err("the value's beginning is not here".to_owned()));
            }
        }
    }
    Ok(match (&chunk.next, last) {
        (Some(next), Some(last)) if next.key < *last => {
            Err("the next cursor lies behind".to_owned())
        }
        (Some(next), _) if next <= from => Err("the next cursor is no progress".to_owned()),
        _ => Ok(()),
    })
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
    for piece in &chunk.pieces {
        let key = [&prefix[..], &piece.key].concat();
        if piece.key.first() == Some(&SESSIONS) {
            world::mark!("move: a session arrives with its shard");
            let value = session::incoming(&piece.key[1..], &piece.value, now_ms)
                .map_err(|refusal| rows.damaged(format_args!("session row: {refusal:?}")))?;
            rows.put(&key, &value)?;
            continue;
        }
        counters.bytes += piece.value.len() as u64;
        if piece.offset == 0 {
            counters.keys += 1;
            counters.bytes += piece.key.len() as u64 - 1;
            rows.put(&key, &piece.value)?;
        } else {
            let begun = rows.get(&key)?.unwrap_or_default();
            rows.put(&key, &[&begun[..], &piece.value].concat())?;
        }
    }
    Ok(())
}
