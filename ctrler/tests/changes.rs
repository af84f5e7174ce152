//! Every change, and every refusal: a clear text, and nothing changed.

mod common;
use common::{House, group, join, leave, settled};
use ctrler::api::{Change, Request, Response};
use ctrler::config::{Group, MAX_GROUPS, MAX_RECORDS};
use ctrler::machine::{Birth, CommandV1};
use std::collections::{BTreeMap, BTreeSet};

fn one(id: u64, servers: &[&str], birth: u128) -> Change {
    let servers = servers.iter().map(|s| s.to_string()).collect();
    Change::Join(BTreeMap::from([(id, Group { servers, birth })]))
}

#[track_caller]
fn says(reason: String, parts: &[&str]) {
    for part in parts {
        assert!(reason.contains(part), "{reason:?} does not say {part:?}");
    }
}

#[test]
fn nothing_is_served_before_birth_and_birth_happens_once() {
    let mut house = House::unborn();
    assert_eq!(house.apply(CommandV1::Open), Response::Busy);
    assert_eq!(house.read(&Request::Query(None)), Response::Busy);
    let bad = Birth {
        cluster: 1,
        shards: 0,
    };
    assert!(matches!(
        house.apply(CommandV1::Birth(bad)),
        Response::Invalid(_)
    ));
    let bad = Birth {
        cluster: 1,
        shards: 16_385,
    };
    assert!(matches!(
        house.apply(CommandV1::Birth(bad)),
        Response::Invalid(_)
    ));
    let birth = Birth {
        cluster: 5,
        shards: 16_384,
    };
    assert_eq!(house.apply(CommandV1::Birth(birth)), Response::Done(0));
    let other = Birth {
        cluster: 6,
        shards: 10,
    };
    assert!(matches!(
        house.apply(CommandV1::Birth(other)),
        Response::Invalid(_)
    ));
    let cluster = Response::Cluster {
        cluster: 5,
        shards: 16_384,
        latest: 0,
    };
    assert_eq!(house.read(&Request::Cluster), cluster);
    house.reload();
    assert_eq!(house.read(&Request::Cluster), cluster);
    assert_eq!(house.config(Some(0)).shards, vec![None; 16_384]);
}

#[test]
fn join_leave_and_move() {
    let mut house = House::new(10);
    assert_eq!(house.done(join(&[1, 2])), 1);
    let config = house.config(None);
    assert_eq!(
        config.groups,
        BTreeMap::from([(1, group(1)), (2, group(2))])
    );
    assert_eq!(config.shards.iter().filter(|s| **s == Some(1)).count(), 5);
    assert_eq!(config.holders, config.shards);

    assert_eq!(house.done(Change::Move(0, 2)), 2);
    let moved = house.config(None);
    assert_eq!(
        (moved.shards[0], moved.pins.clone()),
        (Some(2), BTreeSet::from([0]))
    );
    assert_eq!(
        moved.shards[1..],
        config.shards[1..],
        "a move moves one shard"
    );
    // To its present owner: a pin and nothing else.
    assert_eq!(house.done(Change::Move(9, 2)), 3);
    assert_eq!(house.config(None).shards, moved.shards);
    assert_eq!(house.config(None).pins, BTreeSet::from([0, 9]));

    assert_eq!(house.done(join(&[3])), 4);
    let config = house.config(None);
    assert_eq!(
        (config.shards[0], config.shards[9]),
        (Some(2), Some(2)),
        "pins are kept"
    );
    assert_eq!(house.done(leave(&[2])), 5);
    let config = house.config(None);
    assert!(config.pins.is_empty(), "a pin ends with its group");
    assert_eq!(config.shards.iter().filter(|s| **s == Some(3)).count(), 5);
    assert_eq!(house.records()[&2].left, Some(5));
}

/// A shard that was moved by hand follows joins and leaves again, at once where groups are uneven.
#[test]
fn an_unpinned_shard_is_moved_like_any_other() {
    let mut house = House::new(10);
    house.done(join(&[1, 2]));
    // Group 2 gets three more than its five, and keeps them.
    let of_one = house.config(None).shards;
    let of_one: Vec<u32> = (0..10).filter(|s| of_one[*s as usize] == Some(1)).collect();
    for shard in &of_one[..3] {
        house.done(Change::Move(*shard, 2));
    }
    let load = |house: &House, group| {
        let shards = house.config(None).shards;
        shards.iter().filter(|s| **s == Some(group)).count()
    };
    assert_eq!((house.config(None).num, load(&house, 2)), (4, 8));
    assert_eq!(house.done(Change::Unpin(of_one[0])), 5);
    let config = house.config(None);
    assert_eq!(config.pins, BTreeSet::from([of_one[1], of_one[2]]));
    assert_eq!((load(&house, 1), load(&house, 2)), (5, 5));
    for pin in &config.pins {
        assert_eq!(config.shards[*pin as usize], Some(2), "the others stay");
    }
    // Where it is balanced already only the pin goes; where there is none, nothing happens.
    assert_eq!(house.done(Change::Unpin(of_one[1])), 6);
    assert_eq!(house.config(None).shards, config.shards);
    assert_eq!(house.done(Change::Unpin(of_one[1])), 6);
    let reason = house.refused(Change::Unpin(10));
    says(reason, &["shard 10", "from 0 to 9"]);
}

