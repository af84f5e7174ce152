//! The store: which job runs when, and what its end changes.
//!
//! One job at a time touches generations (flush, rewrite, switch); a spool may run beside it, on
//! its own read transaction. Every job is a task of its own, so a dropped future loses nothing:
//! the next call of [`Store::done`] takes its result in.

use super::base::{Base, Meta};
use super::generation::{Current, Place, commit_layer};
use super::layer::Layer;
use super::open::{State, find};
use super::rewrite::rewrite;
use super::rows::Rows;
use super::spool::{Install, Installed, Spool, spool};
use super::{Done, Opened, Pressure, Stamp, StoreError, StoreOptions, Totals};
use raft_protocol::Configuration;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::task::JoinHandle;
use world::disk::Disk;

/// A rewrite is repeated only after flushes brought this many times the live bytes, unless the
/// file is twice as bad as allowed: random overwrites alone keep a copy-on-write tree near twice
/// its live bytes, and copying it after every flush would cost more than it gains.
const REWRITE_AFTER: u64 = 4;

/// What a job on generations ends with.
enum Outcome {
    Flushed {
        base: Base,
        stamp: Stamp,
        bytes: u64,
    },
    Rewritten {
        base: Base,
        bytes: u64,
    },
    Switched {
        base: Base,
        stamp: Stamp,
        totals: Totals,
        bytes: u64,
    },
    Cancelled,
}

struct Running<T> {
    rewrite: bool,
    handle: JoinHandle<Result<T, StoreError>>,
    cancel: Arc<AtomicBool>,
}

/// The store. Owned by the apply task; methods that touch the disk run their own jobs.
pub struct Store {
    disk: Disk,
    options: StoreOptions,
    rows: Rows,
    /// What the rows in memory cover (digest and count: see [`Store::stamp`]).
    applied: Stamp,
    durable: Stamp,
    /// The next generation's number.
    next: u64,
    running: Option<Running<Outcome>>,
    spooling: Option<Running<Option<Spool>>>,
    /// A snapshot is asked for that covers at least this index.
    wanted: Option<u64>,
    /// Alive while an install is under way.
    installing: Weak<()>,
    /// Generations of a lost state, removed when another one is current.
    leftover: Vec<Place>,
    /// Removal of what a switch left behind.
    cleaning: Option<JoinHandle<()>>,
    /// A job failed: nothing is started any more.
    failed: bool,
    /// Bytes of the current generation file.
    file_bytes: u64,
    /// Bytes brought by flushes since the file was last rewritten.
    flushed_bytes: u64,
    /// File and live bytes right after the last rewrite or install: what a fresh file costs.
    fresh: Option<(u64, u64)>,
}

impl Store {
    /// Opens the current generation of `disk` (files `state-<n>.redb`, `CURRENT`) and removes
    /// leftovers.
    pub async fn open(disk: &Disk, options: StoreOptions) -> Result<Opened, StoreError> {
        let (place, cache) = (disk.clone(), options.cache_bytes);
        let found = disk.job(move || find(&place, cache)).await?;
        let (base, applied, totals, file_bytes, lost) = match found.state {
            State::Ready {
                base,
                stamp,
                totals,
                bytes,
            } => (Some(base), stamp, totals, bytes, None),
            State::Fresh => (None, Stamp::default(), Totals::default(), 0, None),
            State::Lost(reason) => (None, Stamp::default(), Totals::default(), 0, Some(reason)),
        };
        let store = Box::new(Store {
            disk: disk.clone(),
            options,
            rows: Rows::new(base, totals),
            durable: applied.clone(),
            applied,
            next: found.next,
            running: None,
            spooling: None,
            wanted: None,
            installing: Weak::new(),
            leftover: found.leftover,
            cleaning: None,
            failed: false,
            file_bytes,
            flushed_bytes: 0,
            fresh: None,
        });
        Ok(match lost {
            None => Opened::Ready(store),
            Some(reason) => Opened::Lost(store, reason),
        })
    }

    /// The rows, for reading.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// The rows, for applying.
    pub fn rows_mut(&mut self) -> &mut Rows {
        &mut self.rows
    }

    /// Declares that the rows now cover `index`. Never goes back.
    pub fn applied(&mut self, index: u64, term: u64, time_ms: u64) {
        debug_assert!(index >= self.applied.index && time_ms >= self.applied.time_ms);
        self.applied.index = index;
        self.applied.term = term;
        self.applied.time_ms = time_ms;
    }

