//! Generation files and the `CURRENT` file that chooses among them.

use super::base::{Base, META, META_KEY, Meta, ROWS};
use super::layer::Layer;
use super::paced::Paced;
use super::{Stamp, StoreError, Totals, leave_room};
use bytes::Bytes;
use redb::{Database, Durability, WriteTransaction};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use world::disk::{Disk, Open};
use world::paged::{Damage, Paged};

/// Names the generation in force.
pub(super) const CURRENT: &str = "CURRENT";
/// Names a generation in which damage was found while it was in use.
const CONDEMNED: &str = "CONDEMNED";
/// Limit on both of these files.
const SMALL: usize = 4096;

/// One generation file on a disk.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) disk: Disk,
    pub(super) number: u64,
    /// Damage that the file's backend met, whatever redb made of the error.
    damage: Damage,
}

/// An open generation. Cheap to clone.
#[derive(Clone)]
pub(super) struct Generation {
    pub(super) place: Place,
    pub(super) database: Arc<Database>,
    pub(super) paged: Paged,
}

impl Place {
    pub(super) fn new(disk: &Disk, number: u64) -> Place {
        Place {
            disk: disk.clone(),
            number,
            damage: Damage::default(),
        }
    }

    pub(super) fn name(&self) -> String {
        format!("state-{}.redb", self.number)
    }

    pub(super) fn path(&self) -> PathBuf {
        self.disk.path(&self.name())
    }

    /// Opens the database, or makes an empty one.
    pub(super) fn open(&self, cache_bytes: usize) -> Result<Generation, StoreError> {
        let paged = Paged::open_reporting(&self.disk, &self.name(), self.damage.clone())
            .map_err(|e| self.io(e))?;
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(Paced::new(paged.clone()))
            .map_err(|e| self.redb(e))?;
        Ok(Generation {
            place: self.clone(),
            database: Arc::new(database),
            paged,
        })
    }

    /// Opens an existing generation and says what it covers.
    pub(super) fn load(&self, cache_bytes: usize) -> Result<(Base, Stamp, Totals), StoreError> {
        self.disk
            .open(&self.name(), Open::Read)
            .map_err(|e| self.io(e))?;
        let base = Base::view(self.open(cache_bytes)?)?;
        let (stamp, totals) = base.stamp()?;
        Ok((base, stamp, totals))
    }

    /// Bytes of the file.
    pub(super) fn bytes(&self) -> Result<u64, StoreError> {
        let file = self
            .disk
            .open(&self.name(), Open::Read)
            .map_err(|e| self.io(e))?;
        file.len().map_err(|e| self.io(e))
    }

    /// Removes the file, if it is there. Not made durable: leftovers go at the next start.
    pub(super) fn remove(&self) {
        let _ = self.disk.remove(&self.name());
    }

    /// The store's error for one of redb. Damage is written down: it may lie where opening does
    /// not look, and the next start must know.
    pub(super) fn redb(&self, error: impl Into<redb::Error>) -> StoreError {
        self.noted(StoreError::from_redb(&self.path(), error.into()))
    }

    pub(super) fn io(&self, error: std::io::Error) -> StoreError {
        self.noted(StoreError::from_io(&self.path(), error))
    }

    pub(super) fn damaged(&self, reason: impl std::fmt::Display) -> StoreError {
        self.noted(StoreError::Damaged {
            path: self.path(),
            reason: reason.to_string(),
        })
    }

    fn noted(&self, error: StoreError) -> StoreError {
        let error = match (error, self.damage.get()) {
            (StoreError::Io { path, .. }, Some(reason)) => StoreError::Damaged { path, reason },
            (error, _) => error,
        };
        if let StoreError::Damaged { reason, .. } = &error {
            let mut note = format!("{}\n{reason}", self.number);
            note.truncate(note.floor_char_boundary(SMALL));
            // The server ends with this error whether or not the note could be written.
            let _ = self.disk.write_atomic(CONDEMNED, note.as_bytes());
        }
        error
    }
}

/// What damage was noted about generation `number`.
pub(super) fn condemned(disk: &Disk, number: u64) -> Option<String> {
    let note = disk.read(CONDEMNED, SMALL).ok()?;
    let note = String::from_utf8(note).ok()?;
    let (generation, reason) = note.split_once('\n')?;
    (generation.parse() == Ok(number)).then(|| reason.to_string())
}

