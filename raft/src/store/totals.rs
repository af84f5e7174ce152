//! Running sums over all rows: count, bytes, digest.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Part of the digest's definition: replicas compare digests.
const SEED: u64 = 0x686f_6c64_6661_7374;

/// Sums over all rows, kept up row by row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Totals {
    /// Order-free sum of the rows' hashes.
    pub(crate) digest: u64,
    /// Rows.
    pub(crate) rows: u64,
    /// Bytes of their keys and values.
    pub(crate) bytes: u64,
}

fn hash(key: &[u8], value: &[u8]) -> u64 {
    // The key's hash seeds the value's, so that bytes cannot wander between the two unseen.
    xxh3_64_with_seed(value, xxh3_64_with_seed(key, SEED))
}

impl Totals {
    pub(crate) fn add(&mut self, key: &[u8], value: &[u8]) {
        self.digest = self.digest.wrapping_add(hash(key, value));
        self.rows += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }

    pub(crate) fn remove(&mut self, key: &[u8], value: &[u8]) {
        self.digest = self.digest.wrapping_sub(hash(key, value));
        self.rows -= 1;
        self.bytes -= (key.len() + value.len()) as u64;
    }
}
