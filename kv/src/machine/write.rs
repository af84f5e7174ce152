//! Execution of a client's operations: all of them, or none.

use super::keys;
use super::state::Counters;
use crate::api::{MAX_BATCH, MAX_BATCH_BYTES, MAX_FOUND_BYTES, MAX_KEY, MAX_VALUE, Op, Outcome};
use crate::slot;
use bytes::{Bytes, BytesMut};
use ctrler::config::{ConfigNum, ShardId};
use raft::store::{Rows, StoreError};
use std::collections::BTreeMap;

/// Longest present value told by a failed compare, bytes: replies are bounded.
pub const MAX_ACTUAL: usize = 4 << 10;

/// The key of an operation.
pub fn key_of(op: &Op) -> &Bytes {
    match op {
        Op::Put { key, .. }
        | Op::Append { key, .. }
        | Op::Delete { key }
        | Op::CompareAndSet { key, .. } => key,
    }
}

/// Limits that hold whatever the state: sizes and numbers. The reason names the limit. A write
/// without operations is fine: a client uses up with it a number whose caller gave up, so that the
/// session's stream has no holes.
pub fn check_limits(ops: &[Op]) -> Result<(), String> {
    if ops.len() > MAX_BATCH {
        return Err(format!(
            "{} operations in one batch: the limit is {MAX_BATCH}",
            ops.len()
        ));
    }
    let mut total = 0;
    for op in ops {
        let key = key_of(op).len();
        check_key(key)?;
        let (value, expected) = match op {
            Op::Put { value, .. } | Op::Append { value, .. } => (value.len(), 0),
            Op::Delete { .. } => (0, 0),
            Op::CompareAndSet {
                expected, value, ..
            } => (
                value.as_ref().map_or(0, Bytes::len),
                expected.as_ref().map_or(0, Bytes::len),
            ),
        };
        for value in [value, expected] {
            if value > MAX_VALUE {
                return Err(format!(
                    "a value of {value} bytes: the limit is {MAX_VALUE}"
                ));
            }
        }
        total += key + value + expected;
    }
    // A compare of two longest values is more than a frame or a log entry holds.
    if total > MAX_BATCH_BYTES {
        return Err(format!(
            "{total} bytes in one write: the limit is {MAX_BATCH_BYTES}"
        ));
    }
    Ok(())
}

/// The limit of a key's length.
pub fn check_key(len: usize) -> Result<(), String> {
    if len > MAX_KEY {
        return Err(format!("a key of {len} bytes: the limit is {MAX_KEY}"));
    }
    Ok(())
}

/// That every key belongs to the shard.
pub fn check_shard(ops: &[Op], shard: ShardId, shards: u32) -> Result<(), String> {
    for op in ops {
        let of = slot::shard(key_of(op), shards);
        if of != shard {
            return Err(format!("a key of shard {of} in a write to shard {shard}"));
        }
    }
    Ok(())
}

/// A key the write touches.
struct Touched {
    /// Length of its value before, if there was one.
    before: Option<usize>,
    /// Its value now.
    now: Option<Bytes>,
}

/// The values a write sees: the rows, and above them its own earlier effects.
struct View<'a> {
    rows: &'a mut Rows,
    shard: ShardId,
    incarnation: ConfigNum,
    touched: BTreeMap<Bytes, Touched>,
    /// Bytes of the values found.
    found: usize,
}

impl View<'_> {
    fn touch(&mut self, key: &Bytes) -> Result<&mut Touched, StoreError> {
        if !self.touched.contains_key(key) {
            let now = self
                .rows
                .get(&keys::data(self.shard, self.incarnation, key))?;
            let before = now.as_ref().map(Bytes::len);
            self.found += before.unwrap_or(0);
            self.touched.insert(key.clone(), Touched { before, now });
        }
        Ok(self.touched.get_mut(key).expect("inserted above"))
    }

    /// One operation. `Err`: it fails, and with it the whole write.
    fn run(&mut self, op: &Op) -> Result<Result<Outcome, Outcome>, StoreError> {
        self.touch(key_of(op))?;
        if self.found > MAX_FOUND_BYTES {
            return Ok(Err(Outcome::TooLarge(format!(
                "the keys of this write have values of {} bytes together: the limit is \
                 {MAX_FOUND_BYTES}",
                self.found
            ))));
        }
        let touched = self.touch(key_of(op))?;
        Ok(match op {
            Op::Put { value, .. } => {
                touched.now = Some(value.clone());
                Ok(Outcome::Written {
                    len: value.len() as u64,
                })
            }
            Op::Append { value, .. } => {
                let len = touched.now.as_ref().map_or(0, Bytes::len) + value.len();
                if len > MAX_VALUE {
                    return Ok(Err(Outcome::TooLarge(format!(
                        "the value would have {len} bytes: the limit is {MAX_VALUE}"
                    ))));
                }
                // Grows in place where nobody else holds it: a batch may append to a long value a
                // thousand times.
                let mut whole = touched
                    .now
                    .take()
                    .map_or_else(BytesMut::new, BytesMut::from);
                whole.extend_from_slice(value);
                touched.now = Some(whole.freeze());
                Ok(Outcome::Written { len: len as u64 })
            }
            Op::Delete { .. } => Ok(Outcome::Deleted {
                existed: touched.now.take().is_some(),
            }),
            Op::CompareAndSet {
                expected, value, ..
            } => {
                if touched.now == *expected {
                    touched.now = value.clone();
                    Ok(Outcome::Swapped)
                } else {
                    let actual = touched.now.clone().filter(|v| v.len() <= MAX_ACTUAL);
                    Err(Outcome::Mismatch {
                        exists: touched.now.is_some(),
                        actual,
                    })
                }
            }
        })
    }
}

/// Runs operations that passed the checks above. Later ones see what earlier ones did; when one
/// fails nothing is changed, and the others say `Aborted`.
pub fn execute(
    rows: &mut Rows,
    shard: ShardId,
    incarnation: ConfigNum,
    counters: &mut Counters,
    ops: &[Op],
) -> Result<Vec<Outcome>, StoreError> {
    let mut view = View {
        rows,
        shard,
        incarnation,
        touched: BTreeMap::new(),
        found: 0,
    };
    let mut outcomes = Vec::with_capacity(ops.len());
    for op in ops {
        match view.run(op)? {
            Ok(outcome) => outcomes.push(outcome),
            Err(failed) => {
                let at = outcomes.len();
                outcomes = vec![Outcome::Aborted; ops.len()];
                outcomes[at] = failed;
                return Ok(outcomes);
            }
        }
    }
    let View { rows, touched, .. } = view;
    for (key, Touched { before, now }) in touched {
        let row = keys::data(shard, incarnation, &key);
        if let Some(before) = before {
            counters.keys -= 1;
            counters.bytes -= (key.len() + before) as u64;
        }
        match now {
            Some(value) => {
                counters.keys += 1;
                counters.bytes += (key.len() + value.len()) as u64;
                rows.put(&row, &value)?;
            }
            None if before.is_some() => {
                rows.delete(&row)?;
            }
            None => {}
        }
    }
    Ok(outcomes)
}
