//! The twelve wounds of earlier implementations. Each has a test of its own, named first.

use super::{Mutant, controller, edit};

const MOVES: &str = "kv/src/machine/moves.rs";
const CONSENSUS: &str = "raft/src/replica/consensus.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "W01",
        star: false,
        what: "a candidate asks for votes before its own vote and term are on disk",
        seen: "wound 1",
        edits: &[edit(
            "raft/protocol/src/election.rs",
            "self.send_durable(to, message);",
            "self.send(to, message);",
        )],
        tests: &[
            "sim-tests/raft_scenarios::wounds::a_vote_is_synced_before_it_is_given",
            "raft-protocol/paper::to_begin_an_election",
        ],
    },
    Mutant {
        id: "W02",
        star: false,
        what: "the world asked inside apply, by every replica and at every replay: each draws a birth id of its own",
        seen: "wound 2",
        edits: &[edit(
            "kv/src/machine/mod.rs",
            "            birth: Some(id),",
            "            birth: Some(id ^ world::entropy::random_u128()),",
        )],
        tests: &["sim-tests/kv_one_group::basic", "kv/machine::"],
    },
    Mutant {
        id: "W03",
        star: false,
        what: "a deletion notice without a config number deletes a shard that has come back",
        seen: "wound 3",
        edits: &[
            edit(
                MOVES,
                "        let Some(here) = self.fenced(shard, num, ShardState::Leaving) else {
            world::mark!(\"move: a late release\");
            return refused(\"not leaving in this configuration\");
        };
        if !here.row.frozen {
            return refused(\"not even frozen\");
        }",
                "        let _ = num;
        let Some(here) = self.shards.get_mut(&shard) else {
            return refused(\"not here\");
        };",
            ),
            edit(
                "kv/src/machine/read.rs",
                "shards.retain(|shard| self.leaving_to(*shard, num, to).is_some());",
                "let _ = (num, to);
                shards.retain(|shard| self.shards.contains_key(shard));",
            ),
        ],
        tests: &[
            "kv/shards::wounds::wound_3",
            "sim-tests/kv_challenges::back_and_forth_wound_3",
        ],
    },
    Mutant {
        id: "W04",
        star: false,
        what: "a pending-deletion list missing from the snapshot",
        seen: "wound 4",
        edits: &[
            edit(
                MOVES,
                "        rows.put(&keys::dead(shard, incarnation), &dead.to_row())?;
        self.dead.insert",
                "        self.dead.insert",
            ),
            edit(
                MOVES,
                "                rows.put(&keys::dead(shard, incarnation), &dead.to_row())?;
            }
            None",
                "            }
            None",
            ),
        ],
        tests: &[
            "kv/shards::wounds::wound_4",
            "sim-tests/kv_challenges::back_and_forth_wound_3_wound_4",
        ],
    },
    Mutant {
        id: "W05",
        star: false,
        what: "rebalance from scratch over a hash map: needless moves, replicas disagree",
        seen: "wound 5",
        edits: &[edit(
            "ctrler/src/rebalance.rs",
            controller::ORDER,
            "    let hashed: std::collections::HashSet<GroupId> = members.iter().copied().collect();
    let members: Vec<GroupId> = hashed.into_iter().collect();
    if !members.is_empty() {
        let deal = |s: usize| Some(members[s % members.len()]);
        return (0..shards.len()).map(deal).collect();
    }
    let place = |owner: Option<GroupId>| members.iter().position(|m| Some(*m) == owner);",
        )],
        tests: &[
            "ctrler/rebalance::balanced_and_minimal",
            "sim-tests/ctrler_scenarios::multi_and_minimal_moves",
            "sim-tests/ctrler_scenarios::same_config_everywhere",
        ],
    },
    Mutant {
        id: "W06",
        star: false,
        what: "conflict hint index relative to the slice after compaction instead of to the log",
        seen: "wound 6",
        edits: &[edit(
            "raft/protocol/src/log.rs",
            "                return (all[n].index, all[n].term);",
            "                return (n as u64 + 1, all[n].term);",
        )],
        tests: &[
            "sim-tests/raft_scenarios::wounds::conflict_behind_a_compacted_log",
            "raft-protocol/walk::",
        ],
    },
    Mutant {
        id: "W07",
        star: false,
        what: "InstallSnapshot keeps a log suffix without checking the term at the snapshot's index",
        seen: "wound 7",
        edits: &[edit(
            "raft/protocol/src/log.rs",
            "let keep = meta.index >= self.evicted && self.term(meta.index) == Some(meta.term);",
            "let keep = self.term(meta.index).is_some();",
        )],
        tests: &[
            "sim-tests/raft_scenarios::wounds::a_snapshot_does_not_keep_a_tail",
            "raft-protocol/snapshots::a_snapshot_keeps_a_suffix",
        ],
    },
    Mutant {
        id: "W08",
        star: false,
        what: "a timeout in the controller's client reported as success",
        seen: "wound 8",
        edits: &[edit(
            "ctrler/src/stream.rs",
            "                    self.open = None;
                    return Err(ClientError::Unknown(reason));",
            "                    self.open = None;
                    tracing::debug!(reason, \"assumed done\");
                    return Ok(0);",
        )],
        tests: &[
            "ctrler/client::a_timeout_is_never_a_success",
            "sim-tests/ctrler_scenarios::wound_8",
        ],
    },
    Mutant {
        id: "W09",
        star: false,
        what: "a request that waits for ever when its log entry is overwritten",
        seen: "wound 9",
        edits: &[
            edit(
                CONSENSUS,
                "            self.fail_waiters(\"leadership moved\");",
                "",
            ),
            edit(
                CONSENSUS,
                "                        let lost = Err(ProposeError::Unknown(\"another entry was committed there\"));
                        let _ = waiter.reply.send(lost);",
                "                        std::mem::forget(waiter);",
            ),
        ],
        tests: &[
            "sim-tests/raft_scenarios::wounds::an_overwritten_request",
            "sim-tests/raft_scenarios::wounds::a_request_of_a_leader_that_slept",
            "sim-tests/kv_one_group::wound_9",
        ],
    },
    Mutant {
        id: "W10",
        star: false,
        what: "all shards of a config must arrive before any is served",
        seen: "wound 10",
        edits: &[edit(
            "kv/src/machine/mod.rs",
            "            Some(here) if here.row.accepts() => return None,",
            "            Some(here)
                if here.row.accepts()
                    && (here.row.incarnation != self.meta.config
                        || self.shards.values().all(|s| s.row.state != ShardState::Arriving)) =>
            {
                return None;
            }",
        )],
        tests: &[
            "kv/shards::wounds::wound_10",
            "sim-tests/kv_challenges::challenge_2_partial_wound_10",
        ],
    },
    Mutant {
        id: "W11",
        star: false,
        what: "a duplicate table that never shrinks, and is copied whole with every shard",
        seen: "wound 11",
        edits: &[edit(
            "raft/src/session/table.rs",
            "for seq in session.acked + 1..=acked {",
            "for seq in acked + 1..=acked {",
        )],
        tests: &[
            "kv/shards::wounds::wound_11",
            "raft/session::pruning_deletes_rows",
        ],
    },
    Mutant {
        id: "W12",
        star: false,
        what: "an unknown group in Move and a Join with no servers are taken",
        seen: "wound 12",
        edits: &[
            edit(
                "ctrler/src/change.rs",
                "    if !latest.members.contains_key(&group) {
        return Err(not_a_member(group, latest));
    }
    if latest",
                "    if latest",
            ),
            edit(
                "ctrler/src/change.rs",
                "if servers.is_empty() || servers.len() > MAX_SERVERS {",
                "if servers.len() > MAX_SERVERS {",
            ),
        ],
        tests: &[
            "ctrler/changes::bad_",
            "sim-tests/ctrler_scenarios::wound_12",
        ],
    },
];
