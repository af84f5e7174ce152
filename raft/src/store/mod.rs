//! The durable state of a replica: rows in a redb generation file under an ordered in-memory
//! overlay, flushed now and then as one commit stamped with the applied index.

//!
//! Invariants:
//! - A generation file is changed only by durable commits that carry their stamp, so whoever opens
//!   it at any moment sees rows and stamp of one point.
//! - `CURRENT` names a generation only after all of it, and its name, are durable; its index never
//!   goes down.
//! - `durable` never exceeds what an open after a power failure finds.
//!
//! What is absent: no write-ahead log (the Raft log is it), no secondary indices, no read of the
//! past.

mod base;
mod engine;
mod generation;
mod jobs;
mod layer;
mod open;
mod paced;
mod rewrite;
mod rows;
mod scrub;
mod spool;
mod totals;

pub use engine::{Shortage, Store};
pub(crate) use open::leftovers;
pub use rows::{Entry, Rows};
pub use spool::{Install, Installed, Spool};
pub(crate) use totals::Totals;

use raft_protocol::{Configuration, SnapshotMeta};
use std::path::{Path, PathBuf};
use std::time::Duration;
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
    /// The first flush is due at this share of `overlay_bytes`, and so is the one after a flush that
    /// came early or late. The members of a group apply the same rows: beginning with different
    /// shares, they flush in turn and not all at once.
    pub first_share: f32,
    /// Hard limit of overlay and frozen overlay together.
    pub overlay_limit: usize,
    /// redb's page cache.
    pub cache_bytes: usize,
    /// A generation file more than twice its live bytes and above this is rewritten.
    pub rewrite_min_bytes: u64,
    /// Bytes of the disk that are kept to the last: for votes, for deletions, for a start. A copy of the
    /// state (a snapshot sent or received) leaves them, since the log and the flushes beside it end the
    /// server when they find none; a rewrite, which is how what was deleted becomes free space again,
    /// leaves a quarter of them.
    pub reserve_bytes: u64,
    /// Bytes of a snapshot chunk.
    pub chunk_bytes: usize,
    /// Pause between two steps (a MiB each) of the scrub that walks the current generation.
    pub scrub_pause: Duration,
}

impl Default for StoreOptions {
    fn default() -> Self {
        StoreOptions {
            overlay_bytes: 32 << 20,
            first_share: 1.0,
            overlay_limit: 64 << 20,
            cache_bytes: 32 << 20,
            rewrite_min_bytes: 8 << 20,
            reserve_bytes: 8 << 20,
            chunk_bytes: 256 << 10,
            scrub_pause: Duration::from_secs(5),
        }
    }
}

impl StoreOptions {
    /// Fit for `node` of a group of three: its flushes fall between those of the others.
    pub fn in_turn(node: u64) -> StoreOptions {
        StoreOptions {
            first_share: (node % 3 + 1) as f32 / 3.0,
            ..StoreOptions::default()
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
    /// The state is of newer builds, and nothing is wrong with it: it is left as it is, and whoever
    /// went on here would answer otherwise than they do.
    #[error(
        "it is at feature level {level}, and this build knows levels up to {known}: expected a build \
         that knows level {level}"
    )]
    Newer {
        /// The level of the state.
        level: u32,
        /// The highest that this build knows.
        known: u32,
    },
}

/// Refuses to go on with a copy that would take the disk's last bytes.
fn leave_room(disk: &Disk, path: &Path, reserve: u64) -> Result<(), StoreError> {
    let io = |e| StoreError::from_io(path, e);
    let free = disk.free().map_err(io)?;
    if free >= reserve {
        return Ok(());
    }
    let why = format!("{free} bytes are free, and {reserve} are needed or kept for the log");
    Err(io(std::io::Error::new(
        std::io::ErrorKind::StorageFull,
        why,
    )))
}

impl StoreError {
    /// Refuses a state at a feature level above the highest one that a build knows.
    pub fn check_level(level: u32, known: u32) -> Result<(), StoreError> {
        match level <= known {
            true => Ok(()),
            false => Err(StoreError::Newer { level, known }),
        }
    }

    /// True when the disk is full.
    pub fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, StoreError::Io { source, .. }
            if matches!(source.kind(), StorageFull | QuotaExceeded))
    }

    /// Tells bytes that are not what was written from a disk that fails.
    fn from_redb(path: &Path, error: redb::Error) -> StoreError {
        use redb::Error;
        match error {
            Error::Io(source) => StoreError::from_io(path, source),
            Error::Corrupted(_)
            | Error::TableTypeMismatch { .. }
            | Error::TableIsMultimap(_)
            | Error::TableIsNotMultimap(_)
            | Error::TypeDefinitionChanged { .. }
            | Error::TableDoesNotExist(_) => StoreError::Damaged {
                path: path.to_path_buf(),
                reason: error.to_string(),
            },
            other => StoreError::Io {
                path: path.to_path_buf(),
                source: std::io::Error::other(other.to_string()),
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

/// What [`Store::done`] took in.
#[expect(clippy::large_enum_variant, reason = "one at a time, moved once")]
pub enum Done {
    /// A flush: `durable` has risen.
    Flushed,
    /// The snapshot asked for with [`Store::start_snapshot`]; an error when the disk had no room
    /// for it.
    Spooled(Result<Spool, StoreError>),
    /// Another generation file is in use; its contents are the same (unless a [`Store::switch`]
    /// was dropped midway, which ends here).
    Rewritten,
}

/// What opening found.
pub enum Opened {
    /// The state as of its stamp (index 0 when fresh).
    Ready(Box<Store>),
    /// The state is damaged or missing although it existed; the reason. The store is fresh and
    /// empty: it must be rebuilt from index 1 of the log, or filled by an install. The lost files
    /// stay, and the loss is found again at every start, until then.
    Lost(Box<Store>, String),
}
