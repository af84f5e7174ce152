//! Numbered writes, and messages that wait for them.
//!
//! A promise waits for its sync: a vote, an acknowledgement, a request for votes, and every
//! reply that reveals a new term are kept here until the write they rest on is durable.

use crate::core::Core;
use crate::input::Write;
use crate::message::{AppendVerdict, Envelope, Message};
use crate::types::{Entry, Index, NodeId, Role};
use std::collections::BTreeMap;

/// Messages that wait for one write. More are not kept, and count as lost: a disk that hangs does not
/// fill the memory with what cannot be said yet.
const MAX_WAITING: usize = 4096;

/// The numbers of writes, and what waits for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writes {
    /// The newest write handed out.
    last: u64,
    /// Every write up to this one is durable.
    persisted: u64,
    /// The newest write that changed the hard state or reset the log.
    hard: u64,
    /// First entry of this step's write.
    first: Option<Index>,
    /// This step's write has something in it besides entries.
    dirty: bool,
    /// This step's write resets the log.
    reset: bool,
    /// Messages by the write they wait for.
    waiting: BTreeMap<u64, Vec<Envelope>>,
}

impl Writes {
    /// The number of this step's write, if it comes to one.
    fn current(&self) -> u64 {
        self.last + 1
    }

    /// The newest write that changed the hard state.
    pub(crate) fn hard(&self) -> u64 {
        self.hard
    }

    pub(crate) fn is_persisted(&self, number: u64) -> bool {
        number <= self.persisted
    }

    /// Numbers the writes anew, from behind the last durable one; says by how much. What waits
    /// twice for the same write waits once.
    pub(crate) fn renumber(&mut self) -> u64 {
        let shift = std::mem::take(&mut self.persisted);
        self.last -= shift;
        self.hard = self.hard.saturating_sub(shift);
        for (number, messages) in std::mem::take(&mut self.waiting) {
            let mut once: Vec<Envelope> = Vec::new();
            for message in messages {
                once.retain(|m| *m != message);
                once.push(message);
            }
            self.waiting.insert(number - shift, once);
        }
        shift
    }

    /// Messages that wait for a sync.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Envelope> {
        self.waiting.values().flatten()
    }
}

impl Core {
    /// The hard state changed: this step's write states it, and promises wait for that write.
    pub(crate) fn hard_state_changed(&mut self) {
        self.writes.dirty = true;
        self.writes.hard = self.writes.current();
    }

    /// Appends entries, in memory at once and on disk by this step's write.
    pub(crate) fn append(&mut self, entries: impl IntoIterator<Item = Entry>) {
        let mut entries = entries.into_iter().peekable();
        let Some(first) = entries.peek().map(|e| e.index) else {
            return;
        };
        self.writes.first = Some(self.writes.first.map_or(first, |f| f.min(first)));
        self.log.append(self.writes.current(), entries);
    }

    /// Starts the log afresh behind a snapshot by this step's write.
    pub(crate) fn reset_log(&mut self, meta: crate::input::SnapshotMeta) -> bool {
        self.hard_state_changed();
        self.writes.reset = true;
        self.log.reset(self.writes.current(), meta)
    }

    /// Puts this step's write into the output.
    pub(crate) fn emit_write(&mut self) {
        let w = &mut self.writes;
        let first = w.first.take();
        if first.is_none() && !w.dirty {
            return;
        }
        w.last += 1;
        w.dirty = false;
        let reset = std::mem::take(&mut w.reset).then(|| self.log.base().clone());
        let first = if reset.is_some() {
            Some(self.log.base().index + 1)
        } else {
            first
        };
        let entries = match first {
            Some(first) => self.log.slice(first, Index::MAX, usize::MAX).to_vec(),
            None => Vec::new(),
        };
        self.out.write = Some(Write {
            number: w.last,
            hard_state: self.hard,
            commit: self.commit,
            reset,
            entries,
        });
    }

    /// Sends what needs no sync.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.out.messages.push(Envelope { to, message });
    }

    /// Sends when the hard state as it is now, and write `number`, are durable.
    pub(crate) fn send_after(&mut self, number: u64, to: NodeId, message: Message) {
        let number = number.max(self.writes.hard);
        if self.writes.is_persisted(number) {
            return self.send(to, message);
        }
        let waiting = self.writes.waiting.entry(number).or_default();
        let beats = |m: &Message| matches!(m, Message::HeartbeatReply { .. });
        // The answer to a later round says all that the earlier one did.
        if beats(&message)
            && let Some(earlier) = waiting
                .iter()
                .rposition(|e| e.to == to && beats(&e.message))
        {
            waiting.remove(earlier);
        }
        if waiting.len() < MAX_WAITING {
            waiting.push(Envelope { to, message });
        } else {
            why!(
                self,
                "too much waits for write {number} -> not said to {to}"
            );
        }
    }

    /// Sends when the hard state as it is now is durable.
    pub(crate) fn send_durable(&mut self, to: NodeId, message: Message) {
        self.send_after(0, to, message);
    }

    /// Every write up to `number` is durable: what waited for it may leave, if it still holds.
    pub(crate) fn persisted(&mut self, number: u64) {
        let number = number.min(self.writes.last);
        if number <= self.writes.persisted {
            return;
        }
        self.writes.persisted = number;
        self.log.persisted(number);
        let later = self.writes.waiting.split_off(&(number + 1));
        let ready = std::mem::replace(&mut self.writes.waiting, later);
        let mut ready = ready.into_values().flatten().peekable();
        while let Some(envelope) = ready.next() {
            // Acknowledgements are cumulative: of several in a row the last says it all.
            if ready.peek().is_some_and(|next| supersedes(next, &envelope)) {
                continue;
            }
            if self.still_holds(&envelope.message) {
                self.out.messages.push(envelope);
            } else {
                why!(
                    self,
                    "a message to {} waited for write {number} and no longer holds",
                    envelope.to
                );
            }
        }
    }

    /// What was said in a term that is over is not said any more.
    fn still_holds(&self, message: &Message) -> bool {
        let standing = !matches!(message, Message::Vote { .. }) || self.role == Role::Candidate;
        message.term() == self.hard.term && standing
    }
}

fn supersedes(next: &Envelope, this: &Envelope) -> bool {
    let matched = |m: &Message| match m {
        Message::AppendReply {
            term,
            verdict: AppendVerdict::Matched { index },
        } => Some((*term, *index)),
        _ => None,
    };
    match (matched(&next.message), matched(&this.message)) {
        (Some((t2, i2)), Some((t1, i1))) => next.to == this.to && t1 == t2 && i2 >= i1,
        _ => false,
    }
}
