//! A random walk over a store beside a model, with crashes; and a crash inside every disk
//! operation of a life with flushes, an install and a rewrite.

mod store_common;

use bytes::Bytes;
use raft::store::{Done, Install, Installed, Spool, Stamp, Store, StoreError, StoreOptions};
use std::collections::BTreeMap;
use std::time::Duration;
use store_common::*;
use world::disk::SimDisk;
use world::testing::block_on_test;

fn walk_options() -> StoreOptions {
    StoreOptions {
        rewrite_min_bytes: 60_000,
        ..options()
    }
}

/// What was true at every index.
struct Model {
    rows: Content,
    past: BTreeMap<u64, (Stamp, Content)>,
    /// The highest durable index the store ever reported.
    durable: u64,
}

impl Model {
    fn remember(&mut self, store: &Store) {
        let stamp = store.stamp();
        assert_eq!(stamp.rows, self.rows.len() as u64);
        self.past.insert(stamp.index, (stamp, self.rows.clone()));
    }

    fn see(&mut self, store: &Store) {
        let durable = store.durable();
        assert!(durable.index >= self.durable, "durable went back");
        assert_eq!(
            self.past.get(&durable.index).map(|(stamp, _)| stamp),
            Some(&durable)
        );
        self.durable = durable.index;
    }

    /// After a crash the store must be at some index from the durable one on.
    fn reopened(&mut self, store: &Store) {
        let stamp = store.stamp();
        assert!(
            stamp.index >= self.durable,
            "{} was durable, found {stamp:?}",
            self.durable
        );
        let (expected, rows) = self.past.get(&stamp.index).expect("an index that was");
        assert_eq!(&stamp, expected);
        self.rows = rows.clone();
        assert_eq!(content(store.rows()), self.rows);
        self.past.retain(|index, _| *index <= stamp.index);
        self.see(store);
    }
}

struct Walk {
    sim: SimDisk,
    store: Box<Store>,
    model: Model,
    dice: Dice,
    install: Option<(Install, Spool, Content)>,
    installed: Option<(Installed, Content)>,
    spools: Vec<(Spool, Content)>,
    counts: BTreeMap<&'static str, u64>,
}

