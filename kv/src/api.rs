//! What clients say to a kv server, on channel [`CHANNEL`].

use bytes::Bytes;
use ctrler::config::{ConfigNum, GroupId, ShardId};
use raft::replica::ReplicaStatus;
use raft::session::{Refusal, Seq};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// Channel of client calls on a kv server's port.
pub const CHANNEL: u8 = 1;
/// Channel of calls between groups (shards on the move).
pub const GROUP_CHANNEL: u8 = 2;
/// Channel for the same [`Request`]s of a client that cannot reach the group's leader: a member that
/// does not lead carries writes to the one that it takes for the leader, and brings the answer back.
/// What is carried arrives there on [`CHANNEL`], so it is carried once at most; reads are not, since
/// every member serves them.
pub const CARRY_CHANNEL: u8 = 3;

/// Longest key, bytes.
pub const MAX_KEY: usize = 64 << 10;
/// Longest value, bytes; an append that would pass it is refused.
pub const MAX_VALUE: usize = 8 << 20;
/// Operations in one batch.
pub const MAX_BATCH: usize = 1024;
/// Bytes of keys and values in one batch.
pub const MAX_BATCH_BYTES: usize = MAX_VALUE + MAX_KEY;
/// Bytes of the present values that one write replaces or deletes: every member reads them in one go.
/// Of a long value that it appends to only the last piece counts.
pub const MAX_FOUND_BYTES: usize = 8 * MAX_VALUE;

/// One operation of a write. All operations of a write are on one shard and apply atomically.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Appends to a key's value; an absent key counts as empty.
    Append {
        /// The key.
        key: Bytes,
        /// What is appended.
        value: Bytes,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Sets a key if its value is `expected` (`None`: if it is absent), else changes nothing.
    /// `value` `None` removes it. In a batch a failed compare makes the whole batch do nothing.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// What it must be.
        expected: Option<Bytes>,
        /// What it becomes.
        value: Option<Bytes>,
    },
}

impl Op {
    /// Whether it may make the state grow.
    pub fn stores(&self) -> bool {
        match self {
            Op::Put { .. } | Op::Append { .. } => true,
            Op::CompareAndSet { value, .. } => value.is_some(),
            Op::Delete { .. } => false,
        }
    }
}

/// What one operation did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Put, or Append (the new length in bytes), done.
    Written {
        /// Length of the value now.
        len: u64,
    },
    /// Delete done; whether the key was there.
    Deleted {
        /// The key existed.
        existed: bool,
    },
    /// CompareAndSet swapped.
    Swapped,
    /// CompareAndSet found something else: nothing changed. Its present value, when it is not
    /// longer than 4 KiB (replies are bounded).
    Mismatch {
        /// The key exists.
        exists: bool,
        /// Its value, if short.
        actual: Option<Bytes>,
    },
    /// The operation would pass a limit: nothing changed.
    TooLarge(String),
    /// Not tried: another operation of the batch failed.
    Aborted,
}

/// Stops reading far above [`MAX_BATCH`]: a frame of tiny operations would otherwise become
/// fifty times its size in memory before anybody counts them.
fn bounded_ops<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Op>, D::Error> {
    struct Ops;
    impl<'de> Visitor<'de> for Ops {
        type Value = Vec<Op>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "at most {MAX_BATCH} operations")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<Op>, A::Error> {
            let mut ops = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(MAX_BATCH));
            while let Some(op) = seq.next_element()? {
                if ops.len() == 4 * MAX_BATCH {
                    return Err(serde::de::Error::invalid_length(ops.len() + 1, &self));
                }
                ops.push(op);
            }
            Ok(ops)
        }
    }
    deserializer.deserialize_seq(Ops)
}

