//! Schedules with a name: each is one that an earlier implementation got wrong, or a rule of how
//! shards move.

use super::client::Client;
use super::world::{Msg, Rng, World};
use bytes::Bytes;
use kv::api::{Op, Request, Response, ShardState};
use kv::machine::KvMachine;
use kv::machine::command::{Ack, Command, Enter};
use kv::machine::notice::Notice;
use kv::machine::query::{Pulled, Query};
use kv::machine::state::Cursor;
use kv::mover::plan::{self, Step};
use kv::mover::wire::{Answer, Ask, Party, What};
use kv::slot;
use raft::Machine;
use raft::session::Seq;
use raft::store::Rows;
use std::sync::Arc;

fn key(shard: u32, shards: u32, n: usize) -> Bytes {
    let mut keys = (0..).map(|x| format!("{{{x}}}{n:05}"));
    let key = keys.find(|k| slot::shard(k.as_bytes(), shards) == shard);
    Bytes::from(key.expect("every shard has slots"))
}

fn open(world: &mut World, group: u64, shard: u32) -> u64 {
    match world.group(group).serve(Request::Open { shard }, 1) {
        Response::Session(id) => id,
        other => panic!("{other:?}"),
    }
}

fn put(shard: u32, seq: Seq, key: Bytes, value: Bytes) -> Request {
    Request::Write {
        shard,
        seq,
        ops: vec![Op::Put { key, value }],
    }
}

/// Puts keys of a shard through one session.
fn fill(world: &mut World, group: u64, shard: u32, shards: u32, values: &[Bytes]) -> u64 {
    let session = open(world, group, shard);
    for (n, value) in values.iter().enumerate() {
        let seq = Seq {
            session,
            seq: n as u64 + 1,
            acked: n as u64,
        };
        let request = put(shard, seq, key(shard, shards, n), value.clone());
        let response = world.group(group).serve(request, 1);
        assert!(matches!(response, Response::Written(_)), "{response:?}");
    }
    session
}

fn get(world: &mut World, group: u64, shard: u32, key: Bytes) -> Response {
    world.group(group).serve(Request::Get { shard, key }, 0)
}

fn state(world: &World, group: u64, shard: u32) -> ShardState {
    let page = world.groups[&group].page();
    page.shards
        .iter()
        .find(|s| s.shard == shard)
        .map_or(ShardState::Absent, |s| s.state)
}

/// Runs what is under way and all errands of these groups, a few rounds, without the others.
fn run(world: &mut World, groups: &[u64], rounds: usize) {
    for _ in 0..rounds {
        for msg in std::mem::take(&mut world.flying) {
            world.deliver(msg);
        }
        for id in groups {
            for errand in world.errands(*id) {
                world.errand(*id, &errand);
            }
        }
    }
    for msg in std::mem::take(&mut world.flying) {
        world.deliver(msg);
    }
}

fn ack(world: &mut World, group: u64, command: &Command) -> Ack {
    Ack::from_bytes(&world.commit(group, command).expect("the group is up"))
}

fn two_groups(owners: &[Option<u64>]) -> World {
    let mut world = World::new(1, 3, owners.len());
    world.configure(owners, &[1, 2]);
    world.finish();
    world
}

/// Wound 3: a deletion notice without a configuration number deletes a shard that has come back.
#[test]
fn wound_3_a_late_release_does_not_touch_a_shard_that_came_back() {
    let mut world = two_groups(&[Some(1)]);
    fill(&mut world, 1, 0, 1, &[Bytes::from_static(b"value")]);
    for owner in [2, 1] {
        world.configure(&[Some(owner)], &[1, 2]);
        world.finish();
    }
    assert_eq!(state(&world, 1, 0), ShardState::Serving);
    let late = [
        Command::Release { shard: 0, num: 2 },
        Command::Freeze { shard: 0, num: 2 },
        Command::Sweep {
            shard: 0,
            incarnation: 1,
        },
        Command::Sweep {
            shard: 0,
            incarnation: 3,
        },
    ];
    for command in &late {
        assert!(
            matches!(ack(&mut world, 1, command), Ack::Refused(_)),
            "{command:?}"
        );
    }
    // It leaves again: now even the state is the one that the late notices expect.
    world.configure(&[Some(2)], &[1, 2]);
    run(&mut world, &[1], 2);
    assert_eq!(state(&world, 1, 0), ShardState::Leaving);
    for command in &late {
        assert!(
            matches!(ack(&mut world, 1, command), Ack::Refused(_)),
            "{command:?}"
        );
    }
    // Not even the right number releases what the new owner never asked for.
    assert!(matches!(
        ack(&mut world, 1, &Command::Release { shard: 0, num: 4 }),
        Ack::Refused(_)
    ));
    assert_eq!(
        get(&mut world, 1, 0, key(0, 1, 0)),
        Response::Value(Some(Bytes::from_static(b"value")))
    );
    world.finish();
    assert_eq!(
        get(&mut world, 2, 0, key(0, 1, 0)),
        Response::Value(Some(Bytes::from_static(b"value")))
    );
}

