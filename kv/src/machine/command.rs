//! Commands of a group's log. Variants are only ever appended; [`Command::level`] says from which
//! feature level on one may be proposed. The level is an entry of the log itself, and a build that
//! does not know it ends there, and refuses a state that is at it: none goes on past what it cannot
//! read. Golden bytes stand in the tests.

use super::chunk::Chunk;
use super::state::{Cursor, Run};
use crate::api::Op;
use bytes::Bytes;
use ctrler::config::{Config, ConfigNum, GroupId, ShardId};
use raft::session::Seq;
use serde::{Deserialize, Serialize};

/// The highest feature level this build can read.
pub const LEVEL: u32 = 1;

/// One command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first one: the group's random birth id. Later ones change nothing.
    Birth {
        /// The id.
        id: u128,
    },
    /// Every member can read commands of this level.
    Level {
        /// The level.
        level: u32,
    },
    /// Opens a session of a shard.
    Open {
        /// The shard.
        shard: ShardId,
    },
    /// Closes one.
    Close {
        /// The shard.
        shard: ShardId,
        /// The session.
        session: u64,
    },
    /// Operations of a client, atomic, exactly once.
    Write {
        /// The shard.
        shard: ShardId,
        /// Place in the session's stream.
        seq: Seq,
        /// The operations.
        ops: Vec<Op>,
    },
    /// The next configuration, when nothing of the present one is owed.
    Enter(Enter),
    /// A leaving shard is no longer served: the new owner has asked for it.
    Freeze {
        /// The shard.
        shard: ShardId,
        /// The configuration in which it leaves.
        num: ConfigNum,
    },
    /// Rows of an arriving shard.
    Install {
        /// The shard.
        shard: ShardId,
        /// The configuration in which it arrives.
        num: ConfigNum,
        /// Where these rows begin; accepted only if that is where the shard's rows end.
        from: Cursor,
        /// The rows.
        chunk: Chunk,
    },
    /// The new owner has committed a leaving shard: this copy may go.
    Release {
        /// The shard.
        shard: ShardId,
        /// The configuration in which it left.
        num: ConfigNum,
    },
    /// Deletes a bounded number of rows of a copy given away.
    Sweep {
        /// The shard.
        shard: ShardId,
        /// The copy.
        incarnation: ConfigNum,
    },
    /// The last of several configurations that change nothing for this group.
    Skip(Skip),
}

/// Configurations behind `from`, up to `to`, in all of which this group owns and holds the same
/// shards as in `from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The configuration the group is in.
    pub from: ConfigNum,
    /// The last of them.
    pub to: ConfigNum,
    /// Owners of all shards in the last.
    pub owners: Vec<Run>,
    /// Holders of all shards in the last.
    pub holders: Vec<Run>,
}

impl Skip {
    /// To a configuration.
    pub fn new(from: ConfigNum, config: &Config) -> Skip {
        Skip {
            from,
            to: config.num,
            owners: super::state::to_runs(&config.shards),
            holders: super::state::to_runs(&config.holders),
        }
    }
}

/// What of a configuration concerns a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enter {
    /// Its number.
    pub num: ConfigNum,
    /// Owners of all shards.
    pub owners: Vec<Run>,
    /// Birth ids of the owners.
    pub births: Vec<(GroupId, u128)>,
}

impl Enter {
    /// From a configuration.
    pub fn new(config: &Config) -> Enter {
        let births = config.groups.iter().map(|(id, group)| (*id, group.birth));
        Enter {
            num: config.num,
            owners: super::state::to_runs(&config.shards),
            births: births.collect(),
        }
    }
}

impl Command {
    /// The feature level this kind belongs to.
    pub fn level(&self) -> u32 {
        1
    }

    /// For the log.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(postcard::to_stdvec(self).expect("commands are plain data"))
    }

    /// From the log; `None` when it is none that this build knows.
    pub fn from_bytes(bytes: &[u8]) -> Option<Command> {
        match postcard::take_from_bytes(bytes) {
            Ok((command, [])) => Some(command),
            _ => None,
        }
    }
}

/// What became of a command that no client sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ack {
    /// It took effect.
    Done,
    /// It did not, and changed nothing: overtaken, repeated, or not to be.
    Refused(String),
}

impl Ack {
    /// The machine's reply.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(postcard::to_stdvec(self).expect("acks are plain data"))
    }

    /// Reads a reply.
    pub fn from_bytes(bytes: &[u8]) -> Ack {
        postcard::from_bytes(bytes)
            .unwrap_or_else(|_| Ack::Refused("not a reply to such a command".to_owned()))
    }
}
