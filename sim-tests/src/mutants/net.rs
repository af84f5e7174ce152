//! What hostile clients do to memory and to others.

use super::{Mutant, edit};

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "N01",
        star: false,
        what: "what a reply takes besides its bytes is not counted",
        seen: "a review: one connection that reads little, 1 850 MiB in 45 s",
        edits: &[edit(
            "raft/world/src/net/serving.rs",
            "            + self.replies.len() * REPLY_BYTES
",
            "",
        )],
        tests: &["world/net_budget::tiny_requests"],
    },
    Mutant {
        id: "N02",
        star: false,
        what: "a buffer keeps the block of its longest frame",
        seen: "a review: 40 clients that each sent one long request held 379 MiB",
        edits: &[edit(
            "raft/world/src/net/wire.rs",
            "                if self.block > 2 * READ {",
            "                if self.block > usize::MAX / 2 {",
        )],
        tests: &["world/lib::net::wire::tests::a_long_frame_leaves"],
    },
    Mutant {
        id: "N03",
        star: false,
        what: "a half frame may stay, as long as a byte comes now and then",
        seen: "a review: 120 connections held 1.2 GiB",
        edits: &[edit(
            "raft/world/src/net/serving.rs",
            "            && at.saturating_duration_since(since) > limit",
            "            && at.saturating_duration_since(since) > self.limits.frame_timeout * 1000",
        )],
        tests: &["world/net_budget::a_frame_that_does"],
    },
    Mutant {
        id: "N04",
        star: false,
        what: "a half frame has its whole time while others wait for its memory",
        seen: "rule 6: shared fairly",
        edits: &[edit(
            "raft/world/src/net/serving.rs",
            "        let hurry = if wanted { 10 } else { 1 };",
            "        let hurry = 1;",
        )],
        tests: &["world/net_budget::half_frames"],
    },
    Mutant {
        id: "N05",
        star: false,
        what: "a peer that takes a byte of its replies now and then is kept",
        seen: "a review: a little read every four seconds counted as alive",
        edits: &[edit(
            "raft/world/src/net/drain.rs",
            "        if self.taken >= LEAST_TAKEN {",
            "        if self.taken > 0 {",
        )],
        tests: &["world/lib::net::drain::tests::who_takes_next"],
    },
    Mutant {
        id: "N06",
        star: false,
        what: "a connection that waits for room keeps what it has let go of",
        seen: "two that wait for each other",
        edits: &[edit(
            "raft/world/src/net/budget.rs",
            "        let spare = self.granted().saturating_sub(held.max(self.own)) / BLOCK * BLOCK;",
            "        if self.wait.is_some() {
            return;
        }
        let spare = self.granted().saturating_sub(held.max(self.own)) / BLOCK * BLOCK;",
        )],
        tests: &["world/lib::net::budget::tests::who_waits"],
    },
    Mutant {
        id: "N07",
        star: false,
        what: "who has much to ask has the server to itself",
        seen: "a bench: 40 connections of tiny requests, another client waited 1.3 s",
        edits: &[edit(
            "raft/world/src/net/serving.rs",
            "        self.turn = self.turn.saturating_sub(1 + body.len() / (16 << 10));",
            "",
        )],
        tests: &["world/net_budget::one_connection_does"],
    },
    Mutant {
        id: "N08",
        star: false,
        what: "long frames are read as far as they come, without room for the rest",
        seen: "two half frames that wait for each other",
        edits: &[edit(
            "raft/world/src/net/wire.rs",
            "            true => len + missing,",
            "            true => len + chunk,",
        )],
        tests: &["world/lib::net::wire::tests::a_long_frame_is_wanted"],
    },
    Mutant {
        id: "N09",
        star: false,
        what: "unread long values keep short reads from everybody",
        seen: "a bench: another client's read waited 10 s",
        edits: &[edit(
            "raft/src/replica/apply.rs",
            "                let short = answer <= left / 4;",
            "                let short = answer > usize::MAX / 2;",
        )],
        tests: &["raft/lib::replica::apply::tests::replies_that"],
    },
    Mutant {
        id: "N10",
        star: false,
        what: "the server's own commands wait for room behind clients'",
        seen: "a review: a frozen shard waited for Install and Freeze behind eight writers",
        edits: &[edit(
            "raft/src/replica/handle.rs",
            "        let admission = &self.shared.own_admission;",
            "        let admission = &self.shared.admission;",
        )],
        tests: &["raft/lib::replica::handle::tests::own_commands"],
    },
    Mutant {
        id: "N11",
        star: false,
        what: "commands wait for room without a turn",
        seen: "a pipelined write that overtakes is refused",
        edits: &[edit(
            "raft/src/replica/admission.rs",
            "        match self.turn.pass(in_turn).await? {",
            "        match in_turn.await? {",
        )],
        tests: &["raft/lib::replica::handle::tests::requests_enter"],
    },
    Mutant {
        id: "N12",
        star: false,
        what: "short commands are let in while a long one waits for room",
        seen: "a review: eight writers of 1 MiB, and 8 MB got in once in 14 tries",
        edits: &[edit(
            "raft/src/replica/admission.rs",
            "            let room = self.room.clone().acquire_many_owned(cost).await.ok()?;",
            "            let room = loop {
                match self.room.clone().try_acquire_many_owned(cost) {
                    Ok(room) => break room,
                    Err(_) => return None,
                }
            };",
        )],
        tests: &["raft/lib::replica::handle::tests::a_long_command"],
    },
    Mutant {
        id: "X98",
        star: false,
        what: "commands get into the log whatever room the state has for them",
        seen: "a trial: reads waited 1.3 s for long writes that were committed and waited for a flush",
        edits: &[edit(
            "raft/src/replica/proposals.rs",
            "AHEAD_BYTES.min(room.div_ceil(AHEAD_PART))",
            "AHEAD_BYTES.max(room.min(1))",
        )],
        tests: &["raft/lib::replica::consensus::proposals::tests::reads_do_not_wait"],
    },
];