/// A request to a kv server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// A linearizable read. Any member may be asked.
    Get {
        /// The key's shard.
        shard: ShardId,
        /// The key.
        key: Bytes,
    },
    /// Opens a session of a shard.
    Open {
        /// The shard.
        shard: ShardId,
    },
    /// Closes a session.
    Close {
        /// The shard.
        shard: ShardId,
        /// The session.
        session: u64,
    },
    /// A write: operations on one shard, atomically, exactly once.
    Write {
        /// The shard of every key in `ops`.
        shard: ShardId,
        /// Its place in the session.
        seq: Seq,
        /// The operations.
        #[serde(deserialize_with = "bounded_ops")]
        ops: Vec<Op>,
    },
    /// Who the server's group is (for Join).
    Identify,
    /// The status page of the server asked.
    Status,
}

/// A kv server's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To Get.
    Value(Option<Bytes>),
    /// To Open.
    Session(u64),
    /// To Close.
    Closed,
    /// To Write: one outcome per operation.
    Written(Vec<Outcome>),
    /// The shard is not served here. Nothing happened, nothing was consumed. `owner`: who serves it
    /// or will, as far as this group knows; `config`: the group's configuration number.
    WrongGroup {
        /// The group's configuration.
        config: ConfigNum,
        /// Who might serve it.
        owner: Option<GroupId>,
    },
    /// Refused by the session; nothing consumed.
    Refused(Refusal),
    /// The request itself is refused (limits, a key of another shard); nothing happened.
    Invalid(String),
    /// Ask the leader (node and address, if known). Nothing happened.
    NotLeader(Option<(u64, String)>),
    /// Try again later; nothing happened.
    Busy,
    /// The outcome is not known here: ask again under the same number.
    Unknown,
    /// To Identify.
    Identity {
        /// The group.
        group: GroupId,
        /// Its birth id (`None`: its first entry is not committed yet).
        birth: Option<u128>,
        /// Its members' addresses.
        servers: Vec<String>,
    },
    /// To Status.
    Status(Box<KvStatus>),
    /// The request could not be read, or is not one this version knows.
    Malformed(String),
    /// To Write: the server's disk is nearly full, and something is to be stored. Nothing happened,
    /// nothing was consumed.
    Full(String),
}

/// State of a shard in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShardState {
    /// Not here.
    Absent,
    /// On its way here; rows so far.
    Arriving,
    /// Served.
    Serving,
    /// Given away; served until frozen, kept until the new owner has it.
    Leaving,
    /// Belongs to nobody, kept here.
    Held,
}

/// Status page of one kv server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvStatus {
    /// The replica.
    pub replica: ReplicaStatus,
    /// The group's configuration.
    pub config: ConfigNum,
    /// Shards that are not Absent: state, the configuration they came with, rows, bytes, the other group.
    pub shards: Vec<ShardStatus>,
    /// Bytes of deleted shards still to be swept.
    pub sweeping: u64,
    /// Copies of shards given away that are not swept yet, those without rows among them.
    pub dead: u64,
}

/// One shard in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// The shard.
    pub shard: ShardId,
    /// Its state here.
    pub state: ShardState,
    /// The configuration at which it came here.
    pub incarnation: ConfigNum,
    /// Frozen (leaving): no longer accepts operations.
    pub frozen: bool,
    /// Where it comes from or goes to.
    pub peer: Option<GroupId>,
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ops: usize) -> Result<Request, postcard::Error> {
        let op = Op::Delete { key: Bytes::new() };
        let seq = Seq {
            session: 1,
            seq: 1,
            acked: 0,
        };
        let request = Request::Write {
            shard: 0,
            seq,
            ops: vec![op; ops],
        };
        postcard::from_bytes(&postcard::to_stdvec(&request).expect("plain data"))
    }

    #[test]
    fn a_frame_of_tiny_operations_is_not_read_to_its_end() {
        assert!(
            matches!(write(MAX_BATCH + 1), Ok(Request::Write { ops, .. }) if ops.len() > MAX_BATCH)
        );
        assert!(write(4 * MAX_BATCH + 1).is_err());
    }
}
