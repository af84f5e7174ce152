//! Who may serve a shard, judged at log positions: a member that applies late is no violation, nor is
//! a read that is answered late in the state of its index.
//!
//! - I11: no shard is accepted by two groups, and nothing is read or written where it is not accepted.
//! - I13: a copy that was given away is not served again: copies that are served one after another
//!   have ever higher incarnations, whichever group has them.
//! - I15: a group enters configuration n + 1 after n.

use super::invariants::field;
use super::trace;
use std::collections::BTreeMap;
use world::observe::Event;

/// Changes kept for a shard in a group.
const KEPT: usize = 64;

/// What a change made of a shard in a group.
#[derive(Clone, Copy)]
struct Change {
    index: u64,
    accepts: bool,
    incarnation: u64,
}

#[derive(Default)]
struct Owners {
    /// (shard, group) -> changes in the order of the log.
    changes: BTreeMap<(u64, u64), Vec<Change>>,
    /// Shard -> the highest incarnation ever served, and by whom.
    newest: BTreeMap<u64, (u64, u64)>,
    /// Server -> read index and applied index of the reads it answers.
    answers: BTreeMap<(u64, u64), (u64, u64)>,
    /// Group -> where it entered each configuration, from 1.
    entered: BTreeMap<u64, Vec<u64>>,
}

/// Installs the checks for the trace of this run.
///
/// Only the first application of an entry counts, by whichever member: the new owner accepts a
/// shard after some member of the old one has applied its freeze.
pub fn install() {
    let mut owners = Owners::default();
    trace::check(move |_, event| {
        let site = (event.site.group, event.site.node);
        match event.kind {
            "ownership" => owners.changed(event),
            "serve" => owners.served(event, field(event, "index"), "a write"),
            "answer" => {
                let at = (field(event, "index"), field(event, "applied"));
                owners.answers.insert(site, at);
            }
            "read" => {
                let (_, applied) = owners.answers.get(&site).copied().unwrap_or((0, u64::MAX));
                owners.served(event, applied, "a read");
            }
            "enter" => owners.entered(event),
            "skip" => owners.skipped(event),
            _ => {}
        }
    });
}

impl Owners {
    fn changed(&mut self, event: &Event) {
        let (shard, group) = (field(event, "shard"), event.site.group);
        let change = Change {
            index: field(event, "index"),
            accepts: field(event, "accepts") == 1,
            incarnation: field(event, "incarnation"),
        };
        let changes = self.changes.entry((shard, group)).or_default();
        if changes
            .last()
            .is_some_and(|last| change.index <= last.index)
        {
            return;
        }
        changes.push(change);
        if changes.len() > KEPT {
            changes.remove(0);
        }
        if !change.accepts {
            return;
        }
        let all = self.changes.range((shard, 0)..=(shard, u64::MAX));
        let accepts = |c: &Vec<Change>| c.last().is_some_and(|c| c.accepts);
        for ((_, other), changes) in all {
            assert!(
                *other == group || !accepts(changes),
                "I11: shard {shard} is accepted by group {other} and group {group}"
            );
        }
        let served = (change.incarnation, group);
        let newest = self.newest.entry(shard).or_insert(served);
        assert!(
            served == *newest || served.0 > newest.0,
            "I13: group {group} serves shard {shard} as it came in configuration {}, and group {} has \
             served it as of {}",
            served.0,
            newest.1,
            newest.0
        );
        *newest = served;
    }

    /// Something was read or written in the state at `index`.
    fn served(&self, event: &Event, index: u64, what: &str) {
        let (shard, group) = (field(event, "shard"), event.site.group);
        let changes = self.changes.get(&(shard, group));
        let changes = changes.map(Vec::as_slice).unwrap_or_default();
        let then = changes.partition_point(|c| c.index <= index);
        let Some(change) = then.checked_sub(1).map(|n| changes[n]) else {
            // Only so much of the past is kept.
            assert!(
                changes.len() >= KEPT,
                "I11: {what} of shard {shard} in group {group} at index {index}: it never was there"
            );
            return;
        };
        assert!(
            change.accepts,
            "I11: {what} of shard {shard} in group {group} at index {index}, which has not accepted it \
             since {}",
            change.index
        );
        let incarnation = field(event, "incarnation");
        assert!(
            incarnation == change.incarnation,
            "I13: {what} of shard {shard} in group {group} at index {index} in another copy than the \
             one it has"
        );
    }

    /// Configurations that change nothing for the group stand as entered where they were skipped.
    fn skipped(&mut self, event: &Event) {
        let (from, to) = (field(event, "from"), field(event, "config"));
        let index = field(event, "index");
        let entered = self.entered.entry(event.site.group).or_default();
        if entered.len() as u64 == from && to > from {
            entered.resize(to as usize, index);
            return;
        }
        let known = entered.get(from as usize..to as usize);
        assert!(
            known.is_some_and(|known| known.iter().all(|at| *at == index)),
            "I15: group {} skips to configuration {to} at index {index} from {from}, after {}",
            event.site.group,
            entered.len()
        );
    }

    fn entered(&mut self, event: &Event) {
        let (group, config, index) = (
            event.site.group,
            field(event, "config"),
            field(event, "index"),
        );
        let entered = self.entered.entry(group).or_default();
        let last = entered.len() as u64;
        if config == last + 1 {
            entered.push(index);
            return;
        }
        let known = config.checked_sub(1).and_then(|n| entered.get(n as usize));
        assert!(
            known == Some(&index),
            "I15: group {group} enters configuration {config} at index {index}, after {last}"
        );
    }
}
