//! Damage to what a disk holds, while its server is down.

use crate::campaign::fault::{Fault, Part};
use world::disk::SimDisk;

const BLOCK: u64 = 4096;

/// Damages the disk; false when there was nothing to damage.
pub fn damage(disk: &SimDisk, fault: &Fault) -> bool {
    match fault {
        Fault::EmptyDisk(_) => {
            disk.wipe();
            true
        }
        Fault::Rot { part, at, .. } => pick(disk, *part, *at, 1).is_some_and(|(name, len)| {
            let offset = (at >> 16) % len;
            disk.flip_bit(&name, offset, (at >> 8) as u8)
        }),
        Fault::WrongBlock {
            part, at, stale, ..
        } => pick(disk, *part, *at, 2 * BLOCK).is_some_and(|(name, len)| {
            let blocks = len / BLOCK;
            let block = (at >> 16) % blocks;
            match stale {
                true => disk.make_stale(&name, block),
                false => disk.misdirect(&name, block, (block + 1) % blocks),
            }
        }),
        Fault::LostFile {
            part, at, empty, ..
        } => pick(disk, *part, *at, 1).is_some_and(|(name, _)| match empty {
            true => disk.truncate(&name, 0),
            false => disk.delete(&name),
        }),
        _ => false,
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
