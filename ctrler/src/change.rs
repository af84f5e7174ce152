//! What a change makes of the controllers' state, judged where it stands in the log. Every refusal
//! says what was expected.

use crate::address::check_address;
use crate::config::{
    ConfigNum, Group, GroupId, MAX_ADDRESS_BYTES, MAX_GROUPS, MAX_RECORDS, MAX_SERVERS, Record,
    ShardId,
};
use crate::history::Version;
use crate::rebalance::rebalance;
use std::collections::{BTreeMap, BTreeSet};

/// All records.
pub type Records = BTreeMap<GroupId, Record>;

/// What a change does when it is not refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// The next configuration, if the change makes one.
    pub version: Option<Version>,
    /// Groups that join in it.
    pub joined: BTreeMap<GroupId, Group>,
    /// Records to be replaced.
    pub records: Records,
}

/// Adds groups. `latest` is the newest configuration.
pub fn join(
    latest: &Version,
    records: &Records,
    groups: &BTreeMap<GroupId, Group>,
) -> Result<Effect, String> {
    if groups.is_empty() {
        return Err("a join without groups: expected at least one".into());
    }
    let members = latest.members.len() + groups.len();
    if members > MAX_GROUPS {
        return Err(format!(
            "{members} groups are too many: at most {MAX_GROUPS} are allowed"
        ));
    }
    let strangers = groups.keys().filter(|g| !records.contains_key(g)).count();
    if records.len() + strangers > MAX_RECORDS {
        return Err(format!(
            "{} group numbers were used so far, at most {MAX_RECORDS} are allowed: let groups that left join again",
            records.len()
        ));
    }
    let mut taken: BTreeMap<&str, GroupId> = BTreeMap::new();
    for member in latest.members.keys() {
        let servers = records
            .get(member)
            .map(|r| r.group.servers.as_slice())
            .unwrap_or_default();
        taken.extend(servers.iter().map(|s| (s.as_str(), *member)));
    }
    for (group, info) in groups {
        if *group == 0 {
            return Err("group 0 is the controllers' own: expected a number from 1".into());
        }
        if latest.members.contains_key(group) {
            return Err(format!(
                "group {group} is a member already: expected one that is not"
            ));
        }
        if let Some(known) = records.get(group).filter(|r| r.group.birth != info.birth) {
            return Err(format!(
                "group {group} is known with birth id {:032x}, not {:032x}: a group number is never given to \
                 another birth id; expected a number that was never used, or the old group's data",
                known.group.birth, info.birth
            ));
        }
        check_servers(*group, &info.servers)?;
        for server in &info.servers {
            if let Some(other) = taken.insert(server, *group) {
                return Err(if other == *group {
                    format!("{server} occurs twice in group {group}: expected each server once")
                } else {
                    format!(
                        "{server} is named for group {group} and belongs to group {other}: expected each server in one group"
                    )
                });
            }
        }
    }
    check_total(records, groups.iter())?;

    let mut next = Version {
        num: latest.num + 1,
        ..latest.clone()
    };
    next.members.extend(groups.keys().map(|g| (*g, next.num)));
    reassign(&mut next);
    let records = groups.iter().map(|(group, info)| {
        let old = records.get(group);
        if old.is_some() {
            world::mark!("ctrler: a group joins again");
        }
        let record = Record {
            group: info.clone(),
            settled: old.map_or(0, |r| r.settled),
            holds: old.is_some_and(|r| r.holds),
            left: None,
        };
        (*group, record)
    });
    Ok(Effect {
        records: records.collect(),
        joined: groups.clone(),
        version: Some(next),
    })
}

/// Removes groups.
pub fn leave(latest: &Version, records: &Records, groups: &[GroupId]) -> Result<Effect, String> {
    if groups.is_empty() {
        return Err("a leave without groups: expected at least one".into());
    }
    let mut next = Version {
        num: latest.num + 1,
        ..latest.clone()
    };
    let mut leavers = BTreeSet::new();
    for group in groups {
        if !leavers.insert(*group) {
            return Err(format!(
                "group {group} is named twice: expected each group once"
            ));
        }
        if next.members.remove(group).is_none() {
            return Err(not_a_member(*group, latest));
        }
    }
    if next.members.is_empty() {
        world::mark!("ctrler: the last group leaves");
    }
    // A pin ends with its group.
    let shards = &latest.shards;
    next.pins.retain(|shard| {
        shards
            .get(*shard as usize)
            .copied()
            .flatten()
            .is_some_and(|owner| !leavers.contains(&owner))
    });
    reassign(&mut next);
    let num = next.num;
    let records = leavers.iter().filter_map(|group| {
        let record = records.get(group)?.clone();
        Some((
            *group,
            Record {
                left: Some(num),
                ..record
            },
        ))
    });
    Ok(Effect {
        records: records.collect(),
        version: Some(next),
        ..Effect::default()
    })
}

