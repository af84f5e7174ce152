//! Rebalance: balanced, minimal in moves, pins kept, the same whatever order things were built in.

use ctrler::change;
use ctrler::config::{Group, GroupId, Record, ShardId};
use ctrler::history::Version;
use ctrler::rebalance::rebalance;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Owners = Vec<Option<GroupId>>;

fn moves(from: &Owners, to: &Owners) -> usize {
    from.iter().zip(to).filter(|(a, b)| a != b).count()
}

fn loads(shards: &Owners, members: &BTreeSet<GroupId>) -> BTreeMap<GroupId, usize> {
    let mut loads: BTreeMap<GroupId, usize> = members.iter().map(|g| (*g, 0)).collect();
    for group in shards.iter().flatten() {
        if let Some(load) = loads.get_mut(group) {
            *load += 1;
        }
    }
    loads
}

/// Σ max(0, held − fair share) over the groups that stay, plus all shards of those that left (or
/// of nobody). The fair share is floor(n/m), and one more for n mod m of the groups: fewest moves
/// when those that hold more than the floor have it.
fn fewest_moves(shards: &Owners, members: &BTreeSet<GroupId>) -> usize {
    let floor = shards.len() / members.len();
    let extra = shards.len() % members.len();
    let held = loads(shards, members);
    let orphans = shards.len() - held.values().sum::<usize>();
    let over: usize = held.values().map(|h| h.saturating_sub(floor)).sum();
    orphans + over - extra.min(held.values().filter(|h| **h > floor).count())
}

fn check_unpinned(shards: &Owners, members: &BTreeSet<GroupId>) -> Owners {
    let next = rebalance(shards, members, &BTreeSet::new());
    assert_eq!(next.len(), shards.len());
    let loads = loads(&next, members);
    assert_eq!(
        loads.values().sum::<usize>(),
        shards.len(),
        "every shard has a member for owner"
    );
    let (low, high) = (loads.values().min().unwrap(), loads.values().max().unwrap());
    assert!(high - low <= 1, "balanced within one shard: {loads:?}");
    assert_eq!(moves(shards, &next), fewest_moves(shards, members));
    next
}

/// Every assignment that keeps the pins, the most balanced ones among them, and the fewest moves
/// among those.
fn by_exhaustion(
    shards: &Owners,
    members: &[GroupId],
    pins: &BTreeSet<ShardId>,
) -> (Vec<usize>, usize) {
    let set: BTreeSet<GroupId> = members.iter().copied().collect();
    let mut best = (vec![usize::MAX], usize::MAX);
    for mut code in 0..members.len().pow(shards.len() as u32) {
        let next: Owners = shards
            .iter()
            .map(|_| {
                let group = members[code % members.len()];
                code /= members.len();
                Some(group)
            })
            .collect();
        let keeps = pins.iter().all(|pin| {
            let owner = shards[*pin as usize];
            owner.is_none_or(|owner| !set.contains(&owner)) || next[*pin as usize] == owner
        });
        if keeps {
            // Lexicographically least, the largest load first: no group above what pins force.
            let mut sorted: Vec<usize> = loads(&next, &set).into_values().collect();
            sorted.sort_unstable_by(|a, b| b.cmp(a));
            best = best.min((sorted, moves(shards, &next)));
        }
    }
    best
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn balanced_and_minimal(
        owners in prop::collection::vec(prop::option::of(1u64..260), 1..1025),
        members in prop::collection::btree_set(1u64..260, 1..201),
    ) {
        check_unpinned(&owners, &members);
    }

    #[test]
    fn with_pins_as_good_as_any_assignment(
        owners in prop::collection::vec(prop::option::of(1u64..5), 1..8),
        members in prop::collection::btree_set(1u64..5, 1..4),
        pins in prop::collection::btree_set(0u32..8, 0..8),
    ) {
        let pins: BTreeSet<ShardId> = pins.into_iter().filter(|p| (*p as usize) < owners.len()).collect();
        let next = rebalance(&owners, &members, &pins);
        let list: Vec<GroupId> = members.iter().copied().collect();
        let (best_loads, best_moves) = by_exhaustion(&owners, &list, &pins);
        let mut sorted: Vec<usize> = loads(&next, &members).into_values().collect();
        sorted.sort_unstable_by(|a, b| b.cmp(a));
        prop_assert_eq!(sorted, best_loads);
        prop_assert_eq!(moves(&owners, &next), best_moves);
        for pin in pins {
            let owner = owners[pin as usize];
            if owner.is_some_and(|g| members.contains(&g)) {
                prop_assert_eq!(next[pin as usize], owner);
            }
        }
    }

    #[test]
    fn the_same_in_whatever_order_things_were_built(
        owners in prop::collection::vec(prop::option::of(1u64..60), 1..300),
        members in prop::collection::vec(1u64..60, 1..50),
        pins in prop::collection::vec(0u32..300, 0..50),
    ) {
        let once = rebalance(&owners, &members.iter().copied().collect(), &pins.iter().copied().collect());
        // Hash maps differ in order from one to the next: a rebalance that iterates one differs
        // from call to call.
        for _ in 0..4 {
            let again =
                rebalance(&owners, &members.iter().rev().copied().collect(), &pins.iter().rev().copied().collect());
            prop_assert_eq!(&once, &again);
        }
    }

    #[test]
    fn nothing_moves_twice(
        owners in prop::collection::vec(prop::option::of(1u64..60), 1..300),
        members in prop::collection::btree_set(1u64..60, 1..50),
        pins in prop::collection::btree_set(0u32..300, 0..50),
    ) {
        let once = rebalance(&owners, &members, &pins);
        prop_assert_eq!(&rebalance(&once, &members, &pins), &once);
    }
}

