//! What a replica tells the simulation's checkers; nothing in production.

use raft_protocol::{
    AppendVerdict, Body, Core, Entry, HeartbeatVerdict, Index, Message, NodeId, RoleChange, Term,
    Write,
};
use world::observe::LISTENING;
use world::{Site, observe};

/// What recovery found on the disk: a new life begins with it.
pub(super) fn start(site: Site, core: &Core, boot: u64, members: usize, damaged: bool, lost: bool) {
    if !LISTENING {
        return;
    }
    let (status, base) = (core.status(), core.base());
    let fields = [
        ("boot", boot),
        ("members", members as u64),
        ("damaged", damaged.into()),
        ("lost", lost.into()),
        ("abstains", status.abstain.is_some().into()),
        ("term", status.term),
        ("vote", status.vote.unwrap_or(0)),
        ("base", base.index),
        ("base_term", base.term),
        ("last", status.last_index),
    ];
    observe(site, "start", &fields);
    let entries = core.entries(base.index + 1, status.last_index, usize::MAX);
    runs(site, 0, entries);
    observe(site, "started", &[]);
}

/// A numbered write on its way to the log.
pub(super) fn write(site: Site, write: &Write) {
    if !LISTENING {
        return;
    }
    let fields = [
        ("number", write.number),
        ("term", write.hard_state.term),
        ("vote", write.hard_state.vote.unwrap_or(0)),
        ("first", write.entries.first().map_or(0, |e| e.index)),
        ("entries", write.entries.len() as u64),
    ];
    observe(site, "write", &fields);
    if let Some(meta) = &write.reset {
        let fields = [("index", meta.index), ("term", meta.term)];
        observe(site, "reset", &fields);
    }
    runs(site, write.number, &write.entries);
}

/// Entries of one term after another.
fn runs(site: Site, number: u64, entries: &[Entry]) {
    for run in entries.chunk_by(|a, b| a.term == b.term) {
        if let [first, ..] = run {
            let last = first.index + run.len() as u64 - 1;
            let fields = [
                ("number", number),
                ("term", first.term),
                ("first", first.index),
                ("last", last),
                ("sum", run.last().map_or(0, sum)),
            ];
            observe(site, "append", &fields);
        }
    }
}

/// A checksum of what an entry says.
fn sum(entry: &Entry) -> u64 {
    match &entry.body {
        Body::Noop => 1,
        Body::Configuration(_) => 2,
        Body::Command(payload) => 3 + u64::from(crc32fast::hash(&payload.0)),
    }
}

/// Sizes are told once in so many ticks.
const PULSE: u32 = 40;

/// Tells sizes now and then.
#[derive(Default)]
pub(super) struct Pulse(u32);

impl Pulse {
    /// A tick passed; `sizes` are pairs of a size and its limit.
    pub(super) fn beat(
        &mut self,
        site: Site,
        sizes: impl FnOnce() -> [(&'static str, usize, usize); 3],
    ) {
        if !LISTENING {
            return;
        }
        self.0 += 1;
        if self.0 >= PULSE {
            self.0 = 0;
            size(site, &sizes());
        }
    }
}

/// Sizes of what must not grow without bound, each with its limit.
pub(super) fn size(site: Site, sizes: &[(&'static str, usize, usize)]) {
    if LISTENING {
        let pair = |(name, size, limit): &(&'static str, usize, usize)| {
            [(*name, *size as u64), ("limit", *limit as u64)]
        };
        let fields: Vec<(&'static str, u64)> = sizes.iter().flat_map(pair).collect();
        observe(site, "sizes", &fields);
    }
}

/// Role, term or leader changed.
pub(super) fn role(site: Site, core: &Core, change: &RoleChange) {
    if LISTENING {
        let fields = [
            ("role", change.role as u64),
            ("term", change.term),
            ("leader", change.leader.unwrap_or(0)),
            ("commit", core.facts().commit),
        ];
        observe(site, "role", &fields);
    }
}

/// Entries through `index` are handed to the state machine; `commit` is what is known committed. A
/// leader also tells what it believes of each follower.
pub(super) fn commit(site: Site, core: &Core, index: Index, term: Term) {
    if LISTENING {
        let status = core.status();
        for (follower, matched) in &status.matched {
            let fields = [("follower", *follower), ("index", *matched)];
            observe(site, "match", &fields);
        }
        let commit = status.commit;
        observe(
            site,
            "commit",
            &[("index", index), ("term", term), ("commit", commit)],
        );
    }
}

/// A message that promises something about this node's disk, about to leave.
pub(super) fn promise(site: Site, to: NodeId, message: &Message) {
    if !LISTENING {
        return;
    }
    let told = |kind, term, index: Index| {
        observe(site, kind, &[("to", to), ("term", term), ("index", index)]);
    };
    windows(message);
    match message {
        Message::Vote { term, .. } => told("stand", *term, 0),
        Message::VoteReply {
            term,
            granted: true,
        } => told("vote", *term, 0),
        Message::AppendReply {
            term,
            verdict: AppendVerdict::Matched { index },
        } => told("ack", *term, *index),
        Message::HeartbeatReply {
            term,
            verdict: HeartbeatVerdict::Matched { synced, .. },
            ..
        } => told("ack", *term, *synced),
        Message::AppendReply {
            term,
            verdict:
                AppendVerdict::Conflict {
                    prev_index,
                    hint_index,
                    ..
                },
        } => {
            told("say", *term, 0);
            let fields = [("previous", *prev_index), ("hint", *hint_index)];
            observe(site, "refuse", &fields);
        }
        // These reveal a term: it must be on disk too.
        Message::VoteReply { term, .. } => told("deny", *term, 0),
        Message::AppendReply { term, .. }
        | Message::HeartbeatReply { term, .. }
        | Message::PreVoteReply {
            term,
            granted: false,
        }
        | Message::ReadIndex { term, .. }
        | Message::ReadIndexReply { term, .. } => told("say", *term, 0),
        Message::PreVote { .. }
        | Message::PreVoteReply { .. }
        | Message::Append { .. }
        | Message::Heartbeat { .. } => {}
    }
}

/// Marks what is seldom said.
fn windows(message: &Message) {
    match message {
        Message::AppendReply { verdict, .. } => match verdict {
            AppendVerdict::Conflict { .. } => world::mark!("append: refused, the logs differ"),
            AppendVerdict::NeedSnapshot => world::mark!("append: need-snapshot is answered"),
            AppendVerdict::Stale => {
                world::mark!("append: a stale leader is told of the higher term")
            }
            AppendVerdict::Matched { .. } => {}
        },
        Message::HeartbeatReply { verdict, .. } => match verdict {
            HeartbeatVerdict::Lost { .. } => {
                world::mark!("heartbeat: acknowledged entries are lost")
            }
            HeartbeatVerdict::NeedSnapshot => world::mark!("heartbeat: need-snapshot is answered"),
            HeartbeatVerdict::Matched { .. } => {}
        },
        Message::VoteReply { granted: false, .. } => world::mark!("vote: refused"),
        Message::PreVoteReply { granted: false, .. } => world::mark!("pre-vote: refused"),
        Message::ReadIndexReply { index: None, .. } => world::mark!("read: a follower is refused"),
        _ => {}
    }
}

/// Marks what a message about to be stepped meets here.
pub(super) fn receives(core: &Core, message: &Message) {
    if !LISTENING {
        return;
    }
    if let Message::Append { prev_index, .. } = message
        && *prev_index < core.base().index
    {
        world::mark!("append: begins below what is compacted");
    }
}
