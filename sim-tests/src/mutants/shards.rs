//! Shards on the move.

use super::{Mutant, edit};

const MACHINE: &str = "kv/src/machine/mod.rs";
const MOVES: &str = "kv/src/machine/moves.rs";
const READ: &str = "kv/src/machine/read.rs";
const STATE: &str = "kv/src/machine/state.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "H01",
        star: true,
        what: "sessions do not travel with the shard",
        seen: "6.824 lab 4",
        edits: &[edit(
            "kv/src/machine/chunk.rs",
            "        let key = row.slice(keys::COPY_LEN..);\n",
            "        let key = row.slice(keys::COPY_LEN..);
        if key.first() == Some(&SESSIONS) {
            continue;
        }\n",
        )],
        tests: &["kv/shards::"],
    },
    Mutant {
        id: "H02",
        star: false,
        what: "ownership judged when the leader takes the request, not at a log position",
        seen: "dgraph #4496",
        edits: &[
            edit(
                MACHINE,
                "        if let Some(refusal) = self.refusal(shard) {
            return Ok(reply(&refusal));
        }",
                "        if let Some(refusal) = self.refusal(shard)
            && !self.shards.contains_key(&shard)
        {
            return Ok(reply(&refusal));
        }",
            ),
            edit(
                "kv/src/server/door.rs",
                "            Request::Write { shard, seq, ops } => match write::check_limits(&ops) {
                Ok(()) => {",
                "            Request::Write { shard, seq, ops } => match write::check_limits(&ops) {
                Ok(()) => {
                    use crate::api::ShardState::{Leaving, Serving};
                    let page = self.page().await.unwrap_or_default();
                    let refused = page.shards.iter().find(|s| {
                        let served = s.state == Serving || s.state == Leaving && !s.frozen;
                        s.shard == shard && !served
                    });
                    if let Some(status) = refused {
                        let (config, owner) = (page.config, status.peer);
                        return encode(&Response::WrongGroup { config, owner });
                    }",
            ),
        ],
        tests: &["kv/shards::rules::a_frozen_shard"],
    },
    Mutant {
        id: "H03",
        star: false,
        what: "the new owner serves before the install",
        seen: "dgraph #4575",
        edits: &[edit(
            STATE,
            "            ShardState::Absent | ShardState::Arriving | ShardState::Held => false,",
            "            ShardState::Arriving => true,
            ShardState::Absent | ShardState::Held => false,",
        )],
        tests: &["kv/shards::"],
    },
    Mutant {
        id: "H04",
        star: true,
        what: "the old owner deletes after sending, before the new owner's commit",
        seen: "garnet #1912",
        edits: &[edit(
            "kv/src/mover/answer.rs",
            "        let answer = self.serve(&ask).await.unwrap_or_else(|answer| answer);",
            "        let answer = self.serve(&ask).await.unwrap_or_else(|answer| answer);
        if let (Answer::Rows(chunk), What::Pull { shard, .. }) = (&answer, &ask.what)
            && chunk.next.is_none()
        {
            let (shard, num) = (*shard, ask.num);
            let _ = self.propose(Command::Release { shard, num }).await;
        }",
        )],
        tests: &[
            "sim-tests/kv_moves::rows_that_are_lost",
            "sim-tests/kv_many_groups::unreliable_1",
        ],
    },
    Mutant {
        id: "H07",
        star: false,
        what: "a deletion without the config number",
        seen: "TiKV #11457",
        edits: &[
            edit(
                MOVES,
                "        let Some(here) = self.fenced(shard, num, ShardState::Leaving) else {
            world::mark!(\"move: a late release\");",
                "        let _ = num;
        let Some(here) = self.fenced(shard, self.meta.config, ShardState::Leaving) else {",
            ),
            edit(
                READ,
                "shards.retain(|shard| self.leaving_to(*shard, num, to).is_some());",
                "let _ = num;
                shards.retain(|s| self.leaving_to(*s, self.meta.config, to).is_some());",
            ),
        ],
        tests: &[
            "kv/shards::late::",
            "sim-tests/kv_moves::a_notice_of_an_earlier",
        ],
    },
    Mutant {
        id: "H08",
        star: false,
        what: "a group skips a config",
        seen: "6.824 lab 4",
        edits: &[
            edit(
                MOVES,
                "if enter.num != self.meta.config + 1 {",
                "if enter.num <= self.meta.config {",
            ),
            edit(
                "kv/src/mover/work.rs",
                "self.mover.ctrlers.next(group, after, CONTROL).await",
                "self.mover.ctrlers.query(None, CONTROL).await",
            ),
            edit(
                "kv/src/mover/plan.rs",
                "        Some(1) => Some(Command::Enter(Enter::new(next))),
        Some(_) => Some(Command::Skip(Skip::new(after, next))),",
                "        Some(_) => Some(Command::Enter(Enter::new(next))),",
            ),
        ],
        tests: &["kv/shards::rules::configurations_are_entered"],
    },
    Mutant {
        id: "H11",
        star: false,
        what: "deletions not carried with a moving shard: what an earlier copy held shows again",
        seen: "scylla #20788",
        edits: &[
            edit(
                "kv/src/machine/keys.rs",
                "    key[5..].copy_from_slice(&incarnation.to_be_bytes());",
                "    let incarnation = if tag == COPY { 0 } else { incarnation };
    key[5..].copy_from_slice(&incarnation.to_be_bytes());",
            ),
            edit(
                MOVES,
                "        for (row, value) in &found {
            rows.delete(row)?;",
                "        let live = self.shards.contains_key(&shard);
        for (row, value) in &found {
            if !live {
                rows.delete(row)?;
            }",
            ),
        ],
        tests: &["kv/shards::"],
    },
    Mutant {
        id: "H13",
        star: false,
        what: "every shard blocked during a move",
        seen: "6.824 challenge 2",
        edits: &[edit(
            MACHINE,
            "            Some(here) if here.row.accepts() => return None,",
            "            Some(here) if here.row.accepts() && self.settled() => return None,",
        )],
        tests: &["kv/shards::wounds::wound_10"],
    },
    Mutant {
        id: "H17",
        star: false,
        what: "ownership checked for writes only",
        seen: "dgraph #4496",
        edits: &[edit(
            READ,
            "        if let Some(refusal) = self.refusal(shard) {
            return Ok(refusal);
        }
        let of",
            "        if let Some(refusal) = self.refusal(shard)
            && !self.shards.contains_key(&shard)
        {
            return Ok(refusal);
        }
        let of",
        )],
        tests: &["kv/shards::rules::a_frozen_shard"],
    },
];
