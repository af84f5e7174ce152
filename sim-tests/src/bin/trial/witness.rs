//! The client that is not hostile.

use bytes::Bytes;
use kv::client::Client;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;
use world::clock::{Instant, now, sleep};

const PAUSE: Duration = Duration::from_millis(5);

/// What one kind of operation has waited so far, the present one included.
#[derive(Default)]
pub struct Waits {
    pub longest: Duration,
    pub done: u64,
    pub failed: u64,
    since: Option<Instant>,
}

impl Waits {
    fn worst(&self) -> Duration {
        let present = self.since.map_or(Duration::ZERO, |since| since.elapsed());
        self.longest.max(present)
    }
}

/// Its operations; they end when dropped.
pub struct Witness {
    waits: [Arc<Mutex<Waits>>; 2],
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// One operation after another.
async fn again<F: Future<Output = bool>>(waits: Arc<Mutex<Waits>>, mut one: impl FnMut() -> F) {
    let lock = || waits.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        lock().since = Some(now());
        let done = one().await;
        {
            let mut waits = lock();
            waits.longest = waits.worst();
            waits.since = None;
            match done {
                true => waits.done += 1,
                false => waits.failed += 1,
            }
        }
        sleep(PAUSE).await;
    }
}

impl Witness {
    /// Writes values of so many bytes at a key, and reads the key behind it.
    pub fn start(key: Bytes, writer: Client, reader: Client, value: usize) -> Witness {
        let waits: [Arc<Mutex<Waits>>; 2] = Default::default();
        let value = vec![b'w'; value];
        // Braces hold what is hashed: it is in the same shard.
        let other = [b"{", &key[..], b"}other"].concat();
        let puts = tokio::spawn(again(waits[0].clone(), move || {
            let (writer, key, value) = (writer.clone(), key.clone(), value.clone());
            async move { writer.put(&key, &value).await.is_ok() }
        }));
        let gets = tokio::spawn(again(waits[1].clone(), move || {
            let (reader, other) = (reader.clone(), other.clone());
            async move { reader.get(&other).await.is_ok() }
        }));
        Witness {
            waits,
            tasks: vec![puts, gets],
        }
    }

    /// The longest waits of writes and reads, and how many were done and failed.
    pub fn report(&self) -> (Duration, Duration, u64, u64) {
        let read = |at: usize| {
            let waits = self.waits[at].lock();
            let waits = waits.unwrap_or_else(PoisonError::into_inner);
            (waits.worst(), waits.done, waits.failed)
        };
        let (puts, gets) = (read(0), read(1));
        (puts.0, gets.0, puts.1 + gets.1, puts.2 + gets.2)
    }
}
