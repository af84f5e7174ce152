//! Copying a generation that has grown too big for what it holds.

use super::StoreError;
use super::base::Base;
use super::generation::{Current, Filling, Place};
use std::sync::atomic::{AtomicBool, Ordering};

/// Copies what `base` sees into the generation at `place`, in key order, and makes that one
/// current; `None` when cancelled before. Nothing is flushed meanwhile, so the stamp stays the
/// same and `CURRENT` never moves to a lower one. Blocking.
pub(super) fn rewrite(
    base: &Base,
    place: Place,
    cache_bytes: usize,
    cancel: &AtomicBool,
) -> Result<Option<Base>, StoreError> {
    let (stamp, expected) = base.stamp()?;
    let mut filling = Filling::create(place)?;
    for row in base.range(&[], &[])? {
        let (key, value) = row?;
        filling.add(key, value)?;
        if cancel.load(Ordering::Relaxed) {
            return Ok(None);
        }
    }
    if filling.totals != expected {
        return Err(base.generation.place.damaged(format_args!(
            "its rows ({:?}) are not those of its stamp ({expected:?})",
            filling.totals
        )));
    }
    let rewritten = filling.finish(&stamp, cache_bytes)?;
    if cancel.load(Ordering::Relaxed) {
        let place = rewritten.generation.place.clone();
        drop(rewritten);
        place.remove();
        return Ok(None);
    }
    Current::write(
        &base.generation.place.disk,
        rewritten.generation.place.number,
        stamp.index,
    )?;
    Ok(Some(rewritten))
}
