//! What the named schedules are made of.

use super::world::World;
use bytes::Bytes;
use kv::api::{Op, Request, Response, ShardState};
use kv::machine::command::{Ack, Command};
use kv::slot;
use raft::session::Seq;

pub fn key(shard: u32, shards: u32, n: usize) -> Bytes {
    let mut keys = (0..).map(|x| format!("{{{x}}}{n:05}"));
    let key = keys.find(|k| slot::shard(k.as_bytes(), shards) == shard);
    Bytes::from(key.expect("every shard has slots"))
}

pub fn open(world: &mut World, group: u64, shard: u32) -> u64 {
    match world.group(group).serve(Request::Open { shard }, 1) {
        Response::Session(id) => id,
        other => panic!("{other:?}"),
    }
}

pub fn put(shard: u32, seq: Seq, key: Bytes, value: Bytes) -> Request {
    Request::Write {
        shard,
        seq,
        ops: vec![Op::Put { key, value }],
    }
}

/// Puts keys of a shard through one session.
pub fn fill(world: &mut World, group: u64, shard: u32, shards: u32, values: &[Bytes]) -> u64 {
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

pub fn get(world: &mut World, group: u64, shard: u32, key: Bytes) -> Response {
    world.group(group).serve(Request::Get { shard, key }, 0)
}

pub fn state(world: &World, group: u64, shard: u32) -> ShardState {
    let page = world.groups[&group].page();
    page.shards
        .iter()
        .find(|s| s.shard == shard)
        .map_or(ShardState::Absent, |s| s.state)
}

/// Runs what is under way and all errands of these groups, a few rounds, without the others.
pub fn run(world: &mut World, groups: &[u64], rounds: usize) {
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

pub fn ack(world: &mut World, group: u64, command: &Command) -> Ack {
    Ack::from_bytes(&world.commit(group, command).expect("the group is up"))
}

pub fn two_groups(owners: &[Option<u64>]) -> World {
    let mut world = World::new(1, 3, owners.len());
    world.configure(owners, &[1, 2]);
    world.finish();
    world
}
