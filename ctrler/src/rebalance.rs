//! Who owns what after a join or a leave: a pure, deterministic function with minimal moves.

use crate::config::{GroupId, ShardId};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// The balanced assignment with the fewest moves.
///
/// Pinned shards stay with their owner as long as it is a member. The other shards fill the
/// least-loaded groups, so that no group has more than one shard above another unless pins alone
/// put it there. With no members every shard belongs to nobody. O((S + G) log G + G log S).
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
    // Groups by their place among the members: a shard's owner is looked up once.
    let members: Vec<GroupId> = members.iter().copied().collect();
    let place = |owner: Option<GroupId>| members.binary_search(&owner?).ok();
    let mut owners: Vec<Option<usize>> = shards.iter().map(|owner| place(*owner)).collect();
    let mut pin = vec![false; shards.len()];
    for shard in pins {
        if let Some(pin) = pin.get_mut(*shard as usize) {
            *pin = true;
        }
    }
    let (mut held, mut pinned) = (vec![0; members.len()], vec![0; members.len()]);
    for (shard, owner) in owners.iter().enumerate() {
        if let Some(group) = *owner {
            held[group] += 1;
            pinned[group] += usize::from(pin[shard]);
        }
    }
    let target = targets(shards.len(), &held, &pinned);

    // From the back, so that what a group keeps and what it gives stay in few ranges.
    let excess = held
        .iter()
        .zip(&target)
        .map(|(held, target)| held.saturating_sub(*target));
    let mut excess: Vec<usize> = excess.collect();
    for (shard, owner) in owners.iter_mut().enumerate().rev() {
        if let Some(group) = *owner
            && !pin[shard]
            && excess[group] > 0
        {
            excess[group] -= 1;
            *owner = None;
        }
    }

    let mut wanting = (0..members.len()).flat_map(|g| (held[g]..target[g]).map(move |_| g));
    let next = owners
        .into_iter()
        .map(|owner| owner.or_else(|| wanting.next()));
    next.map(|owner| owner.map(|group| members[group]))
        .collect()
}

/// How many of `shards` each group shall have: its pinned ones, or the common level where that is
/// more; the remainder goes, one each, to the groups at the level that hold most (of equals to
/// the first).
fn targets(shards: usize, held: &[usize], pinned: &[usize]) -> Vec<usize> {
    let used = |level: usize| pinned.iter().map(|p| (*p).max(level)).sum::<usize>();
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
    let mut target: Vec<usize> = pinned.iter().map(|p| (*p).max(level)).collect();
    let mut at_level: Vec<usize> = (0..pinned.len()).filter(|g| pinned[*g] <= level).collect();
    at_level.sort_by_key(|g| (Reverse(held[*g]), *g));
    for group in at_level.into_iter().take(shards - used(level)) {
        target[group] += 1;
    }
    target
}
