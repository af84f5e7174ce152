//! A leader's side of replication: proposals, appends, acknowledgements, commit (§5.3, §5.4.2).

use crate::core::Core;
use crate::input::{Fetch, Proposed};
use crate::log::Log;
use crate::message::{AppendVerdict, HeartbeatVerdict, Message};
use crate::progress::{Feed, Progress};
use crate::types::{Body, Entry, Index, NodeId, Payload, Term};

impl Core {
    pub(crate) fn propose(&mut self, payloads: Vec<Payload>) {
        let term = self.hard.term;
        let first = self.log.last_index() + 1;
        let Some(lead) = &mut self.lead else {
            why!(self, "not leading -> refuse the proposal");
            self.out.proposed = Some(Proposed::NotLeader {
                leader: self.leader,
            });
            return;
        };
        let entry = |(payload, index)| Entry {
            term,
            index,
            body: Body::Command(payload),
        };
        let entries: Vec<Entry> = payloads.into_iter().zip(first..).map(entry).collect();
        let bytes: usize = entries.iter().map(Entry::size).sum();
        let full = lead.uncommitted + bytes > self.settings.max_uncommitted_bytes;
        // With nothing uncommitted there is room for one proposal of any size.
        if full && lead.uncommitted > 0 {
            why!(self, "too many uncommitted bytes -> busy");
            self.out.proposed = Some(Proposed::Busy);
            return;
        }
        lead.uncommitted += bytes;
        self.out.proposed = Some(Proposed::Accepted { term, first });
        self.append(entries);
        self.replicate_all();
    }

    pub(crate) fn replicate_all(&mut self) {
        let Some(lead) = &self.lead else {
            return;
        };
        let all: Vec<NodeId> = lead.progress.keys().copied().collect();
        all.into_iter().for_each(|to| self.replicate(to));
    }

    /// Sends what `to` may be sent now. Does not wait for the own sync: entries leave while it
    /// runs (thesis §10.2.1).
    pub(crate) fn replicate(&mut self, to: NodeId) {
        self.feed(to, Vec::new());
    }

    /// What the driver has read for `to`.
    pub(crate) fn fetched(&mut self, to: NodeId, entries: Vec<Entry>) {
        let Some(p) = self.progress(to).filter(|p| p.fetching) else {
            return why!(self, "entries for {to}, which needs none -> ignore");
        };
        p.fetching = false;
        if entries.is_empty() {
            return self.need_snapshot(to, "the entries it needs cannot be read");
        }
        self.feed(to, entries);
    }

    /// Sends what `to` may be sent now; of what is on disk alone, `fetched`.
    fn feed(&mut self, to: NodeId, mut fetched: Vec<Entry>) {
        let last = self.log.last_index();
        let settings = &self.settings;
        loop {
            let Some(lead) = &mut self.lead else {
                return;
            };
            let round = lead.round;
            let Some(p) = lead.progress.get_mut(&to) else {
                return;
            };
            let room = match p.feed {
                Feed::Snapshot => return,
                Feed::Probe if p.paused => return,
                Feed::Replicate if p.next > last => return,
                Feed::Probe => usize::MAX,
                Feed::Replicate => {
                    match p.room(settings.max_inflight, settings.max_inflight_bytes) {
                        Some(room) => room,
                        None => return,
                    }
                }
            };
            let prev_index = p.next - 1;
            let Some(prev_term) = self.log.term(prev_index) else {
                return self.need_snapshot(to, "the entries it needs are compacted");
            };
            let most = settings.max_append_bytes.min(room);
            let entries = if prev_index >= self.log.evicted() {
                self.log.slice(p.next, last, most).to_vec()
            } else {
                let fetched = std::mem::take(&mut fetched);
                let fits = fitting(&self.log, p.next, fetched, most);
                if fits.is_empty() {
                    return self.fetch(to, prev_index, most);
                }
                fits
            };
            let bytes: usize = entries.iter().map(Entry::size).sum();
            if bytes > room {
                return;
            }
            match p.feed {
                Feed::Probe => p.pause(round),
                _ => p.sent(prev_index + entries.len() as u64, bytes),
            }
            p.told = self.commit;
            let message = Message::Append {
                term: self.hard.term,
                prev_index,
                prev_term,
                commit: self.commit,
                entries,
            };
            self.out
                .messages
                .push(crate::message::Envelope { to, message });
        }
    }

