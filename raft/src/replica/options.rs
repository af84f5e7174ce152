//! What a replica is started with.

use crate::log::LogOptions;
use crate::store::StoreOptions;
use raft_protocol::{NodeId, Settings};
use std::collections::BTreeMap;
use std::time::Duration;
use world::net::{Limits, PROTOCOL};

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
    /// Protocol versions spoken with other members, lowest and highest, all of them among those of
    /// [`PROTOCOL`]: a trial of builds of several ages.
    pub protocol: (u16, u16),
    /// Highest feature level that the state machine reads.
    pub level: u32,
    /// Entries kept in the log, on disk, behind the durable state for followers that lag, bytes.
    pub keep_log_bytes: usize,
    /// For followers that are being sent a snapshot, or catch up after one, the log on disk may grow to
    /// this many bytes; at most to half of what would be free without it. From half of that on clients
    /// are slowed down, so that the follower does catch up.
    pub max_kept_log_bytes: u64,
    /// For a follower that lags and acknowledged something, or did not lag, within this time, the log
    /// may grow to a third of that: who restarts needs no snapshot.
    pub patience: Duration,
    /// Entries that stay in memory when they are applied, bytes, and up to a quarter more: what is in
    /// flight to followers. Who lags further is fed from the disk.
    pub cache_log_bytes: usize,
    /// The state is flushed when this many bytes of entries were applied since the last flush,
    /// however small the overlay (one key overwritten for ever).
    pub flush_log_bytes: usize,
    /// Entries that are applied and not durable in the state, bytes: beyond, nothing is applied before
    /// a flush is through. What a restart has to apply again.
    pub max_unflushed_bytes: usize,
    /// Committed entries in memory that are not applied, bytes: beyond, appends are dropped unread.
    pub max_unapplied_bytes: usize,
    /// Bytes of entries in one append, see `raft_protocol::Settings`.
    pub max_append_bytes: usize,
    /// Commands that wait to be applied, bytes, each with 4 KiB besides; those beyond wait for room, in
    /// the order they came. The server's own commands have an eighth of it besides.
    pub max_uncommitted_bytes: usize,
    /// Replies to reads that were made and are not with a socket yet, bytes, of all connections
    /// together; beyond, by one reply at the most: `Busy`. (Replies to commands are short, and
    /// bounded by the limits of their connections.)
    pub max_unsent_bytes: usize,
}

impl Options {
    /// Defaults for a member of a group.
    pub fn new(group: u64, node: NodeId, peers: BTreeMap<NodeId, String>) -> Options {
        Options {
            group,
            node,
            peers,
            tick: Duration::from_millis(25),
            election_ticks: 20,
            heartbeat_ticks: 3,
            log: LogOptions::default(),
            store: StoreOptions::in_turn(node),
            limits: Limits::default(),
            protocol: PROTOCOL,
            level: 1,
            keep_log_bytes: 16 << 20,
            max_kept_log_bytes: 16 << 30,
            patience: Duration::from_secs(60),
            cache_log_bytes: 8 << 20,
            flush_log_bytes: 48 << 20,
            max_unflushed_bytes: 96 << 20,
            max_unapplied_bytes: 64 << 20,
            max_append_bytes: 1 << 20,
            max_uncommitted_bytes: 32 << 20,
            max_unsent_bytes: Limits::default().unsent(),
        }
    }

    /// Longest command, bytes: it must fit a frame together with what surrounds it.
    pub fn max_command(&self) -> usize {
        self.limits.max_frame.saturating_sub(64 << 10)
    }

    pub(super) fn settings(&self) -> Settings {
        Settings {
            election_ticks: self.election_ticks,
            heartbeat_ticks: self.heartbeat_ticks,
            max_append_bytes: self.max_append_bytes,
            max_inflight: 32,
            max_inflight_bytes: 8 << 20,
            // The semaphore of the handle refuses before the core does.
            max_uncommitted_bytes: self.max_uncommitted_bytes.saturating_mul(2),
            cache_bytes: self.cache_log_bytes,
            explain: false,
        }
    }
}
