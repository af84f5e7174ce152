//! One ordered layer of changes in memory.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// What a row costs in memory besides its bytes: two handles, two allocations, its share of a
/// tree node.
const ROW_OVERHEAD: usize = 96;

/// A change of one row.
struct Slot {
    /// `None` hides what lies below.
    value: Option<Bytes>,
    /// Nothing lies below: removing the row needs no trace.
    new: bool,
}

/// Changes on top of what lies below.
///
/// An ordered map: a hash map's growth stalls the applier for tens of milliseconds, and a flush
/// needs key order anyway.
#[derive(Default)]
pub(crate) struct Layer {
    map: BTreeMap<Bytes, Slot>,
    bytes: usize,
}

impl Layer {
    /// `None`: this layer does not know the key. `Some(None)`: removed.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.map.get(key).map(|slot| &slot.value)
    }

    /// The place of a key, found once for a look and a change.
    pub(crate) fn place(&mut self, key: Bytes) -> Place<'_> {
        Place {
            entry: self.map.entry(key),
            bytes: &mut self.bytes,
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many rows are changed.
    pub(crate) fn rows(&self) -> usize {
        self.map.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        self.map.iter().map(|(key, slot)| (key, &slot.value))
    }

    /// Changes with `from <= key < to`; `to` empty: to the end. `from` must not be above `to`.
    pub(crate) fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let upper = if to.is_empty() {
            Unbounded
        } else {
            Excluded(to)
        };
        let rows = self.map.range::<[u8], _>((Included(from), upper));
        rows.map(|(key, slot)| (key, &slot.value))
    }
}

/// Where a key stands in a layer, or would stand.
pub(crate) struct Place<'a> {
    entry: Entry<'a, Bytes, Slot>,
    bytes: &'a mut usize,
}

impl Place<'_> {
    pub(crate) fn key(&self) -> &Bytes {
        self.entry.key()
    }

    /// As [`Layer::get`].
    pub(crate) fn get(&self) -> Option<&Option<Bytes>> {
        match &self.entry {
            Entry::Occupied(found) => Some(&found.get().value),
            Entry::Vacant(_) => None,
        }
    }

    /// Sets the row. `new`: there was none, here or below.
    pub(crate) fn set(self, value: Bytes, new: bool) {
        *self.bytes += value.len();
        match self.entry {
            Entry::Occupied(mut found) => {
                // A row that this layer hides may be one that lies below.
                let old = found.get_mut().value.replace(value);
                *self.bytes -= old.map_or(0, |old| old.len());
            }
            Entry::Vacant(place) => {
                *self.bytes += place.key().len() + ROW_OVERHEAD;
                let value = Some(value);
                place.insert(Slot { value, new });
            }
        }
    }

    /// Removes the row, which is there, here or below. What this layer held of it.
    pub(crate) fn remove(self) -> Option<Bytes> {
        match self.entry {
            Entry::Occupied(found) if found.get().new => {
                let (key, slot) = found.remove_entry();
                *self.bytes -= key.len() + ROW_OVERHEAD;
                *self.bytes -= slot.value.as_ref().map_or(0, Bytes::len);
                slot.value
            }
            Entry::Occupied(mut found) => {
                let old = found.get_mut().value.take();
                *self.bytes -= old.as_ref().map_or(0, Bytes::len);
                old
            }
            Entry::Vacant(place) => {
                *self.bytes += place.key().len() + ROW_OVERHEAD;
                let (value, new) = (None, false);
                place.insert(Slot { value, new });
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place<'a>(layer: &'a mut Layer, key: &'static [u8]) -> Place<'a> {
        layer.place(Bytes::from_static(key))
    }

    #[test]
    fn a_row_that_came_and_went_leaves_no_trace_but_one_below_stays_hidden() {
        let mut layer = Layer::default();
        let value = || Bytes::from_static(b"value");
        place(&mut layer, b"new").set(value(), true);
        place(&mut layer, b"new").set(value(), false);
        assert_eq!(place(&mut layer, b"new").remove(), Some(value()));
        assert!(layer.get(b"new").is_none());
        assert_eq!(layer.bytes(), 0);

        assert_eq!(place(&mut layer, b"below").remove(), None);
        place(&mut layer, b"below").set(value(), true);
        place(&mut layer, b"below").remove();
        assert_eq!(layer.get(b"below"), Some(&None));
        place(&mut layer, b"changed").set(value(), false);
        place(&mut layer, b"changed").remove();
        assert_eq!(layer.get(b"changed"), Some(&None));
        assert_eq!(layer.bytes(), 12 + 2 * ROW_OVERHEAD);
    }
}
