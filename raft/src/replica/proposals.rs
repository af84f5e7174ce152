//! What of the clients' commands is proposed, and when.
//!
//! A command waits for the state before it is in the log, not behind: what is committed and cannot be
//! applied yet, every read has to wait for.

use super::{Consensus, ProposeError};
use crate::replica::wire::stamp;
use raft_protocol::{Entry, Index, Input, Payload, Proposed, Role};
use std::sync::atomic::Ordering;

/// Bytes of commands that a leader has proposed and not applied; beyond, by one command at the most,
/// they wait in their queue. What is committed a read has to wait for: so it is little, and the log has
/// enough to write.
const AHEAD_BYTES: usize = 8 << 20;
/// They are also at most this part of what may be applied before a flush must be through: the fuller
/// the overlay, the slower it fills.
const AHEAD_PART: usize = 8;
/// Bytes of commands that are one write; the last one may take it beyond.
const WRITE_BYTES: usize = 1 << 20;

impl Consensus {
    /// Bytes of commands that may be proposed now.
    fn room_ahead(&self) -> usize {
        if self.role != Role::Leader {
            return usize::MAX; // it is refused at once
        }
        let room = self.shared.apply_room.load(Ordering::Relaxed);
        let most = AHEAD_BYTES.min(room.div_ceil(AHEAD_PART));
        let not_handed = self.core.entries(self.handed + 1, Index::MAX, usize::MAX);
        let ahead = self.handed_bytes + not_handed.iter().map(Entry::size).sum::<usize>();
        most.saturating_sub(ahead)
    }

    /// Proposals of one turn are one input, so one write, unless they are long: then the first ones are
    /// applied while the next are written.
    pub(super) fn propose(&mut self) {
        if self.proposals.is_empty() {
            return;
        }
        let mut room = self.room_ahead();
        while room > 0 && !self.proposals.is_empty() {
            match self.propose_some(room.min(WRITE_BYTES)) {
                None => return,
                Some(bytes) => room = room.saturating_sub(bytes),
            }
        }
        if room == 0 && !self.proposals.is_empty() {
            world::mark!("propose: commands wait for those before to be applied");
        }
    }

    /// Proposes the first ones, of so many bytes, or by the last one more. The bytes they have; `None`
    /// when they have to wait.
    fn propose_some(&mut self, most: usize) -> Option<usize> {
        if self.throttle.is_on() {
            self.proposals
                .retain(|(_, waiter)| !waiter.reply.is_closed());
        }
        let (mut bytes, mut offered) = (0, 0);
        let lengths = self.proposals.iter().map(|(command, _)| command.len());
        let lengths = lengths.take_while(|length| {
            let more = bytes < most;
            bytes += length;
            offered += usize::from(more);
            more
        });
        let admitted = self.throttle.admit(world::clock::now(), lengths);
        if admitted < offered {
            world::mark!("throttle: proposals wait for a member that catches up");
        }
        if admitted == 0 {
            return None;
        }
        let (start, since) = self.lead_time;
        let elapsed = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let time_ms = start.saturating_add(elapsed);
        let (mut payloads, mut waiters) = (Vec::new(), Vec::new());
        for (mut command, waiter) in self.proposals.drain(..admitted) {
            stamp(&mut command, time_ms);
            payloads.push(command);
            waiters.push(waiter);
        }
        let bytes = payloads.iter().map(Payload::len).sum();
        let output = self.core.step(Input::Propose(payloads));
        let proposed = output.proposed;
        for (i, waiter) in waiters.into_iter().enumerate() {
            let error = match proposed {
                Some(Proposed::Accepted { term, first }) => {
                    self.waiters.insert(first + i as u64, (term, waiter));
                    continue;
                }
                Some(Proposed::NotLeader { leader }) => ProposeError::NotLeader { leader },
                Some(Proposed::Busy) | None => ProposeError::Busy,
            };
            let _ = waiter.reply.send(Err(error));
        }
        self.carry_out(output);
        Some(bytes)
    }
}

#[cfg(test)]
#[path = "proposals_tests.rs"]
mod tests;
