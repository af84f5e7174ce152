//! What is refused before it is sent.

use super::ClientError;
use super::stream::size;
use crate::api::{MAX_BATCH, MAX_BATCH_BYTES, MAX_KEY, MAX_VALUE, Op};
use crate::slot;
use bytes::Bytes;
use ctrler::config::ShardId;

fn refuse<T>(reason: String) -> Result<T, ClientError> {
    Err(ClientError::Invalid(reason))
}

/// A key's length.
pub fn key(key: &[u8]) -> Result<(), ClientError> {
    match key.len() {
        0..=MAX_KEY => Ok(()),
        len => refuse(format!("the key has {len} bytes, more than {MAX_KEY}")),
    }
}

/// A value's length.
pub fn value(value: &[u8]) -> Result<(), ClientError> {
    match value.len() {
        0..=MAX_VALUE => Ok(()),
        len => refuse(format!("the value has {len} bytes, more than {MAX_VALUE}")),
    }
}

fn key_of(op: &Op) -> &Bytes {
    match op {
        Op::Put { key, .. }
        | Op::Append { key, .. }
        | Op::Delete { key }
        | Op::CompareAndSet { key, .. } => key,
    }
}

/// A batch's size.
pub fn batch(ops: &[Op]) -> Result<(), ClientError> {
    if ops.len() > MAX_BATCH {
        return refuse(format!(
            "the batch has {} operations, more than {MAX_BATCH}",
            ops.len()
        ));
    }
    for op in ops {
        key(key_of(op))?;
        match op {
            Op::Put { value: v, .. } | Op::Append { value: v, .. } => value(v)?,
            Op::Delete { .. } => {}
            Op::CompareAndSet {
                expected, value: v, ..
            } => {
                for bytes in [expected, v].into_iter().flatten() {
                    value(bytes)?;
                }
            }
        }
    }
    match size(ops) {
        0..=MAX_BATCH_BYTES => Ok(()),
        bytes => refuse(format!(
            "keys and values have {bytes} bytes together, more than {MAX_BATCH_BYTES}"
        )),
    }
}

/// The shard of all keys of a batch that is not empty.
pub fn one_shard(ops: &[Op], shards: u32) -> Result<ShardId, ClientError> {
    if shards == 0 {
        return refuse("the cluster has no shards".into());
    }
    let mut found = None;
    for op in ops {
        let shard = slot::shard(key_of(op), shards);
        if *found.get_or_insert(shard) != shard {
            return refuse(
                "the keys of a batch must be on one shard (use a common {tag} in them)".into(),
            );
        }
    }
    found.ok_or(ClientError::Invalid("the batch is empty".into()))
}
