//! A disk: one directory tree of files. Real files, or a simulated disk owned by a test.
//!
//! Operations block and are meant to be called inside [`Disk::job`], which runs them on a thread
//! of their own in production, and inline (with a drawn latency) in simulation.
//! Nothing is durable before `sync_data` of the file and, for names, `sync_dir` of the directory.
//!
//! Every error names the operation and the path and keeps its [`io::ErrorKind`].

mod real;
mod sim;

pub use sim::{DiskOp, Image, SimDisk, SimDiskOptions, SimDiskStats};

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The file that [`Disk::lock`] locks.
const LOCK_FILE: &str = "LOCK";

/// A handle on a disk. Cheap to clone. Names are relative, `/`-separated, without `..`.
#[derive(Clone)]
pub struct Disk(Root);

#[derive(Clone)]
enum Root {
    Real(Arc<Path>),
    Sim(sim::Mount),
}

/// An open file. Cheap to clone; positioned reads and writes.
#[derive(Clone)]
pub struct File(Opened);

#[derive(Clone)]
enum Opened {
    Real(Arc<real::RealFile>),
    Sim(sim::SimFile),
}

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

/// Adds operation and path to an error, keeping its kind.
fn explain(error: io::Error, operation: &str, path: &Path) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("{operation} {}: {error}", path.display()),
    )
}

/// Refuses names that would leave the disk's directory.
fn check_name(name: &str, may_be_root: bool) -> io::Result<()> {
    let refuse = |why: &str| {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("file name {name:?} {why}"),
        ))
    };
    if name.is_empty() {
        return if may_be_root {
            Ok(())
        } else {
            refuse("is empty")
        };
    }
    for part in name.split('/') {
        if part.is_empty() || part == "." || part == ".." || part.contains('\0') {
            return refuse("must be relative, without empty parts, \".\" or \"..\"");
        }
    }
    Ok(())
}

/// The directory that holds `name`; "" is the root.
fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Disk {
    /// A real directory, created when absent.
    pub fn real(root: impl Into<PathBuf>) -> io::Result<Disk> {
        let root = root.into();
        real::create_root(&root)?;
        Ok(Disk(Root::Real(root.into())))
    }

    /// What errors name: the path of `name` on this disk.
    pub fn path(&self, name: &str) -> PathBuf {
        match &self.0 {
            Root::Real(root) => real::join(root, name),
            Root::Sim(mount) => mount.path(name),
        }
    }

    /// Runs blocking disk work without blocking the runtime. In production on a thread of the
    /// blocking pool; in simulation: sleeps a drawn part, runs inline, sleeps the rest, so that
    /// both "pending, not durable" and "durable, not yet reported" occur.
    /// The closure runs to its end even if the future is dropped (production; in simulation a
    /// future dropped during the first sleep never runs it, as when the machine dies).
    pub async fn job<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match &self.0 {
            Root::Real(_) => real::job(work).await,
            Root::Sim(mount) => {
                let (before, after) = mount.draw_latency();
                tokio::time::sleep(before).await;
                let done = work();
                tokio::time::sleep(after).await;
                done
            }
        }
    }

    /// Opens a file.
    pub fn open(&self, name: &str, how: Open) -> io::Result<File> {
        check_name(name, false)?;
        Ok(File(match &self.0 {
            Root::Real(root) => Opened::Real(Arc::new(real::RealFile::open(
                &real::join(root, name),
                how,
            )?)),
            Root::Sim(mount) => Opened::Sim(mount.open(name, how)?),
        }))
    }

    /// Creates a directory and its parents; not an error when present.
    pub fn create_dir(&self, name: &str) -> io::Result<()> {
        check_name(name, true)?;
        match &self.0 {
            Root::Real(root) => real::create_dir(root, name),
            Root::Sim(mount) => mount.create_dir(name),
        }
    }

    /// Names (not paths) in a directory, sorted. An absent directory is `NotFound`.
    pub fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        check_name(dir, true)?;
        match &self.0 {
            Root::Real(root) => real::list(&real::join(root, dir)),
            Root::Sim(mount) => mount.list(dir),
        }
    }

    /// True when the file or directory exists.
    pub fn exists(&self, name: &str) -> io::Result<bool> {
        check_name(name, true)?;
        match &self.0 {
            Root::Real(root) => real::exists(&real::join(root, name)),
            Root::Sim(mount) => mount.exists(name),
        }
    }

    /// Bytes that files may still grow by, all together.
    pub fn free(&self) -> io::Result<u64> {
        match &self.0 {
            Root::Real(root) => real::free(root),
            Root::Sim(mount) => mount.free(),
        }
    }

    /// Renames a file, replacing an existing one. Durable after `sync_dir` (of both directories,
    /// when they differ).
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        check_name(from, false)?;
        check_name(to, false)?;
        match &self.0 {
            Root::Real(root) => real::rename(&real::join(root, from), &real::join(root, to)),
            Root::Sim(mount) => mount.rename(from, to),
        }
    }

    /// Removes a file. Durable after `sync_dir`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        check_name(name, false)?;
        match &self.0 {
            Root::Real(root) => real::remove(&real::join(root, name)),
            Root::Sim(mount) => mount.remove(name),
        }
    }

    /// Makes creations, renames and removals in a directory durable ("" is the root).
    pub fn sync_dir(&self, dir: &str) -> io::Result<()> {
        check_name(dir, true)?;
        match &self.0 {
            Root::Real(root) => real::sync_dir(&real::join(root, dir)),
            Root::Sim(mount) => mount.sync_dir(dir),
        }
    }

    /// Reads a whole small file, refusing more than `limit` bytes.
    pub fn read(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let file = self.open(name, Open::Read)?;
        let len = file.len()?;
        if len > limit as u64 {
            let path = self.path(name);
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "read {}: {len} bytes, more than the {limit} expected",
                    path.display()
                ),
            ));
        }
        let mut contents = vec![0; len as usize];
        file.read_exact_at(&mut contents, 0)?;
        Ok(contents)
    }

    /// Replaces a small file atomically and durably: temporary file, sync, rename, sync_dir.
    pub fn write_atomic(&self, name: &str, contents: &[u8]) -> io::Result<()> {
        check_name(name, false)?;
        let temporary = format!("{name}.tmp");
        let file = self.open(&temporary, Open::Create)?;
        file.set_len(0)?;
        file.write_all_at(contents, 0)?;
        file.sync_data()?;
        self.rename(&temporary, name)?;
        self.sync_dir(parent(name))
    }

    /// Takes the exclusive lock of this directory (file `LOCK`), held until the guard drops or
    /// the process ends. `WouldBlock` when another process holds it.
    pub fn lock(&self) -> io::Result<DirLock> {
        Ok(DirLock(match &self.0 {
            Root::Real(root) => Held::Real {
                _file: real::lock(&real::join(root, LOCK_FILE))?,
            },
            Root::Sim(mount) => Held::Sim {
                _lock: mount.lock()?,
            },
        }))
    }
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Disk({})", self.path("").display())
    }
}

