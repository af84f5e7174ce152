//! A configuration: the assignment of shards to groups at one number.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A replica group; 0 is the controllers' own and never owns shards.
pub type GroupId = u64;
/// A shard, from 0 to the number of shards minus one.
pub type ShardId = u32;
/// Number of a configuration; 0 has no groups.
pub type ConfigNum = u64;

/// Fewest and most shards of a cluster.
pub const SHARDS: std::ops::RangeInclusive<u32> = 1..=16_384;
/// Shards of a cluster unless said otherwise at birth.
pub const DEFAULT_SHARDS: u32 = 10;

/// Most groups of one configuration.
pub const MAX_GROUPS: usize = 1024;
/// Most servers of one group.
pub const MAX_SERVERS: usize = 15;
/// Most group numbers ever used, members and those that left; a group's record is kept for ever.
pub const MAX_RECORDS: usize = 4096;
/// Bytes of all groups' addresses together, so that every answer fits a frame.
pub const MAX_ADDRESS_BYTES: usize = 4 << 20;

/// A group as the controllers know it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its servers, "host:port" each.
    #[serde(deserialize_with = "crate::bounded::servers")]
    pub servers: Vec<String>,
    /// The random id of its birth (first entry of its log); history is served only for this pair.
    pub birth: u128,
}

/// One configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Its number.
    pub num: ConfigNum,
    /// Owner of each shard; `None`: nobody (no groups).
    pub shards: Vec<Option<GroupId>>,
    /// Who holds each shard's data: the owner of the newest configuration up to this one in which it
    /// had one; `None`: never owned. Equal to the owner where there is one.
    pub holders: Vec<Option<GroupId>>,
    /// Groups that may own shards.
    pub groups: BTreeMap<GroupId, Group>,
    /// Shards pinned to their owner by a Move.
    pub pins: BTreeSet<ShardId>,
}

/// For each shard: whether a group owns it, and whether it holds it. Configurations in a row in
/// which these are the same change nothing for the group.
pub fn share<'a>(
    owners: &'a [Option<GroupId>],
    holders: &'a [Option<GroupId>],
    group: GroupId,
) -> impl Iterator<Item = (bool, bool)> + 'a {
    let group = Some(group);
    let pairs = owners.iter().zip(holders);
    pairs.map(move |(owner, holder)| (*owner == group, *holder == group))
}

/// Where a group in configuration `after` may go at once, by the whole list of configurations (the
/// one of number `n` at place `n`); `None` when there is none behind it. The controllers' answer to
/// [`crate::api::Request::Next`] is the same, or an earlier one of the run.
pub fn next_of(configs: &[Config], after: ConfigNum, group: GroupId) -> Option<&Config> {
    let share = |c: &Config| share(&c.shards, &c.holders, group).collect::<Vec<_>>();
    let behind = configs.get(after as usize + 1..)?;
    let now = share(configs.get(after as usize)?);
    let same = behind.iter().take_while(|c| share(c) == now);
    same.last().or(behind.first())
}

/// What the controllers know of a group besides configurations; kept after it left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The newest servers and birth.
    pub group: Group,
    /// The group owes nothing of any configuration up to this one.
    pub settled: ConfigNum,
    /// It held some shard (Held ones included) when it settled that.
    pub holds: bool,
    /// The configuration in which it left, while it is not a member.
    pub left: Option<ConfigNum>,
}

impl Record {
    /// True when the group's leave is complete, and it may be shut down: it settled the
    /// configuration in which it left, and held nothing then. "Owes nothing" alone is also true
    /// before the group has heard of its leave.
    pub fn has_left(&self) -> bool {
        self.left.is_some_and(|left| self.settled >= left) && !self.holds
    }
}
