//! Rules of how shards move, one schedule each.

use super::client::Client;
use super::group::Rng;
use super::steps::{ack, fill, get, key, open, put, run, state, two_groups};
use super::world::{Msg, World};
use bytes::Bytes;
use kv::api::{Response, ShardState};
use kv::machine::command::{Ack, Command, Enter, Skip};
use kv::machine::query::{Pulled, Query};
use kv::machine::state::Cursor;
use kv::mover::plan::{self, Errand, Step};
use kv::mover::wire::{Answer, Ask, Party, What};
use raft::session::Seq;

/// A configuration is entered only in turn, and only when nothing is owed.
#[test]
fn configurations_are_entered_one_by_one_and_settled() {
    let mut world = two_groups(&[Some(1)]);
    world.configure(&[Some(2)], &[1, 2]);
    world.configure(&[Some(1)], &[1, 2]);
    let enter = |world: &World, num: usize| Command::Enter(Enter::new(&world.configs[num]));
    let skip = enter(&world, 3);
    assert!(matches!(ack(&mut world, 1, &skip), Ack::Refused(_)));
    let again = enter(&world, 1);
    assert!(matches!(ack(&mut world, 1, &again), Ack::Refused(_)));
    let next = enter(&world, 2);
    assert_eq!(ack(&mut world, 1, &next), Ack::Done);
    assert!(
        matches!(ack(&mut world, 1, &skip), Ack::Refused(_)),
        "shard 0 is owed"
    );
    world.finish();
    assert_eq!(state(&world, 1, 0), ShardState::Serving);
}

/// Configurations that change nothing for a group are entered at once, the last of them; but only
/// from the configuration that the command names, when nothing is owed, and when the last one gives
/// the group what it has.
#[test]
fn what_changes_nothing_for_a_group_is_skipped() {
    let (one, two, three) = (Some(1), Some(2), Some(3));
    let mut world = two_groups(&[one, two]);
    world.configure(&[one, three], &[1, 2, 3]);
    world.configure(&[one, two], &[1, 2, 3]);
    world.configure(&[two, one], &[1, 2, 3]);
    world.configure(&[two, three], &[1, 2, 3]);
    world.configure(&[two, one], &[1, 2, 3]);
    let skip = |world: &World, from, to: usize| Command::Skip(Skip::new(from, &world.configs[to]));
    for (from, to) in [(2, 3), (0, 3), (1, 1), (1, 0)] {
        let stray = skip(&world, from, to);
        assert!(
            matches!(ack(&mut world, 1, &stray), Ack::Refused(_)),
            "{from} to {to}"
        );
    }
    let (lost, got) = (skip(&world, 1, 4), skip(&world, 1, 5));
    assert!(matches!(ack(&mut world, 1, &lost), Ack::Refused(_)));
    assert!(matches!(ack(&mut world, 1, &got), Ack::Refused(_)));
    let past = skip(&world, 1, 3);
    assert_eq!(ack(&mut world, 1, &past), Ack::Done);
    assert_eq!(world.groups[&1].agenda().config, 3);
    assert!(matches!(ack(&mut world, 1, &past), Ack::Refused(_)), "late");
    let next = Command::Enter(Enter::new(&world.configs[4]));
    assert_eq!(ack(&mut world, 1, &next), Ack::Done);
    // Shard 0 is owed to group 2, shard 1 comes from it.
    let owing = skip(&world, 4, 6);
    assert!(matches!(ack(&mut world, 1, &owing), Ack::Refused(_)));
    world.finish();
    assert_eq!(state(&world, 2, 0), ShardState::Serving);
    assert_eq!(state(&world, 1, 1), ShardState::Serving);
}

/// The receiver of a shard leaves, hands over and is shut down before the giver heard of anything:
/// the controllers' record of it says what it can no longer say.
#[test]
fn a_giver_is_released_by_the_record_of_a_group_that_is_gone() {
    let mut world = two_groups(&[Some(1)]);
    fill(&mut world, 1, 0, 1, &[Bytes::from_static(b"value")]);
    world.configure(&[Some(2)], &[1, 2]);
    world.configure(&[Some(3)], &[1, 3]);
    // Group 1 hears no question and no notice about its release.
    for _ in 0..60 {
        let flying = std::mem::take(&mut world.flying);
        for msg in flying {
            let release = matches!(&msg, Msg::Command(1, Command::Release { .. }));
            let news = matches!(&msg, Msg::Answer(ask, _) if ask.from.group == 1)
                || matches!(&msg, Msg::Ask(Ask { to, what: What::Arrived { .. }, .. }) if to.group == 1);
            if !release && !news {
                world.deliver(msg);
            }
        }
        for id in [1, 2, 3] {
            for errand in world.errands(id) {
                world.errand(id, &errand);
            }
        }
    }
    assert_eq!(state(&world, 3, 0), ShardState::Serving);
    assert_eq!(state(&world, 1, 0), ShardState::Leaving);
    assert!(world.may_shut_down(2));
    world.group(2).down = true;
    world.finish();
    assert_eq!(state(&world, 1, 0), ShardState::Absent);
    assert_eq!(
        get(&mut world, 3, 0, key(0, 1, 0)),
        Response::Value(Some(Bytes::from_static(b"value")))
    );
}

