//! What each node's log and disk are known to hold, kept from outside from the numbered writes and
//! their syncs, crashed nodes included; and the promises that must rest on it.
//!
//! | | checked |
//! |---|---|
//! | I1 | a new leader was promised the votes of a quorum, in its term; nobody denies a vote that it gave |
//! | I2 | logs of all members, in memory and on disk: at every write and sync, against every other |
//! | I3 | a new leader's log against everything ever seen committed; a follower refuses nothing that it has applied |
//! | I5 | whenever a node knows of a higher commit index than anybody before it; what a leader believes of its followers, whenever it commits |
//! | I6 | term, vote, commit, applied and durable index, base, the terms that messages speak of: at every event that tells them, and what recovery finds against what was synced |
//! | I7 | the log begins at or below what the state holds durably: at every compaction |
//! | I16 | every vote, acknowledgement, candidacy, and every other message that reveals a term |
//! | I19 | whose disk was damaged says so or has all it had; and gives no vote while it lacks what it once acknowledged and the group committed |
//!
//! A disk that the harness replaced or damaged excuses its node from I6 once; the harness says so
//! with [`replaced`] and [`damaged`]. Without [`strict`] a node that says itself that it is damaged, or
//! that comes with an unknown boot number, is believed.

mod leading;
mod promises;

use super::held::Held;
use super::invariants::field;
use super::trace;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use world::observe::Event;

/// Roles as they appear in "role" events.
const LEADER: u64 = raft::protocol::Role::Leader as u64;

/// Checksums of entries kept for each group.
const SUMS: usize = 4096;

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

impl Write {
    /// Carries the write out; true when it replaces entries.
    fn put(&self, held: &mut Held) -> bool {
        (held.term, held.vote) = (self.term, self.vote);
        if let Some(base) = self.reset {
            held.reset(base);
        }
        let mut replaced = false;
        for (term, first, last) in &self.runs {
            replaced |= held.append(*term, *first, *last);
        }
        replaced
    }
}

/// How what a start finds may differ from what was synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    /// In nothing.
    None,
    /// The harness damaged the disk, and the node does not say so: it may not have hit anything.
    Unsaid,
    /// It says so itself, or it is another disk.
    Full,
}

#[derive(Default)]
struct Node {
    boot: u64,
    synced: Held,
    /// Highest index that counted towards a commit: acknowledged, or synced while leading.
    counted: u64,
    /// What was synced each time before the disk was damaged, and how much of it counted.
    lost: Vec<(Held, u64)>,
    /// What was synced each time before entries of it were replaced, and the term that did so.
    replaced: Vec<(Held, u64)>,
    /// With the writes that are not synced yet.
    memory: Held,
    pending: Vec<Write>,
    /// What recovery says it found, and how it may differ from what is known.
    found: Option<(Held, Excuse)>,
    /// Known committed, and applied, in this life.
    commit: u64,
    applied: u64,
    /// The highest term in which it said something in this life.
    said: u64,
    /// Term of the last role told in this life, and whether it leads it.
    term: u64,
    leads: bool,
    /// Highest index the durable state was seen to cover.
    durable: u64,
}

impl Node {
    /// On its disk, or it was before the disk was damaged.
    fn held(&self, index: u64, term: u64) -> bool {
        let lost = self.lost.iter().map(|(held, _)| held);
        let mut all = lost.chain([&self.synced]);
        all.any(|held| held.holds(index, term))
    }

    /// It was on its disk until entries of a term behind `leading` replaced it: an acknowledgement may
    /// have been on its way for so long, and only leaders of older terms believe it.
    fn held_before(&self, leading: u64, index: u64, term: u64) -> bool {
        let older = |(held, by): &&(Held, u64)| leading < *by && held.holds(index, term);
        self.replaced.iter().any(|replaced| older(&replaced))
    }
}

#[derive(Default)]
struct Group {
    members: u64,
    nodes: BTreeMap<u64, Node>,
    /// Everything seen committed.
    committed: Held,
    /// Term in which it was seen committed -> the last index.
    committed_in: BTreeMap<u64, u64>,
    /// (node, term) -> whom it promised its vote, for ever.
    votes: BTreeMap<(u64, u64), u64>,
    /// (candidate, member) -> the first term in which it was asked for its vote, and whether that is the
    /// only one.
    asked: BTreeMap<(u64, u64), (u64, bool)>,
    /// Terms that had a leader.
    led: BTreeSet<u64>,
    /// (index, term) -> what the entry says.
    sums: BTreeMap<(u64, u64), u64>,
}

