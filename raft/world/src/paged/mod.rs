//! `redb::StorageBackend` over a [`crate::disk::File`], with a checksum per block that is verified on
//! every read (redb itself does not verify on reads).
//!
//! Blocks are written through at once; their sums are kept in memory and written at a sync, before the
//! file is synced, so that one sync makes both durable. The two pages of sums of a group take turns
//! (`layout` has the drawing): the one written last survives whatever happens to the next.
//!
//! # What may be found after a crash, and why it is right
//! - The newer page of sums is torn: the older one, of the sync before, counts. It is right for
//!   every block but those written since, which were never synced.
//! - The newer page of sums arrived and blocks did not, or the other way round: again only blocks
//!   written since the last sync do not match.
//!
//! So only blocks that were *never synced* can mismatch without damage. The user must not read these
//! after a crash. redb does not, provided that its durable commits are two-phase (`set_quick_repair`
//! or `set_two_phase_commit`): it writes pages copy-on-write, syncs, and only then points to
//! them from its header. (One-phase commits are checked by reading possibly torn pages; opening would
//! report those as damage instead of going back one commit.) The header is redb's first page, the
//! one thing it rewrites in place; it has checksums of its own and is not verified here.
//!
//! redb's creation of a database is not atomic: a file whose creation was interrupted is refused as
//! none of its own. It must be complete before anything durable refers to it.
//!
//! Because every block's sum is stored apart from it, a write that the drive acknowledged and never
//! did is noticed too.

mod layout;
mod scrub;

pub use scrub::Scrubbed;

use crate::disk::{Disk, File, Open};
use layout::{PER_GROUP, Page, Sums};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Bytes of a block, the unit that is verified.
pub const BLOCK: usize = 4096;

/// Blocks that the user checks itself: redb's header.
const UNVERIFIED: u64 = 1;

/// Tells the owner of a database of damage that its backend met: redb wraps errors.
#[derive(Clone, Debug, Default)]
pub struct Damage(Arc<Mutex<Option<String>>>);

impl Damage {
    /// The first damage met, if any.
    pub fn get(&self) -> Option<String> {
        lock(&self.0).clone()
    }

    /// Notes damage; the first stays.
    fn report(&self, what: &str) {
        lock(&self.0).get_or_insert_with(|| what.to_string());
    }
}

/// What is known of one group.
struct Group {
    /// Number of its newest page of sums; 0: there is none.
    number: u64,
    /// The pages of sums on disk do not say `sums`.
    unwritten: bool,
    sums: Box<Sums>,
    /// Blocks that matched or were written since the file was opened (for the scrub).
    good: Box<[bool; PER_GROUP as usize]>,
}

struct Shared {
    file: File,
    path: PathBuf,
    id: u64,
    damage: Damage,
    /// Loaded on demand. Never forgotten: the numbers must go up.
    groups: RwLock<BTreeMap<u64, Group>>,
    /// Held by whatever changes the file; a failure is kept here and ends all changes.
    changing: Mutex<Option<String>>,
}

/// The backend of one redb database file. Cheap to clone.
#[derive(Clone)]
pub struct Paged(Arc<Shared>);

impl std::fmt::Debug for Paged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Paged({})", self.0.path.display())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Paged {
    /// Opens or creates the file `name`.
    pub fn open(disk: &Disk, name: &str) -> io::Result<Paged> {
        Paged::open_reporting(disk, name, Damage::default())
    }

    /// Opens or creates the file `name`; damage is also reported to `damage`.
    pub fn open_reporting(disk: &Disk, name: &str, damage: Damage) -> io::Result<Paged> {
        let file = disk.open(name, Open::Create)?;
        let path = disk.path(name);
        let len = file.len()?;
        let mut head = [0; BLOCK];
        if len >= BLOCK as u64 {
            file.read_exact_at(&mut head, 0)?;
        }
        let id = match layout::decode_head(&head) {
            Ok(id) => id,
            // Creation syncs the first page before there is another one.
            Err(_) if len <= BLOCK as u64 => create(disk, name, &file)?,
            Err(error) => {
                let what = format!("{}: {error}", path.display());
                damage.report(&what);
                return Err(io::Error::new(error.kind(), what));
            }
        };
        // What a killed process left may not be durable. It must be before the next sync
        // overwrites the older page of sums of a group, or a crash then could lose both.
        file.sync_data().inspect_err(|_| file.forget())?;
        Ok(Paged(Arc::new(Shared {
            file,
            path,
            id,
            damage,
            groups: RwLock::default(),
            changing: Mutex::new(None),
        })))
    }

    /// Where this file's damage is reported.
    pub fn damage(&self) -> Damage {
        self.0.damage.clone()
    }

    /// Makes the blocks written so far durable without their sums: nothing may refer to them yet,
    /// as after any write, but the next sync finds little left to do.
    pub fn write_back(&self) -> io::Result<()> {
        self.0.change(|| self.0.file.sync_data())
    }

    /// Blocks in the file.
    pub fn blocks(&self) -> io::Result<u64> {
        Ok(layout::blocks_in(self.0.file.len()?))
    }
}

