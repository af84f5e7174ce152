//! One session: the ordered stream of writes to one shard. Pure: no I/O, no clock.
//!
//! Numbers are given when a write first leaves, and are never skipped: the server executes
//! number n only after n - 1. Several numbers are in flight at once. Whenever an attempt fails,
//! a new *epoch* begins: everything unanswered is sent again in order, under the same numbers,
//! with the newest `acked`; what older attempts still answer is used if it settles a number, and
//! otherwise ignored.

use super::ClientError;
use super::answer::{Answer, Trouble};
use super::ticket::Ticket;
use crate::api::Op;
use raft::session::{Refusal, WINDOW_REPLIES};
use std::collections::VecDeque;
use std::sync::Arc;

/// Unanswered writes of one session; the server stores as many replies.
pub const WINDOW: u64 = WINDOW_REPLIES;
/// Bytes of unanswered writes of one session; a single larger write goes alone.
pub const WINDOW_BYTES: usize = 16 << 20;
/// Gaps in a row that are repaired at once; after that the stream pauses between repairs.
const QUICK_REPAIRS: u32 = 3;

/// Names one attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The session.
    pub session: u64,
    /// The number in it.
    pub seq: u64,
    /// The stream's epoch when it left.
    pub epoch: u64,
}

/// A write that is to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sending {
    /// The attempt.
    pub attempt: Attempt,
    /// Every number through this one is answered.
    pub acked: u64,
    /// What it does; empty for a number whose caller gave up before it left.
    pub ops: Arc<Vec<Op>>,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something happens.
    Idle,
    /// Ask for a session.
    Open,
    /// Send these, in this order.
    Send(Vec<Sending>),
}

struct Slot<T> {
    ops: Arc<Vec<Op>>,
    bytes: usize,
    /// `None` when the caller was told, or the number is a filler.
    ticket: Option<T>,
    /// The epoch of the newest attempt; 0: none.
    epoch: u64,
    /// Attempts without an answer yet.
    flying: u32,
    /// Some attempt may have had an effect.
    maybe: bool,
    /// It was refused for a full disk, which said so.
    full: Option<String>,
    answered: bool,
}

impl<T: Ticket> Slot<T> {
    fn finish(&mut self, result: super::ticket::WriteResult) {
        if let Some(ticket) = self.ticket.take() {
            ticket.finish(result);
        }
    }

    /// Counts an attempt that certainly had no effect.
    fn harmless(&mut self) {
        if self.flying == 0
            && !self.maybe
            && let Some(ticket) = &self.ticket
        {
            ticket.take_back();
        }
    }

    fn wanted(&self) -> bool {
        self.ticket.as_ref().is_some_and(Ticket::wanted)
    }
}

/// The stream of one shard.
pub struct Stream<T> {
    session: Option<u64>,
    opening: bool,
    /// Every number through this one is answered; `slots[0]` is the next.
    acked: u64,
    slots: VecDeque<Slot<T>>,
    slot_bytes: usize,
    waiting: VecDeque<(Arc<Vec<Op>>, T)>,
    epoch: u64,
    /// Some slot may have to be sent again.
    resend: bool,
    halted: bool,
    failures: u32,
    gaps: u32,
}

impl<T: Ticket> Default for Stream<T> {
    fn default() -> Self {
        Stream {
            session: None,
            opening: false,
            acked: 0,
            slots: VecDeque::new(),
            slot_bytes: 0,
            waiting: VecDeque::new(),
            epoch: 1,
            resend: false,
            halted: false,
            failures: 0,
            gaps: 0,
        }
    }
}

/// Bytes of keys and values.
pub fn size(ops: &[Op]) -> usize {
    let of = |op: &Op| match op {
        Op::Put { key, value } | Op::Append { key, value } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
        Op::CompareAndSet {
            key,
            expected,
            value,
        } => {
            let len = |v: &Option<bytes::Bytes>| v.as_ref().map_or(0, |v| v.len());
            key.len() + len(expected) + len(value)
        }
    };
    ops.iter().map(of).sum()
}

impl<T: Ticket> Stream<T> {
    /// Hands in a write.
    pub fn submit(&mut self, ops: Vec<Op>, ticket: T) {
        self.waiting.push_back((Arc::new(ops), ticket));
    }

    /// True while more writes should be handed in.
    pub fn room(&self) -> bool {
        (self.waiting.len() as u64) < WINDOW
    }

    /// Failures since the last progress.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// The session, when one is open.
    pub fn session(&self) -> Option<u64> {
        self.session
    }

    /// True when no caller waits for a number of the session.
    pub fn at_rest(&self) -> bool {
        !self.slots.iter().any(Slot::wanted)
    }

    /// Stops sending until [`Stream::resume`]; then everything unanswered is sent again.
    pub fn halt(&mut self) {
        self.halted = true;
        self.failures = self.failures.saturating_add(1);
        self.new_epoch();
    }

