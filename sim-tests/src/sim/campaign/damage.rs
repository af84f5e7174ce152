//! Damage to what a disk holds, while its server is down.
//!
//! Never to what no log can tell from a torn write: bytes of the last record, a block that holds any
//! of them, or the whole newest segment while older ones are there. A member that forgot its last
//! promise that way may break it, and nothing on its disk says so.

use crate::campaign::fault::{Fault, Part};
use world::disk::SimDisk;

const BLOCK: u64 = 4096;
/// Records begin at multiples of this, behind a segment's two headers.
const SECTOR: usize = 512;
const RECORDS: usize = 8192;
/// The first bytes of a record.
const MAGIC: &[u8] = b"BTCH";

/// Damages the disk; false when there was nothing that could be damaged.
pub fn damage(disk: &SimDisk, fault: &Fault) -> bool {
    match fault {
        Fault::EmptyDisk(_) => {
            disk.wipe();
            true
        }
        Fault::Rot { part, at, .. } => pick(disk, *part, *at, 1).is_some_and(|(name, len)| {
            let offset = (at >> 16) % len;
            can_be_told(disk, &name, offset + 1) && disk.flip_bit(&name, offset, (at >> 8) as u8)
        }),
        Fault::WrongBlock {
            part, at, stale, ..
        } => pick(disk, *part, *at, 2 * BLOCK).is_some_and(|(name, len)| {
            let blocks = len / BLOCK;
            let from = (at >> 16) % blocks;
            let to = match stale {
                true => from,
                false => (from + 1) % blocks,
            };
            can_be_told(disk, &name, (to + 1) * BLOCK)
                && match stale {
                    true => disk.make_stale(&name, to),
                    false => disk.misdirect(&name, from, to),
                }
        }),
        Fault::LostFile {
            part, at, empty, ..
        } => pick(disk, *part, *at, 1).is_some_and(|(name, len)| match empty {
            true => disk.truncate(&name, 0),
            false => {
                (is_only_segment(disk, &name) || can_be_told(disk, &name, len))
                    && disk.delete(&name)
            }
        }),
        _ => false,
    }
}

fn is_only_segment(disk: &SimDisk, name: &str) -> bool {
    let files = disk.files();
    let mut segments = files.iter().filter(|(n, _)| n.ends_with(".seg"));
    segments.all(|(n, _)| n == name)
}

/// Whether damage to the first `end` bytes of a file leaves a later record as its witness.
fn can_be_told(disk: &SimDisk, name: &str, end: u64) -> bool {
    let segments = disk.files().into_iter().map(|(name, _)| name);
    let mut segments: Vec<String> = segments.filter(|n| n.ends_with(".seg")).collect();
    segments.sort();
    let last = segments.iter().rev().find_map(|segment| {
        let bytes = disk.read(segment)?;
        let mut sectors = bytes.get(RECORDS..)?.chunks(SECTOR);
        let last = sectors.rposition(|sector| sector.starts_with(MAGIC))?;
        Some((segment, (RECORDS + last * SECTOR) as u64))
    });
    match last {
        // An unused segment behind it is a witness too, and a log without any is missed.
        Some((segment, begins)) if segment == name => end <= begins,
        _ => true,
    }
}

/// A file of the part, at least so long.
fn pick(disk: &SimDisk, part: Part, at: u64, least: u64) -> Option<(String, u64)> {
    let of = |name: &str| match part {
        Part::Log => name.starts_with("log/"),
        Part::State => name.contains("state-"),
        Part::Any => true,
    };
    let files = disk.files();
    let fitting: Vec<_> = files
        .into_iter()
        .filter(|(name, len)| *len >= least && of(name))
        .collect();
    let index = (at % fitting.len().max(1) as u64) as usize;
    fitting.into_iter().nth(index)
}