/// A late install of an earlier move, or one repeated, changes nothing.
#[test]
fn rows_are_taken_only_at_the_cursor_of_their_configuration() {
    let mut world = two_groups(&[Some(1)]);
    fill(&mut world, 1, 0, 1, &[Bytes::from_static(b"old")]);
    world.configure(&[Some(2)], &[1, 2]);
    let mut installs = Vec::new();
    for _ in 0..20 {
        for msg in std::mem::take(&mut world.flying) {
            if let Msg::Command(2, install @ Command::Install { .. }) = &msg {
                installs.push(install.clone());
            }
            world.deliver(msg);
        }
        for id in [1, 2] {
            for errand in world.errands(id) {
                world.errand(id, &errand);
            }
        }
    }
    assert!(!installs.is_empty());
    world.finish();
    let session = open(&mut world, 2, 0);
    let seq = Seq {
        session,
        seq: 1,
        acked: 0,
    };
    world
        .group(2)
        .serve(put(0, seq, key(0, 1, 0), Bytes::from_static(b"new")), 1);
    // Repeated while served; and after the shard went away and came back, while it arrives.
    for owner in [None, Some(1), Some(2)] {
        for install in &installs {
            assert!(matches!(ack(&mut world, 2, install), Ack::Refused(_)));
        }
        if let Some(owner) = owner {
            world.configure(&[Some(owner)], &[1, 2]);
            world.finish();
        }
    }
    assert_eq!(
        get(&mut world, 2, 0, key(0, 1, 0)),
        Response::Value(Some(Bytes::from_static(b"new")))
    );
}

/// Wound 4: a pending-deletion list missing from the snapshot is never worked off, and replicas
/// diverge.
#[test]
fn wound_4_pending_deletions_survive_snapshots_and_restarts() {
    let mut world = two_groups(&[Some(1)]);
    let values = vec![Bytes::from(vec![7; 100]); 50];
    fill(&mut world, 1, 0, 1, &values);
    world.configure(&[Some(2)], &[1, 2]);
    // Everything but sweeping.
    while world.groups[&1].agenda().dead.is_empty() {
        for msg in std::mem::take(&mut world.flying) {
            world.deliver(msg);
        }
        for id in [1, 2] {
            for errand in world.errands(id) {
                if !matches!(errand, plan::Errand::Sweep { .. }) {
                    world.errand(id, &errand);
                }
            }
        }
    }
    // A snapshot is the rows, and nothing but the rows.
    let mut rows = Rows::in_memory();
    for (key, value) in world.groups[&1].members[0]
        .rows
        .range(&[], &[], usize::MAX, usize::MAX)
        .unwrap()
    {
        rows.put(&key, &value).unwrap();
    }
    let group = world.group(1);
    group.members[1].machine = KvMachine::new(1, 2, Arc::new(Notice::default()));
    group.members[1].machine.load(&rows).unwrap();
    group.members[1].rows = rows;
    group.members[1].applied = group.log.len();
    group.restart(0);
    assert_eq!(group.agenda().dead, vec![(0, 1)]);
    assert!(group.page().sweeping >= 5000);
    world.finish();
    let group = world.group(1);
    group.catch_up(1);
    assert_eq!(
        group.members[0].rows.digest(),
        group.members[1].rows.digest()
    );
    assert_eq!(group.page().sweeping, 0);
    assert_eq!(world.stray_rows(1), 0);
}

