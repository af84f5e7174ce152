//! Frames on TCP: request and reply, one-way mail, bulk; a hello that says who is who.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// Protocol versions this build speaks, lowest and highest.
pub const PROTOCOL: (u16, u16) = (1, 1);

/// Who is at an end of a connection; the first frame in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest and highest protocol version spoken.
    pub protocol: (u16, u16),
    /// The cluster, when known; unset matches any.
    pub cluster: Option<u128>,
    /// The sender's replica group (0: controllers), `None` for a client.
    pub group: Option<u64>,
    /// The sender's node id in the group; 0 for a client.
    pub node: u64,
    /// The sender's disk id; 0 for a client.
    pub disk: u128,
    /// How often the sender's disk was started, and a random number of that start.
    pub boot: u64,
    /// See `boot`.
    pub nonce: u64,
    /// The group and node the sender believes it is talking to; `None`: any.
    pub to: Option<(u64, u64)>,
}

/// Named limits of a connection, in bytes unless said otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest frame body, sent or accepted.
    pub max_frame: usize,
    /// Bytes queued for sending on one connection; beyond: calls wait, mail is dropped.
    pub send_queue: usize,
    /// Requests of one connection being served at once; beyond: its socket is not read.
    pub max_calls: usize,
    /// Connections a server accepts at once; beyond: closed at once.
    pub max_connections: usize,
    /// A connection that has not said hello within this time is closed.
    pub hello_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_frame: 10 << 20,
            send_queue: 32 << 20,
            max_calls: 4096,
            max_connections: 1024,
            hello_timeout: Duration::from_secs(5),
        }
    }
}

/// A boxed future.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a server does with what arrives. `channel` separates protocols on one port.
pub trait Service: Send + Sync + 'static {
    /// Judges a peer's hello: our own hello for the answer, or a refusal that says both sides.
    fn welcome(&self, peer: &Hello) -> Result<Hello, String>;
    /// A one-way message. Must not block.
    fn mail(&self, peer: &Hello, channel: u8, body: Bytes);
    /// A request. `deadline` is what remains of the caller's time.
    fn call(&self, peer: &Hello, channel: u8, deadline: Duration, body: Bytes) -> BoxFuture<Bytes>;
}

/// A listening server.
pub struct Server {}

impl Server {
    /// Binds. The error names the address.
    pub async fn bind(addr: &str, limits: Limits) -> std::io::Result<Server> {
        let _ = (addr, limits);
        todo!()
    }
    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        todo!()
    }
    /// Serves until the future is dropped; then closes all connections.
    pub async fn serve(self, service: Arc<dyn Service>) {
        let _ = service;
        todo!()
    }
}

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The request did not leave this process: it has certainly had no effect.
    #[error("{target}: not sent: {reason}")]
    NotSent {
        /// The address.
        target: String,
        /// Why.
        reason: String,
    },
    /// The request may or may not have been served.
    #[error("{target}: no answer: {reason}")]
    NoAnswer {
        /// The address.
        target: String,
        /// Why.
        reason: String,
    },
    /// The peer refused our hello, or we refused theirs: nothing was sent.
    #[error("{target} refused: {reason}")]
    Refused {
        /// The address.
        target: String,
        /// What it said.
        reason: String,
    },
    /// The body is larger than `max_frame`.
    #[error("frame of {size} bytes is larger than the limit of {limit}")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        limit: usize,
    },
}

/// An outgoing connection that is made on demand and made again, resolving the host name afresh,
/// after it broke. Cheap to clone; concurrent calls are multiplexed.
#[derive(Clone)]
pub struct Link {}

impl Link {
    /// A link to `target` ("host:port"). `hello` is asked for at each connection. `check` judges
    /// the peer's hello.
    pub fn new(
        target: impl Into<String>,
        limits: Limits,
        hello: Arc<dyn Fn() -> Hello + Send + Sync>,
        check: Arc<dyn Fn(&Hello) -> Result<(), String> + Send + Sync>,
    ) -> Link {
        let _ = (target.into(), limits, hello, check);
        todo!()
    }
    /// The address given.
    pub fn target(&self) -> &str {
        todo!()
    }
    /// The peer's hello of the present connection, if connected.
    pub fn peer(&self) -> Option<Hello> {
        todo!()
    }
    /// Sends a request and waits for the reply, at most `deadline`. Cancellation-safe: a dropped
    /// call leaves the connection usable.
    pub async fn call(
        &self,
        channel: u8,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let _ = (channel, body, deadline);
        todo!()
    }
    /// Sends one-way mail if the connection is up and its queue has room; otherwise starts to
    /// connect and drops the mail. True when queued.
    pub fn mail(&self, channel: u8, body: Bytes) -> bool {
        let _ = (channel, body);
        todo!()
    }
}
