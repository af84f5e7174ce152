//! A simulated disk: un-synced loss, torn sectors, latency, injected errors, a full disk.

use super::Disk;
use std::time::Duration;

/// What a simulated disk does to its user.
#[derive(Clone, Debug)]
pub struct SimDiskOptions {
    /// Latency of a job is drawn from this range.
    pub latency: (Duration, Duration),
    /// Capacity in bytes; writes beyond it fail with `StorageFull`.
    pub capacity: u64,
}

impl Default for SimDiskOptions {
    fn default() -> Self {
        SimDiskOptions {
            latency: (Duration::from_micros(100), Duration::from_millis(4)),
            capacity: u64::MAX,
        }
    }
}

/// The disk itself, owned by the harness; survives the node that uses it.
#[derive(Clone)]
pub struct SimDisk {}

impl SimDisk {
    /// An empty disk. `seed` decides latencies and what a power failure keeps.
    pub fn new(name: &str, seed: u64, options: SimDiskOptions) -> SimDisk {
        let _ = (name, seed, options);
        todo!()
    }
    /// A handle for the node's present incarnation; handles given out before the last
    /// `power_fail` get errors and change nothing.
    pub fn disk(&self) -> Disk {
        todo!()
    }
    /// Power goes: un-synced writes, names and lengths survive as a random subset, torn at 512 bytes; all
    /// handles given out so far are fenced.
    pub fn power_fail(&self) {
        todo!()
    }
    /// The machine stays up, the process dies: everything written survives; handles are fenced.
    pub fn process_kill(&self) {
        todo!()
    }
    /// Everything is gone (a new, empty volume); handles are fenced.
    pub fn wipe(&self) {
        todo!()
    }
    /// Bytes in all files (for tests that look whether deleted data are gone).
    pub fn used(&self) -> u64 {
        todo!()
    }
    // Helper adds: fail_after(n ops, kind), set_options, crash_inside(n-th operation), flip_bit(name, offset), files(), read(name), …
}
