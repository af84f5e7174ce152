//! Configurations in rows: differences, and now and then a whole one, in ranges.
//!
//! | key | value |
//! |---|---|
//! | `c` num | the configuration of this number ([`Row`]) |
//! | `j` group num | the group as it joined in that configuration |
//!
//! Numbers are big-endian, eight bytes. Every [`FULL_EVERY`]th configuration is whole, so that
//! reading any of them applies fewer than that many differences. A configuration names its groups by
//! the number in which they joined; their addresses are stored once per join. The holder of a
//! shard is not stored where it follows: it is the owner, or else the holder of the configuration before.

use crate::config::{Config, ConfigNum, Group, GroupId, ShardId};
use raft::store::{Rows, StoreError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Configurations whose number is a multiple of this are stored whole.
pub const FULL_EVERY: ConfigNum = 64;
/// Most configurations that [`next_for`] looks at.
pub const MAX_RUN: u64 = 1024;
/// Most owners of shards that it looks at: it takes a few milliseconds at most.
const RUN_OWNERS: u64 = 1 << 20;

/// A configuration without the groups' addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub num: ConfigNum,
    /// Owner of each shard.
    pub shards: Vec<Option<GroupId>>,
    /// Holder of each shard.
    pub holders: Vec<Option<GroupId>>,
    /// Members, and the configuration in which each joined.
    pub members: BTreeMap<GroupId, ConfigNum>,
    /// Pinned shards.
    pub pins: BTreeSet<ShardId>,
}

impl Version {
    /// Configuration 0: no groups, nothing was ever owned.
    pub fn first(shards: u32) -> Version {
        let none = vec![None; shards as usize];
        Version {
            shards: none.clone(),
            holders: none,
            ..Version::default()
        }
    }

    /// Sets the owners, and the holders that follow from them.
    pub fn assign(&mut self, shards: Vec<Option<GroupId>>) {
        for (holder, owner) in self.holders.iter_mut().zip(&shards) {
            *holder = owner.or(*holder);
        }
        self.shards = shards;
    }
}

/// Consecutive numbers as (distance from the end of the run before, length).
type Runs = Vec<(u32, u32)>;

/// Owners of a list of shards: runs of (length, index into the table plus one; 0: nobody).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Owners {
    table: Vec<GroupId>,
    runs: Vec<(u32, u32)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Row {
    /// Version 1, whole.
    Full {
        shards: Owners,
        /// Holders of the shards that nobody owns.
        held: Owners,
        members: Vec<(GroupId, ConfigNum)>,
        pins: Runs,
    },
    /// Version 1, what differs from the configuration before.
    Diff {
        changed: Runs,
        /// Of the changed shards.
        owners: Owners,
        joined: Vec<GroupId>,
        left: Vec<GroupId>,
        pinned: Runs,
        unpinned: Runs,
    },
}

/// Stores `next`, the successor of `before` (`None`: it is the first).
pub fn put(rows: &mut Rows, before: Option<&Version>, next: &Version) -> Result<(), StoreError> {
    let row = match before {
        Some(before) if !next.num.is_multiple_of(FULL_EVERY) => diff(before, next),
        _ => full(next),
    };
    rows.put(&config_key(next.num), &encode(&row))
}

/// Stores how a group joined in configuration `num`.
pub fn put_join(
    rows: &mut Rows,
    num: ConfigNum,
    group: GroupId,
    info: &Group,
) -> Result<(), StoreError> {
    rows.put(&join_key(group, num), &encode_row(info))
}

/// The configuration of a number that exists.
pub fn get(rows: &Rows, num: ConfigNum) -> Result<Version, StoreError> {
    let base = num - num % FULL_EVERY;
    let mut version = Version::default();
    for num in base..=num {
        step(rows, &mut version, num)?;
    }
    Ok(version)
}

