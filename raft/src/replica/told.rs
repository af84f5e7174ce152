//! What a replica tells the simulation's checkers; nothing in production.

use raft_protocol::{AppendVerdict, Core, Entry, HeartbeatVerdict, Index, Message, NodeId, Write};
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
            ];
            observe(site, "append", &fields);
        }
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
        _ => {}
    }
}
