//! The whole: the nodes, what is under way between them, and what was seen.

use super::Bound;
use super::check::{Past, Step};
use super::local::Event;
use super::tables::{Change, Number, Outcome, Pool, Tables};
use super::words;
use crate::explore::search::{Model, Ordinal, Spent};
use raft_protocol::{Message, NodeId};
use std::hash::{Hash, Hasher};

/// Nodes at the most.
const MAX_NODES: usize = 5;

/// A state of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// By node, from 1; unused places are 0.
    nodes: [Number; MAX_NODES],
    past: Number,
    /// Messages that may arrive, by pair of nodes, oldest first.
    mail: Vec<Number>,
    spent: Spent,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.nodes, self.past).hash(hasher);
        self.mail.hash(hasher);
    }
}

/// Places in [`Spent`].
const ENTRIES: usize = 0;
const READS: usize = 1;
const BEATS: usize = 2;
const CRASHES: usize = 3;
const LAGS: usize = 4;

/// One step, on a disk that lags or does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Something happens at a node, both by place.
    Own(usize, usize, bool),
    /// A message arrives, by place.
    Arrival(usize, bool),
}

/// The model.
pub struct Raft {
    bound: Bound,
    tables: Tables,
    pasts: Pool<Past>,
    events: Vec<Event>,
    first: State,
}

impl Raft {
    /// Three nodes, or as many as `bound` says.
    pub fn new(bound: Bound) -> Raft {
        Raft::with(bound, false)
    }

    fn with(bound: Bound, explain: bool) -> Raft {
        let stand = if bound.pre_votes {
            Event::Timeout
        } else {
            Event::Stand
        };
        let mut events = vec![Event::Persist, stand, Event::Again];
        let limited = [
            (Event::Propose, bound.entries),
            (Event::Read, bound.reads),
            (Event::Beat, bound.beats),
            (Event::Crash, bound.crashes),
        ];
        let within = |(event, limit)| (limit > 0).then_some(event);
        events.extend(limited.into_iter().filter_map(within));
        let mut tables = Tables::new(bound, explain);
        let mut pasts = Pool::default();
        let mut nodes = [0; MAX_NODES];
        for (id, node) in (1..=u64::from(bound.nodes)).zip(&mut nodes) {
            *node = tables.newborn(id);
        }
        let first = State {
            nodes,
            past: pasts.enter(Past::default()).0,
            mail: Vec::new(),
            spent: [0; 8],
        };
        Raft {
            bound,
            tables,
            pasts,
            events,
            first,
        }
    }

    /// Distinct nodes, messages, and steps of a node taken.
    pub fn sizes(&self) -> (usize, usize, usize) {
        self.tables.sizes()
    }

    /// Every step from `state`, always in the same order.
    fn visit(&mut self, state: &State, mut see: impl FnMut(Cause, Result<State, String>)) {
        // The nodes differ in their numbers alone, which make no difference when nothing is said
        // of pre-votes; so the first to stand is node 1.
        let first = !self.bound.pre_votes && *state == self.first;
        let nodes = if first { 1 } else { self.bound.nodes.into() };
        for lags in [false, true] {
            if lags && state.spent[LAGS] >= self.bound.lags {
                break;
            }
            for node in 0..nodes {
                for event in 0..self.events.len() {
                    let cause = Cause::Own(node, event, lags);
                    if let Some(next) = self.take(state, cause) {
                        see(cause, next);
                    }
                }
            }
            for at in 0..state.mail.len() {
                let cause = Cause::Arrival(at, lags);
                if let Some(next) = self.take(state, cause) {
                    see(cause, next);
                }
            }
        }
    }

    /// `None` when it cannot happen, or not within the bound.
    fn take(&mut self, state: &State, cause: Cause) -> Option<Result<State, String>> {
        let spent = self.spend(state, cause)?;
        let (node, outcome) = self.outcome(state, cause);
        let change = match outcome? {
            Ok(change) => change,
            Err(broken) => return Some(Err(broken)),
        };
        let id = node as NodeId + 1;
        let mut next = State {
            nodes: state.nodes,
            past: state.past,
            mail: Vec::with_capacity(state.mail.len() + 2),
            spent,
        };
        next.nodes[node] = change.node;
        self.carry(state, &mut next, cause, id, &change);
        let event = match cause {
            Cause::Own(_, event, _) => Some(&self.events[event]),
            Cause::Arrival(..) => None,
        };
        let calm = change.calm && !matches!(event, Some(Event::Read | Event::Crash));
        if calm {
            return Some(Ok(next));
        }
        let mut past = (**self.pasts.get(state.past)).clone();
        match event {
            Some(Event::Read) => past.asked(id, self.tables.local(change.node).asked),
            Some(Event::Crash) => past.crashed(id),
            _ => {}
        }
        let step = Step {
            tables: &self.tables,
            id,
            before: state.nodes[node],
            change: &change,
            nodes: &next.nodes[..usize::from(self.bound.nodes)],
        };
        if let Err(broken) = step.judge(&mut past) {
            return Some(Err(broken));
        }
        next.past = self.pasts.enter(past).0;
        Some(Ok(next))
    }