thread_local! {
    /// The next start finds another disk (true), or one that was damaged.
    static REPLACED: RefCell<BTreeMap<(u64, u64), bool>> = RefCell::default();
    /// Replaced at any time: damage is found again when the power fails before it is on record.
    static TOUCHED: RefCell<BTreeSet<(u64, u64)>> = RefCell::default();
    static STRICT: RefCell<bool> = const { RefCell::new(false) };
}

/// The harness gave this node another disk, or emptied it: its next start is believed.
pub fn replaced(group: u64, node: u64) {
    touched(group, node, true);
}

/// The harness damaged something on this node's disk: its next start says so, or has lost nothing.
pub fn damaged(group: u64, node: u64) {
    touched(group, node, false);
}

fn touched(group: u64, node: u64, whole: bool) {
    REPLACED.with(|r| *r.borrow_mut().entry((group, node)).or_default() |= whole);
    TOUCHED.with(|t| t.borrow_mut().insert((group, node)));
}

/// From now on nodes are excused by those alone: one that claims damage nobody did has lost
/// what it synced. Undone by the start of another run.
pub fn strict() {
    STRICT.with(|s| *s.borrow_mut() = true);
}

/// Installs the checks.
pub(super) fn install() {
    REPLACED.with(|r| r.borrow_mut().clear());
    TOUCHED.with(|t| t.borrow_mut().clear());
    STRICT.with(|s| *s.borrow_mut() = false);
    let mut groups: BTreeMap<u64, Group> = BTreeMap::new();
    trace::check(move |_, event| {
        let group = groups.entry(event.site.group).or_default();
        group.event(event.site.group, event.site.node, event);
    });
}

impl Group {
    fn event(&mut self, group: u64, me: u64, event: &Event) {
        let get = |name| field(event, name);
        if matches!(event.kind, "stand" | "vote" | "deny" | "ack" | "say") {
            self.said(group, me, get("term"));
        }
        match event.kind {
            "refuse" => self.refused(group, me, get("previous"), get("hint")),
            "start" => self.start(group, me, event),
            "started" => self.recovered(group, me),
            "append" | "reset" | "write" => self.write(group, me, event),
            "sync" => self.sync(group, me, get("write")),
            "stand" => {
                let first = (get("term"), true);
                let asked = self.asked.entry((me, get("to"))).or_insert(first);
                asked.1 &= asked.0 == get("term");
                self.promised(group, me, get("term"), me);
            }
            "deny" => {
                self.revealed(group, me, get("term"));
                self.denied(group, me, get("term"), get("to"));
            }
            "vote" => self.promised(group, me, get("term"), get("to")),
            "ack" => self.acknowledged(group, me, get("term"), get("to"), get("index")),
            "say" => self.revealed(group, me, get("term")),
            "role" => {
                // What it knew before it led is not committed by its own counting.
                self.commit(group, me, get("commit"));
                let leads = get("role") == LEADER;
                if leads {
                    self.led.insert(get("term"));
                }
                self.role(group, me, get("term"), leads);
            }
            "match" => self.believed(group, me, get("follower"), get("index")),
            "compact" => self.compacted(group, me, get("index")),
            "durable" => {
                let node = self.nodes.entry(me).or_default();
                node.durable = node.durable.max(get("index"));
            }
            "commit" => {
                self.handed(group, me, get("index"), get("term"));
                self.commit(group, me, get("commit"));
            }
            "apply" => {
                let node = self.nodes.entry(me).or_default();
                let (index, durable) = (get("index"), get("durable"));
                assert!(
                    durable >= node.durable && index >= node.applied,
                    "I6: {group}/{me}: applied and durable went from {} and {} back to {index} and \
                     {durable}",
                    node.applied,
                    node.durable
                );
                (node.applied, node.durable) = (index, durable);
            }
            _ => {}
        }
    }

    /// Nothing is said of a term that is over.
    fn said(&mut self, group: u64, me: u64, term: u64) {
        let node = self.nodes.entry(me).or_default();
        assert!(
            term >= node.said,
            "I6: {group}/{me} says something of term {term}, after it spoke of term {}",
            node.said
        );
        node.said = term;
    }

