//! Schedules that earlier implementations got wrong.

use super::steps::{ack, fill, get, key, open, put, run, state, two_groups};
use super::world::Msg;
use bytes::Bytes;
use kv::api::{Response, ShardState};
use kv::machine::KvMachine;
use kv::machine::command::{Ack, Command};
use kv::machine::notice::Notice;
use kv::mover::plan;
use raft::Machine;
use raft::session::Seq;
use raft::store::Rows;
use std::sync::Arc;

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
    let mut rounds = 0;
    while world.groups[&1].agenda().dead.is_empty() {
        rounds += 1;
        assert!(rounds < 500, "never released: {:#?}", world.events);
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