/// The contents of `CURRENT`, followed by their CRC-32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Current {
    /// Format 1.
    V1 {
        /// The generation; 0: none was ever complete.
        generation: u64,
        /// Its index when it became current: it never covers less.
        index: u64,
    },
}

impl Current {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = postcard::to_stdvec(self).expect("plain data encodes into memory");
        let sum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Current> {
        let (body, sum) = bytes.split_last_chunk::<4>()?;
        if crc32fast::hash(body).to_le_bytes() != *sum {
            return None;
        }
        postcard::from_bytes(body).ok()
    }

    /// Reads `CURRENT`: `Ok(None)` when absent, an inner error when it is damaged.
    pub(super) fn read(disk: &Disk) -> Result<Option<Result<Current, String>>, StoreError> {
        match disk.read(CURRENT, SMALL) {
            Ok(bytes) => {
                let current = Current::decode(&bytes);
                Ok(Some(
                    current.ok_or_else(|| "its checksum does not match".to_string()),
                ))
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == ErrorKind::InvalidData => Ok(Some(Err(e.to_string()))),
            Err(e) => Err(StoreError::from_io(&disk.path(CURRENT), e)),
        }
    }

    /// Replaces `CURRENT` durably. The generation's own name is made durable first.
    pub(super) fn write(disk: &Disk, generation: u64, index: u64) -> Result<(), StoreError> {
        let io = |e| StoreError::from_io(&disk.path(CURRENT), e);
        disk.sync_dir("").map_err(io)?;
        disk.write_atomic(CURRENT, &Current::V1 { generation, index }.encode())
            .map_err(io)?;
        if disk.remove(CONDEMNED).is_ok() {
            disk.sync_dir("").map_err(io)?;
        }
        Ok(())
    }
}

/// Numbers of all generation files.
pub(super) fn generations(disk: &Disk) -> Result<Vec<u64>, StoreError> {
    let names = disk
        .list("")
        .map_err(|e| StoreError::from_io(&disk.path(""), e))?;
    Ok(numbered(names)
        .into_iter()
        .map(|(number, _)| number)
        .collect())
}

/// The state files among these, by number.
pub(super) fn numbered(names: Vec<String>) -> Vec<(u64, String)> {
    let number = |name: &str| {
        let number = name.strip_prefix("state-")?.strip_suffix(".redb")?;
        number.parse().ok().filter(|number| *number < u64::MAX)
    };
    let all = names.into_iter();
    all.filter_map(|name| Some((number(&name)?, name)))
        .collect()
}

/// Commits a layer in key order, stamped, as one durable commit.
pub(super) fn commit_layer(
    generation: &Generation,
    layer: &Layer,
    meta: &Meta,
) -> Result<(), StoreError> {
    let place = &generation.place;
    let write = begin(generation, Durability::Immediate)?;
    {
        let mut rows = write.open_table(ROWS).map_err(|e| place.redb(e))?;
        for (key, change) in layer.iter() {
            match change {
                Some(value) => {
                    rows.insert(&key[..], &value[..])
                        .map_err(|e| place.redb(e))?;
                }
                None => {
                    rows.remove(&key[..]).map_err(|e| place.redb(e))?;
                }
            }
        }
    }
    put_meta(place, &write, meta)?;
    write.commit().map_err(|e| place.redb(e))
}

fn begin(generation: &Generation, durability: Durability) -> Result<WriteTransaction, StoreError> {
    let place = &generation.place;
    let mut write = generation
        .database
        .begin_write()
        .map_err(|e| place.redb(e))?;
    write
        .set_durability(durability)
        .map_err(|e| place.redb(e))?;
    // Else an open after a kill walks the whole file.
    write.set_quick_repair(matches!(durability, Durability::Immediate));
    Ok(write)
}

fn put_meta(place: &Place, write: &WriteTransaction, meta: &Meta) -> Result<(), StoreError> {
    let bytes = postcard::to_stdvec(meta).expect("plain data encodes into memory");
    let mut table = write.open_table(META).map_err(|e| place.redb(e))?;
    table
        .insert(META_KEY, &bytes[..])
        .map_err(|e| place.redb(e))?;
    Ok(())
}

/// redb's page cache while a generation is being filled in key order.
const FILL_CACHE: usize = 8 << 20;
/// Bytes of rows per un-synced commit while a generation is being filled.
const FILL_BATCH: usize = 4 << 20;

/// A generation being filled in key order. Dropped before `finish`, its file is removed.
pub(super) struct Filling {
    pub(super) place: Place,
    reserve: u64,
    generation: Option<Generation>,
    batch: Vec<(Bytes, Bytes)>,
    batch_bytes: usize,
    last_key: Option<Bytes>,
    pub(super) totals: Totals,
}

impl Filling {
    /// Begins one that leaves `reserve` bytes on the disk, unless that is in vain: it is to hold at least
    /// `expected` bytes.
    pub(super) fn create(place: Place, reserve: u64, expected: u64) -> Result<Filling, StoreError> {
        place.remove();
        leave_room(&place.disk, &place.path(), reserve.saturating_add(expected))?;
        // A disk without room is asked again and again, each time for another generation.
        let opened = place.open(FILL_CACHE);
        let generation = opened.inspect_err(|_| place.remove())?;
        Ok(Filling {
            place,
            reserve,
            generation: Some(generation),
            batch: Vec::new(),
            batch_bytes: 0,
            last_key: None,
            totals: Totals::default(),
        })
    }

