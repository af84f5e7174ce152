//! The store's client: routing, exactly-once retries, deadlines.
//!
//! Writes to one shard are one ordered stream ([`stream`]), carried by a task of its own
//! ([`driver`]); a caller only waits. So dropping a call's future at any moment leaves the stream
//! whole: a write that had not left never will, one that had is finished without its caller.
//! Reads are sent by their callers and have no effect.

pub mod answer;
mod driver;
mod limits;
pub mod router;
pub mod stream;
pub mod ticket;

use crate::api::{MAX_VALUE, Op, Outcome, Request};
use crate::slot;
use answer::{Answer, Trouble};
use bytes::Bytes;
use ctrler::config::{Config, ShardId};
use driver::{LastTrouble, Message};
use router::{Router, encode};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use world::clock::now;
use world::net::Limits;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Refused; the reason says what was expected. Nothing happened.
    #[error("{0}")]
    Invalid(String),
    /// Refused by a server whose disk is nearly full: what deletes is still served. Nothing happened.
    #[error("{0}")]
    Full(String),
    /// The deadline passed, and the operation has certainly had no effect.
    #[error("not done in time: {0}")]
    Unavailable(String),
    /// The operation was sent, and whether it took effect could not be learnt. It may still take
    /// effect later, at most once.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// What a client is made with.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Controllers, "host:port".
    pub ctrlers: Vec<String>,
    /// Time for one operation, retries included.
    pub deadline: Duration,
}

/// A client. Cheap to clone; clones share sessions, connections and the routing cache.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    options: ClientOptions,
    router: Arc<Router>,
    streams: Mutex<BTreeMap<ShardId, Stream>>,
}

/// A shard's task.
#[derive(Clone)]
struct Stream {
    inbox: mpsc::Sender<Message>,
    trouble: LastTrouble,
}

impl Client {
    /// A client. Connects on demand.
    pub fn new(options: ClientOptions) -> Client {
        Client {
            inner: Arc::new(Inner {
                router: Router::new(options.ctrlers.clone(), Limits::default()),
                options,
                streams: Mutex::default(),
            }),
        }
    }

    /// What it was made with.
    pub fn options(&self) -> ClientOptions {
        self.inner.options.clone()
    }

    /// The controllers' client.
    pub fn ctrlers(&self) -> &ctrler::client::Client {
        self.inner.router.ctrlers()
    }

    /// The newest configuration this client has seen; asks for one if it has none.
    pub async fn config(&self) -> Result<Arc<Config>, ClientError> {
        let router = &self.inner.router;
        if let Some(config) = router.config() {
            return Ok(config);
        }
        world::clock::timeout(self.inner.options.deadline, router.first_config())
            .await
            .map_err(|_| ClientError::Unavailable(self.no_config()))
    }

    fn no_config(&self) -> String {
        let trouble = self.inner.router.trouble();
        trouble.unwrap_or_else(|| {
            let asked = self.inner.options.ctrlers.join(", ");
            format!("{} (asked: {asked})", Trouble::NoConfig)
        })
    }

