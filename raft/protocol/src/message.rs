//! What nodes say to each other. The order of variants and fields is the wire format
//! (postcard); new kinds go at the end, fields of existing kinds never change.

use crate::types::{Entry, Index, MAX_NUMBER, NodeId, Term};
use serde::{Deserialize, Serialize};

/// A message and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Envelope {
    /// The receiver.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

/// A consensus message. `term` is the sender's term unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// "Would you vote for me in `term`?" (thesis §9.6). Changes nobody's term.
    PreVote {
        /// The term the sender would stand in: its own and one.
        term: Term,
        /// The sender's last index.
        last_index: Index,
        /// The term of that entry.
        last_term: Term,
    },
    /// Answer to [`Message::PreVote`].
    PreVoteReply {
        /// Granted: the term asked about. Refused: the replier's own term.
        term: Term,
        /// Whether a vote would be given.
        granted: bool,
    },
    /// RequestVote (§5.2).
    Vote {
        /// The candidate's term.
        term: Term,
        /// The candidate's last index.
        last_index: Index,
        /// The term of that entry.
        last_term: Term,
        /// The leader itself asked for this election (leadership transfer, thesis §3.10): a
        /// live leader is no reason to refuse.
        transfer: bool,
    },
    /// Answer to [`Message::Vote`].
    VoteReply {
        /// The replier's term.
        term: Term,
        /// Whether the vote was given.
        granted: bool,
    },
    /// AppendEntries (§5.3).
    Append {
        /// The leader's term.
        term: Term,
        /// The index right before `entries`.
        prev_index: Index,
        /// Its term.
        prev_term: Term,
        /// The leader's commit index.
        commit: Index,
        /// Consecutive entries from `prev_index + 1`; may be empty.
        entries: Vec<Entry>,
    },
    /// Answer to [`Message::Append`]; also what tells a stale leader of a higher term.
    AppendReply {
        /// The replier's term.
        term: Term,
        /// What came of it.
        verdict: AppendVerdict,
    },
    /// Holds elections back, tells the commit index and asks whether the sender still leads.
    Heartbeat {
        /// The leader's term.
        term: Term,
        /// Increasing within a term; names what the answer may serve (thesis §6.4).
        round: u64,
        /// An index the follower has acknowledged, or 0.
        prev_index: Index,
        /// Its term.
        prev_term: Term,
        /// The leader's commit index.
        commit: Index,
    },
    /// Answer to [`Message::Heartbeat`].
    HeartbeatReply {
        /// The replier's term.
        term: Term,
        /// The round answered.
        round: u64,
        /// How the follower's log stands.
        verdict: HeartbeatVerdict,
    },
    /// A follower asks its leader for a read index (thesis §6.4).
    ReadIndex {
        /// The follower's term.
        term: Term,
        /// Drawn once in each life of the follower: an answer to an earlier life is no answer.
        life: u64,
        /// The follower's number for the read.
        id: u64,
    },
    /// Answer to [`Message::ReadIndex`].
    ReadIndexReply {
        /// The leader's term.
        term: Term,
        /// As asked.
        life: u64,
        /// As asked.
        id: u64,
        /// The read index, `None` when the one asked cannot say.
        index: Option<Index>,
    },
}

impl Message {
    /// The term the message speaks of.
    pub fn term(&self) -> Term {
        match self {
            Message::PreVote { term, .. }
            | Message::PreVoteReply { term, .. }
            | Message::Vote { term, .. }
            | Message::VoteReply { term, .. }
            | Message::Append { term, .. }
            | Message::AppendReply { term, .. }
            | Message::Heartbeat { term, .. }
            | Message::HeartbeatReply { term, .. }
            | Message::ReadIndex { term, .. }
            | Message::ReadIndexReply { term, .. } => *term,
        }
    }

    /// True when every term and index in it is one that a member can have come to
    /// ([`MAX_NUMBER`]). Those of entries are judged against the append's own
    /// (`follower::is_consecutive`); rounds, lives and read ids are only compared and echoed.
    pub(crate) fn is_in_range(&self) -> bool {
        let fits = |numbers: &[u64]| numbers.iter().all(|n| *n <= MAX_NUMBER);
        fits(&[self.term()])
            && match self {
                Message::PreVote {
                    last_index,
                    last_term,
                    ..
                }
                | Message::Vote {
                    last_index,
                    last_term,
                    ..
                } => fits(&[*last_index, *last_term]),
                Message::Append {
                    prev_index,
                    prev_term,
                    commit,
                    ..
                }
                | Message::Heartbeat {
                    prev_index,
                    prev_term,
                    commit,
                    ..
                } => fits(&[*prev_index, *prev_term, *commit]),
                Message::AppendReply { verdict, .. } => match verdict {
                    AppendVerdict::Matched { index } => fits(&[*index]),
                    AppendVerdict::Conflict {
                        prev_index,
                        hint_index,
                        hint_term,
                    } => fits(&[*prev_index, *hint_index, *hint_term]),
                    AppendVerdict::NeedSnapshot | AppendVerdict::Stale => true,
                },
                Message::HeartbeatReply { verdict, .. } => match verdict {
                    HeartbeatVerdict::Matched { received, synced } => fits(&[*received, *synced]),
                    HeartbeatVerdict::Lost {
                        hint_index,
                        hint_term,
                    } => fits(&[*hint_index, *hint_term]),
                    HeartbeatVerdict::NeedSnapshot => true,
                },
                Message::ReadIndexReply { index, .. } => fits(&[index.unwrap_or(0)]),
                Message::PreVoteReply { .. }
                | Message::VoteReply { .. }
                | Message::ReadIndex { .. } => true,
            }
    }

    /// True when there are entries in it.
    pub fn carries_entries(&self) -> bool {
        matches!(self, Message::Append { entries, .. } if !entries.is_empty())
    }

    /// Bytes that count against limits: the entries and a fixed 64 for the rest.
    pub fn size(&self) -> usize {
        64 + match self {
            Message::Append { entries, .. } => entries.iter().map(Entry::size).sum(),
            _ => 0,
        }
    }
}

/// What came of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AppendVerdict {
    /// The replier's synced log equals the leader's through `index`.
    Matched {
        /// That index.
        index: Index,
    },
    /// The replier's log does not hold the entry before the append's (§5.3).
    Conflict {
        /// `prev_index` of the refused append.
        prev_index: Index,
        /// The replier's last entry at or before it whose term is not above `prev_term`.
        hint_index: Index,
        /// The term of that entry.
        hint_term: Term,
    },
    /// The replier's state is lost: entries do not help it.
    NeedSnapshot,
    /// The append was of a lower term than the reply.
    Stale,
}

/// How a follower's log stands at a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HeartbeatVerdict {
    /// The log holds `prev_index`.
    Matched {
        /// Equal to the leader's through this index, as received. Counts for no quorum.
        received: Index,
        /// Equal to the leader's through this index, and synced.
        synced: Index,
    },
    /// An entry once acknowledged is missing: the follower's disk lost it.
    Lost {
        /// The replier's last entry at or before it whose term is not above `prev_term`.
        hint_index: Index,
        /// The term of that entry.
        hint_term: Term,
    },
    /// The replier's state is lost: entries do not help it.
    NeedSnapshot,
}
