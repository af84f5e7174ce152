//! bench: a closed loop of reads and writes, beside the disk's own sync time.

use super::args::Bench;
use super::histogram::Histogram;
use super::table::count;
use super::{Failure, Io};
use crate::api::{MAX_BATCH, Op};
use crate::client::{Client, ClientError};
use crate::slot;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use world::clock::{Instant, now};
use world::disk::{Disk, Open};
use world::entropy::random_u64;

/// Syncs measured, and the bytes written before each.
const SYNCS: (usize, usize) = (200, 4096);
/// Bytes of values in one batch while preloading, and batches under way.
const PRELOAD: (usize, usize) = (64 << 10, 16);

/// What the clients have counted so far.
#[derive(Default)]
struct Counts {
    reads: Histogram,
    writes: Histogram,
    /// The longest time without any write being acknowledged, and the last acknowledgement.
    stall: Duration,
    last_ack: Option<Instant>,
    errors: u64,
    last_error: Option<String>,
}

impl Counts {
    fn wrote(&mut self, at: Instant, took: Duration) {
        self.writes.add(took);
        if let Some(last) = self.last_ack {
            self.stall = self.stall.max(at.saturating_duration_since(last));
        }
        self.last_ack = Some(at);
    }
}

pub(super) async fn bench(client: &Client, args: &Bench, io: &mut Io<'_>) -> Result<(), Failure> {
    let sync = disk_sync(&args.data).await;
    match &sync {
        Ok(sync) => io.note(format_args!(
            "disk at {}: write of {} bytes and sync: p50 {}, p99 {}",
            args.data,
            SYNCS.1,
            ms(sync.quantile(0.5)),
            ms(sync.quantile(0.99)),
        )),
        Err(error) => io.note(format_args!("disk not measured: {error}")),
    }
    let clients = connections(client, args);
    // Made before the clock runs: eight megabytes take their time too.
    let value = value(args.value);
    if args.preload {
        preload(client, args, &value, io).await?;
    }
    // One operation proves that the cluster serves, and connects.
    client.get(&key(0)).await?;
    let counts = Arc::new(Mutex::new(Counts::default()));
    let written = Arc::new(Written::new(args));
    let end = now() + Duration::from_secs(args.secs);
    let workers: Vec<_> = (0..args.clients * args.depth)
        .map(|i| {
            let client = clients[i as usize % clients.len()].clone();
            let (counts, written) = (counts.clone(), written.clone());
            tokio::spawn(work(
                client,
                args.clone(),
                value.clone(),
                counts,
                written,
                end,
            ))
        })
        .collect();
    progress(args, &counts, end, io).await;
    for worker in workers {
        let _ = worker.await;
    }
    let counts = std::mem::take(&mut *counts.lock().unwrap_or_else(PoisonError::into_inner));
    let result = to_json(args, &counts, sync.as_ref().ok());
    if args.json.json {
        writeln!(io.out, "{result:#}")?;
    } else {
        print(args, &counts, sync.as_ref().ok(), io)?;
    }
    let removed = match args.keep {
        true => Ok(()),
        false => remove(client, args, &written, io).await,
    };
    if let Some(error) = &counts.last_error {
        return Err(Failure::no(format!(
            "{} operations failed; the last one: {error}",
            counts.errors
        )));
    }
    if counts.reads.count() + counts.writes.count() == 0 {
        return Err(Failure::no(format!(
            "nothing was measured: no operation was done within {} s",
            args.secs
        )));
    }
    removed
}

/// A value of so many bytes, which do not repeat.
fn value(bytes: usize) -> Bytes {
    let mut state = random_u64() | 1;
    let mut value = Vec::with_capacity(bytes + 8);
    while value.len() < bytes {
        // Xorshift: cheap, and not to be pressed smaller.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(bytes);
    value.into()
}

/// Which keys were written: a bit for each.
struct Written(Vec<AtomicU64>);

/// Most keys that are kept account of, bits; with more of them none is removed at the end.
const MAX_ACCOUNT: u64 = 1 << 27;

impl Written {
    fn new(args: &Bench) -> Written {
        let known = !args.keep && args.keys <= MAX_ACCOUNT;
        let words = if known { args.keys.div_ceil(64) } else { 0 };
        let all = if args.preload { u64::MAX } else { 0 };
        Written((0..words).map(|_| AtomicU64::new(all)).collect())
    }

    fn note(&self, n: u64) {
        if let Some(word) = self.0.get((n / 64) as usize) {
            word.fetch_or(1 << (n % 64), Ordering::Relaxed);
        }
    }

    fn has(&self, n: u64) -> bool {
        let word = self.0.get((n / 64) as usize);
        word.is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (n % 64)) != 0)
    }
}

