//! The consensus core.

use crate::input::{Input, Output, SnapshotMeta};
use crate::types::{Abstain, Entry, HardState, Index, NodeId, Role, Term};

/// Fixed numbers of a core. Times are in ticks, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// A follower waits this long plus a random part of the same length before it campaigns.
    pub election_ticks: u32,
    /// A leader sends a heartbeat this often.
    pub heartbeat_ticks: u32,
    /// Entries in one append.
    pub max_append_bytes: usize,
    /// Appends in flight to one follower.
    pub max_inflight: usize,
    /// Bytes in flight to one follower.
    pub max_inflight_bytes: usize,
    /// Bytes of uncommitted proposals above which a leader answers `Busy`.
    pub max_uncommitted_bytes: usize,
    /// Fill `Output::reasons`.
    pub explain: bool,
}

/// What a core starts from: everything in it is durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// This node.
    pub id: NodeId,
    /// Fixed numbers.
    pub settings: Settings,
    /// Chance: decides election timeouts.
    pub seed: u64,
    /// Term, vote, abstention.
    pub hard_state: HardState,
    /// The log's base: the point before its first entry, and the membership there.
    pub base: SnapshotMeta,
    /// The log behind the base.
    pub entries: Vec<Entry>,
    /// Index through which the state machine's durable state reaches (>= base.index).
    pub applied: Index,
    /// False until the initial members have met: no vote, no campaign.
    pub born: bool,
    /// True when the state machine's state is lost while the log is not: answers appends with
    /// "need snapshot" and does not campaign.
    pub state_lost: bool,
}

/// What status pages and invariant checks read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Role.
    pub role: Role,
    /// Term.
    pub term: Term,
    /// Vote in that term.
    pub vote: Option<NodeId>,
    /// Known leader.
    pub leader: Option<NodeId>,
    /// Last entry appended (not necessarily synced).
    pub last_index: Index,
    /// Last entry synced here.
    pub synced_index: Index,
    /// Highest index known committed.
    pub commit: Index,
    /// The log's base.
    pub base_index: Index,
    /// Bytes of the entries held in memory.
    pub log_bytes: usize,
    /// Set while abstaining after damage.
    pub abstain: Option<Abstain>,
    /// Per follower, when leading: (node, match index).
    pub matched: Vec<(NodeId, Index)>,
}

/// The consensus core of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    start: Start,
}

impl Core {
    /// A core that continues from what is durable.
    pub fn new(start: Start) -> Core {
        Core { start }
    }

    /// Carries out one input.
    pub fn step(&mut self, input: Input) -> Output {
        let _ = input;
        todo!()
    }

    /// Entries from `from` (inclusive) through `through`, at most `max_bytes` of them but at
    /// least one. Empty when `from` lies outside the log in memory.
    pub fn entries(&self, from: Index, through: Index, max_bytes: usize) -> &[Entry] {
        let _ = (from, through, max_bytes);
        todo!()
    }

    /// A view for status pages and invariant checks.
    pub fn status(&self) -> Status {
        todo!()
    }

    /// The log's base: what was compacted away.
    pub fn base(&self) -> &SnapshotMeta {
        &self.start.base
    }
}
