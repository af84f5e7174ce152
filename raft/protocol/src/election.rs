//! Elections: pre-vote, vote, check-quorum (§5.2, §5.4.1; thesis §6.2, §9.6).

use crate::core::Core;
use crate::lead::Lead;
use crate::message::{AppendVerdict, Message};
use crate::types::{Body, Entry, Index, NodeId, Role, Term};

impl Core {
    /// One tick of the driver's clock has passed.
    pub(crate) fn tick(&mut self) {
        self.expire_forwarded();
        if self.role == Role::Leader {
            return self.lead_tick();
        }
        self.elapsed = self.elapsed.saturating_add(1);
        if self.elapsed < self.timeout {
            let beat = self.settings.heartbeat_ticks.max(1);
            if self.elapsed.is_multiple_of(beat) {
                self.ask_again();
            }
            return;
        }
        self.elapsed = 0;
        self.draw_timeout();
        if self.role == Role::Candidate && !self.votes.contains(&self.id) {
            return why!(
                self,
                "election timeout, but the own vote is not synced yet -> wait"
            );
        }
        if let Some(bar) = self.bar() {
            return why!(self, "election timeout, but {bar} -> do not campaign");
        }
        if !self.is_voter(self.id) {
            return why!(self, "election timeout, but no voter -> do not campaign");
        }
        self.pre_campaign();
    }

    /// A timeout between one and two times `election_ticks`, so that votes seldom split (§5.2).
    pub(crate) fn draw_timeout(&mut self) {
        let ticks = self.settings.election_ticks.max(1);
        self.timeout = ticks + (self.chance.draw() % u64::from(ticks)) as u32;
    }

