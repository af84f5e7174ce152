//! The driver: one task owns the consensus core, one the log, one the state machine.

use crate::identity::Identity;
use crate::log::LogOptions;
use crate::machine::Machine;
use crate::store::StoreOptions;
use bytes::Bytes;
use raft_protocol::{Index, NodeId, Role, Term};
use std::collections::BTreeMap;
use std::time::Duration;
use world::disk::Disk;
use world::net::{BoxFuture, Hello, Limits};

/// Channel of consensus mail and calls on a server's port. Applications use others.
pub const CHANNEL: u8 = 0;

/// What a replica is started with.
#[derive(Clone)]
pub struct Options {
    /// Replica group; 0: the controllers.
    pub group: u64,
    /// This node.
    pub node: NodeId,
    /// All initial members, this node included: "host:port" each.
    pub peers: BTreeMap<NodeId, String>,
    /// Length of a tick.
    pub tick: Duration,
    /// See `raft_protocol::Settings`.
    pub election_ticks: u32,
    /// See `raft_protocol::Settings`.
    pub heartbeat_ticks: u32,
    /// Log.
    pub log: LogOptions,
    /// Store.
    pub store: StoreOptions,
    /// Network.
    pub limits: Limits,
    /// Entries kept in the log behind the durable state for followers that lag, bytes.
    pub keep_log_bytes: usize,
    /// Commands waiting for commitment, bytes; beyond: `Busy`.
    pub max_uncommitted_bytes: usize,
}

impl Options {
    /// Defaults for a member of a group.
    pub fn new(group: u64, node: NodeId, peers: BTreeMap<NodeId, String>) -> Options {
        Options {
            group,
            node,
            peers,
            tick: Duration::from_millis(25),
            election_ticks: 24,
            heartbeat_ticks: 3,
            log: LogOptions::default(),
            store: StoreOptions::default(),
            limits: Limits::default(),
            keep_log_bytes: 16 << 20,
            max_uncommitted_bytes: 32 << 20,
        }
    }
}

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not appended here: this node does not lead.
    #[error("not the leader (known leader: {leader:?})")]
    NotLeader {
        /// The leader as far as known.
        leader: Option<NodeId>,
    },
    /// Certainly not appended: too much is waiting.
    #[error("busy: too many commands are waiting")]
    Busy,
    /// Appended, and its fate is not known (leadership moved, time ran out, shutting down). It
    /// may take effect later, once.
    #[error("the outcome is unknown: {0}")]
    Unknown(&'static str),
    /// The server is going down.
    #[error("shutting down")]
    Stopped,
}

/// Why a read has no answer. It had no effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// No leader could confirm a read index in time.
    #[error("no leader could be reached")]
    NoLeader,
    /// The deadline passed.
    #[error("deadline passed")]
    Deadline,
    /// The server is going down.
    #[error("shutting down")]
    Stopped,
}

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
}

/// A running replica. Cheap to clone.
pub struct Replica<M: Machine> {
    _machine: std::marker::PhantomData<fn() -> M>,
}

impl<M: Machine> Clone for Replica<M> {
    fn clone(&self) -> Self {
        Replica {
            _machine: std::marker::PhantomData,
        }
    }
}

/// Why a replica ended.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Log.
    #[error("log: {0}")]
    Log(#[from] crate::log::LogError),
    /// State.
    #[error("state: {0}")]
    Store(#[from] crate::store::StoreError),
    /// Identity.
    #[error("{0}")]
    Identity(#[from] crate::identity::IdentityError),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl<M: Machine> Replica<M> {
    /// Opens the disk and starts the tasks. The returned future is the replica's life: it ends
    /// with a fatal error, or with `Ok` after `stop`. It must be polled.
    pub async fn start(
        options: Options,
        disk: Disk,
        machine: M,
    ) -> Result<(Replica<M>, BoxFuture<Result<(), Fatal>>), Fatal> {
        let _ = (options, disk, machine);
        todo!()
    }
    /// Replicates a command and returns the machine's reply once it is committed and applied
    /// here.
    pub async fn propose(&self, command: Bytes, deadline: Duration) -> Result<Bytes, ProposeError> {
        let _ = (command, deadline);
        todo!()
    }
    /// A linearizable read (ReadIndex), on any member.
    pub async fn read(&self, query: Bytes, deadline: Duration) -> Result<Bytes, ReadError> {
        let _ = (query, deadline);
        todo!()
    }
    /// A read of the local state as it is, possibly stale.
    pub async fn inspect(&self, query: Bytes) -> Result<Bytes, ReadError> {
        let _ = query;
        todo!()
    }
    /// A status page.
    pub fn status(&self) -> ReplicaStatus {
        todo!()
    }
    /// The present leader as far as known, and the term. `Some` of this node only after its no-op is
    /// applied.
    pub fn leader(&self) -> (Option<NodeId>, Term) {
        todo!()
    }
    /// True when this node leads and has applied an entry of its term.
    pub fn is_leader(&self) -> bool {
        todo!()
    }
    /// Resolves when something was applied, or the role changed, since the last call on this
    /// handle (for errands); spurious wake-ups occur.
    pub async fn changed(&self) {
        todo!()
    }
    /// The identity, for hellos.
    pub fn identity(&self) -> Identity {
        todo!()
    }
    /// Stamps the cluster id once it is known (durably). An error when another one is stamped.
    pub async fn set_cluster(&self, cluster: u128) -> Result<(), String> {
        let _ = cluster;
        todo!()
    }
    /// Our hello for a connection to (or from) anybody.
    pub fn hello(&self, to: Option<(u64, u64)>) -> Hello {
        let _ = to;
        todo!()
    }
    /// Judges a peer's hello (used in the server's `welcome`).
    pub fn welcome(&self, peer: &Hello) -> Result<Hello, String> {
        let _ = peer;
        todo!()
    }
    /// Hands in mail that arrived on [`CHANNEL`].
    pub fn mail(&self, peer: &Hello, body: Bytes) {
        let _ = (peer, body);
        todo!()
    }
    /// Serves a call that arrived on [`CHANNEL`].
    pub fn call(&self, peer: &Hello, deadline: Duration, body: Bytes) -> BoxFuture<Bytes> {
        let _ = (peer, deadline, body);
        todo!()
    }
    /// Stops promptly: pending requests are answered as unknown, the state is flushed.
    pub fn stop(&self) {
        todo!()
    }
}
