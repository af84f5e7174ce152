//! Reads.

use super::{Mutant, edit};

const READS: &str = "raft/protocol/src/reads.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "Q01",
        star: true,
        what: "ReadIndex answered before an entry of the leader's own term is committed",
        seen: "etcd #7331; RedisRaft #22",
        edits: &[
            edit(
                "raft/protocol/src/lead.rs",
                "if commit >= lead.begun && !lead.queue.is_empty() {",
                "if !lead.queue.is_empty() {",
            ),
            edit(READS, "if commit < lead.begun {", "if lead.begun == 0 {"),
        ],
        tests: &[
            "raft-protocol/reads::before_an_entry_of_its_term",
            "sim-tests/raft_scenarios::wounds::a_read_right_after",
        ],
    },
    Mutant {
        id: "Q03",
        star: false,
        what: "leader answers reads without a quorum",
        seen: "etcd and Consul, Jepsen 2014",
        edits: &[edit(
            READS,
            "if !self.is_quorum_with(true, |p| p.round >= number) {",
            "if !self.is_quorum_with(true, |p| p.round <= number.max(p.round)) {",
        )],
        tests: &[
            "raft-protocol/reads::a_leader_answers_only",
            "sim-tests/raft_scenarios::wounds::no_read_from_a_deposed",
        ],
    },
    Mutant {
        id: "Q04",
        star: false,
        what: "read answered before applied reaches the read index",
        seen: "thesis §6.4",
        edits: &[edit(
            "raft/src/replica/apply.rs",
            "Apply::Reads { index, queries } if index <= self.store.applied_index() => {",
            "Apply::Reads { index, queries } if index < u64::MAX => {",
        )],
        tests: &["sim-tests/kv_one_group::unreliable_one_key"],
    },
];
