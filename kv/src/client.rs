//! The store's client: routing, exactly-once retries, deadlines.

use crate::api::{Op, Outcome};
use bytes::Bytes;
use std::time::Duration;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Refused; the reason says what was expected. Nothing happened.
    #[error("{0}")]
    Invalid(String),
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
pub struct Client {}

impl Client {
    /// A client. Connects on demand.
    pub fn new(options: ClientOptions) -> Client {
        let _ = options;
        todo!()
    }
    /// The value of a key, linearizably.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, ClientError> {
        let _ = key;
        todo!()
    }
    /// Sets a key.
    pub async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), ClientError> {
        let _ = (key, value);
        todo!()
    }
    /// Appends; returns the new length.
    pub async fn append(&self, key: &[u8], value: &[u8]) -> Result<u64, ClientError> {
        let _ = (key, value);
        todo!()
    }
    /// Removes a key; true when it was there.
    pub async fn delete(&self, key: &[u8]) -> Result<bool, ClientError> {
        let _ = key;
        todo!()
    }
    /// Sets a key if its value is `expected` (`None`: absent).
    pub async fn compare_and_set(
        &self,
        key: &[u8],
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Outcome, ClientError> {
        let _ = (key, expected, value);
        todo!()
    }
    /// Operations on one shard, atomically.
    pub async fn batch(&self, ops: Vec<Op>) -> Result<Vec<Outcome>, ClientError> {
        let _ = ops;
        todo!()
    }
}
