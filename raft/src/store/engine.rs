//! The store: which job runs when, and what its end changes.
//!
//! One job at a time touches generations (flush, rewrite, switch); a spool may run beside it, on
//! its own read transaction. Every job is a task of its own, so a dropped future loses nothing:
//! the next call of [`Store::done`] takes its result in.

use super::generation::{Current, Place};
use super::jobs::{Outcome, Running, wait};
use super::open::{State, find};
use super::rows::Rows;
use super::scrub::Pass;
use super::spool::{Install, Installed, Spool};
use super::{Done, Opened, Pressure, Stamp, StoreError, StoreOptions, Totals};
use raft_protocol::Configuration;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use tokio::task::JoinHandle;
use world::clock::{Instant, now};
use world::disk::Disk;

/// Bytes of a row's leaf page and of the branch above it.
const ROW_PAGES: usize = 8 << 10;

/// How little room a disk has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// There is enough.
    None,
    /// A file of more than twice what it holds is rewritten, even a small one.
    Short,
    /// A file of more than five quarters of what it holds is rewritten.
    NearlyFull,
}

/// The store. Owned by the apply task; methods that touch the disk run their own jobs.
pub struct Store {
    pub(super) disk: Disk,
    pub(super) options: StoreOptions,
    pub(super) rows: Rows,
    /// What the rows in memory cover (digest and count: see [`Store::stamp`]).
    pub(super) applied: Stamp,
    pub(super) durable: Stamp,
    /// The next generation's number.
    pub(super) next: u64,
    pub(super) running: Option<Running<Outcome>>,
    pub(super) spooling: Option<Running<Option<Spool>>>,
    /// A step of the scrub: its generation, and how far the pass is then.
    pub(super) scrubbing: Option<Running<(u64, Pass)>>,
    /// Where the scrub goes on, and when.
    pub(super) scrub_at: (u64, Pass),
    pub(super) scrub_due: Instant,
    /// A snapshot is asked for that covers at least this index.
    pub(super) wanted: Option<u64>,
    /// Alive while an install is under way.
    pub(super) installing: Weak<()>,
    /// Generations of a lost state, removed when another one is current.
    pub(super) leftover: Vec<Place>,
    /// Removal of what a switch left behind.
    pub(super) cleaning: Option<JoinHandle<()>>,
    /// The last flush began when it was due, so the next one keeps its distance from those of the
    /// other members.
    pub(super) in_turn: bool,
    /// A job failed: nothing is started any more.
    pub(super) failed: bool,
    /// Bytes of the current generation file.
    pub(super) file_bytes: u64,
    /// Bytes brought by flushes since the file was last rewritten.
    pub(super) flushed_bytes: u64,
    /// The last rewrite gave way to a flush.
    pub(super) gave_way: bool,
    /// The disk has little room.
    pub(super) shortage: Shortage,
    /// File and live bytes right after the last rewrite or install: what a fresh file costs.
    pub(super) fresh: Option<(u64, u64)>,
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
            scrubbing: None,
            scrub_at: (0, Pass::default()),
            scrub_due: now(),
            wanted: None,
            installing: Weak::new(),
            leftover: found.leftover,
            cleaning: None,
            in_turn: false,
            failed: false,
            file_bytes,
            flushed_bytes: 0,
            gave_way: false,
            shortage: Shortage::None,
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