fn create(disk: &Disk, name: &str, file: &File) -> io::Result<u64> {
    let id = crate::entropy::random_u64();
    file.set_len(0)?;
    file.write_all_at(&layout::encode_head(id), 0)?;
    file.sync_data()?;
    disk.sync_dir(name.rsplit_once('/').map_or("", |(dir, _)| dir))?;
    Ok(id)
}

/// Pieces of a byte range that lie within one group: (first block, range in the buffer).
fn pieces(first: u64, blocks: u64) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> {
    let mut block = first;
    std::iter::from_fn(move || {
        let end = first + blocks;
        if block == end {
            return None;
        }
        let piece_end = (block / PER_GROUP + 1).saturating_mul(PER_GROUP).min(end);
        let at = |block: u64| ((block - first) as usize) * BLOCK;
        let piece = (block, at(block)..at(piece_end));
        block = piece_end;
        Some(piece)
    })
}

impl Shared {
    fn damaged(&self, what: String) -> io::Error {
        let what = format!("{}: {what}", self.path.display());
        self.damage.report(&what);
        io::Error::new(io::ErrorKind::InvalidData, what)
    }

    /// Reads a group's sums from the disk.
    fn load(&self, group: u64) -> io::Result<Group> {
        let mut pages = [0; 2 * BLOCK];
        let at = layout::sums_offset(group, 0);
        // A file that ends here has nothing of this group yet.
        let there = self.file.len()?.saturating_sub(at).min(pages.len() as u64) as usize;
        self.file.read_exact_at(&mut pages[..there], at)?;
        let (even, odd) = pages.split_at(BLOCK);
        let found = [even, odd].map(|page| layout::decode_sums(self.id, group, page));
        // Both there and neither whole: at most one of them was being written.
        let zero = |page: &[u8]| page.iter().all(|b| *b == 0);
        if found.iter().all(Option::is_none) && !zero(even) && !zero(odd) {
            return Err(self.damaged(format!(
                "both pages of checksums of group {group} are damaged"
            )));
        }
        let newest = found
            .into_iter()
            .flatten()
            .max_by_key(|(number, _)| *number);
        let (number, sums) = newest.unwrap_or((0, Box::new([0; PER_GROUP as usize])));
        Ok(Group {
            number,
            unwritten: false,
            sums,
            good: Box::new([false; PER_GROUP as usize]),
        })
    }

