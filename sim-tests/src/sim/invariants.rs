//! Invariants judged from outside the nodes, at every event they tell of.
//!
//! | | what | where, and when |
//! |---|---|---|
//! | I1 | one leader for each group and term, by the votes of a quorum | here, and [`super::ledger`]: at every change of role |
//! | I2 | logs match | [`super::ledger`], every write and sync, crashed members included; what entries say as well |
//! | I3 | a new leader holds what was committed | [`super::ledger`], every election and commit |
//! | I4 | same applied index, same state | here, at every entry applied: digest and log time |
//! | I5 | committed means synced by a quorum of the members, and by counting only in the leader's term; a leader believes of followers what is on their disks | [`super::ledger`], every rise of the commit index |
//! | I6 | nothing goes back | [`super::ledger`], every event; match indices and what else one step may not do: asserted by the core itself |
//! | I7 | nothing synced is lost; the log is cut behind the durable state | [`super::ledger`], every start; every compaction; what clients were told: the campaign, at its end |
//! | I8 | linearizable | [`crate::linear`] at the end; read indices: `reads`, every read |
//! | I9 | once | `sessions`, every write executed; each token once: [`super::workload`], at the end |
//! | I10 | never in an expired session | `sessions`, every write executed |
//! | I11 | one owner | [`super::ownership`], every change, write and read |
//! | I12 | the shards partition the keys | [`super::campaign::liveness`], at rest |
//! | I13 | nothing given away is seen again | [`super::ownership`], every change, write and read |
//! | I14 | moved bytes go | [`super::campaign::liveness`], at rest |
//! | I15 | configuration n + 1 after n | [`super::ownership`], every entering |
//! | I16 | no promise before its sync | [`super::ledger`], every vote, acknowledgement and message that reveals a term; every hand-out to the state machine, so every reply |
//! | I17 | a healthy cluster comes to rest | [`super::campaign::liveness`] |
//! | I18 | a healthy core too | [`super::campaign::liveness`] |
//! | I19 | corrupt bytes are not served, and nobody votes with a hole | [`super::ledger`], every start of a damaged member and every vote; through I4, I7 and I8: a member that took corrupt bytes in differs |
//! | I20 | no panic, bounded sizes | any panic ends a run; `bounds`, once a second and at every flush |
//! | I21 | what no fault touches keeps serving | the campaign ([`super::campaign::work::untouched`]), during faults |
//! | I22 | the same seed, the same trace | [`trace::digest`] of two runs |
//! | I28 | a configuration is balanced and moves no more than it must | the campaign, of all that were made ([`crate::configs`]) |
//!
//! Every message begins with the invariant's name.

use super::trace;
use std::collections::BTreeMap;

/// Roles as they appear in "role" events.
const LEADER: u64 = raft::protocol::Role::Leader as u64;

/// Applied indices and terms kept for each group.
const KEPT: usize = 16_384;

/// Installs the checks for the trace of this run. They survive crashes of nodes: what a node
/// synced or did before its crash binds it afterwards.
pub fn install() {
    one_leader_per_term();
    same_state_at_same_index();
    super::ledger::install();
    super::reads::install();
    super::sessions::install();
    super::bounds::install();
}

/// Election safety (§5.2): at most one leader per group and term.
fn one_leader_per_term() {
    let mut leaders: BTreeMap<u64, BTreeMap<u64, u64>> = BTreeMap::new();
    trace::check(move |_, event| {
        if event.kind == "role" && field(event, "role") == LEADER {
            let (group, node, term) = (event.site.group, event.site.node, field(event, "term"));
            let terms = leaders.entry(group).or_default();
            let known = *terms.entry(term).or_insert(node);
            assert!(
                known == node,
                "I1: two leaders in group {group} term {term}"
            );
            if terms.len() > KEPT {
                terms.pop_first();
            }
        }
    });
}

/// State machine safety (§5.4.3): the same applied index has the same state everywhere.
fn same_state_at_same_index() {
    // Group -> index -> digest, log time, and the first to apply it.
    let mut states: BTreeMap<u64, BTreeMap<u64, (u64, u64, u64)>> = BTreeMap::new();
    trace::check(move |_, event| {
        if event.kind == "apply" {
            let (group, node, index) = (event.site.group, event.site.node, field(event, "index"));
            let (digest, time) = (field(event, "digest"), field(event, "time"));
            let indices = states.entry(group).or_default();
            let known = *indices.entry(index).or_insert((digest, time, node));
            assert!(
                (known.0, known.1) == (digest, time),
                "I4: group {group}: nodes {} and {node} differ at index {index} (digest, log time)",
                known.2
            );
            if indices.len() > KEPT {
                indices.pop_first();
            }
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
