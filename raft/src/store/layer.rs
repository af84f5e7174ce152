//! One ordered layer of changes in memory.

use bytes::Bytes;
use std::collections::BTreeMap;

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

    /// Sets a row. `new`: there was none, here or below.
    pub(crate) fn set(&mut self, key: &[u8], value: Bytes, new: bool) {
        self.bytes += value.len();
        if let Some(slot) = self.map.get_mut(key) {
            self.bytes -= slot.value.as_ref().map_or(0, Bytes::len);
            // A row that this layer hides may be one that lies below.
            slot.value = Some(value);
        } else {
            self.bytes += key.len() + ROW_OVERHEAD;
            let value = Some(value);
            self.map
                .insert(Bytes::copy_from_slice(key), Slot { value, new });
        }
    }

    /// Removes a row that is there, here or below.
    pub(crate) fn remove(&mut self, key: &[u8]) {
        if let Some(slot) = self.map.get_mut(key) {
            self.bytes -= slot.value.take().map_or(0, |value| value.len());
            if slot.new {
                self.map.remove(key);
                self.bytes -= key.len() + ROW_OVERHEAD;
            }
        } else {
            self.bytes += key.len() + ROW_OVERHEAD;
            let hidden = Slot {
                value: None,
                new: false,
            };
            self.map.insert(Bytes::copy_from_slice(key), hidden);
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_came_and_went_leaves_no_trace_but_one_below_stays_hidden() {
        let mut layer = Layer::default();
        let value = || Bytes::from_static(b"value");
        layer.set(b"new", value(), true);
        layer.set(b"new", value(), false);
        layer.remove(b"new");
        assert!(layer.get(b"new").is_none());
        assert_eq!(layer.bytes(), 0);

        layer.remove(b"below");
        layer.set(b"below", value(), true);
        layer.remove(b"below");
        assert_eq!(layer.get(b"below"), Some(&None));
        layer.set(b"changed", value(), false);
        layer.remove(b"changed");
        assert_eq!(layer.get(b"changed"), Some(&None));
    }
}
