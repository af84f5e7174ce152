//! The consensus core: what it is made of, and one step.

use crate::chance::Chance;
use crate::input::{Input, Output, RoleChange, SnapshotMeta};
use crate::lead::Lead;
use crate::log::Log;
use crate::message::Message;
use crate::reads::Forwarded;
use crate::types::{Abstain, Entry, HardState, Index, NodeId, Role, Term};
use crate::writes::Writes;
use std::collections::BTreeSet;

/// Fixed numbers of a core. Times are in ticks, sizes in bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// A follower waits this long plus a random part of the same length before it campaigns.
    pub election_ticks: u32,
    /// A leader sends a heartbeat this often, and a node that stands asks again.
    pub heartbeat_ticks: u32,
    /// Entries in one append.
    pub max_append_bytes: usize,
    /// Appends in flight to one follower.
    pub max_inflight: usize,
    /// Bytes in flight to one follower.
    pub max_inflight_bytes: usize,
    /// Bytes of uncommitted proposals above which a leader answers `Busy`.
    pub max_uncommitted_bytes: usize,
    /// Bytes of the log that stay in memory when [`Input::Evict`] lets go of it.
    pub cache_bytes: usize,
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
    /// Chance: decides election timeouts, and names this life in forwarded reads. Must differ
    /// from life to life of a node.
    pub seed: u64,
    /// Term, vote, abstention.
    pub hard_state: HardState,
    /// The log's base: the point before its first entry, and the membership there.
    pub base: SnapshotMeta,
    /// The log behind the base.
    pub entries: Vec<Entry>,
    /// Index through which the state machine's durable state reaches; between the base and the
    /// log's end (a state beyond the log is the base of an empty log).
    pub applied: Index,
    /// The highest [`Write::commit`](crate::Write::commit) of what is durable, 0 when none is known:
    /// what lies behind `applied` through here is applied before a leader is known.
    pub commit: Index,
    /// False until the initial members have met: no vote, no campaign, no acknowledgement.
    pub born: bool,
    /// True when the state machine's state is lost while the log is not: answers appends with
    /// "need snapshot" and does not campaign. `applied` is then taken to be `base.index`.
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
    /// Entries through here are not in memory; at least the base.
    pub evicted_index: Index,
    /// Bytes of the entries held in memory.
    pub log_bytes: usize,
    /// Bytes of the entries behind the base that are on disk alone.
    pub on_disk_bytes: usize,
    /// Set while abstaining after damage.
    pub abstain: Option<Abstain>,
    /// Per follower, when leading: (node, match index).
    pub matched: Vec<(NodeId, Index)>,
}

/// The consensus core of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub(crate) id: NodeId,
    pub(crate) settings: Settings,
    pub(crate) chance: Chance,
    /// Names this life of the node in forwarded reads.
    pub(crate) life: u64,
    /// Term, vote, abstention as of the newest write handed out.
    pub(crate) hard: HardState,
    pub(crate) log: Log,
    pub(crate) writes: Writes,
    pub(crate) commit: Index,
    /// Index through which `Output::apply_through` was given.
    pub(crate) applied: Index,
    pub(crate) role: Role,
    pub(crate) leader: Option<NodeId>,
    /// Ticks since a leader was heard, a vote was given or a campaign was begun.
    pub(crate) elapsed: u32,
    /// Ticks after which to campaign; drawn anew for every campaign (§5.2).
    pub(crate) timeout: u32,
    /// Votes or pre-votes received, when standing.
    pub(crate) votes: BTreeSet<NodeId>,
    /// Some exactly when leading.
    pub(crate) lead: Option<Lead>,
    /// Through where this log is known to equal that of this term's leader.
    pub(crate) verified: Index,
    /// Reads this node asked its leader about.
    pub(crate) forwarded: Forwarded,
    pub(crate) born: bool,
    pub(crate) state_lost: bool,
    /// What this step wants done so far.
    pub(crate) out: Output,
}

impl Core {
    /// A core that continues from what is durable.
    pub fn new(start: Start) -> Core {
        let log = Log::new(start.base, start.entries);
        let mut hard = start.hard_state;
        // A reset and the hard state may have been lost apart: the term is the highest that is
        // stated anywhere, and no vote was given in a term of which only the log speaks.
        let term = hard.term.max(log.base().term).max(log.last_term());
        if term > hard.term {
            hard.term = term;
            hard.vote = None;
        }
        debug_assert!(start.state_lost || start.applied <= log.last_index());
        let applied = if start.state_lost { 0 } else { start.applied };
        let applied = applied.clamp(log.base().index, log.last_index());
        let commit = if start.state_lost { 0 } else { start.commit };
        let commit = commit.clamp(applied, log.last_index());
        let mut chance = Chance::new(start.seed);
        let mut core = Core {
            id: start.id,
            settings: start.settings,
            life: chance.draw(),
            chance,
            hard,
            log,
            writes: Writes::default(),
            commit,
            applied,
            role: Role::Follower,
            leader: None,
            elapsed: 0,
            timeout: 0,
            votes: BTreeSet::new(),
            lead: None,
            verified: 0,
            forwarded: Forwarded::default(),
            born: start.born,
            state_lost: start.state_lost,
            out: Output::default(),
        };
        core.draw_timeout();
        core
    }

