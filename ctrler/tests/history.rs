//! The history: what was stored comes back, and stays small.

mod common;
use common::{House, group, join};
use ctrler::api::{Change, Request, Response};
use ctrler::config::{Config, GroupId, next_of};
use ctrler::history::MAX_RUN;
use std::collections::{BTreeMap, BTreeSet};

/// A small generator of its own, so that a failure repeats.
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// A change of a life: mostly single groups, sometimes many, all of them leaving now and then.
    fn change(&mut self, now: &BTreeSet<GroupId>, shards: u64, groups: u64) -> Change {
        let members: Vec<GroupId> = now.iter().copied().collect();
        let strangers: Vec<GroupId> = (1..=groups).filter(|g| !now.contains(g)).collect();
        let join = |some: &[GroupId]| {
            Change::Join(
                some.iter()
                    .map(|g| (*g, group(*g)))
                    .collect::<BTreeMap<_, _>>(),
            )
        };
        match self.below(100) {
            0 if !members.is_empty() => Change::Leave(members),
            1..30 if members.len() > 1 => {
                let some = self.some(&members, 3);
                Change::Leave(some)
            }
            30..60 if !members.is_empty() => {
                let group = members[self.below(members.len() as u64) as usize];
                Change::Move(self.below(shards) as u32, group)
            }
            _ if !strangers.is_empty() => join(&self.some(&strangers, 5)),
            _ => Change::Leave(self.some(&members, 20)),
        }
    }

    fn some(&mut self, from: &[GroupId], most: u64) -> Vec<GroupId> {
        let count = 1 + self.below(most) as usize;
        let start = self.below(from.len() as u64) as usize;
        from.iter()
            .cycle()
            .skip(start)
            .take(count.min(from.len()))
            .copied()
            .collect()
    }
}

#[test]
fn every_configuration_comes_back_as_it_was() {
    for seed in 0..6 {
        let mut draw = Draw(seed);
        let shards = [1, 7, 10, 100, 300, 1024][seed as usize];
        let mut house = House::new(shards as u32);
        let mut model = vec![house.config(None)];
        for num in 1..300 {
            let members = model[num - 1].groups.keys().copied().collect();
            // A move to where the shard is pinned already makes none: another change is drawn.
            while house.done(draw.change(&members, shards, 40)) < num as u64 {}
            assert_eq!(house.config(None).num, num as u64);
            model.push(house.config(None));
            if num % 50 == 0 {
                house.reload();
            }
        }
        for (num, config) in model.iter().enumerate() {
            assert_eq!(
                house.config(Some(num as u64)),
                *config,
                "seed {seed}, configuration {num}"
            );
            for (shard, owner) in config.shards.iter().enumerate() {
                let before = num.checked_sub(1).and_then(|n| model[n].holders[shard]);
                assert_eq!(config.holders[shard], owner.or(before));
            }
        }
    }
}

/// A group is sent past what changes nothing for it, never past what does, and no further than one
/// answer looks.
#[test]
fn a_group_goes_past_configurations_that_change_nothing_for_it() {
    for seed in 0..4 {
        let mut draw = Draw(100 + seed);
        let shards = [1, 4, 10, 50][seed as usize];
        let mut house = House::new(shards as u32);
        let mut members = BTreeSet::new();
        for _ in 0..150 {
            let change = draw.change(&members, shards, 12);
            house.done(change);
            members = house.config(None).groups.keys().copied().collect();
        }
        let latest = house.config(None).num;
        let all: Vec<Config> = (0..=latest).map(|num| house.config(Some(num))).collect();
        let mut longest = 0;
        for group in 1..=13 {
            for after in 0..latest {
                let next = house.read(&Request::Next { group, after });
                let expected = next_of(&all, after, group).cloned().map(Response::Config);
                assert_eq!(Some(next), expected, "seed {seed}, group {group}, {after}");
                let expected = next_of(&all, after, group).map_or(0, |config| config.num - after);
                longest = longest.max(expected);
            }
        }
        // Group 13 is none that was ever drawn.
        assert_eq!(longest, latest, "seed {seed}");
        let after = latest;
        let none = house.read(&Request::Next { group: 1, after });
        assert!(matches!(none, Response::Invalid(_)), "{none:?}");
    }
}

/// By the word of one answer after the other, a group that was never heard of comes to the newest of
/// ten thousand configurations in ten steps.
#[test]
fn ten_thousand_configurations_are_ten_answers() {
    let mut house = House::new(10);
    house.done(join(&[1, 2]));
    while house.config(None).num < 10_000 {
        let pair = house.config(None).num;
        house.done(Change::Move(0, 1 + pair % 2));
    }
    let (mut after, mut answers) = (0, 0);
    while after < 10_000 {
        match house.read(&Request::Next { group: 3, after }) {
            Response::Config(config) => {
                assert!(config.num > after && config.num <= after + MAX_RUN);
                after = config.num;
            }
            other => panic!("{other:?}"),
        }
        answers += 1;
    }
    assert_eq!(answers, 10);
    // Group 2 loses or gets shard 0 in each.
    let next = house.read(&Request::Next { group: 2, after: 5 });
    assert!(
        matches!(&next, Response::Config(config) if config.num == 6),
        "{next:?}"
    );
}

/// The largest number of shards, ten thousand configurations of a busy life among hundreds of
/// groups: at most 64 MiB.
#[test]
fn ten_thousand_configurations_stay_small() {
    let mut draw = Draw(99);
    let mut house = House::new(16_384);
    let mut members = BTreeSet::new();
    for _ in 0..10_000 {
        let change = draw.change(&members, 16_384, 300);
        match &change {
            Change::Join(groups) => members.extend(groups.keys().copied()),
            Change::Leave(groups) => members.retain(|g| !groups.contains(g)),
            _ => {}
        }
        house.done(change);
    }
    assert!(house.config(None).groups.keys().eq(&members));
    let bytes = history_bytes(&house);
    assert!(bytes <= LIMIT, "{bytes} bytes");
    assert!(bytes > 1 << 20, "the life was not busy: {bytes} bytes");
}

/// The dearest kind of change: ownership is scattered, and half of the groups go or come each
/// time.
#[test]
fn even_sweeping_changes_stay_small() {
    let mut draw = Draw(5);
    let mut house = House::new(16_384);
    let all: Vec<GroupId> = (1..=200).collect();
    house.done(Change::Join(all.iter().map(|g| (*g, group(*g))).collect()));
    let before = history_bytes(&house);
    const ROUNDS: usize = 100;
    for _ in 0..ROUNDS {
        let half: BTreeSet<GroupId> = all.iter().copied().filter(|_| draw.below(2) == 0).collect();
        house.done(Change::Leave(half.iter().copied().collect()));
        house.done(Change::Join(half.iter().map(|g| (*g, group(*g))).collect()));
    }
    let bytes = (history_bytes(&house) - before) / (2 * ROUNDS) * 10_000;
    println!("ten thousand like these: {bytes} bytes");
    assert!(bytes <= LIMIT, "{bytes} bytes");
}

const LIMIT: usize = 64 << 20;

fn history_bytes(house: &House) -> usize {
    let bytes = |key: u8| -> usize {
        let rows = house
            .rows
            .range(&[key], &[key + 1], usize::MAX, usize::MAX)
            .unwrap();
        rows.iter()
            .map(|(key, value)| key.len() + value.len())
            .sum()
    };
    bytes(b'c') + bytes(b'j')
}
