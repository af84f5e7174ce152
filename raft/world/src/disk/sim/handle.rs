//! What the disk's user holds: handles of one incarnation.

use super::names::Shared;
use super::{DiskOp, Inner, State, lock};
use crate::disk::{Open, explain, parent};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

/// The whole disk, as one incarnation of its user sees it.
#[derive(Clone)]
pub(in crate::disk) struct Mount {
    inner: Arc<Inner>,
    epoch: u64,
}

fn fenced() -> io::Error {
    io::Error::other("this disk's power failed or its process was killed")
}

impl Mount {
    pub(super) fn new(inner: Arc<Inner>, epoch: u64) -> Mount {
        Mount { inner, epoch }
    }

    pub(in crate::disk) fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.inner.root.clone()
        } else {
            self.inner.root.join(name)
        }
    }

    fn explain(&self, error: io::Error, what: &str, name: &str) -> io::Error {
        explain(error, what, &self.path(name))
    }

    fn fail(&self, kind: ErrorKind, what: &str, name: &str) -> io::Error {
        self.explain(kind.into(), what, name)
    }

    fn state(&self, what: &str, name: &str) -> io::Result<MutexGuard<'_, State>> {
        let state = lock(&self.inner.state);
        if state.epoch == self.epoch {
            Ok(state)
        } else {
            Err(self.explain(fenced(), what, name))
        }
    }

    /// One change: `effect` is given the state and, when the change is to fail, the error; when
    /// the power fails inside the change, the effect takes place or not.
    fn change<T>(
        &self,
        op: DiskOp,
        what: &str,
        name: &str,
        effect: impl FnOnce(&mut State, Option<ErrorKind>) -> io::Result<T>,
    ) -> io::Result<T> {
        let crashed = {
            let mut state = self.state(what, name)?;
            let injected = state.injected(op);
            if !state.crashes_here() {
                return effect(&mut state, injected).map_err(|e| self.explain(e, what, name));
            }
            if state.rng.chance(0.5) {
                let _ = effect(&mut state, None);
            }
            state.power_fail();
            state.crashed = true;
            self.explain(fenced(), what, name)
        };
        if let Some(callback) = lock(&self.inner.on_crash).as_mut() {
            callback();
        }
        Err(crashed)
    }

    /// How long a job sleeps before it runs and after.
    pub(in crate::disk) fn draw_latency(&self) -> (Duration, Duration) {
        let mut state = lock(&self.inner.state);
        let stalls = state.options.stall;
        let (least, most) = if state.rng.chance(stalls) {
            state.options.stalled
        } else {
            state.options.latency
        };
        let spread = most.saturating_sub(least).as_nanos() as u64;
        let total = least + Duration::from_nanos(state.rng.below(spread.saturating_add(1)));
        let before = total.mul_f64(state.rng.unit());
        (before, total.saturating_sub(before))
    }

    pub(in crate::disk) fn open(&self, name: &str, how: Open) -> io::Result<SimFile> {
        let found = {
            let state = self.state("open", name)?;
            if state.names.is_dir(name) {
                return Err(self.fail(ErrorKind::IsADirectory, "open", name));
            }
            state.names.file(name).cloned()
        };
        let inode = match (found, how) {
            (Some(_), Open::CreateNew) => {
                return Err(self.fail(ErrorKind::AlreadyExists, "open", name));
            }
            (Some(inode), _) => inode,
            (None, Open::Read | Open::Write) => {
                return Err(self.fail(ErrorKind::NotFound, "open", name));
            }
            (None, Open::CreateNew | Open::Create) => {
                self.change(DiskOp::Name, "open", name, |state, injected| {
                    ok_unless(injected)?;
                    if !state.names.is_dir(parent(name)) {
                        return Err(ErrorKind::NotFound.into());
                    }
                    Ok(state.names.create(name))
                })?
            }
        };
        Ok(SimFile {
            mount: self.clone(),
            name: name.into(),
            writable: how != Open::Read,
            inode,
        })
    }

    pub(in crate::disk) fn create_dir(&self, name: &str) -> io::Result<()> {
        if self.state("create directory", name)?.names.is_dir(name) {
            return Ok(());
        }
        self.change(DiskOp::Name, "create directory", name, |state, injected| {
            ok_unless(injected)?;
            let mut ancestor = name;
            while !ancestor.is_empty() {
                if state.names.file(ancestor).is_some() {
                    return Err(ErrorKind::NotADirectory.into());
                }
                ancestor = parent(ancestor);
            }
            state.names.create_dir(name);
            Ok(())
        })
    }

    pub(in crate::disk) fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let state = self.state("list", dir)?;
        if !state.names.is_dir(dir) {
            return Err(self.fail(ErrorKind::NotFound, "list", dir));
        }
        Ok(state.names.list(dir))
    }

    pub(in crate::disk) fn exists(&self, name: &str) -> io::Result<bool> {
        let state = self.state("look for", name)?;
        Ok(state.names.is_dir(name) || state.names.file(name).is_some())
    }

    pub(in crate::disk) fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change(DiskOp::Name, "rename", from, |state, injected| {
            ok_unless(injected)?;
            let Some(file) = state.names.file(from).cloned() else {
                return Err(ErrorKind::NotFound.into());
            };
            if !state.names.is_dir(parent(to)) {
                return Err(ErrorKind::NotFound.into());
            }
            if state.names.is_dir(to) {
                return Err(ErrorKind::IsADirectory.into());
            }
            if from != to {
                state.names.rename(to, &file);
            }
            Ok(())
        })
    }

    pub(in crate::disk) fn remove(&self, name: &str) -> io::Result<()> {
        self.change(DiskOp::Name, "remove", name, |state, injected| {
            ok_unless(injected)?;
            let Some(file) = state.names.file(name).cloned() else {
                return Err(ErrorKind::NotFound.into());
            };
            state.names.remove(name, &file);
            Ok(())
        })
    }

    pub(in crate::disk) fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.change(DiskOp::Sync, "sync directory", dir, |state, injected| {
            state.stats.dir_syncs += 1;
            ok_unless(injected)?;
            if !state.names.is_dir(dir) {
                return Err(ErrorKind::NotFound.into());
            }
            state.names.sync_dir(dir);
            Ok(())
        })
    }

    pub(in crate::disk) fn lock(&self) -> io::Result<SimLock> {
        let mut state = self.state("lock", super::super::LOCK_FILE)?;
        if state.locked.is_some() {
            return Err(self.fail(ErrorKind::WouldBlock, "lock", super::super::LOCK_FILE));
        }
        state.next_lock += 1;
        state.locked = Some(state.next_lock);
        Ok(SimLock {
            id: state.next_lock,
            inner: self.inner.clone(),
        })
    }
}

