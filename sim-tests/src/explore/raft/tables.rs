//! Every distinct node, message and entry once, under a number; and every step of a node once.
//!
//! The same node meets the same event in very many states of the whole. So the core is stepped
//! once for each pair of the two, the outcome is kept, and a state of the whole is a few numbers.

use super::Bound;
use super::local::{Effect, Event, Local};
use super::words;
use crate::explore::search::Mix;
use raft_protocol::{Entry, Index, Message, NodeId, Role, Term};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash};
use std::rc::Rc;

/// Map with a hash function that is the same in every run.
pub type Map<K, V> = HashMap<K, V, BuildHasherDefault<Mix>>;

/// Number of a distinct node, message or past.
pub type Number = u32;

/// Distinct values, numbered in the order in which they were met.
pub struct Pool<T> {
    values: Vec<Rc<T>>,
    numbers: Map<Rc<T>, Number>,
}

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool {
            values: Vec::new(),
            numbers: Map::default(),
        }
    }
}

impl<T: Eq + Hash> Pool<T> {
    /// The value's number, and whether it is new.
    pub fn enter(&mut self, value: T) -> (Number, bool) {
        if let Some(number) = self.numbers.get(&value) {
            return (*number, false);
        }
        let number = self.values.len() as Number;
        let value = Rc::new(value);
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        (number, true)
    }

    /// The value of a number.
    pub fn get(&self, number: Number) -> &Rc<T> {
        &self.values[number as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }
}

/// A message and its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mail {
    /// Sender.
    pub from: NodeId,
    /// Receiver.
    pub to: NodeId,
    /// What is said.
    pub message: Message,
}

/// What checks read of a node. Logs are numbers of entries, from index 1.
#[derive(Debug, PartialEq, Eq)]
pub struct View {
    /// Role.
    pub role: Role,
    /// Term.
    pub term: Term,
    /// Term on disk.
    pub disk_term: Term,
    /// Commit index.
    pub commit: Index,
    /// The log in memory.
    pub log: Vec<Number>,
    /// The log on disk.
    pub disk: Vec<Number>,
}

/// What an event makes of a node.
#[derive(Debug)]
pub struct Change {
    /// The node afterwards.
    pub node: Number,
    /// Messages that leave, in order.
    pub sends: Vec<Number>,
    /// Nothing happened that could break a promise to anybody else.
    pub calm: bool,
    /// Reads answered.
    pub reads: Vec<(u64, Option<Index>)>,
    /// Applied through here.
    pub applied: Option<Index>,
    /// What happened, in words, when asked for.
    pub lines: Vec<String>,
}

/// Numbers of events; those of messages follow.
const EVENTS: Number = 16;

fn pair(a: Number, b: Number) -> u64 {
    u64::from(a) << 32 | u64::from(b)
}

/// `None`: cannot happen. `Err`: breaks a promise.
pub type Outcome = Option<Result<Rc<Change>, String>>;

/// All of it.
pub struct Tables {
    bound: Bound,
    explain: bool,
    locals: Pool<(NodeId, Local)>,
    views: Vec<View>,
    mail: Pool<Mail>,
    entries: Pool<Entry>,
    outcomes: Map<u64, Outcome>,
    deaf: Map<u64, bool>,
}

impl Tables {
    /// Empty ones.
    pub fn new(bound: Bound, explain: bool) -> Tables {
        Tables {
            bound,
            explain,
            locals: Pool::default(),
            views: Vec::new(),
            mail: Pool::default(),
            entries: Pool::default(),
            outcomes: Map::default(),
            deaf: Map::default(),
        }
    }

    /// A node that never did anything.
    pub fn newborn(&mut self, id: NodeId) -> Number {
        let local = Local::new(id, &self.bound, self.explain);
        self.node(id, local)
    }

