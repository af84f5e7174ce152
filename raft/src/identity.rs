//! Who a data directory belongs to: disk id, cluster, group, node; boots; birth.

use std::collections::BTreeMap;
use world::disk::{DirLock, Disk};

/// Contents of the identity file (versioned, checksummed, replaced atomically).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Random, made when the directory was first used.
    pub disk: u128,
    /// The cluster, once known.
    pub cluster: Option<u128>,
    /// The replica group (0: controllers).
    pub group: u64,
    /// The node in the group.
    pub node: u64,
    /// Times this directory was started, this start included.
    pub boot: u64,
    /// A random number of this start.
    pub nonce: u64,
    /// True once every initial member had answered that it never met this node under another
    /// disk; only then may it vote. A later member is born by its log.
    pub born: bool,
    /// Disks under which other nodes of the group were met: node -> disk.
    pub met: BTreeMap<u64, u128>,
    /// Highest boot number and its nonce seen per peer disk: disk -> (boot, nonce).
    pub boots: BTreeMap<u128, (u64, u64)>,
}

/// Why a directory is refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// It belongs to somebody else.
    #[error(
        "{path} belongs to {found}, not to {expected}: start with the flags it was made with, or another directory"
    )]
    Foreign {
        /// The file.
        path: String,
        /// What it says.
        found: String,
        /// What was asked for.
        expected: String,
    },
    /// Another process uses it.
    #[error("{path} is in use by another process")]
    InUse {
        /// The directory.
        path: String,
    },
    /// It cannot be read as an identity file.
    #[error("{path}: damaged identity file: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Opens (or makes) the identity of a data directory, counts the boot and syncs it. Blocking.
pub fn open(disk: &Disk, group: u64, node: u64) -> Result<(Identity, DirLock), IdentityError> {
    let _ = (disk, group, node);
    todo!()
}

/// Replaces the identity durably. Blocking.
pub fn save(disk: &Disk, identity: &Identity) -> Result<(), IdentityError> {
    let _ = (disk, identity);
    todo!()
}

/// What a peer's hello says about its disk, judged against what was met before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// Nothing new.
    Known,
    /// Something to be synced (by `save`) before it is relied on.
    Updated,
    /// Refused, with the reason.
    Refused(String),
}

impl Identity {
    /// Judges and records that `node` shows up with `disk`, `boot` and `nonce`: another disk than
    /// before, a lower boot, or the same boot with another nonce is refused.
    pub fn meet(&mut self, node: u64, disk: u128, boot: u64, nonce: u64) -> Meeting {
        let _ = (node, disk, boot, nonce);
        todo!()
    }
}
