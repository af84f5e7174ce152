//! One generation file: a redb database with the rows and their stamp.

use super::{Stamp, StoreError, Totals};
use bytes::Bytes;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
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

/// A reader's view of a generation: one read transaction, kept from one flush to the next (one
/// per get costs twice as much; one held for longer keeps redb from reusing pages).
#[derive(Clone)]
pub(super) struct Base {
    pub(super) number: u64,
    pub(super) database: Arc<Database>,
    table: Arc<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    path: Arc<Path>,
}

impl Base {
    /// A view of what is committed now.
    pub(super) fn view(
        number: u64,
        database: Arc<Database>,
        path: PathBuf,
    ) -> Result<Base, StoreError> {
        let failed = |error: redb::Error| StoreError::from_redb(&path, error);
        let read = database.begin_read().map_err(|e| failed(e.into()))?;
        let table = read.open_table(ROWS).map_err(|e| failed(e.into()))?;
        Ok(Base {
            number,
            database,
            table: Arc::new(table),
            path: path.into(),
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.table.get(key) {
            Ok(found) => Ok(found.map(|value| Bytes::copy_from_slice(value.value()))),
            Err(error) => Err(StoreError::from_redb(&self.path, error.into())),
        }
    }

    /// Rows in key order. `from` must not be above `to`.
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
        let failed = {
            let path = self.path.clone();
            move |error: redb::StorageError| StoreError::from_redb(&path, error.into())
        };
        let rows = self
            .table
            .range::<&[u8]>((Included(from), upper))
            .map_err(failed.clone())?;
        Ok(rows.map(move |row| {
            let (key, value) = row.map_err(&failed)?;
            Ok((
                Bytes::copy_from_slice(key.value()),
                Bytes::copy_from_slice(value.value()),
            ))
        }))
    }
}