/// The configuration to which a group in `after` may go at once: the last of those behind it that
/// change nothing for the group (it owns and holds the same shards in all of them), or the next one
/// when that changes something already. Looks at [`MAX_RUN`] configurations at most, fewer when
/// there are many shards. `after` is below `latest`.
pub fn next_for(
    rows: &Rows,
    latest: ConfigNum,
    after: ConfigNum,
    group: GroupId,
) -> Result<Version, StoreError> {
    let mut version = get(rows, after)?;
    let share = |v: &Version| -> Vec<(bool, bool)> {
        crate::config::share(&v.shards, &v.holders, group).collect()
    };
    let now = share(&version);
    let most = (RUN_OWNERS / now.len().max(1) as u64).min(MAX_RUN);
    step(rows, &mut version, after + 1)?;
    if share(&version) != now {
        return Ok(version);
    }
    let mut last = version.clone();
    for num in after + 2..=latest.min(after + most) {
        step(rows, &mut version, num)?;
        if share(&version) != now {
            break;
        }
        last.clone_from(&version);
    }
    Ok(last)
}

/// Turns the version before into that of `num`, which exists.
fn step(rows: &Rows, version: &mut Version, num: ConfigNum) -> Result<(), StoreError> {
    let damaged = |reason| damaged("configuration", num, reason);
    let row = rows.get(&config_key(num))?;
    let row = row.ok_or_else(|| damaged("is missing"))?;
    let row = decode(&row).ok_or_else(|| damaged("does not decode"))?;
    apply(version, num, row).ok_or_else(|| damaged("contradicts itself"))
}

/// Adds the groups' addresses.
pub fn expand(rows: &Rows, version: &Version) -> Result<Config, StoreError> {
    let mut groups = BTreeMap::new();
    for (group, joined) in &version.members {
        let row = rows.get(&join_key(*group, *joined))?;
        let info = row
            .as_deref()
            .and_then(decode_row)
            .ok_or_else(|| damaged("the join of group", *group, "is missing or does not decode"))?;
        groups.insert(*group, info);
    }
    Ok(Config {
        num: version.num,
        shards: version.shards.clone(),
        holders: version.holders.clone(),
        groups,
        pins: version.pins.clone(),
    })
}

fn full(version: &Version) -> Row {
    let nobodys = version.shards.iter().zip(&version.holders);
    Row::Full {
        shards: to_owners(version.shards.iter().copied()),
        held: to_owners(
            nobodys
                .filter(|(owner, _)| owner.is_none())
                .map(|(_, holder)| *holder),
        ),
        members: version.members.iter().map(|(g, n)| (*g, *n)).collect(),
        pins: to_runs(version.pins.iter().copied()),
    }
}

fn diff(before: &Version, next: &Version) -> Row {
    let changed = || {
        let pairs = before.shards.iter().zip(&next.shards).enumerate();
        pairs.filter(|(_, (old, new))| old != new)
    };
    // A group that left and joined again has a new number of joining.
    let joined = next
        .members
        .iter()
        .filter(|(g, n)| before.members.get(g) != Some(n));
    let left = before
        .members
        .keys()
        .filter(|g| !next.members.contains_key(g));
    Row::Diff {
        changed: to_runs(changed().map(|(shard, _)| shard as u32)),
        owners: to_owners(changed().map(|(_, (_, new))| *new)),
        joined: joined.map(|(g, _)| *g).collect(),
        left: left.copied().collect(),
        pinned: to_runs(next.pins.difference(&before.pins).copied()),
        unpinned: to_runs(before.pins.difference(&next.pins).copied()),
    }
}

