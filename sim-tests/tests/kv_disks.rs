//! Disks that fill up under a group: what makes the state grow is refused before the disk is full, and
//! everything else is served; no server ends.
#![cfg(madsim)]

use kv::api::ShardState;
use kv::client::ClientError;
use sim_tests::sim::kv_cluster::small;
use sim_tests::sim::nodes::eventually;
use sim_tests::sim::{KvCluster, KvOptions};
use std::sync::Arc;
use std::time::Duration;
use world::disk::SimDiskOptions;

const LONG: Duration = Duration::from_secs(120);
/// Bytes of a disk, those that are meant to stay free, and those that are kept to the last.
const DISK: u64 = 7 << 20;
const RESERVE: u64 = 8 << 20;
const KEPT: u64 = 1 << 20;
/// Bytes of a value.
const VALUE: usize = 8_000;

/// Groups of three on small disks; the controllers' are of the same kind.
fn small_disks(groups: u64) -> KvOptions {
    let disk = SimDiskOptions {
        capacity: DISK,
        sparse: true,
        ..SimDiskOptions::default()
    };
    KvOptions {
        groups,
        disk,
        adjust: Arc::new(|options| {
            small(options);
            options.log.reserve_bytes = RESERVE;
            options.store.reserve_bytes = KEPT;
            // Only what the disk asks for keeps a flush small.
            options.flush_log_bytes = 4 << 20;
            options.max_unflushed_bytes = 8 << 20;
            options.store.overlay_bytes = 8 << 20;
            options.store.overlay_limit = 16 << 20;
        }),
        ..KvOptions::default()
    }
}

fn key(n: usize) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

/// Puts values under new keys until one is refused; how many there are.
async fn fill(cluster: &KvCluster) -> usize {
    let c = cluster.clone();
    let filling = async move {
        let client = c.client();
        for n in 0..10_000 {
            match client.put(&key(n), &[n as u8; VALUE]).await {
                Ok(_) => {}
                Err(ClientError::Full(why)) => {
                    assert!(why.contains("bytes are free"), "{why}");
                    return n;
                }
                Err(other) => panic!("put {n}: {other}"),
            }
        }
        panic!("the disk was never full");
    };
    cluster.nodes.run(filling).await
}

#[madsim::test]
async fn a_full_disk_refuses_what_grows_and_deleting_makes_room() {
    let cluster = KvCluster::with_groups(small_disks(1), &[1]).await;
    let count = fill(&cluster).await;
    assert!(count > 200, "the disk was used: {count}");
    cluster.nodes.assert_no_fatal();
    let mut limited = Vec::new();
    for node in cluster.members(1) {
        let page = cluster.replica(1, node).await.expect("it answers");
        limited.extend(page.writes_limited);
    }
    assert!(
        matches!(&limited[..], [why] if why.starts_with("refused")),
        "the leader says so: {limited:?}"
    );
    for node in cluster.members(1) {
        let disk = cluster.nodes.disk(cluster.key(1, node));
        assert!(disk.used() <= DISK - KEPT / 2, "{}", disk.used());
        // Something else takes a little more: pages that become free inside the file help nobody.
        let mut options = disk.options();
        options.capacity = options.capacity.min(disk.used() + KEPT - KEPT / 8);
        disk.set_options(options);
    }

    // What a start writes has room too.
    cluster.kill_group(1);
    cluster.start_group(1);
    for node in cluster.members(1) {
        eventually("it starts", LONG, || async {
            cluster.nodes.assert_no_fatal();
            cluster.replica(1, node).await.is_some()
        })
        .await;
    }
    let c = cluster.clone();
    let served = async move {
        let client = c.client();
        for n in 0..count {
            let value = client.get(&key(n)).await.expect("get");
            assert_eq!(value.as_deref(), Some(&[n as u8; VALUE][..]), "{n}");
        }
        for n in 20..count {
            let existed = client.delete(&key(n)).await.expect("delete");
            assert!(existed, "{n}");
        }
        client.delete(&key(0)).await.expect("delete");
    };
    cluster.nodes.run(served).await;

    // The file is copied without what was deleted, and then there is room for as much again.
    let c = cluster.clone();
    let room = || {
        let c = c.clone();
        async move {
            let cluster = c.clone();
            world::clock::sleep(Duration::from_secs(5)).await;
            fill(&cluster).await > count / 2
        }
    };
    eventually("there is room for as much again", LONG, room).await;
    cluster.nodes.assert_no_fatal();
    cluster.agreed(1).await;
    cluster.nodes.finish().await;
}