    /// Adds a row; false when it is not above the one before.
    pub(super) fn add(&mut self, key: Bytes, value: Bytes) -> Result<bool, StoreError> {
        if self.last_key.as_ref().is_some_and(|last| *last >= key) {
            return Ok(false);
        }
        self.last_key = Some(key.clone());
        self.totals.add(&key, &value);
        self.batch_bytes += key.len() + value.len();
        self.batch.push((key, value));
        if self.batch_bytes >= FILL_BATCH {
            self.commit(None)?;
        }
        Ok(true)
    }

    fn commit(&mut self, meta: Option<&Meta>) -> Result<(), StoreError> {
        let place = &self.place;
        // Rows in leaf pages that are half full at worst.
        let batch = 2 * self.batch_bytes as u64;
        leave_room(&place.disk, &place.path(), self.reserve + batch)?;
        let generation = self.generation.as_ref().expect("open until finished");
        let durability = if meta.is_some() {
            Durability::Immediate
        } else {
            Durability::None
        };
        let write = begin(generation, durability)?;
        {
            let mut rows = write.open_table(ROWS).map_err(|e| place.redb(e))?;
            for (key, value) in self.batch.drain(..) {
                rows.insert(&key[..], &value[..])
                    .map_err(|e| place.redb(e))?;
            }
        }
        self.batch_bytes = 0;
        if let Some(meta) = meta {
            put_meta(place, &write, meta)?;
        }
        write.commit().map_err(|e| place.redb(e))
    }

    /// Commits durably under `stamp` and opens the generation for use.
    pub(super) fn finish(mut self, stamp: &Stamp, cache_bytes: usize) -> Result<Base, StoreError> {
        let meta = Meta::new(stamp.clone(), self.totals);
        self.commit(Some(&meta))?;
        // Closing trims the file, which grew by doubling.
        drop(self.generation.take());
        match self.place.open(cache_bytes).and_then(Base::view) {
            Ok(base) => Ok(base),
            Err(error) => {
                self.place.remove();
                Err(error)
            }
        }
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if let Some(generation) = self.generation.take() {
            drop(generation);
            self.place.remove();
        }
    }
}

/// Reads the stamp in the transaction of `database` that sees it.
pub(super) fn read_meta(
    place: &Place,
    read: &redb::ReadTransaction,
) -> Result<(Stamp, Totals), StoreError> {
    let table = read.open_table(META).map_err(|e| place.redb(e))?;
    let found = table.get(META_KEY).map_err(|e| place.redb(e))?;
    let Some(bytes) = found else {
        return Err(place.damaged("it has no stamp"));
    };
    let meta: Meta = postcard::from_bytes(bytes.value())
        .map_err(|e| place.damaged(format_args!("its stamp does not decode: {e}")))?;
    Ok(meta.split())
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
