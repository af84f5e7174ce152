//! What each node's disk is known to hold, kept from outside from the numbered writes and their
//! syncs; and the promises that must rest on it.

use super::invariants::field;
use super::trace;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use world::observe::Event;

/// Roles as they appear in "role" events.
const LEADER: u64 = raft::protocol::Role::Leader as u64;

/// What a disk holds of consensus.
#[derive(Clone, Default)]
struct Held {
    term: u64,
    vote: u64,
    base: (u64, u64),
    /// Index -> term, behind the base.
    log: BTreeMap<u64, u64>,
}

/// A numbered write.
#[derive(Clone, Default)]
struct Write {
    number: u64,
    term: u64,
    vote: u64,
    reset: Option<(u64, u64)>,
    /// (term, first, last)
    runs: Vec<(u64, u64, u64)>,
}

#[derive(Default)]
struct Node {
    boot: u64,
    synced: Held,
    pending: Vec<Write>,
    /// What recovery says it found, and whether it may differ from what is known.
    found: Option<(Held, bool)>,
    commit: u64,
    /// Highest index the durable state was seen to cover.
    durable: u64,
}

#[derive(Default)]
struct Group {
    members: u64,
    nodes: BTreeMap<u64, Node>,
    /// Index -> term of everything seen committed.
    committed: BTreeMap<u64, u64>,
    /// (node, term) -> whom it promised its vote, for ever.
    votes: BTreeMap<(u64, u64), u64>,
}

impl Held {
    fn take(&mut self, write: &Write) {
        (self.term, self.vote) = (write.term, write.vote);
        if let Some(base) = write.reset {
            self.base = base;
            self.log.clear();
        }
        for (term, first, last) in &write.runs {
            self.log.split_off(first);
            self.log.extend((*first..=*last).map(|i| (i, *term)));
        }
    }

    fn last(&self) -> u64 {
        let last = self.log.last_key_value().map_or(0, |(i, _)| *i);
        last.max(self.base.0)
    }

    fn holds(&self, index: u64, term: u64) -> bool {
        self.base.0 >= index || self.log.get(&index) == Some(&term)
    }

    fn same_behind_bases(&self, other: &Held) -> bool {
        let from = self.base.0.max(other.base.0) + 1;
        self.last() == other.last() && self.log.range(from..).eq(other.log.range(from..))
    }
}

thread_local! {
    static REPLACED: RefCell<BTreeSet<(u64, u64)>> = RefCell::default();
}

/// The harness put another content on this node's disk: its next start is believed.
pub fn replaced(group: u64, node: u64) {
    REPLACED.with(|r| r.borrow_mut().insert((group, node)));
}

/// Installs the checks.
pub(super) fn install() {
    REPLACED.with(|r| r.borrow_mut().clear());
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    trace::check(move |_, event| {
        let group = groups.entry(event.site.group).or_default();
        group.event(event.site.node, event);
    });
}

impl Group {
    fn event(&mut self, me: u64, event: &Event) {
        let get = |name| field(event, name);
        match event.kind {
            "start" => {
                self.members = get("members");
                let node = self.nodes.entry(me).or_default();
                // A directory that was emptied, or put back from an older copy, is another one.
                let replaced = REPLACED.with(|r| r.borrow_mut().remove(&(event.site.group, me)));
                let other_disk = replaced || get("boot") <= node.boot || node.boot == 0;
                let found = Held {
                    term: get("term"),
                    vote: get("vote"),
                    base: (get("base"), get("base_term")),
                    log: BTreeMap::new(),
                };
                let excused = other_disk || get("damaged") == 1 || get("lost") == 1;
                if excused {
                    node.durable = 0;
                }
                node.boot = get("boot");
                node.commit = 0;
                node.found = Some((found, excused));
            }
            "started" => self.recovered(me),
            "append" | "reset" | "write" => self.write(me, event),
            "sync" => {
                let node = self.nodes.entry(me).or_default();
                let through = get("write");
                for write in node.pending.extract_if(.., |w| w.number <= through) {
                    let (term, vote) = (node.synced.term, node.synced.vote);
                    same_vote(me, (term, vote), (write.term, write.vote));
                    node.synced.take(&write);
                }
            }
            "stand" => self.promised(me, get("term"), me),
            "vote" => self.promised(me, get("term"), get("to")),
            "ack" => {
                let node = self.nodes.entry(me).or_default();
                assert!(
                    node.synced.last() >= get("index"),
                    "node {me} acknowledged {} and has synced through {}",
                    get("index"),
                    node.synced.last()
                );
            }
            "role" if get("role") == LEADER => self.leads(me),
            "commit" => self.commit(me, get("index"), get("term")),
            "apply" => {
                let node = self.nodes.entry(me).or_default();
                assert!(
                    get("durable") >= node.durable,
                    "node {me}: the durable state went from {} back to {}",
                    node.durable,
                    get("durable")
                );
                node.durable = get("durable");
            }
            _ => {}
        }
    }