#[test]
fn a_move_that_changes_nothing_makes_no_configuration() {
    let mut house = House::new(10);
    house.done(join(&[1, 2]));
    let owner = house.config(None).shards[0];
    let (owner, other) = if owner == Some(1) { (1, 2) } else { (2, 1) };
    assert_eq!(house.done(Change::Move(0, owner)), 2, "the pin is new");
    let pinned = house.config(None);
    for _ in 0..2 {
        assert_eq!(house.done(Change::Move(0, owner)), 2, "nothing is new");
        assert_eq!(house.config(None), pinned);
        assert!(matches!(
            house.read(&Request::Query(Some(3))),
            Response::Invalid(_)
        ));
    }
    // Another owner, and back: each changes something.
    assert_eq!(house.done(Change::Move(0, other)), 3);
    assert_eq!(house.done(Change::Move(0, other)), 3);
    assert_eq!(house.done(Change::Move(0, owner)), 4);
    // The pin has ended with its group: it is new again.
    house.done(leave(&[owner]));
    assert_eq!(house.done(Change::Move(0, other)), 6);
    // What is refused is refused still.
    house.refused(Change::Move(10, other));
    house.refused(Change::Move(0, owner));
}

#[test]
fn the_last_group_leaves_and_holders_stay() {
    let mut house = House::new(10);
    house.done(join(&[1, 2]));
    let owned = house.config(None).shards;
    house.done(leave(&[1, 2]));
    let nobody = house.config(None);
    assert_eq!(nobody.shards, vec![None; 10]);
    assert_eq!(nobody.holders, owned);
    assert!(nobody.groups.is_empty());
    // Another group takes over what it must; a holder that comes back keeps what it holds.
    house.done(join(&[2, 3]));
    let config = house.config(None);
    for (shard, holder) in owned.iter().enumerate() {
        match holder {
            Some(2) => assert_eq!(config.shards[shard], Some(2)),
            _ => assert_eq!(config.shards[shard], Some(3)),
        }
    }
    assert_eq!(house.records()[&2].left, None);
}

