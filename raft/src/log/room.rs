//! What a disk that runs short means for a log: smaller segments, and nothing kept ahead.
//!
//! Only whole segments are removed, so on a small disk they have to be small; and a spare is a
//! convenience, which is not to take the room that a vote or an acknowledgement needs.

use super::LogOptions;
use std::io::{Error, ErrorKind};

/// A segment is at most this share of what is free, when that is less than the reserve.
const SHARE: u64 = 8;
/// And not shorter than this for it, unless [`LogOptions::segment_bytes`] are fewer.
const LEAST: u64 = 1 << 20;

impl LogOptions {
    /// True when so many free bytes are fewer than the reserve.
    pub(super) fn is_short(&self, free: u64) -> bool {
        free < self.reserve_bytes
    }

    /// Length of a new segment, bytes, when so many are free.
    pub(super) fn usual_length(&self, free: u64) -> u64 {
        match self.is_short(free) {
            true => (free / SHARE).max(LEAST).min(self.segment_bytes),
            false => self.segment_bytes,
        }
    }
}

/// True when it was for want of room.
pub(super) fn is_full(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded
    )
}
