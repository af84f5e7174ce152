//! A redb backend that writes back as it goes, so that a flush never leaves the disk a long queue
//! in front of the log's next sync: the blocks of a flush lie scattered, and a disk may take
//! 100 ms for some thousands of them.

use redb::StorageBackend;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use world::paged::Paged;

/// Bytes written before they are written back.
const STEP: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Paced {
    inner: Paged,
    unsynced: AtomicUsize,
}

impl Paced {
    pub(super) fn new(inner: Paged) -> Paced {
        Paced {
            inner,
            unsynced: AtomicUsize::new(0),
        }
    }
}

impl StorageBackend for Paced {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced.store(0, Ordering::Relaxed);
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)?;
        if self.unsynced.fetch_add(data.len(), Ordering::Relaxed) + data.len() >= STEP {
            self.unsynced.store(0, Ordering::Relaxed);
            self.inner.write_back()?;
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }
}