#[test]
fn bad_joins() {
    let mut house = House::new(10);
    house.done(join(&[1]));
    says(
        house.refused(Change::Join(BTreeMap::new())),
        &["without groups", "at least one"],
    );
    says(
        house.refused(one(2, &[], 5)),
        &["group 2", "0 servers", "expected 1 to 15"],
    );
    let many: Vec<String> = (0..16).map(|n| format!("h{n}:1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    says(house.refused(one(2, &many, 5)), &["16 servers", "1 to 15"]);
    for bad in [
        "",
        "host",
        "host:",
        ":7",
        "host:0",
        "host:65536",
        "host:+7",
        "h st:1",
        "[::1:7",
        "[x]:7",
        "a:b:1",
    ] {
        says(
            house.refused(one(2, &[bad], 5)),
            &["group 2", "expected HOST:PORT"],
        );
    }
    let long = format!("{}:1", "a".repeat(254));
    says(
        house.refused(one(2, &[&long], 5)),
        &["256 bytes", "at most 255"],
    );
    says(
        house.refused(one(2, &["a:1", "a:1"], 5)),
        &["a:1 occurs twice in group 2"],
    );
    let both = Change::Join(BTreeMap::from([
        (
            2,
            Group {
                servers: vec!["a:1".into()],
                birth: 2,
            },
        ),
        (
            3,
            Group {
                servers: vec!["a:1".into()],
                birth: 3,
            },
        ),
    ]));
    says(house.refused(both), &["a:1", "group 2", "group 3"]);
    says(
        house.refused(one(2, &["g1-1.example:7000"], 5)),
        &["group 2", "belongs to group 1"],
    );
    says(
        house.refused(one(0, &["a:1"], 5)),
        &["group 0", "controllers"],
    );
    says(house.refused(join(&[1])), &["group 1 is a member already"]);
    // One bad group refuses the whole join.
    says(
        house.refused(join(&[1, 4])),
        &["group 1 is a member already"],
    );
    assert_eq!(
        house.done(one(2, &["[::1]:7000", "10.0.0.1:65535", "a-b_c.d:1"], 5)),
        2
    );
}

#[test]
fn a_group_number_is_never_given_to_another_birth_id() {
    let mut house = House::new(10);
    house.done(join(&[1, 2]));
    house.done(leave(&[2]));
    let reason = house.refused(one(2, &["new:1"], 9));
    says(
        reason,
        &[
            "group 2",
            "never given to another birth id",
            &format!("{:032x}", 1002),
        ],
    );
    // The same birth comes back, at other addresses.
    house.done(one(2, &["new:1"], 1002));
    assert_eq!(house.records()[&2].group.servers, ["new:1"]);
    assert_eq!(
        house.config(Some(1)).groups[&2],
        group(2),
        "history stays as it was"
    );
    assert_eq!(house.config(None).groups[&2].servers, ["new:1"]);
}

#[test]
fn bad_leaves_moves_and_queries() {
    let mut house = House::new(10);
    says(
        house.refused(leave(&[3])),
        &["group 3 is not a member", "no members"],
    );
    house.done(join(&[1, 2]));
    says(house.refused(leave(&[])), &["without groups"]);
    says(
        house.refused(leave(&[3])),
        &["group 3 is not a member", "1, 2"],
    );
    says(house.refused(leave(&[1, 3])), &["group 3 is not a member"]);
    says(house.refused(leave(&[1, 1])), &["named twice"]);
    says(house.refused(Change::Move(10, 1)), &["shard 10", "0 to 9"]);
    says(house.refused(Change::Move(u32::MAX, 1)), &["0 to 9"]);
    says(
        house.refused(Change::Move(0, 3)),
        &["group 3 is not a member", "1, 2"],
    );
    for num in [2, u64::MAX] {
        match house.read(&Request::Query(Some(num))) {
            Response::Invalid(reason) => says(reason, &[&num.to_string(), "the latest is 1"]),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(house.read(&Request::Record(9)), Response::Record(None));
    assert!(matches!(house.read(&Request::Open), Response::Malformed(_)));
}

#[test]
fn settled_raises_only() {
    let mut house = House::new(10);
    house.done(join(&[1, 2]));
    house.done(leave(&[2]));
    let left = |house: &House| house.records()[&2].has_left();
    assert!(!left(&house), "it has not heard of its leave");
    house.done(settled(2, 1, false));
    assert!(
        !left(&house),
        "it settled a configuration from before it left"
    );
    house.done(settled(2, 2, true));
    assert!(!left(&house), "it holds shards still");
    house.done(join(&[3]));
    assert_eq!(
        house.done(settled(2, 3, false)),
        3,
        "a report makes no configuration"
    );
    assert!(left(&house));
    // A late report of an earlier one changes nothing, its addresses neither.
    let before = house.records();
    let mut late = group(2);
    late.servers = vec!["old:1".into()];
    house.done(Change::Settled {
        group: 2,
        info: late.clone(),
        through: 2,
        holds: true,
    });
    assert_eq!(house.records(), before);
    late.servers = vec!["moved:1".into()];
    house.done(Change::Settled {
        group: 2,
        info: late,
        through: 3,
        holds: false,
    });
    assert_eq!(house.records()[&2].group.servers, ["moved:1"]);

    says(
        house.refused(settled(2, 4, false)),
        &["configuration 4", "the latest is 3"],
    );
    says(
        house.refused(settled(9, 1, false)),
        &["group 9 is not known"],
    );
    let other = Group {
        birth: 1,
        ..group(2)
    };
    let report = Change::Settled {
        group: 2,
        info: other,
        through: 3,
        holds: true,
    };
    says(house.refused(report), &["birth id", "ignored"]);
    let none = Group {
        servers: vec![],
        ..group(2)
    };
    let report = Change::Settled {
        group: 2,
        info: none,
        through: 3,
        holds: true,
    };
    says(house.refused(report), &["0 servers"]);
}

#[test]
fn numbers_are_limited() {
    let mut house = House::new(10);
    let all: Vec<u64> = (1..=MAX_GROUPS as u64).collect();
    house.done(join(&all));
    says(
        house.refused(join(&[5000])),
        &["1025 groups", "at most 1024"],
    );
    for round in 1..4 {
        let gone: Vec<u64> = all.iter().map(|id| (round - 1) * 10_000 + id).collect();
        house.done(leave(&gone));
        let new: Vec<u64> = all.iter().map(|id| round * 10_000 + id).collect();
        house.done(join(&new));
    }
    assert_eq!(house.records().len(), MAX_RECORDS);
    house.done(leave(&[30_001]));
    says(
        house.refused(join(&[5000])),
        &["4096 group numbers", "again"],
    );
    house.done(join(&[30_001]));
    // All addresses together must fit an answer.
    let mut house = House::new(10);
    let long = |id: u64| {
        let servers = (0..15)
            .map(|n| format!("{}-{n}-{id}:1", "a".repeat(230)))
            .collect();
        (
            id,
            Group {
                servers,
                birth: u128::from(id),
            },
        )
    };
    house.done(Change::Join((1..=900).map(long).collect()));
    house.done(leave(&(1..=900).collect::<Vec<_>>()));
    says(
        house.refused(Change::Join((901..=1800).map(long).collect())),
        &["bytes", "4194304"],
    );
}
