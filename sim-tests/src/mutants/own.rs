//! Shortcuts that this design's replica would not survive.

use super::{Mutant, edit};

const ELECTION: &str = "raft/protocol/src/election.rs";
const READS: &str = "raft/protocol/src/reads.rs";
const IDENTITY: &str = "raft/src/identity.rs";
const RECOVER: &str = "raft/src/log/recover.rs";
const GENERATION: &str = "raft/src/store/generation.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "X01",
        star: false,
        what: "a log read back after kill -9 is built upon without a sync",
        seen: "recovery: what it keeps is synced before the first step",
        edits: &[edit(
            RECOVER,
            "    file.sync_data()?;
    Ok(Active {",
            "    Ok(Active {",
        )],
        tests: &["raft/log_kept::what_recovery_keeps", "raft/log_walk::"],
    },
    Mutant {
        id: "X02",
        star: false,
        what: "after damage the node votes with a hole in its log",
        seen: "abstention",
        edits: &[edit(
            RECOVER,
            "        recovered.hard_state.abstain = Some(abstain(&known, recovered.hard_state.term, index));",
            "        let _ = abstain(&known, recovered.hard_state.term, index);",
        )],
        tests: &["raft/log_damage::", "sim-tests/raft_scenarios::damage"],
    },
    Mutant {
        id: "X03",
        star: true,
        what: "abstention ends with any entry of a later term's leader, not with one of its own term",
        seen: "abstention",
        edits: &[edit(
            ELECTION,
            "through > 0 && self.log.term(through) == Some(term)",
            "through > 0 && self.log.term(through).is_some()",
        )],
        tests: &["raft-protocol/durability::abstention_ends_with_a_later"],
    },
    Mutant {
        id: "X04",
        star: false,
        what: "a member whose directory was emptied is met again as if it were the old one",
        seen: "birth: a node is the pair of number and disk",
        edits: &[edit(
            IDENTITY,
            "self.met.get(&node).filter(|known| **known != disk) {",
            "self.met.get(&node).filter(|known| **known != disk && boot == 0) {",
        )],
        tests: &[
            "raft/lib::identity",
            "sim-tests/raft_scenarios::disks::emptied_directory",
        ],
    },
    Mutant {
        id: "X05",
        star: false,
        what: "an older image of a node's disk is taken for the disk",
        seen: "boots: peers keep the highest and refuse a lower one",
        edits: &[edit(
            IDENTITY,
            "Some((seen, _)) if boot < *seen => {",
            "Some((seen, _)) if boot < *seen && nonce == 0 => {",
        )],
        tests: &[
            "raft/lib::identity",
            "sim-tests/raft_scenarios::disks::older_copy",
        ],
    },
    Mutant {
        id: "X06",
        star: true,
        what: "the log is reset before CURRENT names the snapshot",
        seen: "installing: CURRENT first, then the log",
        edits: &[
            edit(
                "raft/src/replica/log_task.rs",
                "    let (reply, switched) = oneshot::channel();
    let _ = shared.apply.send",
                "    let (hard_state, entries) = (write.hard_state, write.entries);
    let base = meta.clone();
    let log = job(shared, log, move |log| {
        log.reset(hard_state, &base, &entries)
    })
    .await?;
    let (reply, switched) = oneshot::channel();
    let _ = shared.apply.send",
            ),
            edit(
                "raft/src/replica/log_task.rs",
                "    let (hard_state, entries) = (write.hard_state, write.entries);
    let log = job(shared, log, move |log| {
        log.reset(hard_state, &meta, &entries)
    })
    .await?;
    shared.tell",
                "    shared.tell",
            ),
        ],
        tests: &[
            "raft/lib::replica::log_task::tests::the_log_is_reset",
            "sim-tests/raft_scenarios::snapshots::crash_inside_an_install",
        ],
    },
    Mutant {
        id: "X07",
        star: false,
        what: "CURRENT names the first generation before it is complete",
        seen: "CURRENT names a generation only after all of it is durable",
        edits: &[edit(
            "raft/src/store/jobs.rs",
            "                    commit_layer(&generation, &frozen, &meta)?;
                    Current::write(&place.disk, place.number, stamp.index)?;",
            "                    Current::write(&place.disk, place.number, stamp.index)?;
                    commit_layer(&generation, &frozen, &meta)?;",
        )],
        tests: &["raft/store_walk::a_crash_inside_every"],
    },
    Mutant {
        id: "X08",
        star: true,
        what: "rows and their stamp are two commits: a crash between them applies entries twice",
        seen: "one durable commit stamped with the applied index",
        edits: &[edit(
            GENERATION,
            "    put_meta(place, &write, meta)?;
    write.commit().map_err(|e| place.redb(e))
}

fn begin",
            "    write.commit().map_err(|e| place.redb(e))?;
    let write = begin(generation, Durability::Immediate)?;
    put_meta(place, &write, meta)?;
    write.commit().map_err(|e| place.redb(e))
}

fn begin",
        )],
        tests: &["raft/store_walk::a_crash_inside_every"],
    },
    Mutant {
        id: "X09",
        star: false,
        what: "a write is named by what it holds: durability of an overwritten index is believed",
        seen: "an index is durable when the last write that touched it is",
        edits: &[edit(
            "raft/protocol/src/log.rs",
            "        while self.pending.back().is_some_and(|p| p.first >= from) {
            self.pending.pop_back();
        }
        if let Some(p) = self.pending.back_mut() {
            p.last = p.last.min(from - 1);
        }
",
            "",
        )],
        tests: &["raft-protocol/durability::an_index_is_durable"],
    },
    Mutant {
        id: "X10",
        star: false,
        what: "a follower answers a read at its own commit index, without asking its leader",
        seen: "ReadIndex from followers",
        edits: &[edit(
            READS,
            "                why!(self, \"read {id}: ask the leader {leader}\");",
            "                if leader > 0 {
                    return self.answer(id, Ok(self.commit));
                }",
        )],
        tests: &[
            "raft-protocol/reads::a_follower_asks",
            "raft-protocol/walk::",
        ],
    },
    Mutant {
        id: "X11",
        star: true,
        what: "an answer to a read of the node's earlier life is taken for this one's",
        seen: "ReadIndex from followers",
        edits: &[edit(
            READS,
            "if life == self.life && self.forwarded",
            "if life > 0 && self.forwarded",
        )],
        tests: &[
            "raft-protocol/reads::a_follower_asks",
            "raft-protocol/reads::lives",
        ],
    },
    Mutant {
        id: "X12",
        star: true,
        what: "a heartbeat round under way serves a read that arrived after it was sent",
        seen: "a round serves only the reads that arrived before it was sent",
        edits: &[edit(
            READS,
            "        lead.queue.push((node, life, id));",
            "        if let Some(round) = lead.rounds.back_mut() {
            return round.reads.push((node, life, id));
        }
        lead.queue.push((node, life, id));",
        )],
        tests: &["raft-protocol/reads::a_round_serves_only"],
    },
    Mutant {
        id: "X13",
        star: false,
        what: "a node with a live leader helps to depose it",
        seen: "thesis §6.2, §4.2.3",
        edits: &[edit(
            ELECTION,
            "            || self.leader.is_some() && self.elapsed < self.settings.election_ticks",
            "            || self.leader.is_none() && self.elapsed > self.settings.election_ticks * 9",
        )],
        tests: &["raft-protocol/reads::with_a_live_leader"],
    },
    Mutant {
        id: "X14",
        star: false,
        what: "a leader begins its term without a no-op",
        seen: "Raft §8",
        edits: &[edit(
            ELECTION,
            "        self.append([noop]);",
            "        let _ = noop;",
        )],
        tests: &["raft-protocol/paper::a_leader_begins"],
    },
    Mutant {
        id: "X15",
        star: false,
        what: "a block of the state is served without its checksum being looked at",
        seen: "corrupted bytes are never served",
        edits: &[edit(
            "raft/world/src/paged/mod.rs",
            "if block < UNVERIFIED || (expected",
            "if block < u64::MAX || (expected",
        )],
        tests: &["world/paged::", "sim-tests/raft_scenarios::damage"],
    },
    Mutant {
        id: "X16",
        star: false,
        what: "a small file is renamed into its place before it is synced",
        seen: "ALICE, OSDI'14",
        edits: &[edit(
            "raft/world/src/disk/mod.rs",
            "        file.sync_data()?;
        self.rename(&temporary, name)?;",
            "        self.rename(&temporary, name)?;",
        )],
        tests: &["raft/identity::what_is_saved", "raft/store_walk::a_crash"],
    },
    Mutant {
        id: "X17",
        star: false,
        what: "old segments are removed though no synced record says where the log begins now",
        seen: "the base is durable before the first segment goes",
        edits: &[edit(
            "raft/src/log/mod.rs",
            "            log.write(log.hard_state, Some(base), &[])?;
            log.sealed = true; // an empty batch proves what came before it",
            "",
        )],
        tests: &["raft/log_walk::"],
    },
    Mutant {
        id: "X18",
        star: false,
        what: "the state's flush does not wait for the log: apply passes the node's own synced log",
        seen: "apply never passes the node's own synced log",
        edits: &[edit(
            "raft/protocol/src/core.rs",
            "let apply = self.commit.min(self.log.synced());",
            "let apply = self.commit.min(self.log.last_index());",
        )],
        tests: &["raft-protocol/durability::what_others_committed"],
    },
    Mutant {
        id: "X19",
        star: false,
        what: "a message that waited for a sync leaves although its term is over",
        seen: "what was said in a term that is over is not said any more",
        edits: &[edit(
            "raft/protocol/src/writes.rs",
            "message.term() == self.hard.term && standing",
            "message.term() <= self.hard.term || standing",
        )],
        tests: &["raft-protocol/durability::waiting_messages"],
    },
    Mutant {
        id: "X20",
        star: false,
        what: "a node whose state is lost acknowledges appends",
        seen: "a lost state answers \"need snapshot\" and does not campaign",
        edits: &[edit(
            "raft/src/replica/start.rs",
            "let state_lost = recovered.base.index > stamp.index;",
            "let state_lost = recovered.base.index > stamp.index && stamp.term > 0;",
        )],
        tests: &["sim-tests/raft_scenarios::damage::a_lost_state"],
    },
];