    /// Asks the driver for the entries behind `after`, unless it is at it.
    fn fetch(&mut self, to: NodeId, after: Index, max_bytes: usize) {
        let Some(p) = self.progress(to).filter(|p| !p.fetching) else {
            return;
        };
        p.fetching = true;
        let terms = self.log.terms_on_disk(after, max_bytes);
        why!(
            self,
            "{to} needs what is behind {after} -> read it from the disk"
        );
        self.out.fetches.push(Fetch {
            to,
            after,
            terms,
            max_bytes,
        });
    }

    /// Sends a heartbeat of the newest round. It names an index the follower acknowledged, so
    /// that one whose disk lost it is found out.
    pub(crate) fn heartbeat(&mut self, to: NodeId) {
        let (term, commit) = (self.hard.term, self.commit);
        let Some(lead) = &mut self.lead else {
            return;
        };
        let round = lead.round;
        let Some(p) = lead.progress.get_mut(&to) else {
            return;
        };
        let known = self.log.term(p.matched).map(|t| (p.matched, t));
        let (prev_index, prev_term) = known.unwrap_or((0, 0));
        p.told = commit;
        self.send(
            to,
            Message::Heartbeat {
                term,
                round,
                prev_index,
                prev_term,
                commit,
            },
        );
    }

    fn need_snapshot(&mut self, to: NodeId, reason: &str) {
        let Some(p) = self.progress(to) else {
            return;
        };
        if p.feed != Feed::Snapshot {
            p.snapshot();
            why!(self, "{to} needs a snapshot: {reason}");
            self.out.snapshots.push(to);
        }
    }

    pub(crate) fn progress(&mut self, of: NodeId) -> Option<&mut Progress> {
        self.lead.as_mut().and_then(|l| l.progress.get_mut(&of))
    }

    pub(crate) fn on_append_reply(&mut self, from: NodeId, verdict: AppendVerdict) {
        let last = self.log.last_index();
        let Some(p) = self.progress(from) else {
            return;
        };
        p.active = true;
        match verdict {
            AppendVerdict::Matched { index } if index <= last => {
                let news = p.raise(index);
                if p.feed == Feed::Probe {
                    p.replicate(index + 1);
                }
                if news {
                    self.leave_snapshot(from);
                    self.advance_commit();
                }
            }
            AppendVerdict::Conflict {
                prev_index,
                hint_index,
                hint_term,
            } => {
                let stale = match p.feed {
                    Feed::Probe => prev_index != p.next - 1,
                    Feed::Replicate => prev_index <= p.matched,
                    Feed::Snapshot => true,
                };
                if stale {
                    return why!(
                        self,
                        "{from} refused an append before {prev_index}: old news"
                    );
                }
                let next = self.back_off(hint_index, hint_term).min(prev_index);
                why!(
                    self,
                    "{from} has no ({prev_index}) as here, perhaps ({hint_index}, t{hint_term}) -> probe from {next}"
                );
                if let Some(p) = self.progress(from) {
                    p.probe(next);
                }
            }
            AppendVerdict::NeedSnapshot => self.need_snapshot(from, "its state is lost"),
            AppendVerdict::Matched { .. } | AppendVerdict::Stale => {}
        }
        self.replicate(from);
    }

    /// The next index to try with a follower that may agree through (`hint_index`, `hint_term`):
    /// whole terms are skipped on both sides (§5.3, end).
    fn back_off(&self, hint_index: Index, hint_term: Term) -> Index {
        if hint_index < self.log.base().index {
            return hint_index + 1; // compacted here: a snapshot it will be
        }
        self.log.hint(hint_index, hint_term).0 + 1
    }

