//! One core, hand-fed: the tests play everybody else.

use super::{configuration, log, settings};
use raft_protocol::*;

pub struct Solo {
    pub core: Core,
    pub written: u64,
    pub hard: HardState,
}

/// Node 1 of `nodes`, with a log of these terms, in `term`.
pub fn start(nodes: u64, terms: &[Term], term: Term) -> Start {
    Start {
        id: 1,
        settings: settings(),
        seed: 3,
        hard_state: HardState {
            term,
            ..Default::default()
        },
        base: SnapshotMeta {
            configuration: configuration(nodes),
            ..Default::default()
        },
        entries: log(terms),
        applied: 0,
        commit: 0,
        born: true,
        state_lost: false,
    }
}

impl Solo {
    pub fn new(nodes: u64, terms: &[Term], term: Term) -> Solo {
        Solo::from(start(nodes, terms, term))
    }

    pub fn from(start: Start) -> Solo {
        let hard = start.hard_state;
        Solo {
            core: Core::new(start),
            written: 0,
            hard,
        }
    }

    /// Leads `term + 1`, its no-op handed out and not synced.
    pub fn leader(nodes: u64, terms: &[Term], term: Term) -> Solo {
        let mut solo = Solo::new(nodes, terms, term);
        solo.campaign();
        let quorum = nodes / 2 + 1;
        for from in 2..=quorum {
            solo.receive(
                from,
                Message::PreVoteReply {
                    term: term + 1,
                    granted: true,
                },
            );
        }
        solo.persist();
        for from in 2..=quorum {
            solo.receive(
                from,
                Message::VoteReply {
                    term: term + 1,
                    granted: true,
                },
            );
        }
        assert_eq!(solo.core.status().role, Role::Leader);
        solo
    }

    /// Follows node 2 in `term`.
    pub fn follower(nodes: u64, terms: &[Term], term: Term) -> Solo {
        let mut solo = Solo::new(nodes, terms, term);
        solo.heartbeat(2, term, 0);
        assert_eq!(solo.core.status().leader, Some(2));
        solo
    }

    pub fn step(&mut self, input: Input) -> Output {
        let out = self.core.step(input);
        if let Some(write) = &out.write {
            assert_eq!(write.number, self.written + 1);
            self.written = write.number;
            self.hard = write.hard_state;
        }
        out
    }

    pub fn receive(&mut self, from: NodeId, message: Message) -> Output {
        self.step(Input::Receive { from, message })
    }

    /// Reports everything written as durable.
    pub fn persist(&mut self) -> Output {
        self.step(Input::Persisted(self.written))
    }

    pub fn campaign(&mut self) -> Output {
        for _ in 0..40 {
            let out = self.step(Input::Tick);
            let news = !out.messages.is_empty() || out.write.is_some();
            if news && !super::asks_again(&out) {
                return out;
            }
        }
        panic!("no campaign");
    }

    pub fn append(
        &mut self,
        term: Term,
        prev: (Index, Term),
        commit: Index,
        terms: &[Term],
    ) -> Output {
        let entries = terms
            .iter()
            .zip(prev.0 + 1..)
            .map(|(t, i)| super::entry(*t, i))
            .collect();
        let (prev_index, prev_term) = prev;
        self.receive(
            2,
            Message::Append {
                term,
                prev_index,
                prev_term,
                commit,
                entries,
            },
        )
    }

    pub fn heartbeat(&mut self, from: NodeId, term: Term, round: u64) -> Output {
        self.receive(
            from,
            Message::Heartbeat {
                term,
                round,
                prev_index: 0,
                prev_term: 0,
                commit: 0,
            },
        )
    }

    pub fn acknowledge(&mut self, from: NodeId, term: Term, index: Index) -> Output {
        self.receive(
            from,
            Message::AppendReply {
                term,
                verdict: AppendVerdict::Matched { index },
            },
        )
    }

    /// Answers a heartbeat round.
    pub fn answer(&mut self, from: NodeId, term: Term, round: u64) -> Output {
        let verdict = HeartbeatVerdict::Matched {
            received: 0,
            synced: 0,
        };
        self.receive(
            from,
            Message::HeartbeatReply {
                term,
                round,
                verdict,
            },
        )
    }

    pub fn vote(&mut self, from: NodeId, term: Term, last: (Index, Term)) -> Output {
        let (last_index, last_term) = last;
        self.receive(
            from,
            Message::Vote {
                term,
                last_index,
                last_term,
                transfer: false,
            },
        )
    }

    pub fn pre_vote_granted(&mut self, from: NodeId, term: Term) -> Output {
        let granted = true;
        self.receive(from, Message::PreVoteReply { term, granted })
    }

    pub fn pre_vote(&mut self, from: NodeId, term: Term, last: (Index, Term)) -> Output {
        let (last_index, last_term) = last;
        self.receive(
            from,
            Message::PreVote {
                term,
                last_index,
                last_term,
            },
        )
    }

    pub fn terms(&self) -> Vec<Term> {
        let first = self.core.base().index + 1;
        self.core
            .entries(first, Index::MAX, usize::MAX)
            .iter()
            .map(|e| e.term)
            .collect()
    }

    pub fn status(&self) -> Status {
        self.core.status()
    }
}

/// The vote in an output: granted or refused; `None` when there is none.
pub fn vote_in(out: &Output) -> Option<bool> {
    out.messages.iter().find_map(|e| match e.message {
        Message::VoteReply { granted, .. } | Message::PreVoteReply { granted, .. } => Some(granted),
        _ => None,
    })
}

pub fn verdict_in(out: &Output) -> Option<AppendVerdict> {
    out.messages.iter().find_map(|e| match e.message {
        Message::AppendReply { verdict, .. } => Some(verdict),
        _ => None,
    })
}

pub fn appends_in(out: &Output) -> Vec<NodeId> {
    let append = |e: &&Envelope| matches!(e.message, Message::Append { .. });
    out.messages.iter().filter(append).map(|e| e.to).collect()
}

pub fn rounds_in(out: &Output) -> Vec<u64> {
    let round = |e: &Envelope| match e.message {
        Message::Heartbeat { round, .. } if e.to == 2 => Some(round),
        _ => None,
    };
    out.messages.iter().filter_map(round).collect()
}
