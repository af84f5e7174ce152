//! The jobs of a store: when one is due, what it does on the disk.

use super::base::{Base, Meta};
use super::engine::{Shortage, Store};
use super::generation::{Current, Place, commit_layer};
use super::layer::Layer;
use super::rewrite::rewrite;
use super::scrub::{Pass, scrub};
use super::spool::spool;
use super::{Stamp, StoreError, Totals};
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::task::JoinHandle;
use world::clock::now;

/// A rewrite is repeated only after flushes brought this many times the live bytes, unless the
/// file is twice as bad as allowed: random overwrites alone keep a copy-on-write tree near twice
/// No file of less is rewritten, bytes, however short the disk.
const LEAST_REWRITE: u64 = 256 << 10;
/// its live bytes, and copying it after every flush would cost more than it gains.
const REWRITE_AFTER: u64 = 4;

/// What a job on generations ends with.
pub(super) enum Outcome {
    Flushed {
        base: Base,
        stamp: Stamp,
        bytes: u64,
    },
    Rewritten {
        base: Base,
        totals: Totals,
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

pub(super) struct Running<T> {
    pub(super) rewrite: bool,
    pub(super) handle: JoinHandle<Result<T, StoreError>>,
    pub(super) cancel: Arc<AtomicBool>,
}

impl Store {
    /// Starts what a snapshot that is asked for needs next.
    pub(super) fn advance(&mut self) {
        let Some(index) = self.wanted else { return };
        if self.failed || self.spooling.is_some() {
            return;
        }
        match &self.rows.base {
            Some(base) if self.durable.index >= index => {
                // A view of its own: what is kept for reading changes with the next flush.
                let generation = base.generation.clone();
                let sizes = (self.options.chunk_bytes, self.options.reserve_bytes);
                let work =
                    move |cancel: &AtomicBool| spool(&Base::view(generation)?, sizes, cancel);
                self.spooling = Some(self.start(false, work));
            }
            _ if self.running.is_none() => self.start_flush(),
            _ => {}
        }
    }

    /// Bytes of the overlay at which a flush is due.
    pub(super) fn flush_at(&self) -> usize {
        let share = match self.in_turn {
            true => 1.0,
            false => self.options.first_share,
        };
        (self.options.overlay_bytes as f32 * share) as usize
    }

    pub(super) fn start_flush(&mut self) {
        let due = self.flush_at();
        self.in_turn = (due..=due + due / 4).contains(&self.rows.overlay.bytes());
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

    pub(super) fn may_scrub(&self) -> bool {
        self.scrubbing.is_none() && !self.failed
    }

    /// Verifies the next blocks of the current generation, off the hot path.
    pub(super) fn start_scrub(&mut self) {
        self.scrub_due = now() + self.options.scrub_pause;
        let Some(base) = &self.rows.base else { return };
        let generation = base.generation.clone();
        let number = generation.place.number;
        let pass = match std::mem::take(&mut self.scrub_at) {
            (of, pass) if of == number => pass,
            _ => Pass::default(),
        };
        let work = move |_: &AtomicBool| Ok((number, scrub(&generation, pass)?));
        self.scrubbing = Some(self.start(false, work));
    }

    /// No file of less is worth a copy. (A small disk is full of a small file.)
    fn least_rewrite(&self) -> u64 {
        let usual = self.options.rewrite_min_bytes;
        match self.shortage {
            Shortage::None => usual,
            Shortage::Short | Shortage::NearlyFull => usual.min(LEAST_REWRITE),
        }
    }

    /// The file is more than twice its live bytes, and copying it would help.
    pub(super) fn rewrite_due(&self) -> bool {
        if self.installing.strong_count() > 0
            || self.spooling.is_some()
            || self.wanted.is_some()
            || self.rows.base.is_none()
            || self.flushed_bytes == 0
            || self.file_bytes <= self.least_rewrite()
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
        // One that gave way would give way again at once, and cost as much each time.
        let patience = if self.gave_way { live } else { 0 };
        // Quarters. What is free inside the file is of no use to a disk that is nearly full.
        let much = match self.shortage {
            Shortage::None => 16,
            Shortage::Short => 8,
            Shortage::NearlyFull => 5,
        };
        (4 * self.file_bytes > much * attainable && self.flushed_bytes >= patience)
            || (self.file_bytes > 2 * attainable && self.flushed_bytes >= REWRITE_AFTER * live)
    }

    pub(super) fn start_rewrite(&mut self) {
        let Some(base) = self.rows.base.clone() else {
            return;
        };
        let place = self.new_place();
        let room = (self.options.reserve_bytes / 4, self.options.cache_bytes);
        let work = move |cancel: &AtomicBool| match rewrite(&base, place, room, cancel)? {
            Some(base) => Ok(Outcome::Rewritten {
                bytes: base.generation.place.bytes()?,
                totals: base.stamp()?.1,
                base,
            }),
            None => Ok(Outcome::Cancelled),
        };
        self.running = Some(self.start(true, work));
    }

    pub(super) fn new_place(&mut self) -> Place {
        let place = Place::new(&self.disk, self.next);
        self.next += 1;
        place
    }

    pub(super) fn start<T: Send + 'static>(
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
    pub(super) fn clean(&mut self, old: Option<Base>, overlay: Option<Layer>) {
        let mut places = std::mem::take(&mut self.leftover);
        places.extend(old.as_ref().map(|base| base.generation.place.clone()));
        let disk = self.disk.clone();
        let root = disk.clone();
        self.cleaning = Some(tokio::spawn(async move {
            let work = move || {
                drop((overlay, old));
                places.iter().for_each(Place::remove);
                // Else a power failure might bring them back onto a disk that has no room for them. (What
                // does come back is removed at the next start.)
                let _ = root.sync_dir("");
            };
            disk.job(work).await;
        }));
    }

    /// The generation is a fresh file of so many bytes, with these rows in it. (The overlay may have
    /// deleted them all since.)
    pub(super) fn refreshed(&mut self, bytes: u64, inside: Totals) {
        self.file_bytes = bytes;
        self.flushed_bytes = 0;
        self.gave_way = false;
        self.fresh = Some((bytes, inside.bytes));
    }

    pub(super) fn stopped(&self) -> StoreError {
        StoreError::Io {
            path: self.disk.path(""),
            source: std::io::Error::other("an earlier write failed"),
        }
    }
}

/// A job's end; pending for ever when there is none.
pub(super) async fn wait<T>(running: &mut Option<Running<T>>) -> Result<T, StoreError> {
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
