//! A member that needs a snapshot of much state, while clients write.

use super::failover::{links, pages, whole};
use super::server::Cluster;
use bytes::Bytes;
use kv::api::Op;
use kv::client::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use world::clock::{Instant, now, sleep};

/// Bytes of a value; of one batch while loading; batches under way.
const VALUE: usize = 16 << 10;
const BATCH: usize = 1 << 20;
const LOADING: usize = 8;
/// Clients' writes under way.
const WRITERS: usize = 64;
/// The member is away for so long: than `raft::replica::Options::patience` it is longer.
const AWAY: Duration = Duration::from_secs(75);
/// And has to have caught up after this.
const LIMIT: Duration = Duration::from_secs(3600);

fn key(number: u64) -> Bytes {
    Bytes::from(format!("key-{number}"))
}

/// No two alike, and not to be compressed.
fn value(mut seed: u64) -> Bytes {
    let word = |_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed ^ (seed >> 31)).to_le_bytes()
    };
    (0..VALUE / 8).flat_map(word).collect()
}

/// Loads so many GiB into a group of three, kills a follower for longer than the log is kept for it,
/// starts it again; prints how it catches up while 64 clients write, and with how many snapshots.
pub async fn run(gib: f64) -> Result<(), String> {
    let mut cluster = Cluster::start_with_logs(3).await?;
    let keys = ((gib * f64::from(1 << 30)) as u64 / VALUE as u64).max(100);
    load(&cluster.client(), keys).await?;
    let links = links(&cluster.servers);
    let leader = whole(&links).await?;
    let victim = (leader + 1) % 3;
    let written = Arc::new(AtomicU64::new(0));
    for writer in 0..WRITERS as u64 {
        let (client, written) = (cluster.client(), written.clone());
        tokio::spawn(async move {
            for number in 0u64.. {
                let seed = number * WRITERS as u64 + writer;
                let key = key(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) % keys);
                if client.put(&key, &value(seed)).await.is_ok() {
                    written.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
    }
    let rate = async |time: Duration| {
        let before = written.load(Ordering::Relaxed);
        sleep(time).await;
        (written.load(Ordering::Relaxed) - before) as f64 / time.as_secs_f64()
    };
    println!(
        "all three up: {:.0} writes/s of 16 KiB",
        rate(Duration::from_secs(10)).await
    );
    cluster.kill(victim);
    println!("one away: {:.0} writes/s", rate(AWAY).await);
    let begun: Instant = now();
    cluster.restart(victim)?;
    loop {
        let writes = rate(Duration::from_secs(5)).await;
        let all = pages(&links).await;
        let of = |member: usize| all.iter().find(|page| page.node as usize == member + 1);
        let Some(leads) = of(leader) else {
            return Err("the leader does not answer".into());
        };
        let (applied, behind) = match of(victim) {
            Some(page) => (page.applied, leads.commit.saturating_sub(page.applied)),
            None => (0, leads.commit),
        };
        let sent = cluster.lines_in_logs("sending a snapshot")?.len();
        println!(
            "{:4.0} s: {writes:5.0} writes/s; it is {behind} entries behind; the leader keeps {} of them, \
             {} MiB on disk, {} MiB resident; {sent} snapshots",
            begun.elapsed().as_secs_f64(),
            leads.last.saturating_sub(leads.base),
            leads.disk_bytes >> 20,
            cluster.resident_of(leader)?,
        );
        if applied > 0 && behind < 2000 && sent > 0 {
            println!(
                "caught up after {:.0} s, with {sent} snapshots",
                begun.elapsed().as_secs_f64()
            );
            break;
        }
        if begun.elapsed() > LIMIT {
            return Err(format!("not caught up after {LIMIT:?}"));
        }
    }
    for line in cluster.lines_in_logs("snapshot")? {
        println!("{line}");
    }
    println!(
        "all three up: {:.0} writes/s",
        rate(Duration::from_secs(10)).await
    );
    Ok(())
}

async fn load(client: &Client, keys: u64) -> Result<(), String> {
    let (begun, room) = (now(), Arc::new(Semaphore::new(LOADING)));
    let shards = client
        .config()
        .await
        .map_err(|e| e.to_string())?
        .shards
        .len() as u32;
    let mut batches: Vec<Vec<Op>> = vec![Vec::new(); shards as usize];
    let mut said = now();
    for number in 0..keys {
        let (key, value) = (key(number), value(u64::MAX - number));
        let shard = kv::slot::shard(&key, shards) as usize;
        batches[shard].push(Op::Put { key, value });
        if batches[shard].len() * VALUE < BATCH {
            continue;
        }
        let ops = std::mem::take(&mut batches[shard]);
        let permit = room.clone().acquire_owned().await;
        let permit = permit.map_err(|e| e.to_string())?;
        let client = client.clone();
        tokio::spawn(async move {
            if let Err(error) = client.batch(ops).await {
                println!("loading: {error}");
            }
            drop(permit);
        });
        if said.elapsed() > Duration::from_secs(20) {
            said = now();
            let mib = (number as usize * VALUE) >> 20;
            println!("{:4.0} s: {mib} MiB loaded", begun.elapsed().as_secs_f64());
        }
    }
    let _all = room.acquire_many(LOADING as u32).await;
    println!(
        "{} MiB loaded in {:.0} s",
        (keys as usize * VALUE) >> 20,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}