    /// Who has given its vote gives it again when it is asked again, since the answer may be lost. (A
    /// request of an earlier term is denied in the present one, and one that comes when its sender leads
    /// meets a log that is ahead of what it says.)
    fn denied(&self, group: u64, me: u64, term: u64, to: u64) {
        let touched = TOUCHED.with(|t| t.borrow().contains(&(group, me)));
        let only = self.asked.get(&(to, me)) == Some(&(term, true));
        assert!(
            touched
                || !only
                || self.led.contains(&term)
                || self.votes.get(&(me, term)) != Some(&to),
            "I1: {group}/{me} has given {to} its vote in term {term}, and denies it"
        );
    }

    /// What is applied is in the log of every later leader (§5.4.3), and terms in a log never fall: a
    /// follower refuses nothing in front of it, and asks for nothing in front of it.
    fn refused(&self, group: u64, me: u64, previous: u64, hint: u64) {
        let applied = self.nodes.get(&me).map_or(0, |n| n.applied);
        assert!(
            previous > applied && hint >= applied,
            "I3: {group}/{me} refuses entries behind {previous} and hints at {hint}, and has applied {applied}"
        );
    }

    /// A new life begins.
    fn start(&mut self, group: u64, me: u64, event: &Event) {
        let get = |name| field(event, name);
        self.members = get("members");
        let node = self.nodes.entry(me).or_default();
        let replaced = REPLACED.with(|r| r.borrow_mut().remove(&(group, me)));
        let says_so = get("damaged") == 1 || get("lost") == 1;
        // A directory that was emptied, or put back from an older copy, is another one.
        let unknown = get("boot") <= node.boot;
        let first = node.boot == 0;
        let strict = STRICT.with(|s| *s.borrow());
        let touched = TOUCHED.with(|t| t.borrow().contains(&(group, me)));
        assert!(
            !strict || first || touched || !(says_so || unknown),
            "I6: {group}/{me} starts damaged ({}), without its state ({}) or with an old boot number \
             ({} after {}), and nobody touched its disk",
            get("damaged"),
            get("lost"),
            get("boot"),
            node.boot
        );
        let excuse = match replaced {
            Some(true) => Excuse::Full,
            // A start that nobody heard of, since the power failed in it, found the damage.
            Some(false) if get("abstains") == 1 => Excuse::Full,
            _ if first || says_so || unknown => Excuse::Full,
            Some(false) => Excuse::Unsaid,
            None => Excuse::None,
        };
        if excuse != Excuse::None {
            node.durable = 0;
        }
        let base = (get("base"), get("base_term"));
        let found = Held::new(get("term"), get("vote"), base);
        node.boot = get("boot");
        (node.commit, node.applied, node.said) = (0, 0, 0);
        (node.term, node.leads) = (found.term, false);
        node.found = Some((found, excuse));
    }

    fn write(&mut self, group: u64, me: u64, event: &Event) {
        let run = |e| (field(e, "term"), field(e, "first"), field(e, "last"));
        if event.kind == "append" {
            let (term, _, last) = run(event);
            self.says(group, me, (last, term), field(event, "sum"));
        }
        let node = self.nodes.entry(me).or_default();
        if let (Some((found, _)), "append") = (&mut node.found, event.kind) {
            let (term, first, last) = run(event);
            found.append(term, first, last);
            return;
        }
        match (event.kind, node.pending.last_mut()) {
            ("write", _) => {
                let write = Write {
                    number: field(event, "number"),
                    term: field(event, "term"),
                    vote: field(event, "vote"),
                    ..Write::default()
                };
                let before = (node.memory.term, node.memory.vote);
                same_vote(group, me, before, (write.term, write.vote));
                write.put(&mut node.memory);
                node.pending.push(write);
            }
            ("reset", Some(write)) => {
                let base = (field(event, "index"), field(event, "term"));
                assert!(
                    base.0 >= node.memory.base.0,
                    "I6: {group}/{me}: the snapshot index went from {} to {}",
                    node.memory.base.0,
                    base.0
                );
                write.reset = Some(base);
                node.memory.reset(base);
            }
            ("append", Some(write)) => {
                let (term, first, last) = run(event);
                write.runs.push((term, first, last));
                if node.memory.append(term, first, last) {
                    world::mark!("log: a conflicting suffix is replaced");
                }
                self.matching(group, me);
            }
            _ => panic!("a {} outside a write", event.kind),
        }
    }