    /// A membership entry was applied.
    pub fn set_configuration(&mut self, configuration: Configuration) {
        self.applied.configuration = configuration;
    }

    /// What the rows in memory cover.
    pub fn stamp(&self) -> Stamp {
        let mut stamp = self.applied.clone();
        stamp.digest = self.rows.totals.digest;
        stamp.rows = self.rows.totals.rows;
        stamp
    }

    /// What is durable.
    pub fn durable(&self) -> Stamp {
        self.durable.clone()
    }

    /// See [`Pressure`].
    pub fn pressure(&self) -> Pressure {
        self.rows.overlay.bytes() as f32 / self.options.overlay_bytes.max(1) as f32
    }

    /// The overlays are at their hard limit: nothing may be applied before [`Store::done`]
    /// reported the running job.
    pub fn full(&self) -> bool {
        self.memory() >= self.options.overlay_limit
    }

    /// Bytes of the overlays.
    fn memory(&self) -> usize {
        self.rows.overlay.bytes() + self.rows.frozen.as_ref().map_or(0, |frozen| frozen.bytes())
    }

    /// Bytes of the files of this store.
    pub fn bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Starts a flush if one is due (or `force`) and none runs; else a rewrite, if one is due.
    /// Never waits. True when a flush was started.
    pub fn maybe_flush(&mut self, force: bool) -> bool {
        if self.failed {
            return false;
        }
        if let Some(running) = &self.running {
            // Flushes wait for a rewrite; before the overlay stalls the appliers, it gives way.
            if running.rewrite && self.memory() >= self.options.overlay_limit / 2 {
                running.cancel.store(true, Ordering::Relaxed);
            }
            return false;
        }
        let due = force || self.rows.overlay.bytes() >= self.options.overlay_bytes;
        if due && self.applied.index > self.durable.index {
            self.start_flush();
            return true;
        }
        if self.rewrite_due() {
            self.start_rewrite();
        }
        false
    }

    /// Asks for a snapshot of at least what is applied now; [`Store::done`] returns it. One at a
    /// time: while one is being made, asking again changes nothing. Nothing applied yet: ignored.
    pub fn start_snapshot(&mut self) {
        if self.wanted.is_none() && self.spooling.is_none() && self.applied.index > 0 {
            self.wanted = Some(self.applied.index);
            self.advance();
        }
    }

    /// Waits until a running job is done, and takes it in: after a flush `durable` rises. Pending
    /// for ever when nothing runs. Cancellation-safe. After an error the store does nothing more.
    pub async fn done(&mut self) -> Result<Done, StoreError> {
        loop {
            tokio::select! {
                biased;
                ended = wait(&mut self.running) => {
                    self.running = None;
                    if let Some(done) = self.take_in(ended)? {
                        return Ok(done);
                    }
                }
                ended = wait(&mut self.spooling) => {
                    self.spooling = None;
                    let spooled = match ended {
                        Ok(None) => continue,
                        Ok(Some(spool)) => Ok(spool),
                        // Nothing rests on a spool: a disk without room for it goes on.
                        Err(error) if error.is_full() => Err(error),
                        Err(error) => {
                            self.failed = true;
                            return Err(error);
                        }
                    };
                    self.wanted = None;
                    return Ok(Done::Spooled(spooled));
                }
            }
        }
    }

    /// Starts a new generation for a snapshot that covers `stamp`. Cancels a rewrite.
    pub async fn install(&mut self, stamp: Stamp) -> Result<Install, StoreError> {
        let token = Arc::new(());
        self.installing = Arc::downgrade(&token);
        if self.cancel_rewrite() {
            self.settle().await?;
        }
        let place = self.new_place();
        let cache = self.options.cache_bytes;
        self.disk
            .job(move || Install::create(place, stamp, cache, token))
            .await
    }