    fn node(&mut self, id: NodeId, local: Local) -> Number {
        let (number, new) = self.locals.enter((id, local));
        if new {
            let local = &self.locals.get(number).1;
            let status = local.core.status();
            let log = local.core.entries(1, Index::MAX, usize::MAX).to_vec();
            let disk = local.entries.clone();
            let mut numbers = |log: Vec<Entry>| {
                let number = |e| self.entries.enter(e).0;
                log.into_iter().map(number).collect()
            };
            let view = View {
                role: status.role,
                term: status.term,
                disk_term: local.hard.term,
                commit: status.commit,
                log: numbers(log),
                disk: numbers(disk),
            };
            self.views.push(view);
        }
        number
    }

    /// A node.
    pub fn local(&self, node: Number) -> &Local {
        &self.locals.get(node).1
    }

    /// What checks read of a node.
    pub fn view(&self, node: Number) -> &View {
        &self.views[node as usize]
    }

    /// A message.
    pub fn mail(&self, mail: Number) -> &Mail {
        self.mail.get(mail)
    }

    /// An entry.
    pub fn entry(&self, entry: Number) -> &Entry {
        self.entries.get(entry)
    }

    /// What `event` (whose number is `kind`) makes of a node, on a disk that lags or does not.
    pub fn happen(&mut self, node: Number, kind: Number, lags: bool, event: &Event) -> Outcome {
        self.outcome(node, kind, lags, |_| event.clone())
    }

    /// What a message makes of its receiver.
    pub fn receive(&mut self, node: Number, mail: Number, lags: bool) -> Outcome {
        self.outcome(node, EVENTS + mail, lags, |tables| {
            let Mail { from, message, .. } = tables.mail(mail);
            Event::Receive(*from, message.clone())
        })
    }

    fn outcome(
        &mut self,
        node: Number,
        kind: Number,
        lags: bool,
        event: impl Fn(&Tables) -> Event,
    ) -> Outcome {
        let key = pair(node, kind << 1 | Number::from(lags));
        if let Some(known) = self.outcomes.get(&key) {
            return known.clone();
        }
        let place = self.locals.get(node).clone();
        let (id, local) = (place.0, &place.1);
        let outcome = local.step(&event(self), lags, id, &self.bound, self.explain);
        let outcome = outcome.map(|done| {
            let (next, effect) = done?;
            Ok(Rc::new(self.change(node, id, next, effect)))
        });
        self.outcomes.insert(key, outcome.clone());
        outcome
    }

    fn change(&mut self, node: Number, id: NodeId, next: Local, effect: Effect) -> Change {
        let lines = if self.explain {
            words::effect(id, self.local(node), &next, &effect)
        } else {
            Vec::new()
        };
        let mail = |e: raft_protocol::Envelope| Mail {
            from: id,
            to: e.to,
            message: e.message,
        };
        let sends = effect.sends.into_iter().map(mail);
        let sends = sends.map(|m| self.mail.enter(m).0).collect();
        let after = self.node(id, next);
        let same = self.view(node) == self.view(after);
        Change {
            node: after,
            sends,
            calm: same && effect.reads.is_empty() && effect.applied.is_none(),
            reads: effect.reads,
            applied: effect.applied,
            lines,
        }
    }

    /// True when a message can change nothing at its receiver, now or later: by its kind, and by
    /// what comes of it, so that nothing is taken on trust that the core has to see to itself.
    pub fn is_deaf(&mut self, node: Number, mail: Number) -> bool {
        if let Some(known) = self.deaf.get(&pair(node, mail)) {
            return *known;
        }
        let Mail { from, message, .. } = &**self.mail.get(mail);
        let kind = self.locals.get(node).1.is_deaf_to(*from, message);
        let nothing = |c: &Change| c.node == node && c.sends.is_empty() && c.reads.is_empty();
        let deaf = kind && matches!(self.receive(node, mail, false), Some(Ok(c)) if nothing(&c));
        self.deaf.insert(pair(node, mail), deaf);
        deaf
    }

    /// Distinct nodes, messages, and steps of a node taken.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.locals.len(), self.mail.len(), self.outcomes.len())
    }
}