    /// An entry says the same wherever it is.
    fn says(&mut self, group: u64, me: u64, entry: (u64, u64), sum: u64) {
        let known = *self.sums.entry(entry).or_insert(sum);
        let (index, term) = entry;
        assert!(
            known == sum,
            "I2: {group}/{me}: entry {index} of term {term} says something else here"
        );
        if self.sums.len() > SUMS {
            self.sums.pop_first();
        }
    }

    /// Only what the state holds durably may leave the log.
    fn compacted(&self, group: u64, me: u64, index: u64) {
        let durable = self.nodes.get(&me).map_or(0, |n| n.durable);
        assert!(
            index <= durable,
            "I7: {group}/{me} cuts its log up to {index}, and its state is durable through {durable}"
        );
    }

    /// Log matching (§5.3), in memory and on disk, with every other member.
    fn matching(&self, group: u64, me: u64) {
        let mine = &self.nodes[&me];
        for (other, node) in self.nodes.iter().filter(|(n, _)| **n != me) {
            let disk = mine.synced.contradiction(&node.synced);
            let memory = mine.memory.contradiction(&node.memory);
            if let Some(index) = disk.or(memory) {
                panic!(
                    "I2: {group}/{me} and {group}/{other} agree on a later entry and differ at {index}"
                );
            }
        }
    }

    fn sync(&mut self, group: u64, me: u64, through: u64) {
        let node = self.nodes.entry(me).or_default();
        for write in node.pending.extract_if(.., |w| w.number <= through) {
            let before = (node.synced.term, node.synced.vote);
            same_vote(group, me, before, (write.term, write.vote));
            let held = node.synced.clone();
            if write.put(&mut node.synced) {
                node.replaced.push((held, write.term));
            }
        }
        if node.leads {
            node.counted = node.counted.max(node.synced.last());
        }
        self.matching(group, me);
    }

    /// What was synced is there; of what was not, the first writes or none (one batch is in flight
    /// at a time, and is there as a whole or not at all). Term and vote bind over restarts (§5.2).
    fn recovered(&mut self, group: u64, me: u64) {
        let node = self.nodes.entry(me).or_default();
        let (found, excuse) = node.found.take().expect("a start before it");
        let pending = std::mem::take(&mut node.pending);
        if excuse != Excuse::Full {
            let before = (node.synced.term, node.synced.vote);
            same_vote(group, me, before, (found.term, found.vote));
            let mut expected = node.synced.clone();
            let mut same = expected.same_behind_bases(&found);
            if same && !pending.is_empty() {
                world::mark!("crash: a write that was under way is lost");
            }
            for write in &pending {
                write.put(&mut expected);
                same |= expected.same_behind_bases(&found);
            }
            let id = match excuse {
                Excuse::Unsaid => "I19: its disk was damaged, it says nothing of it, and",
                _ => "I7:",
            };
            assert!(
                same && found.base.0 >= node.synced.base.0,
                "{id} {group}/{me} recovered a log of {}..={} and had synced {}..={} with {} writes \
                 under way",
                found.base.0,
                found.last(),
                node.synced.base.0,
                node.synced.last(),
                pending.len()
            );
            if found.last() > node.synced.last() {
                world::mark!("crash: a write that was under way is there");
            }
            let vote = (found.term, found.vote);
            if vote != before && found.vote != 0 && !self.votes.contains_key(&(me, found.term)) {
                world::mark!("crash: a vote is on disk and never left");
            }
        }
        node.memory = found.clone();
        let before = std::mem::replace(&mut node.synced, found);
        if excuse != Excuse::None {
            let counted = std::mem::take(&mut node.counted);
            node.lost.push((before, counted));
        }
        self.matching(group, me);
    }
}

fn same_vote(group: u64, me: u64, (term, vote): (u64, u64), (new_term, new_vote): (u64, u64)) {
    assert!(
        new_term >= term,
        "I6: {group}/{me}: the term went from {term} to {new_term}"
    );
    assert!(
        new_term > term || vote == 0 || vote == new_vote,
        "I6: {group}/{me} voted for {vote} and for {new_vote} in term {term}"
    );
}
