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

/// Judges a whole history, numbered without a gap. Errors: a configuration is not balanced within one
/// shard, moved more shards than it had to, moved a pinned one, or forgot who holds a shard.
pub fn check_history(configs: &[Config]) -> Result<(), String> {
    let steps = configs.windows(2);
    steps.into_iter().try_for_each(|pair| {
        let (before, after) = (&pair[0], &pair[1]);
        check_step(before, after).map_err(|why| format!("{why}: {before:?}\n-> {after:?}"))
    })
}

fn check_step(before: &Config, after: &Config) -> Result<(), String> {
    let demand = |holds: bool, what: &str| match holds {
        true => Ok(()),
        false => Err(what.to_owned()),
    };
    demand(after.num == before.num + 1, "a number is left out")?;
    let shards = after.shards.len();
    demand(shards == before.shards.len(), "another number of shards")?;
    let moved = (0..shards).filter(|s| before.shards[*s] != after.shards[*s]);
    let moved = moved.count();
    for (shard, owner) in after.shards.iter().enumerate() {
        let holder = owner.or(before.holders[shard]);
        demand(after.holders[shard] == holder, "a holder is forgotten")?;
        let member = owner.is_none_or(|g| after.groups.contains_key(&g));
        demand(member, "an owner is no member")?;
        let none = after.groups.is_empty();
        demand(owner.is_none() == none, "a shard belongs to nobody")?;
    }
    let unpinned = before.pins.difference(&after.pins).next().is_some();
    if before.groups.keys().eq(after.groups.keys()) {
        return demand(unpinned || moved <= 1, "a Move moves one shard");
    }
    for pin in &before.pins {
        let owner = before.shards[*pin as usize];
        if owner.is_some_and(|g| after.groups.contains_key(&g)) {
            demand(after.shards[*pin as usize] == owner, "a pinned shard moved")?;
            demand(after.pins.contains(pin), "a pin is forgotten")?;
        }
    }
    if before.pins.is_empty() {
        let loads = loads(after);
        let spread = loads.values().max().unwrap_or(&0) - loads.values().min().unwrap_or(&0);
        demand(spread <= 1, &format!("not balanced: {loads:?}"))?;
        let fewest = fewest_moves(before, after);
        demand(
            moved == fewest,
            &format!("{moved} moves, {fewest} would do"),
        )?;
    }
    Ok(())
}
