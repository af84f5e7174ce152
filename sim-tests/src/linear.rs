//! Linearizability: is there an order of the operations, each somewhere between its call and its
//! return, in which a single copy would have given the same answers?
//!
//! The search is Wing and Gong's with Lowe's cache of (operations done, state), key by key: keys
//! are independent objects, and linearizability is local (Herlihy and Wing 1990, theorem 1).

use crate::digest::Digest;
use crate::history::{Answer, Call, History, Operation, short};
use bytes::Bytes;
use std::collections::{HashMap, HashSet};

/// Configurations the search may visit for one key before it gives up.
const MAX_STEPS: u64 = 20_000_000;

/// Why a history is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// No order explains the answers for this key. The operations are those of the longest
    /// explained prefix and the first one that does not fit.
    NotLinearizable {
        /// The key.
        key: Bytes,
        /// A readable account.
        report: String,
    },
    /// The search gave up: the history is too concurrent to be judged. Not an acceptance.
    Undecided {
        /// The key.
        key: Bytes,
    },
}

/// Judges every key.
pub fn check(history: &History) -> Result<(), Violation> {
    for (key, operations) in history.keys() {
        check_key(key, operations)?;
    }
    Ok(())
}

/// A key's value.
type State = Option<Digest>;

/// A call with digests for values.
#[derive(Clone, Copy, Debug)]
enum Does {
    Get,
    Put(Digest),
    Append(Digest),
    Delete,
    Cas(State, State),
}

/// An answer, likewise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Value(State),
    Written,
    Length(u64),
    Deleted(bool),
    Swapped(bool),
}

fn does(call: &Call) -> Does {
    let state = |value: &Option<Bytes>| value.as_ref().map(|v| Digest::of(v));
    match call {
        Call::Get => Does::Get,
        Call::Put(value) => Does::Put(Digest::of(value)),
        Call::Append(value) => Does::Append(Digest::of(value)),
        Call::Delete => Does::Delete,
        Call::Cas(expected, value) => Does::Cas(state(expected), state(value)),
    }
}

fn says(answer: &Answer) -> Says {
    match answer {
        Answer::Value(value) => Says::Value(value.as_ref().map(|v| Digest::of(v))),
        Answer::Written => Says::Written,
        Answer::Length(length) => Says::Length(*length),
        Answer::Deleted(there) => Says::Deleted(*there),
        Answer::Swapped(swapped) => Says::Swapped(*swapped),
    }
}

/// The state after a call, if a single copy in `state` could have answered so.
fn step(state: State, call: Does, answer: Option<Says>) -> Option<State> {
    let (next, truth) = match call {
        Does::Get => (state, Says::Value(state)),
        Does::Put(value) => (Some(value), Says::Written),
        Does::Append(value) => {
            let all = state.unwrap_or(Digest::EMPTY).then(value);
            (Some(all), Says::Length(all.len()))
        }
        Does::Delete => (None, Says::Deleted(state.is_some())),
        Does::Cas(expected, value) if expected == state => (value, Says::Swapped(true)),
        Does::Cas(..) => (state, Says::Swapped(false)),
    };
    match answer {
        Some(answer) if answer != truth => None,
        _ => Some(next),
    }
}

/// Drops operations without an answer that nobody needs: an unanswered write may never take
/// effect, so leaving it out only asks more of the rest; and when no answer shows its effect, no
/// explanation of the rest needs it. Without this, every open write doubles the search.
fn relevant(operations: &[Operation]) -> Vec<&Operation> {
    let (list, shown) = (last_list(operations), shown(operations));
    let shows = |value: &Bytes| match (list, &shown) {
        (Some(list), _) => contains(list, value),
        (None, Some(shown)) => shown.iter().any(|s| contains(s, value)),
        (None, None) => true,
    };
    let needed = |o: &&Operation| match (&o.returned, &o.call) {
        (Some(_), _) => true,
        (None, Call::Get) => false,
        (None, Call::Append(value) | Call::Put(value)) => shows(value),
        (None, Call::Delete | Call::Cas(..)) => true,
    };
    operations.iter().filter(needed).collect()
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && whole.windows(part.len()).any(|window| window == part)
}

/// Of a key that is only read and appended to: what its last read showed, if that was called after
/// every other answer had come. What it does not show had no effect on any answer.
fn last_list(operations: &[Operation]) -> Option<&[u8]> {
    let grows = |o: &Operation| match &o.call {
        Call::Append(value) => !value.is_empty(),
        call => matches!(call, Call::Get),
    };
    let answered = || {
        operations
            .iter()
            .filter_map(|o| Some((o, o.returned.as_ref()?)))
    };
    let (last, (_, answer)) = answered().max_by_key(|(o, _)| o.called)?;
    let all_before = answered().all(|(o, (at, _))| std::ptr::eq(o, last) || *at < last.called);
    match answer {
        Answer::Value(value) if all_before && operations.iter().all(grows) => {
            Some(value.as_deref().unwrap_or_default())
        }
        _ => None,
    }
}

/// The values that reads showed; `None`: effects may show in a length or a comparison only.
fn shown(operations: &[Operation]) -> Option<Vec<&Bytes>> {
    let answers = || operations.iter().filter_map(|o| o.returned.as_ref());
    let indirect = |answer: &Answer| {
        matches!(
            answer,
            Answer::Length(_) | Answer::Deleted(_) | Answer::Swapped(_)
        )
    };
    if answers().any(|(_, answer)| indirect(answer)) {
        return None;
    }
    let values = answers().filter_map(|(_, answer)| match answer {
        Answer::Value(Some(value)) => Some(value),
        _ => None,
    });
    Some(values.collect())
}

