//! What the connections of a server may hold in memory, all together.
//!
//! The budget of a process ([`Limits::memory`]) is divided into four:
//!
//! ```text
//! ┌───────────────┬────────────────────┬──────────────┬────────────────┐
//! │ 1/4           │ 5/16               │ 3/16         │ 1/4            │
//! │ each          │ clients beyond     │ members      │ values that    │
//! │ connection's  │ their own, in the  │ beyond their │ were read and  │
//! │ own           │ order they ask     │ own          │ are not sent   │
//! └───────────────┴────────────────────┴──────────────┴────────────────┘
//! ```
//!
//! Every connection has an equal part of the first quarter, so small requests are served whatever
//! others do. What it holds beyond that (a long frame in arrival, requests being served, replies) it
//! takes from the pool of its kind *before* it reads, the whole length of a long frame at once. The
//! pool is a queue: first come, first served, and one connection has at most a quarter of it, or as
//! much as one frame takes. Who is given room always has enough to finish its frame: there is no
//! deadlock. Members have a pool of their own, since clients' requests wait for consensus.
//!
//! A connection that has room and does not use it is closed: a frame that is not whole after
//! [`Limits::frame_timeout`] (a tenth of it while others wait for room), or replies of which less than
//! [`LEAST_TAKEN`](super::drain::LEAST_TAKEN) were taken in twenty idle limits (a quarter of them while
//! others wait, or while it holds more than was granted: values that were read).

use super::Limits;
use super::places::Guest;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counted for every request being served, besides its bytes: its task and its place in tables.
pub(super) const CALL_BYTES: usize = 1 << 10;

/// Counted for every reply that waits, besides its bytes.
pub(super) const REPLY_BYTES: usize = 128;

/// Room is taken from a pool in multiples of this many bytes.
const BLOCK: usize = 64 << 10;

/// The division of a budget, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Division {
    pub(super) own: usize,
    pub(super) clients: usize,
    pub(super) members: usize,
}

impl Division {
    pub(super) fn of(limits: &Limits) -> Division {
        Division {
            own: limits.memory / 4 / (limits.max_connections + limits.reserve).max(1),
            clients: limits.memory / 16 * 5,
            members: limits.memory / 16 * 3,
        }
    }
}

/// The pools of a server. Cheap to clone.
#[derive(Clone)]
pub(super) struct Budget {
    own: usize,
    /// What one frame may take, its surroundings included.
    frame: usize,
    clients: Pool,
    members: Pool,
}

#[derive(Clone)]
struct Pool {
    bytes: usize,
    free: Arc<Semaphore>,
    /// Connections that wait for room.
    waiting: Arc<AtomicUsize>,
}

impl Pool {
    fn new(bytes: usize) -> Pool {
        Pool {
            bytes,
            free: Arc::new(Semaphore::new(bytes)),
            waiting: Arc::default(),
        }
    }
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Budget {
        let Division {
            own,
            clients,
            members,
        } = Division::of(limits);
        let frame = limits.max_frame + 8 * BLOCK;
        // A frame must fit: the least budget sees to that, and tests' limits may be smaller.
        let pool = |bytes: usize| Pool::new(bytes.max(frame).min(u32::MAX as usize));
        Budget {
            own,
            frame,
            clients: pool(clients),
            members: pool(members),
        }
    }

    /// The share of a connection.
    pub(super) fn share(&self, guest: Guest) -> Share {
        let pool = match guest {
            Guest::Member => &self.members,
            Guest::Client | Guest::Unknown => &self.clients,
        };
        Share {
            own: self.own,
            most: self.own + self.frame.max(pool.bytes / 4),
            pool: pool.clone(),
            taken: None,
            wait: None,
        }
    }
}

/// What one connection may hold.
pub(super) struct Share {
    own: usize,
    /// Its own and the most it may take.
    most: usize,
    pool: Pool,
    taken: Option<OwnedSemaphorePermit>,
    wait: Option<Wait>,
}

/// A place in the pool's queue.
struct Wait {
    room: Pin<Box<dyn Future<Output = OwnedSemaphorePermit> + Send>>,
    _count: Count,
}

struct Count(Arc<AtomicUsize>);

impl Count {
    fn new(waiting: &Arc<AtomicUsize>) -> Count {
        waiting.fetch_add(1, Ordering::Relaxed);
        Count(waiting.clone())
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Share {
    fn taken(&self) -> usize {
        self.taken
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }

    /// Bytes that it may hold now.
    pub(super) fn granted(&self) -> usize {
        self.own + self.taken()
    }

    /// Whether so many bytes may be held now.
    pub(super) fn has(&self, bytes: usize) -> bool {
        bytes <= self.granted()
    }

    /// Whether a connection that holds so many bytes may take more. If not, its place in the queue is
    /// kept, and the task is woken when there is room; unless it would have more than a share: then it
    /// must let go of something first.
    ///
    /// Room is taken for all that is wanted at once, and who waits has no more than it holds
    /// ([`Share::keep`]): what is held for requests and replies is let go of without more room, so the
    /// queue always moves on.
    pub(super) fn poll_room(&mut self, held: usize, more: usize, cx: &mut Context<'_>) -> bool {
        let (bytes, granted) = (held + more, self.granted());
        if more == 0 || self.has(bytes) {
            self.wait = None;
            return true;
        }
        if bytes > self.most {
            self.wait = None;
            return false;
        }
        if self.wait.is_none() {
            // What it holds without having asked (replies) is made up for.
            let owed = held.saturating_sub(granted);
            let room = (more + owed).next_multiple_of(BLOCK) + BLOCK;
            let room = room.min(self.pool.bytes) as u32;
            let free = self.pool.free.clone();
            let room = async move {
                match free.acquire_many_owned(room).await {
                    Ok(room) => room,
                    // A pool is never closed.
                    Err(_) => std::future::pending().await,
                }
            };
            self.wait = Some(Wait {
                room: Box::pin(room),
                _count: Count::new(&self.pool.waiting),
            });
        }
        let Some(wait) = &mut self.wait else {
            return false;
        };
        match wait.room.as_mut().poll(cx) {
            Poll::Pending => false,
            Poll::Ready(room) => {
                self.wait = None;
                match &mut self.taken {
                    Some(taken) => taken.merge(room),
                    None => self.taken = Some(room),
                }
                true
            }
        }
    }

    /// Gives back what is beyond so many bytes, at once when somebody waits for it.
    pub(super) fn keep(&mut self, held: usize) {
        let spare = self.granted().saturating_sub(held.max(self.own)) / BLOCK * BLOCK;
        let least = match self.pool.waiting.load(Ordering::Relaxed) {
            0 => 4 * BLOCK,
            _ => BLOCK,
        };
        if spare >= least
            && let Some(taken) = &mut self.taken
        {
            drop(taken.split(spare.min(taken.num_permits())));
        }
    }

    /// Whether this connection waits for room.
    pub(super) fn is_waiting(&self) -> bool {
        self.wait.is_some()
    }

    /// Whether this connection has more than its own while others wait for it.
    pub(super) fn is_wanted(&self) -> bool {
        self.taken() > 0
            && self.pool.waiting.load(Ordering::Relaxed) > usize::from(self.is_waiting())
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
