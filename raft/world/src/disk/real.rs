//! Real files.

use super::{Open, explain};
use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The path of `name` under `root`; "" is the root itself.
pub(super) fn join(root: &Path, name: &str) -> PathBuf {
    if name.is_empty() {
        root.to_path_buf()
    } else {
        root.join(name)
    }
}

/// Runs blocking work on a thread of the blocking pool.
#[cfg(not(madsim))]
pub(super) async fn job<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Cancelled before it started: the runtime is shutting down and nobody waits any more.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The simulation has one thread: real files are worked on inline.
#[cfg(madsim)]
pub(super) async fn job<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    work()
}

/// Creates the root directory and makes its name durable.
pub(super) fn create_root(root: &Path) -> io::Result<()> {
    if root.is_dir() {
        return Ok(());
    }
    // The highest ancestor that exists is where the new names begin.
    let mut missing = vec![root];
    let mut above = root.parent();
    while let Some(dir) = above.filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir()) {
        missing.push(dir);
        above = dir.parent();
    }
    fs::create_dir_all(root).map_err(|e| explain(e, "create directory", root))?;
    for dir in missing {
        let holder = dir
            .parent()
            .filter(|dir| !dir.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        sync_dir(holder)?;
    }
    Ok(())
}

/// Creates `name` and its parents under `root`.
pub(super) fn create_dir(root: &Path, name: &str) -> io::Result<()> {
    let path = join(root, name);
    fs::create_dir_all(&path).map_err(|e| explain(e, "create directory", &path))
}

/// Sorted names in a directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<String>> {
    let failed = |e| explain(e, "list", dir);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        // A name that is not UTF-8 was not made by us.
        if let Ok(name) = entry.map_err(failed)?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// True when the path exists.
pub(super) fn exists(path: &Path) -> io::Result<bool> {
    path.try_exists().map_err(|e| explain(e, "look for", path))
}

/// Bytes left for us on the file system of a directory.
pub(super) fn free(root: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(root).map_err(|e| explain(e.into(), "look at", root))?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Renames a file.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).map_err(|e| {
        io::Error::new(
            e.kind(),
            format!("rename {} to {}: {e}", from.display(), to.display()),
        )
    })
}

/// Removes a file.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).map_err(|e| explain(e, "remove", path))
}

/// Syncs a directory's names.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    fs::File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(|e| explain(e, "sync directory", path))
}

/// Takes the exclusive lock of the file at `path`, creating it when absent.
pub(super) fn lock(path: &Path) -> io::Result<fs::File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|e| explain(e, "open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            io::ErrorKind::WouldBlock,
            format!("lock {}: another process holds it", path.display()),
        )),
        Err(TryLockError::Error(e)) => Err(explain(e, "lock", path)),
    }
}

/// An open real file and the path it was opened at.
pub(super) struct RealFile {
    file: fs::File,
    path: PathBuf,
}

impl RealFile {
    pub(super) fn open(path: &Path, how: Open) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(how != Open::Read);
        match how {
            Open::Read | Open::Write => {}
            Open::CreateNew => {
                options.create_new(true);
            }
            Open::Create => {
                options.create(true).truncate(false);
            }
        }
        let file = options.open(path).map_err(|e| explain(e, "open", path))?;
        Ok(RealFile {
            file,
            path: path.to_path_buf(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.file
            .read_exact_at(buf, offset)
            .map_err(|e| self.explain(e, "read"))
    }

    pub(super) fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.file
            .write_all_at(buf, offset)
            .map_err(|e| self.explain(e, "write"))
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        Ok(self
            .file
            .metadata()
            .map_err(|e| self.explain(e, "stat"))?
            .len())
    }

    pub(super) fn set_len(&self, len: u64) -> io::Result<()> {
        self.file
            .set_len(len)
            .map_err(|e| self.explain(e, "set length of"))
    }

    pub(super) fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data().map_err(|e| self.explain(e, "sync"))
    }

    pub(super) fn forget(&self) {
        // (Nothing depends on it alone; its error would say nothing new.)
        #[cfg(target_os = "linux")]
        let _ = rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed);
    }

    fn explain(&self, error: io::Error, operation: &str) -> io::Error {
        explain(error, operation, &self.path)
    }
}
