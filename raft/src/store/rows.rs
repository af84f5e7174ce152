//! The rows as a state machine sees them: overlay, frozen overlay, base.

use super::base::Base;
use super::layer::Layer;
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
}

impl Rows {
    pub(super) fn new(base: Option<Base>, totals: Totals) -> Rows {
        Rows {
            overlay: Layer::default(),
            frozen: None,
            base,
            totals,
        }
    }

    /// Rows in memory only, for tests of state machines.
    pub fn in_memory() -> Rows {
        Rows::new(None, Totals::default())
    }

    /// The value of a key.
    pub fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(change) = self.overlay.get(key) {
            return Ok(change.clone());
        }
        if let Some(change) = self.frozen.as_ref().and_then(|frozen| frozen.get(key)) {
            return Ok(change.clone());
        }
        match &self.base {
            Some(base) => base.get(key),
            None => Ok(None),
        }
    }

    /// Sets a key.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let old = self.get(key)?;
        if let Some(old) = &old {
            self.totals.remove(key, old);
        }
        self.totals.add(key, value);
        self.overlay
            .set(key, Bytes::copy_from_slice(value), old.is_none());
        Ok(())
    }

    /// Removes a key; true when it was there.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.take(key)?.is_some())
    }

    /// Removes a key and returns its value.
    pub fn take(&mut self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(old) = self.get(key)? else {
            return Ok(None);
        };
        self.totals.remove(key, &old);
        self.overlay.remove(key);
        Ok(Some(old))
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