/// When the last group leaves, its shards belong to nobody, nothing is lost, and its leave waits.
#[test]
fn nobodys_shards_are_held() {
    let mut world = two_groups(&[Some(1), Some(1)]);
    let session = fill(&mut world, 1, 0, 2, &[Bytes::from_static(b"value")]);
    world.configure(&[None, None], &[]);
    world.finish();
    assert_eq!(state(&world, 1, 0), ShardState::Held);
    let refused = Response::WrongGroup {
        config: 2,
        owner: None,
    };
    assert_eq!(get(&mut world, 1, 0, key(0, 2, 0)), refused);
    let seq = Seq {
        session,
        seq: 2,
        acked: 1,
    };
    assert_eq!(
        world
            .group(1)
            .serve(put(0, seq, key(0, 2, 0), Bytes::new()), 1),
        refused
    );
    assert!(!world.may_shut_down(1), "it holds shards");
    // Held does not keep it from entering configurations.
    world.configure(&[None, None], &[2]);
    world.finish();
    world.configure(&[Some(1), Some(2)], &[1, 2]);
    world.finish();
    assert_eq!(state(&world, 1, 0), ShardState::Serving);
    assert_eq!(state(&world, 2, 1), ShardState::Serving);
    assert_eq!(
        get(&mut world, 1, 0, key(0, 2, 0)),
        Response::Value(Some(Bytes::from_static(b"value")))
    );
    world.configure(&[Some(2), Some(2)], &[2]);
    world.finish();
    assert!(world.may_shut_down(1));
}

/// Messages are answered only for the recorded group and birth id.
#[test]
fn a_group_number_used_again_gets_nothing() {
    let mut world = two_groups(&[Some(1)]);
    fill(&mut world, 1, 0, 1, &[Bytes::from_static(b"value")]);
    world.configure(&[Some(2)], &[1, 2]);
    run(&mut world, &[1], 3);
    let birth = |id: u64| u128::from(id) << 64;
    let pull = |from: u128, to: u128| Ask {
        from: Party {
            group: 2,
            birth: from,
        },
        to: Party {
            group: 1,
            birth: to,
        },
        num: 2,
        what: What::Pull {
            shard: 0,
            from: Cursor::default(),
        },
    };
    let me = Some(Party {
        group: 1,
        birth: birth(1),
    });
    let judged = plan::judge(&pull(birth(2), 77), me);
    assert!(
        matches!(judged, Step::Answer(Answer::Refused(_))),
        "{judged:?}"
    );
    assert!(matches!(
        plan::judge(&pull(birth(2), birth(1)), None),
        Step::Answer(Answer::Refused(_))
    ));
    let Step::Query(query) = plan::judge(&pull(78, birth(1)), me) else {
        panic!("it is meant")
    };
    assert_eq!(world.groups[&1].ask::<Pulled>(&query), Pulled::Foreign);
    let Step::Query(query) = plan::judge(&pull(birth(2), birth(1)), me) else {
        panic!("it is meant")
    };
    assert_eq!(world.groups[&1].ask::<Pulled>(&query), Pulled::Freeze);
}

/// Chunks are bounded whatever the values are, and put together again exactly.
#[test]
fn the_longest_values_travel_in_pieces() {
    let mut world = two_groups(&[Some(1)]);
    let mut rng = Rng(5);
    let long: Vec<u8> = (0..8 << 20).map(|_| rng.next() as u8).collect();
    let mut values = vec![
        Bytes::from(long),
        Bytes::new(),
        Bytes::from(vec![1; 240 << 10]),
    ];
    values.extend((0..1500).map(|n| Bytes::from(vec![n as u8; 300])));
    fill(&mut world, 1, 0, 1, &values);
    world.configure(&[Some(2)], &[1, 2]);
    let mut largest = 0;
    let mut rounds = 0;
    while !world.at_rest() {
        rounds += 1;
        assert!(rounds < 500, "never at rest: {:#?}", world.events);
        for msg in std::mem::take(&mut world.flying) {
            if let Msg::Answer(_, answer) = &msg {
                largest = largest.max(answer.to_bytes().len());
            }
            world.deliver(msg);
        }
        for id in [1, 2] {
            for errand in world.errands(id) {
                world.errand(id, &errand);
            }
        }
    }
    assert!(largest <= 256 << 10, "a chunk of {largest} bytes");
    assert!(
        largest > 200 << 10,
        "chunks are wastefully small: {largest}"
    );
    for (n, value) in values.iter().enumerate() {
        let found = get(&mut world, 2, 0, key(0, 1, n));
        assert!(
            found == Response::Value(Some(value.clone())),
            "value {n} differs"
        );
    }
    let page = world.groups[&2].page();
    assert_eq!(page.shards[0].keys, values.len() as u64);
    let bytes: usize = values
        .iter()
        .enumerate()
        .map(|(n, v)| v.len() + key(0, 1, n).len())
        .sum();
    assert_eq!(page.shards[0].bytes, bytes as u64);
    assert_eq!(world.stray_rows(1), 0);
}