    /// Calls `with` on a group, loading it first if need be.
    fn with_group<T>(&self, group: u64, with: impl FnOnce(&mut Group) -> T) -> io::Result<T> {
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        let group = match groups.entry(group) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => unknown.insert(self.load(group)?),
        };
        Ok(with(group))
    }

    /// The sums of `count` blocks from `first`, all in one group.
    fn sums(&self, first: u64, count: usize) -> io::Result<Vec<u32>> {
        let (group, at) = (first / PER_GROUP, (first % PER_GROUP) as usize);
        {
            let groups = self.groups.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(group) = groups.get(&group) {
                return Ok(group.sums[at..at + count].to_vec());
            }
        }
        self.with_group(group, |group| group.sums[at..at + count].to_vec())
    }

    /// None when the content is what the sum says, else what it should have been and is.
    fn mismatch(&self, block: u64, content: &[u8], expected: u32) -> Option<(u32, u32)> {
        if block < UNVERIFIED || (expected == 0 && content.iter().all(|b| *b == 0)) {
            return None;
        }
        let actual = layout::sum(self.id, block, content);
        (actual != expected).then_some((expected, actual))
    }

    /// Reads and verifies whole blocks.
    fn read_blocks(&self, first: u64, out: &mut [u8]) -> io::Result<()> {
        for (block, range) in pieces(first, (out.len() / BLOCK) as u64) {
            let out = &mut out[range];
            let sums = self.sums(block, out.len() / BLOCK)?;
            self.file.read_exact_at(out, layout::block_offset(block))?;
            for ((block, content), expected) in (block..).zip(out.chunks_exact(BLOCK)).zip(sums) {
                if let Some((expected, actual)) = self.mismatch(block, content, expected) {
                    return Err(self.damaged(format!(
                        "block {block} is damaged: its checksum is {actual:08x}, expected {expected:08x}"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Writes whole blocks. The caller holds `changing`.
    fn write_blocks(&self, first: u64, data: &[u8]) -> io::Result<()> {
        for (block, range) in pieces(first, (data.len() / BLOCK) as u64) {
            let data = &data[range];
            let sums: Vec<u32> = (block..)
                .zip(data.chunks_exact(BLOCK))
                .map(|(block, content)| {
                    if block < UNVERIFIED {
                        0
                    } else {
                        layout::sum(self.id, block, content)
                    }
                })
                .collect();
            self.with_group(block / PER_GROUP, |group| {
                let at = (block % PER_GROUP) as usize;
                group.sums[at..at + sums.len()].copy_from_slice(&sums);
                group.good[at..at + sums.len()].fill(true);
                group.unwritten = true;
            })?;
            self.file.write_all_at(data, layout::block_offset(block))?;
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let (first, start) = (offset / BLOCK as u64, (offset % BLOCK as u64) as usize);
        let end = start + data.len();
        if start == 0 && end.is_multiple_of(BLOCK) {
            return self.write_blocks(first, data);
        }
        let present = layout::blocks_in(self.file.len()?).saturating_sub(first);
        let mut whole = vec![0; end.next_multiple_of(BLOCK)];
        let known = (whole.len() / BLOCK).min(present as usize) * BLOCK;
        self.read_blocks(first, &mut whole[..known])?;
        whole[start..end].copy_from_slice(data);
        self.write_blocks(first, &whole)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        if !len.is_multiple_of(BLOCK as u64) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the length must be a multiple of 4096",
            ));
        }
        let (before, after) = (layout::blocks_in(self.file.len()?), len / BLOCK as u64);
        let mut block = after;
        while block < before {
            let next = ((block / PER_GROUP + 1) * PER_GROUP).min(before);
            self.with_group(block / PER_GROUP, |group| {
                let at = (block % PER_GROUP) as usize;
                group.sums[at..at + (next - block) as usize].fill(0);
                group.unwritten = true;
            })?;
            block = next;
        }
        self.file.set_len(layout::file_len(after))
    }

    fn sync(&self) -> io::Result<()> {
        let blocks = layout::blocks_in(self.file.len()?);
        // Readers of blocks need the sums: they are not kept waiting for the disk. The caller holds
        // `changing`, so what is encoded here stays what is written.
        let mut pages: Vec<(u64, Page)> = Vec::new();
        let mut groups = self.groups.write().unwrap_or_else(PoisonError::into_inner);
        for (at, group) in groups.iter_mut().filter(|(_, group)| group.unwritten) {
            // Of a group that was cut off nothing is written; its number stays for its return.
            if at * PER_GROUP < blocks {
                group.number += 1;
                let page = layout::encode_sums(self.id, *at, group.number, &group.sums);
                pages.push((layout::sums_offset(*at, group.number), page));
                group.unwritten = false;
            }
        }
        drop(groups);
        for (offset, page) in &pages {
            self.file.write_all_at(page, *offset)?;
        }
        self.file.sync_data()
    }

    /// Runs a change unless an earlier one failed: after a failed write or sync nobody knows what is
    /// on disk, and a later sync would say Ok all the same. Nor would the next life know by reading
    /// what the kernel kept in memory.
    fn change(&self, change: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let mut failed = lock(&self.changing);
        if let Some(why) = &*failed {
            return Err(io::Error::other(format!("an earlier change failed: {why}")));
        }
        let done = change();
        if let Err(error) = &done {
            *failed = Some(error.to_string());
            self.file.forget();
        }
        done
    }
}

impl redb::StorageBackend for Paged {
    fn len(&self) -> io::Result<u64> {
        Ok(self.blocks()? * BLOCK as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (first, start) = (offset / BLOCK as u64, (offset % BLOCK as u64) as usize);
        let end = start + out.len();
        if start == 0 && end.is_multiple_of(BLOCK) {
            return self.0.read_blocks(first, out);
        }
        let mut whole = vec![0; end.next_multiple_of(BLOCK)];
        self.0.read_blocks(first, &mut whole)?;
        out.copy_from_slice(&whole[start..end]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.change(|| self.0.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.change(|| self.0.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.change(|| self.0.write(offset, data))
    }
}
