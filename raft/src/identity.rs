//! Who a data directory belongs to: disk id, cluster, group, node; boots; birth.
//!
//! ```text
//! IDENTITY:  0 "HFIDENTY"   8 format version u32   12 body length u32
//!            16 crc32 of the 16 bytes before and the body   20 body
//!   body     postcard of a versioned enum
//! ```
//!
//! The file is always replaced as a whole: a temporary file, synced, renamed, directory synced.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use world::disk::{DirLock, Disk};
use world::net::STARTS;

/// The file, at the root of the data directory.
pub const FILE: &str = "IDENTITY";
/// A longer file is none of ours.
const MAX_FILE_BYTES: usize = 1 << 20;
/// Where the log is, and how the names of snapshots on their way begin.
const LOG: &str = "log";
const SPOOL: &str = "spool-";
const MAGIC: [u8; 8] = *b"HFIDENTY";
const FORMAT_VERSION: u32 = 1;
const PREFIX: usize = 20;

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
    /// The initial members and their disks, this node included; empty until born.
    pub initial: BTreeMap<u64, u128>,
    /// Disks under which other nodes of the group were met: node -> disk.
    pub met: BTreeMap<u64, u128>,
    /// Highest boot number and its nonce seen per peer disk: disk -> (boot, nonce).
    pub boots: BTreeMap<u128, (u64, u64)>,
    /// Random numbers of the earlier starts, the newest first, at most [`STARTS`].
    pub before: Vec<u64>,
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Versioned {
    V1(First),
    V2(Identity),
}

/// [`Identity`] as its first version was: it told nothing of earlier starts.
#[derive(serde::Serialize, serde::Deserialize)]
struct First {
    disk: u128,
    cluster: Option<u128>,
    group: u64,
    node: u64,
    boot: u64,
    nonce: u64,
    born: bool,
    initial: BTreeMap<u64, u128>,
    met: BTreeMap<u64, u128>,
    boots: BTreeMap<u128, (u64, u64)>,
}

impl From<First> for Identity {
    fn from(first: First) -> Identity {
        Identity {
            disk: first.disk,
            cluster: first.cluster,
            group: first.group,
            node: first.node,
            boot: first.boot,
            nonce: first.nonce,
            born: first.born,
            initial: first.initial,
            met: first.met,
            boots: first.boots,
            before: Vec::new(),
        }
    }
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
    /// The group was born with other members.
    #[error(
        "{path}: the group was born with the members {recorded}, and --peers names {named}: start with the members it was born with (their addresses may be others)"
    )]
    Members {
        /// The file.
        path: String,
        /// The initial members, as recorded.
        recorded: String,
        /// The members that were asked for.
        named: String,
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
    /// It holds data, and no identity file that says whose.
    #[error(
        "{path} holds {found} but no {FILE} file: it is not known whose data these are; restore the file, or start with an empty directory"
    )]
    Missing {
        /// The directory.
        path: String,
        /// What is there.
        found: String,
    },
    /// The disk failed, or the directory may not be written.
    #[error("data directory {path}: {source}")]
    Io {
        /// The directory.
        path: String,
        /// The error; it names operation and file.
        source: io::Error,
    },
}

fn name_of(group: u64, node: u64) -> String {
    match group {
        0 => format!("node {node} of the controllers"),
        group => format!("node {node} of group {group}"),
    }
}

fn io_error(disk: &Disk) -> impl Fn(io::Error) -> IdentityError {
    let path = disk.path("").display().to_string();
    move |source| IdentityError::Io {
        path: path.clone(),
        source,
    }
}

/// Holds the members that a server is started with against those that its group was born with: with
/// one missing, or one too many, it would seem to work until a quorum is counted. Writes nothing;
/// what is not there yet, or cannot be read, is left to [`open`]. Blocking.
pub fn check_members(
    disk: &Disk,
    group: u64,
    node: u64,
    members: &BTreeSet<u64>,
) -> Result<(), IdentityError> {
    let read = disk.read(FILE, MAX_FILE_BYTES).ok();
    let Some(identity) = read.and_then(|bytes| decode(&bytes).ok()) else {
        return Ok(());
    };
    let ours = (identity.group, identity.node) == (group, node);
    if !ours || identity.initial.is_empty() || identity.initial.keys().eq(members) {
        return Ok(());
    }
    let list = |ids: &mut dyn Iterator<Item = &u64>| {
        let ids: Vec<String> = ids.map(u64::to_string).collect();
        ids.join(", ")
    };
    Err(IdentityError::Members {
        path: disk.path(FILE).display().to_string(),
        recorded: list(&mut identity.initial.keys()),
        named: list(&mut members.iter()),
    })
}

