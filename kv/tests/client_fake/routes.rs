//! Where the client looks for a shard when the configuration it knows does not lead there.

use super::servers::{Twist, World, start};
use super::{LONG, MS};
use ctrler::config::Group;
use kv::api::Response;
use world::testing::block_on_test;

fn gone(config: u64, owner: u64) -> Option<Response> {
    Some(Response::WrongGroup {
        config,
        owner: Some(owner),
    })
}

/// Nobody listens there.
fn nowhere() -> Vec<String> {
    vec!["127.0.0.1:9".to_owned()]
}

fn hand_over(world: &World) {
    let (old, mut new) = (world.group(1), world.group(2));
    new.sessions.clone_from(&old.sessions);
    new.rows.clone_from(&old.rows);
    new.opened = old.opened;
}

/// The old owner has left and still serves: no configuration that this client has seen names it.
#[test]
fn a_group_that_left_is_found_by_its_record() {
    block_on_test(async {
        let world = start(LONG).await;
        let left = world.config().groups.remove(&2).expect("two groups");
        world.control().moved.insert(2, left);
        world.group(1).gone = gone(1, 2);
        assert_eq!(world.client.put(b"a", b"1").await, Ok(()));
        assert_eq!(world.group(2).rows.len(), 1);
    });
}

/// All members of a group were replaced since it joined.
#[test]
fn a_group_that_moved_is_found_by_its_record() {
    block_on_test(async {
        let world = start(LONG).await;
        let group = world.config().groups[&1].clone();
        let was = Group {
            servers: nowhere(),
            ..group.clone()
        };
        world.config().groups.insert(1, was);
        world.control().moved.insert(1, group);
        assert_eq!(world.client.put(b"a", b"1").await, Ok(()));
        // A newer configuration still says where it joined, and leads nobody astray.
        world.config().num = 2;
        world.twist([Twist::Answer(Response::WrongGroup {
            config: 2,
            owner: None,
        })]);
        assert_eq!(world.client.append(b"a", b"2").await, Ok(2));
    });
}

/// The old owner was named, handed the shard over, and was shut down before it was asked.
#[test]
fn a_hint_to_a_group_that_is_gone_is_forgotten() {
    block_on_test(async {
        let world = start(LONG).await;
        let dead = Group {
            servers: nowhere(),
            birth: 2,
        };
        world.config().groups.insert(2, dead);
        world.group(1).gone = gone(1, 2);
        let client = world.client.clone();
        let put = tokio::spawn(async move { client.put(b"a", b"1").await });
        tokio::time::sleep(MS * 100).await;
        world.group(1).gone = None;
        assert_eq!(put.await.expect("no panic"), Ok(()));
    });
}

/// The refusal alone says where the shard is, and rests on a configuration that cannot be had.
#[test]
fn a_shard_that_moved_is_followed_while_the_controllers_are_down() {
    block_on_test(async {
        let world = start(LONG).await;
        assert_eq!(world.client.put(b"a", b"1").await, Ok(()));
        hand_over(&world);
        world.control().down = true;
        world.group(1).gone = gone(2, 2);
        assert_eq!(world.client.append(b"a", b"2").await, Ok(2));
        assert_eq!(world.group(2).rows.len(), 1);
    });
}

/// A group with several shards is down and had them from another one, twenty configurations ago: the
/// way there is asked for once, and not once for each shard.
#[test]
fn a_history_is_asked_for_once() {
    block_on_test(async {
        let world = start(LONG).await;
        let dead = Group {
            servers: nowhere(),
            birth: 2,
        };
        {
            let mut config = world.config();
            config.num = 30;
            config.groups.insert(2, dead);
            config.shards = vec![Some(2); 4];
        }
        world.control().former = Some((10, 1));
        for shard in 0..4 {
            let key = (0..).map(|n: u32| n.to_be_bytes());
            let key = key.into_iter().find(|k| kv::slot::shard(k, 4) == shard);
            let key = key.expect("there are keys of every shard");
            assert_eq!(world.client.put(&key, b"1").await, Ok(()));
        }
        let asked = world.control().asked.clone();
        let once: std::collections::BTreeMap<u64, usize> = (10..30).map(|n| (n, 1)).collect();
        assert_eq!(asked, once);
    });
}
