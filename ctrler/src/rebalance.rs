//! Who owns what after a join or a leave: a pure, deterministic function with minimal moves.

use crate::config::{GroupId, ShardId};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// The balanced assignment with the fewest moves.
///
/// Pinned shards stay with their owner as long as it is a member. The other shards fill the
/// least-loaded groups, so that no group has more than one shard above another unless pins alone
/// put it there. With no members every shard belongs to nobody. O(S log S + G log G).
///
/// Minimal: how many groups end with how many shards is fixed by balance alone; only *which* of
/// the groups get one shard more is free, and a group saves a move by it exactly when it holds
/// that shard already. So those that hold most get it, and nobody gives away more than its excess.
pub fn rebalance(
    shards: &[Option<GroupId>],
    members: &BTreeSet<GroupId>,
    pins: &BTreeSet<ShardId>,
) -> Vec<Option<GroupId>> {
    if members.is_empty() {
        return vec![None; shards.len()];
    }
    let mut held: BTreeMap<GroupId, usize> = members.iter().map(|g| (*g, 0)).collect();
    let mut pinned = held.clone();
    let mut next = shards.to_vec();
    for (shard, owner) in next.iter_mut().enumerate() {
        let Some(group) = *owner else { continue };
        match held.get_mut(&group) {
            Some(count) => *count += 1,
            None => {
                *owner = None;
                continue;
            }
        }
        if pins.contains(&(shard as ShardId)) {
            *pinned.entry(group).or_default() += 1;
        }
    }
    let target = targets(shards.len(), &held, &pinned);

    // From the back, so that what a group keeps and what it gives stay in few ranges.
    let mut excess: BTreeMap<GroupId, usize> = held
        .iter()
        .map(|(group, held)| (*group, held.saturating_sub(target[group])))
        .collect();
    for (shard, owner) in next.iter_mut().enumerate().rev() {
        let Some(group) = *owner else { continue };
        if pins.contains(&(shard as ShardId)) {
            continue;
        }
        if let Some(left) = excess.get_mut(&group).filter(|left| **left > 0) {
            *left -= 1;
            *owner = None;
        }
    }

    let mut wanting = target
        .iter()
        .flat_map(|(group, target)| (held[group]..*target).map(move |_| *group));
    for owner in next.iter_mut().filter(|owner| owner.is_none()) {
        *owner = wanting.next();
    }
    next
}

/// How many of `shards` each group shall have: its pinned ones, or the common level where that is
/// more; the remainder goes, one each, to the groups at the level that hold most.
fn targets(
    shards: usize,
    held: &BTreeMap<GroupId, usize>,
    pinned: &BTreeMap<GroupId, usize>,
) -> BTreeMap<GroupId, usize> {
    let used = |level: usize| pinned.values().map(|p| (*p).max(level)).sum::<usize>();
    // The highest level that does not need more shards than there are.
    let (mut level, mut above) = (0, shards + 1);
    while above - level > 1 {
        let middle = level + (above - level) / 2;
        if used(middle) <= shards {
            level = middle;
        } else {
            above = middle;
        }
    }
    let mut target: BTreeMap<GroupId, usize> =
        pinned.iter().map(|(g, p)| (*g, (*p).max(level))).collect();
    let mut at_level: Vec<GroupId> =
        pinned.iter().filter(|(_, p)| **p <= level).map(|(g, _)| *g).collect();
    at_level.sort_by_key(|g| (Reverse(held[g]), *g));
    for group in at_level.into_iter().take(shards - used(level)) {
        *target.entry(group).or_default() += 1;
    }
    target
}