    /// Index of the last entry applied.
    pub fn applied_index(&self) -> u64 {
        self.applied.index
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

    /// Bytes of the disk that flushing what is changed now may take, at most: rows far from each other
    /// cost pages of their own, which are written anew, with the one above.
    pub fn flush_cost(&self) -> usize {
        let overlay = &self.rows.overlay;
        overlay.bytes() + overlay.rows() * ROW_PAGES
    }

    /// How little room the disk has: the less, the sooner a state file is rewritten that holds less
    /// than it could.
    pub fn spare_room(&mut self, shortage: Shortage) {
        self.shortage = shortage;
    }

    /// Bytes of the overlays.
    pub fn memory(&self) -> usize {
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
        if self.running.is_some() {
            // Flushes wait for a rewrite; before the overlay stalls the appliers, it gives way.
            if self.memory() >= self.options.overlay_limit / 2 {
                self.give_way();
            }
            return false;
        }
        let due = force || self.rows.overlay.bytes() >= self.flush_at();
        if due && self.is_behind() {
            self.start_flush();
            return true;
        }
        if self.rewrite_due() {
            self.start_rewrite();
        }
        false
    }

    /// Nothing is applied for a while: there is time for a rewrite that gave way.
    pub fn rest(&mut self) {
        self.gave_way &= self.is_behind();
    }

    /// A job has failed: the store does nothing more, and its server must end.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// Something that was applied is not durable.
    pub fn is_behind(&self) -> bool {
        self.applied.index > self.durable.index
    }

    /// Cancels a rewrite that runs: flushes wait for it, and one is urgent.
    pub fn give_way(&mut self) {
        if let Some(running) = &self.running
            && running.rewrite
        {
            world::mark!("store: a rewrite gives way to a flush");
            running.cancel.store(true, Ordering::Relaxed);
            self.gave_way = true;
        }
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
                ended = wait(&mut self.scrubbing) => {
                    self.scrubbing = None;
                    self.scrub_at = ended.inspect_err(|_| self.failed = true)?;
                }
                () = world::clock::sleep_until(self.scrub_due), if self.may_scrub() => {
                    self.start_scrub();
                }
                ended = wait(&mut self.spooling) => {
                    self.spooling = None;
                    let spooled = match ended {
                        Ok(None) => continue,
                        Ok(Some(spool)) => Ok(spool),
                        // Nothing rests on a spool: a disk without room for it goes on.
                        Err(error) if error.is_full() => {
                            world::mark!("store: no room for a spool");
                            Err(error)
                        }
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
            world::mark!("store: a rewrite is cancelled by an install");
            self.settle().await?;
        }
        let place = self.new_place();
        // As a rewrite, which makes room: the state that is there now goes.
        let room = (self.options.reserve_bytes / 4, self.options.cache_bytes);
        self.disk
            .job(move || Install::create(place, stamp, room, token))
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
            world::mark!("store: a switch is refused, the state is past it");
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
            Some(_) => match wait(&mut self.spooling).await {
                // Nothing rests on a spool: see `done`.
                Err(error) if error.is_full() => None,
                ended => ended?,
            },
            None => None,
        };
        if self.scrubbing.is_some() {
            wait(&mut self.scrubbing).await?;
        }
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

    pub(super) fn take_in(
        &mut self,
        ended: Result<Outcome, StoreError>,
    ) -> Result<Option<Done>, StoreError> {
        let done = match ended.inspect_err(|_| self.failed = true)? {
            Outcome::Flushed { base, stamp, bytes } => {
                debug_assert!(stamp.index > self.durable.index);
                if self.installing.strong_count() > 0 {
                    world::mark!("store: a flush ends during an install");
                }
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
            Outcome::Rewritten {
                base,
                totals,
                bytes,
            } => {
                world::mark!("store: the state file is rewritten");
                let old = self.rows.base.replace(base);
                self.clean(old, None);
                self.refreshed(bytes, totals);
                Some(Done::Rewritten)
            }
            Outcome::Switched {
                base,
                stamp,
                totals,
                bytes,
            } => {
                world::mark!("store: the generation is switched by an install");
                let old = std::mem::replace(&mut self.rows, Rows::new(Some(base), totals));
                self.applied = stamp.clone();
                self.durable = stamp;
                self.clean(old.base, Some(old.overlay));
                self.refreshed(bytes, totals);
                Some(Done::Rewritten)
            }
            Outcome::Cancelled => {
                self.flushed_bytes = 0;
                // Who waits for room waits for a flush, and nothing else begins one.
                let urgent = self.full() || self.gave_way;
                if urgent && self.is_behind() {
                    self.start_flush();
                }
                None
            }
        };
        self.advance();
        Ok(done)
    }
}
