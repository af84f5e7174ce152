//! What a node holds while it leads, and its ticks.

use crate::core::Core;
use crate::progress::Progress;
use crate::reads::Round;
use crate::types::{Configuration, Index, NodeId, Role};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A leader's state; gone with the leadership.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Lead {
    /// Everyone entries go to: voters, outgoing voters, learners; not the leader itself.
    pub(crate) progress: BTreeMap<NodeId, Progress>,
    /// Index of the no-op this term began with.
    pub(crate) begun: Index,
    /// Bytes of entries not committed.
    pub(crate) uncommitted: usize,
    /// Newest heartbeat round.
    pub(crate) round: u64,
    /// Reads no round was sent for yet.
    pub(crate) queue: Vec<(NodeId, u64, u64)>,
    /// Rounds under way that serve reads, oldest first.
    pub(crate) rounds: VecDeque<Round>,
    beat_elapsed: u32,
    quorum_elapsed: u32,
    /// What its own disk held when the last election timeout began, and for how many in a row it has
    /// not taken in more, though there is more.
    stands_still: (Index, u32),
}

/// A leader whose disk takes nothing in for so many election timeouts steps down. (A slow disk
/// deposes nobody: this one may never answer.)
const PATIENCE: u32 = 10;

impl Lead {
    pub(crate) fn new(begun: Index, uncommitted: usize) -> Lead {
        Lead {
            progress: BTreeMap::new(),
            begun,
            uncommitted,
            round: 0,
            queue: Vec::new(),
            rounds: VecDeque::new(),
            beat_elapsed: 0,
            quorum_elapsed: 0,
            stands_still: (0, 0),
        }
    }

    /// Feeds exactly the members of `configuration`; new ones from `next`.
    pub(crate) fn admit(&mut self, own: NodeId, configuration: &Configuration, next: Index) {
        let members: BTreeSet<NodeId> = members(configuration).filter(|n| *n != own).collect();
        self.progress.retain(|node, _| members.contains(node));
        for node in members {
            self.progress
                .entry(node)
                .or_insert_with(|| Progress::new(next));
        }
    }

    /// As if the leader had been elected, and its followers heard from, just now.
    pub(crate) fn rewind(&mut self) {
        self.uncommitted = 0;
        self.beat_elapsed = 0;
        self.quorum_elapsed = 0;
        self.stands_still = (0, 0);
        self.progress.values_mut().for_each(Progress::rewind);
    }

    pub(crate) fn matched(&self) -> Vec<(NodeId, Index)> {
        self.progress.iter().map(|(n, p)| (*n, p.matched)).collect()
    }
}

/// Everyone entries go to.
fn members(c: &Configuration) -> impl Iterator<Item = NodeId> {
    c.voters
        .keys()
        .chain(c.outgoing.keys())
        .chain(c.learners.keys())
        .copied()
}

impl Core {
    /// The membership in force: the newest in the log, committed or not (§6).
    pub(crate) fn configuration(&self) -> &Configuration {
        self.log.configuration()
    }

    pub(crate) fn is_voter(&self, node: NodeId) -> bool {
        let c = self.configuration();
        c.voters.contains_key(&node) || c.outgoing.contains_key(&node)
    }

    pub(crate) fn other_voters(&self) -> Vec<NodeId> {
        let c = self.configuration();
        let voters: BTreeSet<NodeId> = c.voters.keys().chain(c.outgoing.keys()).copied().collect();
        voters.into_iter().filter(|n| *n != self.id).collect()
    }

    /// Whether this node and the followers that satisfy `holds` are a quorum.
    pub(crate) fn is_quorum_with(&self, own: bool, holds: impl Fn(&Progress) -> bool) -> bool {
        let Some(lead) = &self.lead else {
            return false;
        };
        let followers = lead
            .progress
            .iter()
            .filter(|(_, p)| holds(p))
            .map(|(n, _)| *n);
        let nodes: BTreeSet<NodeId> = followers.chain(own.then_some(self.id)).collect();
        self.configuration().is_quorum(&nodes)
    }

    /// A leader's tick: check-quorum, heartbeats, news of the commit index.
    pub(crate) fn lead_tick(&mut self) {
        let Some(lead) = &mut self.lead else {
            return;
        };
        lead.beat_elapsed += 1;
        lead.quorum_elapsed += 1;
        let beat = lead.beat_elapsed >= self.settings.heartbeat_ticks;
        if lead.quorum_elapsed >= self.settings.election_ticks {
            lead.quorum_elapsed = 0;
            if !self.is_quorum_with(true, |p| p.active) {
                // Thesis §6.2: a leader without a quorum steps down, or its clients would wait
                // for it for ever.
                why!(
                    self,
                    "no quorum heard within an election timeout -> step down"
                );
                return self.become_follower(self.hard.term, None);
            }
            if self.disk_stands_still() {
                // What it commits with its followers' disks it never applies, since it applies only
                // what it has synced itself, and to a follower that needs a snapshot it sends none;
                // and while it is heard nobody else stands.
                why!(
                    self,
                    "the own disk took nothing in for {PATIENCE} election timeouts -> step down"
                );
                return self.become_follower(self.hard.term, None);
            }
            if let Some(lead) = &mut self.lead {
                lead.progress.values_mut().for_each(|p| p.active = false);
            }
        }
        if beat {
            return self.start_round();
        }
        // Followers learn of commits with the next append, or with the next tick.
        let Some(lead) = &self.lead else {
            return;
        };
        let commit = self.commit;
        let behind = |p: &Progress| p.told < commit && p.told < p.matched;
        let late: Vec<NodeId> = lead
            .progress
            .iter()
            .filter(|(_, p)| behind(p))
            .map(|(n, _)| *n)
            .collect();
        late.into_iter().for_each(|to| self.heartbeat(to));
    }

    /// Once in an election timeout: whether the own disk has not moved for long enough.
    fn disk_stands_still(&mut self) -> bool {
        let (synced, last) = (self.log.synced(), self.log.last_index());
        let Some(lead) = &mut self.lead else {
            return false;
        };
        let (before, times) = lead.stands_still;
        let times = if last > synced && before == synced {
            times + 1
        } else {
            0
        };
        lead.stands_still = (synced, times);
        times >= PATIENCE
    }

    /// Sends everybody a heartbeat of a new round, which serves the reads queued by now.
    pub(crate) fn start_round(&mut self) {
        let (commit, role) = (self.commit, self.role);
        let Some(lead) = &mut self.lead else {
            return;
        };
        debug_assert_eq!(role, Role::Leader);
        lead.beat_elapsed = 0;
        lead.round += 1;
        // Thesis §6.4, step 1: before an entry of its own term is committed a leader does not
        // know what is, so reads stay queued.
        if commit >= lead.begun && !lead.queue.is_empty() {
            lead.rounds.push_back(Round {
                number: lead.round,
                index: commit,
                reads: std::mem::take(&mut lead.queue),
            });
        }
        let all: Vec<NodeId> = lead.progress.keys().copied().collect();
        for p in lead.progress.values_mut() {
            p.beat.get_or_insert((lead.round, p.next - 1));
        }
        all.into_iter().for_each(|to| self.heartbeat(to));
        self.finish_rounds();
    }
}
