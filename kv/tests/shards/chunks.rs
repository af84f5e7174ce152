//! What a chunk may hold, and that the numbers of changes go with the shard.

use super::steps::{fill, get, key, state, two_groups};
use super::world::{Msg, World};
use bytes::Bytes;
use ctrler::config::GroupId;
use kv::api::{Op, Request, Response, ShardState};
use kv::machine::chunk::{self, Chunk, CopiedRow};
use kv::machine::command::Command;
use kv::machine::keys;
use kv::machine::state::Cursor;
use kv::machine::value::{Head, PIECE_BYTES, Stored};
use raft::session::Seq;

fn write(world: &mut World, group: GroupId, session: u64, seq: u64, op: Op) {
    let seq = Seq {
        session,
        seq,
        acked: seq - 1,
    };
    let (shard, ops) = (0, vec![op]);
    let response = world
        .group(group)
        .serve(Request::Write { shard, seq, ops }, 1);
    assert!(matches!(response, Response::Written(_)), "{response:?}");
}

/// The number of the last change of a key, in the copy of an incarnation.
fn change(world: &World, group: GroupId, incarnation: u64, key: &Bytes) -> u64 {
    let rows = &world.groups[&group].members[0].rows;
    let row = rows.get(&keys::data(0, incarnation, key)).unwrap();
    let head = Head::from_row(&row.expect("the key is there"));
    head.expect("its own row").change
}

/// A watcher compares numbers: none may come twice for a key, whoever has the shard, be it that the
/// last change before the move was a deletion, or that nobody had it for a while.
#[test]
fn change_numbers_of_keys_rise_wherever_the_shard_goes() {
    let mut world = two_groups(&[Some(1)]);
    let values = vec![Bytes::from_static(b"v"); 200];
    let session = fill(&mut world, 1, 0, 1, &values);
    let (first, second) = (key(0, 1, 0), key(0, 1, 199));
    let mut highest = change(&world, 1, 1, &second);
    let mut seq = 200;
    // Group 2's log is much shorter.
    for (num, owners) in [(2, vec![2]), (3, vec![1]), (4, vec![2]), (6, vec![0, 2])] {
        let (from, key) = (if num == 3 { 2 } else { 1 }, second.clone());
        let from = if num == 6 { 2 } else { from };
        let incarnation = if num == 6 { 4 } else { num };
        seq += 1;
        write(&mut world, from, session, seq, Op::Delete { key });
        let mut owner = 0;
        for next in owners {
            owner = next;
            world.configure(&[Some(next).filter(|id| *id > 0)], &[1, 2]);
            world.finish();
        }
        assert_eq!(state(&world, owner, 0), ShardState::Serving);
        for key in [&second, &first] {
            seq += 1;
            let (key, value) = (key.clone(), Bytes::from_static(b"w"));
            write(&mut world, owner, session, seq, Op::Put { key, value });
        }
        let now = change(&world, owner, incarnation, &second);
        assert!(
            now > highest + 1,
            "{now} in {num}, after {highest} and a deletion"
        );
        let last = change(&world, owner, incarnation, &first);
        assert!(last > now);
        highest = last;
    }
    // The keys that nobody wrote keep theirs.
    let untouched = change(&world, 2, 4, &key(0, 1, 5));
    assert!(untouched < 200 + 10, "{untouched}");
}

fn row(key: &[u8], value: Bytes) -> CopiedRow {
    let key = Bytes::copy_from_slice(key);
    CopiedRow { key, value }
}

fn head(change: u64) -> Bytes {
    let value = Stored::Whole("v".into());
    Head { change, value }.to_row()
}

