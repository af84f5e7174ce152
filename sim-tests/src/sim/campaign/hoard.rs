//! A client that fills the disks and makes room again. What makes a disk fuller is refused before it
//! is full; everything else is served; what is deleted makes room.

use super::liveness::health;
use super::machines::Machines;
use crate::campaign::plan::Options;
use crate::history::{Answer, Call};
use crate::sim::kv_cluster::KvCluster;
use crate::sim::unrest::between;
use crate::sim::workload::{Book, Scribe};
use bytes::Bytes;
use kv::client::ClientError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// Its number.
const NUMBER: u64 = 2_000_000;
/// Time for one operation.
const DEADLINE: Duration = Duration::from_secs(20);
/// For one of the last deletions.
const AT_END: Duration = Duration::from_secs(4);
/// It stores so many at a time.
const LANES: u64 = 4;
/// So many refusals in a row: the disks of all groups are full.
const REFUSED: u32 = 8;
/// After healing, for the deletion of everything, and for room for the next value.
const LIMIT: Duration = Duration::from_secs(90);

/// The client. Cheap to clone.
#[derive(Clone)]
pub struct Hoard {
    cluster: KvCluster,
    book: Book,
    bytes: usize,
    /// Keys so far.
    keys: Arc<AtomicU64>,
}

fn key(number: u64) -> Vec<u8> {
    format!("hoard-{number}").into_bytes()
}

impl Hoard {
    /// Of values of `options.hoard` bytes.
    pub fn new(cluster: KvCluster, options: &Options, book: Book) -> Hoard {
        Hoard {
            cluster,
            book,
            bytes: options.hoard,
            keys: Arc::default(),
        }
    }

    fn value(&self, number: u64) -> Call {
        let fill = b'a' + (number % 26) as u8;
        Call::Put(Bytes::from(vec![fill; self.bytes]))
    }

    fn scribe(&self) -> Scribe {
        self.book
            .scribe(self.cluster.client_within(DEADLINE), NUMBER)
    }

    /// Fills the disks and makes room, over and over, until it is stopped.
    ///
    /// # Panics
    /// When a deletion is refused for want of room (I20).
    pub async fn run(self, stop: Arc<AtomicBool>) {
        let scribe = self.scribe();
        let mut kept_from = 0;
        let stopped = || stop.load(Ordering::Relaxed);
        while !stopped() && self.bytes > 0 {
            let lanes =
                (0..LANES).map(|_| tokio::spawn(self.clone().fill(scribe.clone(), stop.clone())));
            for lane in lanes.collect::<Vec<_>>() {
                lane.await.expect("a lane of the hoarder panicked");
            }
            // The disks are full for a while, and what is there is read.
            let end = self.keys.load(Ordering::Relaxed);
            for _ in 0..between(0, 40).as_millis() {
                let number = kept_from + between(0, end - kept_from).as_millis() as u64;
                scribe.perform(&key(number), Call::Get).await;
                sleep(between(0, 200)).await;
            }
            // One of ten stays, so that what is deleted lies between.
            for number in (kept_from..end).filter(|number| number % 10 != 0) {
                if stopped() {
                    return;
                }
                self.delete(&scribe, number).await;
            }
            kept_from = end;
        }
    }

    /// Stores values until so many in a row are refused.
    async fn fill(self, scribe: Scribe, stop: Arc<AtomicBool>) {
        let mut refused = 0;
        while refused < REFUSED && !stop.load(Ordering::Relaxed) {
            let number = self.keys.fetch_add(1, Ordering::Relaxed);
            let put = scribe.attempt(&key(number), self.value(number)).await;
            refused = match put {
                Err(ClientError::Full(_)) => {
                    world::mark!("campaign: the disks were filled");
                    refused + 1
                }
                _ => 0,
            };
            sleep(between(0, 20)).await;
        }
    }

    /// False when it was not answered.
    async fn delete(&self, scribe: &Scribe, number: u64) -> bool {
        match scribe.attempt(&key(number), Call::Delete).await {
            Ok(_) => true,
            Err(ClientError::Full(why)) => {
                panic!("I20: a deletion was refused for want of room: {why}")
            }
            Err(_) => false,
        }
    }

    /// After healing: deletes everything; then there is room again.
    ///
    /// # Panics
    /// When that takes too long; `id` is what is violated then.
    pub async fn end(self, machines: &Machines, id: &str) {
        if self.bytes == 0 {
            return;
        }
        let within = self.cluster.client_within(AT_END);
        let scribe = self.book.scribe(within, NUMBER);
        let end = self.keys.load(Ordering::Relaxed);
        let mut left: Vec<u64> = (0..end).collect();
        let mut since = world::clock::now();
        // What is in a shard that waits for room where it goes is deleted later than what takes it.
        while !left.is_empty() {
            let mut next = Vec::new();
            for number in left {
                match self.delete(&scribe, number).await {
                    true => since = world::clock::now(),
                    false => next.push(number),
                }
                assert!(
                    since.elapsed() < LIMIT,
                    "{id}: what filled the disks cannot be deleted within {LIMIT:?}: {:?}\n{}",
                    self.book.errors().last(),
                    health(machines).await
                );
            }
            left = next;
        }
        let deleted = world::clock::now();
        // A few, for every group.
        for number in end..end + 20 {
            loop {
                let put = scribe.attempt(&key(number), self.value(number)).await;
                match put {
                    Ok(answer) => break assert_eq!(answer, Answer::Written),
                    Err(why) => assert!(
                        deleted.elapsed() < LIMIT,
                        "{id}: no room within {LIMIT:?} after everything was deleted: {why}\n{}",
                        health(machines).await
                    ),
                }
                sleep(Duration::from_millis(500)).await;
            }
        }
        for number in end..end + 20 {
            self.delete(&scribe, number).await;
        }
    }
}