    /// The value of a key, linearizably.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        limits::key(key)?;
        let mut trouble = None;
        match world::clock::timeout(self.inner.options.deadline, self.read(key, &mut trouble)).await
        {
            Ok(result) => result,
            Err(_) => Err(ClientError::Unavailable(
                trouble.unwrap_or_else(|| self.no_config()),
            )),
        }
    }

    async fn read(
        &self,
        key: &[u8],
        last: &mut Option<String>,
    ) -> Result<Option<Bytes>, ClientError> {
        let router = &self.inner.router;
        let config = match router.config() {
            Some(config) => config,
            None => router.first_config().await,
        };
        let shard = slot::shard(key, config.shards.len() as u32);
        let body = encode(&Request::Get {
            shard,
            key: Bytes::copy_from_slice(key),
        });
        let mut failures = 0;
        loop {
            let (at, trouble) = match router.route(shard) {
                Err(trouble) => (None, trouble),
                Ok(route) => match Answer::of(router.call(&route, body.clone(), failures).await) {
                    Answer::Value(value) => return Ok(value),
                    Answer::Invalid(reason) => return Err(ClientError::Invalid(reason)),
                    Answer::Trouble(trouble) => (Some(route), trouble),
                    other => {
                        let what = format!("unexpected answer to a read: {other:?}");
                        (Some(route), Trouble::Unreadable(what))
                    }
                },
            };
            failures += 1;
            *last = Some(match &at {
                Some(at) => format!("group {} at {}: {trouble}", at.group, at.link.target()),
                None => trouble.to_string(),
            });
            router.recover(shard, at.as_ref(), &trouble, failures).await;
        }
    }

    /// Sets a key.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), ClientError> {
        limits::value(value)?;
        let op = Op::Put {
            key: copy(key),
            value: copy(value),
        };
        match self.one(op).await? {
            Outcome::Written { .. } => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Appends; returns the new length.
    pub async fn append(&self, key: &[u8], value: &[u8]) -> Result<u64, ClientError> {
        limits::value(value)?;
        let op = Op::Append {
            key: copy(key),
            value: copy(value),
        };
        match self.one(op).await? {
            Outcome::Written { len } => Ok(len),
            other => Err(unexpected(other)),
        }
    }

    /// Removes a key; true when it was there.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, ClientError> {
        match self.one(Op::Delete { key: copy(key) }).await? {
            Outcome::Deleted { existed } => Ok(existed),
            other => Err(unexpected(other)),
        }
    }

    /// Sets a key if its value is `expected` (`None`: absent). `value` `None` removes it.
    pub async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Outcome, ClientError> {
        let op = Op::CompareAndSet {
            key: copy(key),
            expected: expected.map(copy),
            value: value.map(copy),
        };
        self.one(op).await
    }

    /// Operations on one shard, atomically: all or none take effect. One outcome per operation.
    /// An empty batch does nothing.
    pub async fn batch(&self, ops: Vec<Op>) -> Result<Vec<Outcome>, ClientError> {
        limits::batch(&ops)?;
        if ops.is_empty() {
            return Ok(Vec::new());
        }
        let count = ops.len();
        let outcomes = self.write(ops).await?;
        if outcomes.len() != count {
            let reason = format!("{} outcomes for {count} operations", outcomes.len());
            return Err(ClientError::Unknown(reason));
        }
        Ok(outcomes)
    }

    async fn one(&self, op: Op) -> Result<Outcome, ClientError> {
        match self.batch(vec![op]).await?.pop() {
            Some(Outcome::TooLarge(reason)) => Err(ClientError::Invalid(reason)),
            Some(outcome) => Ok(outcome),
            None => Err(ClientError::Unknown("an answer without an outcome".into())),
        }
    }

    async fn write(&self, ops: Vec<Op>) -> Result<Vec<Outcome>, ClientError> {
        let deadline = now() + self.inner.options.deadline;
        let config = self.config().await?;
        let shard = limits::one_shard(&ops, config.shards.len() as u32)?;
        let stream = self.stream(shard);
        let (held, mut waiting) = ticket::pair();
        let left = deadline.saturating_duration_since(now());
        let answer = world::clock::timeout(left, async {
            match stream.inbox.send(Message::Write(ops, held)).await {
                Ok(()) => waiting.result().await,
                Err(_) => None,
            }
        })
        .await;
        if let Ok(Some(result)) = answer {
            return result;
        }
        let troubles = || {
            let troubles = stream.trouble.lock();
            troubles.unwrap_or_else(PoisonError::into_inner).clone()
        };
        let ended = answer.is_ok();
        let ms = self.inner.options.deadline.as_millis();
        match waiting.give_up() {
            Ok(result) => result,
            Err(true) if ended => Err(ClientError::Unknown("the client is shutting down".into())),
            Err(false) if ended => Err(ClientError::Unavailable(
                "the client is shutting down".into(),
            )),
            Err(true) => Err(ClientError::Unknown(
                troubles().unknown(format!("sent, and no answer within {ms} ms")),
            )),
            Err(false) => Err(ClientError::Unavailable(
                troubles()
                    .unavailable()
                    .unwrap_or_else(|| format!("no turn within {ms} ms")),
            )),
        }
    }

    fn stream(&self, shard: ShardId) -> Stream {
        let mut streams = self
            .inner
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let spawn = || {
            let (sender, inbox) = mpsc::channel(driver::INBOX);
            let trouble = LastTrouble::default();
            tokio::spawn(driver::run(
                shard,
                self.inner.router.clone(),
                inbox,
                trouble.clone(),
            ));
            Stream {
                inbox: sender,
                trouble,
            }
        };
        streams.entry(shard).or_insert_with(spawn).clone()
    }

    /// Closes this client's sessions, so that the servers need not keep them for an hour. Waits at
    /// most `patience`; sessions with a write under way are left alone. Optional.
    pub async fn close(&self, patience: Duration) {
        let streams: Vec<Stream> = {
            let streams = self
                .inner
                .streams
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            streams.values().cloned().collect()
        };
        let all = async {
            let mut closing = Vec::new();
            for stream in streams {
                let (done, closed) = oneshot::channel();
                if stream.inbox.send(Message::Close(done)).await.is_ok() {
                    closing.push(closed);
                }
            }
            for closed in closing {
                let _ = closed.await;
            }
        };
        let _ = world::clock::timeout(patience, all).await;
    }
}

fn copy(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

/// A single operation's outcome that its kind does not have.
fn unexpected(outcome: Outcome) -> ClientError {
    match outcome {
        Outcome::TooLarge(reason) => ClientError::Invalid(reason),
        other => ClientError::Unknown(format!(
            "unexpected outcome {other:?} (values may have up to {MAX_VALUE} bytes)"
        )),
    }
}
