//! What every state must satisfy: I1 to I6 of the simulation's invariants, and reads.

use super::tables::{Change, Number, Tables, View};
use raft_protocol::{Index, NodeId, Role};

/// What was seen, and is not in any node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Past {
    /// Every entry ever seen committed, from index 1, and the term in which it was.
    pub committed: Vec<(Number, u8)>,
    /// Who led a term, by term; 0 where nobody did, or where nobody can any more.
    pub leaders: Vec<u8>,
    /// Reads under way: node, id, and the highest commit index known anywhere when it was asked.
    pub reads: Vec<(u8, u8, u8)>,
}

impl Past {
    /// A node was asked for a read.
    pub fn asked(&mut self, id: NodeId, read: u8) {
        self.reads
            .push((id as u8, read, self.committed.len() as u8));
    }

    /// Whoever waited for an answer of this node gets none.
    pub fn crashed(&mut self, id: NodeId) {
        self.reads.retain(|r| u64::from(r.0) != id);
    }
}

/// One step of one node, in the middle of the others.
pub struct Step<'a> {
    /// All numbers.
    pub tables: &'a Tables,
    /// Who steps.
    pub id: NodeId,
    /// It, before.
    pub before: Number,
    /// What the step made of it.
    pub change: &'a Change,
    /// Every node, this one as it is now.
    pub nodes: &'a [Number],
}

impl Step<'_> {
    /// Judges the step and the state behind it; `past` learns from it.
    pub fn judge(&self, past: &mut Past) -> Result<(), String> {
        let before = self.tables.view(self.before);
        let after = self.tables.view(self.change.node);
        if before.log != after.log || before.disk != after.disk {
            self.logs_match()?;
        }
        if after.role == Role::Leader && (before.role, before.term) != (after.role, after.term) {
            self.elected(after, past)?;
        }
        if before.commit < after.commit {
            self.committed(before.commit, after, past)?;
        }
        // I5, and that it stays so: disks here lose nothing.
        if before.disk != after.disk {
            for index in 1..=past.committed.len() {
                self.is_on_a_quorum(index, past)?;
            }
        }
        self.applied(after)?;
        for (read, index) in &self.change.reads {
            self.answered(*read, *index, past)?;
        }
        self.forget(past);
        Ok(())
    }

    fn views(&self) -> impl Iterator<Item = (NodeId, &View)> {
        (1..).zip(self.nodes.iter().map(|n| self.tables.view(*n)))
    }

    /// I1: at most one leader in a term. I3: it holds every entry ever seen committed.
    fn elected(&self, leader: &View, past: &mut Past) -> Result<(), String> {
        let (id, term) = (self.id, leader.term);
        let place = term as usize;
        if past.leaders.len() <= place {
            past.leaders.resize(place + 1, 0);
        }
        let first = &mut past.leaders[place];
        if *first != 0 && u64::from(*first) != id {
            return Err(format!("nodes {first} and {id} both led term {term} (I1)"));
        }
        *first = id as u8;
        // §5.4: of leaders of later terms. One that comes to lead an earlier term learns of this.
        let lacks = |(index, (entry, when)): &(usize, &(Number, u8))| {
            term > u64::from(*when) && !holds(&leader.log, *index, *entry)
        };
        match (1..).zip(&past.committed).find(lacks) {
            None => Ok(()),
            Some((index, (entry, _))) => Err(format!(
                "node {id} leads term {term} without entry {index} of term {}, which was committed (I3)",
                self.tables.entry(*entry).term
            )),
        }
    }

    /// I2: same index and term, then the same through there; in memory and on disk.
    fn logs_match(&self) -> Result<(), String> {
        let own = self.tables.view(self.change.node);
        for (other, view) in self.views() {
            for (a, place_a) in [(&own.log, "memory"), (&own.disk, "disk")] {
                for (b, place_b) in [(&view.log, "memory"), (&view.disk, "disk")] {
                    let term = |e: &Number| self.tables.entry(*e).term;
                    let same = a.iter().zip(b).rposition(|(x, y)| term(x) == term(y));
                    let Some(last) = same else {
                        continue;
                    };
                    if a[..=last] != b[..=last] {
                        return Err(format!(
                            "{place_a} of node {} and {place_b} of node {other} agree at {} and differ before it (I2)",
                            self.id,
                            last + 1
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// I4: whoever commits an index commits the same there, so that equal applied indices are equal
    /// states. I5: a quorum has it synced.
    fn committed(&self, from: Index, after: &View, past: &mut Past) -> Result<(), String> {
        for index in from + 1..=after.commit {
            let at = index as usize - 1;
            let Some(entry) = after.log.get(at) else {
                return Err(format!("node {} commits {index}, behind its log", self.id));
            };
            match past.committed.get(at) {
                Some((known, _)) if known != entry => {
                    let term = |e: &Number| self.tables.entry(*e).term;
                    return Err(format!(
                        "node {} commits entry {index} of term {}, where that of term {} was committed (I4)",
                        self.id,
                        term(entry),
                        term(known)
                    ));
                }
                Some(_) => {}
                None => {
                    past.committed.push((*entry, after.term as u8));
                    self.is_on_a_quorum(index as usize, past)?;
                }
            }
        }
        Ok(())
    }

    fn is_on_a_quorum(&self, index: usize, past: &Past) -> Result<(), String> {
        let (entry, _) = past.committed[index - 1];
        let with = |(id, v): (NodeId, &View)| holds(&v.disk, index, entry).then_some(id);
        let holders: Vec<NodeId> = self.views().filter_map(with).collect();
        if 2 * holders.len() > self.nodes.len() {
            return Ok(());
        }
        Err(format!(
            "entry {index} of term {} is committed, and synced on {holders:?} only (I5)",
            self.tables.entry(entry).term
        ))
    }

    /// A node applies what is committed and on its own disk.
    fn applied(&self, after: &View) -> Result<(), String> {
        let Some(through) = self.change.applied else {
            return Ok(());
        };
        let through_log = after.log.get(..through as usize);
        if through <= after.commit && through_log == after.disk.get(..through as usize) {
            return Ok(());
        }
        Err(format!(
            "node {} applies through {through}, which it has not synced (I6)",
            self.id
        ))
    }

    fn answered(&self, read: u64, index: Option<Index>, past: &mut Past) -> Result<(), String> {
        let asked = |r: &(u8, u8, u8)| (u64::from(r.0), u64::from(r.1)) == (self.id, read);
        let Some(at) = past.reads.iter().position(asked) else {
            return Err(format!("node {} answers read {read} again", self.id));
        };
        let (_, _, floor) = past.reads.remove(at);
        match index {
            Some(index) if index < u64::from(floor) => Err(format!(
                "node {} answers read {read} at {index}, and {floor} was committed when it was asked (not linearizable)",
                self.id
            )),
            _ => Ok(()),
        }
    }

    /// Whoever has a later term on disk leads no earlier one: what is known of terms over for
    /// everybody makes no difference any more.
    fn forget(&self, past: &mut Past) {
        let terms = self.views().map(|(_, v)| v.disk_term);
        let over = terms.min().unwrap_or(0) as usize;
        past.leaders.iter_mut().take(over).for_each(|l| *l = 0);
    }
}

fn holds(log: &[Number], index: usize, entry: Number) -> bool {
    log.get(index - 1) == Some(&entry)
}
