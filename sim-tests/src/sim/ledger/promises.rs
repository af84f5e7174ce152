//! What members promise: votes, acknowledgements, terms.

use super::Group;
use crate::sim::held::Held;

impl Group {
    /// A vote is given once per term and is on disk before it is given (§5.2, figure 2).
    pub(super) fn promised(&mut self, group: u64, me: u64, term: u64, to: u64) {
        let held = &self.nodes.entry(me).or_default().synced;
        assert!(
            held.term > term || (held.term, held.vote) == (term, to),
            "I16: {group}/{me} promised {to} its vote in term {term}; on its disk: vote {} in term {}",
            held.vote,
            held.term
        );
        self.no_hole(group, me);
        let known = *self.votes.entry((me, term)).or_insert(to);
        assert!(
            known == to,
            "I6: {group}/{me} promised its vote in term {term} to {known} and to {to}"
        );
    }

    /// Who speaks of a term has it on disk.
    pub(super) fn revealed(&mut self, group: u64, me: u64, term: u64) {
        let held = &self.nodes.entry(me).or_default().synced;
        assert!(
            held.term >= term,
            "I16: {group}/{me} speaks of term {term} and has term {} on disk",
            held.term
        );
    }

    pub(super) fn acknowledged(&mut self, group: u64, me: u64, term: u64, to: u64, index: u64) {
        self.revealed(group, me, term);
        let node = self.nodes.entry(me).or_default();
        node.counted = node.counted.max(index);
        let held = &self.nodes[&me].synced;
        assert!(
            held.last() >= index,
            "I16: {group}/{me} acknowledged {index} and has synced through {}",
            held.last()
        );
        // The leader of that term, while it leads it: its log never shrinks.
        let leader = self.nodes.get(&to).filter(|n| n.leads && n.term == term);
        if let Some(leader) = leader
            && let (Some(ours), Some(its)) = (held.term_at(index), leader.memory.term_at(index))
        {
            assert!(
                ours == its,
                "I2: {group}/{me} acknowledged {index} to {group}/{to}, which has another entry there"
            );
        }
    }

    /// Who votes decides what is in the next leader's log: it must have what it helped to commit.
    fn no_hole(&self, group: u64, me: u64) {
        let node = &self.nodes[&me];
        for (lost, counted) in &node.lost {
            let through = lost.last().min(*counted);
            for (first, last, term) in self.committed.between(lost.base.0 + 1, through) {
                // A run of one term is held from its beginning as far as it is held.
                let end = |held: &Held| (first..=last).rev().find(|i| held.holds(*i, term));
                assert!(
                    end(lost) <= end(&node.synced),
                    "I19: {group}/{me} votes; before its disk was damaged it held the committed entry \
                     {:?} of term {term}, and now it does not",
                    end(lost)
                );
            }
        }
    }
}
