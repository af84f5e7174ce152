//! One form for cores that behave alike, for programs that visit every state within a bound.

use crate::chance::Chance;
use crate::core::Core;
use crate::types::NodeId;

impl Core {
    /// Sets to fixed values what tells cores apart that behave alike: how far clocks have run
    /// (whoever searches chooses when a timeout passes), and the numbers of writes, which begin
    /// again behind the last one that is durable: of those handed out and not reported, the
    /// oldest is number 1. Of a message that waits twice for the same write one is left.
    ///
    /// The pipeline to a follower counts as empty afterwards, so its limits must be out of reach
    /// (`max_inflight`, `max_inflight_bytes`, `max_uncommitted_bytes`), and `heartbeat_ticks` 1.
    pub fn canonical(&mut self) {
        self.chance = Chance::new(0);
        self.elapsed = 0;
        self.timeout = self.settings.election_ticks;
        self.forwarded.rewind(self.settings.election_ticks);
        let shift = self.writes.renumber();
        self.log.renumber(shift);
        if let Some(lead) = &mut self.lead {
            lead.rewind();
        }
    }

    /// Whether an answer of `from` to this node's request for votes would still be counted.
    pub fn wants_vote_of(&self, from: NodeId) -> bool {
        self.role == crate::types::Role::Candidate && !self.votes.contains(&from)
    }
}
