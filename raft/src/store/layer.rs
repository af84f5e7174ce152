//! One ordered layer of changes in memory.

use bytes::Bytes;
use std::collections::BTreeMap;

/// What a row costs in memory besides its bytes: two handles, two allocations, its share of a
/// tree node.
const ROW_OVERHEAD: usize = 96;

/// Changes on top of what lies below; `None` hides a row.
///
/// An ordered map: a hash map's growth stalls the applier for tens of milliseconds, and a flush
/// needs key order anyway.
#[derive(Default)]
pub(crate) struct Layer {
    map: BTreeMap<Bytes, Option<Bytes>>,
    bytes: usize,
}

impl Layer {
    /// `None`: this layer does not know the key. `Some(None)`: removed.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Option<Bytes>> {
        self.map.get(key)
    }

    pub(crate) fn set(&mut self, key: &[u8], value: Option<Bytes>) {
        let added = value.as_ref().map_or(0, Bytes::len);
        if let Some(slot) = self.map.get_mut(key) {
            self.bytes -= slot.as_ref().map_or(0, Bytes::len);
            *slot = value;
        } else {
            self.bytes += key.len() + ROW_OVERHEAD;
            self.map.insert(Bytes::copy_from_slice(key), value);
        }
        self.bytes += added;
    }

    /// Forgets a key (only right when nothing lies below).
    pub(crate) fn forget(&mut self, key: &[u8]) {
        if let Some(value) = self.map.remove(key) {
            self.bytes -= key.len() + ROW_OVERHEAD + value.map_or(0, |v| v.len());
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Bytes, &Option<Bytes>)> {
        self.map.iter()
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
        self.map.range::<[u8], _>((Included(from), upper))
    }
}