impl Walk {
    async fn new(seed: u64) -> Walk {
        let sim = sim_disk("walk", seed);
        let store = open_with(&sim, walk_options()).await;
        let mut model = Model {
            rows: Content::new(),
            past: BTreeMap::new(),
            durable: 0,
        };
        model.remember(&store);
        Walk {
            sim,
            store,
            model,
            dice: Dice(seed),
            install: None,
            installed: None,
            spools: Vec::new(),
            counts: BTreeMap::new(),
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    fn key(&mut self) -> Bytes {
        Bytes::from(format!("k{:02}", self.dice.below(90)))
    }

    fn apply(&mut self) -> Result<(), StoreError> {
        if self.store.full() {
            return Ok(());
        }
        for _ in 0..1 + self.dice.below(4) {
            let key = self.key();
            if self.dice.once_in(3) {
                let was = self.model.rows.remove(&key).is_some();
                assert_eq!(self.store.rows_mut().delete(&key)?, was);
            } else {
                let length = self.dice.below(if self.dice.0.is_multiple_of(9) {
                    4000
                } else {
                    300
                });
                let value = Bytes::from(vec![self.dice.roll() as u8; length as usize]);
                self.store.rows_mut().put(&key, &value)?;
                self.model.rows.insert(key, value);
            }
        }
        step(&mut self.store);
        self.model.remember(&self.store);
        self.count("apply");
        Ok(())
    }

    fn look(&mut self) -> Result<(), StoreError> {
        let (from, to) = (self.key(), self.key());
        let (most, bytes) = (
            1 + self.dice.below(20) as usize,
            self.dice.below(3000) as usize,
        );
        let found = self.store.rows().range(&from, &to, most, bytes)?;
        let mut expected = Vec::new();
        let mut sum = 0;
        for (key, value) in self
            .model
            .rows
            .iter()
            .filter(|(k, _)| **k >= from && **k < to)
        {
            sum += key.len() + value.len();
            if expected.len() == most || (sum > bytes && !expected.is_empty()) {
                break;
            }
            expected.push((key.clone(), value.clone()));
        }
        assert_eq!(found, expected);
        let key = self.key();
        assert_eq!(
            self.store.rows().get(&key)?,
            self.model.rows.get(&key).cloned()
        );
        Ok(())
    }

    async fn wait(&mut self) -> Result<(), StoreError> {
        let patience = Duration::from_millis(self.dice.below(3));
        let Ok(done) = tokio::time::timeout(patience, self.store.done()).await else {
            self.count("dropped");
            return Ok(());
        };
        match done? {
            Done::Flushed => self.count("flushed"),
            Done::Rewritten => self.count("rewritten"),
            Done::Spooled(spool) => {
                let spool = spool?;
                let (stamp, rows) = self.model.past.get(&spool.stamp.index).expect("durable");
                assert_eq!(&spool.stamp, stamp);
                self.spools.push((spool, rows.clone()));
                self.count("spooled");
            }
        }
        self.model.see(&self.store);
        Ok(())
    }

    async fn install(&mut self) -> Result<(), StoreError> {
        if let Some((installed, rows)) = self.installed.take() {
            let stamp = installed.stamp.clone();
            let above = stamp.index > self.store.stamp().index;
            // Known before the switch: a crash inside it may leave either.
            if above {
                self.model.past.insert(stamp.index, (stamp, rows.clone()));
            }
            let switched = self.store.switch(installed).await?;
            assert_eq!(switched, above);
            if switched {
                self.model.rows = rows;
                assert_eq!(content(self.store.rows()), self.model.rows);
                self.count("switched");
            } else {
                self.count("refused");
            }
            self.model.see(&self.store);
        } else if let Some((mut install, spool, rows)) = self.install.take() {
            for _ in 0..1 + self.dice.below(40) {
                if install.next() == spool.chunks {
                    self.installed = Some((install.finish()?, rows));
                    return Ok(());
                }
                install.add(install.next(), &spool.chunk(install.next())?)?;
            }
            if !self.dice.once_in(9) {
                self.install = Some((install, spool, rows));
            }
        } else {
            let index = self.store.stamp().index + self.dice.below(20);
            let (spool, rows, stamp) = donor(self.dice.roll(), index.max(1)).await;
            self.install = Some((self.store.install(stamp).await?, spool, rows));
        }
        Ok(())
    }

    async fn step(&mut self) -> Result<(), StoreError> {
        match self.dice.below(60) {
            0..30 => self.apply()?,
            30..36 => self.look()?,
            36..44 => {
                let force = self.dice.once_in(2);
                self.store.maybe_flush(force);
            }
            44..54 => self.wait().await?,
            54 => self.store.start_snapshot(),
            55..59 => self.install().await?,
            _ => {
                if self.dice.once_in(2) {
                    self.sim.crash_at(1 + self.dice.below(60));
                } else if self.dice.once_in(3) {
                    self.check_spools().await?;
                }
            }
        }
        Ok(())
    }

    async fn check_spools(&mut self) -> Result<(), StoreError> {
        for (spool, rows) in std::mem::take(&mut self.spools) {
            let sim = sim_disk("copy", self.dice.roll());
            let mut copy = open(&sim).await;
            let installed = fill(&mut copy, &spool).await?;
            assert!(copy.switch(installed).await?);
            assert_eq!(content(copy.rows()), rows);
        }
        Ok(())
    }

    async fn restart(&mut self) {
        match self.dice.below(3) {
            0 => self.sim.process_kill(),
            _ => self.sim.power_fail(),
        }
        self.sim.clear_faults();
        self.sim.crashed();
        (self.install, self.installed) = (None, None);
        self.spools.clear();
        self.store = open_with(&self.sim, walk_options()).await;
        self.model.reopened(&self.store);
        self.count("restart");
    }
}

async fn walk(seed: u64, steps: u64, total: &mut BTreeMap<&'static str, u64>) {
    let mut walk = Walk::new(seed).await;
    for _ in 0..steps {
        let result = walk.step().await;
        if let Err(error) = &result {
            assert!(walk.sim.crashed(), "an error without a crash: {error}");
            walk.count("crash");
        }
        if result.is_err() || walk.dice.once_in(80) {
            walk.restart().await;
        }
        assert_eq!(walk.store.rows().len(), walk.model.rows.len() as u64);
    }
    for (what, count) in walk.counts {
        *total.entry(what).or_default() += count;
    }
}

#[test]
fn a_walk_agrees_with_the_model() {
    let mut total = BTreeMap::new();
    for seed in seeds(12) {
        println!("seed {seed}");
        total = block_on_test(async move {
            let mut total = total;
            walk(seed, 600, &mut total).await;
            total
        });
    }
    println!("{total:?}");
    for what in [
        "apply",
        "flushed",
        "rewritten",
        "spooled",
        "switched",
        "refused",
        "crash",
        "restart",
    ] {
        assert!(total.contains_key(what), "no walk came to: {what}");
    }
}

/// A life with everything in it; the model knows at each moment what may be found.
async fn life(sim: &SimDisk, model: &mut Model) -> Result<(), StoreError> {
    let mut store = match Store::open(&sim.disk(), walk_options()).await? {
        raft::store::Opened::Ready(store) => store,
        raft::store::Opened::Lost(_, reason) => panic!("{reason}"),
    };
    let mut dice = Dice(7);
    for round in 0..4u64 {
        for _ in 0..10 {
            let key = Bytes::from(format!("k{:02}", dice.below(40)));
            let value = Bytes::from(vec![round as u8; dice.below(2000) as usize]);
            store.rows_mut().put(&key, &value)?;
            model.rows.insert(key, value);
            step(&mut store);
            model.remember(&store);
        }
        flush(&mut store).await?;
        model.see(&store);
        if round == 1 {
            let (spool, rows, stamp) = donor(3, store.stamp().index + 5).await;
            let installed = fill(&mut store, &spool).await?;
            model.past.insert(stamp.index, (stamp, rows.clone()));
            assert!(store.switch(installed).await?);
            model.rows = rows;
            model.see(&store);
        }
        if round == 2 {
            for key in model.rows.keys().cloned().collect::<Vec<_>>() {
                store.rows_mut().delete(&key)?;
            }
            model.rows.clear();
            step(&mut store);
            model.remember(&store);
            flush(&mut store).await?;
            model.see(&store);
            store.maybe_flush(false);
            assert!(matches!(store.done().await?, Done::Rewritten));
            model.see(&store);
        }
    }
    store.close().await
}

#[test]
fn a_crash_inside_every_disk_operation_loses_nothing() {
    let mut crashes = 0;
    for nth in 1..10_000u64 {
        let crashed = block_on_test(async move {
            let sim = sim_disk("life", nth);
            let mut model = Model {
                rows: Content::new(),
                past: BTreeMap::new(),
                durable: 0,
            };
            model.past.insert(0, (Stamp::default(), Content::new()));
            sim.crash_at(nth);
            let ended = life(&sim, &mut model).await;
            let crashed = sim.crashed();
            assert!(crashed || ended.is_ok(), "{ended:?}");
            sim.power_fail();
            sim.clear_faults();
            let mut store = open_with(&sim, walk_options()).await;
            if ended.is_err() {
                model.reopened(&store);
            }
            // It goes on, and comes back once more.
            apply(&mut store, &[("after", "all")]);
            flush(&mut store).await.unwrap();
            let (stamp, rows) = (store.stamp(), content(store.rows()));
            sim.power_fail();
            let store = open_with(&sim, walk_options()).await;
            assert_eq!((store.stamp(), content(store.rows())), (stamp, rows));
            crashed
        });
        if !crashed {
            break;
        }
        crashes += 1;
    }
    println!("{crashes} crashes");
    assert!(crashes > 100, "only {crashes} operations");
}
