//! What a leader knows of one follower, and how much may be under way to it.

use crate::types::Index;
use std::collections::VecDeque;

/// How a follower is fed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Feed {
    /// Where its log agrees is being found out: one append at a time.
    Probe,
    /// Appends are sent without waiting for the answers.
    Replicate,
    /// It needs entries that are compacted away; a snapshot is on its way.
    Snapshot,
}

/// One follower, in the eyes of its leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    /// Highest index known synced there and equal to the leader's (§5.3). Only raised.
    pub(crate) matched: Index,
    /// Next index to send.
    pub(crate) next: Index,
    /// How it is fed.
    pub(crate) feed: Feed,
    /// Probing, and the one append is under way.
    pub(crate) paused: bool,
    /// The newest heartbeat round when it was sent.
    pub(crate) paused_round: u64,
    /// Heard from since the last look at the quorum.
    pub(crate) active: bool,
    /// Highest heartbeat round answered.
    pub(crate) round: u64,
    /// A round sent since it is fed this way and not answered yet, nor any later one, and the last
    /// index sent before it. Not the newest round: where answers take longer than the next round does
    /// to come, that one is never answered.
    pub(crate) beat: Option<(u64, Index)>,
    /// Commit index last told.
    pub(crate) told: Index,
    /// What it is to be sent next is being read from the disk.
    pub(crate) fetching: bool,
    /// How often `matched` was given up because the follower's disk lost what it rests on.
    pub(crate) losses: u64,
    /// Appends under way: last index and bytes.
    inflight: VecDeque<(Index, usize)>,
    inflight_bytes: usize,
}

impl Progress {
    /// A follower of which nothing is known but that it may be as long as the leader's log.
    pub(crate) fn new(next: Index) -> Progress {
        Progress {
            matched: 0,
            next,
            feed: Feed::Probe,
            paused: false,
            paused_round: 0,
            active: false,
            round: 0,
            beat: None,
            told: 0,
            fetching: false,
            losses: 0,
            inflight: VecDeque::new(),
            inflight_bytes: 0,
        }
    }

    /// The synced log there equals the leader's through `index`. True when that is news.
    pub(crate) fn raise(&mut self, index: Index) -> bool {
        while let Some((_, bytes)) = self.inflight.front().filter(|(last, _)| *last <= index) {
            self.inflight_bytes -= bytes;
            self.inflight.pop_front();
        }
        self.next = self.next.max(index + 1);
        if index <= self.matched {
            return false;
        }
        self.matched = index;
        true
    }

    /// Feed it from `next`, one append at a time.
    pub(crate) fn probe(&mut self, next: Index) {
        self.feed = Feed::Probe;
        self.paused = false;
        self.next = next.max(self.matched + 1);
        self.clear_inflight();
    }

    /// Send nothing until it answers, or answers a round later than `round`.
    pub(crate) fn pause(&mut self, round: u64) {
        self.paused = true;
        self.paused_round = round;
    }

    /// It holds the leader's log through `received` as of heartbeat `round`, synced or not: what
    /// was sent before that round and is not there was lost. True when that is so.
    pub(crate) fn received(&mut self, received: Index, round: u64) -> bool {
        let beat = self.beat.take_if(|(sent, _)| round >= *sent);
        match self.feed {
            // The probe is there; its acknowledgement waits for the sync.
            Feed::Probe if self.paused && received >= self.next => {
                self.replicate(received + 1);
                false
            }
            Feed::Probe => {
                self.paused &= round <= self.paused_round;
                false
            }
            Feed::Replicate if beat.is_some_and(|(_, sent)| received < sent) => {
                self.probe(received + 1);
                true
            }
            Feed::Replicate | Feed::Snapshot => false,
        }
    }

    /// Feed it from `next` without waiting.
    pub(crate) fn replicate(&mut self, next: Index) {
        self.feed = Feed::Replicate;
        self.paused = false;
        self.clear_inflight();
        self.next = next.max(self.matched + 1);
    }

    /// Wait for the driver's snapshot.
    pub(crate) fn snapshot(&mut self) {
        self.feed = Feed::Snapshot;
        self.clear_inflight();
    }

    /// Its disk lost entries that it had acknowledged: what was known of it is void.
    pub(crate) fn forget(&mut self, next: Index) {
        self.losses += 1;
        self.matched = 0;
        self.probe(next);
    }

    fn clear_inflight(&mut self) {
        self.beat = None;
        self.inflight.clear();
        self.inflight_bytes = 0;
    }

    /// Room for one more append, in bytes; `None` when there is none. With nothing under way
    /// there is always room, or an entry larger than the limit would never leave.
    pub(crate) fn room(&self, max: usize, max_bytes: usize) -> Option<usize> {
        if self.inflight.is_empty() {
            return Some(usize::MAX);
        }
        let left = max_bytes.saturating_sub(self.inflight_bytes);
        (self.inflight.len() < max && left > 0).then_some(left)
    }

    /// An append through `last` was sent.
    pub(crate) fn sent(&mut self, last: Index, bytes: usize) {
        self.inflight.push_back((last, bytes));
        self.inflight_bytes += bytes;
        self.next = last + 1;
    }

    /// As if it was heard from just now, and nothing were under way.
    pub(crate) fn rewind(&mut self) {
        self.active = true;
        self.told = 0;
        self.losses = 0;
        self.clear_inflight();
    }

    /// Appends and bytes under way.
    pub(crate) fn inflight(&self) -> (usize, usize) {
        (self.inflight.len(), self.inflight_bytes)
    }
}