    /// What the way to here and the step use; `None` when it is more than the bound allows.
    fn spend(&self, state: &State, cause: Cause) -> Option<Spent> {
        let mut spent = state.spent;
        let (event, lags) = match cause {
            Cause::Own(_, event, lags) => (Some(&self.events[event]), lags),
            Cause::Arrival(_, lags) => (None, lags),
        };
        spent[LAGS] += u8::from(lags);
        let (at, limit) = match event {
            Some(Event::Propose) => (ENTRIES, self.bound.entries),
            Some(Event::Read) => (READS, self.bound.reads),
            Some(Event::Beat) => (BEATS, self.bound.beats),
            Some(Event::Crash) => (CRASHES, self.bound.crashes),
            _ => return Some(spent),
        };
        spent[at] += 1;
        (spent[at] <= limit).then_some(spent)
    }

    fn outcome(&mut self, state: &State, cause: Cause) -> (usize, Outcome) {
        match cause {
            Cause::Own(node, event, lags) => {
                let kind = event as Number;
                let event = &self.events[event];
                let outcome = self.tables.happen(state.nodes[node], kind, lags, event);
                (node, outcome)
            }
            Cause::Arrival(at, lags) => {
                let node = self.tables.mail(state.mail[at]).to as usize - 1;
                let outcome = self.tables.receive(state.nodes[node], state.mail[at], lags);
                (node, outcome)
            }
        }
    }

    /// What may arrive after the step.
    fn carry(
        &mut self,
        state: &State,
        next: &mut State,
        cause: Cause,
        id: NodeId,
        change: &Change,
    ) {
        let tables = &mut self.tables;
        for (at, mail) in state.mail.iter().enumerate() {
            let to = tables.mail(*mail).to;
            // What makes no difference any more does not arrive any more.
            let gone = to == id && tables.is_deaf(change.node, *mail);
            // What arrived may arrive again, but for requests of read indices: each adds to a
            // queue.
            let read = cause == Cause::Arrival(at, false) || cause == Cause::Arrival(at, true);
            let read = read && matches!(tables.mail(*mail).message, Message::ReadIndex { .. });
            if !gone && !read {
                next.mail.push(*mail);
            }
        }
        for (at, send) in change.sends.iter().enumerate() {
            let mail = tables.mail(*send);
            let link = (mail.from, mail.to);
            if tables.is_deaf(next.nodes[link.1 as usize - 1], *send) {
                continue;
            }
            let of = |m: &Number| (tables.mail(*m).from, tables.mail(*m).to);
            next.mail.retain(|m| m != send);
            let end = next.mail.partition_point(|m| of(m) <= link);
            next.mail.insert(end, *send);
            let begin = next.mail.partition_point(|m| of(m) < link);
            // What is said in one breath does not push itself out.
            let breath = change.sends[..=at].iter().filter(|m| of(m) == link).count();
            if end + 1 - begin > breath.max(self.bound.in_flight.into()) {
                next.mail.remove(begin);
            }
        }
    }

    /// A way through the space, in words.
    pub fn transcript(bound: Bound, way: &[Ordinal]) -> String {
        use std::fmt::Write as _;
        let mut raft = Raft::with(bound, true);
        let mut text = String::new();
        let mut state = raft.first.clone();
        for (n, ordinal) in (1..).zip(way) {
            let mut all = Vec::new();
            raft.visit(&state, |cause, next| all.push((cause, next)));
            if all.len() <= usize::from(*ordinal) {
                let _ = writeln!(text, "{n:3}. the way does not lead on");
                break;
            }
            let (cause, next) = all.swap_remove((*ordinal).into());
            let (node, outcome) = raft.outcome(&state, cause);
            let _ = writeln!(
                text,
                "{n:3}. node {}: {}",
                node + 1,
                raft.say(&state, cause)
            );
            if let Some(Ok(change)) = &outcome {
                for line in &change.lines {
                    let _ = writeln!(text, "       {line}");
                }
                state.nodes[node] = change.node;
            }
            match next {
                Ok(next) => state = next,
                Err(broken) => {
                    let _ = writeln!(text, "     BROKEN: {broken}");
                }
            }
        }
        for node in 0..usize::from(bound.nodes) {
            let local = raft.tables.local(state.nodes[node]);
            let _ = writeln!(text, "     {}", words::logs(node as NodeId + 1, local));
        }
        text
    }

    fn say(&self, state: &State, cause: Cause) -> String {
        let (what, lags) = match cause {
            Cause::Own(_, event, lags) => (words::event(&self.events[event]).to_owned(), lags),
            Cause::Arrival(at, lags) => {
                let mail = self.tables.mail(state.mail[at]);
                let text = format!("from {}: {}", mail.from, words::message(&mail.message));
                (text, lags)
            }
        };
        what + if lags { " (the disk lags)" } else { "" }
    }
}

impl Model for Raft {
    type State = State;

    fn spent(&self, state: &State) -> Spent {
        state.spent
    }

    fn start(&mut self) -> State {
        self.first.clone()
    }

    fn next(&mut self, state: &State, into: &mut Vec<Result<State, String>>) {
        self.visit(state, |_, next| into.push(next));
    }
}
