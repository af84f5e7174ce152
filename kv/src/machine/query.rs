//! What may be asked of the machine. Nothing here changes it.

use super::chunk::Chunk;
use super::state::Cursor;
use crate::api::ShardStatus;
use bytes::Bytes;
use ctrler::config::{ConfigNum, GroupId, ShardId};
use serde::{Deserialize, Serialize};

/// Entries of each list of an [`Agenda`], for each other group; more is told when these are done.
/// For each group, because one that is dead must not hide what others wait for.
pub const AGENDA_ENTRIES: usize = 64;

/// A query. Answered by the same build on the same node: never stored, never sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// A client's Get; answered with a `Response`.
    Get {
        /// The shard.
        shard: ShardId,
        /// The key.
        key: Bytes,
    },
    /// What the group has to do; answered with an [`Agenda`].
    Agenda,
    /// For the status page; answered with a [`Page`].
    Page,
    /// Rows of a shard that leaves, asked by its new owner; answered with [`Pulled`].
    Pull {
        /// The shard.
        shard: ShardId,
        /// The configuration in which it moves.
        num: ConfigNum,
        /// The first row wanted.
        from: Cursor,
        /// Who asks: group and birth id.
        by: (GroupId, u128),
    },
    /// Which of these shards have arrived here; answered with a list of them.
    Installed {
        /// The shards.
        shards: Vec<ShardId>,
        /// The configuration in which they move.
        num: ConfigNum,
    },
    /// Which of these shards are leaving in this configuration to the group that says they have
    /// arrived; answered with a list of them.
    Leaving {
        /// The shards.
        shards: Vec<ShardId>,
        /// The configuration in which they move.
        num: ConfigNum,
        /// The new owner and its birth id.
        to: (GroupId, u128),
    },
}

impl Query {
    /// For `Replica::read` and `Replica::inspect`.
    pub fn to_bytes(&self) -> Bytes {
        Bytes::from(postcard::to_stdvec(self).expect("queries are plain data"))
    }
}

/// What a group has to do, and what of its state that depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agenda {
    /// The birth id; `None`: not born.
    pub birth: Option<u128>,
    /// The present configuration.
    pub config: ConfigNum,
    /// Shards to fetch.
    pub arriving: Vec<Arrival>,
    /// Shards given, until the new owner has committed them.
    pub leaving: Vec<Departure>,
    /// Nothing of the present configuration is owed.
    pub settled: bool,
    /// Some shard is here, be it only Held.
    pub holds: bool,
    /// Copies given away whose rows are still there: shard and incarnation.
    pub dead: Vec<(ShardId, ConfigNum)>,
}

/// A shard to fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrival {
    /// The shard.
    pub shard: ShardId,
    /// Who has it.
    pub from: GroupId,
    /// The first row wanted.
    pub cursor: Cursor,
}

/// A shard given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// The shard.
    pub shard: ShardId,
    /// Its new owner.
    pub to: GroupId,
    /// The new owner has asked for it.
    pub frozen: bool,
}

/// The machine's part of the status page.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The birth id.
    pub birth: Option<u128>,
    /// The present configuration.
    pub config: ConfigNum,
    /// Shards that are not Absent.
    pub shards: Vec<ShardStatus>,
    /// Bytes given away and not yet swept.
    pub sweeping: u64,
    /// Copies given away and not yet swept.
    pub dead: u64,
}

/// Answer to [`Query::Pull`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pulled {
    /// The group is not in that configuration yet.
    NotYet,
    /// The shard must be frozen first.
    Freeze,
    /// Rows.
    Chunk(Chunk),
    /// It was given and released, or never was here: nothing more is to be had.
    Gone,
    /// It does not go to the one who asks.
    Foreign,
}
