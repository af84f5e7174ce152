//! What happens to the core, and what it wants done.

use crate::message::{Envelope, Message};
use crate::types::{Configuration, Entry, HardState, Index, NodeId, Payload, Role, Term};
use serde::{Deserialize, Serialize};

/// The point a snapshot (or a compacted prefix) reaches through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// Last index covered.
    pub index: Index,
    /// Term of that index.
    pub term: Term,
    /// Membership as of that index.
    pub configuration: Configuration,
}

/// Everything that can happen to the core.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// One tick of the driver's clock has passed.
    Tick,
    /// A message arrived.
    Receive {
        /// Its sender.
        from: NodeId,
        /// The message.
        message: Message,
    },
    /// Commands to replicate, answered at once by [`Output::proposed`].
    Propose(Vec<Payload>),
    /// A batch of linearizable reads, answered under its id by [`Output::reads`]. Ids are the
    /// driver's and never repeat within a life of the core.
    Read(u64),
    /// Every write up to this number, inclusive, is durable.
    Persisted(u64),
    /// The state machine's durable state covers the log through this index; the core may
    /// forget entries up to it. Ignored above what is applied or below the current base.
    Compact(Index),
    /// The driver has no more use for the entries through this index, which it was told to apply: they
    /// may leave the memory, all but the newest [`crate::Settings::cache_bytes`] of the log. For a
    /// follower that needs them the driver is asked: [`Output::fetches`].
    Evict(Index),
    /// The answer to a [`Fetch`].
    Fetched {
        /// The follower it was for.
        to: NodeId,
        /// Consecutive, from the first one asked for; none when they are not to be had any more, and
        /// then the follower is sent a snapshot.
        entries: Vec<Entry>,
    },
    /// The driver could not send, or has delivered, a snapshot to a follower.
    SnapshotSent {
        /// The follower.
        to: NodeId,
        /// The snapshot's index when it was installed there, `None` when the transfer failed.
        installed: Option<Index>,
    },
    /// A peer that says it leads `term` offers a snapshot; answered by
    /// [`Output::snapshot_accepted`]. Counts as hearing from the leader.
    SnapshotOffered {
        /// The sender.
        from: NodeId,
        /// The sender's term.
        term: Term,
        /// What it offers.
        meta: SnapshotMeta,
    },
    /// A complete snapshot lies durable beside the current state. The core answers with a
    /// [`Write`] whose `reset` is set, or drops it when it is at or below what is applied.
    SnapshotReady(SnapshotMeta),
    /// The state machine's state is present (again): the node may acknowledge matches and vote.
    StateRestored,
    /// The initial members have all met: this node may vote and acknowledge. The configuration is taken if
    /// neither the log nor its base has one.
    Born(Configuration),
}

/// One numbered write. Writes are carried out in the order given; a write is durable when its
/// number or a higher one is reported by [`Input::Persisted`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// Strictly increasing from 1 within a life of the core.
    pub number: u64,
    /// Term, vote and abstention from this write on.
    pub hard_state: HardState,
    /// Entries through here were known to be committed when this was handed out. All of them are in this
    /// write or in earlier ones, or below the base: so a restart may begin to apply them at once.
    pub commit: Index,
    /// When set: switch to the snapshot that was reported ready, then start the log afresh
    /// behind it, with `entries` as its kept suffix.
    pub reset: Option<SnapshotMeta>,
    /// Consecutive entries; they replace everything at and behind the first one's index.
    pub entries: Vec<Entry>,
}

/// Entries for a follower that are on disk alone. Each is answered by one [`Input::Fetched`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// The follower.
    pub to: NodeId,
    /// The first one is behind this index.
    pub after: Index,
    /// The terms of the entries asked for: each with the last index that it reaches to. Of two entries
    /// in one place on the disk the one of this term counts; none is asked for behind the last.
    pub terms: Vec<(Index, Term)>,
    /// At most this many bytes, but at least one entry.
    pub max_bytes: usize,
}

/// The answer to [`Input::Propose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proposed {
    /// All of them are appended, the first at `first`, consecutively, in `term`.
    Accepted {
        /// Term of the entries.
        term: Term,
        /// Index of the first.
        first: Index,
    },
    /// None was appended: this node does not lead.
    NotLeader {
        /// The leader as far as this node knows.
        leader: Option<NodeId>,
    },
    /// None was appended: the bytes of uncommitted entries are at their limit.
    Busy,
}

/// Why a read was refused; nothing was read and it may be asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadRefusal {
    /// No leader is known, or the one asked did not answer in time.
    NoLeader,
    /// Leadership was lost before a quorum answered.
    Deposed,
}

/// The answer to one [`Input::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReadOutcome {
    /// The driver's id.
    pub id: u64,
    /// The read index: read at applied >= this.
    pub result: Result<Index, ReadRefusal>,
}

/// The node's role, term or known leader changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RoleChange {
    /// The role from now on.
    pub role: Role,
    /// The term from now on.
    pub term: Term,
    /// The leader as far as known.
    pub leader: Option<NodeId>,
}

/// What the core wants done after one input, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Output {
    /// To be handed to the log. Messages below do not wait for it: those that must are kept
    /// inside the core until [`Input::Persisted`].
    pub write: Option<Write>,
    /// May leave now.
    pub messages: Vec<Envelope>,
    /// Answer to a proposal.
    pub proposed: Option<Proposed>,
    /// Entries through this index are committed and in this node's own synced log; apply them.
    /// Cumulative; set when it rose.
    pub apply_through: Option<Index>,
    /// Reads answered or refused.
    pub reads: Vec<ReadOutcome>,
    /// Followers that need a snapshot and have no transfer under way; the driver starts one
    /// and reports [`Input::SnapshotSent`].
    pub snapshots: Vec<NodeId>,
    /// Entries to be read from the disk; at most one of these per follower is open.
    pub fetches: Vec<Fetch>,
    /// Answer to [`Input::SnapshotOffered`]: true when the chunks are wanted.
    pub snapshot_accepted: Option<bool>,
    /// Set when role, term or leader changed.
    pub role: Option<RoleChange>,
    /// The message, or the offer, was ignored because no working member says this.
    pub malformed: Option<&'static str>,
    /// Why the core did what it did, a sentence per decision; filled only when
    /// `Settings::explain` is set (transcripts).
    pub reasons: Vec<String>,
}
