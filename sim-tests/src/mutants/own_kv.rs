//! Shortcuts that this design's sessions, shards and clients would not survive.

use super::{Mutant, edit};

const MOVES: &str = "kv/src/machine/moves.rs";
const READ: &str = "kv/src/machine/read.rs";
const STREAM: &str = "kv/src/client/stream.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        id: "X30",
        star: true,
        what: "a chunk of a moving shard is taken wherever its rows end",
        seen: "chunks are accepted only at the shard's stored cursor",
        edits: &[edit(
            MOVES,
            "        if here.row.cursor != *from {",
            "        if here.row.cursor != *from && num == 0 {",
        )],
        tests: &["kv/shards::wounds::rows_are_taken_only"],
    },
    Mutant {
        id: "X31",
        star: false,
        what: "a group that holds shards of nobody says that it holds none",
        seen: "Held always stops a Leave from completing",
        edits: &[edit(
            READ,
            "            holds: !self.shards.is_empty(),",
            "            holds: self.shards.values().any(|s| s.row.state != ShardState::Held),",
        )],
        tests: &["kv/shards::rules::nobodys_shards"],
    },
    Mutant {
        id: "X32",
        star: false,
        what: "the holder of a shard of nobody is forgotten: its next owner begins empty",
        seen: "each config carries the holder until the shard has an owner again",
        edits: &[edit(
            MOVES,
            "            .map(|(s, owner)| owner.or(old.get(s).copied().flatten()))",
            "            .map(|(s, owner)| owner.or(old.get(s).copied().flatten().filter(|_| false)))",
        )],
        tests: &["kv/shards::rules::nobodys_shards"],
    },
    Mutant {
        id: "X33",
        star: false,
        what: "after its session expired the client sends again what it had sent",
        seen: "after SessionExpired what was sent is unknown and never sent again",
        edits: &[edit(
            STREAM,
            "            if slot.maybe || slot.flying > 0 {",
            "            if (slot.maybe || slot.flying > 0) && slot.ticket.is_none() {",
        )],
        tests: &["kv/client_stream::expiry_reports"],
    },
    Mutant {
        id: "X34",
        star: false,
        what: "a number whose caller gave up is never used: the session's stream has a hole",
        seen: "seq > last + 1 is a gap",
        edits: &[edit(
            STREAM,
            "                    slot.ticket = None;
                    slot.ops = Arc::default();
                }
                slot.flying += 1;",
            "                    slot.ticket = None;
                    slot.answered = true;
                    continue;
                }
                slot.flying += 1;",
        )],
        tests: &["kv/client_stream::a_caller_that_gave_up_before"],
    },
    Mutant {
        id: "X35",
        star: false,
        what: "the client keeps more writes unanswered than the server keeps replies",
        seen: "at most 256 unanswered",
        edits: &[edit(
            STREAM,
            "pub const WINDOW: u64 = WINDOW_REPLIES;",
            "pub const WINDOW: u64 = WINDOW_REPLIES + 9;",
        )],
        tests: &["kv/client_stream::at_most_a_window"],
    },
    Mutant {
        id: "X36",
        star: false,
        what: "a write without an answer counts as one without effect",
        seen: "an unknown outcome is never reported as a failure",
        edits: &[edit(
            "kv/src/client/answer.rs",
            "            Trouble::Unknown | Trouble::Silent(_) | Trouble::Unreadable(_) => false,",
            "            Trouble::Unknown | Trouble::Silent(_) => true,
            Trouble::Unreadable(_) => false,",
        )],
        tests: &["kv/client_stream::what_follows", "kv/client_fake::"],
    },
    Mutant {
        id: "X37",
        star: false,
        what: "pruning takes one reply too many, of a write that was not acknowledged",
        seen: "acked < seq ≤ last: the stored reply",
        edits: &[edit(
            "raft/src/session/table.rs",
            "        let acked = acked.min(session.last);",
            "        let acked = (acked + 1).min(session.last);",
        )],
        tests: &["raft/session::the_table_row_by_row"],
    },
    Mutant {
        id: "X38",
        star: false,
        what: "a move carries times instead of ages of sessions",
        seen: "two groups' clocks have nothing in common",
        edits: &[edit(
            "raft/src/session/row.rs",
            "active.saturating_sub(signed(now_ms))",
            "active.saturating_sub(signed(now_ms).min(0))",
        )],
        tests: &["raft/lib::session::row"],
    },
    Mutant {
        id: "X39",
        star: false,
        what: "a pinned shard is moved by the next join",
        seen: "a Move is a pin",
        edits: &[edit(
            "ctrler/src/rebalance.rs",
            "            && !pin[shard]
            && excess",
            "            && pin[shard] <= true
            && excess",
        )],
        tests: &["ctrler/rebalance::", "ctrler/changes::"],
    },
    Mutant {
        id: "X40",
        star: false,
        what: "a late report takes back what a group has settled",
        seen: "reports may arrive late and in any order",
        edits: &[edit(
            "ctrler/src/change.rs",
            "    if through < known.settled {",
            "    if through + 1 < known.settled {",
        )],
        tests: &["ctrler/changes::settled_raises_only"],
    },
    Mutant {
        id: "X41",
        star: true,
        what: "a shard is released because its new owner settled the configuration before",
        seen: "\"Installed in n?\": the controllers' record says at least n",
        edits: &[edit(
            "kv/src/mover/plan.rs",
            "    record.settled >= num",
            "    record.settled + 1 >= num",
        )],
        tests: &["kv/shards::", "sim-tests/kv_many_groups::unreliable"],
    },
    Mutant {
        id: "X42",
        star: false,
        what: "the old owner stops serving when it enters the configuration, not when it is asked",
        seen: "a third, dead group takes a healthy shard down with it",
        edits: &[edit(
            "kv/src/machine/state.rs",
            "            ShardState::Leaving => !self.frozen,",
            "            ShardState::Leaving => false,",
        )],
        tests: &["kv/shards::wounds::a_shard_is_served_until"],
    },
    Mutant {
        id: "X43",
        star: false,
        what: "a group number used again on empty disks replays history as the first owner",
        seen: "a group's birth",
        edits: &[edit(
            "kv/src/mover/work.rs",
            "Ok(Some(record)) if Some(record.group.birth) == self.birth => {",
            "Ok(Some(record)) if record.group.birth != 0 => {",
        )],
        tests: &["sim-tests/kv_moves::a_group_recorded"],
    },
    Mutant {
        id: "X44",
        star: false,
        what: "a repeated write that meets a gap is answered as done",
        seen: "seq > last + 1: no effect; the client re-sends from there",
        edits: &[edit(
            "raft/src/session/table.rs",
            "        if seq.seq - 1 > session.last {",
            "        if seq.seq - 1 > session.last + 1 {",
        )],
        tests: &["raft/session::a_gap_has_no_effect"],
    },
    Mutant {
        id: "X45",
        star: true,
        what: "rows are handed out of a copy that is still written to",
        seen: "chunks are served only after the freeze is applied",
        edits: &[
            edit(
                READ,
                "        if !row.frozen {
            return Ok(Pulled::Freeze);
        }",
                "        if !row.frozen && *from == Cursor::default() && self.meta.config == 0 {
            return Ok(Pulled::Freeze);
        }",
            ),
            edit(
                MOVES,
                "        if !here.row.frozen {
            return refused(\"not even frozen\");
        }",
                "",
            ),
            edit(
                "kv/src/mover/plan.rs",
                ".filter(|d| d.to == to && d.frozen);",
                ".filter(|d| d.to == to);",
            ),
        ],
        tests: &["kv/shards::"],
    },
    Mutant {
        id: "X57",
        star: false,
        what: "configurations are skipped whatever the last of them gives the group: what it owes is \
               forgotten",
        seen: "a group enters a configuration when it owes nothing of the one before",
        edits: &[edit(
            MOVES,
            "if state != expected || share == (true, false) {",
            "if share == (true, false) {",
        )],
        tests: &["kv/shards::rules"],
    },
    Mutant {
        id: "X58",
        star: false,
        what: "a late skip is taken in whatever configuration the group is",
        seen: "every command of a move names the configuration it belongs to",
        edits: &[edit(
            MOVES,
            "if skip.from != self.meta.config || skip.to <= skip.from {",
            "if skip.to <= self.meta.config {",
        )],
        tests: &["kv/shards::rules"],
    },
    Mutant {
        id: "X59",
        star: true,
        what: "a group is sent past configurations that give it a shard and take it away again",
        seen: "whoever gives a shard in one of them waits for ever",
        edits: &[edit(
            "ctrler/src/history.rs",
            "        if share(&version) != now {
            break;
        }
        last.clone_from(&version);",
            "        if share(&version) == now {
            last.clone_from(&version);
        }",
        )],
        tests: &["ctrler/history::a_group_goes_past"],
    },
    Mutant {
        id: "X60",
        star: false,
        what: "one message of a kind that is not known loses the whole mail",
        seen: "a rolling upgrade in which newer members say something new",
        edits: &[edit(
            "raft/src/replica/wire.rs",
            "Err(_) => world::mark!(\"mail: a message of an unknown kind is left out\"),",
            "Err(reason) => return Err(reason),",
        )],
        tests: &["raft/lib::replica::wire::tests::one_unknown"],
    },
    Mutant {
        id: "X61",
        star: false,
        what: "mail is sent in the newest form, whatever the other end speaks",
        seen: "a rolling upgrade: older members hear nothing",
        edits: &[edit(
            "raft/src/replica/peers.rs",
            "unwrap_or(PROTOCOL.0);",
            "unwrap_or(PROTOCOL.0).max(PROTOCOL.1);",
        )],
        tests: &["sim-tests/raft_scenarios::versions"],
    },
    Mutant {
        id: "X62",
        star: false,
        what: "a command that waits counts its bytes alone, so that hundreds of thousands wait",
        seen: "1 020 appends of a byte each: a writer of another shard waited for 28 s",
        edits: &[edit(
            "raft/src/replica/admission.rs",
            "(command + COMMAND_BYTES)",
            "(command + 64)",
        )],
        tests: &["raft/lib::replica::handle::tests::short_commands"],
    },
    Mutant {
        id: "X63",
        star: false,
        what: "the cursor of an arriving shard is in memory only",
        seen: "a held-out audit: a member that restarts between two chunks refuses what the others take",
        edits: &[edit(
            MOVES,
            "            Some(next) => here.row.cursor = next.clone(),",
            "            Some(next) => {
                here.row.cursor = next.clone();
                return Ok(Ack::Done);
            }",
        )],
        tests: &[
            "kv/shards::chunks::a_receiver_that_restarts",
            "kv/shards::walk::nothing_lost",
        ],
    },
    Mutant {
        id: "X64",
        star: false,
        what: "the log time of a freeze is not noted",
        seen: "a held-out audit: ages of sessions on a moved shard are wrong",
        edits: &[edit(
            "kv/src/machine/state.rs",
            "        self.frozen_ms = at.time_ms;
",
            "",
        )],
        tests: &["kv/shards::ages::a_session_is_as_old"],
    },
    Mutant {
        id: "X65",
        star: false,
        what: "the log time is not noted when a shard of nobody is given away",
        seen: "the same, where no freeze comes",
        edits: &[edit(
            MOVES,
            "                    row.freeze(at);",
            "                    row.frozen = true;",
        )],
        tests: &["kv/shards::ages::a_session_grows_older"],
    },
    Mutant {
        id: "X66",
        star: true,
        what: "a write is taken back while another attempt of it is in flight",
        seen: "a held-out audit: one seed in 83 noticed, and no test of the stream",
        edits: &[edit(
            STREAM,
            "        if self.flying == 0
            && !self.maybe",
            "        if !self.maybe",
        )],
        tests: &["kv/client_stream::a_write_is_taken_back_only"],
    },
    Mutant {
        id: "X67",
        star: true,
        what: "a write is taken back though an earlier attempt of it had no answer",
        seen: "law 8",
        edits: &[edit(
            STREAM,
            "        if self.flying == 0
            && !self.maybe",
            "        if self.flying == 0",
        )],
        tests: &["kv/client_stream::a_write_is_taken_back_only"],
    },
    Mutant {
        id: "X68",
        star: false,
        what: "a carried write without an answer is told of as not sent",
        seen: "law 8",
        edits: &[edit(
            "kv/src/server/carrier.rs",
            "Err(CallError::NoAnswer { .. }) => Err(Response::Unknown),",
            "Err(CallError::NoAnswer { .. }) => Err(Response::NotLeader(None)),",
        )],
        tests: &["kv/lib::server::carrier::tests::what_has_no_answer"],
    },
    Mutant {
        id: "X69",
        star: false,
        what: "what is carried may be carried on, by members that take each other for the leader",
        seen: "one hop at most",
        edits: &[edit(
            "kv/src/server/carrier.rs",
            "answer = link.call(CHANNEL, body, deadline) => answer,",
            "answer = link.call(crate::api::CARRY_CHANNEL, body, deadline) => answer,",
        )],
        tests: &["kv/lib::server::carrier::tests::what_is_carried"],
    },
    Mutant {
        id: "X80",
        star: false,
        what: "whoever says that a shard has arrived has the old copy deleted",
        seen: "nothing irreversible rests on one unverified message",
        edits: &[edit(
            "kv/src/mover/answer.rs",
            "                    self.notice.arrived();",
            "                    for command in plan::releases(leaving, ask.num) {
                        self.propose(command).await?;
                    }",
        )],
        tests: &["sim-tests/kv_moves::what_anybody_may_say"],
    },
    Mutant {
        id: "X81",
        star: false,
        what: "the controllers' record of a group is believed although the group itself says otherwise",
        seen: "nothing irreversible rests on one unverified message",
        edits: &[edit(
            "kv/src/mover/work.rs",
            "                    Ok(answer @ Answer::Installed(_)) => plan::answered",
            "                    Ok(answer @ Answer::Installed(_)) if num == 0 => plan::answered",
        )],
        tests: &["sim-tests/kv_moves::what_anybody_may_say"],
    },
    Mutant {
        id: "X101",
        star: false,
        what: "a write that is refused for a full disk is given up at the first answer",
        seen: "found by the campaign (I8): the network doubles a request, one copy is refused, the other \
               executed",
        edits: &[edit(
            STREAM,
            "                self.give_up(at, &reason);
                None",
            "                self.refused(at, ClientError::Full(reason.clone()), &reason)",
        )],
        tests: &["kv/client_stream::a_write_is_given_up"],
    },
];