/// Holds a directory's lock.
pub struct DirLock(#[expect(dead_code, reason = "held for its Drop")] Held);

enum Held {
    Real { _file: std::fs::File },
    Sim { _lock: sim::SimLock },
}

impl std::fmt::Debug for DirLock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DirLock")
    }
}

impl File {
    /// Reads exactly `buf.len()` bytes; `UnexpectedEof` beyond the end.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Opened::Real(file) => file.read_exact_at(buf, offset),
            Opened::Sim(file) => file.read_exact_at(buf, offset),
        }
    }

    /// Writes all bytes, growing the file as needed. After an error any part may be written.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match &self.0 {
            Opened::Real(file) => file.write_all_at(buf, offset),
            Opened::Sim(file) => file.write_all_at(buf, offset),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> io::Result<u64> {
        match &self.0 {
            Opened::Real(file) => file.len(),
            Opened::Sim(file) => file.len(),
        }
    }

    /// True when the file has no bytes.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Truncates or extends (with zeros).
    pub fn set_len(&self, len: u64) -> io::Result<()> {
        match &self.0 {
            Opened::Real(file) => file.set_len(len),
            Opened::Sim(file) => file.set_len(len),
        }
    }

    /// After a failed change: asks that what is read from now on is what the disk has. A kernel that
    /// could not write a page may go on showing it, and takes it for clean. Advice only; Linux takes it.
    pub fn forget(&self) {
        match &self.0 {
            Opened::Real(file) => file.forget(),
            Opened::Sim(file) => file.forget(),
        }
    }

    /// Makes everything written durable (fdatasync). After an error nothing is known to be.
    pub fn sync_data(&self) -> io::Result<()> {
        match &self.0 {
            Opened::Real(file) => file.sync_data(),
            Opened::Sim(file) => file.sync_data(),
        }
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Opened::Real(file) => write!(f, "File({})", file.path().display()),
            Opened::Sim(file) => write!(f, "File({})", file.path().display()),
        }
    }
}
