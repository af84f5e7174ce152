//! Real groups that join and leave while clients write.

mod process;

use process::cluster::{Members, Up, page};
use process::load::Load;
use process::{turn, until};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

const SHARDS: u32 = 10;
/// A client's operation may wait for a shard on the move, not longer.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longest pause of a shard that no change concerns.
const UNDISTURBED: Duration = Duration::from_secs(1);
/// At most so much may stay in the state of a group that left: a file below this is not rewritten
/// (`StoreOptions::rewrite_min_bytes`). What it held is several times as much.
const STATE_LEFT: u64 = 8 << 20;
/// And so much in its log: what is kept for members that lag (`Options::keep_log_bytes`, 16 MiB),
/// which may begin in one segment (16 MiB) and end in another, the segment written to, and a spare.
const LOG_LEFT: u64 = 4 * (16 << 20);
/// A server at rest flushes, and rewrites its state file, after ten seconds.
const GONE: Duration = Duration::from_secs(60);
/// Tasks that write them.
const WRITERS: usize = 16;
/// Bytes of values that are in the way when a group leaves.
const BULK: usize = 112 << 20;

fn owners(up: &Up) -> Vec<Option<u64>> {
    let text = up.kvctl(&["query", "--json"]).ok();
    let config: Value = serde_json::from_str(&text).expect("query prints JSON");
    let shards = config["shards"].as_array().expect("shards");
    shards.iter().map(Value::as_u64).collect()
}

/// Shards whose owner differs.
fn moved(before: &[Option<u64>], after: &[Option<u64>]) -> BTreeSet<u32> {
    let pairs = (0..).zip(before.iter().zip(after));
    let moved = pairs.filter(|(_, (b, a))| b != a);
    moved.map(|(shard, _)| shard).collect()
}

fn bulk(up: &Up) {
    let options = kv::client::ClientOptions {
        ctrlers: up.ctrlers.split(',').map(String::from).collect(),
        deadline: DEADLINE,
    };
    world::testing::block_on_test(async move {
        let client = kv::client::Client::new(options);
        let value = vec![b'v'; 32 << 10];
        let mut writers = Vec::new();
        for writer in 0..WRITERS {
            let (client, value) = (client.clone(), value.clone());
            writers.push(tokio::spawn(async move {
                for n in 0..BULK / value.len() / WRITERS {
                    let key = format!("bulk-{writer}-{n}");
                    let put = client.put(key.as_bytes(), &value).await;
                    put.expect("bulk data are written");
                }
            }));
        }
        for writer in writers {
            writer.await.expect("a writer ends");
        }
        client.close(Duration::from_millis(300)).await;
    });
}

/// Bytes on disk under a directory.
fn disk_bytes(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    });
    sizes.sum()
}

#[test]
fn groups_join_and_leave_under_load() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(2, 3, 3);
    bulk(&up);
    let mut third = Members::new(up.dir.path(), 3, up.ports.base + 40, &up.ctrlers);
    for server in &mut third.servers {
        server.start();
    }
    let mut loads = Vec::new();
    let mut step = |what: &[&str]| {
        let before = owners(&up);
        let load = Load::start(&up.ctrlers, SHARDS, 1, DEADLINE);
        load.goes_on(100);
        let said = up.kvctl(what).ok();
        up.settled();
        load.goes_on(100);
        let done = load.stop();
        let moved = moved(&before, &owners(&up));
        let (others, shard) = done.longest_gap(|shard| !moved.contains(&shard));
        let (longest, _) = done.longest_gap(|shard| moved.contains(&shard));
        let noise = done.noise;
        eprintln!(
            "{what:?}: {moved:?} moved, pause {longest:?}; others {others:?}; noise {noise:?}"
        );
        done.assert_no_errors();
        assert!(!moved.is_empty(), "{said}");
        assert!(
            others <= UNDISTURBED + noise,
            "{what:?} moved {moved:?}; shard {shard} was not among them and paused for {others:?}"
        );
        loads.push(done);
        moved
    };
    step(&["join", &third.spec()]);
    let shard = owners(&up)
        .iter()
        .position(|owner| *owner == Some(1))
        .expect("group 1 has shards");
    let shard_text = shard.to_string();
    assert_eq!(
        step(&["move", &shard_text, "3"]),
        BTreeSet::from([shard as u32])
    );
    step(&["leave", "1"]);
    for done in &loads {
        done.assert_all_there(&up.ctrlers);
    }
    assert!(!owners(&up).contains(&Some(1)));

    // The group that left holds nothing of them any more, and when it has come to rest neither do
    // its disks.
    for member in 1..=3u16 {
        let address = format!("127.0.0.1:{}", up.ports.base + 10 + member);
        until(
            "the old group's bytes are swept",
            Duration::from_secs(30),
            || {
                let page = page(&address)?;
                let empty = page.shards.iter().all(|s| s.keys == 0 && s.bytes == 0);
                (page.sweeping == 0 && empty).then_some(())
            },
        );
        let data = up.data().join(format!("kv-1-{member}"));
        let (state, log) = until("the old group's disk is small", GONE, || {
            let log = disk_bytes(&data.join("log"));
            let state = disk_bytes(&data).saturating_sub(log);
            (state <= STATE_LEFT && log <= LOG_LEFT).then_some((state, log))
        });
        eprintln!(
            "{}: state {} KiB, log {} KiB",
            data.display(),
            state >> 10,
            log >> 10
        );
    }
}