    /// Carries out one input.
    pub fn step(&mut self, input: Input) -> Output {
        let before = self.facts();
        match input {
            Input::Tick => self.tick(),
            Input::Receive { from, message } => self.receive(from, message),
            Input::Propose(payloads) => self.propose(payloads),
            Input::Read(id) => self.read(id),
            Input::Persisted(number) => self.on_persisted(number),
            Input::Compact(index) => self.compact(index),
            Input::Evict(index) => self.evict(index),
            Input::Fetched { to, entries } => self.fetched(to, entries),
            Input::SnapshotSent { to, installed } => self.snapshot_sent(to, installed),
            Input::SnapshotOffered { from, term, meta } => self.snapshot_offered(from, term, &meta),
            Input::SnapshotReady(meta) => self.snapshot_ready(meta),
            Input::StateRestored => self.state_restored(),
            Input::Born(configuration) => self.born(configuration),
        }
        self.end_abstention();
        self.emit_write();
        // `apply` never passes the node's own synced log.
        let apply = self.commit.min(self.log.synced());
        if apply > self.applied {
            self.applied = apply;
            self.out.apply_through = Some(apply);
        }
        let after = self.facts();
        if (after.role, after.term, after.leader) != (before.role, before.term, before.leader) {
            self.out.role = Some(RoleChange {
                role: after.role,
                term: after.term,
                leader: after.leader,
            });
        }
        self.assert_step(&before, &after);
        std::mem::take(&mut self.out)
    }

    fn receive(&mut self, from: NodeId, message: Message) {
        if from == self.id || from == 0 {
            return why!(self, "a message from {from} is not from a peer");
        }
        if !message.is_in_range() {
            return self.malformed(from, "a term or an index is out of range");
        }
        match message {
            // These two do not change terms by being received (thesis §9.6).
            Message::PreVote {
                term,
                last_index,
                last_term,
            } => {
                return self.on_pre_vote(from, term, last_index, last_term);
            }
            Message::PreVoteReply { term, granted } => {
                return self.on_pre_vote_reply(from, term, granted);
            }
            // This one only if no live leader stands against it.
            Message::Vote {
                term,
                last_index,
                last_term,
                transfer,
            } => {
                return self.on_vote(from, term, last_index, last_term, transfer);
            }
            _ => {}
        }
        if message.term() > self.hard.term {
            why!(
                self,
                "{from} is in term {}, above {} -> follow",
                message.term(),
                self.hard.term
            );
            self.become_follower(message.term(), None);
        }
        let current = message.term() == self.hard.term;
        match message {
            Message::Append {
                term,
                prev_index,
                prev_term,
                commit,
                entries,
            } => {
                if self.hear_leader(from, term) {
                    self.on_append(from, (prev_index, prev_term), commit, entries);
                }
            }
            Message::Heartbeat {
                term,
                round,
                prev_index,
                prev_term,
                commit,
            } => {
                if self.hear_leader(from, term) {
                    self.on_heartbeat(from, round, (prev_index, prev_term), commit);
                }
            }
            Message::ReadIndex { life, id, .. } => self.on_read_index(from, life, id, current),
            // Answers of an earlier term are answers to questions nobody asks any more.
            _ if !current => why!(
                self,
                "an answer of term {} from {from} is late",
                message.term()
            ),
            Message::VoteReply { granted, .. } => self.on_vote_reply(from, granted),
            Message::AppendReply { verdict, .. } => self.on_append_reply(from, verdict),
            Message::HeartbeatReply { round, verdict, .. } => {
                self.on_heartbeat_reply(from, round, verdict);
            }
            Message::ReadIndexReply {
                life, id, index, ..
            } => {
                self.on_read_index_reply(life, id, index);
            }
            Message::PreVote { .. } | Message::PreVoteReply { .. } | Message::Vote { .. } => {}
        }
    }

    /// Ignores what `from` sent, and says so.
    pub(crate) fn malformed(&mut self, from: NodeId, reason: &'static str) {
        why!(self, "{from} sent what is malformed: {reason} -> ignore");
        self.out.malformed = Some(reason);
    }

    fn on_persisted(&mut self, number: u64) {
        self.persisted(number);
        self.count_own_vote();
        self.advance_commit();
    }

    fn born(&mut self, configuration: crate::types::Configuration) {
        if self.log.configuration().voters.is_empty() {
            self.log.set_base_configuration(configuration);
        }
        if !self.born {
            why!(self, "the initial members have met -> may vote");
        }
        self.born = true;
    }

    /// Entries from `from` (inclusive) through `through`, at most `max_bytes` of them but at
    /// least one. Empty when `from` lies outside the log in memory.
    pub fn entries(&self, from: Index, through: Index, max_bytes: usize) -> &[Entry] {
        self.log.slice(from, through, max_bytes)
    }

    /// The term at an index; `None` below the log's base and behind its end.
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term(index)
    }

    /// The least index at or below `through` behind which the log through `through` has at most `keep`
    /// bytes; what is not in memory is counted in steps of some 32 KiB.
    pub fn within(&self, through: Index, keep: usize) -> Index {
        self.log.within(through, keep)
    }

    /// Bytes of the log in memory that are committed: applying and flushing frees them. The rest is
    /// freed by committing it, for which more may have to be received.
    pub fn committed_bytes(&self) -> usize {
        let open = self.log.bytes_between(self.commit, self.log.last_index());
        self.log.bytes() - open
    }

    /// A view for status pages and invariant checks.
    pub fn status(&self) -> Status {
        Status {
            role: self.role,
            term: self.hard.term,
            vote: self.hard.vote,
            leader: self.leader,
            last_index: self.log.last_index(),
            synced_index: self.log.synced(),
            commit: self.commit,
            base_index: self.log.base().index,
            evicted_index: self.log.evicted(),
            log_bytes: self.log.bytes(),
            on_disk_bytes: self.log.on_disk_bytes(),
            abstain: self.hard.abstain,
            matched: self.lead.as_ref().map_or_else(Vec::new, Lead::matched),
        }
    }

    /// The log's base: what was compacted away.
    pub fn base(&self) -> &SnapshotMeta {
        self.log.base()
    }
}
