//! What a disk holds when a store opens.

use super::base::Base;
use super::generation::{Current, Place, condemned, generations, numbered};
use super::spool::PREFIX;
use super::{Stamp, StoreError, Totals};
use std::io::ErrorKind;
use world::disk::Disk;

pub(super) struct Found {
    pub(super) state: State,
    /// The next generation's number: above all that exist.
    pub(super) next: u64,
    /// Generations to be removed when another one is current.
    pub(super) leftover: Vec<Place>,
}

pub(super) enum State {
    /// Nothing was ever complete here.
    Fresh,
    Ready {
        base: Base,
        stamp: Stamp,
        totals: Totals,
        bytes: u64,
    },
    /// It existed and cannot be used. Its files stay until another generation is current.
    Lost(String),
}

/// Names of the state files that are neither current nor part of a state that may be lost: copies that
/// were not finished, and what they were to replace. Blocking.
pub(crate) fn leftovers(disk: &Disk) -> std::io::Result<Vec<String>> {
    let Ok(Some(Ok(Current::V1 { generation, .. }))) = Current::read(disk) else {
        return Ok(Vec::new());
    };
    let names = numbered(disk.list("")?);
    let is_there = names.iter().any(|(number, _)| *number == generation);
    let others = names
        .into_iter()
        .filter(|(number, _)| *number != generation);
    Ok(match is_there {
        true => others.map(|(_, name)| name).collect(),
        false => Vec::new(),
    })
}

/// Looks at the disk and clears what earlier processes left. Blocking.
///
/// A fresh directory gets a `CURRENT` that names no generation, before any exists: so a crash
/// while the first one is made is not taken for a `CURRENT` that was lost.
pub(super) fn find(disk: &Disk, cache_bytes: usize) -> Result<Found, StoreError> {
    let root = |e| StoreError::from_io(&disk.path(""), e);
    for name in disk.list("").map_err(root)? {
        if name.starts_with(PREFIX) {
            disk.remove(&name).map_err(root)?;
        }
    }
    let present = generations(disk)?;
    let next = present.iter().max().map_or(1, |highest| highest + 1);
    let places = || present.iter().map(|&number| Place::new(disk, number));
    let lost = |reason: String| {
        Ok(Found {
            state: State::Lost(reason),
            next,
            leftover: places().collect(),
        })
    };
    let (generation, index) = match Current::read(disk)? {
        None if present.is_empty() => {
            Current::write(disk, 0, 0)?;
            return Ok(Found {
                state: State::Fresh,
                next,
                leftover: Vec::new(),
            });
        }
        None => return lost(format!("{} is missing", disk.path("CURRENT").display())),
        Some(Err(reason)) => {
            return lost(format!("{}: {reason}", disk.path("CURRENT").display()));
        }
        Some(Ok(Current::V1 { generation, index })) => (generation, index),
    };
    let Some(after) = generation.checked_add(1) else {
        let path = disk.path("CURRENT");
        return lost(format!("{}: no generation {generation}", path.display()));
    };
    let place = Place::new(disk, generation);
    let next = next.max(after);
    let state = if generation == 0 {
        State::Fresh
    } else if let Some(reason) = condemned(disk, generation) {
        world::mark!("store: the state was condemned before the restart");
        State::Lost(reason)
    } else {
        match place.load(cache_bytes) {
            Ok((_, stamp, _)) if stamp.index < index => State::Lost(format!(
                "{}: it covers index {}, and covered {index} before",
                place.path().display(),
                stamp.index
            )),
            Ok((base, stamp, totals)) => {
                let bytes = place.bytes()?;
                State::Ready {
                    base,
                    stamp,
                    totals,
                    bytes,
                }
            }
            Err(error @ StoreError::Damaged { .. }) => State::Lost(error.to_string()),
            Err(StoreError::Io { path, source }) if source.kind() == ErrorKind::NotFound => {
                State::Lost(format!("{}: {source}", path.display()))
            }
            Err(error) => return Err(error),
        }
    };
    let mut leftover: Vec<Place> = places().collect();
    if matches!(state, State::Lost(_)) {
        world::mark!("store: the state is lost");
    } else {
        leftover.retain(|place| place.number != generation);
        leftover.drain(..).for_each(|place| place.remove());
    }
    Ok(Found {
        state,
        next,
        leftover,
    })
}