    /// Makes an installed generation current: `CURRENT` is replaced durably, the overlay is
    /// dropped. Refused (false) when its stamp is not above what is applied here.
    pub async fn switch(&mut self, installed: Installed) -> Result<bool, StoreError> {
        // A flush is bound to its generation, and one job at a time writes `CURRENT`.
        self.cancel_rewrite();
        self.settle().await?;
        if self.failed {
            return Err(self.stopped());
        }
        if installed.stamp.index <= self.applied.index {
            self.disk.job(move || drop(installed)).await;
            return Ok(false);
        }
        let disk = self.disk.clone();
        let work = move |_: &AtomicBool| {
            let (stamp, totals) = installed.check()?;
            let base = installed.keep();
            let bytes = base.generation.place.bytes()?;
            Current::write(&disk, base.generation.place.number, stamp.index)?;
            Ok(Outcome::Switched {
                base,
                stamp,
                totals,
                bytes,
            })
        };
        self.running = Some(self.start(false, work));
        self.settle().await?;
        Ok(true)
    }

    /// Flushes everything and closes cleanly.
    pub async fn close(mut self) -> Result<(), StoreError> {
        self.wanted = None;
        self.cancel_rewrite();
        if let Some(spooling) = &self.spooling {
            spooling.cancel.store(true, Ordering::Relaxed);
        }
        self.settle().await?;
        if self.applied.index > self.durable.index && !self.failed {
            self.start_flush();
            self.settle().await?;
        }
        let spool = match &mut self.spooling {
            Some(_) => wait(&mut self.spooling).await?,
            None => None,
        };
        if let Some(cleaning) = self.cleaning.take() {
            let _ = cleaning.await;
        }
        let rows = self.rows;
        self.disk
            .job(move || {
                drop(spool);
                drop(rows);
            })
            .await;
        Ok(())
    }

    /// Takes in whatever runs on generations now.
    async fn settle(&mut self) -> Result<(), StoreError> {
        while self.running.is_some() {
            let ended = wait(&mut self.running).await;
            self.running = None;
            self.take_in(ended)?;
        }
        Ok(())
    }

    fn cancel_rewrite(&self) -> bool {
        match &self.running {
            Some(running) if running.rewrite => {
                running.cancel.store(true, Ordering::Relaxed);
                true
            }
            _ => false,
        }
    }

    fn take_in(&mut self, ended: Result<Outcome, StoreError>) -> Result<Option<Done>, StoreError> {
        let done = match ended.inspect_err(|_| self.failed = true)? {
            Outcome::Flushed { base, stamp, bytes } => {
                debug_assert!(stamp.index > self.durable.index);
                self.rows.base = Some(base);
                self.durable = stamp;
                self.file_bytes = bytes;
                if let Some(frozen) = self.rows.frozen.take() {
                    self.flushed_bytes += frozen.bytes() as u64;
                    // A hundred thousand rows take a while to free.
                    let disk = self.disk.clone();
                    tokio::spawn(async move { disk.job(move || drop(frozen)).await });
                }
                if !self.leftover.is_empty() {
                    self.clean(None, None);
                }
                Some(Done::Flushed)
            }
            Outcome::Rewritten { base, bytes } => {
                let old = self.rows.base.replace(base);
                self.clean(old, None);
                self.refreshed(bytes);
                Some(Done::Rewritten)
            }
            Outcome::Switched {
                base,
                stamp,
                totals,
                bytes,
            } => {
                let old = std::mem::replace(&mut self.rows, Rows::new(Some(base), totals));
                self.applied = stamp.clone();
                self.durable = stamp;
                self.clean(old.base, Some(old.overlay));
                self.refreshed(bytes);
                Some(Done::Rewritten)
            }
            Outcome::Cancelled => {
                self.flushed_bytes = 0;
                None
            }
        };
        self.advance();
        Ok(done)
    }

    /// Starts what a snapshot that is asked for needs next.
    fn advance(&mut self) {
        let Some(index) = self.wanted else { return };
        if self.failed || self.spooling.is_some() {
            return;
        }
        match &self.rows.base {
            Some(base) if self.durable.index >= index => {
                // A view of its own: what is kept for reading changes with the next flush.
                let generation = base.generation.clone();
                let chunk_bytes = self.options.chunk_bytes;
                let work =
                    move |cancel: &AtomicBool| spool(&Base::view(generation)?, chunk_bytes, cancel);
                self.spooling = Some(self.start(false, work));
            }
            _ if self.running.is_none() => self.start_flush(),
            _ => {}
        }
    }

