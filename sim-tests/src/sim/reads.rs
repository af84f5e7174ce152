//! Linearizable reads (thesis §6.4), judged before any client's history is: whatever any member knew
//! to be committed when a read was asked for lies at or below its read index, and a read is answered
//! in a state that reaches its index.

use super::invariants::field;
use super::trace;
use std::collections::BTreeMap;

/// Reads that were asked for and have no index yet, for each server.
const PENDING: usize = 4096;

/// Installs the check (a part of I8).
pub(super) fn install() {
    // Group -> highest index that any member knew to be committed.
    let mut committed: BTreeMap<u64, u64> = BTreeMap::new();
    // Server -> read -> what was committed when it was asked for.
    let mut asked: BTreeMap<(u64, u64), BTreeMap<u64, u64>> = BTreeMap::new();
    trace::check(move |_, event| {
        let (group, node) = (event.site.group, event.site.node);
        match event.kind {
            "commit" | "role" => {
                let known = committed.entry(group).or_default();
                *known = (*known).max(field(event, "commit"));
            }
            "start" => {
                asked.remove(&(group, node));
            }
            "ask" => {
                let known = committed.get(&group).copied().unwrap_or(0);
                let reads = asked.entry((group, node)).or_default();
                reads.insert(field(event, "read"), known);
                if reads.len() > PENDING {
                    reads.pop_first();
                }
            }
            "read-index" => {
                let reads = asked.entry((group, node)).or_default();
                let known = reads.remove(&field(event, "read")).unwrap_or(0);
                let index = field(event, "index");
                assert!(
                    index >= known,
                    "I8: {group}/{node}: a read gets index {index}, and {known} was committed before \
                     it was asked for"
                );
            }
            "answer" => {
                let (index, applied) = (field(event, "index"), field(event, "applied"));
                assert!(
                    applied >= index,
                    "I8: {group}/{node}: a read of index {index} is answered at {applied}"
                );
            }
            _ => {}
        }
    });
}
