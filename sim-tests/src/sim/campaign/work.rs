//! What the clients of a run do.

use crate::campaign::plan::{Options, Work};
use crate::history::{Answer, Call, short};
use crate::sim::kv_cluster::KvCluster;
use crate::sim::unrest::between;
use crate::sim::workload::{Book, Scribe, token};
use bytes::Bytes;
use ctrler::config::ShardId;
use madsim::runtime::NodeHandle;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use world::entropy::random_u64;

/// Time for one operation; then its outcome is unknown, or it was certainly not done.
const DEADLINE: Duration = Duration::from_secs(20);

/// For an operation on a shard whose group no fault touches: several disk stalls and an election.
const SPARED: Duration = Duration::from_secs(5);

/// Appends to and reads a key of each of these shards, by turns, until it is stopped: their group goes
/// on serving, whatever befalls the others and the controllers (I21). `ready` is told when each shard
/// has answered once: whoever does not know yet where a shard is needs the controllers.
///
/// # Panics
/// When an operation takes longer than [`SPARED`].
pub async fn untouched(
    cluster: KvCluster,
    shards: Vec<ShardId>,
    book: Book,
    stop: Arc<AtomicBool>,
    ready: oneshot::Sender<()>,
) {
    let mut ready = Some(ready);
    let scribe = book.scribe(cluster.client_within(SPARED), UNTOUCHED);
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        for shard in &shards {
            let key = cluster.key_of(*shard, 0);
            let call = match (round + u64::from(*shard)) % 2 {
                0 => Call::Get,
                _ => Call::Append(token(UNTOUCHED, round)),
            };
            assert!(
                scribe.perform(&key, call).await,
                "I21: shard {shard}, which no fault touches, did not answer within {SPARED:?}: {:?}",
                book.errors().last()
            );
        }
        if let Some(ready) = ready.take() {
            let _ = ready.send(());
        }
        sleep(between(100, 400)).await;
    }
}

/// Running clients.
pub struct Clients {
    /// What they do and are told.
    pub book: Book,
    /// Set: they end after the operations they are at.
    pub stop: Arc<AtomicBool>,
    options: Options,
    tasks: Vec<(NodeHandle, JoinHandle<Scribe>)>,
}

/// Clients that have done what they had to do, and are still there with their sessions.
pub struct Resting {
    options: Options,
    clients: Vec<(NodeHandle, Scribe)>,
}

/// The number of the client of what no fault touches.
const UNTOUCHED: u64 = 1_000_000;
/// Added to the numbers of clients for the tokens that they write at the end.
const LAST: u64 = 3_000_000;

/// The n-th key. Batches write two keys of one shard: the tag between braces decides it.
pub fn key(options: &Options, n: u64, second: bool) -> Vec<u8> {
    match (options.work, second) {
        (Work::Batches, false) => format!("{{k{n}}}a").into_bytes(),
        (Work::Batches, true) => format!("{{k{n}}}b").into_bytes(),
        _ if options.odd_keys => odd_key(n),
        _ => format!("k{n}").into_bytes(),
    }
}

/// Keys that stand next to each other or begin each other, that look like hash tags and are none, and
/// the shortest and the longest.
fn odd_key(n: u64) -> Vec<u8> {
    const ODD: &[&[u8]] = &[
        b"",
        b"\0",
        b"\0\0",
        b"\xff",
        b"\xff\xff",
        b"a",
        b"a\0",
        b"a\0\xff",
        b"{",
        b"}{",
        b"{}",
        b"{}a",
        b"{a}{b}",
        b"{a",
        b"\xc3\x28 not UTF-8",
    ];
    match ODD.get(n as usize) {
        Some(key) => key.to_vec(),
        None => vec![b'k' + (n % 16) as u8; kv::api::MAX_KEY],
    }
}

impl Clients {
    /// Starts them, each on a machine of its own.
    pub fn start(cluster: &KvCluster, options: &Options, book: Book) -> Clients {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |client| {
            let (cluster, options) = (cluster.clone(), options.clone());
            let (book, stop) = (book.clone(), stop.clone());
            let node = cluster.nodes.client_node();
            let task = node.spawn(async move {
                // All that it has under way at a time goes through the same sessions.
                let within = cluster.client_within(DEADLINE);
                let lane = |lane| {
                    let number = client * options.depth + lane;
                    let scribe = book.scribe(within.clone(), number);
                    tokio::spawn(perform(scribe, options.clone(), number, stop.clone()))
                };
                let lanes: Vec<_> = (1..=options.depth).map(lane).collect();
                for lane in lanes {
                    lane.await.expect("a client panicked");
                }
                book.scribe(within, client * options.depth + 1)
            });
            (node, task)
        };
        let tasks = (0..options.clients).map(start).collect();
        let options = options.clone();
        Clients {
            book,
            stop,
            options,
            tasks,
        }
    }

