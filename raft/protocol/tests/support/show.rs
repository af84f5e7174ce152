//! Words for what happens.

use raft_protocol::*;

pub fn output(id: NodeId, out: &Output) -> Vec<String> {
    let mut lines: Vec<String> = out.reasons.iter().map(|r| format!("{id}: {r}")).collect();
    if let Some(w) = &out.write {
        let HardState {
            term,
            vote,
            abstain,
        } = w.hard_state;
        let mut line = format!("{id} writes #{}: t{term}", w.number);
        if let Some(vote) = vote {
            line += &format!(" vote {vote}");
        }
        if let Some(a) = abstain {
            line += &format!(" abstain(t{}, {})", a.term, a.index);
        }
        if let Some(meta) = &w.reset {
            line += &format!(" reset({}, t{})", meta.index, meta.term);
        }
        if !w.entries.is_empty() {
            line += &format!(" {}", entries(&w.entries));
        }
        lines.push(line);
    }
    for e in &out.messages {
        lines.push(format!("{id} -> {}: {}", e.to, message(&e.message)));
    }
    match &out.proposed {
        Some(Proposed::Accepted { term, first }) => {
            lines.push(format!("{id} proposed: ({first}, t{term})"))
        }
        Some(other) => lines.push(format!("{id} proposed: {other:?}")),
        None => {}
    }
    if let Some(through) = out.apply_through {
        lines.push(format!("{id} applies through {through}"));
    }
    for r in &out.reads {
        match r.result {
            Ok(index) => lines.push(format!("{id} read {} at {index}", r.id)),
            Err(refusal) => lines.push(format!("{id} read {} refused: {refusal:?}", r.id)),
        }
    }
    for to in &out.snapshots {
        lines.push(format!("{id} wants a snapshot sent to {to}"));
    }
    for f in &out.fetches {
        let terms: Vec<String> = f
            .terms
            .iter()
            .map(|(i, t)| format!("..={i} t{t}"))
            .collect();
        let terms = terms.join(", ");
        lines.push(format!(
            "{id} reads for {} behind {}: {terms}",
            f.to, f.after
        ));
    }
    if let Some(wanted) = out.snapshot_accepted {
        lines.push(format!("{id} snapshot accepted: {wanted}"));
    }
    if let Some(r) = &out.role {
        let leader = r.leader.map_or("nobody".to_owned(), |l| l.to_string());
        lines.push(format!(
            "{id} is {:?} in t{}, leader {leader}",
            r.role, r.term
        ));
    }
    lines
}

pub fn entries(entries: &[Entry]) -> String {
    let Some(first) = entries.first() else {
        return "nothing".to_owned();
    };
    let terms: Vec<String> = entries.iter().map(|e| format!("t{}", e.term)).collect();
    let last = first.index + entries.len() as u64 - 1;
    format!("{}..={last} [{}]", first.index, terms.join(" "))
}

pub fn message(m: &Message) -> String {
    match m {
        Message::PreVote {
            term,
            last_index,
            last_term,
        } => format!("PreVote t{term} last ({last_index}, t{last_term})"),
        Message::PreVoteReply { term, granted } => {
            format!("PreVoteReply t{term} {}", yes(*granted))
        }
        Message::Vote {
            term,
            last_index,
            last_term,
            transfer,
        } => {
            let transfer = if *transfer { " transfer" } else { "" };
            format!("Vote t{term} last ({last_index}, t{last_term}){transfer}")
        }
        Message::VoteReply { term, granted } => format!("VoteReply t{term} {}", yes(*granted)),
        Message::Append {
            term,
            prev_index,
            prev_term,
            commit,
            entries: e,
        } => {
            format!(
                "Append t{term} after ({prev_index}, t{prev_term}) commit {commit}: {}",
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
        } => {
            format!(
                "Heartbeat t{term} round {round} at ({prev_index}, t{prev_term}) commit {commit}"
            )
        }
        Message::HeartbeatReply {
            term,
            round,
            verdict,
        } => format!("HeartbeatReply t{term} round {round} {verdict:?}"),
        Message::ReadIndex { term, id, .. } => format!("ReadIndex t{term} #{id}"),
        Message::ReadIndexReply {
            term, id, index, ..
        } => format!("ReadIndexReply t{term} #{id} {index:?}"),
    }
}

fn yes(granted: bool) -> &'static str {
    if granted { "granted" } else { "refused" }
}

pub fn status(id: NodeId, s: &Status) -> String {
    let mut line = format!(
        "{id} {:?} t{} vote {:?} leader {:?} log ({}, {}] synced {} commit {}",
        s.role, s.term, s.vote, s.leader, s.base_index, s.last_index, s.synced_index, s.commit
    );
    if !s.matched.is_empty() {
        line += &format!(" matched {:?}", s.matched);
    }
    if let Some(a) = s.abstain {
        line += &format!(" abstain(t{}, {})", a.term, a.index);
    }
    line
}
