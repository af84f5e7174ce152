//! The durable state of a replica: rows in a redb generation file under an ordered in-memory
//! overlay, flushed now and then as one commit stamped with the applied index.

mod base;
mod layer;
mod rows;
mod totals;

pub use rows::Rows;
pub(crate) use totals::Totals;

use bytes::Bytes;
use raft_protocol::{Configuration, SnapshotMeta};
use std::path::{Path, PathBuf};
use world::disk::Disk;

/// What a state covers; stored in the same commit as the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Stamp {
    /// Last applied index.
    pub index: u64,
    /// Its term.
    pub term: u64,
    /// Log time there, milliseconds.
    pub time_ms: u64,
    /// Membership there.
    pub configuration: Configuration,
    /// Order-free sum of the hashes of all rows.
    pub digest: u64,
    /// Number of rows.
    pub rows: u64,
}

impl Stamp {
    /// The same point for the core and the log.
    pub fn meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            index: self.index,
            term: self.term,
            configuration: self.configuration.clone(),
        }
    }
}

/// Fixed numbers of a store, in bytes.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The overlay is frozen and flushed when it holds this much.
    pub overlay_bytes: usize,
    /// Hard limit of overlay and frozen overlay together.
    pub overlay_limit: usize,
    /// redb's page cache.
    pub cache_bytes: usize,
    /// A generation file more than twice its live bytes and above this is rewritten.
    pub rewrite_min_bytes: u64,
    /// Bytes of rows per snapshot chunk.
    pub chunk_bytes: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            overlay_bytes: 32 << 20,
            overlay_limit: 96 << 20,
            cache_bytes: 64 << 20,
            rewrite_min_bytes: 64 << 20,
            chunk_bytes: 256 << 10,
        }
    }
}

/// Why the state cannot be used; fatal for the server (or, at start, a lost state).
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Bytes are not what was written.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The disk failed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
}

impl StoreError {
    /// Tells bytes that are not what was written from a disk that fails.
    fn from_redb(path: &Path, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(source) => StoreError::from_io(path, source),
            redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Io {
                path: path.to_path_buf(),
                source: std::io::Error::other(error.to_string()),
            },
            other => StoreError::Damaged {
                path: path.to_path_buf(),
                reason: other.to_string(),
            },
        }
    }

    fn from_io(path: &Path, source: std::io::Error) -> StoreError {
        match source.kind() {
            std::io::ErrorKind::InvalidData => StoreError::Damaged {
                path: path.to_path_buf(),
                reason: source.to_string(),
            },
            _ => StoreError::Io {
                path: path.to_path_buf(),
                source,
            },
        }
    }
}

/// How full the overlay is, from 0 (empty) over 1.0 (at `overlay_bytes`) upwards; appliers slow
/// down gradually above 1.
pub type Pressure = f32;

/// A snapshot spooled to a file, readable in chunks while the store goes on.
pub struct Spool {
    /// What it covers.
    pub stamp: Stamp,
    /// Random name of this spool.
    pub id: u128,
    /// Number of chunks.
    pub chunks: u64,
    /// Total bytes.
    pub bytes: u64,
}

impl Spool {
    /// One encoded chunk (rows with a checksum); blocking.
    pub fn chunk(&self, number: u64) -> Result<Bytes, StoreError> {
        let _ = number;
        todo!()
    }
}

/// A generation being filled from a snapshot's chunks.
pub struct Install {
    /// What it will cover.
    pub stamp: Stamp,
}

impl Install {
    /// Adds the next chunk, in order; blocking. A chunk that does not decode is `Damaged`.
    pub fn add(&mut self, number: u64, chunk: &[u8]) -> Result<(), StoreError> {
        let _ = (number, chunk);
        todo!()
    }
    /// Checks digest and row count against the stamp and commits durably; blocking. The result
    /// is handed to [`Store::switch`].
    pub fn finish(self) -> Result<Installed, StoreError> {
        todo!()
    }
}

/// A complete generation that is not current yet.
pub struct Installed {
    /// What it covers.
    pub stamp: Stamp,
}

/// The store. Owned by the apply task; methods that touch the disk run their own jobs.
pub struct Store {}

/// What opening found.
pub enum Opened {
    /// The state as of its stamp (index 0 when fresh).
    Ready(Box<Store>),
    /// The state is damaged or missing although it existed; the reason. A fresh, empty store that
    /// must be filled by an install before it is used.
    Lost(Box<Store>, String),
}

impl Store {
    /// Opens the current generation of `disk` (files `state-<n>.redb`, `CURRENT`) and removes
    /// leftovers.
    pub async fn open(disk: &Disk, options: StoreOptions) -> Result<Opened, StoreError> {
        let _ = (disk, options);
        todo!()
    }
    /// The rows, for reading.
    pub fn rows(&self) -> &Rows {
        todo!()
    }
    /// The rows, for applying.
    pub fn rows_mut(&mut self) -> &mut Rows {
        todo!()
    }
    /// Declares that the rows now cover `stamp` (digest and count are filled in by the store).
    pub fn applied(&mut self, index: u64, term: u64, time_ms: u64) {
        let _ = (index, term, time_ms);
        todo!()
    }
    /// A membership entry was applied.
    pub fn set_configuration(&mut self, configuration: Configuration) {
        let _ = configuration;
        todo!()
    }
    /// What the rows in memory cover.
    pub fn stamp(&self) -> Stamp {
        todo!()
    }
    /// What is durable.
    pub fn durable(&self) -> Stamp {
        todo!()
    }
    /// See [`Pressure`].
    pub fn pressure(&self) -> Pressure {
        todo!()
    }
    /// Starts a flush if one is due (or `force`) and none runs. Never waits.
    pub fn maybe_flush(&mut self, force: bool) {
        let _ = force;
        todo!()
    }
    /// Waits until the running flush (or background rewrite) is done, and takes it in: `durable`
    /// rises. Pending for ever when nothing runs. Cancellation-safe.
    pub async fn flushed(&mut self) -> Result<(), StoreError> {
        todo!()
    }
    /// Spools a snapshot of what is applied now (flushing first as needed) and returns it; the
    /// spool file goes when the value drops. One at a time; the result is shared by transfers.
    pub async fn snapshot(&mut self) -> Result<Spool, StoreError> {
        todo!()
    }
    /// Starts a new generation for a snapshot that covers `stamp`.
    pub async fn install(&mut self, stamp: Stamp) -> Result<Install, StoreError> {
        let _ = stamp;
        todo!()
    }
    /// Makes an installed generation current: `CURRENT` is replaced durably, the overlay is
    /// dropped. Refused (false) when its stamp is not above the durable one, unless the state
    /// was lost.
    pub async fn switch(&mut self, installed: Installed) -> Result<bool, StoreError> {
        let _ = installed;
        todo!()
    }
    /// Flushes everything and closes cleanly.
    pub async fn close(self) -> Result<(), StoreError> {
        todo!()
    }
    /// Bytes of the files of this store.
    pub fn bytes(&self) -> u64 {
        todo!()
    }
}
