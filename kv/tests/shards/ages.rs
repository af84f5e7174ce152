//! The age of a session goes with its shard: two groups' log times have nothing in common.

use super::steps::{fill, get, key, put, state, two_groups};
use super::world::World;
use bytes::Bytes;
use kv::api::{Request, Response, ShardState};
use kv::machine::command::Command;
use raft::session::{Refusal, Seq};

const MINUTE: u64 = 60_000;

/// Time passes in a group's log; nothing else happens.
fn pass(world: &mut World, group: u64, minutes: u64) {
    let (shard, incarnation) = (77, 0);
    world
        .group(group)
        .commit(&Command::Sweep { shard, incarnation }, minutes * MINUTE);
}

/// What a session's next write is told in its shard's new group, where it has been idle for so many
/// minutes before the move, while nobody owned the shard (if it was so), and after the move.
fn told(before: u64, held: Option<u64>, after: u64) -> Response {
    let mut world = two_groups(&[Some(1)]);
    let value = Bytes::from_static(b"value");
    let session = fill(&mut world, 1, 0, 1, std::slice::from_ref(&value));
    // The groups' times are far apart, in either direction.
    pass(&mut world, 2, 7 * before);
    pass(&mut world, 1, before);
    if let Some(minutes) = held {
        world.configure(&[None], &[]);
        world.finish();
        assert_eq!(state(&world, 1, 0), ShardState::Held);
        pass(&mut world, 1, minutes);
    }
    world.configure(&[Some(2)], &[1, 2]);
    world.finish();
    assert_eq!(
        get(&mut world, 2, 0, key(0, 1, 0)),
        Response::Value(Some(value.clone()))
    );
    // Time in the old group is no more its time.
    pass(&mut world, 1, 600);
    pass(&mut world, 2, after);
    // Another client's session is where those that have expired are looked for.
    let opened = world.group(2).serve(Request::Open { shard: 0 }, 1);
    assert!(matches!(opened, Response::Session(_)), "{opened:?}");
    let (seq, acked) = (2, 1);
    let seq = Seq {
        session,
        seq,
        acked,
    };
    world.group(2).serve(put(0, seq, key(0, 1, 1), value), 1)
}

#[test]
fn a_session_is_as_old_after_a_move_as_before() {
    let written = |response: Response| matches!(response, Response::Written(_));
    let expired = Response::Refused(Refusal::SessionExpired);
    assert!(written(told(50, None, 5)), "55 minutes");
    assert_eq!(told(50, None, 15), expired, "65 minutes");
    assert_eq!(told(5, None, 58), expired, "63 minutes");
    assert!(written(told(0, None, 55)), "55 minutes");
}

#[test]
fn a_session_grows_older_while_nobody_has_its_shard() {
    let expired = Response::Refused(Refusal::SessionExpired);
    let told_in_time = told(20, Some(30), 5);
    assert!(matches!(told_in_time, Response::Written(_)), "55 minutes");
    assert_eq!(told(20, Some(30), 15), expired, "65 minutes");
}
