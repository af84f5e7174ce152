//! Invariants judged from outside the nodes, at every event they tell of.

use super::trace;
use std::collections::BTreeMap;

/// Roles as they appear in "role" events.
const LEADER: u64 = raft::protocol::Role::Leader as u64;

/// Installs the checks for the trace of this run. They survive crashes of nodes: what a node
/// synced or did before its crash binds it afterwards.
pub fn install() {
    one_leader_per_term();
    same_digest_at_same_index();
    never_back();
    super::ledger::install();
}

/// Election safety (§5.2): at most one leader per group and term.
fn one_leader_per_term() {
    let mut leaders: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    trace::check(move |_, event| {
        if event.kind == "role" && field(event, "role") == LEADER {
            let term = field(event, "term");
            let known = *leaders
                .entry((event.site.group, term))
                .or_insert(event.site.node);
            assert_eq!(
                known, event.site.node,
                "two leaders in group {} term {term}",
                event.site.group
            );
        }
    });
}

/// State machine safety (§5.4.3): the same applied index has the same state everywhere.
fn same_digest_at_same_index() {
    let mut digests: BTreeMap<(u64, u64), (u64, u64)> = BTreeMap::new();
    trace::check(move |_, event| {
        if event.kind == "apply" {
            let (index, digest) = (field(event, "index"), field(event, "digest"));
            let first = (digest, event.site.node);
            let known = *digests.entry((event.site.group, index)).or_insert(first);
            assert_eq!(
                known.0, digest,
                "group {}: nodes {} and {} differ at index {index}",
                event.site.group, known.1, event.site.node
            );
        }
    });
}

/// Within a node's life its commit index never goes back.
fn never_back() {
    let mut commits: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    trace::check(move |_, event| {
        let node = (event.site.group, event.site.node);
        match event.kind {
            "start" => {
                commits.remove(&node);
            }
            "commit" => {
                let index = field(event, "index");
                let known = commits.entry(node).or_insert(index);
                assert!(
                    index >= *known,
                    "{node:?}: commit went from {known} to {index}"
                );
                *known = index;
            }
            _ => {}
        }
    });
}

/// A named number of an event.
pub(super) fn field(event: &world::observe::Event, name: &str) -> u64 {
    let found = event.fields.iter().find(|(n, _)| *n == name);
    found.map_or_else(
        || panic!("event {} has no field {name}", event.kind),
        |(_, value)| *value,
    )
}
