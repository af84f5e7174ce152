//! Which shards nobody serves, and why: the headline of `status`. Pure.

use super::table::ranges;
use crate::api::{ShardState, ShardStatus};
use ctrler::config::{Config, GroupId, ShardId};
use std::collections::{BTreeMap, BTreeSet};

/// Shards that no leader that answers serves, by reason. `leaders`: what each group's leader says of
/// its shards; a group that has none, or none that answers, is not in it.
pub fn not_served(
    config: &Config,
    leaders: &BTreeMap<GroupId, &[ShardStatus]>,
) -> BTreeMap<String, Vec<ShardId>> {
    let served: BTreeSet<ShardId> = leaders
        .values()
        .copied()
        .flatten()
        .filter(|shard| match shard.state {
            ShardState::Serving => true,
            // The old owner goes on until the new one asks for it.
            ShardState::Leaving => !shard.frozen,
            ShardState::Absent | ShardState::Arriving | ShardState::Held => false,
        })
        .map(|shard| shard.shard)
        .collect();
    let mut unserved: BTreeMap<String, Vec<ShardId>> = BTreeMap::new();
    for (owner, shard) in config.shards.iter().zip(0..) {
        if served.contains(&shard) {
            continue;
        }
        let why = match owner {
            None if config.groups.is_empty() => "no group is a member".into(),
            None => "without an owner".into(),
            Some(group) if !leaders.contains_key(group) => {
                format!("group {group} has no leader that answers")
            }
            Some(group) => format!("on the way to group {group}"),
        };
        unserved.entry(why).or_default().push(shard);
    }
    unserved
}

/// One line that says so; `None` where all are served.
pub fn headline(unserved: &BTreeMap<String, Vec<ShardId>>) -> Option<String> {
    let parts: Vec<String> = unserved
        .iter()
        .map(|(why, shards)| {
            let s = if shards.len() == 1 { "" } else { "s" };
            format!("shard{s} {} ({why})", ranges(shards.iter().copied()))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("NOT SERVED: {}", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctrler::config::Group;

    fn of_shards<const N: usize>(shards: [(u32, ShardState, bool); N]) -> [ShardStatus; N] {
        shards.map(|(shard, state, frozen)| ShardStatus {
            shard,
            state,
            incarnation: 1,
            frozen,
            peer: None,
            keys: 0,
            bytes: 0,
        })
    }

    #[test]
    fn a_shard_is_served_where_a_leader_says_so() {
        use ShardState::{Arriving, Held, Leaving, Serving};
        let groups = [1, 2, 3].map(|id| {
            let servers = vec!["a:1".into()];
            (id, Group { servers, birth: 1 })
        });
        let config = Config {
            num: 1,
            shards: vec![Some(1), Some(1), Some(2), Some(2), Some(3), None],
            groups: groups.into(),
            ..Config::default()
        };
        // 0 is served by its owner, 2 by the one before; 1 is frozen there, 3 is arriving, 4 is with
        // nobody who answers, and 5 is held.
        let one = of_shards([(0, Serving, false), (1, Leaving, true)]);
        let two = of_shards([(2, Leaving, false), (3, Arriving, false), (5, Held, false)]);
        let leaders = BTreeMap::from([(1, &one[..]), (2, &two[..])]);
        let line = headline(&not_served(&config, &leaders)).expect("some are not");
        assert_eq!(
            line,
            "NOT SERVED: shard 4 (group 3 has no leader that answers), shard 1 (on the way to group 1), \
             shard 3 (on the way to group 2), shard 5 (without an owner)"
        );
        let all = of_shards([0, 1, 2, 3, 4, 5].map(|shard| (shard, Serving, false)));
        assert_eq!(
            headline(&not_served(&config, &BTreeMap::from([(3, &all[..])]))),
            None
        );
        let nobody = not_served(
            &Config {
                groups: BTreeMap::new(),
                shards: vec![None; 6],
                ..config
            },
            &BTreeMap::new(),
        );
        assert_eq!(
            headline(&nobody).as_deref(),
            Some("NOT SERVED: shards 0-5 (no group is a member)")
        );
    }
}
