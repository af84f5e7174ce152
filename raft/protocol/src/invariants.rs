//! What always holds, and what no step may do. Cheap ones are asserted after every step, the
//! others in debug builds and by tests.

use crate::core::Core;
use crate::types::{Index, NodeId, Role, Term};

/// What transition invariants compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Role.
    pub role: Role,
    /// Term.
    pub term: Term,
    /// Vote in the term.
    pub vote: Option<NodeId>,
    /// Known leader.
    pub leader: Option<NodeId>,
    /// Commit index.
    pub commit: Index,
    /// Index through which entries may be applied.
    pub applied: Index,
    /// The log's base.
    pub base: Index,
    /// The log's end.
    pub last: Index,
    /// Abstaining after damage.
    pub abstains: bool,
    /// Sum over followers of match indices, and of losses, while leading.
    pub matched: (u64, u64),
}

/// Entries looked at after every step of a debug build.
const WINDOW: usize = 16;

impl Core {
    /// What transition invariants compare.
    pub fn facts(&self) -> Facts {
        let sums = |l: &crate::lead::Lead| {
            let add = |(m, n): (u64, u64), p: &crate::progress::Progress| {
                (m.wrapping_add(p.matched), n + p.losses)
            };
            l.progress.values().fold((0, 0), add)
        };
        Facts {
            role: self.role,
            term: self.hard.term,
            vote: self.hard.vote,
            leader: self.leader,
            commit: self.commit,
            applied: self.applied,
            base: self.log.base().index,
            last: self.log.last_index(),
            abstains: self.hard.abstain.is_some(),
            matched: self.lead.as_ref().map_or((0, 0), sums),
        }
    }

    /// Asserted after every step, in production too.
    pub(crate) fn assert_step(&self, before: &Facts, after: &Facts) {
        if let Err(broken) = check_transition(before, after) {
            panic!("node {}: {broken}: {before:?} -> {after:?}", self.id);
        }
        if cfg!(debug_assertions)
            && let Err(broken) = self.check(WINDOW)
        {
            panic!("node {}: {broken}", self.id);
        }
    }

    /// Every invariant of a state. Looks at the whole log.
    pub fn check_invariants(&self) -> Result<(), String> {
        self.check(usize::MAX)
    }

    fn check(&self, window: usize) -> Result<(), String> {
        self.log.check(window)?;
        let (last, base) = (self.log.last_index(), self.log.base().index);
        ensure(
            self.log.last_term() <= self.hard.term,
            "no entry is of a later term than the node",
        )?;
        ensure(base <= self.applied, "only what is applied is compacted")?;
        ensure(self.verified <= last, "what is verified is in the log")?;
        ensure(
            (self.role == Role::Leader) == self.lead.is_some(),
            "a leader's state is a leader's",
        )?;
        let stands = matches!(self.role, Role::PreCandidate | Role::Candidate);
        ensure(
            stands || self.votes.is_empty(),
            "only who stands counts votes",
        )?;
        ensure(
            !stands || self.leader.is_none(),
            "who stands follows nobody",
        )?;
        let own_vote = self.hard.vote == Some(self.id);
        ensure(
            self.role != Role::Candidate || own_vote,
            "a candidate votes for itself",
        )?;
        let barred = !self.born || self.state_lost || self.hard.abstain.is_some();
        ensure(
            !barred || self.role == Role::Follower,
            "who may not vote does not stand",
        )?;
        for envelope in self.writes.waiting() {
            let term = envelope.message.term();
            ensure(
                term <= self.hard.term,
                "nothing waits to be said in a later term",
            )?;
        }
        let Some(lead) = &self.lead else {
            return Ok(());
        };
        ensure(own_vote, "a leader voted for itself")?;
        ensure(self.leader == Some(self.id), "a leader knows who leads")?;
        ensure(
            self.log.last_term() == self.hard.term,
            "a leader's log ends in its term",
        )?;
        ensure(lead.begun <= last, "a leader's log holds its no-op")?;
        ensure(
            !lead.progress.contains_key(&self.id),
            "a leader does not feed itself",
        )?;
        for p in lead.progress.values() {
            ensure(p.matched < p.next, "what matches is not sent again")?;
            ensure(p.matched <= last, "a follower matches entries that exist")?;
            ensure(
                p.round <= lead.round,
                "only rounds that were sent are answered",
            )?;
            let (count, bytes) = p.inflight();
            let full = count > self.settings.max_inflight.max(1);
            ensure(!full, "the pipeline is bounded in appends")?;
            // One append may be larger than the limit, but not beside others.
            let fat = count > 1 && bytes > self.settings.max_inflight_bytes;
            ensure(!fat, "the pipeline is bounded in bytes")?;
        }
        Ok(())
    }
}

fn ensure(holds: bool, invariant: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(invariant.to_owned())
    }
}

/// What no single step may do, and what relates the numbers of one state.
pub fn check_transition(before: &Facts, after: &Facts) -> Result<(), String> {
    let same_term = before.term == after.term;
    ensure(before.term <= after.term, "the term never goes back")?;
    let kept = before.vote.is_none() || before.vote == after.vote;
    ensure(
        !same_term || kept,
        "within a term the vote is set at most once",
    )?;
    ensure(
        before.commit <= after.commit,
        "the commit index never goes back",
    )?;
    ensure(
        before.applied <= after.applied,
        "the applied index never goes back",
    )?;
    ensure(before.base <= after.base, "the base never goes back")?;
    ensure(
        after.applied <= after.commit,
        "only what is committed is applied",
    )?;
    ensure(
        after.commit <= after.last,
        "what is committed is in the log",
    )?;
    ensure(after.base <= after.commit, "what is compacted is committed")?;
    ensure(
        before.abstains || !after.abstains,
        "nothing but damage makes a node abstain",
    )?;
    let leads = before.role == Role::Leader && after.role == Role::Leader;
    // §5.3, leader append-only.
    ensure(
        !leads || before.last <= after.last,
        "a leader never deletes its entries",
    )?;
    ensure(!leads || same_term, "a leader leads one term")?;
    let lossless = before.matched.1 == after.matched.1;
    let raised = before.matched.0 <= after.matched.0;
    ensure(
        !(leads && lossless) || raised,
        "match indices are only raised",
    )?;
    let led = after.role == Role::Leader && before.role != Role::Leader;
    ensure(
        !led || before.role == Role::Candidate,
        "only a candidate comes to lead",
    )
}