#[test]
fn nobody_owns_anything_without_members() {
    let none = rebalance(&[Some(1); 5], &BTreeSet::new(), &BTreeSet::from([2]));
    assert_eq!(none, vec![None; 5]);
}

#[derive(Clone, Debug)]
enum Step {
    Join(BTreeSet<GroupId>),
    Leave(BTreeSet<GroupId>),
    Move(ShardId, GroupId),
    /// Of the pins there are, the one at this place.
    Unpin(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => prop::collection::btree_set(1u64..201, 1..20).prop_map(Step::Join),
        2 => prop::collection::btree_set(1u64..201, 1..20).prop_map(Step::Leave),
        2 => (0u32..1024, 1u64..201).prop_map(|(shard, group)| Step::Move(shard, group)),
        1 => any::<usize>().prop_map(Step::Unpin),
    ];
    prop::collection::vec(step, 1..60)
}

fn group(id: GroupId) -> Group {
    Group {
        servers: vec![format!("host{id}:7000")],
        birth: u128::from(id),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Up to 200 groups and 1024 shards: at every join and leave of a long life the moves are
    /// those of the formula, and a pin is kept until its group leaves.
    #[test]
    fn a_life_of_joins_leaves_and_moves(shards in 1u32..1025, steps in steps(), pinning in any::<bool>()) {
        let mut version = Version::first(shards);
        let mut records: BTreeMap<GroupId, Record> = BTreeMap::new();
        for step in steps {
            let members: BTreeSet<GroupId> = version.members.keys().copied().collect();
            let effect = match &step {
                Step::Join(groups) => {
                    let new = groups.difference(&members).map(|g| (*g, group(*g))).collect();
                    change::join(&version, &records, &new)
                }
                Step::Leave(groups) => {
                    let leavers: Vec<GroupId> = groups.intersection(&members).copied().collect();
                    change::leave(&version, &records, &leavers)
                }
                Step::Move(shard, group) if pinning => change::move_shard(&version, *shard, *group),
                Step::Move(..) => continue,
                Step::Unpin(_) if version.pins.is_empty() => continue,
                Step::Unpin(place) => {
                    let pin = version.pins.iter().nth(place % version.pins.len());
                    change::unpin(&version, *pin.expect("there are some"))
                }
            };
            let Ok(effect) = effect else { continue };
            records.extend(effect.records);
            let next = effect.version.expect("a configuration is made");
            prop_assert_eq!(next.num, version.num + 1);
            let now: BTreeSet<GroupId> = next.members.keys().copied().collect();

            let ended = match &step {
                Step::Unpin(place) => version.pins.iter().nth(place % version.pins.len()).copied(),
                _ => None,
            };
            for pin in version.pins.iter().filter(|pin| ended != Some(**pin)) {
                let owner = version.shards[*pin as usize];
                let kept = owner.is_some_and(|g| now.contains(&g));
                let moved_on = matches!(&step, Step::Move(shard, _) if shard == pin);
                prop_assert_eq!(next.pins.contains(pin), kept || moved_on);
                if kept && !moved_on {
                    prop_assert_eq!(next.shards[*pin as usize], owner);
                }
            }
            if let Some(pin) = ended {
                prop_assert!(!next.pins.contains(&pin));
                // As even as a join would make it.
                let again = rebalance(&next.shards, &now, &next.pins);
                prop_assert_eq!(&again, &next.shards);
            }
            match step {
                Step::Move(shard, group) => {
                    prop_assert_eq!(next.shards[shard as usize], Some(group));
                    prop_assert!(moves(&version.shards, &next.shards) <= 1);
                    prop_assert!(next.pins.contains(&shard));
                }
                _ if now.is_empty() => prop_assert!(next.shards.iter().all(Option::is_none)),
                _ if version.pins.is_empty() => {
                    // Where nobody owned a shard, its holder counts.
                    let present: Owners =
                        version.shards.iter().zip(&version.holders).map(|(o, h)| o.or(*h)).collect();
                    prop_assert_eq!(moves(&present, &next.shards), fewest_moves(&present, &now));
                    let loads = loads(&next.shards, &now);
                    prop_assert!(loads.values().max().unwrap() - loads.values().min().unwrap() <= 1);
                }
                _ => {}
            }
            for (shard, owner) in next.shards.iter().enumerate() {
                prop_assert_eq!(next.holders[shard], owner.or(version.holders[shard]));
            }
            version = next;
        }
    }
}
