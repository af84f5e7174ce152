//! One simulated file: what is synced, and what was written since.
//!
//! Pages are shared (`Arc`), so that syncs, images and versions copy no bytes they need not.

use super::SimDiskOptions;
use super::rng::Rng;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Granularity of the page maps.
pub(super) const PAGE: usize = 4096;
/// A power failure tears at this granularity: a sector is old, new or garbage, never mixed.
pub(super) const SECTOR: usize = 512;
/// Earlier contents of an un-synced page that a power failure may bring back.
const MAX_VERSIONS: usize = 3;
/// Un-synced lengths that a power failure may bring back.
const MAX_LENGTHS: usize = 64;

pub(super) type Page = [u8; PAGE];

/// A page written since the last sync.
#[derive(Clone)]
struct Dirty {
    now: Arc<Page>,
    /// What it was at earlier moments since the last sync (the kernel may have written any of them).
    older: Vec<Arc<Page>>,
    /// A bit for each sector that was written, or a part of it.
    touched: u8,
}

impl Dirty {
    fn is_touched(&self, sector: usize) -> bool {
        self.touched & (1 << sector) != 0
    }
}

/// One file's bytes. Bytes of a page beyond the length mean nothing: growth zeroes them.
#[derive(Clone, Default)]
pub(super) struct Inode {
    synced: BTreeMap<u64, Arc<Page>>,
    synced_len: u64,
    dirty: BTreeMap<u64, Dirty>,
    /// Pages whose sync failed and which are read all the same as they were written: the kernel takes
    /// them for clean, so no sync writes them, and with the power they are gone.
    unwritten: BTreeMap<u64, Arc<Page>>,
    len: u64,
    /// Lengths it had since the last sync.
    lengths: Vec<u64>,
    /// The content each page had before its last sync, for the "stale block" fault.
    stale: BTreeMap<u64, Arc<Page>>,
}

impl Inode {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes that it takes of the disk's capacity.
    pub(super) fn room(&self, sparse: bool) -> u64 {
        if !sparse {
            return self.len;
        }
        let end = self.len.div_ceil(PAGE as u64);
        let synced = |n: &u64| self.synced.contains_key(n);
        let dirty = self.dirty.keys().filter(|n| !synced(n)).count();
        let unwritten = self.unwritten.keys();
        let unwritten = unwritten.filter(|n| !synced(n) && !self.dirty.contains_key(n));
        // What a shorter length leaves of these goes with the next sync.
        let synced = match self.synced.last_key_value() {
            Some((last, _)) if *last >= end => self.synced.range(..end).count(),
            _ => self.synced.len(),
        };
        ((synced + dirty + unwritten.count()) * PAGE) as u64
    }

    /// Of so many bytes at an offset, how many can be written with `free` bytes of new pages.
    pub(super) fn fits(&self, len: u64, offset: u64, mut free: u64) -> u64 {
        let (page, end) = (PAGE as u64, offset + len);
        let mut at = offset;
        while at < end {
            let number = at / page;
            if number * page >= self.len || self.page(number).is_none() {
                if free < page {
                    break;
                }
                free -= page;
            }
            at = ((number + 1) * page).min(end);
        }
        at - offset
    }

    fn page(&self, number: u64) -> Option<&Arc<Page>> {
        self.dirty
            .get(&number)
            .map(|d| &d.now)
            .or_else(|| self.unwritten.get(&number))
            .or_else(|| self.synced.get(&number))
    }

