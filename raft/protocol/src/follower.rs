//! A follower's side of replication (§5.3).

use crate::core::Core;
use crate::message::{AppendVerdict, HeartbeatVerdict, Message};
use crate::types::{Entry, Index, NodeId, Term};

/// How the point before an append stands in the log.
enum Prev {
    /// It is here, or below the base and therefore committed, hence here once.
    Held,
    /// It is not; the hint says where the logs may agree.
    Missing(Index, Term),
}

impl Core {
    fn prev(&self, (index, term): (Index, Term)) -> Prev {
        // A compacted point is committed, so every leader has it: no conflict.
        if index < self.log.base().index || self.log.term(index) == Some(term) {
            return Prev::Held;
        }
        let (hint_index, hint_term) = self.log.hint(index, term);
        Prev::Missing(hint_index, hint_term)
    }

    pub(crate) fn on_append(
        &mut self,
        from: NodeId,
        prev: (Index, Term),
        commit: Index,
        entries: Vec<Entry>,
    ) {
        let term = self.hard.term;
        if self.state_lost {
            why!(
                self,
                "append after {}: the state is lost -> ask for a snapshot",
                prev.0
            );
            let verdict = AppendVerdict::NeedSnapshot;
            return self.send_durable(from, Message::AppendReply { term, verdict });
        }
        if !is_consecutive(prev, &entries, term) {
            return self.malformed(from, "entries that do not follow one another");
        }
        if let Prev::Missing(hint_index, hint_term) = self.prev(prev) {
            why!(
                self,
                "append after ({}, t{}): not in the log -> refuse, hint ({hint_index}, t{hint_term})",
                prev.0,
                prev.1
            );
            let verdict = AppendVerdict::Conflict {
                prev_index: prev.0,
                hint_index,
                hint_term,
            };
            return self.send_durable(from, Message::AppendReply { term, verdict });
        }
        let last = prev.0 + entries.len() as u64;
        // What is here already is left alone: an old append must not cut what came later.
        let base = self.log.base().index;
        let held = |e: &Entry| e.index <= base || self.log.term(e.index) == Some(e.term);
        let known = entries.iter().take_while(|e| held(e)).count();
        if let Some(first) = entries.get(known) {
            let first = first.index;
            if first <= self.commit {
                return why!(
                    self,
                    "append contradicts the committed entry {first} -> ignore"
                );
            }
            // Where the point before was compacted away, its term was not compared.
            if entries[known].term < self.log.term(first - 1).unwrap_or(0) {
                return self.malformed(from, "entries of a lower term than what they follow");
            }
            if first <= self.log.last_index() {
                why!(
                    self,
                    "entries from {first} conflict -> replace them through {last}"
                );
            } else {
                why!(self, "append {first} through {last}");
            }
            self.append(entries.into_iter().skip(known));
            self.verified = self.verified.min(first - 1);
        }
        self.verified = self.verified.max(last);
        self.learn_commit(commit);
        if !self.born {
            return why!(
                self,
                "the initial members have not met -> do not acknowledge {last}"
            );
        }
        // §5.3; the acknowledgement waits for the write the entries are in.
        let write = self.log.write_of(last);
        let verdict = AppendVerdict::Matched { index: last };
        self.send_after(write, from, Message::AppendReply { term, verdict });
    }

    pub(crate) fn on_heartbeat(
        &mut self,
        from: NodeId,
        round: u64,
        prev: (Index, Term),
        commit: Index,
    ) {
        let term = self.hard.term;
        let verdict = if self.state_lost {
            HeartbeatVerdict::NeedSnapshot
        } else if let Prev::Missing(hint_index, hint_term) = self.prev(prev) {
            why!(
                self,
                "heartbeat: ({}, t{}) was acknowledged and is not here",
                prev.0,
                prev.1
            );
            HeartbeatVerdict::Lost {
                hint_index,
                hint_term,
            }
        } else {
            self.verified = self.verified.max(prev.0);
            self.learn_commit(commit);
            let received = self.verified;
            // Before its birth a member takes entries in, and is no part of any quorum: a log
            // lost until then would not be missed (afterwards it does not start without one).
            let synced = if self.born { self.log.synced() } else { 0 };
            HeartbeatVerdict::Matched {
                received,
                synced: received.min(synced),
            }
        };
        self.send_durable(
            from,
            Message::HeartbeatReply {
                term,
                round,
                verdict,
            },
        );
    }

    /// The leader's commit index holds here as far as this log is known to be the leader's.
    fn learn_commit(&mut self, commit: Index) {
        let commit = commit.min(self.verified);
        if commit > self.commit {
            why!(self, "commit {commit}");
            self.commit = commit;
        }
    }
}

/// Entries that a leader of `term` could have sent behind `prev`.
fn is_consecutive(prev: (Index, Term), entries: &[Entry], term: Term) -> bool {
    let (mut index, mut before) = prev;
    entries.iter().all(|e| {
        let fits = e.index.checked_sub(1) == Some(index) && e.term >= before && e.term <= term;
        (index, before) = (e.index, e.term);
        fits
    })
}
