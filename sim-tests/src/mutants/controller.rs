//! The shard controller.

use super::{Mutant, edit};

const REBALANCE: &str = "ctrler/src/rebalance.rs";
/// Where the order of the groups is fixed.
pub(super) const ORDER: &str = "    let members: Vec<GroupId> = members.iter().copied().collect();
    let place = |owner: Option<GroupId>| members.binary_search(&owner?).ok();";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "B01",
        star: true,
        what: "rebalance iterates a hash map",
        seen: "6.824 lab 4A",
        edits: &[edit(
            REBALANCE,
            ORDER,
            "    let hashed: std::collections::HashSet<GroupId> = members.iter().copied().collect();
    let members: Vec<GroupId> = hashed.into_iter().collect();
    let place = |owner: Option<GroupId>| members.iter().position(|m| Some(*m) == owner);",
        )],
        tests: &[
            "ctrler/rebalance::the_same_in_whatever_order",
            "ctrler/rebalance::",
            "ctrler/log::two_replicas_agree",
            "sim-tests/ctrler_scenarios::same_config_everywhere",
        ],
    },
    Mutant {
        id: "B02",
        star: false,
        what: "rebalance from scratch",
        seen: "6.824 lab 4A",
        edits: &[edit(
            REBALANCE,
            ORDER,
            "    let members: Vec<GroupId> = members.iter().copied().collect();
    if !members.is_empty() {
        let scratch = shards.iter().enumerate().map(|(s, owner)| match owner {
            Some(owner) if pins.contains(&(s as ShardId)) && members.contains(owner) => {
                Some(*owner)
            }
            _ => Some(members[s % members.len()]),
        });
        return scratch.collect();
    }
    let place = |owner: Option<GroupId>| members.binary_search(&owner?).ok();",
        )],
        tests: &["ctrler/rebalance::balanced_and_minimal"],
    },
    Mutant {
        id: "B04",
        star: false,
        what: "the controller applies a repeated Join twice",
        seen: "6.824 lab 4A",
        edits: &[edit(
            "ctrler/src/machine.rs",
            "                Verdict::Repeat(stored) => Ok(stored),",
            "                Verdict::Repeat(_) => Ok(reply(&self.change(rows, &change)?)),",
        )],
        tests: &["ctrler/log::a_repeated_change"],
    },
    Mutant {
        id: "B05",
        star: false,
        what: "a deposed controller leader answers Query",
        seen: "",
        edits: &[edit(
            "ctrler/src/server.rs",
            "            Request::Query(None) | Request::Record(_)",
            "            Request::Query(None) if self.replica.is_leader() => {
                match self.replica.inspect(body.clone()).await {
                    Ok(reply) => reply,
                    Err(_) => self.read(body, deadline).await,
                }
            }
            Request::Query(None) | Request::Record(_)",
        )],
        tests: &["sim-tests/ctrler_scenarios::a_leader_that_stood_still"],
    },
];
