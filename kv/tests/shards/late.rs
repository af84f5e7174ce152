//! What was said in an earlier move, and is heard in a later one of the same shard.

use super::steps::{ack, fill, get, key, run, state, two_groups};
use bytes::Bytes;
use kv::api::{Response, ShardState};
use kv::machine::command::{Ack, Command};
use kv::machine::query::Query;

/// A→B→A→B: the release of the first move comes when the shard is on its way for the second time,
/// frozen already, and not yet committed by B. Everything but the configuration's number fits.
#[test]
fn a_late_release_does_not_touch_a_shard_that_leaves_again_and_is_frozen() {
    let mut world = two_groups(&[Some(1)]);
    fill(&mut world, 1, 0, 1, &[Bytes::from_static(b"value")]);
    for owner in [2, 1] {
        world.configure(&[Some(owner)], &[1, 2]);
        world.finish();
    }
    world.configure(&[Some(2)], &[1, 2]);
    run(&mut world, &[1], 2);
    let freeze = Command::Freeze { shard: 0, num: 4 };
    assert_eq!(ack(&mut world, 1, &freeze), Ack::Done);
    let late = Command::Release { shard: 0, num: 2 };
    assert!(matches!(ack(&mut world, 1, &late), Ack::Refused(_)));
    // The same on the way to it: B's word of the first move finds nothing to release.
    let birth = world.group(2).agenda().birth.expect("born");
    let heard = |num| Query::Leaving {
        shards: vec![0],
        num,
        to: (2, birth),
    };
    assert_eq!(world.group(1).ask::<Vec<u32>>(&heard(2)), [] as [u32; 0]);
    assert_eq!(world.group(1).ask::<Vec<u32>>(&heard(4)), [0]);
    assert_eq!(state(&world, 1, 0), ShardState::Leaving);
    world.finish();
    assert_eq!(
        get(&mut world, 2, 0, key(0, 1, 0)),
        Response::Value(Some(Bytes::from_static(b"value")))
    );
}
