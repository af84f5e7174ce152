//! The rows as a state machine sees them: overlay, frozen overlay, base.

use super::base::Base;
use super::layer::{Layer, Place};
use super::{StoreError, Totals};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::Arc;

/// The rows as the state machine sees them: overlay, frozen overlay, base. Keys and values are
/// opaque, ordered bytewise.
pub struct Rows {
    pub(super) overlay: Layer,
    /// Being flushed; unchanging.
    pub(super) frozen: Option<Arc<Layer>>,
    /// The committed generation, as of the last flush.
    pub(super) base: Option<Base>,
    pub(super) totals: Totals,
    /// See [`Rows::work`].
    work: u64,
}

/// The row of a key, found once for a look and a change.
pub struct Entry<'a> {
    place: Place<'a>,
    /// Its value, where the overlay does not know the key.
    below: Option<Bytes>,
    totals: &'a mut Totals,
    work: &'a mut u64,
}

impl Entry<'_> {
    /// The value, if there is a row.
    pub fn get(&self) -> Option<&Bytes> {
        match self.place.get() {
            Some(known) => known.as_ref(),
            None => self.below.as_ref(),
        }
    }

    /// Sets it.
    pub fn set(mut self, value: Bytes) {
        let new = self.get().is_none();
        self.forget();
        *self.work += (self.place.key().len() + value.len()) as u64;
        self.totals.add(self.place.key(), &value);
        self.place.set(value, new);
    }

    /// Removes the row; the value it had.
    pub fn remove(mut self) -> Option<Bytes> {
        self.get()?;
        self.forget();
        self.place.remove().or(self.below)
    }

    /// Takes the row out of the sums.
    fn forget(&mut self) {
        let old = match self.place.get() {
            Some(known) => known.as_ref(),
            None => self.below.as_ref(),
        };
        if let Some(old) = old {
            *self.work += (self.place.key().len() + old.len()) as u64;
            self.totals.remove(self.place.key(), old);
        }
    }
}

impl Rows {
    pub(super) fn new(base: Option<Base>, totals: Totals) -> Rows {
        Rows {
            overlay: Layer::default(),
            frozen: None,
            base,
            totals,
            work: 0,
        }
    }

    /// Rows in memory only, for tests of state machines.
    pub fn in_memory() -> Rows {
        Rows::new(None, Totals::default())
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.overlay.get(key) {
            Some(change) => Ok(change.clone()),
            None => below(&self.frozen, &self.base, key),
        }
    }

    /// The row of a key, looked up once.
    pub fn entry(&mut self, key: Bytes) -> Result<Entry<'_>, StoreError> {
        let place = self.overlay.place(key);
        let below = match place.get() {
            Some(_) => None,
            None => below(&self.frozen, &self.base, place.key())?,
        };
        Ok(Entry {
            place,
            below,
            totals: &mut self.totals,
            work: &mut self.work,
        })
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let entry = self.entry(Bytes::copy_from_slice(key))?;
        entry.set(Bytes::copy_from_slice(value));
        Ok(())
    }

    /// The row of a key whose value the caller knows: nothing is looked up in what is stored.
    pub fn known(&mut self, key: Bytes, value: Option<Bytes>) -> Entry<'_> {
        debug_assert!(
            !matches!(self.get(&key), Ok(found) if found != value),
            "another value is there under {key:02x?}"
        );
        Entry {
            place: self.overlay.place(key),
            below: value,
            totals: &mut self.totals,
            work: &mut self.work,
        }
    }

    /// Removes a key; true when it was there.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.take(key)?.is_some())
    }

    /// Removes a key and returns its value.
    pub fn take(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.entry(Bytes::copy_from_slice(key))?.remove())
    }

    /// Rows with `from <= key < to` (to the end when `to` is empty), in key order, until
    /// `max_rows` rows or `max_bytes` bytes are gathered (at least one row if there is one).
    /// Removed rows that are not flushed yet cost time: whoever deletes a range in steps resumes
    /// behind the last key it saw.
    pub fn range(
        &self,
        from: &[u8],
        to: &[u8],
        max_rows: usize,
        max_bytes: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut rows = Vec::new();
        if max_rows == 0 || (!to.is_empty() && from >= to) {
            return Ok(rows);
        }
        let none = Layer::default();
        let frozen = self.frozen.as_deref().unwrap_or(&none);
        let mut above = self.overlay.range(from, to).peekable();
        let mut middle = frozen.range(from, to).peekable();
        let mut below = match &self.base {
            Some(base) => Some(base.range(from, to)?),
            None => None,
        };
        let mut stored = match &mut below {
            Some(below) => below.next().transpose()?,
            None => None,
        };
        let mut bytes = 0;
        loop {
            // The smallest key of the three; where several have it, the uppermost decides.
            let mut least: Option<&[u8]> = above.peek().map(|(key, _)| &key[..]);
            for key in [
                middle.peek().map(|(key, _)| &key[..]),
                stored.as_ref().map(|(key, _)| &key[..]),
            ] {
                if let Some(key) = key
                    && least.is_none_or(|least| key < least)
                {
                    least = Some(key);
                }
            }
            let Some(least) = least else { break };
            let in_above = above.peek().is_some_and(|(key, _)| &key[..] == least);
            let in_middle = middle.peek().is_some_and(|(key, _)| &key[..] == least);
            let in_stored = stored.as_ref().is_some_and(|(key, _)| &key[..] == least);
            let mut row = None;
            if in_stored {
                row = stored.take();
                if let Some(below) = &mut below {
                    stored = below.next().transpose()?;
                }
            }
            if in_middle && let Some((key, change)) = middle.next() {
                row = change.as_ref().map(|value| (key.clone(), value.clone()));
            }
            if in_above && let Some((key, change)) = above.next() {
                row = change.as_ref().map(|value| (key.clone(), value.clone()));
            }
            let Some((key, value)) = row else { continue };
            bytes += key.len() + value.len();
            if bytes > max_bytes && !rows.is_empty() {
                break;
            }
            rows.push((key, value));
            if rows.len() >= max_rows || bytes >= max_bytes {
                break;
            }
        }
        Ok(rows)
    }

    /// Order-free sum of row hashes, kept up by put and delete.
    pub fn digest(&self) -> u64 {
        self.totals.digest
    }

    /// Bytes of keys and values that changes have hashed so far, those set and those that went: what
    /// changes cost, whatever the machine.
    pub fn work(&self) -> u64 {
        self.work
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.totals.rows
    }

    /// True when there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the rows are stored, for errors about what they contain.
    pub fn path(&self) -> PathBuf {
        match &self.base {
            Some(base) => base.path().to_path_buf(),
            None => PathBuf::from("state"),
        }
    }

    /// The error of a reader that finds a row which does not mean anything.
    pub fn damaged(&self, reason: impl std::fmt::Display) -> StoreError {
        StoreError::Damaged {
            path: self.path(),
            reason: reason.to_string(),
        }
    }
}

/// The value of a key below the overlay.
fn below(
    frozen: &Option<Arc<Layer>>,
    base: &Option<Base>,
    key: &[u8],
) -> Result<Option<Bytes>, StoreError> {
    if let Some(change) = frozen.as_ref().and_then(|frozen| frozen.get(key)) {
        return Ok(change.clone());
    }
    match base {
        Some(base) => base.get(key),
        None => Ok(None),
    }
}
