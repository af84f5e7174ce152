//! Who leads, what it believes of its followers, and what is called committed.

use super::{Group, Node};

impl Group {
    pub(super) fn role(&mut self, group: u64, me: u64, term: u64, leads: bool) {
        let node = self.nodes.entry(me).or_default();
        assert!(
            term >= node.term,
            "I6: {group}/{me}: the term went from {} to {term}",
            node.term
        );
        let begins = leads && !(node.leads && node.term == term);
        (node.term, node.leads) = (term, leads);
        if !begins {
            return;
        }
        // Election safety (§5.2): votes of this very term, each on its voter's disk when it left.
        let node = &self.nodes[&me];
        let own = (node.synced.term, node.synced.vote) == (term, me);
        let promised = |voter: &&u64| self.votes.get(&(**voter, term)) == Some(&me);
        let others = self.nodes.keys().filter(|n| **n != me).filter(promised);
        let voters: Vec<u64> = others.copied().chain(own.then_some(me)).collect();
        assert!(
            2 * voters.len() as u64 > self.members,
            "I1: {group}/{me} leads term {term} with the votes of {voters:?} of {}",
            self.members
        );
        // Leader completeness (§5.4): who leads holds what was committed in earlier terms. (A
        // candidate that slept may come to lead an old term when later ones have committed.)
        let log = &node.memory;
        let through = self.committed_in.range(..term).map(|(_, last)| *last).max();
        let committed = self.committed.between(log.base.0 + 1, through.unwrap_or(0));
        for (first, last, of) in committed {
            for index in [first, last] {
                assert!(
                    log.holds(index, of),
                    "I3: {group}/{me} leads term {term} without the committed entry {index} of term {of}"
                );
            }
        }
    }

    /// What a leader counts of a follower is on that follower's disk (`matchIndex`, figure 2).
    pub(super) fn believed(&self, group: u64, me: u64, follower: u64, index: u64) {
        let (Some(leader), Some(node)) = (self.nodes.get(&me), self.nodes.get(&follower)) else {
            return;
        };
        let Some(term) = leader.memory.term_at(index).filter(|_| index > 0) else {
            return;
        };
        assert!(
            node.held(index, term) || node.held_before(leader.term, index, term),
            "I5: {group}/{me} believes that {follower} holds {index} of term {term}, and its disk ends \
             at {} of term {:?}",
            node.synced.last(),
            node.synced.term_at(node.synced.last())
        );
    }

    /// Entries are applied only out of the node's own synced log.
    pub(super) fn handed(&mut self, group: u64, me: u64, index: u64, term: u64) {
        let node = self.nodes.entry(me).or_default();
        assert!(
            node.synced.term_at(index) == Some(term),
            "I16: {group}/{me} applies {index} beyond its own synced log"
        );
    }

    /// What is called committed is synced by a quorum, and is the same for everybody.
    pub(super) fn commit(&mut self, group: u64, me: u64, index: u64) {
        let node = self.nodes.entry(me).or_default();
        assert!(
            index >= node.commit,
            "I6: {group}/{me}: commit went from {} to {index}",
            node.commit
        );
        node.commit = index;
        let known = self.committed.last();
        let log = &self.nodes[&me].memory;
        // What others saw committed.
        for (first, last, term) in log.between(log.base.0 + 1, index.min(known)) {
            for i in [first, last] {
                assert!(
                    self.committed.holds(i, term),
                    "I3: {group}/{me} calls {i} of term {term} committed, where another entry was"
                );
            }
        }
        if index <= known {
            return;
        }
        let term = log.term_at(index);
        let term = term.unwrap_or_else(|| panic!("I6: {group}/{me} has no entry {index}"));
        let node = &self.nodes[&me];
        // §5.4.2: only entries of the leader's own term are committed by counting.
        assert!(
            !node.leads || term == node.term,
            "I5: {group}/{me} leads term {} and committed {index} of term {term} by counting",
            node.term
        );
        let holds = |n: &&Node| n.held(index, term);
        let count = self.nodes.values().filter(holds).count() as u64;
        assert!(
            2 * count > self.members,
            "I5: entry {group}/{index} is called committed by {me} and {count} of {} have it on disk",
            self.members
        );
        let newest = node.memory.term;
        let last = self.committed_in.entry(newest).or_default();
        *last = index.max(*last);
        let from = (known + 1).max(log.base.0 + 1);
        if from > known + 1 {
            // Nobody told what lies between: it came with a snapshot.
            self.committed.reset(log.base);
        }
        let news: Vec<_> = log.between(from, index).collect();
        for (first, last, term) in news {
            self.committed.append(term, first, last);
        }
    }
}
