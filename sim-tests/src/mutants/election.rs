//! Elections.

use super::{Mutant, edit};

const ELECTION: &str = "raft/protocol/src/election.rs";
const CORE: &str = "raft/protocol/src/core.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "E01",
        star: true,
        what: "vote reply leaves before term and vote are synced",
        seen: "NodeDB #161; Raft §5",
        edits: &[edit(
            ELECTION,
            "self.send_durable(from, Message::VoteReply { term, granted });",
            "self.send(from, Message::VoteReply { term, granted });",
        )],
        tests: &[
            "raft-protocol/durability::a_vote_waits",
            "sim-tests/raft_scenarios::wounds::a_vote_is_synced_before_it_is_given",
        ],
    },
    Mutant {
        id: "E02",
        star: false,
        what: "vote and term persisted by two separate syncs",
        seen: "hashicorp/raft #661",
        edits: &[edit(
            "raft/src/log/mod.rs",
            "            log.write(batch.hard_state, None, &runs)?;",
            "            let (old, new) = (log.hard_state, batch.hard_state);
            if new.term > old.term && new.vote.is_some() {
                let half = HardState { term: old.term, ..new };
                log.write(half, None, &[])?;
            }
            log.write(batch.hard_state, None, &runs)?;",
        )],
        tests: &[
            "raft/log_walk::",
            "sim-tests/raft_scenarios::disks::power_fails_inside",
        ],
    },
    Mutant {
        id: "E03",
        star: false,
        what: "vote forgotten on step-down within the same term",
        seen: "redpanda #19",
        edits: &[edit(
            ELECTION,
            "        self.role = Role::Follower;
        self.leader = leader;
        self.votes.clear();",
            "        if self.role != Role::Follower && self.hard.vote.take().is_some() {
            self.hard_state_changed();
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.votes.clear();",
        )],
        tests: &["raft-protocol/paper::a_candidate_that_hears"],
    },
    Mutant {
        id: "E04",
        star: false,
        what: "vote granted without the up-to-date check",
        seen: "Raft §5.4.1",
        edits: &[edit(
            ELECTION,
            "(last_term, last_index) >= (self.log.last_term(), self.log.last_index())",
            "(last_term, last_index) >= (0, 0)",
        )],
        tests: &["raft-protocol/paper::a_vote_is_denied"],
    },
    Mutant {
        id: "E05",
        star: false,
        what: "up-to-date check compares the index only",
        seen: "openraft change log",
        edits: &[edit(
            ELECTION,
            "(last_term, last_index) >= (self.log.last_term(), self.log.last_index())",
            "(last_term, last_index) >= (0, 0) && last_index >= self.log.last_index()",
        )],
        tests: &["raft-protocol/paper::a_vote_is_denied"],
    },
    Mutant {
        id: "E06",
        star: false,
        what: "vote response of an older term counted",
        seen: "xraft #33",
        edits: &[edit(
            CORE,
            "            _ if !current => why!(",
            "            Message::VoteReply { granted, .. } if !current => {
                self.on_vote_reply(from, granted);
            }
            _ if !current => why!(",
        )],
        tests: &["raft-protocol/paper::a_repeated_vote_counts_once"],
    },
    Mutant {
        id: "E08",
        star: false,
        what: "a repeated request of the same candidate refused",
        seen: "nebula #2419",
        edits: &[edit(
            ELECTION,
            "Some(other) if other != from => Some(\"the vote is given\"),",
            "Some(_) => Some(\"the vote is given\"),",
        )],
        tests: &[
            "raft-protocol/paper::a_server_votes_for_one",
            "raft-protocol/paper::a_vote_is_remembered",
        ],
    },
    Mutant {
        id: "E09",
        star: true,
        what: "pre-votes of a lower term ignored, so that nobody can ever win",
        seen: "etcd #8501",
        edits: &[edit(
            ELECTION,
            "        let own = self.hard.term;
        let refusal = if term <= own {",
            "        let own = self.hard.term;
        if term <= own {
            return;
        }
        let refusal = if term <= own {",
        )],
        tests: &["raft-protocol/reads::a_pre_vote_of_a_lower_term"],
    },
    Mutant {
        id: "E12",
        star: false,
        what: "no check-quorum: a half-deaf leader reigns for ever",
        seen: "TigerBeetle blog 2023",
        edits: &[edit(
            "raft/protocol/src/lead.rs",
            "if !self.is_quorum_with(true, |p| p.active) {",
            "if !self.is_quorum_with(true, |p| p.active || p.told < u64::MAX) {",
        )],
        tests: &[
            "raft-protocol/reads::a_leader_without_a_quorum",
            "sim-tests/raft_scenarios::deaf::",
        ],
    },
    Mutant {
        id: "E13",
        star: false,
        what: "a request for votes that is repeated leaves before term and own vote are synced",
        seen: "a promise waits for its sync, the second time too",
        edits: &[edit(
            ELECTION,
            "Role::Candidate if self.votes.contains(&self.id) => self.vote_request(),",
            "Role::Candidate => self.vote_request(),",
        )],
        tests: &["raft-protocol/paper::requests_for_votes_are_repeated"],
    },
    Mutant {
        id: "E14",
        star: false,
        what: "a pre-vote or vote request that got lost is not repeated before the next timeout",
        seen: "48 of 50 kills of a leader: both survivors' first requests were lost",
        edits: &[edit(
            ELECTION,
            "            if self.elapsed.is_multiple_of(beat) {",
            "            if self.elapsed.is_multiple_of(beat) && self.elapsed > self.timeout {",
        )],
        tests: &["raft-protocol/paper::requests_for_votes_are_repeated"],
    },
    Mutant {
        id: "E15",
        star: false,
        what: "a pre-candidate keeps the leader that it has given up",
        seen: "a held-out audit: only golden text noticed",
        edits: &[edit(
            "raft/protocol/src/election.rs",
            "        self.role = Role::PreCandidate;
        self.leader = None;",
            "        self.role = Role::PreCandidate;",
        )],
        tests: &["raft-protocol/reads::a_pre_candidate_follows_nobody"],
    },
];
