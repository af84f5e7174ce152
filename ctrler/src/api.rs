//! What clients and groups say to a controller, on channel [`CHANNEL`].

use crate::config::{Config, ConfigNum, Group, GroupId, Record, ShardId};
use raft::replica::ReplicaStatus;
use raft::session::{Refusal, Seq};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Channel of these calls on a controller's port.
pub const CHANNEL: u8 = 1;

/// A request to a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The configuration of this number, or the latest.
    Query(Option<ConfigNum>),
    /// Opens a session.
    Open,
    /// A change, exactly once by session.
    Write(Seq, Change),
    /// The record of a group.
    Record(GroupId),
    /// All records.
    Records,
    /// Cluster id, number of shards, the latest number.
    Cluster,
    /// The status page of the server asked.
    Status,
    /// Closes a session: it may be forgotten first.
    Close(u64),
    /// The configuration to which a group may go at once; see [`crate::history::next_for`].
    Next {
        /// The group.
        group: GroupId,
        /// The configuration it is in.
        after: ConfigNum,
    },
}

impl Request {
    /// True of a request that controllers of earlier builds do not know, and that can be asked of
    /// them in another way.
    pub fn has_older_form(&self) -> bool {
        matches!(self, Request::Next { .. })
    }
}

/// A change of the controllers' state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Adds groups.
    Join(#[serde(deserialize_with = "crate::bounded::joining")] BTreeMap<GroupId, Group>),
    /// Removes groups.
    Leave(#[serde(deserialize_with = "crate::bounded::leaving")] Vec<GroupId>),
    /// Pins a shard to a group. Makes no configuration where it is pinned there already.
    Move(ShardId, GroupId),
    /// A group reports that it owes nothing of any configuration up to `through`.
    Settled {
        /// The group.
        group: GroupId,
        /// Its birth id and present servers.
        info: Group,
        /// The configuration.
        through: ConfigNum,
        /// True when it holds any shard.
        holds: bool,
    },
    /// Lets a pinned shard be moved by joins and leaves again; it may move at once, for balance. Makes
    /// no configuration where it is not pinned.
    Unpin(ShardId),
}

/// A controller's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To Query.
    Config(Config),
    /// To Open.
    Session(u64),
    /// The change is committed, and made this configuration (or left it as it was).
    Done(ConfigNum),
    /// The change or query is refused; the reason says what was expected.
    Invalid(String),
    /// Refused by the session.
    Refused(Refusal),
    /// To Record.
    Record(Option<Record>),
    /// To Records.
    Records(BTreeMap<GroupId, Record>),
    /// To Cluster.
    Cluster {
        /// Random id of the cluster.
        cluster: u128,
        /// Number of shards.
        shards: u32,
        /// Number of the latest configuration.
        latest: ConfigNum,
    },
    /// To Status.
    Status(ReplicaStatus),
    /// Ask the leader (its node id and address, if known). Nothing happened.
    NotLeader(Option<(u64, String)>),
    /// Try again later: nothing happened.
    Busy,
    /// Committed or not, this server cannot say. Ask again under the same number.
    Unknown,
    /// The request could not be read, or is not one this version knows.
    Malformed(String),
}
