//! A reader's view of one generation file: a redb database with the rows and their stamp.

use super::generation::{Generation, read_meta};
use super::{Stamp, StoreError, Totals};
use bytes::Bytes;
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase, TableDefinition};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

pub(super) const ROWS: TableDefinition<'static, &'static [u8], &'static [u8]> =
    TableDefinition::new("rows");
pub(super) const META: TableDefinition<'static, &'static str, &'static [u8]> =
    TableDefinition::new("meta");
pub(super) const META_KEY: &str = "state";

/// What lies beside the rows, replaced in the same commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Meta {
    /// Format 1.
    V1 {
        /// What the rows cover.
        stamp: Stamp,
        /// Bytes of all keys and values.
        live_bytes: u64,
    },
}

impl Meta {
    pub(super) fn new(stamp: Stamp, totals: Totals) -> Meta {
        Meta::V1 {
            stamp,
            live_bytes: totals.bytes,
        }
    }

    pub(super) fn split(self) -> (Stamp, Totals) {
        let Meta::V1 { stamp, live_bytes } = self;
        let totals = Totals {
            digest: stamp.digest,
            rows: stamp.rows,
            bytes: live_bytes,
        };
        (stamp, totals)
    }
}

/// A view of what was committed when it was made: one read transaction, kept from one flush to
/// the next (one per get costs twice as much; one held for longer keeps redb from reusing pages).
#[derive(Clone)]
pub(super) struct Base {
    pub(super) generation: Generation,
    read: Arc<ReadTransaction>,
    table: Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>,
}

impl Base {
    /// A view of what is committed now.
    pub(super) fn view(generation: Generation) -> Result<Base, StoreError> {
        let place = &generation.place;
        let read = generation
            .database
            .begin_read()
            .map_err(|e| place.redb(e))?;
        let table = read.open_table(ROWS).map_err(|e| place.redb(e))?;
        Ok(Base {
            generation,
            read: Arc::new(read),
            table: Arc::new(table),
        })
    }

    /// The stamp that was committed with these rows.
    pub(super) fn stamp(&self) -> Result<(Stamp, Totals), StoreError> {
        read_meta(&self.generation.place, &self.read)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.generation.place.path()
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.table.get(key) {
            Ok(found) => Ok(found.map(|value| Bytes::copy_from_slice(value.value()))),
            Err(error) => Err(self.generation.place.redb(error)),
        }
    }

    /// Rows in key order. `from` must not be above `to`; `to` empty: to the end.
    pub(super) fn range(
        &self,
        from: &[u8],
        to: &[u8],
    ) -> Result<impl Iterator<Item = Result<(Bytes, Bytes), StoreError>> + use<>, StoreError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let upper = if to.is_empty() {
            Unbounded
        } else {
            Excluded(to)
        };
        let place = self.generation.place.clone();
        let rows = self
            .table
            .range::<&[u8]>((Included(from), upper))
            .map_err(|e| place.redb(e))?;
        Ok(rows.map(move |row| {
            let (key, value) = row.map_err(|e| place.redb(e))?;
            Ok((
                Bytes::copy_from_slice(key.value()),
                Bytes::copy_from_slice(value.value()),
            ))
        }))
    }
}