    /// Goes on after a halt.
    pub fn resume(&mut self) {
        self.halted = false;
    }

    fn new_epoch(&mut self) {
        self.epoch += 1;
        self.opening = false;
        self.resend = true;
    }

    /// What to do next.
    pub fn step(&mut self) -> Step {
        if self.halted || (self.waiting.is_empty() && !self.resend) {
            return Step::Idle;
        }
        // While nobody waits, nothing is tried: numbers left over are sent with the next write.
        self.waiting.retain(|(_, ticket)| ticket.wanted());
        if self.waiting.is_empty() && self.at_rest() {
            return Step::Idle;
        }
        let Some(session) = self.session else {
            if self.opening {
                return Step::Idle;
            }
            self.opening = true;
            return Step::Open;
        };
        let mut out = Vec::new();
        if std::mem::take(&mut self.resend) {
            for (i, slot) in self.slots.iter_mut().enumerate() {
                if slot.answered || slot.epoch == self.epoch {
                    continue;
                }
                // A number whose caller gave up before anything left is used by a write that
                // does nothing: the stream has no holes.
                if slot.flying == 0
                    && !slot.maybe
                    && slot.ticket.as_ref().is_some_and(|t| !t.start())
                {
                    world::mark!("client: a number whose caller gave up becomes a filler");
                    slot.ticket = None;
                    slot.ops = Arc::default();
                }
                slot.flying += 1;
                slot.epoch = self.epoch;
                out.push(sending(
                    session,
                    self.acked,
                    self.acked + 1 + i as u64,
                    slot,
                ));
            }
        }
        while (self.slots.len() as u64) < WINDOW
            && let Some((ops, ticket)) = self.waiting.pop_front()
        {
            let bytes = size(&ops);
            if !self.slots.is_empty() && self.slot_bytes + bytes > WINDOW_BYTES {
                self.waiting.push_front((ops, ticket));
                break;
            }
            if !ticket.start() {
                continue;
            }
            let slot = Slot {
                ops,
                bytes,
                ticket: Some(ticket),
                epoch: self.epoch,
                flying: 1,
                maybe: false,
                full: None,
                answered: false,
            };
            self.slots.push_back(slot);
            self.slot_bytes += bytes;
            let seq = self.acked + self.slots.len() as u64;
            if let Some(slot) = self.slots.back() {
                out.push(sending(session, self.acked, seq, slot));
            }
        }
        if out.is_empty() {
            Step::Idle
        } else {
            Step::Send(out)
        }
    }

    /// What came back from asking for a session. Trouble halts the stream and is handed back.
    pub fn opened(&mut self, epoch: u64, answer: Answer) -> Option<Trouble> {
        if self.session.is_some() {
            return None;
        }
        match answer {
            // Whichever question it answers: an unused session is as good as another.
            Answer::Session(id) => {
                self.session = Some(id);
                self.opening = false;
                self.failures = 0;
                self.resend = true;
                None
            }
            _ if epoch != self.epoch => None,
            Answer::Trouble(trouble) => {
                self.halt();
                Some(trouble)
            }
            other => {
                self.halt();
                Some(Trouble::Unreadable(format!(
                    "unexpected answer to Open: {other:?}"
                )))
            }
        }
    }

    /// The epoch an `Open` that leaves now belongs to.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What came back from an attempt. Trouble halts the stream and is handed back.
    pub fn answer(&mut self, attempt: Attempt, answer: Answer) -> Option<Trouble> {
        if self.session != Some(attempt.session) || attempt.seq <= self.acked {
            return None;
        }
        let current = attempt.epoch == self.epoch;
        let at = (attempt.seq - self.acked - 1) as usize;
        let slot = self.slots.get_mut(at)?;
        slot.flying = slot.flying.saturating_sub(1);
        if slot.answered {
            return None;
        }
        match answer {
            Answer::Written(outcomes) => {
                if !current {
                    world::mark!("client: a late answer to an earlier attempt settles a number");
                }
                let result = match slot.full.take() {
                    Some(reason) if outcomes.is_empty() => {
                        world::mark!("client: a write is given up, the disk is nearly full");
                        Err(ClientError::Full(reason))
                    }
                    _ => Ok(outcomes),
                };
                slot.finish(result);
                self.settle(at);
                self.failures = 0;
                self.gaps = 0;
                None
            }
            Answer::Refused(Refusal::SessionExpired) => {
                world::mark!("client: told that its session expired");
                slot.maybe = true;
                self.expire("the session expired before the answer came");
                None
            }
            // A number before this one has not arrived there: all are sent again in order.
            Answer::Refused(Refusal::Gap(_)) => {
                slot.harmless();
                if !current {
                    return None;
                }
                self.gaps += 1;
                if self.gaps <= QUICK_REPAIRS {
                    world::mark!("client: a gap is repaired at once");
                    self.new_epoch();
                    return None;
                }
                self.halt();
                Some(Trouble::Busy(
                    "earlier writes of the session have not arrived yet",
                ))
            }
            // The server forgot the reply because this client said that it had it. It had not,
            // so one of the two is wrong, and only "unknown" is true.
            Answer::Refused(Refusal::Stale) => {
                world::mark!("client: told that its number is stale");
                slot.finish(Err(ClientError::Unknown(
                    "the server has forgotten the reply".into(),
                )));
                self.settle(at);
                None
            }
            Answer::Refused(refusal @ (Refusal::Window | Refusal::Busy)) => {
                slot.harmless();
                self.trouble(
                    current,
                    Trouble::Busy(match refusal {
                        Refusal::Window => "the session's window is full",
                        _ => "the shard is busy",
                    }),
                )
            }
            Answer::Invalid(reason) => self.invalid(at, reason),
            // No disk is too full for a write that stores nothing: this answers an earlier attempt.
            Answer::Full(reason) if !slot.ops.iter().any(Op::stores) => {
                self.trouble(current, Trouble::Full(reason))
            }
            Answer::Full(reason) => {
                self.give_up(at, &reason);
                None
            }
            Answer::Refused(Refusal::Malformed) => {
                self.invalid(at, "the server finds the write's number malformed".into())
            }
            Answer::Trouble(trouble) => {
                if trouble.harmless() {
                    slot.harmless();
                } else {
                    slot.maybe = true;
                }
                self.trouble(current, trouble)
            }
            other @ (Answer::Value(_) | Answer::Session(_) | Answer::Closed) => {
                slot.maybe = true;
                self.trouble(
                    current,
                    Trouble::Unreadable(format!("unexpected answer to a write: {other:?}")),
                )
            }
        }
    }