/// Rows of another group are checked before anything is changed.
#[test]
fn a_chunk_that_cannot_be_is_refused_with_a_reason() {
    let from = Cursor { key: "kb".into() };
    let good = Chunk {
        rows: vec![
            row(b"kb", head(7)),
            row(b"kc", head(3)),
            row(b"pc\0\0\0\0", vec![0; PIECE_BYTES].into()),
        ],
        changes: 7,
        next: Some(Cursor { key: "pd".into() }),
    };
    assert_eq!(chunk::check(&from, &good, 1), Ok(()));
    let with = |at: usize, row: CopiedRow| {
        let mut chunk = good.clone();
        chunk.rows[at] = row;
        chunk
    };
    let next = |key: &'static str| Chunk {
        next: Some(Cursor { key: key.into() }),
        ..good.clone()
    };
    let less = |changes| Chunk {
        changes,
        ..good.clone()
    };
    let none = Chunk {
        rows: Vec::new(),
        next: Some(from.clone()),
        ..good.clone()
    };
    let refused = [
        (
            "before the cursor",
            with(0, row(b"ka", head(7))),
            "out of order",
        ),
        ("twice", with(1, row(b"kb", head(7))), "out of order"),
        ("of no kind", with(2, row(b"xx", head(7))), "no known kind"),
        ("empty", with(0, row(b"", head(7))), "out of order"),
        (
            "no head",
            with(1, row(b"kc", Bytes::new())),
            "a newer version",
        ),
        (
            "a later change",
            with(1, row(b"kc", head(8))),
            "has not seen",
        ),
        ("fewer changes", less(6), "has not seen"),
        ("no end of changes", less(u64::MAX), "more changes"),
        (
            "an empty piece",
            with(2, row(b"pc\0\0\0\0", Bytes::new())),
            "not a piece",
        ),
        ("no number", with(2, row(b"pc", "v".into())), "not a piece"),
        (
            "a long piece",
            with(2, row(b"pc\0\0\0\0", vec![0; PIECE_BYTES + 1].into())),
            "not a piece",
        ),
        ("a session", with(2, row(b"sS", "v".into())), "session"),
        ("no progress", none, "no progress"),
        ("the next behind", next("kz"), "behind"),
        ("the last again", next("pc\0\0\0\0"), "behind"),
    ];
    for (what, chunk, reason) in refused {
        let found = chunk::check(&from, &chunk, 1).expect_err(what);
        assert!(found.contains(reason), "{what}: {found}");
    }
}

/// A member that starts again between any two chunks of a shard on its way goes on where the others
/// are: it takes what they take, and has in the end what they have.
#[test]
fn a_receiver_that_restarts_between_chunks_takes_what_the_others_take() {
    let mut world = two_groups(&[Some(1)]);
    let values: Vec<Bytes> = (0..8)
        .map(|n| Bytes::from(vec![n; 150_000 + usize::from(n)]))
        .collect();
    let session = fill(&mut world, 1, 0, 1, &values);
    world.configure(&[Some(2)], &[1, 2]);
    let mut installs = 0;
    let mut rounds = 0;
    while !world.at_rest() {
        rounds += 1;
        assert!(rounds < 200, "never at rest: {:#?}", world.events);
        for msg in std::mem::take(&mut world.flying) {
            let installs_now = matches!(&msg, Msg::Command(2, Command::Install { .. }));
            world.deliver(msg);
            if installs_now {
                installs += 1;
                world.group(2).restart(0);
            }
        }
        for id in [1, 2] {
            for errand in world.errands(id) {
                world.errand(id, &errand);
            }
        }
    }
    assert!(installs >= 4, "{installs} chunks");
    // The other member took them all in one life.
    world.group(2).catch_up(1);
    let all = |member: usize| {
        let rows = &world.groups[&2].members[member].rows;
        rows.range(&[], &[0xff; 8], usize::MAX, usize::MAX).unwrap()
    };
    assert!(all(0) == all(1), "the members differ");
    for (n, value) in values.iter().enumerate() {
        let found = get(&mut world, 2, 0, key(0, 1, n));
        assert!(found == Response::Value(Some(value.clone())), "value {n}");
    }
    let key = key(0, 1, 0);
    write(&mut world, 2, session, 9, Op::Delete { key });
}