    /// The caller has checked the length.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) {
        for_pages(offset, buf.len(), |number, in_page, in_buf| {
            match self.page(number) {
                Some(page) => buf[in_buf].copy_from_slice(&page[in_page]),
                None => buf[in_buf].fill(0),
            }
        });
    }

    /// A part of a page, to be written.
    fn part_mut(&mut self, number: u64, part: Range<usize>) -> &mut [u8] {
        let (synced, unwritten) = (&self.synced, &mut self.unwritten);
        let mut fresh = false;
        let dirty = self.dirty.entry(number).or_insert_with(|| {
            fresh = true;
            let now = unwritten
                .remove(&number)
                .or_else(|| synced.get(&number).cloned())
                .unwrap_or_else(|| Arc::new([0; PAGE]));
            Dirty {
                now,
                older: Vec::new(),
                touched: 0,
            }
        });
        if !fresh && dirty.older.len() < MAX_VERSIONS {
            dirty.older.push(dirty.now.clone());
        }
        for sector in part.start / SECTOR..part.end.div_ceil(SECTOR) {
            dirty.touched |= 1 << sector;
        }
        &mut Arc::make_mut(&mut dirty.now)[part]
    }

    fn note_len(&mut self, len: u64) {
        if len != self.len {
            if self.lengths.len() < MAX_LENGTHS {
                self.lengths.push(self.len);
            }
            self.len = len;
        }
    }

    pub(super) fn write(&mut self, buf: &[u8], offset: u64) {
        let end = offset + buf.len() as u64;
        if buf.is_empty() {
            return;
        }
        if offset > self.len {
            self.set_len(offset);
        }
        if end > self.len {
            self.zero_tail(self.len, end);
            self.note_len(end);
        }
        for_pages(offset, buf.len(), |number, in_page, in_buf| {
            self.part_mut(number, in_page).copy_from_slice(&buf[in_buf]);
        });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        if len > self.len {
            self.zero_tail(self.len, len);
        } else {
            self.dirty.split_off(&len.div_ceil(PAGE as u64));
            self.unwritten.split_off(&len.div_ceil(PAGE as u64));
        }
        self.note_len(len);
    }

    /// Before growth: whatever pages still hold between the old length and the new must read as zero.
    fn zero_tail(&mut self, from: u64, to: u64) {
        let (first, end) = (from / PAGE as u64, to.div_ceil(PAGE as u64));
        let held: Vec<u64> = self.synced.range(first..end).map(|(n, _)| *n).collect();
        let here = [
            self.dirty.contains_key(&first),
            self.unwritten.contains_key(&first),
        ];
        let here = here.contains(&true).then_some(first);
        for number in held.into_iter().chain(here) {
            let keep = if number == first {
                (from % PAGE as u64) as usize
            } else {
                0
            };
            let zero_already = self
                .page(number)
                .is_none_or(|page| page[keep..].iter().all(|b| *b == 0));
            if !zero_already {
                self.part_mut(number, keep..PAGE).fill(0);
            }
        }
    }

    /// Everything written becomes durable.
    pub(super) fn sync(&mut self, keep_stale: bool) {
        for (number, dirty) in std::mem::take(&mut self.dirty) {
            let before = self.synced.insert(number, dirty.now);
            if keep_stale && let Some(before) = before {
                self.stale.insert(number, before);
            }
        }
        self.settle_len(self.len);
    }

    /// After a failed sync the dirty pages are clean, and what they hold is up to the file system:
    /// what is on disk, or (`visible`) what was written. The length stays un-synced.
    pub(super) fn drop_dirty(&mut self, visible: bool) {
        let dirty = std::mem::take(&mut self.dirty);
        if visible {
            let pages = dirty.into_iter().map(|(number, page)| (number, page.now));
            self.unwritten.extend(pages);
        }
    }

    /// Clean pages are read from the disk again.
    pub(super) fn forget(&mut self) {
        self.unwritten.clear();
    }

    fn settle_len(&mut self, len: u64) {
        self.len = len;
        self.synced_len = len;
        self.lengths.clear();
        self.synced.split_off(&len.div_ceil(PAGE as u64));
        self.unwritten.split_off(&len.div_ceil(PAGE as u64));
    }

    /// Of what is not synced a random part survives, sector by sector, each as it was at some moment.
    pub(super) fn power_fail(&mut self, rng: &mut Rng, options: &SimDiskOptions) {
        let dirty = std::mem::take(&mut self.dirty);
        self.forget();
        let mut candidates = std::mem::take(&mut self.lengths);
        candidates.extend([self.synced_len, self.len, self.len]);
        let len = candidates[rng.below(candidates.len() as u64) as usize];
        // Mostly-kept and mostly-lost files are as likely as evenly torn ones.
        let keep = match rng.below(4) {
            0 => 0.0,
            1 => 1.0,
            _ => rng.unit(),
        };
        for (number, page) in dirty {
            let mut result: Page = self.synced.get(&number).map_or([0; PAGE], |p| **p);
            let mut changed = false;
            for sector in 0..PAGE / SECTOR {
                let range = sector * SECTOR..(sector + 1) * SECTOR;
                let beyond = number * PAGE as u64 + range.start as u64 >= self.synced_len;
                let garbage = match beyond {
                    true => options.garbage,
                    false if page.is_touched(sector) => options.torn_overwrites,
                    false => 0.0,
                };
                if rng.chance(garbage) {
                    rng.fill(&mut result[range]);
                    changed = true;
                } else if rng.chance(keep) {
                    let pick = rng.below(page.older.len() as u64 * 2 + 3) as usize;
                    let version = page.older.get(pick).unwrap_or(&page.now);
                    result[range.clone()].copy_from_slice(&version[range]);
                    changed = true;
                }
            }
            if changed {
                self.synced.insert(number, Arc::new(result));
            }
        }
        self.settle_len(len);
    }

    /// Changes what is stored, behind everybody's back.
    pub(super) fn damage(&mut self, number: u64, change: impl Fn(&mut Page)) {
        let page = self
            .synced
            .entry(number)
            .or_insert_with(|| Arc::new([0; PAGE]));
        change(Arc::make_mut(page));
        if let Some(dirty) = self.dirty.get_mut(&number) {
            change(Arc::make_mut(&mut dirty.now));
        }
    }

    /// The content a page had before its last sync, if any was kept.
    pub(super) fn stale_page(&self, number: u64) -> Option<Page> {
        self.stale.get(&number).map(|page| **page)
    }
}

/// Splits a byte range at page borders: (page, range in the page, range in the buffer).
fn for_pages(offset: u64, len: usize, mut each: impl FnMut(u64, Range<usize>, Range<usize>)) {
    let mut done = 0;
    while done < len {
        let at = offset + done as u64;
        let start = (at % PAGE as u64) as usize;
        let n = (PAGE - start).min(len - done);
        each(at / PAGE as u64, start..start + n, done..done + n);
        done += n;
    }
}

#[cfg(test)]
#[path = "inode_tests.rs"]
mod tests;