/// Gives a shard to a group and pins it there. Moves no other shard. Where both are so already it
/// makes no configuration: every group would have to settle one that changes nothing.
pub fn move_shard(latest: &Version, shard: ShardId, group: GroupId) -> Result<Effect, String> {
    check_shard(latest, shard)?;
    if !latest.members.contains_key(&group) {
        return Err(not_a_member(group, latest));
    }
    if latest.shards[shard as usize] == Some(group) && latest.pins.contains(&shard) {
        return Ok(Effect::default());
    }
    let mut next = Version {
        num: latest.num + 1,
        ..latest.clone()
    };
    let mut shards = next.shards.clone();
    shards[shard as usize] = Some(group);
    next.assign(shards);
    next.pins.insert(shard);
    Ok(Effect {
        version: Some(next),
        ..Effect::default()
    })
}

/// Ends the pin of a shard, which may then be moved like any other: at once, where that makes the
/// groups even. Where it has no pin no configuration is made.
pub fn unpin(latest: &Version, shard: ShardId) -> Result<Effect, String> {
    check_shard(latest, shard)?;
    if !latest.pins.contains(&shard) {
        return Ok(Effect::default());
    }
    let mut next = Version {
        num: latest.num + 1,
        ..latest.clone()
    };
    next.pins.remove(&shard);
    reassign(&mut next);
    Ok(Effect {
        version: Some(next),
        ..Effect::default()
    })
}

fn check_shard(latest: &Version, shard: ShardId) -> Result<(), String> {
    let count = latest.shards.len();
    match (shard as usize) < count {
        true => Ok(()),
        false => Err(format!(
            "shard {shard} does not exist: expected one from 0 to {}",
            count - 1
        )),
    }
}

/// A group's report. Reports may arrive late and in any order: what is older than the record
/// changes nothing.
pub fn settled(
    latest: &Version,
    records: &Records,
    group: GroupId,
    info: &Group,
    through: ConfigNum,
    holds: bool,
) -> Result<Effect, String> {
    let Some(known) = records.get(&group) else {
        return Err(format!("group {group} is not known: it never joined"));
    };
    if known.group.birth != info.birth {
        return Err(format!(
            "group {group} is known with birth id {:032x}, not {:032x}: its report is ignored",
            known.group.birth, info.birth
        ));
    }
    if through > latest.num {
        return Err(format!(
            "configuration {through} does not exist yet: the latest is {}",
            latest.num
        ));
    }
    if through < known.settled {
        world::mark!("ctrler: a report older than the record");
        return Ok(Effect::default());
    }
    check_servers(group, &info.servers)?;
    check_total(records, std::iter::once((&group, info)))?;
    let record = Record {
        group: info.clone(),
        settled: through,
        holds,
        left: known.left,
    };
    let changed = (record != *known).then_some((group, record));
    Ok(Effect {
        records: changed.into_iter().collect(),
        ..Effect::default()
    })
}

/// A shard that nobody owns counts as its holder's: where the holder is a member again it keeps
/// the data, and nothing needs to be moved.
fn reassign(next: &mut Version) {
    let present: Vec<Option<GroupId>> = next
        .shards
        .iter()
        .zip(&next.holders)
        .map(|(owner, holder)| owner.or(*holder))
        .collect();
    let members = next.members.keys().copied().collect();
    let shards = rebalance(&present, &members, &next.pins);
    next.assign(shards);
}

fn check_servers(group: GroupId, servers: &[String]) -> Result<(), String> {
    if servers.is_empty() || servers.len() > MAX_SERVERS {
        return Err(format!(
            "group {group} with {} servers: expected 1 to {MAX_SERVERS}",
            servers.len()
        ));
    }
    for server in servers {
        check_address(server).map_err(|e| format!("group {group}: {e}"))?;
    }
    Ok(())
}

/// Keeps all addresses together within their limit.
fn check_total<'a>(
    records: &'a Records,
    new: impl Iterator<Item = (&'a GroupId, &'a Group)>,
) -> Result<(), String> {
    let mut all: BTreeMap<&GroupId, &Group> = records.iter().map(|(g, r)| (g, &r.group)).collect();
    all.extend(new);
    let bytes: usize = all.values().flat_map(|g| &g.servers).map(String::len).sum();
    if bytes > MAX_ADDRESS_BYTES {
        return Err(format!(
            "the addresses of all groups take {bytes} bytes: at most {MAX_ADDRESS_BYTES} are allowed"
        ));
    }
    Ok(())
}

fn not_a_member(group: GroupId, latest: &Version) -> String {
    // A reply is stored with its session: keep it short.
    const NAMED: usize = 20;
    let members: Vec<String> = latest
        .members
        .keys()
        .take(NAMED)
        .map(u64::to_string)
        .collect();
    let more = if latest.members.len() > NAMED {
        ", …"
    } else {
        ""
    };
    match members.is_empty() {
        true => format!("group {group} is not a member: there are no members"),
        false => format!(
            "group {group} is not a member: expected one of {}{more}",
            members.join(", ")
        ),
    }
}
