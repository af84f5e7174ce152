//! The log on disk: segment files of checksummed batches.

use raft_protocol::{Entry, HardState, SnapshotMeta};
use std::path::PathBuf;
use world::disk::Disk;

/// Fixed numbers of a log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// A segment is closed when it reaches this many bytes.
    pub segment_bytes: u64,
    /// Zero-filled ahead in steps of this many bytes.
    pub fill_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> Self {
        LogOptions {
            segment_bytes: 16 << 20,
            fill_bytes: 1 << 20,
        }
    }
}

/// Identities in every segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LogOwner {
    /// The replica group.
    pub group: u64,
    /// The node.
    pub node: u64,
    /// The disk id.
    pub disk: u128,
}

/// One batch: what one sync makes durable.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Hard state from this batch on.
    pub hard_state: HardState,
    /// Runs of consecutive entries, in the order written; each run replaces everything at and
    /// behind its first index.
    pub runs: Vec<Vec<Entry>>,
}

/// What a log was found to hold. All of it is synced.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Term, vote and abstention.
    pub hard_state: HardState,
    /// The log's base.
    pub base: SnapshotMeta,
    /// Entries behind the base, consecutive.
    pub entries: Vec<Entry>,
    /// True when the directory held no log.
    pub fresh: bool,
    /// A torn tail was cut here (an ordinary power failure): what and where.
    pub torn: Option<String>,
    /// Synced data were found damaged, and cut: path and reason. `hard_state.abstain` is set.
    pub damage: Option<String>,
}

/// Why the log cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A file is not what it should be and recovery cannot prove what was there.
    #[error("{path}: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The segments belong to another node.
    #[error("{path} belongs to {found:?}, not to {expected:?}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: LogOwner,
        /// What was asked for.
        expected: LogOwner,
    },
    /// The disk failed; the log must not be used again.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// The log of one replica, in directory `log/` of its disk. Every method blocks and belongs in a
/// job.
pub struct Log {
    _disk: Disk,
}

impl Log {
    /// Opens, recovers and syncs what it keeps. `stamp` is what the durable state covers
    /// (index 0 on a fresh disk): needed to decide about a kept suffix and about lost state.
    pub fn open(
        disk: &Disk,
        owner: LogOwner,
        options: LogOptions,
        stamp: &SnapshotMeta,
    ) -> Result<(Log, Recovered), LogError> {
        let _ = (disk, owner, options, stamp);
        todo!()
    }

    /// Appends one batch and syncs it.
    pub fn append(&mut self, batch: &Batch) -> Result<(), LogError> {
        let _ = batch;
        todo!()
    }

    /// Starts afresh behind `base` with `suffix`: a new segment of kind reset, synced, directory
    /// synced, then the older ones are removed.
    pub fn reset(
        &mut self,
        hard_state: HardState,
        base: &SnapshotMeta,
        suffix: &[Entry],
    ) -> Result<(), LogError> {
        let _ = (hard_state, base, suffix);
        todo!()
    }

    /// The state covers everything through `base.index` durably: removes segments that lie
    /// wholly below. Returns the base the log now has on disk (it may keep more).
    pub fn purge(&mut self, base: &SnapshotMeta) -> Result<(), LogError> {
        let _ = base;
        todo!()
    }

    /// Writes one empty batch so that the last data at rest are provable; once per idle period.
    pub fn seal(&mut self) -> Result<(), LogError> {
        todo!()
    }

    /// Zero-fills the file ahead if it is due; called off the hot path between appends.
    pub fn prepare(&mut self) -> Result<(), LogError> {
        todo!()
    }

    /// Bytes of all segment files.
    pub fn bytes(&self) -> u64 {
        todo!()
    }
}