/// A sweep is bounded, and others go on between two.
#[test]
fn a_sweep_deletes_a_bounded_number_of_rows() {
    let mut world = two_groups(&[Some(1)]);
    fill(&mut world, 1, 0, 1, &vec![Bytes::from_static(b"v"); 2500]);
    world.configure(&[Some(2)], &[1, 2]);
    let mut sweeps = 0;
    let mut rounds = 0;
    while !world.at_rest() {
        rounds += 1;
        assert!(rounds < 500, "never at rest: {:#?}", world.events);
        for msg in std::mem::take(&mut world.flying) {
            let sweep = matches!(&msg, Msg::Command(1, Command::Sweep { .. }));
            let before = world.groups[&1].members[0].rows.len();
            world.deliver(msg);
            let after = world.groups[&1].members[0].rows.len();
            if sweep {
                sweeps += 1;
                assert!(
                    before - after <= 1000,
                    "{} rows in one step",
                    before - after
                );
            }
        }
        for id in [1, 2] {
            for errand in world.errands(id) {
                world.errand(id, &errand);
            }
        }
    }
    assert!(sweeps >= 4, "{sweeps}");
    assert_eq!(world.stray_rows(1), 0);
}

/// The refusal of a frozen shard names its new owner, and consumes nothing.
#[test]
fn a_frozen_shard_refuses_reads_and_writes_and_consumes_nothing() {
    let mut world = two_groups(&[Some(1)]);
    let mut client = Client::new(0, 0, 1, 0);
    client.session = Some(open(&mut world, 1, 0));
    world.configure(&[Some(2)], &[1, 2]);
    run(&mut world, &[1], 3);
    assert_eq!(
        ack(&mut world, 1, &Command::Freeze { shard: 0, num: 2 }),
        Ack::Done
    );
    let refused = Response::WrongGroup {
        config: 2,
        owner: Some(2),
    };
    let seq = Seq {
        session: 1,
        seq: 1,
        acked: 0,
    };
    let write = put(0, seq, key(0, 1, 0), Bytes::from_static(b"value"));
    assert_eq!(world.group(1).serve(write.clone(), 1), refused);
    assert_eq!(get(&mut world, 1, 0, key(0, 1, 0)), refused);
    world.finish();
    assert!(matches!(
        world.group(2).serve(write, 1),
        Response::Written(_)
    ));
    let query = Query::Installed {
        shards: vec![0],
        num: 2,
    };
    assert_eq!(world.groups[&2].ask::<Vec<u32>>(&query), vec![0]);
}

/// Shards owed by a dead group do not hold up those that others give, however many they are.
#[test]
fn shards_of_a_dead_group_hold_up_no_others() {
    let mut owners = vec![Some(3); 2 * plan::PULLS];
    owners.push(Some(1));
    let mut world = two_groups(&owners);
    let last = owners.len() as u32 - 1;
    world.group(3).down = true;
    world.configure(&vec![Some(2); owners.len()], &[1, 2, 3]);
    run(&mut world, &[1, 2], 20);
    assert_eq!(state(&world, 2, 0), ShardState::Arriving);
    assert_eq!(state(&world, 2, last), ShardState::Serving);
    assert_eq!(state(&world, 1, last), ShardState::Absent);
}

/// A group that owes something says where it is reached: all its members may have moved since it
/// joined, and what it owes would never be fetched.
#[test]
fn a_group_reports_its_addresses_also_while_it_owes_something() {
    let mut world = two_groups(&[Some(1)]);
    world.configure(&[Some(2)], &[1, 2]);
    world.group(2).down = true;
    run(&mut world, &[1], 5);
    assert_eq!(state(&world, 1, 0), ShardState::Leaving);
    let report = Errand::Report {
        through: 1,
        holds: true,
    };
    assert!(world.errands(1).contains(&report), "{:?}", world.errands(1));
}
