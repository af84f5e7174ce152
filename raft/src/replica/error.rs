//! Why a command, a read or a whole replica failed.

use raft_protocol::NodeId;

/// Why a command has no reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Certainly not appended here: this node does not lead.
    #[error("not the leader (known leader: {leader:?})")]
    NotLeader {
        /// The leader as far as known.
        leader: Option<NodeId>,
    },
    /// Certainly not appended: there was no room for it until the deadline.
    #[error("busy: too many commands are waiting")]
    Busy,
    /// Certainly not appended: it may make the state grow, and a disk of the group is nearly full.
    #[error("the disk of node {} is nearly full: {} bytes are free", .0.node, .0.free)]
    Full(super::space::FullDisk),
    /// Certainly not appended: longer than `Options::max_command`.
    #[error("a command of {size} bytes is longer than the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
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
    /// Too many replies wait to be sent.
    #[error("busy: too many replies wait to be sent")]
    Busy,
    /// The deadline passed.
    #[error("deadline passed")]
    Deadline,
    /// The server is going down.
    #[error("shutting down")]
    Stopped,
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
