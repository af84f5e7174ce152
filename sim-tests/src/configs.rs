//! Is one configuration a right successor of another?

use ctrler::config::{Config, GroupId};
use std::collections::BTreeMap;

/// Shards held by each member.
pub fn loads(config: &Config) -> BTreeMap<GroupId, usize> {
    let mut loads: BTreeMap<GroupId, usize> = config.groups.keys().map(|g| (*g, 0)).collect();
    for group in config.shards.iter().flatten() {
        *loads.entry(*group).or_default() += 1;
    }
    loads
}

/// The fewest moves from `before` to a balanced assignment to the groups of `after`:
/// Σ max(0, held − fair share) over the groups that stay, plus all shards of those that left (or
/// of nobody). The fair share is ⌊shards / groups⌋, and one more for as many groups as the
/// remainder says; it costs least when those that hold more than the floor have it.
pub fn fewest_moves(before: &Config, after: &Config) -> usize {
    let (shards, groups) = (before.shards.len(), after.groups.len());
    if groups == 0 {
        return before.shards.iter().flatten().count();
    }
    let (floor, extra) = (shards / groups, shards % groups);
    let held: Vec<usize> = after
        .groups
        .keys()
        .map(|g| before.shards.iter().filter(|o| **o == Some(*g)).count())
        .collect();
    let orphans = shards - held.iter().sum::<usize>();
    let over: usize = held.iter().map(|h| h.saturating_sub(floor)).sum();
    orphans + over - extra.min(held.iter().filter(|h| **h > floor).count())
}

/// Judges a whole history, numbered without a gap.
///
/// # Panics
/// When a configuration is not balanced within one shard, moved more shards than it had to, moved
/// a pinned one, or forgot who holds a shard.
pub fn check_history(configs: &[Config]) {
    for pair in configs.windows(2) {
        check_step(&pair[0], &pair[1]);
    }
}

fn check_step(before: &Config, after: &Config) {
    let what = format!("{before:?}\n-> {after:?}");
    assert_eq!(after.num, before.num + 1, "{what}");
    assert_eq!(after.shards.len(), before.shards.len(), "{what}");
    let moved: Vec<usize> = (0..after.shards.len())
        .filter(|s| before.shards[*s] != after.shards[*s])
        .collect();
    for (shard, owner) in after.shards.iter().enumerate() {
        let holder = owner.or(before.holders[shard]);
        assert_eq!(
            after.holders[shard], holder,
            "holder of shard {shard}: {what}"
        );
        assert!(
            owner.is_none_or(|g| after.groups.contains_key(&g)),
            "{what}"
        );
        assert_eq!(owner.is_none(), after.groups.is_empty(), "{what}");
    }
    let unpinned = before.pins.difference(&after.pins).next().is_some();
    if before.groups.keys().eq(after.groups.keys()) {
        assert!(
            unpinned || moved.len() <= 1,
            "a Move moves one shard: {what}"
        );
        return;
    }
    for pin in &before.pins {
        let owner = before.shards[*pin as usize];
        if owner.is_some_and(|g| after.groups.contains_key(&g)) {
            assert_eq!(
                after.shards[*pin as usize], owner,
                "pin {pin} moved: {what}"
            );
            assert!(after.pins.contains(pin), "pin {pin} was forgotten: {what}");
        }
    }
    if before.pins.is_empty() {
        let loads = loads(after);
        let spread = loads.values().max().unwrap_or(&0) - loads.values().min().unwrap_or(&0);
        assert!(spread <= 1, "not balanced: {loads:?}: {what}");
        assert_eq!(moved.len(), fewest_moves(before, after), "moves: {what}");
    }
}
