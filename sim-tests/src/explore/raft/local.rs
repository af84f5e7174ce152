//! One node: the real core, its disk, and the writes between them.

use super::Bound;
use raft_protocol::*;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Ticks of an election timeout. Steps below run a clock as far as is meant, and canonical cores
/// stand at its beginning; two leave room for a heartbeat before a leader looks for its quorum.
const ELECTION_TICKS: u32 = 2;

/// One node, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Local {
    /// The consensus core.
    pub core: Core,
    /// Term and vote on disk.
    pub hard: HardState,
    /// The log on disk.
    pub entries: Vec<Entry>,
    /// What of it was known to be committed with the newest write.
    pub commit: Index,
    /// Handed out, not on disk, in order.
    pub pending: VecDeque<Write>,
    /// Lives before this one, where reads can tell.
    pub lives: u8,
    /// Reads asked in this life.
    pub asked: u8,
}

/// What happens to a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The oldest pending write reaches the disk, and that is reported.
    Persist,
    /// The election timeout passes, and others would vote for it: it stands.
    Stand,
    /// The election timeout passes; the node asks for pre-votes.
    Timeout,
    /// A candidate asks again for the votes that it was not given.
    Again,
    /// A leader's heartbeat is due.
    Beat,
    /// A client's command.
    Propose,
    /// A client's linearizable read.
    Read,
    /// It loses what is not on its disk, and starts again.
    Crash,
    /// A message arrives.
    Receive(NodeId, Message),
}

/// What an event does.
#[derive(Debug, Default)]
pub struct Effect {
    /// Messages that left, in order.
    pub sends: Vec<Envelope>,
    /// Reads answered: the id, and the index if it was not refused.
    pub reads: Vec<(u64, Option<Index>)>,
    /// Handed to the disk.
    pub writes: Vec<Write>,
    /// Sentences of the core, when asked for.
    pub reasons: Vec<String>,
    /// Applied through here.
    pub applied: Option<Index>,
}

impl Effect {
    fn take(&mut self, out: Output) {
        self.sends.extend(out.messages);
        let index = |r: ReadOutcome| (r.id, r.result.ok());
        self.reads.extend(out.reads.into_iter().map(index));
        self.writes.extend(out.write);
        self.reasons.extend(out.reasons);
        self.applied = out.apply_through.or(self.applied);
    }
}

/// The membership of every node's empty log.
pub fn configuration(nodes: u8) -> Configuration {
    Configuration {
        voters: (1..=u64::from(nodes)).map(|n| (n, u128::from(n))).collect(),
        ..Default::default()
    }
}

impl Local {
    /// A node that was born and never did anything.
    pub fn new(id: NodeId, bound: &Bound, explain: bool) -> Local {
        let start = |entries, hard_state, seed| Start {
            id,
            settings: settings(bound, explain),
            seed,
            hard_state,
            base: SnapshotMeta {
                configuration: configuration(bound.nodes),
                ..Default::default()
            },
            entries,
            applied: 0,
            commit: 0,
            born: true,
            state_lost: false,
        };
        let mut local = Local {
            core: Core::new(start(Vec::new(), HardState::default(), 0)),
            hard: HardState::default(),
            entries: Vec::new(),
            commit: 0,
            pending: VecDeque::new(),
            lives: 0,
            asked: 0,
        };
        local.core.canonical();
        local
    }

    /// What `event` makes of it; `None` when it cannot happen. An error is a broken promise.
    /// When it `lags`, what the event hands to the disk stays pending; otherwise that is on disk,
    /// and reported, before anything else happens.
    pub fn step(
        &self,
        event: &Event,
        lags: bool,
        id: NodeId,
        bound: &Bound,
        explain: bool,
    ) -> Option<Result<(Local, Effect), String>> {
        let mut next = self.clone();
        let mut effect = Effect::default();
        let run = AssertUnwindSafe(|| next.run(event, lags, id, bound, explain, &mut effect));
        match catch_unwind(run) {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => return None,
            Ok(Err(broken)) => return Some(Err(broken)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                return Some(Err(text.unwrap_or_else(|| "the core panics".to_owned())));
            }
        }
        next.core.canonical();
        if let Err(broken) = next.core.check_invariants() {
            return Some(Err(format!("node {id}: {broken}")));
        }
        Some(Ok((next, effect)))
    }