/// One end of an operation in the list of calls and returns, in order of time.
#[derive(Clone, Copy)]
struct Node {
    operation: usize,
    is_call: bool,
    /// The other end.
    other: usize,
    previous: usize,
    next: usize,
}

/// A doubly linked list over a vector; node 0 is the head.
struct List(Vec<Node>);

impl List {
    fn new(operations: &[&Operation]) -> List {
        // Returns sort behind calls of the same moment: such operations overlap.
        let mut ends: Vec<(u64, bool, usize)> = Vec::new();
        for (i, o) in operations.iter().enumerate() {
            ends.push((o.called, false, i));
            ends.push((o.returned.as_ref().map_or(u64::MAX, |(at, _)| *at), true, i));
        }
        ends.sort_unstable();
        let count = ends.len();
        let head = Node {
            operation: usize::MAX,
            is_call: false,
            other: 0,
            previous: count,
            next: 1,
        };
        let mut nodes = vec![head];
        let mut calls = vec![0; operations.len()];
        for (at, (_, is_return, operation)) in ends.into_iter().enumerate() {
            let place = at + 1;
            let next = if place == count { 0 } else { place + 1 };
            let other = if is_return { calls[operation] } else { 0 };
            if is_return {
                let call: &mut Node = &mut nodes[other];
                call.other = place;
            } else {
                calls[operation] = place;
            }
            nodes.push(Node {
                operation,
                is_call: !is_return,
                other,
                previous: at,
                next,
            });
        }
        if count == 0 {
            nodes[0].next = 0;
        }
        List(nodes)
    }

    fn unlink(&mut self, at: usize) {
        let Node { previous, next, .. } = self.0[at];
        self.0[previous].next = next;
        self.0[next].previous = previous;
    }

    fn relink(&mut self, at: usize) {
        let Node { previous, next, .. } = self.0[at];
        self.0[previous].next = at;
        self.0[next].previous = at;
    }

    /// Takes an operation out: its call, then its return.
    fn lift(&mut self, call: usize) {
        self.unlink(call);
        self.unlink(self.0[call].other);
    }

    fn unlift(&mut self, call: usize) {
        self.relink(self.0[call].other);
        self.relink(call);
    }
}

fn check_key(key: &Bytes, operations: &[Operation]) -> Result<(), Violation> {
    let operations = relevant(operations);
    let judged: Vec<(Does, Option<Says>)> = operations
        .iter()
        .map(|o| {
            let answer = o.returned.as_ref().map(|(_, answer)| says(answer));
            (does(&o.call), answer)
        })
        .collect();
    let mut list = List::new(&operations);
    let mut interned: HashMap<State, u32> = HashMap::new();
    let mut done = vec![0u64; operations.len().div_ceil(64)];
    let mut seen: HashSet<(Vec<u64>, u32)> = HashSet::new();
    let mut path: Vec<(usize, State)> = Vec::new();
    let mut best: Vec<usize> = Vec::new();
    let mut state: State = None;
    let mut at = list.0[0].next;
    let mut steps = 0u64;
    while list.0[0].next != 0 {
        steps += 1;
        if steps > MAX_STEPS {
            return Err(Violation::Undecided { key: key.clone() });
        }
        let node = list.0[at];
        if node.is_call && at != 0 {
            let (call, answer) = judged[node.operation];
            if let Some(next) = step(state, call, answer) {
                let count = interned.len() as u32;
                let id = *interned.entry(next).or_insert(count);
                done[node.operation / 64] |= 1 << (node.operation % 64);
                if seen.insert((done.clone(), id)) {
                    path.push((at, std::mem::replace(&mut state, next)));
                    list.lift(at);
                    at = list.0[0].next;
                    continue;
                }
                done[node.operation / 64] &= !(1 << (node.operation % 64));
            }
            at = node.next;
            continue;
        }
        // A return (or the end): whatever comes behind was called later. Go back.
        if path.len() > best.len() {
            best = path
                .iter()
                .map(|(call, _)| list.0[*call].operation)
                .collect();
        }
        let Some((call, before)) = path.pop() else {
            let report = report(key, &operations, &best);
            return Err(Violation::NotLinearizable {
                key: key.clone(),
                report,
            });
        };
        let operation = list.0[call].operation;
        done[operation / 64] &= !(1 << (operation % 64));
        state = before;
        list.unlift(call);
        at = list.0[call].next;
    }
    Ok(())
}

/// The end of the longest explained order and what comes next in time.
fn report(key: &Bytes, operations: &[&Operation], best: &[usize]) -> String {
    let line = |i: usize| {
        let o = operations[i];
        let returned = o
            .returned
            .as_ref()
            .map(|(at, answer)| format!("{} at {at}", short(answer)));
        let returned = returned.unwrap_or_else(|| "no answer".into());
        format!(
            "  client {}: {} at {} -> {returned}\n",
            o.client,
            short(&o.call),
            o.called
        )
    };
    let mut text = format!(
        "key {}: {} of {} operations can be ordered; the last of them:\n",
        short(key),
        best.len(),
        operations.len()
    );
    for i in &best[best.len().saturating_sub(12)..] {
        text.push_str(&line(*i));
    }
    text.push_str("none of these fits next:\n");
    let mut rest: Vec<usize> = (0..operations.len())
        .filter(|i| !best.contains(i))
        .collect();
    rest.sort_by_key(|i| operations[*i].called);
    for i in rest.into_iter().take(12) {
        text.push_str(&line(i));
    }
    text
}

#[cfg(test)]
#[path = "linear_tests.rs"]
mod tests;