    /// Why this node neither votes nor campaigns, if it does not.
    fn bar(&self) -> Option<&'static str> {
        if !self.born {
            Some("the initial members have not met")
        } else if self.state_lost {
            Some("the state is lost")
        } else if self.hard.abstain.is_some() {
            Some("abstaining after damage")
        } else {
            None
        }
    }

    /// §5.4.1: the log with the later last term, or of equal ones the longer, is more up to date.
    fn is_up_to_date(&self, last_index: Index, last_term: Term) -> bool {
        (last_term, last_index) >= (self.log.last_term(), self.log.last_index())
    }

    /// True when a leader was heard within the shortest election timeout (thesis §6.2: such a
    /// node does not help to depose it). A leader checks its quorum itself.
    fn leader_is_live(&self) -> bool {
        self.role == Role::Leader
            || self.leader.is_some() && self.elapsed < self.settings.election_ticks
    }

    /// True when both ask for pre-votes for one term at about one time with equal logs, and this
    /// node's number is the higher. If each granted the other's, both would stand, each voting
    /// for itself: of two survivors none is elected before the next timeout, and with timeouts of
    /// whole ticks that can happen again and again. It lasts for half of the shortest timeout, in
    /// which several requests get lost before one arrives; a node that keeps asking in vain (one
    /// that is partly cut off) stands in nobody's way for longer.
    fn comes_first(&self, from: NodeId, term: Term, last_index: Index, last_term: Term) -> bool {
        self.role == Role::PreCandidate
            && self.elapsed <= self.settings.election_ticks / 2
            && term == self.hard.term + 1
            && (last_term, last_index) == (self.log.last_term(), self.log.last_index())
            && self.id > from
    }

    fn pre_campaign(&mut self) {
        let term = self.hard.term + 1;
        why!(self, "election timeout -> pre-vote for term {term}");
        self.role = Role::PreCandidate;
        self.leader = None;
        self.votes.clear();
        self.votes.insert(self.id);
        for to in self.other_voters() {
            let message = self.pre_vote_request();
            self.send(to, message);
        }
        self.count_votes();
    }

    fn pre_vote_request(&self) -> Message {
        Message::PreVote {
            term: self.hard.term + 1,
            last_index: self.log.last_index(),
            last_term: self.log.last_term(),
        }
    }

    fn vote_request(&self) -> Message {
        Message::Vote {
            term: self.hard.term,
            last_index: self.log.last_index(),
            last_term: self.log.last_term(),
            transfer: false,
        }
    }

    /// A request may be lost (to a peer whose link was just broken it is), and one that was refused
    /// may be granted a moment later (when the other's leader has been silent for long enough): each
    /// heartbeat interval those are asked again who have not granted it. The same request can be
    /// answered any number of times: a vote that is given is given again to the same candidate.
    fn ask_again(&mut self) {
        let message = match self.role {
            Role::PreCandidate => self.pre_vote_request(),
            // Not before term and own vote are durable: until then nothing was asked.
            Role::Candidate if self.votes.contains(&self.id) => self.vote_request(),
            Role::Candidate | Role::Follower | Role::Leader => return,
        };
        let others = self.other_voters().into_iter();
        let silent: Vec<NodeId> = others.filter(|n| !self.votes.contains(n)).collect();
        if !silent.is_empty() {
            why!(self, "no answer that helps from {silent:?} -> ask again");
        }
        for to in silent {
            self.send(to, message.clone());
        }
    }

    fn campaign(&mut self) {
        self.set_term(self.hard.term + 1);
        self.hard.vote = Some(self.id);
        let term = self.hard.term;
        why!(
            self,
            "a quorum would vote for this node -> stand in term {term}"
        );
        self.role = Role::Candidate;
        self.leader = None;
        // The own vote is counted, and the others are asked, when term and vote are durable.
        self.votes.clear();
        self.elapsed = 0;
        self.draw_timeout();
        for to in self.other_voters() {
            let message = self.vote_request();
            self.send_durable(to, message);
        }
    }

    /// Counts a candidate's vote for itself once it is durable.
    pub(crate) fn count_own_vote(&mut self) {
        let synced = self.writes.is_persisted(self.writes.hard());
        if self.role == Role::Candidate && synced && self.votes.insert(self.id) {
            // The others are asked only now: the time its own disk took is not taken from theirs.
            self.elapsed = 0;
            self.count_votes();
        }
    }

    fn count_votes(&mut self) {
        if !self.configuration().is_quorum(&self.votes) {
            return;
        }
        match self.role {
            Role::PreCandidate => self.campaign(),
            Role::Candidate => self.become_leader(),
            Role::Follower | Role::Leader => {}
        }
    }

    /// Raises the term; the vote of the new one is free (§5.1).
    fn set_term(&mut self, term: Term) {
        debug_assert!(term > self.hard.term, "terms only rise");
        self.hard.term = term;
        self.hard.vote = None;
        self.verified = 0;
        self.hard_state_changed();
        self.drop_forwarded();
    }

    /// Follows `leader`, or whoever turns out to lead, in `term`, which is not below the own.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<NodeId>) {
        if term > self.hard.term {
            self.set_term(term);
        }
        if self.role != Role::Follower {
            self.elapsed = 0;
            self.draw_timeout();
        }
        self.role = Role::Follower;
        self.leader = leader;
        self.votes.clear();
        if let Some(lead) = self.lead.take() {
            self.refuse_reads(lead);
        }
    }

    fn become_leader(&mut self) {
        let term = self.hard.term;
        why!(self, "a quorum voted for this node -> lead term {term}");
        self.role = Role::Leader;
        self.leader = Some(self.id);
        self.votes.clear();
        let index = self.log.last_index() + 1;
        let uncommitted = self.log.bytes_between(self.commit, index);
        let mut lead = Lead::new(index, uncommitted);
        lead.admit(self.id, self.configuration(), index);
        let noop = Entry {
            term,
            index,
            body: Body::Noop,
        };
        lead.uncommitted += noop.size();
        self.lead = Some(lead);
        // §8: only an entry of its own term tells a leader what is committed.
        self.append([noop]);
        self.replicate_all();
    }

    /// True when `term` is current and `from` leads it: then elections are held back. A stale
    /// leader is told of the higher term, or it would go on for ever.
    pub(crate) fn hear_leader(&mut self, from: NodeId, term: Term) -> bool {
        if term < self.hard.term {
            why!(
                self,
                "{from} leads term {term}, below {} -> say so",
                self.hard.term
            );
            let verdict = AppendVerdict::Stale;
            self.send_durable(
                from,
                Message::AppendReply {
                    term: self.hard.term,
                    verdict,
                },
            );
            return false;
        }
        let current = term == self.hard.term;
        let other = self.leader.is_some_and(|l| l != from);
        if current && (self.role == Role::Leader || other) {
            why!(
                self,
                "{from} says it leads term {term}, which has a leader -> ignore"
            );
            return false;
        }
        if !current || self.role != Role::Follower || self.leader != Some(from) {
            why!(self, "{from} leads term {term} -> follow it");
            self.become_follower(term, Some(from));
        }
        self.elapsed = 0;
        true
    }

    pub(crate) fn on_pre_vote(
        &mut self,
        from: NodeId,
        term: Term,
        last_index: Index,
        last_term: Term,
    ) {
        let own = self.hard.term;
        let refusal = if term <= own {
            Some("its term is not above the own")
        } else if self.leader_is_live() {
            Some("a leader is live")
        } else if !self.is_up_to_date(last_index, last_term) {
            Some("its log is behind")
        } else if self.bar().is_some() {
            self.bar()
        } else if self.comes_first(from, term, last_index, last_term) {
            Some("the own has just been asked for, and comes first")
        } else {
            None
        };
        match refusal {
            None => {
                why!(
                    self,
                    "pre-vote of {from} for term {term}: nothing against it -> grant"
                );
                self.send(
                    from,
                    Message::PreVoteReply {
                        term,
                        granted: true,
                    },
                );
            }
            // A refusal states the own term: one that asks from a lower term would otherwise
            // ask in vain for ever while its log is the only one that can win.
            Some(reason) => {
                why!(
                    self,
                    "pre-vote of {from} for term {term}: {reason} -> refuse, own term {own}"
                );
                self.send_durable(
                    from,
                    Message::PreVoteReply {
                        term: own,
                        granted: false,
                    },
                );
            }
        }
    }

    pub(crate) fn on_pre_vote_reply(&mut self, from: NodeId, term: Term, granted: bool) {
        if !granted {
            if term > self.hard.term {
                why!(self, "{from} refuses a pre-vote from term {term} -> follow");
                self.become_follower(term, None);
            }
            return;
        }
        if self.role == Role::PreCandidate && term == self.hard.term + 1 {
            why!(self, "{from} would vote for this node");
            self.votes.insert(from);
            self.count_votes();
        }
    }

    pub(crate) fn on_vote(
        &mut self,
        from: NodeId,
        term: Term,
        last_index: Index,
        last_term: Term,
        transfer: bool,
    ) {
        if term < self.hard.term {
            why!(
                self,
                "vote for {from} in term {term}: below the own -> refuse"
            );
            let message = Message::VoteReply {
                term: self.hard.term,
                granted: false,
            };
            return self.send_durable(from, message);
        }
        // Thesis §6.2, §4.2.3: with a live leader neither the vote nor the term is taken.
        if self.leader_is_live() && !transfer {
            return why!(
                self,
                "vote for {from} in term {term}: a leader is live -> ignore"
            );
        }
        if term > self.hard.term {
            self.become_follower(term, None);
        }
        let refusal = match self.hard.vote {
            _ if self.bar().is_some() => self.bar(),
            Some(other) if other != from => Some("the vote is given"),
            _ if !self.is_up_to_date(last_index, last_term) => Some("its log is behind"),
            _ => None,
        };
        let granted = refusal.is_none();
        match refusal {
            Some(reason) => why!(self, "vote for {from} in term {term}: {reason} -> refuse"),
            None => why!(
                self,
                "vote for {from} in term {term}: log up to date, vote free -> grant"
            ),
        }
        if granted {
            if self.hard.vote.is_none() {
                self.hard.vote = Some(from);
                self.hard_state_changed();
            }
            self.elapsed = 0;
        }
        self.send_durable(from, Message::VoteReply { term, granted });
    }

    pub(crate) fn on_vote_reply(&mut self, from: NodeId, granted: bool) {
        if self.role == Role::Candidate && granted {
            why!(self, "{from} votes for this node");
            self.votes.insert(from);
            self.count_votes();
        }
    }

    /// After damage: votes again once the synced log equals that of a leader of term T, either
    /// T above the damaged term and through an entry of T, or T that term and through the last
    /// index this node is known to have had.
    pub(crate) fn end_abstention(&mut self) {
        let Some(abstain) = self.hard.abstain else {
            return;
        };
        let through = self.verified.min(self.log.synced());
        let term = self.hard.term;
        let over = if term > abstain.term {
            through > 0 && self.log.term(through) == Some(term)
        } else {
            term == abstain.term && through >= abstain.index && self.leader.is_some()
        };
        if over {
            why!(
                self,
                "the synced log equals the leader's of term {term} through {through} -> may vote again"
            );
            self.hard.abstain = None;
            self.hard_state_changed();
        }
    }

    pub(crate) fn state_restored(&mut self) {
        if std::mem::take(&mut self.state_lost) {
            why!(
                self,
                "the state is present again -> may acknowledge and vote"
            );
        }
    }
}