    fn write(&mut self, me: u64, event: &Event) {
        let node = self.nodes.entry(me).or_default();
        let run = |e| (field(e, "term"), field(e, "first"), field(e, "last"));
        if let (Some((found, _)), "append") = (&mut node.found, event.kind) {
            let (term, first, last) = run(event);
            found.log.extend((first..=last).map(|i| (i, term)));
            return;
        }
        match (event.kind, node.pending.last_mut()) {
            ("write", _) => node.pending.push(Write {
                number: field(event, "number"),
                term: field(event, "term"),
                vote: field(event, "vote"),
                ..Write::default()
            }),
            ("reset", Some(write)) => {
                write.reset = Some((field(event, "index"), field(event, "term")));
            }
            ("append", Some(write)) => write.runs.push(run(event)),
            _ => panic!("a {} outside a write", event.kind),
        }
    }

    /// What was synced is there; of what was not, the first writes or none (one batch is in flight
    /// at a time, and is there as a whole or not at all). Term and vote bind over restarts (§5.2).
    fn recovered(&mut self, me: u64) {
        let node = self.nodes.entry(me).or_default();
        let (found, excused) = node.found.take().expect("a start before it");
        let pending = std::mem::take(&mut node.pending);
        if !excused {
            let (term, vote) = (node.synced.term, node.synced.vote);
            same_vote(me, (term, vote), (found.term, found.vote));
            let mut expected = node.synced.clone();
            let mut same = expected.same_behind_bases(&found);
            for write in &pending {
                expected.take(write);
                same |= expected.same_behind_bases(&found);
            }
            assert!(
                same,
                "node {me} recovered a log of {}..={} and had synced {}..={} with {} writes under way",
                found.base.0,
                found.last(),
                node.synced.base.0,
                node.synced.last(),
                pending.len()
            );
        }
        node.synced = found;
    }

    /// A vote is given once per term and is on disk before it is given (§5.2, figure 2).
    fn promised(&mut self, me: u64, term: u64, to: u64) {
        let held = &self.nodes.entry(me).or_default().synced;
        assert!(
            held.term > term || (held.term, held.vote) == (term, to),
            "node {me} promised {to} its vote in term {term}; on its disk: vote {} in term {}",
            held.vote,
            held.term
        );
        let known = *self.votes.entry((me, term)).or_insert(to);
        assert_eq!(known, to, "node {me} voted twice in term {term}");
    }

    /// Leader completeness (§5.4): who leads holds what was ever committed.
    fn leads(&mut self, me: u64) {
        let Some((index, term)) = self.committed.last_key_value() else {
            return;
        };
        let node = self.nodes.entry(me).or_default();
        let mut log = node.synced.clone();
        node.pending.iter().for_each(|write| log.take(write));
        assert!(
            log.holds(*index, *term),
            "node {me} leads without the committed entry {index} of term {term}"
        );
    }

    /// What is called committed is synced by a quorum, and is the same for everybody.
    fn commit(&mut self, me: u64, index: u64, term: u64) {
        let from = {
            let node = self.nodes.entry(me).or_default();
            assert_eq!(
                node.synced.log.get(&index),
                Some(&term),
                "node {me} applies {index} beyond its own synced log"
            );
            std::mem::replace(&mut node.commit, index) + 1
        };
        if self
            .committed
            .last_key_value()
            .is_none_or(|(i, _)| *i < index)
        {
            let holds = |n: &&Node| n.synced.holds(index, term);
            let count = self.nodes.values().filter(holds).count() as u64;
            assert!(
                2 * count > self.members,
                "entry {index} is called committed and {count} of {} have it on disk",
                self.members
            );
        }
        for (i, t) in self.nodes[&me].synced.log.range(from..=index) {
            let known = *self.committed.entry(*i).or_insert(*t);
            assert_eq!(known, *t, "entry {i} was committed in two terms");
        }
    }
}

fn same_vote(me: u64, (term, vote): (u64, u64), (new_term, new_vote): (u64, u64)) {
    assert!(
        new_term >= term,
        "node {me}: term went from {term} to {new_term}"
    );
    assert!(
        new_term > term || vote == 0 || vote == new_vote,
        "node {me} voted for {vote} and for {new_vote} in term {term}"
    );
}
