//! Words for what happens, for transcripts.

use super::local::{Effect, Event, Local};
use raft_protocol::*;

/// What happens to a node.
pub fn event(event: &Event) -> &'static str {
    match event {
        Event::Persist => "its oldest write is on disk, and it is told",
        Event::Stand => "election timeout; the others would vote for it",
        Event::Timeout => "election timeout",
        Event::Again => "no answer: it asks again",
        Event::Beat => "a heartbeat is due",
        Event::Propose => "a client's command",
        Event::Read => "a client's read",
        Event::Crash => "crashes and starts again",
        Event::Receive(..) => "a message",
    }
}

/// What an event did at a node.
pub fn effect(id: NodeId, before: &Local, after: &Local, effect: &Effect) -> Vec<String> {
    let mut lines: Vec<String> = effect.reasons.clone();
    for write in &effect.writes {
        let HardState { term, vote, .. } = write.hard_state;
        let vote = vote.map_or("no vote".to_owned(), |v| format!("vote for {v}"));
        lines.push(format!(
            "hands to its disk: term {term}, {vote}{}",
            entries(&write.entries)
        ));
    }
    for envelope in &effect.sends {
        lines.push(format!(
            "-> {}: {}",
            envelope.to,
            message(&envelope.message)
        ));
    }
    for (read, index) in &effect.reads {
        lines.push(match index {
            Some(index) => format!("answers read {read} at index {index}"),
            None => format!("refuses read {read}"),
        });
    }
    let (old, new) = (before.core.status(), after.core.status());
    if (old.role, old.term, old.commit) != (new.role, new.term, new.commit) {
        let (role, term, commit) = (new.role, new.term, new.commit);
        lines.push(format!(
            "node {id} is now {role:?} of term {term}, commit {commit}"
        ));
    }
    lines
}

fn entries(entries: &[Entry]) -> String {
    if entries.is_empty() {
        return String::new();
    }
    let one = |e: &Entry| format!("({}, t{})", e.index, e.term);
    let all: Vec<String> = entries.iter().map(one).collect();
    format!(", entries {}", all.join(" "))
}

/// A node's logs.
pub fn logs(id: NodeId, local: &Local) -> String {
    let s = local.core.status();
    format!(
        "node {id}: {:?} of term {}, commit {}{}; on disk: term {}, vote {:?}{}",
        s.role,
        s.term,
        s.commit,
        entries(local.core.entries(1, Index::MAX, usize::MAX)),
        local.hard.term,
        local.hard.vote,
        entries(&local.entries)
    )
}

/// A message.
pub fn message(m: &Message) -> String {
    let yes = |granted: &bool| if *granted { "granted" } else { "refused" };
    match m {
        Message::PreVote {
            term,
            last_index,
            last_term,
        } => {
            format!("PreVote t{term}, log ends in ({last_index}, t{last_term})")
        }
        Message::PreVoteReply { term, granted } => format!("PreVoteReply t{term} {}", yes(granted)),
        Message::Vote {
            term,
            last_index,
            last_term,
            ..
        } => {
            format!("Vote t{term}, log ends in ({last_index}, t{last_term})")
        }
        Message::VoteReply { term, granted } => format!("VoteReply t{term} {}", yes(granted)),
        Message::Append {
            term,
            prev_index,
            prev_term,
            commit,
            entries: e,
        } => {
            format!(
                "Append t{term} after ({prev_index}, t{prev_term}), commit {commit}{}",
                entries(e)
            )
        }
        Message::AppendReply { term, verdict } => format!("AppendReply t{term} {verdict:?}"),
        Message::Heartbeat {
            term,
            round,
            prev_index,
            prev_term,
            commit,
        } => format!(
            "Heartbeat t{term} round {round} at ({prev_index}, t{prev_term}), commit {commit}"
        ),
        Message::HeartbeatReply {
            term,
            round,
            verdict,
        } => {
            format!("HeartbeatReply t{term} round {round} {verdict:?}")
        }
        Message::ReadIndex { term, id, .. } => format!("ReadIndex t{term} read {id}"),
        Message::ReadIndexReply {
            term, id, index, ..
        } => {
            format!("ReadIndexReply t{term} read {id}: {index:?}")
        }
    }
}