/// What is on its way is counted: many long values at once do not take the last bytes.
#[madsim::test]
async fn long_values_at_once_do_not_take_the_last_bytes() {
    const WRITERS: usize = 12;
    let cluster = KvCluster::with_groups(small_disks(1), &[1]).await;
    let c = cluster.clone();
    let refused = async move {
        let mut refused = 0;
        // Every round writes under keys of its own, until there is no room; a few rounds more.
        for round in 0..6 {
            let writers = (0..WRITERS).map(|n| {
                let client = c.client();
                let key = key(round * WRITERS + n);
                tokio::spawn(async move { client.put(&key, &[7; 40 * VALUE]).await })
            });
            for writer in writers.collect::<Vec<_>>() {
                match writer.await.expect("a writer") {
                    Ok(()) => {}
                    Err(ClientError::Full(_)) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
            }
        }
        refused
    };
    let refused = cluster.nodes.run(refused).await;
    cluster.nodes.assert_no_fatal();
    assert!(refused > 0, "there was room for all of it");
    for node in cluster.members(1) {
        let disk = cluster.nodes.disk(cluster.key(1, node));
        assert!(disk.used() <= DISK - KEPT / 2, "{}", disk.used());
    }
    // Who is far behind by now is sent the state when there is room for a copy.
    let c = cluster.clone();
    let deleted = async move {
        let client = c.client();
        for n in 0..6 * WRITERS {
            client.delete(&key(n)).await.expect("delete");
        }
    };
    cluster.nodes.run(deleted).await;
    cluster.agreed(1).await;
    cluster.nodes.finish().await;
}

/// One member has less room than the others, the leader among them: it says so, and is not run over.
#[madsim::test]
async fn a_follower_with_a_nearly_full_disk_is_heard() {
    let cluster = KvCluster::with_groups(small_disks(1), &[1]).await;
    let leader = cluster.leader(1).await;
    let follower = leader % 3 + 1;
    let limit = |left: Option<u64>| {
        let disk = cluster.nodes.disk(cluster.key(1, follower));
        let mut options = disk.options();
        options.capacity = left.map_or(DISK, |left| disk.used() + left);
        disk.set_options(options);
    };
    limit(Some(2 * KEPT));
    let count = fill(&cluster).await;
    assert!(
        (40..300).contains(&count),
        "it has a third of the room: {count}"
    );
    cluster.nodes.assert_no_fatal();

    // Gone for good, it keeps nobody from writing.
    cluster.nodes.kill(cluster.key(1, follower));
    let c = cluster.clone();
    let room = || {
        let c = c.clone();
        async move { fill(&c).await > count + 50 }
    };
    eventually("the others have room", LONG, room).await;
    // It is sent the state, of which there is room for a copy again.
    limit(None);
    cluster.nodes.start(cluster.key(1, follower));
    let c = cluster.clone();
    let emptied = async move {
        let client = c.client();
        for n in 10..10_000 {
            if !client.delete(&key(n)).await.expect("delete") {
                return;
            }
        }
    };
    cluster.nodes.run(emptied).await;
    cluster.agreed(1).await;
    cluster.nodes.assert_no_fatal();
    cluster.nodes.finish().await;
}

/// A shard that is given to a group whose disks are nearly full stays served where it was as long as
/// it may, arrives when there is room, and ends nobody.
#[madsim::test]
async fn a_shard_waits_where_it_was_for_room_on_the_new_owners_disks() {
    let cluster = KvCluster::with_groups(small_disks(2), &[1]).await;
    let c = cluster.clone();
    let filled = async move {
        let client = c.client();
        for n in 0..60 {
            client.put(&key(n), &[n as u8; VALUE]).await.expect("put");
        }
    };
    cluster.nodes.run(filled).await;
    // What else is on the disks of the second group leaves little room.
    let limit = |left: Option<u64>| {
        for node in cluster.members(2) {
            let disk = cluster.nodes.disk(cluster.key(2, node));
            let mut options = disk.options();
            options.capacity = left.map_or(DISK, |left| disk.used() + left);
            disk.set_options(options);
        }
    };
    limit(Some(KEPT / 2));
    cluster.join(&[2]).await;
    world::clock::sleep(Duration::from_secs(20)).await;
    cluster.nodes.assert_no_fatal();
    for node in cluster.members(2) {
        let page = cluster.status(2, node).await.expect("answers");
        let states: Vec<ShardState> = page.shards.iter().map(|s| s.state).collect();
        let serving = states.contains(&ShardState::Serving);
        assert!(!serving, "no rows are taken onto a full disk: {states:?}");
    }

    limit(None);
    cluster.settled().await;
    let c = cluster.clone();
    let read = async move {
        let client = c.client();
        for n in 0..60 {
            let value = client.get(&key(n)).await.expect("get");
            assert_eq!(value.as_deref(), Some(&[n as u8; VALUE][..]), "{n}");
        }
    };
    cluster.nodes.run(read).await;
    cluster.nodes.assert_no_fatal();
    cluster.nodes.finish().await;
}
