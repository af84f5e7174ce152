//! A disk: one directory tree of files. Real files, or a simulated disk owned by a test.
//!
//! Operations block and are meant to be called inside [`Disk::job`], which runs them on a thread
//! of their own in production, and inline (with a drawn latency) in simulation.
//! Nothing is durable before `sync_data` of the file and, for names, `sync_dir` of the directory.

mod real;
mod sim;

pub use sim::{SimDisk, SimDiskOptions};

use std::io;
use std::path::PathBuf;

/// A handle on a disk. Cheap to clone. Names are relative, `/`-separated, without `..`.
#[derive(Clone)]
pub struct Disk {
    // real: root directory; sim: the simulated disk and the epoch this handle belongs to
    root: PathBuf,
}

/// An open file. Cheap to clone; positioned reads and writes.
#[derive(Clone)]
pub struct File {}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// Must exist; read only.
    Read,
    /// Must exist; read and write.
    Write,
    /// Must not exist; read and write.
    CreateNew,
    /// Created when absent, kept when present; read and write.
    Create,
}

impl Disk {
    /// A real directory, created when absent.
    pub fn real(root: impl Into<PathBuf>) -> io::Result<Disk> {
        let _ = root.into();
        todo!()
    }
    /// What errors name: the path of `name` on this disk.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
    /// Runs blocking disk work without blocking the runtime. In production on a thread of the
    /// blocking pool; in simulation: sleeps a drawn part, runs inline, sleeps the rest, so that
    /// both "pending, not durable" and "durable, not yet reported" occur.
    /// The closure runs to its end even if the future is dropped (production).
    pub async fn job<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _ = work;
        todo!()
    }
    /// Opens a file.
    pub fn open(&self, name: &str, how: Open) -> io::Result<File> {
        let _ = (name, how);
        todo!()
    }
    /// Creates a directory and its parents; not an error when present.
    pub fn create_dir(&self, name: &str) -> io::Result<()> {
        let _ = name;
        todo!()
    }
    /// Names (not paths) in a directory, sorted. An absent directory is `NotFound`.
    pub fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let _ = dir;
        todo!()
    }
    /// True when the file or directory exists.
    pub fn exists(&self, name: &str) -> io::Result<bool> {
        let _ = name;
        todo!()
    }
    /// Renames a file, replacing an existing one. Durable after `sync_dir`.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let _ = (from, to);
        todo!()
    }
    /// Removes a file. Durable after `sync_dir`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        let _ = name;
        todo!()
    }
    /// Makes creations, renames and removals in a directory durable ("" is the root).
    pub fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let _ = dir;
        todo!()
    }
    /// Reads a whole small file, refusing more than `limit` bytes.
    pub fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let _ = (name, limit);
        todo!()
    }
    /// Replaces a small file atomically and durably: temporary file, sync, rename, sync_dir.
    pub fn write_atomic(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        let _ = (name, contents);
        todo!()
    }
    /// Takes the exclusive lock of this directory (file `LOCK`), held until the guard drops or
    /// the process ends. `WouldBlock` when another process holds it.
    pub fn lock(&self) -> io::Result<DirLock> {
        todo!()
    }
}

/// Holds a directory's lock.
pub struct DirLock {}

impl File {
    /// Reads exactly `buf.len()` bytes; `UnexpectedEof` beyond the end.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let _ = (buf, offset);
        todo!()
    }
    /// Writes all bytes, growing the file as needed.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let _ = (buf, offset);
        todo!()
    }
    /// Length in bytes.
    pub fn len(&self) -> io::Result<u64> {
        todo!()
    }
    /// True when the file has no bytes.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Truncates or extends (with zeros).
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        let _ = len;
        todo!()
    }
    /// Makes everything written durable (fdatasync). After an error nothing is known to be.
    pub fn sync_data(&self) -> io::Result<()> {
        todo!()
    }
}
