//! Safety across nodes (§5.2–5.4; thesis §3.6, §6.4).

use super::Node;
use raft_protocol::*;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default)]
pub struct Checker {
    leaders: BTreeMap<Term, NodeId>,
    /// Every entry ever seen committed.
    pub committed: BTreeMap<Index, Entry>,
    /// Per node: commit index and role as last seen.
    seen: BTreeMap<NodeId, (Index, Role)>,
    /// Per read: the highest commit known anywhere when it was asked.
    reads: BTreeMap<(NodeId, u64), Index>,
    pub answered: u64,
    pub elections: u64,
}

impl Checker {
    pub fn forget(&mut self, id: NodeId, applied: Index) {
        self.seen.insert(id, (applied, Role::Follower));
        self.reads.retain(|(node, _), _| *node != id);
    }

    pub fn last_committed(&self) -> Index {
        self.committed.keys().next_back().copied().unwrap_or(0)
    }

    pub fn read_asked(&mut self, id: NodeId, read: u64) {
        let floor = self.last_committed();
        self.reads.insert((id, read), floor);
    }

    pub fn reads_answered(&mut self, id: NodeId, out: &Output) {
        for ReadOutcome { id: read, result } in &out.reads {
            let Some(floor) = self.reads.remove(&(id, *read)) else {
                continue;
            };
            if let Ok(index) = result {
                self.answered += 1;
                assert!(
                    *index >= floor,
                    "read {read} of node {id} at {index}, but {floor} was committed before it was asked"
                );
            }
        }
    }

    pub fn observe(&mut self, id: NodeId, nodes: &BTreeMap<NodeId, Node>) {
        let core = nodes[&id].core.as_ref().expect("node is up");
        let status = core.status();
        let (commit, role) = self.seen.get(&id).copied().unwrap_or((0, Role::Follower));
        if status.role == Role::Leader && role != Role::Leader {
            self.elections += 1;
            let leader = *self.leaders.entry(status.term).or_insert(id);
            assert_eq!(
                leader, id,
                "two leaders in term {} (election safety)",
                status.term
            );
            for entry in self.committed.values() {
                let held = core.entries(entry.index, entry.index, 0).first();
                // What is on disk alone is told by its term.
                let compacted = entry.index <= status.base_index;
                let on_disk = entry.index <= status.evicted_index
                    && core.term_at(entry.index) == Some(entry.term);
                assert!(
                    compacted || on_disk || held == Some(entry),
                    "leader {id} of term {} lacks the committed {entry:?} (leader completeness)",
                    status.term
                );
            }
        }
        for index in commit + 1..=status.commit {
            let Some(entry) = core.entries(index, index, 0).first() else {
                continue;
            };
            match self.committed.get(&index) {
                Some(known) => assert_eq!(
                    known, entry,
                    "node {id} commits another entry (state machine safety)"
                ),
                None => {
                    // A node that lost the entry after acknowledging it abstains instead.
                    let lost = |n: &Node| n.disk.hard.abstain.is_some_and(|a| a.index >= index);
                    let synced = |n: &Node| {
                        n.disk.base.index >= index
                            || n.disk.term(index) == Some(entry.term)
                            || lost(n)
                    };
                    let holders: BTreeSet<NodeId> = nodes
                        .iter()
                        .filter(|(_, n)| synced(n))
                        .map(|(n, _)| *n)
                        .collect();
                    let quorum = core.base().configuration.is_quorum(&holders);
                    assert!(
                        quorum,
                        "node {id} commits {entry:?}, synced on {holders:?} only"
                    );
                    self.committed.insert(index, entry.clone());
                }
            }
        }
        self.seen.insert(id, (status.commit, status.role));
    }

    /// Equal index and term: equal entries up to there, in memory and on disk (§5.3).
    pub fn log_matching(&self, nodes: &BTreeMap<NodeId, Node>) {
        let mut logs: Vec<(String, Vec<Entry>)> = Vec::new();
        for (id, node) in nodes {
            logs.push((format!("disk {id}"), node.disk.entries.clone()));
            if let Some(core) = &node.core {
                let status = core.status();
                for index in status.base_index + 1..=status.evicted_index {
                    let (here, there) = (core.term_at(index), node.disk.term(index));
                    let gone = index <= node.disk.base.index;
                    assert!(
                        here == there || gone,
                        "node {id} takes the term of {index} for {here:?}, its disk has {there:?}"
                    );
                }
                let in_memory = core.entries(status.evicted_index + 1, Index::MAX, usize::MAX);
                logs.push((format!("core {id}"), in_memory.to_vec()));
                core.check_invariants()
                    .unwrap_or_else(|e| panic!("node {id}: {e}"));
            }
        }
        for (i, (name_a, a)) in logs.iter().enumerate() {
            for (name_b, b) in &logs[i + 1..] {
                let b: BTreeMap<Index, &Entry> = b.iter().map(|e| (e.index, e)).collect();
                let same = |e: &&Entry| b.get(&e.index).is_some_and(|o| o.term == e.term);
                let Some(last) = a.iter().rev().find(same).map(|e| e.index) else {
                    continue;
                };
                for entry in a.iter().take_while(|e| e.index <= last) {
                    if let Some(other) = b.get(&entry.index) {
                        assert_eq!(
                            entry, *other,
                            "{name_a} and {name_b} differ below {last} (log matching)"
                        );
                    }
                }
            }
        }
    }
}

/// A promise waits for its sync: what a message states must be on the sender's disk.
pub fn promise_is_synced(id: NodeId, message: &Message, node: &Node) {
    let hard = &node.disk.hard;
    let floor = hard
        .term
        .max(node.disk.base.term)
        .max(node.disk.term(node.disk.last()).unwrap_or(0));
    let overtakes = matches!(
        message,
        Message::PreVote { .. } | Message::PreVoteReply { granted: true, .. }
    );
    assert!(
        overtakes || floor >= message.term(),
        "node {id} says {message:?}, its disk is in term {}",
        hard.term
    );
    let voted = |term: Term, whom: Option<NodeId>| {
        assert!(
            hard.term > term || hard.term == term && hard.vote == whom,
            "node {id} says {message:?}, its disk says {hard:?}"
        );
    };
    match message {
        Message::Vote { term, .. } => voted(*term, Some(id)),
        Message::VoteReply {
            term,
            granted: true,
        } => {
            assert!(
                hard.term > *term || hard.vote.is_some(),
                "node {id} says {message:?}, its disk says {hard:?}"
            );
        }
        Message::AppendReply {
            verdict: AppendVerdict::Matched { index },
            ..
        } => synced(id, *index, message, node),
        Message::HeartbeatReply {
            verdict: HeartbeatVerdict::Matched { synced: index, .. },
            ..
        } => {
            synced(id, *index, message, node);
        }
        _ => {}
    }
}

fn synced(id: NodeId, index: Index, message: &Message, node: &Node) {
    let core = node.core.as_ref().expect("node is up");
    let held = core.term_at(index).filter(|_| index > core.base().index);
    let same = held.is_none_or(|t| node.disk.term(index) == Some(t));
    assert!(
        index <= node.disk.last() && same,
        "node {id} says {message:?}, its disk ends in {}",
        node.disk.last()
    );
}
