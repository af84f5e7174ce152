//! What the rows besides keys and sessions hold. Each is a versioned enum, because postcard does
//! not describe itself; golden bytes stand in the tests.

use crate::api::ShardState;
use bytes::Bytes;
use ctrler::config::{ConfigNum, GroupId};
use raft::At;
use raft::store::StoreError;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::path::PathBuf;

/// The group's own row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Random id of the group's first command; until then nothing is served.
    pub birth: Option<u128>,
    /// Kinds of commands above this level are refused, until every member can read them.
    pub level: u32,
    /// The configuration the group is in.
    pub config: ConfigNum,
}

/// Owner and holder of every shard in the group's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Owner of each shard.
    pub owners: Vec<Option<GroupId>>,
    /// Who holds its data: the last owner it had; `None`: it never had one.
    pub holders: Vec<Option<GroupId>>,
}

/// So many shards in a row with the same owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// Number of shards.
    pub shards: u32,
    /// Their owner.
    pub owner: Option<GroupId>,
}

/// Runs of equal owners.
pub fn to_runs(owners: &[Option<GroupId>]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for owner in owners {
        match runs.last_mut() {
            Some(run) if run.owner == *owner => run.shards += 1,
            _ => runs.push(Run {
                shards: 1,
                owner: *owner,
            }),
        }
    }
    runs
}

/// The owners in runs; `None` when they are more than a cluster can have.
pub fn from_runs(runs: &[Run]) -> Option<Vec<Option<GroupId>>> {
    let total: u64 = runs.iter().map(|r| u64::from(r.shards)).sum();
    if total > u64::from(*ctrler::config::SHARDS.end()) {
        return None;
    }
    Some(
        runs.iter()
            .flat_map(|r| (0..r.shards).map(|_| r.owner))
            .collect(),
    )
}

/// A place in a copy of a shard: the first row not yet taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Cursor {
    /// Its key, without the copy's prefix. Empty: the start.
    pub key: Bytes,
}

/// A shard that is not Absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardRow {
    /// Its state.
    pub state: ShardState,
    /// The configuration at which this copy came here.
    pub incarnation: ConfigNum,
    /// Leaving, and no longer served.
    pub frozen: bool,
    /// Log time at which it was frozen; idle ages of its sessions are counted up to here.
    pub frozen_ms: u64,
    /// Arriving: the group it comes from. Leaving: the group it goes to.
    pub peer: Option<GroupId>,
    /// Leaving: the birth id of that group; nobody else may take it.
    pub peer_birth: Option<u128>,
    /// Arriving: the place from which on rows are missing.
    pub cursor: Cursor,
    /// A change of a key has this plus its index in the log as its number. Frozen: the highest
    /// number that a change can have had; the next owner's begin above it.
    pub changes: u64,
}

impl ShardRow {
    /// A shard served, of a copy that came with a configuration.
    pub fn serving(incarnation: ConfigNum) -> ShardRow {
        ShardRow {
            state: ShardState::Serving,
            incarnation,
            frozen: false,
            frozen_ms: 0,
            peer: None,
            peer_birth: None,
            cursor: Cursor::default(),
            changes: 0,
        }
    }

    /// A shard on its way here.
    pub fn arriving(incarnation: ConfigNum, from: GroupId) -> ShardRow {
        ShardRow {
            state: ShardState::Arriving,
            peer: Some(from),
            ..ShardRow::serving(incarnation)
        }
    }

    /// The number of a change at an index of the log.
    pub fn change(&self, index: u64) -> u64 {
        self.changes.saturating_add(index)
    }

    /// It is not served from here on.
    pub fn freeze(&mut self, at: At) {
        self.frozen = true;
        self.frozen_ms = at.time_ms;
        self.changes = self.change(at.index);
    }

    /// The same copy, served (again).
    pub fn served(&self) -> ShardRow {
        ShardRow {
            changes: self.changes,
            ..ShardRow::serving(self.incarnation)
        }
    }

    /// Only these shards accept reads and writes.
    pub fn accepts(&self) -> bool {
        match self.state {
            ShardState::Serving => true,
            ShardState::Leaving => !self.frozen,
            ShardState::Absent | ShardState::Arriving | ShardState::Held => false,
        }
    }
}

/// Size of a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Keys.
    pub keys: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
}

/// A copy given away whose rows are still there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    /// Bytes of keys and values not yet swept.
    pub bytes: u64,
    /// Rows below this key (without the copy's prefix) are swept.
    pub swept: Bytes,
}

#[derive(Serialize, Deserialize)]
struct LayoutV1 {
    owners: Vec<Run>,
    holders: Vec<Run>,
}

/// A row's value: the variant is its version.
#[derive(Serialize, Deserialize)]
enum Versioned<T> {
    V1(T),
}

fn encode<T: Serialize>(value: T) -> Vec<u8> {
    postcard::to_stdvec(&Versioned::V1(value)).expect("rows are plain data")
}

fn decode<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, StoreError> {
    match postcard::from_bytes::<Versioned<T>>(bytes) {
        Ok(Versioned::V1(value)) => Ok(value),
        Err(error) => Err(StoreError::Damaged {
            path: PathBuf::from("state"),
            reason: format!("{what}: unreadable, or of a newer version: {error}"),
        }),
    }
}

/// A kind of row.
pub trait Row: Sized {
    /// The bytes kept.
    fn to_row(&self) -> Vec<u8>;
    /// Reads them.
    fn from_row(bytes: &[u8]) -> Result<Self, StoreError>;
}

macro_rules! row {
    ($type:ty, $what:literal) => {
        impl Row for $type {
            fn to_row(&self) -> Vec<u8> {
                encode(self)
            }
            fn from_row(bytes: &[u8]) -> Result<Self, StoreError> {
                decode(bytes, $what)
            }
        }
    };
}

row!(Meta, "the group's row");
row!(ShardRow, "a shard's row");
row!(Counters, "a shard's counters");
row!(Dead, "the row of a shard given away");

impl Row for Layout {
    fn to_row(&self) -> Vec<u8> {
        encode(LayoutV1 {
            owners: to_runs(&self.owners),
            holders: to_runs(&self.holders),
        })
    }
    fn from_row(bytes: &[u8]) -> Result<Layout, StoreError> {
        let runs: LayoutV1 = decode(bytes, "the configuration's row")?;
        match (from_runs(&runs.owners), from_runs(&runs.holders)) {
            (Some(owners), Some(holders)) if owners.len() == holders.len() => {
                Ok(Layout { owners, holders })
            }
            _ => Err(StoreError::Damaged {
                path: PathBuf::from("state"),
                reason: "the configuration's row: impossible number of shards".to_owned(),
            }),
        }
    }
}
