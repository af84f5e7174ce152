//! Copying a generation that has grown too big for what it holds.

use super::StoreError;
use super::base::Base;
use super::generation::{Current, Filling, Place};
use std::sync::atomic::{AtomicBool, Ordering};

/// Copies what `base` sees into the generation at `place`, in key order, and makes that one
/// current; `None` when cancelled before, or when the disk has no room for two and `reserve` bytes.
/// Nothing is flushed meanwhile, so the stamp stays the same and `CURRENT` never moves to a lower one.
/// Blocking.
pub(super) fn rewrite(
    base: &Base,
    place: Place,
    (reserve, cache_bytes): (u64, usize),
    cancel: &AtomicBool,
) -> Result<Option<Base>, StoreError> {
    let rewritten = match copy(base, place, (reserve, cache_bytes), cancel) {
        Ok(Some(rewritten)) => rewritten,
        Ok(None) => return Ok(None),
        // Nothing rests on a copy that is not current, and it is a full disk that wants one most: the
        // file goes on as it is, until more was flushed.
        Err(error) if error.is_full() => {
            world::mark!("store: no room for a rewrite");
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if cancel.load(Ordering::Relaxed) {
        let place = rewritten.generation.place.clone();
        drop(rewritten);
        place.remove();
        return Ok(None);
    }
    // From here on an error ends the server, a full disk's too: which of the two is current is not
    // known.
    Current::write(
        &base.generation.place.disk,
        rewritten.generation.place.number,
        base.stamp()?.0.index,
    )?;
    Ok(Some(rewritten))
}

/// The copy; whatever goes wrong, its file goes.
fn copy(
    base: &Base,
    place: Place,
    (reserve, cache_bytes): (u64, usize),
    cancel: &AtomicBool,
) -> Result<Option<Base>, StoreError> {
    let (stamp, expected) = base.stamp()?;
    let mut filling = Filling::create(place, reserve, expected.bytes)?;
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
    filling.finish(&stamp, cache_bytes).map(Some)
}