fn connections(client: &Client, args: &Bench) -> Vec<Client> {
    let mut clients = vec![client.clone()];
    clients.extend((1..args.connections).map(|_| Client::new(client.options())));
    clients
}

/// One client's loop.
async fn work(
    client: Client,
    args: Bench,
    value: Bytes,
    counts: Arc<Mutex<Counts>>,
    written: Arc<Written>,
    end: Instant,
) {
    // Compared as integers: a share of 0 or 1 is exact.
    let reads = (args.reads * f64::from(u32::MAX)) as u64;
    loop {
        let n = random_u64() % args.keys;
        let key = key(n);
        let start = now();
        if start >= end {
            return;
        }
        let read = reads > 0 && (random_u64() >> 32) <= reads;
        if !read {
            // Also where the outcome stays unknown.
            written.note(n);
        }
        let result = match read {
            true => client.get(&key).await.map(|_| ()),
            false => client.put(&key, &value).await,
        };
        let done = now();
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) if read => counts.reads.add(done - start),
            Ok(()) => counts.wrote(done, done - start),
            Err(error) => {
                counts.errors += 1;
                counts.last_error = Some(error.to_string());
            }
        }
    }
}

/// A line each second.
async fn progress(args: &Bench, counts: &Mutex<Counts>, end: Instant, io: &mut Io<'_>) {
    let mut before = (0, 0);
    for second in 1..=args.secs {
        let next = end - Duration::from_secs(args.secs - second);
        tokio::time::sleep(next.saturating_duration_since(now())).await;
        let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        let (reads, writes) = (counts.reads.count(), counts.writes.count());
        io.note(format_args!(
            "{second:>4} s  {:>7} reads/s  {:>7} writes/s{}",
            reads - before.0,
            writes - before.1,
            if counts.errors > 0 {
                format!("  {} errors", counts.errors)
            } else {
                String::new()
            },
        ));
        before = (reads, writes);
    }
}

