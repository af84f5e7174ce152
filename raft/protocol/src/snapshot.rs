//! Snapshots and compaction (§7): where the log begins, and how a follower is carried past it.

use crate::core::Core;
use crate::input::SnapshotMeta;
use crate::progress::Feed;
use crate::types::{Index, MAX_NUMBER, NodeId, Role, Term};

impl Core {
    pub(crate) fn compact(&mut self, index: Index) {
        if index > self.applied || index <= self.log.base().index {
            return why!(
                self,
                "compact through {index}: not applied, or done -> ignore"
            );
        }
        self.log.compact(index);
    }

    pub(crate) fn evict(&mut self, index: Index) {
        // What is applied is committed and synced here.
        if index > self.applied {
            return why!(self, "evict through {index}: not applied -> ignore");
        }
        self.log.evict(index, self.settings.cache_bytes);
    }

    pub(crate) fn snapshot_sent(&mut self, to: NodeId, installed: Option<Index>) {
        let last = self.log.last_index();
        let round = self.lead.as_ref().map_or(0, |l| l.round);
        let Some(p) = self.progress(to).filter(|p| p.feed == Feed::Snapshot) else {
            return;
        };
        match installed {
            // The match index waits for the follower's own word.
            Some(index) => p.probe(index.min(last) + 1),
            None => {
                // Not again before the follower is heard from; and then from the log's end, for it
                // may have refused the snapshot because it is past it.
                p.probe(last + 1);
                p.pause(round);
            }
        }
        match installed {
            Some(index) => why!(
                self,
                "{to} has installed a snapshot at {index} -> probe behind it"
            ),
            None => why!(
                self,
                "the snapshot for {to} failed -> wait until it is heard from"
            ),
        }
        self.replicate(to);
    }

    /// Whether a snapshot would carry this node forward. Never to before the base: entries
    /// behind it may have been acknowledged.
    fn wants(&self, index: Index) -> bool {
        if self.state_lost {
            index >= self.log.base().index
        } else {
            index > self.commit.max(self.applied)
        }
    }

    pub(crate) fn snapshot_offered(&mut self, from: NodeId, term: Term, meta: &SnapshotMeta) {
        let in_range = term <= MAX_NUMBER && meta.index <= MAX_NUMBER && meta.term <= term;
        if !in_range {
            self.out.snapshot_accepted = Some(false);
            return self.malformed(from, "a snapshot's term or index is out of range");
        }
        let wanted = from != self.id && self.hear_leader(from, term) && self.wants(meta.index);
        let verb = if wanted { "accept" } else { "refuse" };
        why!(
            self,
            "snapshot at {} offered, commit {} -> {verb}",
            meta.index,
            self.commit
        );
        self.out.snapshot_accepted = Some(wanted);
    }

    pub(crate) fn snapshot_ready(&mut self, meta: SnapshotMeta) {
        // A leader's log holds all that is committed: it needs no snapshot.
        let above = self.state_lost || meta.index > self.applied;
        if self.role == Role::Leader || meta.index < self.log.base().index || !above {
            return why!(
                self,
                "snapshot at {} is not above what is applied -> drop it",
                meta.index
            );
        }
        let index = meta.index;
        let term = meta.term;
        if index <= self.commit && self.log.term(index) != Some(term) {
            return why!(
                self,
                "snapshot at ({index}, t{term}) contradicts what is committed -> drop it"
            );
        }
        let kept = self.reset_log(meta);
        let verb = if kept { "keep" } else { "drop" };
        why!(
            self,
            "switch to the snapshot at {index}, {verb} the entries behind it"
        );
        // What a snapshot covers is committed and applied.
        self.commit = self.commit.max(index);
        self.applied = self.applied.max(index);
        self.state_lost = false;
        // A committed prefix is every later leader's.
        let matches = if self.leader.is_some() { index } else { 0 };
        self.verified = self.verified.min(self.log.last_index()).max(matches);
        if term > self.hard.term {
            self.become_follower(term, None);
        } else if self.role != Role::Follower {
            // What it told the others of its log when it stood is true no more.
            self.become_follower(self.hard.term, self.leader);
        }
    }
}