    pub(crate) fn on_heartbeat_reply(
        &mut self,
        from: NodeId,
        round: u64,
        verdict: HeartbeatVerdict,
    ) {
        let last = self.log.last_index();
        if self.lead.as_ref().is_none_or(|l| round > l.round) {
            return why!(
                self,
                "{from} answers round {round}, which was not sent -> ignore"
            );
        }
        let Some(p) = self.progress(from) else {
            return;
        };
        p.active = true;
        p.round = p.round.max(round);
        match verdict {
            HeartbeatVerdict::Matched { received, synced } if received.max(synced) <= last => {
                let news = p.raise(synced);
                if p.received(received, round) {
                    why!(
                        self,
                        "{from} did not receive what was sent -> probe from {}",
                        received + 1
                    );
                }
                if news {
                    self.leave_snapshot(from);
                    self.advance_commit();
                }
            }
            HeartbeatVerdict::Lost {
                hint_index,
                hint_term,
            } => {
                let next = self.back_off(hint_index, hint_term);
                why!(
                    self,
                    "{from} lost entries it had acknowledged -> probe from {next}"
                );
                if let Some(p) = self.progress(from) {
                    p.forget(next);
                }
            }
            HeartbeatVerdict::NeedSnapshot => self.need_snapshot(from, "its state is lost"),
            HeartbeatVerdict::Matched { .. } => {}
        }
        self.finish_rounds();
        self.replicate(from);
    }

    /// A follower that got past the base without a snapshot is fed with entries again.
    fn leave_snapshot(&mut self, of: NodeId) {
        let base = self.log.base().index;
        if let Some(p) = self
            .progress(of)
            .filter(|p| p.feed == Feed::Snapshot && p.matched >= base)
        {
            p.probe(p.matched + 1);
        }
    }

    /// Raises the commit index to the highest entry of the own term that a quorum has synced.
    pub(crate) fn advance_commit(&mut self) {
        let Some(lead) = &self.lead else {
            return;
        };
        // The leader's own share is what it has synced, not what it has appended.
        let own = self.log.synced();
        let matched = lead.progress.values().map(|p| p.matched);
        let above = |i: &Index| *i > self.commit;
        let mut indices: Vec<Index> = matched.chain([own]).filter(above).collect();
        indices.sort_unstable_by(|a, b| b.cmp(a));
        indices.dedup();
        let quorum = |i: &Index| self.is_quorum_with(own >= *i, |p| p.matched >= *i);
        let Some(index) = indices.into_iter().find(quorum) else {
            return;
        };
        // §5.4.2: only entries of the leader's own term are committed by counting.
        if self.log.term(index) != Some(self.hard.term) {
            return why!(
                self,
                "a quorum has {index}, which is of an earlier term -> not committed by counting"
            );
        }
        let bytes = self.log.bytes_between(self.commit, index);
        let first = self.commit < lead.begun;
        why!(self, "a quorum has synced {index} -> commit");
        self.commit = index;
        if let Some(lead) = &mut self.lead {
            lead.uncommitted = lead.uncommitted.saturating_sub(bytes);
            if first && !lead.queue.is_empty() {
                self.start_round();
            }
        }
    }
}

/// Of what was read from the disk, what may be sent from `next` on: entries of this log, at most
/// `max_bytes` of them but at least one. None when it was read for another place.
fn fitting(log: &Log, next: Index, mut entries: Vec<Entry>, max_bytes: usize) -> Vec<Entry> {
    let mut bytes = 0usize;
    let fit = entries.iter().zip(next..).take_while(|(entry, index)| {
        bytes = bytes.saturating_add(entry.size());
        let own = entry.index == *index && log.term(*index) == Some(entry.term);
        own && (bytes <= max_bytes || *index == next)
    });
    let fit = fit.count();
    entries.truncate(fit);
    entries
}