    /// Ends them after the operations they are at.
    pub async fn stop(self) -> Resting {
        self.stop.store(true, Ordering::Relaxed);
        let mut clients = Vec::new();
        for (node, task) in self.tasks {
            clients.push((node, task.await.expect("a client panicked")));
        }
        Resting {
            options: self.options,
            clients,
        }
    }
}

impl Resting {
    /// Every client writes once more at every key, in the sessions that it has.
    ///
    /// # Panics
    /// When one is not answered, at rest; `id` is what is violated then.
    pub async fn write_once_more(self, id: &'static str) {
        let one = |(node, scribe): (NodeHandle, Scribe)| {
            let options = self.options.clone();
            node.spawn(async move {
                for n in 0..options.keys {
                    last_write(&scribe, &options, n, id).await;
                }
            })
        };
        let clients: Vec<_> = self.clients.into_iter().map(one).collect();
        for client in clients {
            client.await.expect("a client's last writes panicked");
        }
    }
}

/// Tries of one of the last writes: at first a client may ask those who are broken for ever.
const TRIES: u64 = 3;

async fn last_write(scribe: &Scribe, options: &Options, n: u64, id: &str) {
    let key = key(options, n, false);
    let mut why = None;
    for attempt in 0..TRIES {
        let call = match options.work {
            // No counter is so high.
            Work::Counters => Call::Cas(Some(Bytes::from_static(b"-")), None),
            _ => Call::Append(token(LAST + scribe.number(), TRIES * n + attempt)),
        };
        match scribe.attempt(&key, call).await {
            Ok(_) => return,
            Err(error) => why = Some(error),
        }
    }
    panic!(
        "{id}: client {} writes no more to {}: {}",
        scribe.number(),
        short(&key),
        why.map_or(String::new(), |why| why.to_string())
    );
}

/// Longest time that a hasty caller waits.
const HASTY_MS: u64 = 60;
/// Of so many operations a hasty caller gives up one.
const HASTY_ONE_IN: u64 = 20;

async fn perform(scribe: Scribe, options: Options, number: u64, stop: Arc<AtomicBool>) {
    let (mut count, mut hasty) = (0, options.hasty);
    while !stop.load(Ordering::Relaxed) {
        count += 1;
        let operation = operation(&scribe, &options, number, count);
        if hasty > 0 && random_u64().is_multiple_of(HASTY_ONE_IN) {
            hasty -= 1;
            let given_up = timeout(between(0, HASTY_MS), operation).await.is_err();
            if given_up {
                world::mark!("campaign: a caller gave up");
            }
        } else {
            operation.await;
        }
        sleep(between(0, options.pause_ms)).await;
    }
}

async fn operation(scribe: &Scribe, options: &Options, client: u64, count: u64) {
    let hot = random_u64() % 100 < options.hot_percent;
    let n = if hot { 0 } else { random_u64() % options.keys };
    let at = key(options, n, false);
    match options.work {
        Work::Mixed => {
            scribe.perform(&at, mixed(options, client, count)).await;
        }
        Work::Appends if random_u64().is_multiple_of(3) => {
            scribe.perform(&at, Call::Get).await;
        }
        Work::Appends => {
            scribe
                .perform(&at, Call::Append(token(client, count)))
                .await;
        }
        Work::Counters => raise(scribe, &at).await,
        Work::Batches if random_u64().is_multiple_of(3) => {
            let second = random_u64().is_multiple_of(2);
            scribe.perform(&key(options, n, second), Call::Get).await;
        }
        Work::Batches => {
            let other = key(options, n, true);
            scribe.append_both(&at, &other, token(client, count)).await;
        }
    }
}

fn mixed(options: &Options, client: u64, count: u64) -> Call {
    let value = token(client, count);
    // The same few values, so that compare-and-set has a chance.
    let common = || Some(Bytes::from(format!("v{}", random_u64() % 3)));
    match random_u64() % 10 {
        0..=3 => Call::Get,
        4 => Call::Put(common().unwrap_or_default()),
        5 => Call::Put([&value[..], &vec![b'.'; options.padding]].concat().into()),
        6 | 7 => Call::Append(value),
        8 => Call::Delete,
        _ => Call::Cas(common(), Some(value)),
    }
}

/// Reads a counter and sets it one higher, if nobody was faster.
async fn raise(scribe: &Scribe, key: &[u8]) {
    let Some(Answer::Value(found)) = scribe.ask(key, Call::Get).await else {
        return;
    };
    let text = found.as_deref().map(String::from_utf8_lossy);
    let count: u64 = text.map_or(0, |t| t.parse().expect("a counter is a number"));
    let next = Bytes::from((count + 1).to_string());
    scribe.perform(key, Call::Cas(found, Some(next))).await;
}
