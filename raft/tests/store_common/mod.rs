//! What the tests of store and sessions share.
#![allow(dead_code, missing_docs)]

/// SplitMix64: a walk is its seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The seeds of a test: the one asked for, or a few.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("MADSIM_TEST_SEED")
        .ok()
        .and_then(|s| s.parse::<u64>().ok())
    {
        Some(seed) => seed * 1000..seed * 1000 + count,
        None => 1..1 + count,
    }
}

use bytes::Bytes;
use raft::store::{Done, Installed, Opened, Rows, Spool, Stamp, Store, StoreError, StoreOptions};
use std::collections::BTreeMap;
use std::time::Duration;
use world::disk::{SimDisk, SimDiskOptions};

pub type Content = BTreeMap<Bytes, Bytes>;

/// Small enough that every limit is met.
pub fn options() -> StoreOptions {
    StoreOptions {
        overlay_bytes: 6_000,
        first_share: 1.0,
        overlay_limit: 24_000,
        cache_bytes: 1 << 20,
        reserve_bytes: 0,
        rewrite_min_bytes: 1 << 40,
        chunk_bytes: 700,
        scrub_pause: Duration::from_millis(5),
    }
}

/// A disk whose jobs take (almost) no time outside the simulation too.
pub fn sim_disk(name: &str, seed: u64) -> SimDisk {
    let latency = (Duration::ZERO, Duration::from_micros(100));
    SimDisk::new(
        name,
        seed,
        SimDiskOptions {
            latency,
            ..SimDiskOptions::default()
        },
    )
}

/// Opens a store that must not be lost.
pub async fn open_with(sim: &SimDisk, options: StoreOptions) -> Box<Store> {
    match Store::open(&sim.disk(), options).await {
        Ok(Opened::Ready(store)) => store,
        Ok(Opened::Lost(_, reason)) => panic!("the state is lost: {reason}"),
        Err(error) => panic!("{error}"),
    }
}

pub async fn open(sim: &SimDisk) -> Box<Store> {
    open_with(sim, options()).await
}

/// Opens a store that must be lost.
pub async fn open_lost(sim: &SimDisk) -> (Box<Store>, String) {
    match Store::open(&sim.disk(), options()).await {
        Ok(Opened::Lost(store, reason)) => (store, reason),
        Ok(Opened::Ready(store)) => panic!("found {:?}", store.stamp()),
        Err(error) => panic!("{error}"),
    }
}

/// All rows, read in small steps.
pub fn content(rows: &Rows) -> Content {
    let mut all = Content::new();
    let mut from = Vec::new();
    loop {
        let found = rows.range(&from, &[], 7, 1000).expect("rows are readable");
        let Some((key, _)) = found.last() else {
            return all;
        };
        from = [key, &[0][..]].concat();
        all.extend(found);
    }
}

/// Applies one index that sets a few rows.
pub fn apply(store: &mut Store, rows: &[(&str, &str)]) {
    for (key, value) in rows {
        store
            .rows_mut()
            .put(key.as_bytes(), value.as_bytes())
            .expect("put");
    }
    step(store);
}

/// Declares the next index applied.
pub fn step(store: &mut Store) {
    let stamp = store.stamp();
    store.applied(stamp.index + 1, 1 + stamp.index / 10, stamp.time_ms + 3);
}

/// Flushes until everything applied is durable.
pub async fn flush(store: &mut Store) -> Result<(), StoreError> {
    while store.durable().index < store.stamp().index {
        store.maybe_flush(true);
        store.done().await?;
    }
    Ok(())
}

/// A snapshot of what is applied.
pub async fn snapshot(store: &mut Store) -> Result<Spool, StoreError> {
    store.start_snapshot();
    loop {
        if let Done::Spooled(spool) = store.done().await? {
            return spool;
        }
    }
}

/// Fills a generation of `store` from a spool.
pub async fn fill(store: &mut Store, spool: &Spool) -> Result<Installed, StoreError> {
    let mut install = store.install(spool.stamp.clone()).await?;
    for number in 0..spool.chunks {
        install.add(number, &spool.chunk(number)?)?;
    }
    install.finish()
}

/// A store elsewhere with other rows, at `index`, and its snapshot.
pub async fn donor(seed: u64, index: u64) -> (Spool, Content, Stamp) {
    let sim = sim_disk("donor", seed);
    let mut store = open(&sim).await;
    let mut dice = Dice(seed);
    for n in 0..60 {
        let value = vec![n; dice.below(900) as usize];
        let key = format!("k{:02}", dice.below(99));
        store.rows_mut().put(key.as_bytes(), &value).expect("put");
    }
    store.applied(index, 1 + index / 10, index * 3);
    let spool = snapshot(&mut store).await.expect("a snapshot");
    (spool, content(store.rows()), store.stamp())
}