/// Turns the version before into that of `num`; `None` when the row contradicts it.
fn apply(version: &mut Version, num: ConfigNum, row: Row) -> Option<()> {
    version.num = num;
    match row {
        Row::Full {
            shards,
            held,
            members,
            pins,
        } => {
            let shards = from_owners(&shards)?;
            let mut held = from_owners(&held)?.into_iter();
            version.holders = shards
                .iter()
                .map(|owner| {
                    if owner.is_some() {
                        Some(*owner)
                    } else {
                        held.next()
                    }
                })
                .collect::<Option<_>>()?;
            version.shards = shards;
            version.members = members.into_iter().collect();
            version.pins = from_runs(&pins)?.into_iter().collect();
        }
        Row::Diff {
            changed,
            owners,
            joined,
            left,
            pinned,
            unpinned,
        } => {
            let (changed, owners) = (from_runs(&changed)?, from_owners(&owners)?);
            if changed.len() != owners.len() {
                return None;
            }
            for (shard, owner) in changed.into_iter().zip(owners) {
                *version.shards.get_mut(shard as usize)? = owner;
                if owner.is_some() {
                    *version.holders.get_mut(shard as usize)? = owner;
                }
            }
            for group in left {
                version.members.remove(&group)?;
            }
            version.members.extend(joined.into_iter().map(|g| (g, num)));
            for shard in from_runs(&unpinned)? {
                version.pins.remove(&shard);
            }
            version.pins.extend(from_runs(&pinned)?);
        }
    }
    Some(())
}

fn to_runs(sorted: impl Iterator<Item = u32>) -> Runs {
    let mut runs: Runs = Vec::new();
    let mut end = 0;
    for number in sorted {
        match runs.last_mut() {
            Some((_, length)) if number == end => *length += 1,
            _ => runs.push((number - end, 1)),
        }
        end = number + 1;
    }
    runs
}

fn from_runs(runs: &Runs) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    let mut end = 0u32;
    for (gap, length) in runs {
        let start = end.checked_add(*gap)?;
        end = start
            .checked_add(*length)
            .filter(|end| *end <= *crate::config::SHARDS.end())?;
        numbers.extend(start..end);
    }
    Some(numbers)
}

fn to_owners(owners: impl Iterator<Item = Option<GroupId>> + Clone) -> Owners {
    let table: BTreeSet<GroupId> = owners.clone().flatten().collect();
    let table: Vec<GroupId> = table.into_iter().collect();
    let mut runs: Vec<(u32, u32)> = Vec::new();
    for owner in owners {
        let index = owner.map_or(0, |g| table.partition_point(|t| *t < g) as u32 + 1);
        match runs.last_mut() {
            Some((length, last)) if *last == index => *length += 1,
            _ => runs.push((1, index)),
        }
    }
    Owners { table, runs }
}

fn from_owners(owners: &Owners) -> Option<Vec<Option<GroupId>>> {
    let mut list = Vec::new();
    for (length, index) in &owners.runs {
        let owner = match index.checked_sub(1) {
            None => None,
            Some(index) => Some(*owners.table.get(index as usize)?),
        };
        if list.len() + *length as usize > *crate::config::SHARDS.end() as usize {
            return None;
        }
        list.extend(std::iter::repeat_n(owner, *length as usize));
    }
    Some(list)
}

fn config_key(num: ConfigNum) -> Vec<u8> {
    [b"c".as_slice(), &num.to_be_bytes()].concat()
}

fn join_key(group: GroupId, num: ConfigNum) -> Vec<u8> {
    [b"j".as_slice(), &group.to_be_bytes(), &num.to_be_bytes()].concat()
}

/// A row's value with its format version.
#[derive(Serialize, Deserialize)]
enum Stored<T> {
    V1(T),
}

/// Encodes a row's value.
pub(crate) fn encode_row<T: Serialize>(value: &T) -> Vec<u8> {
    encode(&Stored::V1(value))
}

/// Decodes a row's value.
pub(crate) fn decode_row<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    decode(bytes).map(|Stored::V1(value)| value)
}

/// Encodes a value of ours.
pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).expect("writing to memory does not fail, and our types have lengths")
}

/// Decodes a value; bytes behind it make it another one.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

/// A row of ours that is not what was written.
pub(crate) fn damaged(what: &str, number: u64, reason: &str) -> StoreError {
    StoreError::Damaged {
        path: "the controllers' state".into(),
        reason: format!("{what} {number} {reason}"),
    }
}
