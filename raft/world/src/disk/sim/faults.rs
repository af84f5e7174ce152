//! Faults on order: errors, power failure inside an operation, damage to what is stored.

use super::inode::PAGE;
use super::{SimDisk, State, lock};
use std::io::ErrorKind;

/// Kinds of operations that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Reading a file.
    Read,
    /// Writing a file or changing its length.
    Write,
    /// Syncing a file or a directory.
    Sync,
    /// Creating, renaming, removing a name.
    Name,
}

const OPS: usize = 4;

/// What is to go wrong.
#[derive(Default)]
pub(super) struct Faults {
    /// Per kind: the operations still to come until one fails (1: the next), and how.
    once: [Option<(u64, ErrorKind)>; OPS],
    /// Per kind: the probability of an error, and which.
    rate: [Option<(f64, ErrorKind)>; OPS],
    /// Changes still to come until the power fails inside one (1: the next).
    crash_in: Option<u64>,
}

impl State {
    /// The error that this operation is to fail with.
    pub(super) fn injected(&mut self, op: DiskOp) -> Option<ErrorKind> {
        let once = &mut self.faults.once[op as usize];
        if let Some((left, kind)) = *once {
            *once = (left > 1).then_some((left - 1, kind));
            if left <= 1 {
                return Some(kind);
            }
        }
        let (probability, kind) = self.faults.rate[op as usize]?;
        self.rng.chance(probability).then_some(kind)
    }

    /// Counts a change; true when the power fails inside it.
    pub(super) fn crashes_here(&mut self) -> bool {
        self.stats.changes += 1;
        if let Some(left) = self.faults.crash_in {
            self.faults.crash_in = (left > 1).then_some(left - 1);
            return left <= 1;
        }
        false
    }
}

impl SimDisk {
    /// Makes the `nth` operation of a kind from now on fail once (1: the next one). A failed write
    /// may have written a part; a failed sync drops what was not synced (by chance it is read all the
    /// same until the power fails), and the next one says Ok.
    pub fn fail_nth(&self, op: DiskOp, nth: u64, kind: ErrorKind) {
        self.state().faults.once[op as usize] = Some((nth, kind));
    }

    /// Makes each operation of a kind fail with a probability; 0 ends it.
    pub fn set_error_rate(&self, op: DiskOp, probability: f64, kind: ErrorKind) {
        self.state().faults.rate[op as usize] = (probability > 0.0).then_some((probability, kind));
    }

    /// Takes back all injected errors and a planned crash.
    pub fn clear_faults(&self) {
        self.state().faults = Faults::default();
    }

    /// Power fails inside the `nth` change from now on (1: the next write, sync, length or name
    /// change). From then on the user's handles are fenced; [`SimDisk::crashed`] tells, and the
    /// callback of [`SimDisk::on_crash`] is called, so that the harness can kill the node.
    pub fn crash_at(&self, nth: u64) {
        self.state().faults.crash_in = Some(nth);
    }

    /// True once after a planned crash has happened.
    pub fn crashed(&self) -> bool {
        std::mem::take(&mut self.state().crashed)
    }

    /// Called when a planned crash happens, on the task that was using the disk.
    pub fn on_crash(&self, callback: Option<Box<dyn FnMut() + Send>>) {
        *lock(&self.0.on_crash) = callback;
    }

    /// Flips one bit of a stored byte. False when there is no such byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) -> bool {
        self.change_stored(name, offset / PAGE as u64, offset, |page| {
            page[(offset % PAGE as u64) as usize] ^= 1 << (bit % 8);
        })
    }

    /// Flips a random bit of a file and says which (offset, bit).
    pub fn rot(&self, name: &str) -> Option<(u64, u8)> {
        let (offset, bit) = {
            let mut state = self.state();
            let len = lock(state.names.file(name)?).len();
            if len == 0 {
                return None;
            }
            (state.rng.below(len), state.rng.below(8) as u8)
        };
        self.flip_bit(name, offset, bit).then_some((offset, bit))
    }

    /// A write that the disk acknowledged and never did: the 4 KiB block has the content it had before
    /// its last sync again. Needs `keep_stale`. False when there is no earlier content.
    pub fn make_stale(&self, name: &str, block: u64) -> bool {
        let before = {
            let state = self.state();
            state
                .names
                .file(name)
                .and_then(|file| lock(file).stale_page(block))
        };
        before.is_some_and(|before| {
            self.change_stored(name, block, block * PAGE as u64, |page| *page = before)
        })
    }

    /// A misdirected write: 4 KiB block `to` gets the content of block `from` of the same file.
    pub fn misdirect(&self, name: &str, from: u64, to: u64) -> bool {
        let mut content = [0; PAGE];
        {
            let state = self.state();
            let Some(file) = state.names.file(name) else {
                return false;
            };
            let inode = lock(file);
            if (from + 1) * PAGE as u64 > inode.len() {
                return false;
            }
            inode.read(&mut content, from * PAGE as u64);
        }
        self.change_stored(name, to, to * PAGE as u64, |page| *page = content)
    }

    /// Overwrites stored bytes within the file's length, durably, behind everybody's back.
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) -> bool {
        let mut all = true;
        for (i, byte) in bytes.iter().enumerate() {
            let at = offset + i as u64;
            all &= self.change_stored(name, at / PAGE as u64, at, |page| {
                page[(at % PAGE as u64) as usize] = *byte
            });
        }
        all
    }

    /// Cuts a file, durably, behind everybody's back (0: an empty file).
    pub fn truncate(&self, name: &str, len: u64) -> bool {
        let state = self.state();
        let Some(file) = state.names.file(name) else {
            return false;
        };
        let mut inode = lock(file);
        if len > inode.len() {
            return false;
        }
        inode.set_len(len);
        inode.sync(false);
        true
    }

    /// Removes a file, durably, behind everybody's back.
    pub fn delete(&self, name: &str) -> bool {
        let mut state = self.state();
        let Some(file) = state.names.file(name).cloned() else {
            return false;
        };
        state.names.remove(name, &file);
        state.names.sync_dir(crate::disk::parent(name));
        true
    }

    fn change_stored(
        &self,
        name: &str,
        page: u64,
        offset: u64,
        change: impl Fn(&mut super::inode::Page),
    ) -> bool {
        let state = self.state();
        let Some(file) = state.names.file(name) else {
            return false;
        };
        let mut inode = lock(file);
        if offset >= inode.len() {
            return false;
        }
        inode.damage(page, change);
        true
    }
}
