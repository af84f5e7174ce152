//! Linearizable reads without the log: ReadIndex (thesis §6.4), in batches.
//!
//! A heartbeat round proves that the sender still led when it was sent, and so serves exactly
//! the reads that had arrived by then.

use crate::core::Core;
use crate::input::{ReadOutcome, ReadRefusal};
use crate::lead::Lead;
use crate::message::Message;
use crate::types::{Index, NodeId};
use std::collections::BTreeMap;

/// Rounds for reads under way at once; further reads gather for the next one.
const MAX_ROUNDS: usize = 4;
/// Reads that wait for a round, or for the leader's answer; refused beyond.
const MAX_READS: usize = 16_384;

/// A heartbeat round that serves reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Round {
    pub(crate) number: u64,
    /// The commit index when it was sent.
    pub(crate) index: Index,
    /// Who asked (this node itself or a follower) and its id.
    pub(crate) reads: Vec<(NodeId, u64, u64)>,
}

/// Reads this node asked its leader about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Forwarded {
    /// Ticks left, by id.
    left: BTreeMap<u64, u32>,
}

impl Forwarded {
    /// As if every one had been asked just now.
    pub(crate) fn rewind(&mut self, ticks: u32) {
        self.left.values_mut().for_each(|left| *left = ticks);
    }
}

impl Core {
    pub(crate) fn read(&mut self, id: u64) {
        if self.lead.is_some() {
            return self.queue_read(self.id, self.life, id);
        }
        match self.leader {
            Some(leader) if self.forwarded.left.len() < MAX_READS => {
                why!(self, "read {id}: ask the leader {leader}");
                self.forwarded.left.insert(id, self.settings.election_ticks);
                let message = Message::ReadIndex {
                    term: self.hard.term,
                    life: self.life,
                    id,
                };
                self.send_durable(leader, message);
            }
            _ => {
                why!(self, "read {id}: no leader known -> refuse");
                self.answer(id, Err(ReadRefusal::NoLeader));
            }
        }
    }

    fn answer(&mut self, id: u64, result: Result<Index, ReadRefusal>) {
        self.out.reads.push(ReadOutcome { id, result });
    }

    /// Tells who asked: the driver, or a follower.
    fn tell(&mut self, (node, life, id): (NodeId, u64, u64), result: Result<Index, ReadRefusal>) {
        if node == self.id {
            return self.answer(id, result);
        }
        let term = self.hard.term;
        let index = result.ok();
        self.send_durable(
            node,
            Message::ReadIndexReply {
                term,
                life,
                id,
                index,
            },
        );
    }

    fn queue_read(&mut self, node: NodeId, life: u64, id: u64) {
        let commit = self.commit;
        let Some(lead) = &mut self.lead else {
            return;
        };
        if lead.queue.len() >= MAX_READS {
            return self.tell((node, life, id), Err(ReadRefusal::NoLeader));
        }
        lead.queue.push((node, life, id));
        if commit < lead.begun {
            why!(
                self,
                "read {id}: no entry of this term is committed yet -> wait"
            );
        } else if lead.rounds.len() < MAX_ROUNDS {
            why!(self, "read {id}: begin a round");
            self.start_round();
        } else {
            why!(self, "read {id}: wait for the next round");
        }
    }

    pub(crate) fn on_read_index(&mut self, from: NodeId, life: u64, id: u64, current: bool) {
        if self.lead.is_some() && current {
            return self.queue_read(from, life, id);
        }
        why!(self, "read {id} of {from}: not its leader -> refuse");
        self.tell((from, life, id), Err(ReadRefusal::NoLeader));
    }

    pub(crate) fn on_read_index_reply(&mut self, life: u64, id: u64, index: Option<Index>) {
        // An answer to an earlier life of this node says nothing about a read of this one.
        if life == self.life && self.forwarded.left.remove(&id).is_some() {
            self.answer(id, index.ok_or(ReadRefusal::NoLeader));
        }
    }

    /// Answers the reads of every round that a quorum has answered.
    pub(crate) fn finish_rounds(&mut self) {
        while let Some(number) = self
            .lead
            .as_ref()
            .and_then(|l| l.rounds.front())
            .map(|r| r.number)
        {
            if !self.is_quorum_with(true, |p| p.round >= number) {
                break;
            }
            let Some(round) = self.lead.as_mut().and_then(|l| l.rounds.pop_front()) else {
                break;
            };
            why!(
                self,
                "a quorum answered round {number} -> read index {}",
                round.index
            );
            round
                .reads
                .into_iter()
                .for_each(|read| self.tell(read, Ok(round.index)));
        }
        let commit = self.commit;
        let room = |l: &Lead| l.rounds.len() < MAX_ROUNDS && commit >= l.begun;
        if self
            .lead
            .as_ref()
            .is_some_and(|l| !l.queue.is_empty() && room(l))
        {
            self.start_round();
        }
    }

    /// Leadership is lost: nothing that waited for a quorum is answered.
    pub(crate) fn refuse_reads(&mut self, lead: Lead) {
        let reads = lead
            .rounds
            .into_iter()
            .flat_map(|r| r.reads)
            .chain(lead.queue);
        reads.for_each(|read| self.tell(read, Err(ReadRefusal::Deposed)));
    }

    /// The term is over in which the leader was asked.
    pub(crate) fn drop_forwarded(&mut self) {
        for id in std::mem::take(&mut self.forwarded.left).into_keys() {
            self.answer(id, Err(ReadRefusal::NoLeader));
        }
    }

    /// A tick passed for the reads that wait for the leader's answer.
    pub(crate) fn expire_forwarded(&mut self) {
        if self.forwarded.left.is_empty() {
            return;
        }
        self.forwarded
            .left
            .values_mut()
            .for_each(|t| *t = t.saturating_sub(1));
        let gone: Vec<u64> = self
            .forwarded
            .left
            .iter()
            .filter(|(_, t)| **t == 0)
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.forwarded.left.remove(&id);
            why!(
                self,
                "read {id}: the leader did not answer in time -> refuse"
            );
            self.answer(id, Err(ReadRefusal::NoLeader));
        }
    }
}