    /// False when the event cannot happen, or not so.
    fn run(
        &mut self,
        event: &Event,
        lags: bool,
        id: NodeId,
        bound: &Bound,
        explain: bool,
        effect: &mut Effect,
    ) -> Result<bool, String> {
        let behind = self.pending.len();
        let happens = match event {
            Event::Persist => {
                let happens = behind > 0 && !lags;
                if happens {
                    self.persist(1, effect)?;
                }
                happens
            }
            Event::Timeout => self.status().term < u64::from(bound.terms) && self.time_out(effect),
            Event::Stand => self.status().term < u64::from(bound.terms) && self.stand(id, effect),
            Event::Again => {
                self.status().role == Role::Candidate && self.input(Input::Tick, effect)
            }
            Event::Beat => self.leads() && self.input(Input::Tick, effect),
            Event::Propose => {
                // Entries are told apart by term and index: two leaders of one term would be
                // found out before their entries could be mixed up.
                let status = self.status();
                let text = format!("{}@{}", status.last_index + 1, status.term);
                let propose = Input::Propose(vec![Payload::from(text)]);
                self.leads() && self.input(propose, effect)
            }
            Event::Read => {
                self.asked += 1;
                let read = Input::Read(u64::from(self.asked));
                self.status().leader.is_some() && self.input(read, effect)
            }
            Event::Crash => {
                self.crash(id, bound, explain);
                return Ok(!lags);
            }
            Event::Receive(from, message) => {
                let (from, message) = (*from, message.clone());
                self.lapse_for(&message, effect);
                self.input(Input::Receive { from, message }, effect)
            }
        };
        if !happens || matches!(event, Event::Persist) {
            return Ok(happens);
        }
        if lags {
            return Ok(self.pending.len() > behind);
        }
        if behind == 0 {
            for number in 1.. {
                if self.pending.is_empty() {
                    break;
                }
                self.persist(number, effect)?;
            }
        }
        // With writes pending, a new one is pending too.
        Ok(self.pending.len() == behind)
    }

    fn status(&self) -> Status {
        self.core.status()
    }

    fn leads(&self) -> bool {
        self.status().role == Role::Leader
    }

    /// Steps the core; true, as this is something that happens.
    fn input(&mut self, input: Input, effect: &mut Effect) -> bool {
        let out = self.core.step(input);
        self.pending.extend(out.write.iter().cloned());
        effect.take(out);
        true
    }

    /// The oldest pending write, which is `number`, is on disk. Canonical cores count their
    /// writes from the last durable one.
    fn persist(&mut self, number: u64, effect: &mut Effect) -> Result<(), String> {
        if let Some(write) = self.pending.pop_front() {
            self.write(&write)?;
            self.input(Input::Persisted(number), effect);
        }
        Ok(())
    }

    /// The election timeout passes; whom it asks for pre-votes would grant them.
    ///
    /// A pre-vote is no promise, and whether one is granted depends on clocks: that any node may
    /// stand at any time is more than can happen. What is said on the way makes no difference.
    fn stand(&mut self, id: NodeId, effect: &mut Effect) -> bool {
        let said = effect.sends.len();
        if self.status().role != Role::PreCandidate && !self.time_out(effect) {
            return false;
        }
        effect.sends.truncate(said);
        let term = self.status().term + 1;
        let voters: Vec<NodeId> = self
            .core
            .base()
            .configuration
            .voters
            .keys()
            .copied()
            .collect();
        for from in voters.into_iter().filter(|n| *n != id) {
            if self.status().role == Role::PreCandidate {
                let granted = true;
                let message = Message::PreVoteReply { term, granted };
                self.input(Input::Receive { from, message }, effect);
            }
        }
        self.status().role == Role::Candidate
    }

