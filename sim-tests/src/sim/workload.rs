//! Clients that keep a history, and what is asked of it afterwards.

use super::kv_cluster::KvCluster;
use crate::history::{Answer, Call, History, Operation, short};
use crate::linear;
use bytes::Bytes;
use kv::api::{Op, Outcome};
use kv::client::{Client, ClientError};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::JoinHandle;
use world::entropy::random_u64;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Microseconds of simulated time since the run began.
fn now() -> u64 {
    u64::try_from(madsim::time::TimeHandle::current().elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// The histories of all clients of a run. Cheap to clone.
#[derive(Clone, Default)]
pub struct Book {
    history: Arc<Mutex<History>>,
    errors: Arc<Mutex<Vec<String>>>,
}

/// A client that writes what it does into a [`Book`].
#[derive(Clone)]
pub struct Scribe {
    client: Client,
    number: u64,
    book: Book,
}

impl Book {
    /// A recording client.
    pub fn scribe(&self, client: Client, number: u64) -> Scribe {
        Scribe {
            client,
            number,
            book: self.clone(),
        }
    }

    /// What was recorded so far.
    pub fn history(&self) -> History {
        lock(&self.history).clone()
    }

    /// Operations recorded.
    pub fn len(&self) -> usize {
        lock(&self.history).len()
    }

    /// True when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Errors that clients were given (unknown outcomes and expired deadlines).
    pub fn errors(&self) -> Vec<String> {
        lock(&self.errors).clone()
    }

    /// Operations that were answered.
    pub fn answered(&self) -> usize {
        let history = lock(&self.history);
        let all = history.keys().flat_map(|(_, operations)| operations);
        all.filter(|o| o.returned.is_some()).count()
    }

    /// The longest time from a write's (or a read's) call to its answer, and which one that was.
    pub fn slowest(&self, writes: bool) -> (Duration, String) {
        let history = lock(&self.history);
        let mut slowest = (0, String::new());
        for (key, operations) in history.keys() {
            for operation in operations {
                if let Some((at, _)) = &operation.returned
                    && (operation.call != Call::Get) == writes
                    && at - operation.called > slowest.0
                {
                    slowest = (at - operation.called, format!("{key:?}: {operation:?}"));
                }
            }
        }
        (Duration::from_micros(slowest.0), slowest.1)
    }

    /// Waits until `more` operations have been answered.
    pub async fn progress(&self, more: usize) {
        let goal = self.answered() + more;
        let since = world::clock::now();
        while self.answered() < goal {
            assert!(
                since.elapsed() < Duration::from_secs(60),
                "no {more} operations were answered within 60 s; errors: {:#?}",
                self.errors()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Fails the test unless every key's history is linearizable, and every append of a unique
    /// token (see [`token`]) is there exactly once if acknowledged, at most once otherwise, and in
    /// its client's order.
    pub fn judge(&self) {
        let history = lock(&self.history);
        if let Err(violation) = linear::check(&history) {
            match violation {
                linear::Violation::NotLinearizable { report, .. } => {
                    panic!("I8: not linearizable: {report}")
                }
                linear::Violation::Undecided { key } => {
                    panic!("I8: key {}: too concurrent to be judged", short(&key))
                }
            }
        }
        for (key, operations) in history.keys() {
            tokens_once_and_in_order(key, operations);
        }
    }
}

/// A token that no other append has.
pub fn token(client: u64, number: u64) -> Bytes {
    format!("<{client}.{number}>").into()
}

fn tokens_once_and_in_order(key: &Bytes, operations: &[Operation]) {
    let appends_only = operations
        .iter()
        .all(|o| matches!(o.call, Call::Get | Call::Append(_)));
    let last = operations
        .iter()
        .filter_map(|o| match &o.returned {
            Some((_, Answer::Value(value))) => Some((o.called, value.clone())),
            _ => None,
        })
        .max();
    let (true, Some((read_from, value))) = (appends_only, last) else {
        return;
    };
    let value = value.unwrap_or_default();
    let text = String::from_utf8_lossy(&value);
    let mut next: BTreeMap<u64, usize> = BTreeMap::new();
    for operation in operations {
        let Call::Append(token) = &operation.call else {
            continue;
        };
        let token = String::from_utf8_lossy(token);
        let found: Vec<usize> = text.match_indices(&*token).map(|(at, _)| at).collect();
        let acknowledged = operation
            .returned
            .as_ref()
            .is_some_and(|(at, _)| *at < read_from);
        assert!(
            found.len() <= 1,
            "I9: {token} is in {} {} times",
            short(key),
            found.len()
        );
        assert!(
            !acknowledged || found.len() == 1,
            "I9: acknowledged {token} is not in {}",
            short(key)
        );
        if let (true, Some(at)) = (acknowledged, found.first()) {
            let after = next.entry(operation.client).or_insert(0);
            assert!(
                at >= after,
                "I9: {token} stands before an earlier append of its client"
            );
            *after = *at;
        }
    }
}

impl Scribe {
    /// The client's number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Does one operation and records it. False when it failed.
    pub async fn perform(&self, key: &[u8], call: Call) -> bool {
        self.ask(key, call).await.is_some()
    }

    /// Does one operation, records it and says how it was answered.
    pub async fn ask(&self, key: &[u8], call: Call) -> Option<Answer> {
        self.attempt(key, call).await.ok()
    }

    /// Does one operation, records it and says how it was answered, or why it was not. Dropped while
    /// it waits, it may have had an effect, and is recorded so.
    pub async fn attempt(&self, key: &[u8], call: Call) -> Result<Answer, ClientError> {
        let open = Open::new(self, &[key], call.clone());
        let result = match &call {
            Call::Get => self.client.get(key).await.map(Answer::Value),
            Call::Put(value) => self.client.put(key, value).await.map(|()| Answer::Written),
            Call::Append(value) => self.client.append(key, value).await.map(Answer::Length),
            Call::Delete => self.client.delete(key).await.map(Answer::Deleted),
            Call::Cas(expected, value) => self
                .client
                .compare_and_set(key, expected.as_deref(), value.as_deref())
                .await
                .map(|outcome| Answer::Swapped(outcome == Outcome::Swapped)),
        };
        match &result {
            Ok(answer) => open.returned(answer.clone()),
            Err(error) => open.failed(error),
        }
        result
    }

    /// Appends the same to two keys of one shard, atomically: both are as long afterwards.
    ///
    /// # Panics
    /// When one was appended to without the other.
    pub async fn append_both(&self, one: &[u8], other: &[u8], value: Bytes) {
        let open = Open::new(self, &[one, other], Call::Append(value.clone()));
        let append = |key: &[u8]| Op::Append {
            key: Bytes::copy_from_slice(key),
            value: value.clone(),
        };
        match self.client.batch(vec![append(one), append(other)]).await {
            Ok(outcomes) => match outcomes[..] {
                [Outcome::Written { len }, Outcome::Written { len: other }] => {
                    assert_eq!(len, other, "I9: a batch was applied in part");
                    open.returned(Answer::Length(len));
                }
                _ => panic!("a batch of two appends was answered {outcomes:?}"),
            },
            Err(error) => open.failed(&error),
        }
    }

    /// Notes an error; true when the operation may have had an effect.
    fn failed(&self, error: &ClientError) -> bool {
        lock(&self.book.errors).push(format!("client {}: {error}", self.number));
        match error {
            ClientError::Unknown(_) => true,
            ClientError::Full(_) | ClientError::Unavailable(_) => false,
            ClientError::Invalid(reason) => {
                panic!("a valid operation was refused: {reason}")
            }
        }
    }
}

/// An operation under way, on keys that it changes alike. Dropped, it stays open for ever.
struct Open<'a> {
    scribe: &'a Scribe,
    keys: Vec<Vec<u8>>,
    call: Call,
    called: u64,
    /// What is recorded: the answer; nothing for one that certainly had no effect.
    record: Option<Option<Answer>>,
}

impl<'a> Open<'a> {
    fn new(scribe: &'a Scribe, keys: &[&[u8]], call: Call) -> Open<'a> {
        Open {
            scribe,
            keys: keys.iter().map(|key| key.to_vec()).collect(),
            call,
            called: now(),
            record: Some(None),
        }
    }

    fn returned(mut self, answer: Answer) {
        self.record = Some(Some(answer));
    }

    fn failed(mut self, error: &ClientError) {
        self.record = self.scribe.failed(error).then_some(None);
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let Some(answer) = self.record.take() else {
            return;
        };
        let returned = answer.map(|answer| (now(), answer));
        for key in &self.keys {
            let operation = Operation {
                client: self.scribe.number,
                call: self.call.clone(),
                called: self.called,
                returned: returned.clone(),
            };
            lock(&self.scribe.book.history).add(key, operation);
        }
    }
}

/// What the clients of a [`Load`] do.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Clients.
    pub clients: u64,
    /// Keys.
    pub keys: u64,
    /// Only reads and appends of tokens, instead of all kinds.
    pub appends_only: bool,
    /// Longest pause between two operations of a client.
    pub pause: Duration,
    /// Bytes added to what is put (not to what is appended).
    pub padding: usize,
    /// Time for one operation, if not the cluster's.
    pub deadline: Option<Duration>,
}

impl Default for Mix {
    fn default() -> Self {
        Mix {
            clients: 5,
            keys: 5,
            appends_only: false,
            pause: Duration::from_millis(50),
            padding: 0,
            deadline: None,
        }
    }
}

/// Running clients, each on a machine of its own.
pub struct Load {
    book: Book,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    mix: Mix,
    cluster: KvCluster,
}

/// The n-th key of a mix.
pub fn key(n: u64) -> Vec<u8> {
    format!("key-{n}").into_bytes()
}

impl Load {
    /// Starts the clients.
    pub fn start(cluster: &KvCluster, mix: Mix) -> Load {
        let book = Book::default();
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (1..=mix.clients)
            .map(|number| {
                let (book, stop, cluster) = (book.clone(), stop.clone(), cluster.clone());
                cluster.nodes.client_node().spawn(async move {
                    let client = match mix.deadline {
                        Some(deadline) => cluster.client_within(deadline),
                        None => cluster.client(),
                    };
                    let scribe = book.scribe(client, number);
                    let mut count = 0;
                    while !stop.load(Ordering::Relaxed) {
                        count += 1;
                        let at = key(random_u64() % mix.keys);
                        scribe.perform(&at, draw(mix, number, count)).await;
                        let most = u64::try_from(mix.pause.as_millis())
                            .unwrap_or(u64::MAX)
                            .max(1);
                        tokio::time::sleep(Duration::from_millis(random_u64() % most)).await;
                    }
                })
            })
            .collect();
        Load {
            book,
            stop,
            clients,
            mix,
            cluster: cluster.clone(),
        }
    }

    /// What was recorded so far.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// Stops the clients, reads every key once more, and judges all of it. Returns the book.
    pub async fn finish(self) -> Book {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("a client panicked");
        }
        let (book, cluster, mix) = (self.book.clone(), self.cluster.clone(), self.mix);
        self.cluster
            .nodes
            .run(async move {
                let scribe = book.scribe(cluster.client(), 0);
                for n in 0..mix.keys {
                    assert!(
                        scribe.perform(&key(n), Call::Get).await,
                        "the last read failed"
                    );
                }
            })
            .await;
        assert!(!self.book.is_empty(), "the clients did nothing");
        self.book.judge();
        self.book
    }
}

fn draw(mix: Mix, client: u64, count: u64) -> Call {
    let value = token(client, count);
    if mix.appends_only {
        return if random_u64().is_multiple_of(3) {
            Call::Get
        } else {
            Call::Append(value)
        };
    }
    // The same few values, so that compare-and-set has a chance.
    let common = || Some(Bytes::from(format!("v{}", random_u64() % 3)));
    match random_u64() % 10 {
        0..=3 => Call::Get,
        4 => Call::Put(common().unwrap_or_default()),
        5 => Call::Put([&value[..], &vec![b'.'; mix.padding]].concat().into()),
        6 | 7 => Call::Append(value),
        8 => Call::Delete,
        _ => Call::Cas(common(), Some(value)),
    }
}
