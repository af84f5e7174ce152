//! An outgoing connection as its users see it: calls and mail put into a queue of bounded bytes.

use super::dial;
use super::{CallError, Hello, Limits};
use crate::clock::{Duration, Instant, now, timeout};
use crate::turnstile::Turnstile;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use tokio::sync::{Semaphore, oneshot};

/// Answers "who am I" at each connection.
pub type SayHello = Arc<dyn Fn() -> Hello + Send + Sync>;

/// Judges the peer's hello.
pub type CheckHello = Arc<dyn Fn(&Hello) -> Result<(), String> + Send + Sync>;

/// What an answered call gets.
pub(super) type Answer = Result<Bytes, CallError>;

/// An outgoing connection that is made on demand (or kept: [`Link::keep`]) and made again, resolving
/// the host name afresh, after it broke. Cheap to clone; concurrent calls are multiplexed.
///
/// Failed attempts to connect are spaced by 50 ms, doubling to 1 s; while a call waits, by at most
/// 100 ms, and on a kept link by at most 250 ms. Must be used inside a runtime; the background task starts at the first use and ends
/// when the last clone is dropped.
#[derive(Clone)]
pub struct Link {
    handle: Arc<Handle>,
}

/// Ends the background task when the last `Link` is dropped.
struct Handle(Arc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.unused = true;
        state.wake();
    }
}

/// What the users of a link and its background task share.
pub(super) struct Shared {
    pub(super) target: String,
    pub(super) limits: Limits,
    pub(super) hello: SayHello,
    pub(super) check: CheckHello,
    /// Bytes that may still be queued.
    room: Semaphore,
    /// Where calls wait for it.
    turn: Turnstile,
    state: Mutex<State>,
}

#[derive(Default)]
pub(super) struct State {
    /// To be sent, oldest first.
    pub(super) queue: VecDeque<Outgoing>,
    /// Calls without an answer, by request id.
    pub(super) calls: BTreeMap<u64, Pending>,
    /// Ids are never used twice by a link: a late reply finds nobody, not somebody else.
    last_id: u64,
    /// The peer of the present connection.
    pub(super) peer: Option<Arc<Hello>>,
    /// Counts connections, so that a delayed frame stays on its own.
    pub(super) connection: u64,
    /// Mail was offered while there was no connection.
    pub(super) wanted: bool,
    /// A connection is wanted all the time.
    pub(super) kept: bool,
    /// Calls in `queue`, cancelled ones included.
    started: bool,
    pub(super) unused: bool,
    pub(super) waker: Option<Waker>,
}

/// A call without an answer.
pub(super) struct Pending {
    pub(super) answer: oneshot::Sender<Answer>,
    /// Its frame was handed to the socket: it may have been served.
    pub(super) sent: bool,
}

/// A frame in the queue.
pub(super) struct Outgoing {
    pub(super) what: What,
    pub(super) channel: u8,
    pub(super) body: Bytes,
    /// Taken from `room`.
    pub(super) weight: u32,
    /// Already let through by the simulation's judge.
    pub(super) judged: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Call { id: u64, deadline: Instant },
    Mail,
}

impl State {
    /// Wakes the background task.
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives back room in the queue.
    pub(super) fn release(&self, weight: usize) {
        if weight > 0 {
            self.room.add_permits(weight);
        }
    }

    /// Empties the queue and answers every call: `unsent` to those that never left, `sent` to
    /// the others.
    pub(super) fn fail_all(&self, unsent: &CallError, sent: &CallError) {
        let (queue, calls) = {
            let mut state = self.lock();
            state.peer = None;
            state.wanted = false;
            (
                std::mem::take(&mut state.queue),
                std::mem::take(&mut state.calls),
            )
        };
        self.release(queue.iter().map(|o| o.weight as usize).sum());
        for call in calls.into_values() {
            let error = if call.sent { sent } else { unsent };
            // A receiver that is gone was cancelled.
            let _ = call.answer.send(Err(error.clone()));
        }
    }

