//! Frames on TCP: request and reply, one-way mail; a hello that says who is who.
//!
//! Every frame has a header of 28 bytes, numbers little-endian:
//!
//! ```text
//!  0     1     2        3      4         8            16            20       24       28
//! ┌─────┬─────┬────────┬──────┬─────────┬────────────┬─────────────┬────────┬────────┬──────────────┐
//! │ f2  │kind │channel │flags │ length  │ request id │ deadline ms │ crc32  │ crc32  │ body: length │
//! │ u8  │ u8  │ u8     │ u8=0 │ u32     │ u64        │ u32         │ u32    │ u32    │ bytes        │
//! └─────┴─────┴────────┴──────┴─────────┴────────────┴─────────────┴────────┴────────┴──────────────┘
//! ```
//!
//! The first byte is a mark (`f`) and the version of this format (`2`). The first checksum is over
//! the 20 bytes before it, so that a damaged length is never waited for; the second is over the body.
//! Kinds: 1 hello, 2 refused, 3 request, 4 reply, 5 mail, 6 ping, 7 pong.
//!
//! The connecting end says hello first; the answer is the other end's hello, or a refusal with a
//! reason. Then requests and mail flow one way and replies the other. Bytes that are not a sound
//! frame close the connection: nothing behind them can be trusted.
//!
//! **Life.** The connecting end pings when it expects something and hears nothing, and drops the
//! connection when that goes on for `Limits::idle_limit`: a half-open connection would otherwise
//! swallow calls for minutes. The serving end says pong on its own while it receives but has
//! nothing to say, or has stopped reading for want of room, so that busy is not taken for dead. It
//! drops a peer that is silent, or does not read its replies, for twenty idle limits.
//!
//! **Absent.** No encryption and no authentication: the port belongs on a private network. No
//! mail from the serving end. Bulk transfers use a `Link` of their own.

mod budget;
mod dial;
mod drain;
mod frame;
mod hello;
pub mod inject;
mod link;
mod places;
mod server;
mod serving;
mod wire;

pub use frame::{Frame, FrameError, HEADER, Head, Kind, MARK, header, take};
pub use hello::{Hello, MAX_HELLO, PROTOCOL, STARTS, common_protocol};
pub use link::{CheckHello, Link, SayHello};
pub use server::Server;

use bytes::Bytes;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Named limits of a connection, in bytes unless said otherwise.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest frame body, sent or accepted.
    pub max_frame: usize,
    /// Bytes queued for sending on one connection; beyond: calls wait, mail is dropped, and a
    /// server whose replies are not read stops reading.
    pub send_queue: usize,
    /// Requests of one connection being served at once; beyond: its socket is not read.
    pub max_calls: usize,
    /// Bytes of the requests of one connection being served at once; beyond: its socket is not
    /// read.
    pub max_call_bytes: usize,
    /// Connections of clients, and of members of other groups, that a server serves at once; beyond:
    /// refused at their hello.
    pub max_connections: usize,
    /// Connections a server has at once beyond those, for members of its own group, whom clients
    /// must not lock out, and for hellos. With all of them taken a newcomer is let in at the cost of
    /// the one that has owed its hello longest; is there none, it is closed at once.
    pub reserve: usize,
    /// Bytes of memory for all connections that a server accepts: frames in arrival, requests being
    /// served, replies. At least [`LEAST_MEMORY`].
    pub memory: usize,
    /// A frame whose first byte came must be whole after this long; a tenth of it while others wait
    /// for the memory that is kept for it.
    pub frame_timeout: Duration,
    /// A connection that has not said hello within this time is closed.
    pub hello_timeout: Duration,
    /// A link gives an attempt to connect, hello included, this long.
    pub connect_timeout: Duration,
    /// A link that expects something and hears nothing drops the connection after this long, and
    /// pings after half of it. An idle link pings after five times this, and a server drops a
    /// connection it has not heard of, or that has taken nothing of what waits for it, for twenty
    /// times this.
    pub idle_limit: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_frame: 10 << 20,
            send_queue: 32 << 20,
            max_calls: 4096,
            max_call_bytes: 64 << 20,
            max_connections: 1024,
            reserve: 64,
            memory: DEFAULT_MEMORY,
            frame_timeout: Duration::from_secs(10),
            hello_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_millis(1500),
            idle_limit: Duration::from_secs(1),
        }
    }
}

/// Least [`Limits::memory`], bytes: the longest frame fits into each of its parts.
pub const LEAST_MEMORY: usize = 64 << 20;

/// [`Limits::memory`] where nothing else is said, bytes.
pub const DEFAULT_MEMORY: usize = 128 << 20;

/// Open files of a server besides the connections it accepts: its log and state, directories about
/// to be synced (64 at most), its own links to members and controllers (64), and to other groups (64).
pub const OTHER_FILES: usize = 192;

/// Fewest connections of clients that a server starts with.
pub const LEAST_CONNECTIONS: usize = 16;

impl Limits {
    /// The part of the memory that is for values that were read and are not sent yet, bytes.
    pub fn unsent(&self) -> usize {
        self.memory / 4
    }

    /// These limits for a process that may have so many files open; the error is the number that it
    /// needs. Connections must leave what the disk needs: a log that cannot open a file ends its
    /// server, a client that is refused comes back.
    pub fn within(self, open_files: u64) -> Result<Limits, usize> {
        let files = usize::try_from(open_files).unwrap_or(usize::MAX);
        let most = files.saturating_sub(OTHER_FILES + self.reserve);
        match most >= LEAST_CONNECTIONS {
            true => Ok(Limits {
                max_connections: self.max_connections.min(most),
                ..self
            }),
            false => Err(OTHER_FILES + self.reserve + LEAST_CONNECTIONS),
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
    ///
    /// The future is polled first in the order of arrival, then runs concurrently with others. It
    /// is dropped unfinished when the deadline has passed or the connection is gone. The body is
    /// a slice of a read buffer of 64 KiB or more: copy what is kept for long.
    fn call(&self, peer: &Hello, channel: u8, deadline: Duration, body: Bytes) -> BoxFuture<Bytes>;
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
