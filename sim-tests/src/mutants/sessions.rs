//! Sessions: exactly once.

use super::{Mutant, edit};

const MACHINE: &str = "kv/src/machine/mod.rs";
const REPEAT: &str = "            Verdict::Repeat(stored) => return Ok(stored),";
const AGAIN: &str = "            Verdict::Repeat(_) => {
                let incarnation = here.row.incarnation;
                let change = here.row.change(at.index);
                let target = write::Target { shard, incarnation, change };
                let outcomes = write::execute(rows, target, &mut here.counters, ops)?;
                rows.put(&keys::counters(shard), &here.counters.to_row())?;
                return Ok(reply(&Response::Written(outcomes)));
            }";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "C01",
        star: false,
        what: "duplicates checked when proposing, not when applying",
        seen: "thesis §6.3",
        edits: &[
            edit(MACHINE, REPEAT, AGAIN),
            edit(
                "kv/src/machine/query.rs",
                "    /// For the status page; answered with a [`Page`].",
                "    /// The stored reply of a write.
    Seen {
        /// The shard.
        shard: ShardId,
        /// The session.
        session: u64,
        /// The number.
        seq: u64,
    },
    /// For the status page; answered with a [`Page`].",
            ),
            edit(
                "kv/src/machine/read.rs",
                "            Query::Agenda => encode(&self.agenda()),",
                "            Query::Seen { shard, session, seq } => {
                let mut key = match self.shards.get(&shard) {
                    Some(here) => super::keys::sessions(shard, here.row.incarnation),
                    None => return Ok(Bytes::new()),
                };
                key.push(b'R');
                key.extend_from_slice(&session.to_be_bytes());
                key.extend_from_slice(&seq.to_be_bytes());
                let row = rows.get(&key)?.unwrap_or_default();
                let stored = postcard::from_bytes::<(u8, Bytes)>(&row);
                stored.map_or(Bytes::new(), |(_, stored)| stored)
            }
            Query::Agenda => encode(&self.agenda()),",
            ),
            edit(
                "kv/src/server/door.rs",
                "            Request::Write { shard, seq, ops } => match write::check_limits(&ops) {
                Ok(()) => {",
                "            Request::Write { shard, seq, ops } => match write::check_limits(&ops) {
                Ok(()) => {
                    let (session, number) = (seq.session, seq.seq);
                    let seen = Query::Seen { shard, session, seq: number };
                    match self.replica.inspect(seen.to_bytes()).await {
                        Ok(stored) if !stored.is_empty() && self.replica.is_leader() => return stored,
                        _ => {}
                    }",
            ),
        ],
        tests: &[
            "kv/machine::operations::a_repeated_write",
            "kv/shards::",
            "sim-tests/kv_one_group::",
        ],
    },
    Mutant {
        id: "C02",
        star: false,
        what: "sessions expire by each node's own clock",
        seen: "thesis §6.3",
        edits: &[edit(
            "raft/src/replica/apply.rs",
            "                            time_ms: self.time_ms,
                        };",
            "                            time_ms: {
                                static BEGAN: std::sync::OnceLock<Instant> =
                                    std::sync::OnceLock::new();
                                let began = *BEGAN.get_or_init(now);
                                now().saturating_duration_since(began).as_millis() as u64
                            },
                        };",
        )],
        tests: &["sim-tests/kv_one_group::basic"],
    },
    Mutant {
        id: "C04",
        star: false,
        what: "a duplicate is evaluated again instead of getting the stored reply",
        seen: "thesis §6.3",
        edits: &[edit(MACHINE, REPEAT, AGAIN)],
        tests: &["kv/machine::operations::a_repeated_write"],
    },
    Mutant {
        id: "C06",
        star: false,
        what: "WrongGroup recorded as the request's outcome",
        seen: "6.824 lab 4",
        edits: &[edit(
            MACHINE,
            "        if let Some(refusal) = self.refusal(shard) {
            return Ok(reply(&refusal));
        }",
            "        if let Some(refusal) = self.refusal(shard) {
            let answer = reply(&refusal);
            if let Some(here) = self.shards.get_mut(&shard)
                && here.table.judge(rows, at, seq)? == Verdict::Execute
            {
                here.table.store(rows, at, seq, &answer)?;
            }
            return Ok(answer);
        }",
        )],
        tests: &["kv/shards::rules::a_frozen_shard", "kv/shards::walk"],
    },
];