    pub(super) fn not_sent(&self, reason: impl ToString) -> CallError {
        CallError::NotSent {
            target: self.target.clone(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn no_answer(&self, reason: impl ToString) -> CallError {
        CallError::NoAnswer {
            target: self.target.clone(),
            reason: reason.to_string(),
        }
    }
}

/// Takes a call off the books when its caller stops waiting.
struct Waiting<'a> {
    shared: &'a Shared,
    id: Option<u64>,
}

impl Waiting<'_> {
    /// Forgets the call; true when its frame had been handed to the socket.
    fn forget(&mut self) -> bool {
        match self.id.take() {
            Some(id) => self
                .shared
                .lock()
                .calls
                .remove(&id)
                .is_some_and(|call| call.sent),
            None => false,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.forget();
    }
}

impl Link {
    /// A link to `target` ("host:port"). `hello` is asked for at each connection. `check` judges
    /// the peer's hello.
    pub fn new(
        target: impl Into<String>,
        limits: Limits,
        hello: SayHello,
        check: CheckHello,
    ) -> Link {
        let shared = Shared {
            target: target.into(),
            room: Semaphore::new(limits.send_queue.min(u32::MAX as usize)),
            turn: Turnstile::default(),
            limits,
            hello,
            check,
            state: Mutex::default(),
        };
        Link {
            handle: Arc::new(Handle(Arc::new(shared))),
        }
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.0
    }

    /// The address given.
    pub fn target(&self) -> &str {
        &self.shared().target
    }

    /// The peer's hello of the present connection, if connected.
    pub fn peer(&self) -> Option<Hello> {
        self.shared().lock().peer.as_deref().cloned()
    }

    /// The protocol versions that the peer speaks, once it has introduced itself.
    pub fn peer_protocol(&self) -> Option<(u16, u16)> {
        self.shared().lock().peer.as_ref().map(|peer| peer.protocol)
    }

    /// What a frame takes of the queue's room; one larger than the queue takes all of it.
    fn weight(&self, body: &Bytes) -> u32 {
        let weight = body.len() + super::HEADER;
        weight
            .min(self.shared().limits.send_queue)
            .min(u32::MAX as usize) as u32
    }

    fn check_size(&self, body: &Bytes) -> Result<(), CallError> {
        let (size, limit) = (body.len(), self.shared().limits.max_frame);
        if size > limit {
            Err(CallError::TooLarge { size, limit })
        } else {
            Ok(())
        }
    }

    /// Starts the background task at the first use, and wakes it.
    fn rouse(&self, state: &mut State) {
        if state.started {
            state.wake();
        } else {
            state.started = true;
            tokio::spawn(dial::run(self.shared().clone()));
        }
    }

    /// Sends a request and waits for the reply, at most `deadline`. Cancellation-safe: a dropped
    /// call leaves the connection usable.
    ///
    /// Without a connection it waits for an attempt to connect, and fails with `NotSent` or
    /// `Refused` as soon as one has failed, so that the caller can turn to another server. When
    /// the queue is full it waits for room. Calls leave in the order in which they were first polled.
    pub async fn call(
        &self,
        channel: u8,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        self.check_size(&body)?;
        let shared = self.shared();
        let mut waiting = Waiting { shared, id: None };
        let until = now() + deadline;
        let answered = timeout(deadline, async {
            let weight = self.weight(&body);
            let answered = shared.turn.pass(async {
                match shared.room.acquire_many(weight).await {
                    Ok(permit) => permit.forget(),
                    Err(e) => return Err(shared.not_sent(e)),
                }
                let (answer, answered) = oneshot::channel();
                let mut state = shared.lock();
                state.last_id += 1;
                let id = state.last_id;
                waiting.id = Some(id);
                state.calls.insert(
                    id,
                    Pending {
                        answer,
                        sent: false,
                    },
                );
                let what = What::Call {
                    id,
                    deadline: until,
                };
                state.queue.push_back(Outgoing {
                    what,
                    channel,
                    body,
                    weight,
                    judged: false,
                });
                self.rouse(&mut state);
                Ok(answered)
            });
            let answered = answered.await?;
            match answered.await {
                Ok(answer) => answer,
                // The background task ended with its runtime.
                Err(_) => Err(shared.no_answer("the link is shut down")),
            }
        })
        .await;
        match answered {
            Ok(answer) => {
                // Answered calls are off the books already.
                waiting.id = None;
                answer
            }
            Err(_) if waiting.forget() => {
                Err(shared.no_answer(format!("none within {deadline:?}")))
            }
            Err(_) => {
                Err(shared.not_sent(format!("not connected or not writable for {deadline:?}")))
            }
        }
    }

    /// From now on the connection is made without waiting for something to send, made again whenever
    /// it broke, and tried while nothing is said: mail then does not get lost for want of one. To be
    /// called inside a runtime.
    pub fn keep(&self) {
        let mut state = self.shared().lock();
        if !std::mem::replace(&mut state.kept, true) {
            self.rouse(&mut state);
        }
    }

    /// Sends one-way mail if the connection is up and its queue has room; otherwise starts to
    /// connect and drops the mail. True when queued. Mail of one connection arrives in order.
    pub fn mail(&self, channel: u8, body: Bytes) -> bool {
        if self.check_size(&body).is_err() {
            return false;
        }
        let shared = self.shared();
        let weight = self.weight(&body);
        let mut state = shared.lock();
        if state.peer.is_none() {
            if !state.wanted {
                state.wanted = true;
                self.rouse(&mut state);
            }
            return false;
        }
        let Ok(permit) = shared.room.try_acquire_many(weight) else {
            return false;
        };
        permit.forget();
        state.queue.push_back(Outgoing {
            what: What::Mail,
            channel,
            body,
            weight,
            judged: false,
        });
        state.wake();
        true
    }
}
