//! What a replica tells of itself.

use raft_protocol::{Index, NodeId, Role, Term};

/// A status page.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReplicaStatus {
    /// Group.
    pub group: u64,
    /// Node.
    pub node: NodeId,
    /// Role.
    pub role: Role,
    /// Term.
    pub term: Term,
    /// Leader as far as known.
    pub leader: Option<NodeId>,
    /// Last index in the log.
    pub last: Index,
    /// Committed.
    pub commit: Index,
    /// Applied.
    pub applied: Index,
    /// Durable in the state.
    pub durable: Index,
    /// First index still in the log, minus one.
    pub base: Index,
    /// Bytes of log and state files.
    pub disk_bytes: u64,
    /// Why this node does not vote, if so.
    pub not_voting: Option<String>,
    /// State digest at `applied`.
    pub digest: u64,
    /// When leading: match index per follower.
    pub matched: Vec<(NodeId, Index)>,
    /// Bytes that were free on its disk lately; `u64::MAX` while that is not known.
    pub free_bytes: u64,
    /// That is less than is meant to stay free: its log is short, and it flushes early.
    pub disk_short: bool,
    /// When leading: why clients' writes are slowed down or refused, if so.
    pub writes_limited: Option<String>,
}