    fn trouble(&mut self, current: bool, trouble: Trouble) -> Option<Trouble> {
        if !current {
            return None;
        }
        self.halt();
        Some(trouble)
    }

    fn invalid(&mut self, at: usize, reason: String) -> Option<Trouble> {
        // An earlier attempt that may have had an effect was not found invalid.
        let error = match self.slots[at].maybe {
            true => ClientError::Unknown(reason.clone()),
            false => ClientError::Invalid(reason.clone()),
        };
        self.refused(at, error, &reason)
    }

    /// A full disk is no place for the write, nor for those behind it that store something. But another
    /// copy of one may have been executed before, or may be yet: their numbers are used by writes that
    /// do nothing, and the answers to those tell what was executed.
    fn give_up(&mut self, at: usize, reason: &str) {
        for slot in self.slots.range_mut(at..) {
            if !slot.answered && slot.ops.iter().any(Op::stores) {
                slot.full = Some(reason.to_owned());
                slot.maybe = true;
                slot.ops = Arc::default();
                slot.epoch = 0;
            }
        }
        // What was sent after it meets a gap.
        self.new_epoch();
    }

    /// The request is refused and consumed nothing: its number is used by a write that does
    /// nothing. If even that is refused, the session cannot go on.
    fn refused(&mut self, at: usize, error: ClientError, why: &str) -> Option<Trouble> {
        let slot = &mut self.slots[at];
        if slot.ops.is_empty() {
            self.expire(why);
            return None;
        }
        slot.finish(Err(error));
        slot.ops = Arc::default();
        slot.epoch = 0;
        // What was sent after it meets a gap.
        self.new_epoch();
        // Somebody must send the filler even when nobody waits: the next write does.
        None
    }

    /// Marks a number answered, and moves `acked` over all that are.
    fn settle(&mut self, at: usize) {
        self.slots[at].answered = true;
        while self.slots.front().is_some_and(|slot| slot.answered) {
            if let Some(slot) = self.slots.pop_front() {
                self.slot_bytes -= slot.bytes;
            }
            self.acked += 1;
        }
    }

    /// The session is gone. What may have had an effect is reported as unknown and never sent
    /// again: under another session it could be executed twice. What certainly had none waits
    /// for the next session.
    pub fn expire(&mut self, why: &str) {
        let slots = std::mem::take(&mut self.slots);
        for mut slot in slots.into_iter().rev() {
            if slot.answered {
                continue;
            }
            if slot.maybe || slot.flying > 0 {
                world::mark!("client: a session ends under a write, its outcome is unknown");
                slot.finish(Err(ClientError::Unknown(why.into())));
            } else if let Some(ticket) = slot.ticket.take() {
                world::mark!("client: a write waits for the next session");
                self.waiting.push_front((slot.ops, ticket));
            }
        }
        self.session = None;
        self.acked = 0;
        self.slot_bytes = 0;
        self.gaps = 0;
        self.new_epoch();
    }
}

fn sending<T>(session: u64, acked: u64, seq: u64, slot: &Slot<T>) -> Sending {
    Sending {
        attempt: Attempt {
            session,
            seq,
            epoch: slot.epoch,
        },
        acked,
        ops: slot.ops.clone(),
    }
}
