//! Snapshots on their way: spooled to a file, cut into chunks, put together again.
//!
//! A spool is a stream of rows in key order, each `key length, value length` (32 bits, little
//! endian) and their bytes, cut into chunks of equal size: a row may lie across chunks, so that
//! no chunk is larger than agreed. A chunk is a version byte, the CRC-32 of (number, piece), and
//! its piece of the stream.

use super::base::Base;
use super::generation::{Filling, Place};
use super::{Stamp, StoreError, Totals, leave_room};
use bytes::{Buf, Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use world::disk::{Disk, File, Open};

const VERSION: u8 = 1;
/// Bytes of a chunk before its piece.
const HEADER: usize = 5;
/// Spool bytes written between two syncs: nobody needs them on disk, but the log's next sync
/// must not find a long queue.
const SYNC_STEP: usize = 4 << 20;
/// A longer key or value in a snapshot is nonsense.
const MAX_FIELD: usize = 64 << 20;
/// How spool files begin.
pub(super) const PREFIX: &str = "spool-";

fn checksum(number: u64, piece: &[u8]) -> [u8; 4] {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(piece);
    hasher.finalize().to_le_bytes()
}

/// The piece inside an encoded chunk.
fn open_chunk(number: u64, chunk: &[u8]) -> Result<&[u8], String> {
    let Some((header, piece)) = chunk.split_at_checked(HEADER) else {
        return Err(format!("chunk {number} has {} bytes", chunk.len()));
    };
    if header[0] != VERSION {
        return Err(format!("chunk {number} has version {}", header[0]));
    }
    if header[1..] != checksum(number, piece) {
        return Err(format!("chunk {number}: its checksum does not match"));
    }
    Ok(piece)
}

/// A snapshot spooled to a file, readable in chunks while the store goes on. The file goes when
/// the value drops.
pub struct Spool {
    /// What it covers.
    pub stamp: Stamp,
    /// Random name of this spool.
    pub id: u128,
    /// Number of chunks.
    pub chunks: u64,
    /// Total bytes.
    pub bytes: u64,
    disk: Disk,
    file: File,
    name: String,
    chunk_bytes: usize,
}

impl Spool {
    /// One encoded chunk (rows with a checksum); blocking.
    pub fn chunk(&self, number: u64) -> Result<Bytes, StoreError> {
        let path = self.disk.path(&self.name);
        let damaged = |reason| StoreError::Damaged {
            path: path.clone(),
            reason,
        };
        if number >= self.chunks {
            return Err(damaged(format!(
                "it has {} chunks, not a chunk {number}",
                self.chunks
            )));
        }
        let start = number * self.chunk_bytes as u64;
        let length = (self.bytes - start).min(self.chunk_bytes as u64);
        let mut chunk = vec![0; length as usize];
        self.file
            .read_exact_at(&mut chunk, start)
            .map_err(|e| StoreError::from_io(&path, e))?;
        open_chunk(number, &chunk).map_err(damaged)?;
        Ok(chunk.into())
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = self.disk.remove(&self.name);
    }
}

/// Spools what `base` sees; `None` when cancelled. Blocking.
pub(super) fn spool(
    base: &Base,
    (chunk_bytes, reserve): (usize, u64),
    cancel: &AtomicBool,
) -> Result<Option<Spool>, StoreError> {
    let (stamp, expected) = base.stamp()?;
    let id = world::entropy::random_u128();
    let disk = base.generation.place.disk.clone();
    let name = format!("{PREFIX}{id:032x}");
    let path = disk.path(&name);
    let io = |e| StoreError::from_io(&path, e);
    leave_room(&disk, &path, reserve.saturating_add(expected.bytes))?;
    let file = disk.open(&name, Open::CreateNew).map_err(io)?;
    let chunk_bytes = chunk_bytes.max(HEADER + 1);
    // From here on the file goes with the value, also on an error.
    let mut spool = Spool {
        stamp,
        id,
        chunks: 0,
        bytes: 0,
        disk,
        file,
        name,
        chunk_bytes,
    };
    let mut totals = Totals::default();
    let mut unsynced = 0;
    let mut stream = BytesMut::new();
    let mut rows = base.range(&[], &[])?;
    loop {
        let row = rows.next().transpose()?;
        let ended = row.is_none();
        if let Some((key, value)) = row {
            totals.add(&key, &value);
            stream.extend_from_slice(&(key.len() as u32).to_le_bytes());
            stream.extend_from_slice(&(value.len() as u32).to_le_bytes());
            stream.extend_from_slice(&key);
            stream.extend_from_slice(&value);
        }
        while stream.len() >= chunk_bytes - HEADER || (ended && !stream.is_empty()) {
            let piece = stream.split_to(stream.len().min(chunk_bytes - HEADER));
            let mut chunk = Vec::with_capacity(HEADER + piece.len());
            chunk.push(VERSION);
            chunk.extend_from_slice(&checksum(spool.chunks, &piece));
            chunk.extend_from_slice(&piece);
            spool.file.write_all_at(&chunk, spool.bytes).map_err(io)?;
            spool.chunks += 1;
            spool.bytes += chunk.len() as u64;
            unsynced += chunk.len();
            if unsynced >= SYNC_STEP {
                spool.file.sync_data().map_err(io)?;
                unsynced = 0;
                leave_room(&spool.disk, &path, reserve)?;
            }
            if cancel.load(Ordering::Relaxed) {
                return Ok(None);
            }
        }
        if ended {
            break;
        }
    }
    if totals != expected {
        return Err(base.generation.place.damaged(format_args!(
            "its rows ({totals:?}) are not those of its stamp ({expected:?})"
        )));
    }
    Ok(Some(spool))
}

/// A generation being filled from a snapshot's chunks. Dropped, it leaves nothing.
pub struct Install {
    /// What it will cover.
    pub stamp: Stamp,
    filling: Filling,
    /// The number of the chunk expected next.
    next: u64,
    /// Bytes of a row that is not complete yet.
    carry: BytesMut,
    cache_bytes: usize,
    /// While it lives no rewrite starts.
    token: Arc<()>,
}

impl Install {
    pub(super) fn create(
        place: Place,
        stamp: Stamp,
        (reserve, cache_bytes): (u64, usize),
        token: Arc<()>,
    ) -> Result<Install, StoreError> {
        let filling = Filling::create(place, reserve, 0)?;
        Ok(Install {
            stamp,
            filling,
            next: 0,
            carry: BytesMut::new(),
            cache_bytes,
            token,
        })
    }

    /// The number of the chunk expected next: where a broken transfer resumes.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Adds the next chunk, in order; blocking. A chunk that does not decode is `Damaged`; the
    /// install is then of no use any more.
    pub fn add(&mut self, number: u64, chunk: &[u8]) -> Result<(), StoreError> {
        if number != self.next {
            return Err(self.refused(format!("chunk {number} where {} is due", self.next)));
        }
        let piece = open_chunk(number, chunk).map_err(|reason| self.refused(reason))?;
        self.next += 1;
        self.carry.extend_from_slice(piece);
        while let Some((lengths, _)) = self.carry.split_first_chunk::<8>() {
            let (mut key, mut value) = lengths.split_at(4);
            let (key, value) = (key.get_u32_le() as usize, value.get_u32_le() as usize);
            if key > MAX_FIELD || value > MAX_FIELD {
                return Err(self.refused(format!("a row of {key} and {value} bytes")));
            }
            if self.carry.len() < 8 + key + value {
                break;
            }
            self.carry.advance(8);
            // Copies: a row must not keep a whole chunk alive.
            let row = self.carry.split_to(key + value);
            let (key, value) = row.split_at(key);
            let (key, value) = (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value));
            if !self.filling.add(key, value)? {
                return Err(self.refused("its rows are not in order".to_string()));
            }
        }
        Ok(())
    }

    /// Checks digest and row count against the stamp and commits durably; blocking. The result
    /// is handed to [`super::Store::switch`].
    pub fn finish(self) -> Result<Installed, StoreError> {
        let totals = self.filling.totals;
        if !self.carry.is_empty() {
            return Err(self.refused("it ends within a row".to_string()));
        }
        if (totals.digest, totals.rows) != (self.stamp.digest, self.stamp.rows) {
            return Err(self.refused(format!(
                "{} rows with digest {:x}, promised were {} with {:x}",
                totals.rows, totals.digest, self.stamp.rows, self.stamp.digest
            )));
        }
        let base = self.filling.finish(&self.stamp, self.cache_bytes)?;
        Ok(Installed {
            stamp: self.stamp,
            base: Some(base),
            _token: self.token,
        })
    }

    /// What came from the peer is no damage of this disk.
    fn refused(&self, reason: String) -> StoreError {
        let path = self.filling.place.path();
        StoreError::Damaged {
            path,
            reason: format!("snapshot at {}: {reason}", self.stamp.index),
        }
    }
}

/// A complete generation that is not current yet. Dropped unused, its file goes.
pub struct Installed {
    /// What it covers.
    pub stamp: Stamp,
    base: Option<Base>,
    _token: Arc<()>,
}

impl Installed {
    /// Reads back what the file says it covers.
    pub(super) fn check(&self) -> Result<(Stamp, Totals), StoreError> {
        let base = self.base.as_ref().expect("taken only by value");
        let (stamp, totals) = base.stamp()?;
        if stamp != self.stamp {
            return Err(base
                .generation
                .place
                .damaged("its stamp is not the snapshot's"));
        }
        Ok((stamp, totals))
    }

    /// Takes the generation out for use.
    pub(super) fn keep(mut self) -> Base {
        self.base.take().expect("taken once, by value")
    }
}

impl Drop for Installed {
    fn drop(&mut self) {
        if let Some(base) = self.base.take() {
            let place = base.generation.place.clone();
            drop(base);
            place.remove();
        }
    }
}