    /// Lets the time pass in which a leader is live, or in which one believes to lead, before
    /// somebody else asks for a vote. Until then it makes no difference, and a request that comes
    /// before is ignored, which is the same as one that never comes.
    fn lapse_for(&mut self, message: &Message, effect: &mut Effect) {
        let status = self.status();
        let asks = matches!(message, Message::Vote { .. } | Message::PreVote { .. });
        let asks = asks && message.term() >= status.term;
        if asks && status.leader.is_some() {
            let said = effect.sends.len();
            self.depose(effect);
            self.time_out(effect);
            effect.sends.truncate(said);
        }
    }

    fn stands(&self) -> bool {
        matches!(self.status().role, Role::PreCandidate | Role::Candidate)
    }

    /// A leader hears of no quorum for an election timeout. Its heartbeats are lost.
    fn depose(&mut self, effect: &mut Effect) {
        let said = effect.sends.len();
        for _ in 0..2 * ELECTION_TICKS {
            if self.leads() {
                self.input(Input::Tick, effect);
            }
        }
        effect.sends.truncate(said);
    }

    /// Ticks until it asks for pre-votes; false when it does not come to that.
    fn time_out(&mut self, effect: &mut Effect) -> bool {
        if self.stands() {
            // Within the timeout it asks again: `Event::Again`.
            let said = effect.sends.len();
            self.input(Input::Tick, effect);
            effect.sends.truncate(said);
        }
        self.depose(effect);
        for _ in 0..2 * ELECTION_TICKS {
            let said = effect.sends.len();
            self.input(Input::Tick, effect);
            if effect.sends.len() > said {
                return true;
            }
        }
        false
    }

    fn write(&mut self, write: &Write) -> Result<(), String> {
        let (old, new) = (self.hard, write.hard_state);
        let kept = new.term > old.term || old.vote.is_none() || new.vote == old.vote;
        if new.term < old.term || !kept {
            return Err(format!(
                "term or vote go back on disk: {old:?} -> {new:?} (I6)"
            ));
        }
        self.hard = new;
        self.commit = write.commit;
        if let Some(first) = write.entries.first() {
            let keep = (first.index - 1) as usize;
            if keep > self.entries.len() {
                return Err("a write leaves a gap in the log".to_owned());
            }
            self.entries.truncate(keep);
            self.entries.extend(write.entries.iter().cloned());
        }
        Ok(())
    }

    /// Down and up again. A node that stays down for a while is one to which nothing happens for a
    /// while, so the two are one step; and what reached the disk but was not reported is the same
    /// as what was reported while everything said thereupon is still on its way.
    fn crash(&mut self, id: NodeId, bound: &Bound, explain: bool) {
        self.pending.clear();
        if bound.reads > 0 {
            self.lives += 1;
        }
        self.asked = 0;
        self.core = Core::new(Start {
            id,
            settings: settings(bound, explain),
            seed: u64::from(self.lives),
            hard_state: self.hard,
            base: self.core.base().clone(),
            entries: self.entries.clone(),
            applied: 0,
            commit: self.commit,
            born: true,
            state_lost: false,
        });
    }

    /// True when `message`, come from `from` now or at any later time, should change nothing here.
    ///
    /// So it is with an answer of a term that is over, or over for this node: the term is on disk,
    /// so not even a crash brings it back, and who asked does not ask in that term again.
    pub fn is_deaf_to(&self, from: NodeId, message: &Message) -> bool {
        let status = self.core.status();
        let over = |role| (status.term, status.role) != (message.term(), role);
        message.term() <= self.hard.term
            && match message {
                Message::VoteReply { granted, .. } => {
                    !granted || over(Role::Candidate) || !self.core.wants_vote_of(from)
                }
                Message::AppendReply { .. } | Message::HeartbeatReply { .. } => over(Role::Leader),
                _ => false,
            }
    }
}

fn settings(bound: &Bound, explain: bool) -> Settings {
    Settings {
        election_ticks: ELECTION_TICKS,
        heartbeat_ticks: 1,
        max_append_bytes: if bound.whole_appends { 1 << 30 } else { 1 },
        // Out of reach, as canonical cores want them.
        max_inflight: 1 << 20,
        max_inflight_bytes: 1 << 30,
        max_uncommitted_bytes: 1 << 30,
        cache_bytes: 1 << 30,
        explain,
    }
}
