//! Execution of a client's operations: all of them, or none.

use super::keys;
use super::state::Counters;
use super::value::{self, Head, PIECE_BYTES, Stored, pieces, span};
use crate::api::{MAX_BATCH, MAX_BATCH_BYTES, MAX_FOUND_BYTES, MAX_KEY, MAX_VALUE, Op, Outcome};
use crate::slot;
use bytes::{Bytes, BytesMut};
use ctrler::config::{ConfigNum, ShardId};
use raft::store::{Rows, StoreError};
use std::collections::BTreeMap;
use std::ops::Range;

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

/// A value under change: the beginning that stands in pieces as it did, and what follows.
struct Value {
    /// Bytes of stored pieces that stay as they are.
    kept: usize,
    tail: Bytes,
}

impl Value {
    fn new(tail: Bytes) -> Value {
        Value { kept: 0, tail }
    }

    fn stored(stored: &Stored) -> Value {
        match stored {
            Stored::Whole(value) => Value::new(value.clone()),
            Stored::Pieces(len) => Value {
                kept: *len,
                tail: Bytes::new(),
            },
        }
    }

    fn len(&self) -> usize {
        self.kept + self.tail.len()
    }
}

/// One operation on a value. Of what is kept of it only full pieces are when it is appended to, and
/// `begins` says whether an expected value begins like it. `Err`: it fails.
fn change(now: &mut Option<Value>, op: &Op, begins: bool) -> Result<Outcome, Outcome> {
    match op {
        Op::Put { value, .. } => {
            *now = Some(Value::new(value.clone()));
            let len = value.len() as u64;
            Ok(Outcome::Written { len })
        }
        Op::Append { value, .. } => {
            let mut whole = now.take().unwrap_or_else(|| Value::new(Bytes::new()));
            let len = whole.len() + value.len();
            if len > MAX_VALUE {
                return Err(Outcome::TooLarge(format!(
                    "the value would have {len} bytes: the limit is {MAX_VALUE}"
                )));
            }
            // Grows in place where nobody else holds it: a batch may append to a value a thousand
            // times.
            let mut tail = BytesMut::from(whole.tail);
            tail.extend_from_slice(value);
            whole.tail = tail.freeze();
            *now = Some(whole);
            Ok(Outcome::Written { len: len as u64 })
        }
        Op::Delete { .. } => Ok(Outcome::Deleted {
            existed: now.take().is_some(),
        }),
        Op::CompareAndSet {
            expected, value, ..
        } => {
            let same = match (&*now, expected) {
                (None, None) => true,
                (Some(now), Some(expected)) => {
                    now.len() == expected.len() && begins && now.tail == expected[now.kept..]
                }
                _ => false,
            };
            if same {
                *now = value.clone().map(Value::new);
                return Ok(Outcome::Swapped);
            }
            let short = |value: &&Value| value.kept == 0 && value.tail.len() <= MAX_ACTUAL;
            Err(Outcome::Mismatch {
                exists: now.is_some(),
                actual: now.as_ref().filter(short).map(|value| value.tail.clone()),
            })
        }
    }
}

/// Keeps the sizes of a shard up with a change of one key.
fn count(counters: &mut Counters, key: &Bytes, before: Option<usize>, now: Option<usize>) {
    if let Some(before) = before {
        counters.keys -= 1;
        counters.bytes -= (key.len() + before) as u64;
    }
    if let Some(now) = now {
        counters.keys += 1;
        counters.bytes += (key.len() + now) as u64;
    }
}

/// Where a write works: a copy of a shard, and the number its changes get.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The shard.
    pub shard: ShardId,
    /// The copy.
    pub incarnation: ConfigNum,
    /// Number of this change.
    pub change: u64,
}

impl Target {
    fn copy(&self) -> (ShardId, ConfigNum) {
        (self.shard, self.incarnation)
    }

    fn head(&self, key: &[u8]) -> Bytes {
        keys::data(self.shard, self.incarnation, key).into()
    }

    fn piece(&self, key: &[u8], number: u32) -> Bytes {
        keys::piece(self.shard, self.incarnation, key, number).into()
    }

    fn row(&self, value: Stored) -> Bytes {
        let change = self.change;
        Head { change, value }.to_row()
    }
}

/// A key the write touches.
struct Touched {
    /// Its row before, and what it said.
    row: Option<Bytes>,
    before: Option<Stored>,
    now: Option<Value>,
    /// Something was done to it.
    changed: bool,
}

/// The values a write sees: the rows, and above them its own earlier effects.
struct View<'a> {
    rows: &'a mut Rows,
    target: Target,
    touched: BTreeMap<Bytes, Touched>,
    /// Bytes of present values that the write reads or drops.
    found: usize,
}