/// Opens (or makes) the identity of a data directory, counts the boot and syncs it. Blocking.
///
/// The lock is taken first and held as long as the guard lives.
pub fn open(disk: &Disk, group: u64, node: u64) -> Result<(Identity, DirLock), IdentityError> {
    let failed = io_error(disk);
    let lock = disk.lock().map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => IdentityError::InUse {
            path: disk.path("").display().to_string(),
        },
        _ => failed(error),
    })?;
    let mut identity = match disk.read(FILE, MAX_FILE_BYTES) {
        Ok(bytes) => decode(&bytes).map_err(|reason| damaged(disk, reason))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(disk, group, node)?,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(damaged(disk, error.to_string()));
        }
        Err(error) => return Err(failed(error)),
    };
    if (identity.group, identity.node) != (group, node) {
        return Err(IdentityError::Foreign {
            path: disk.path(FILE).display().to_string(),
            found: name_of(identity.group, identity.node),
            expected: name_of(group, node),
        });
    }
    if identity.boot > 0 {
        identity.before.insert(0, identity.nonce);
        identity.before.truncate(STARTS);
    }
    identity.boot += 1;
    identity.nonce = world::entropy::random_u64();
    clear(disk).map_err(&failed)?;
    save(disk, &identity)?;
    Ok((identity, lock))
}

/// Removes what an earlier life left, before anything is written: on a full disk it may be that which
/// fills it.
fn clear(disk: &Disk) -> io::Result<()> {
    let leftovers = crate::store::leftovers(disk)?;
    if !leftovers.is_empty() {
        // A killed process may have renamed CURRENT and not synced that: until it is, what the name
        // meant before is needed.
        disk.sync_dir("")?;
    }
    for leftover in leftovers {
        world::mark!("start: an old state file is removed");
        disk.remove(&leftover)?;
    }
    for dir in ["", LOG] {
        if !disk.exists(dir)? {
            continue;
        }
        for name in disk.list(dir)? {
            let spool = dir.is_empty() && name.starts_with(SPOOL);
            if spool || name.ends_with(".tmp") {
                disk.remove([dir, &name].join("/").trim_start_matches('/'))?;
            }
        }
    }
    Ok(())
}

/// An identity for a directory that holds nothing yet.
fn make(disk: &Disk, group: u64, node: u64) -> Result<Identity, IdentityError> {
    let names = disk.list("").map_err(io_error(disk))?;
    let is_data = |name: &&String| {
        name.as_str() == "log" || name.as_str() == "CURRENT" || name.starts_with("state-")
    };
    if let Some(found) = names.iter().find(is_data) {
        return Err(IdentityError::Missing {
            path: disk.path("").display().to_string(),
            found: found.clone(),
        });
    }
    Ok(Identity {
        disk: world::entropy::random_u128(),
        cluster: None,
        group,
        node,
        boot: 0,
        nonce: 0,
        born: false,
        initial: BTreeMap::new(),
        met: BTreeMap::new(),
        boots: BTreeMap::new(),
        before: Vec::new(),
    })
}

/// Replaces the identity durably. Blocking.
pub fn save(disk: &Disk, identity: &Identity) -> Result<(), IdentityError> {
    let failed = io_error(disk);
    let bytes = encode(identity).map_err(|e| failed(io::Error::other(e)))?;
    disk.write_atomic(FILE, &bytes).map_err(failed)
}

fn damaged(disk: &Disk, reason: String) -> IdentityError {
    IdentityError::Damaged {
        path: disk.path(FILE).display().to_string(),
        reason,
    }
}

fn checksum(prefix: &[u8], body: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(prefix);
    hasher.update(body);
    hasher.finalize().to_le_bytes()
}

