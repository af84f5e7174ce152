//! A simulated disk: un-synced loss, torn sectors, latency, injected errors, a full disk.
//!
//! What is modelled, and how:
//! - A write is visible at once and durable after a sync of its file. A power failure keeps of
//!   the un-synced rest a random part, sector by sector (512 bytes), each sector as it was at some
//!   moment since the last sync, or (by the options) garbage; the file's length likewise.
//! - A created, renamed or removed name is durable after a sync of its directory. Of the un-synced
//!   changes each survives or not on its own. Syncing a file does not make its name durable.
//! - A failed sync drops what was not synced, and the next one says Ok (as Linux does).
//! - Handles belong to an incarnation of the disk's user. A power failure or a killed process
//!   ends the incarnation: what is left of it gets errors and changes nothing.
//!
//! Everything is drawn from the disk's own seed and happens in the order of the calls.

mod faults;
mod handle;
mod inode;
mod names;
mod rng;

pub use faults::DiskOp;
pub(super) use handle::{Mount, SimFile, SimLock};

use faults::Faults;
use names::Names;
use rng::Rng;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What a simulated disk does to its user.
#[derive(Clone, Debug)]
pub struct SimDiskOptions {
    /// Latency of a job is drawn from this range.
    pub latency: (Duration, Duration),
    /// Capacity in bytes; writes beyond it fail with `StorageFull`.
    pub capacity: u64,
    /// What was never written of a file takes no room, as on most file systems; else a file takes its
    /// whole length at once.
    pub sparse: bool,
    /// Probability that a job stalls.
    pub stall: f64,
    /// How long a stalled job takes.
    pub stalled: (Duration, Duration),
    /// Probability that after a power failure an un-synced sector beyond the synced length holds
    /// garbage.
    pub garbage: f64,
    /// Probability that after a power failure an un-synced sector below the synced length, one that
    /// was being overwritten, holds garbage: neither what was synced nor what was written.
    pub torn_overwrites: f64,
    /// Keeps for every page the content before its last sync, which
    /// [`SimDisk::make_stale`] brings back. Costs memory.
    pub keep_stale: bool,
}

impl Default for SimDiskOptions {
    fn default() -> Self {
        SimDiskOptions {
            latency: (Duration::from_micros(100), Duration::from_millis(4)),
            capacity: u64::MAX,
            sparse: false,
            stall: 0.0,
            stalled: (Duration::from_millis(100), Duration::from_millis(500)),
            garbage: 0.05,
            torn_overwrites: 0.0,
            keep_stale: false,
        }
    }
}

/// What was done to a simulated disk since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SimDiskStats {
    /// Reads of files.
    pub reads: u64,
    /// Writes to files.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Syncs of files.
    pub syncs: u64,
    /// Syncs of directories.
    pub dir_syncs: u64,
    /// Everything that changes something or makes it durable: what [`SimDisk::crash_at`] counts.
    pub changes: u64,
    /// Power failures and killed processes.
    pub incarnations: u64,
}

/// A copy of a disk at a moment. Cheap: pages are shared.
#[derive(Clone)]
pub struct Image(Arc<Names>);

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image({} names)", self.0.now.len())
    }
}

struct State {
    rng: Rng,
    options: SimDiskOptions,
    /// Handles of another epoch are fenced.
    epoch: u64,
    names: Names,
    /// Who holds the directory's lock.
    locked: Option<u64>,
    next_lock: u64,
    faults: Faults,
    stats: SimDiskStats,
    crashed: bool,
}

impl State {
    fn power_fail(&mut self) {
        self.names.power_fail(&mut self.rng, &self.options);
        self.fence();
    }

    fn fence(&mut self) {
        self.epoch += 1;
        self.locked = None;
        self.stats.incarnations += 1;
    }

    fn used(&self) -> u64 {
        let sparse = self.options.sparse;
        let files = self.names.files();
        files.map(|(_, file)| lock(file).room(sparse)).sum()
    }
}

type OnCrash = Box<dyn FnMut() + Send>;

struct Inner {
    root: PathBuf,
    state: Mutex<State>,
    on_crash: Mutex<Option<OnCrash>>,
}

/// Nothing panics while it holds a lock, so a poisoned one is as good as any.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk itself, owned by the harness; survives the node that uses it.
#[derive(Clone)]
pub struct SimDisk(Arc<Inner>);

impl std::fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SimDisk({})", self.0.root.display())
    }
}

impl SimDisk {
    /// An empty disk. `seed` decides latencies and what a power failure keeps.
    pub fn new(name: &str, seed: u64, options: SimDiskOptions) -> SimDisk {
        SimDisk(Arc::new(Inner {
            root: PathBuf::from("/sim").join(name),
            state: Mutex::new(State {
                rng: Rng::new(seed),
                options,
                epoch: 0,
                names: Names::default(),
                locked: None,
                next_lock: 0,
                faults: Faults::default(),
                stats: SimDiskStats::default(),
                crashed: false,
            }),
            on_crash: Mutex::new(None),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    /// A handle for the node's present incarnation; handles given out before the last
    /// `power_fail` get errors and change nothing.
    pub fn disk(&self) -> super::Disk {
        super::Disk(super::Root::Sim(Mount::new(
            self.0.clone(),
            self.state().epoch,
        )))
    }

    /// Power goes: un-synced writes, names and lengths survive as a random subset, torn at 512 bytes; all
    /// handles given out so far are fenced.
    pub fn power_fail(&self) {
        self.state().power_fail();
    }

    /// The machine stays up, the process dies: everything written survives; handles are fenced.
    pub fn process_kill(&self) {
        self.state().fence();
    }

    /// Everything is gone (a new, empty volume); handles are fenced.
    pub fn wipe(&self) {
        let mut state = self.state();
        state.names = Names::default();
        state.fence();
    }

    /// The disk as it is now, un-synced writes included (take it after `power_fail`, or use it as
    /// a backup taken from a running machine).
    pub fn image(&self) -> Image {
        Image(Arc::new(self.state().names.frozen_copy()))
    }

    /// The disk becomes what it was when the image was taken; handles are fenced.
    pub fn restore(&self, image: &Image) {
        let mut state = self.state();
        state.names = image.0.frozen_copy();
        state.fence();
    }

    /// Bytes in all files (for tests that look whether deleted data are gone).
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Names and lengths of all files.
    pub fn files(&self) -> Vec<(String, u64)> {
        self.state()
            .names
            .files()
            .map(|(name, file)| (name.clone(), lock(file).len()))
            .collect()
    }

    /// A file's content as its user would read it.
    pub fn read(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let inode = lock(state.names.file(name)?);
        let mut contents = vec![0; inode.len() as usize];
        inode.read(&mut contents, 0);
        Some(contents)
    }

    /// What was done so far.
    pub fn stats(&self) -> SimDiskStats {
        self.state().stats
    }

    /// The options in force.
    pub fn options(&self) -> SimDiskOptions {
        self.state().options.clone()
    }

    /// Replaces the options.
    pub fn set_options(&self, options: SimDiskOptions) {
        self.state().options = options;
    }
}
