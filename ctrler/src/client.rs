//! A client of the controllers; used by kv servers, by the store's client and by kvctl.

use crate::config::{Config, ConfigNum, Group, GroupId, Record, ShardId};
use raft::replica::ReplicaStatus;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use world::net::Hello;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Refused; the reason says what was expected. Nothing changed.
    #[error("{0}")]
    Invalid(String),
    /// No controller leader answered in time. Nothing was changed by this call.
    #[error("no controller answered in time ({0})")]
    Unavailable(String),
    /// A change was sent and its outcome could not be learnt in time.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// A client. Cheap to clone; clones share connections, and changes go one after the other.
#[derive(Clone)]
pub struct Client {}

impl Client {
    /// A client of the controllers at these addresses ("host:port"). `hello` introduces the
    /// caller.
    pub fn new(servers: Vec<String>, hello: Arc<dyn Fn() -> Hello + Send + Sync>) -> Client {
        let _ = (servers, hello);
        todo!()
    }
    /// The latest configuration, linearizably, or an old one.
    pub async fn query(
        &self,
        num: Option<ConfigNum>,
        deadline: Duration,
    ) -> Result<Config, ClientError> {
        let _ = (num, deadline);
        todo!()
    }
    /// Cluster id, number of shards, latest number.
    pub async fn cluster(&self, deadline: Duration) -> Result<(u128, u32, ConfigNum), ClientError> {
        let _ = deadline;
        todo!()
    }
    /// Adds groups.
    pub async fn join(
        &self,
        groups: BTreeMap<GroupId, Group>,
        deadline: Duration,
    ) -> Result<ConfigNum, ClientError> {
        let _ = (groups, deadline);
        todo!()
    }
    /// Removes groups (does not wait for them to hand over: see `record`).
    pub async fn leave(
        &self,
        groups: Vec<GroupId>,
        deadline: Duration,
    ) -> Result<ConfigNum, ClientError> {
        let _ = (groups, deadline);
        todo!()
    }
    /// Pins a shard to a group.
    pub async fn move_shard(
        &self,
        shard: ShardId,
        group: GroupId,
        deadline: Duration,
    ) -> Result<ConfigNum, ClientError> {
        let _ = (shard, group, deadline);
        todo!()
    }
    /// Reports that a group owes nothing up to `through`.
    pub async fn settled(
        &self,
        group: GroupId,
        info: Group,
        through: ConfigNum,
        holds: bool,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        let _ = (group, info, through, holds, deadline);
        todo!()
    }
    /// What is known of a group.
    pub async fn record(
        &self,
        group: GroupId,
        deadline: Duration,
    ) -> Result<Option<Record>, ClientError> {
        let _ = (group, deadline);
        todo!()
    }
    /// All records.
    pub async fn records(
        &self,
        deadline: Duration,
    ) -> Result<BTreeMap<GroupId, Record>, ClientError> {
        let _ = deadline;
        todo!()
    }
    /// The status page of every controller, or why it did not answer.
    pub async fn status(&self, deadline: Duration) -> Vec<(String, Result<ReplicaStatus, String>)> {
        let _ = deadline;
        todo!()
    }
}