impl View<'_> {
    fn touch(&mut self, key: &Bytes) -> Result<Touched, StoreError> {
        if let Some(touched) = self.touched.remove(key) {
            return Ok(touched);
        }
        let row = self.rows.get(&self.target.head(key))?;
        let before = match &row {
            Some(row) => Some(value::head(self.rows, row)?.value),
            None => None,
        };
        let now = before.as_ref().map(Value::stored);
        self.found += now.as_ref().map_or(0, |now| now.tail.len());
        Ok(Touched {
            row,
            before,
            now,
            changed: false,
        })
    }

    /// Of a value that is appended to, the last piece is read if it is not full.
    fn open_tail(&mut self, key: &Bytes, now: &mut Value) -> Result<(), StoreError> {
        let partial = now.kept % PIECE_BYTES;
        if partial > 0 {
            let number = pieces(now.kept) - 1;
            let copy = self.target.copy();
            now.tail = value::piece(self.rows, copy, key, number, now.kept)?;
            now.kept -= partial;
            self.found += partial;
        }
        Ok(())
    }

    /// Whether a value of the same length begins with the pieces kept of this one.
    fn begins(&self, key: &Bytes, now: &Value, expected: &Bytes) -> Result<bool, StoreError> {
        if now.len() != expected.len() {
            return Ok(false);
        }
        for number in 0..pieces(now.kept) {
            let copy = self.target.copy();
            let piece = value::piece(self.rows, copy, key, number, now.kept)?;
            if piece != expected[span(number, now.kept)] {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// One operation. `Err`: it fails, and with it the whole write.
    fn run(&mut self, op: &Op) -> Result<Result<Outcome, Outcome>, StoreError> {
        let key = key_of(op);
        let mut touched = self.touch(key)?;
        let mut begins = true;
        match (op, &mut touched.now) {
            (Op::Append { .. }, Some(now)) => self.open_tail(key, now)?,
            (Op::CompareAndSet { expected, .. }, Some(now)) if now.kept > 0 => {
                begins = match expected {
                    Some(expected) => self.begins(key, now, expected)?,
                    None => false,
                };
            }
            _ => {}
        }
        let kept = |now: &Option<Value>| now.as_ref().map_or(0, |now| now.kept);
        let before = kept(&touched.now);
        let outcome = change(&mut touched.now, op, begins);
        touched.changed |= outcome.is_ok();
        // Pieces that go are read too: the digest is a sum over what is there.
        self.found += before - kept(&touched.now).min(before);
        self.touched.insert(key.clone(), touched);
        if self.found > MAX_FOUND_BYTES {
            return Ok(Err(Outcome::TooLarge(format!(
                "the keys of this write have values of {} bytes together: the limit is \
                 {MAX_FOUND_BYTES}",
                self.found
            ))));
        }
        Ok(outcome)
    }

    /// Stores what became of a key.
    fn store(&mut self, key: &Bytes, touched: Touched) -> Result<(), StoreError> {
        let old = touched.before.as_ref().map_or(0, Stored::pieces);
        let head = self.rows.known(self.target.head(key), touched.row);
        let Some(Value { kept, tail }) = touched.now else {
            head.remove();
            return self.drop_pieces(key, 0..old);
        };
        let len = kept + tail.len();
        if len <= PIECE_BYTES {
            head.set(self.target.row(Stored::Whole(tail)));
            return self.drop_pieces(key, 0..old);
        }
        head.set(self.target.row(Stored::Pieces(len)));
        let first = pieces(kept);
        for (number, piece) in (first..).zip(tail.chunks(PIECE_BYTES)) {
            let (row, piece) = (
                self.target.piece(key, number),
                Bytes::copy_from_slice(piece),
            );
            match number < old {
                true => self.rows.entry(row)?.set(piece),
                false => self.rows.known(row, None).set(piece),
            }
        }
        self.drop_pieces(key, pieces(len)..old)
    }

    fn drop_pieces(&mut self, key: &Bytes, numbers: Range<u32>) -> Result<(), StoreError> {
        for number in numbers {
            let row = self.rows.entry(self.target.piece(key, number))?;
            if row.remove().is_none() {
                let missing = format_args!("piece {number} of a value is not there");
                return Err(self.rows.damaged(missing));
            }
        }
        Ok(())
    }
}

/// A write of one operation on a value that stands in the row of its key, before and after: that row
/// is looked up once. `None`: nothing was done, it is not such a write.
fn short(
    rows: &mut Rows,
    target: Target,
    counters: &mut Counters,
    op: &Op,
) -> Result<Option<Outcome>, StoreError> {
    let key = key_of(op);
    let entry = rows.entry(target.head(key))?;
    let before = match entry.get().map(Head::from_row).transpose() {
        Ok(head) => head.map(|head| head.value),
        Err(reason) => {
            drop(entry);
            return Err(rows.damaged(reason));
        }
    };
    if let Some(Stored::Pieces(_)) = before {
        return Ok(None);
    }
    let mut now = before.as_ref().map(Value::stored);
    let outcome = match change(&mut now, op, true) {
        Ok(outcome) => outcome,
        Err(failed) => return Ok(Some(failed)),
    };
    let len = now.as_ref().map(Value::len);
    match now {
        Some(now) if now.len() > PIECE_BYTES => return Ok(None),
        Some(now) => entry.set(target.row(Stored::Whole(now.tail))),
        None => drop(entry.remove()),
    }
    count(counters, key, before.as_ref().map(Stored::len), len);
    Ok(Some(outcome))
}

/// Runs operations that passed the checks above. Later ones see what earlier ones did; when one
/// fails nothing is changed, and the others say `Aborted`.
pub fn execute(
    rows: &mut Rows,
    target: Target,
    counters: &mut Counters,
    ops: &[Op],
) -> Result<Vec<Outcome>, StoreError> {
    if let [op] = ops
        && let Some(outcome) = short(rows, target, counters, op)?
    {
        return Ok(vec![outcome]);
    }
    let mut view = View {
        rows,
        target,
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
    for (key, touched) in std::mem::take(&mut view.touched) {
        if touched.changed {
            let before = touched.before.as_ref().map(Stored::len);
            count(counters, &key, before, touched.now.as_ref().map(Value::len));
            view.store(&key, touched)?;
        }
    }
    Ok(outcomes)
}