fn encode(identity: &Identity) -> Result<Vec<u8>, postcard::Error> {
    let body = postcard::to_stdvec(&Versioned::V2(identity.clone()))?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&checksum(&bytes, &body));
    bytes.extend_from_slice(&body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Identity, String> {
    let Some((prefix, body)) = bytes.split_at_checked(PREFIX) else {
        return Err(format!("{} bytes are too few", bytes.len()));
    };
    let word = |at: usize| {
        let bytes = prefix[at..at + 4].try_into().expect("four bytes");
        u32::from_le_bytes(bytes)
    };
    if prefix[..8] != MAGIC {
        return Err("it does not begin as an identity file does".into());
    }
    if word(12) as usize != body.len() || checksum(&prefix[..16], body) != prefix[16..] {
        return Err("its length or checksum is wrong".into());
    }
    if word(8) != FORMAT_VERSION {
        return Err(format!("format {} is not known to this program", word(8)));
    }
    match postcard::take_from_bytes(body) {
        Ok((Versioned::V1(first), [])) => Ok(first.into()),
        Ok((Versioned::V2(identity), [])) => Ok(identity),
        Ok(_) => Err("bytes follow its contents".into()),
        Err(error) => Err(error.to_string()),
    }
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
    /// before, a disk known as another node's, a lower boot, the same boot with another nonce, or
    /// a past (`before`, see [`Identity::before`]) in which the boot that was met had another nonce
    /// is refused: an older image of the disk was started, once or several times since.
    pub fn meet(
        &mut self,
        node: u64,
        disk: u128,
        boot: u64,
        nonce: u64,
        before: &[u64],
    ) -> Meeting {
        let who = name_of(self.group, node);
        if node == self.node || disk == self.disk {
            if (node, disk, boot, nonce) == (self.node, self.disk, self.boot, self.nonce) {
                return Meeting::Known;
            }
            return Meeting::Refused(format!(
                "{who} with disk {disk:032x}, boot {boot}, is a copy of this node: {}, disk {:032x}, boot {}",
                name_of(self.group, self.node),
                self.disk,
                self.boot
            ));
        }
        if let Some(known) = self.met.get(&node).filter(|known| **known != disk) {
            world::mark!("identity: an emptied directory is refused");
            return Meeting::Refused(format!(
                "{who} was met with disk {known:032x} and shows up with disk {disk:032x}: a member \
                 whose directory was emptied does not come back under its old number"
            ));
        }
        if let Some((other, _)) = self.met.iter().find(|(n, d)| **n != node && **d == disk) {
            return Meeting::Refused(format!(
                "{who} shows up with disk {disk:032x}, which is that of {}: a copied directory",
                name_of(self.group, *other)
            ));
        }
        match self.boots.get(&disk) {
            Some((seen, _)) if boot < *seen => {
                world::mark!("identity: a lower boot number is refused");
                Meeting::Refused(format!(
                    "{who} shows up in boot {boot} of its disk and was met in boot {seen}: an older image of the disk"
                ))
            }
            Some((seen, known)) if boot == *seen && nonce != *known => {
                world::mark!("identity: the same boot number with another nonce is refused");
                Meeting::Refused(format!(
                    "{who} shows up in boot {boot} of its disk with nonce {nonce:016x} and was met in \
                     the same boot with nonce {known:016x}: an older image of the disk"
                ))
            }
            Some((seen, known)) if past(boot, *seen, before).is_some_and(|n| n != *known) => {
                world::mark!("identity: a start that was met is not in the disk's past");
                Meeting::Refused(format!(
                    "{who} shows up in boot {boot} of its disk and was met in boot {seen} with a nonce \
                     that is not in its past: an older image of the disk, started several times"
                ))
            }
            Some((seen, _)) if boot == *seen && self.met.contains_key(&node) => Meeting::Known,
            _ => {
                self.met.insert(node, disk);
                self.boots.insert(disk, (boot, nonce));
                Meeting::Updated
            }
        }
    }
}

/// The nonce of start `seen` of a disk that is in start `boot`, when it is still told.
fn past(boot: u64, seen: u64, before: &[u64]) -> Option<u64> {
    let back = boot.checked_sub(seen)?.checked_sub(1)?;
    before.get(usize::try_from(back).ok()?).copied()
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
