//! Replies that were made and are not sent yet.

use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts the bytes of replies from when they are made until nobody holds them any more: not the
/// task that waits for one, nor its connection, which lets go of it when the socket has all of it,
/// or with its own end.
#[derive(Clone, Default)]
pub(super) struct Unsent(Arc<AtomicUsize>);

struct Counted {
    reply: Bytes,
    unsent: Unsent,
}

impl Unsent {
    /// How many they are.
    pub(super) fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// A reply that is counted for as long as it, or a slice of it, lives.
    pub(super) fn count(&self, reply: Bytes) -> Bytes {
        self.0.fetch_add(reply.len(), Ordering::Relaxed);
        let unsent = self.clone();
        Bytes::from_owner(Counted { reply, unsent })
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.reply
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let bytes = self.reply.len();
        self.unsent.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}