/// Wound 10: all shards of a config must arrive before any is served.
#[test]
fn wound_10_a_shard_that_has_arrived_serves_while_others_are_on_their_way() {
    let mut world = two_groups(&[Some(1), Some(3), Some(2)]);
    fill(&mut world, 1, 0, 3, &[Bytes::from_static(b"value")]);
    let mine = fill(&mut world, 2, 2, 3, &[Bytes::from_static(b"mine")]);
    world.group(3).down = true;
    world.configure(&[Some(2), Some(2), Some(2)], &[1, 2, 3]);
    run(&mut world, &[1, 2], 20);
    assert_eq!(state(&world, 2, 0), ShardState::Serving);
    assert_eq!(state(&world, 2, 1), ShardState::Arriving);
    assert_eq!(
        get(&mut world, 2, 0, key(0, 3, 0)),
        Response::Value(Some(Bytes::from_static(b"value")))
    );
    // The one on its way names who has it.
    assert_eq!(
        get(&mut world, 2, 1, key(1, 3, 0)),
        Response::WrongGroup {
            config: 2,
            owner: Some(3)
        }
    );
    // The one that does not move was never blocked.
    let seq = Seq {
        session: mine,
        seq: 2,
        acked: 1,
    };
    let response = world
        .group(2)
        .serve(put(2, seq, key(2, 3, 5), Bytes::new()), 1);
    assert!(matches!(response, Response::Written(_)));
}

/// The old owner goes on serving until the new owner, itself in the configuration, asks: a third,
/// dead group that holds up the new owner takes no healthy shard down with it.
#[test]
fn a_shard_is_served_until_its_new_owner_asks_for_it() {
    let mut world = two_groups(&[Some(1), Some(3)]);
    let session = fill(&mut world, 1, 0, 2, &[Bytes::from_static(b"value")]);
    world.group(3).down = true;
    // Group 2 waits for shard 1 of a dead group, and cannot enter the next configuration.
    world.configure(&[Some(1), Some(2)], &[1, 2, 3]);
    run(&mut world, &[1, 2], 20);
    world.configure(&[Some(2), Some(2)], &[1, 2, 3]);
    run(&mut world, &[1, 2], 20);
    assert_eq!(world.groups[&1].agenda().config, 3);
    assert_eq!(world.groups[&2].agenda().config, 2);
    assert_eq!(state(&world, 1, 0), ShardState::Leaving);
    let seq = Seq {
        session,
        seq: 2,
        acked: 1,
    };
    let response = world
        .group(1)
        .serve(put(0, seq, key(0, 2, 1), Bytes::from_static(b"late")), 1);
    assert!(matches!(response, Response::Written(_)), "{response:?}");
    world.group(3).down = false;
    world.finish();
    assert_eq!(
        get(&mut world, 2, 0, key(0, 2, 1)),
        Response::Value(Some(Bytes::from_static(b"late")))
    );
}

/// Wound 11: a duplicate table that never shrinks, and is copied whole with every shard.
#[test]
fn wound_11_answered_writes_leave_nothing_behind_and_do_not_travel() {
    let mut world = two_groups(&[Some(1)]);
    let session = open(&mut world, 1, 0);
    let before = world.groups[&1].members[0].rows.len();
    for n in 1..=2000 {
        let seq = Seq {
            session,
            seq: n,
            acked: n - 1,
        };
        world
            .group(1)
            .serve(put(0, seq, key(0, 1, 0), Bytes::from_static(b"value")), 1);
    }
    let after = world.groups[&1].members[0].rows.len();
    assert!(after <= before + 3, "{before} rows became {after}");
    world.configure(&[Some(2)], &[1, 2]);
    world.finish();
    let there = world.groups[&2].members[0].rows.len();
    assert!(there <= after + 3, "{after} rows became {there}");
    // The newest reply has travelled: repeated, it is answered and not executed.
    let seq = Seq {
        session,
        seq: 2000,
        acked: 1999,
    };
    let response = world
        .group(2)
        .serve(put(0, seq, key(0, 1, 0), Bytes::from_static(b"again")), 1);
    assert!(matches!(response, Response::Written(_)), "{response:?}");
    assert_eq!(
        get(&mut world, 2, 0, key(0, 1, 0)),
        Response::Value(Some(Bytes::from_static(b"value")))
    );
}

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
    while !world.at_rest() {
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
    while !world.at_rest() {
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
