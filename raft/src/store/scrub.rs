//! Looking for damage before it is asked for.

use super::StoreError;
use super::base::Base;
use super::generation::Generation;
use std::sync::atomic::{AtomicBool, Ordering};

/// Blocks verified in one go: a MiB.
const BLOCKS: u64 = 256;

/// Verifies some blocks from `start` on; returns where to go on (0: the pass is complete).
/// Blocking.
pub(super) fn scrub(
    generation: &Generation,
    start: u64,
    cancel: &AtomicBool,
) -> Result<u64, StoreError> {
    let place = &generation.place;
    let found = generation
        .paged
        .scrub(start, BLOCKS)
        .map_err(|e| place.io(e))?;
    if let Some(block) = found.damaged.first() {
        return Err(place.damaged(format_args!("block {block} does not match its checksum")));
    }
    if !found.suspect.is_empty() {
        // Damage, or what a crash left of a block to which nothing refers: reading all that is
        // referred to tells.
        for row in Base::view(generation.clone())?.range(&[], &[])? {
            row?;
            if cancel.load(Ordering::Relaxed) {
                return Ok(start);
            }
        }
    }
    Ok(found.next.unwrap_or(0))
}