fn ok_unless(injected: Option<ErrorKind>) -> io::Result<()> {
    injected.map_or(Ok(()), |kind| Err(kind.into()))
}

/// The directory's lock.
pub(in crate::disk) struct SimLock {
    id: u64,
    inner: Arc<Inner>,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = lock(&self.inner.state);
        if state.locked == Some(self.id) {
            state.locked = None;
        }
    }
}

/// An open file.
#[derive(Clone)]
pub(in crate::disk) struct SimFile {
    mount: Mount,
    name: Arc<str>,
    writable: bool,
    inode: Shared,
}

impl SimFile {
    pub(in crate::disk) fn path(&self) -> PathBuf {
        self.mount.path(&self.name)
    }

    pub(in crate::disk) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.mount.state("read", &self.name)?;
        state.stats.reads += 1;
        if let Some(kind) = state.injected(DiskOp::Read) {
            return Err(self.mount.fail(kind, "read", &self.name));
        }
        let inode = lock(&self.inode);
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > inode.len())
        {
            return Err(self
                .mount
                .fail(ErrorKind::UnexpectedEof, "read", &self.name));
        }
        inode.read(buf, offset);
        Ok(())
    }

    fn check_writable(&self, what: &str) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(self
                .mount
                .fail(ErrorKind::PermissionDenied, what, &self.name))
        }
    }

    pub(in crate::disk) fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.check_writable("write")?;
        self.mount
            .change(DiskOp::Write, "write", &self.name, |state, injected| {
                let mut fits = fits(state, &self.inode, buf.len() as u64, offset);
                if injected.is_some() {
                    // A failed write may have written any part of what it was given.
                    fits = state.rng.below(fits + 1);
                }
                state.stats.writes += 1;
                state.stats.bytes_written += fits;
                lock(&self.inode).write(&buf[..fits as usize], offset);
                ok_unless(injected)?;
                if fits < buf.len() as u64 {
                    Err(ErrorKind::StorageFull.into())
                } else {
                    Ok(())
                }
            })
    }

    pub(in crate::disk) fn len(&self) -> io::Result<u64> {
        let _state = self.mount.state("stat", &self.name)?;
        Ok(lock(&self.inode).len())
    }

    pub(in crate::disk) fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable("set length of")?;
        self.mount.change(
            DiskOp::Write,
            "set length of",
            &self.name,
            |state, injected| {
                ok_unless(injected)?;
                let now = lock(&self.inode).len();
                if !state.options.sparse && room(state, now, len) < len {
                    return Err(ErrorKind::StorageFull.into());
                }
                lock(&self.inode).set_len(len);
                Ok(())
            },
        )
    }

    pub(in crate::disk) fn forget(&self) {
        lock(&self.inode).forget();
    }

    pub(in crate::disk) fn sync_data(&self) -> io::Result<()> {
        self.mount
            .change(DiskOp::Sync, "sync", &self.name, |state, injected| {
                state.stats.syncs += 1;
                if injected.is_some() {
                    let visible = state.rng.chance(0.5);
                    lock(&self.inode).drop_dirty(visible);
                }
                ok_unless(injected)?;
                lock(&self.inode).sync(state.options.keep_stale);
                Ok(())
            })
    }
}

impl Mount {
    pub(in crate::disk) fn free(&self) -> io::Result<u64> {
        let state = self.state("look at", "")?;
        Ok(state.options.capacity.saturating_sub(state.used()))
    }
}

/// Of so many bytes at an offset of a file, how many there is room for.
fn fits(state: &State, inode: &Shared, len: u64, offset: u64) -> u64 {
    let capacity = state.options.capacity;
    if state.options.sparse && capacity != u64::MAX {
        // Other files' locks are taken for this.
        let free = capacity.saturating_sub(state.used());
        return lock(inode).fits(len, offset, free);
    }
    let now = lock(inode).len();
    room(state, now, offset + len)
        .saturating_sub(offset)
        .min(len)
}

/// How long a file of length `len` may become when it is to become `wanted`.
fn room(state: &State, len: u64, wanted: u64) -> u64 {
    if wanted <= len || state.options.capacity == u64::MAX {
        return wanted.max(len);
    }
    len + state
        .options
        .capacity
        .saturating_sub(state.used())
        .min(wanted - len)
}
