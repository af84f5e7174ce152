//! What the log's tests share: chance, and the model of what a log must hold.
#![allow(dead_code)]

use raft::log::{Batch, Log, LogError, LogOptions, LogOwner, Recovered};
use raft_protocol::{Body, Configuration, Entry, HardState, SnapshotMeta};
use std::collections::BTreeMap;
use world::disk::Disk;

/// Small numbers, so that a short test rolls, fills and purges.
pub const OPTIONS: LogOptions = LogOptions {
    segment_bytes: 16 << 10,
    fill_bytes: 2 << 10,
    recover_bytes: 24 << 10,
    reserve_bytes: 64 << 10,
};

pub const OWNER: LogOwner = LogOwner {
    group: 1,
    node: 2,
    disk: 3,
};

/// splitmix64
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

pub fn meta(index: u64, term: u64) -> SnapshotMeta {
    SnapshotMeta {
        index,
        term,
        configuration: Configuration {
            voters: BTreeMap::from([(1, 10), (2, 3), (3, 30)]),
            ..Configuration::default()
        },
    }
}

pub fn entry(index: u64, term: u64, payload: &[u8]) -> Entry {
    Entry {
        term,
        index,
        body: Body::Command(payload.into()),
    }
}

pub fn hard_state(term: u64, vote: Option<u64>) -> HardState {
    HardState {
        term,
        vote,
        abstain: None,
    }
}

pub fn open(disk: &Disk, stamp: &SnapshotMeta) -> Result<(Log, Recovered), LogError> {
    Log::open(disk, OWNER, OPTIONS, stamp)
}

/// What a log holds at a moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Model {
    pub hard_state: HardState,
    /// Below and at this index entries may be gone.
    pub base: u64,
    /// Also those at and below the base, as far as they were ever there.
    pub entries: BTreeMap<u64, Entry>,
    /// The last index.
    pub last: u64,
}

impl Model {
    pub fn append(&mut self, batch: &Batch) {
        self.hard_state = batch.hard_state;
        for run in &batch.runs {
            self.entries.split_off(&run[0].index);
            self.entries
                .extend(run.iter().map(|e| (e.index, e.clone())));
            self.last = run[run.len() - 1].index;
        }
    }

    pub fn term_at(&self, index: u64) -> Option<u64> {
        self.entries.get(&index).map(|e| e.term)
    }

    /// What the log must be when the state covers `stamp`.
    pub fn behind(&self, stamp: &SnapshotMeta) -> Model {
        let mut model = self.clone();
        if stamp.index > 0 && model.term_at(stamp.index) != Some(stamp.term) {
            model.reset(model.hard_state, stamp);
        }
        if stamp.term > model.hard_state.term {
            model.hard_state.term = stamp.term;
            model.hard_state.vote = None;
        }
        model
    }

    /// Old segments, whose entries the state holds, may be gone after a start.
    pub fn without_covered(mut self, stamp: &SnapshotMeta, found: &Recovered) -> Model {
        if found.base.index <= stamp.index {
            self.base = self.base.max(found.base.index);
        }
        self
    }

    /// Keeps what lies behind `base` if the term there is the same.
    pub fn reset(&mut self, hard_state: HardState, base: &SnapshotMeta) -> Vec<Entry> {
        self.hard_state = hard_state;
        self.base = base.index;
        if self.term_at(base.index) == Some(base.term) {
            return self
                .entries
                .range(base.index + 1..)
                .map(|(_, e)| e.clone())
                .collect();
        }
        self.entries = BTreeMap::from([(base.index, entry(base.index, base.term, b"base"))]);
        self.last = base.index;
        Vec::new()
    }

    /// Why `found` is not this; `None` when it is.
    pub fn differs(&self, found: &Recovered) -> Option<String> {
        let mut hard_state = found.hard_state;
        if found.damage.is_some() {
            hard_state.abstain = None;
        }
        if hard_state != self.hard_state {
            return Some(format!("{hard_state:?} is not {:?}", self.hard_state));
        }
        self.entries_differ(found)
    }

    pub fn entries_differ(&self, found: &Recovered) -> Option<String> {
        let (base, last) = (
            found.base.index,
            found.entries.last().map_or(found.base.index, |e| e.index),
        );
        if base > self.base || last != self.last {
            return Some(format!(
                "holds {base} to {last} instead of at most {} to {}",
                self.base, self.last
            ));
        }
        if base > 0 && self.term_at(base).is_some_and(|t| t != found.base.term) {
            return Some(format!("the base is {:?}", found.base));
        }
        for (index, found) in (base + 1..).zip(&found.entries) {
            if self.entries.get(&index) != Some(found) {
                return Some(format!("entry {index} is {found:?}"));
            }
        }
        None
    }
}
