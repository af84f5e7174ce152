//! What groups say to each other about shards on the move, on channel `GROUP_CHANNEL`. Versioned by
//! the variants, which are only ever appended; golden bytes stand in the tests.

use crate::machine::chunk::Chunk;
use crate::machine::state::Cursor;
use bytes::Bytes;
use ctrler::config::{ConfigNum, GroupId, ShardId};
use serde::{Deserialize, Serialize};

/// Most shards named in one question.
pub const MAX_SHARDS: usize = 64;

/// A group as the other one must know it: its number alone is not enough, since a number can be
/// used again on empty disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Party {
    /// The group.
    pub group: GroupId,
    /// Its birth id.
    pub birth: u128,
}

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Who asks.
    pub from: Party,
    /// Who is meant.
    pub to: Party,
    /// The configuration in which the shards move.
    pub num: ConfigNum,
    /// What is asked.
    pub what: What,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// The new owner, in `num` itself, wants rows of a shard from a cursor on.
    Pull {
        /// The shard.
        shard: ShardId,
        /// The first row wanted.
        from: Cursor,
    },
    /// The old owner wants to know which of these have arrived.
    Installed {
        /// The shards.
        shards: Vec<ShardId>,
    },
    /// The new owner has committed these: the old copies may go.
    Arrived {
        /// The shards.
        shards: Vec<ShardId>,
    },
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To Pull: rows.
    Rows(Chunk),
    /// To Pull: not in that configuration yet; ask again later.
    NotYet,
    /// To Pull: nothing to be had (any more).
    Gone,
    /// To Installed: those that have arrived.
    Installed(Vec<ShardId>),
    /// To Arrived: taken in.
    Noted,
    /// Only the leader can do this; its address, if known.
    NotLeader(Option<String>),
    /// Not for you, or not by me: the reason says both sides.
    Refused(String),
    /// Try again later.
    Busy,
    /// The question could not be read, or is not one this version knows.
    Malformed,
}

impl Ask {
    /// For the wire.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(postcard::to_stdvec(self).expect("questions are plain data"))
    }

    /// From the wire.
    pub fn from_bytes(bytes: &[u8]) -> Option<Ask> {
        postcard::from_bytes(bytes).ok()
    }
}

impl Answer {
    /// For the wire.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(postcard::to_stdvec(self).expect("answers are plain data"))
    }

    /// From the wire.
    pub fn from_bytes(bytes: &[u8]) -> Answer {
        postcard::from_bytes(bytes).unwrap_or(Answer::Malformed)
    }
}