/// Writes every key once.
async fn preload(
    client: &Client,
    args: &Bench,
    value: &Bytes,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let start = now();
    let per_batch = (PRELOAD.0 / (args.value + 16)).clamp(1, MAX_BATCH);
    let put = |key| {
        let value = value.clone();
        Op::Put { key, value }
    };
    let keys = 0..args.keys;
    in_batches(client, "loading", (keys, args.keys), per_batch, put, io).await?;
    io.note(format_args!(
        "loaded {} in {:.1} s",
        count(args.keys as usize, "key"),
        start.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// Removes the keys that were written.
async fn remove(
    client: &Client,
    args: &Bench,
    written: &Written,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    if written.0.is_empty() {
        io.note(format_args!(
            "the keys (bench:N) are left: more than {MAX_ACCOUNT} are not kept account of"
        ));
        return Ok(());
    }
    let keys = (0..args.keys).filter(|n| written.has(*n));
    let total = keys.clone().count() as u64;
    let delete = |key| Op::Delete { key };
    let batch = MAX_BATCH / 4;
    let removed = in_batches(client, "removing", (keys, total), batch, delete, io).await;
    removed.map_err(|failure| Failure {
        message: format!(
            "the keys that were written (bench:N) could not be removed: {}",
            failure.message
        ),
        ..failure
    })
}

/// An operation on each of `total` keys, in batches per shard.
async fn in_batches(
    client: &Client,
    doing: &str,
    (keys, total): (impl Iterator<Item = u64>, u64),
    per_batch: usize,
    make: impl Fn(Bytes) -> Op,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let start = now();
    let shards = client.config().await?.shards.len() as u32;
    let (room, mut said) = (Arc::new(tokio::sync::Semaphore::new(PRELOAD.1)), now());
    let failed: Arc<Mutex<Option<ClientError>>> = Arc::default();
    let mut batches: BTreeMap<u32, Vec<Op>> = BTreeMap::new();
    let send = async |ops: Vec<Op>| {
        let Ok(permit) = room.clone().acquire_owned().await else {
            return;
        };
        let (client, failed) = (client.clone(), failed.clone());
        tokio::spawn(async move {
            if let Err(error) = client.batch(ops).await {
                *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            }
            drop(permit);
        });
    };
    for (n, done) in keys.zip(0u64..) {
        let key = Bytes::from(key(n));
        let batch = batches.entry(slot::shard(&key, shards)).or_default();
        batch.push(make(key));
        if batch.len() >= per_batch {
            let full = std::mem::take(batch);
            send(full).await;
        }
        if said.elapsed() >= Duration::from_secs(1) {
            let left = start.elapsed().as_secs_f64() * (total - done) as f64 / done.max(1) as f64;
            io.note(format_args!(
                "{doing}: {done} of {total} keys, about {left:.0} s left"
            ));
            said = now();
        }
        if let Some(error) = failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error.into());
        }
    }
    for batch in batches.into_values().filter(|batch| !batch.is_empty()) {
        send(batch).await;
    }
    // All permits are back when all batches are done.
    let _ = room.acquire_many(PRELOAD.1 as u32).await;
    match failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn key(n: u64) -> Vec<u8> {
    format!("bench:{n}").into_bytes()
}

/// How long the disk itself takes to write and sync a little.
async fn disk_sync(dir: &str) -> Result<Histogram, std::io::Error> {
    let disk = Disk::real(dir)?;
    let name = format!(".kvctl-bench-{:016x}", random_u64());
    let on = disk.clone();
    disk.job(move || {
        let file = on.open(&name, Open::CreateNew)?;
        let (times, bytes) = SYNCS;
        let block = vec![0x5a; bytes];
        let mut histogram = Histogram::default();
        // Overwritten in place, as the servers' log is: its blocks exist already.
        file.write_all_at(&vec![0; bytes * times], 0)?;
        file.sync_data()?;
        for i in 0..times {
            let start = now();
            file.write_all_at(&block, (i * bytes) as u64)?;
            file.sync_data()?;
            histogram.add(start.elapsed());
        }
        on.remove(&name)?;
        Ok(histogram)
    })
    .await
}

fn ms(took: Duration) -> String {
    format!("{:.3} ms", took.as_secs_f64() * 1e3)
}

fn print(
    args: &Bench,
    counts: &Counts,
    sync: Option<&Histogram>,
    io: &mut Io<'_>,
) -> std::io::Result<()> {
    let Bench {
        clients,
        depth,
        value,
        keys,
        secs,
        connections,
        ..
    } = args;
    writeln!(
        io.out,
        "{clients} clients, depth {depth}, {connections} connection(s) per server, {keys} keys, \
         values of {value} bytes, {secs} s"
    )?;
    let rows = [
        ("reads", Some(&counts.reads)),
        ("writes", Some(&counts.writes)),
        ("disk sync", sync),
    ];
    for (name, histogram) in rows {
        let Some(h) = histogram.filter(|h| h.count() > 0) else {
            continue;
        };
        let rate = match name {
            "disk sync" => format!("{:>10}", ""),
            _ => format!("{:>8.0}/s", h.count() as f64 / *secs as f64),
        };
        let quantiles = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        let texts = quantiles.map(|(name, q)| format!("{name} {}", ms(h.quantile(q))));
        writeln!(
            io.out,
            "{name:<10}{rate}  {}  max {}",
            texts.join("  "),
            ms(h.max())
        )?;
    }
    if counts.writes.count() > 0 {
        writeln!(
            io.out,
            "longest time without an acknowledged write: {}",
            ms(counts.stall)
        )?;
    }
    Ok(())
}

fn to_json(args: &Bench, counts: &Counts, sync: Option<&Histogram>) -> Value {
    let of = |h: &Histogram| {
        let at = |q: f64| h.quantile(q).as_secs_f64() * 1e3;
        json!({
            "count": h.count(),
            "per_second": h.count() as f64 / args.secs as f64,
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
            "p999_ms": at(0.999),
            "max_ms": h.max().as_secs_f64() * 1e3,
        })
    };
    json!({
        "clients": args.clients,
        "depth": args.depth,
        "connections": args.connections,
        "value": args.value,
        "keys": args.keys,
        "secs": args.secs,
        "reads": of(&counts.reads),
        "writes": of(&counts.writes),
        "max_write_stall_ms": counts.stall.as_secs_f64() * 1e3,
        "errors": counts.errors,
        "disk_sync": sync.map(of),
    })
}