    fn start_flush(&mut self) {
        let stamp = self.stamp();
        let meta = Meta::new(stamp.clone(), self.rows.totals);
        let frozen = Arc::new(std::mem::take(&mut self.rows.overlay));
        self.rows.frozen = Some(frozen.clone());
        let cache = self.options.cache_bytes;
        let current = self.rows.base.as_ref().map(|base| base.generation.clone());
        let place = match &current {
            Some(generation) => generation.place.clone(),
            None => self.new_place(),
        };
        let work = move |_: &AtomicBool| {
            let generation = match current {
                Some(generation) => {
                    commit_layer(&generation, &frozen, &meta)?;
                    generation
                }
                None => {
                    // The first generation, or the first after a loss: complete, then current.
                    place.remove();
                    let generation = place.open(cache)?;
                    commit_layer(&generation, &frozen, &meta)?;
                    Current::write(&place.disk, place.number, stamp.index)?;
                    generation
                }
            };
            drop(frozen);
            let bytes = place.bytes()?;
            let base = Base::view(generation)?;
            Ok(Outcome::Flushed { base, stamp, bytes })
        };
        self.running = Some(self.start(false, work));
    }

    /// The file is more than twice its live bytes, and copying it would help.
    fn rewrite_due(&self) -> bool {
        if self.installing.strong_count() > 0
            || self.spooling.is_some()
            || self.wanted.is_some()
            || self.rows.base.is_none()
            || self.flushed_bytes == 0
            || self.file_bytes <= self.options.rewrite_min_bytes
        {
            return false;
        }
        let live = self.rows.totals.bytes;
        // Small rows cost more than their bytes even in a fresh file.
        let attainable = match self.fresh {
            Some((file, then)) if then > 0 => {
                live.max((u128::from(live) * u128::from(file) / u128::from(then)) as u64)
            }
            _ => live,
        };
        self.file_bytes > 4 * attainable
            || (self.file_bytes > 2 * attainable && self.flushed_bytes >= REWRITE_AFTER * live)
    }

    fn start_rewrite(&mut self) {
        let Some(base) = self.rows.base.clone() else {
            return;
        };
        let place = self.new_place();
        let cache = self.options.cache_bytes;
        let work = move |cancel: &AtomicBool| match rewrite(&base, place, cache, cancel)? {
            Some(base) => Ok(Outcome::Rewritten {
                bytes: base.generation.place.bytes()?,
                base,
            }),
            None => Ok(Outcome::Cancelled),
        };
        self.running = Some(self.start(true, work));
    }

    fn new_place(&mut self) -> Place {
        let place = Place::new(&self.disk, self.next);
        self.next += 1;
        place
    }

    fn start<T: Send + 'static>(
        &self,
        rewrite: bool,
        work: impl FnOnce(&AtomicBool) -> Result<T, StoreError> + Send + 'static,
    ) -> Running<T> {
        let cancel = Arc::new(AtomicBool::new(false));
        let (disk, flag) = (self.disk.clone(), cancel.clone());
        let handle = tokio::spawn(async move { disk.job(move || work(&flag)).await });
        Running {
            rewrite,
            handle,
            cancel,
        }
    }

    /// Another generation is current: frees the old one and removes what lies below, in the
    /// background.
    fn clean(&mut self, old: Option<Base>, overlay: Option<Layer>) {
        let mut places = std::mem::take(&mut self.leftover);
        places.extend(old.as_ref().map(|base| base.generation.place.clone()));
        let disk = self.disk.clone();
        self.cleaning = Some(tokio::spawn(async move {
            let work = move || {
                drop((overlay, old));
                places.iter().for_each(Place::remove);
            };
            disk.job(work).await;
        }));
    }

    fn refreshed(&mut self, bytes: u64) {
        self.file_bytes = bytes;
        self.flushed_bytes = 0;
        self.fresh = Some((bytes, self.rows.totals.bytes));
    }

    fn stopped(&self) -> StoreError {
        StoreError::Io {
            path: self.disk.path(""),
            source: std::io::Error::other("an earlier write failed"),
        }
    }
}

/// A job's end; pending for ever when there is none.
async fn wait<T>(running: &mut Option<Running<T>>) -> Result<T, StoreError> {
    match running {
        Some(running) => (&mut running.handle).await.unwrap_or_else(|e| {
            Err(StoreError::Io {
                path: "state".into(),
                source: std::io::Error::other(e),
            })
        }),
        None => pending().await,
    }
}
