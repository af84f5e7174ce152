//! One accepted connection after its hellos: a single task reads, dispatches and writes.

use super::budget::{CALL_BYTES, REPLY_BYTES, Share};
use super::drain::Drain;
use super::frame::{Frame, FrameError, Head, Kind};
use super::inject::{self, Passing, Verdict};
use super::wire::{Wire, WireError};
use super::{BoxFuture, Hello, Limits, Service};
use crate::clock::{Duration, Instant, now};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::task::AbortHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tracing::error;

/// Frames that a connection takes in before others have their turn; each 16 KiB of a long one count
/// as one more.
const TURN: usize = 256;

/// Ticks per `idle_limit`.
pub(super) const TICKS: u32 = 4;

/// Ticks without a sign of life after which a server drops a connection.
const SILENT_TICKS: u32 = 20 * TICKS;

/// A timer that ticks `TICKS` times per `idle_limit`; missed ticks collapse into one, so that a
/// process that stood still does not take its peers for dead.
pub(super) fn ticker(idle_limit: Duration) -> Interval {
    let mut ticker = interval((idle_limit / TICKS).max(Duration::from_millis(1)));
    ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticker
}

/// Where request tasks lay their replies.
#[derive(Default)]
struct Desk(Mutex<DeskState>);

#[derive(Default)]
struct DeskState {
    finished: Vec<Finished>,
    waker: Option<Waker>,
}

struct Finished {
    /// Of the request, in order of arrival.
    serial: u64,
    /// `None`: the task ended without one, by a panic.
    reply: Option<Reply>,
}

struct Reply {
    channel: u8,
    id: u64,
    body: Bytes,
    judged: bool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, DeskState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lay(&self, finished: Finished) {
        let mut state = self.lock();
        state.finished.push(finished);
        let waker = state.waker.take();
        drop(state);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Reports a request as ended even when its task panics.
struct Ending {
    desk: Arc<Desk>,
    finished: Option<Finished>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(finished) = self.finished.take() {
            self.desk.lay(finished);
        }
    }
}

struct Running {
    task: AbortHandle,
    expires: Instant,
    bytes: usize,
}

pub(super) struct Serving {
    wire: Wire,
    service: Arc<dyn Service>,
    limits: Limits,
    peer: Hello,
    own: Hello,
    /// What it may hold.
    share: Share,
    /// It waits for room to read or to serve more.
    starved: bool,
    /// What is left of its turn.
    turn: usize,
    desk: Arc<Desk>,
    /// Spare vector that takes turns with the desk's.
    scratch: Vec<Finished>,
    running: BTreeMap<u64, Running>,
    running_bytes: usize,
    serial: u64,
    replies: VecDeque<Reply>,
    reply_bytes: usize,
    ticker: Interval,
    silent_ticks: u32,
    drain: Drain,
    asked: bool,
}

impl Drop for Serving {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.task.abort();
        }
    }
}

impl Serving {
    pub(super) fn new(
        wire: Wire,
        service: Arc<dyn Service>,
        limits: Limits,
        peer: Hello,
        own: Hello,
        share: Share,
    ) -> Self {
        let ticker = ticker(limits.idle_limit);
        let mut wire = wire;
        // What is read ahead fits into its own part, whoever holds the rest.
        wire.set_chunk(share.granted());
        Serving {
            wire,
            service,
            limits,
            peer,
            own,
            share,
            starved: false,
            turn: TURN,
            desk: Arc::default(),
            scratch: Vec::new(),
            running: BTreeMap::new(),
            running_bytes: 0,
            serial: 0,
            replies: VecDeque::new(),
            reply_bytes: 0,
            ticker,
            silent_ticks: 0,
            drain: Drain::default(),
            asked: false,
        }
    }

    /// Serves until the connection ends; says why it did.
    pub(super) async fn run(mut self) -> WireError {
        match poll_fn(|cx| self.poll(cx)).await {
            Ok(never) => match never {},
            Err(e) => e,
        }
    }

    /// Whether a limit forbids to take another request.
    fn is_full(&self) -> bool {
        self.running.len() >= self.limits.max_calls
            || self.running_bytes >= self.limits.max_call_bytes
            || self.reply_bytes >= self.limits.send_queue
    }

    /// Bytes of memory that this connection takes.
    fn held(&self) -> usize {
        self.wire.held()
            + self.running_bytes
            + self.running.len() * CALL_BYTES
            + self.reply_bytes
            + self.replies.len() * REPLY_BYTES
    }

    /// Whether the next frame may be taken out of the buffer: it may become a request being served.
    fn has_room(&mut self, cx: &mut Context<'_>) -> bool {
        if self.is_full() || self.turn == 0 {
            return false;
        }
        // The frame itself has been given room; a connection that does nothing else can always serve.
        if self.running.is_empty() && self.replies.is_empty() {
            return true;
        }
        let held = self.held();
        // Where there is room the queue is left alone: a long frame may wait in it.
        let room = self.share.has(held + CALL_BYTES) || self.share.poll_room(held, CALL_BYTES, cx);
        self.starved = !room;
        room
    }

    /// Reads once, if there is room for what that takes.
    fn fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        let (held, wanted) = (self.held(), self.wire.wanted());
        self.starved = !self.share.poll_room(held, wanted, cx);
        match self.starved {
            true => Poll::Pending,
            false => self.wire.poll_fill(cx),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::convert::Infallible, WireError>> {
        self.turn = TURN;
        loop {
            let mut again = self.read(cx)?;
            let (full, held) = (self.is_full(), self.held());
            self.collect(cx);
            self.write(cx)?;
            again |= full && !self.is_full();
            again |= self.starved && self.held() < held;
            let held = self.held();
            self.share.keep(held);
            while self.ticker.poll_tick(cx).is_ready() {
                self.tick()?;
                again = true;
            }
            if self.turn == 0 {
                // There may be more at once, but others are before it.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if !again {
                return Poll::Pending;
            }
        }
    }

    /// Reads and dispatches; true when there may be more to read at once.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, WireError> {
        let at = now();
        while self.has_room(cx) {
            match self.wire.next_frame()? {
                Some(frame) => self.dispatch(frame, at)?,
                None => match self.fill(cx) {
                    Poll::Ready(filled) => {
                        filled?;
                        self.asked = true;
                        // What was read is served and answered before more is read.
                        while self.has_room(cx)
                            && let Some(frame) = self.wire.next_frame()?
                        {
                            self.dispatch(frame, at)?;
                        }
                        return Ok(true);
                    }
                    Poll::Pending => return Ok(false),
                },
            }
        }
        Ok(false)
    }

    fn dispatch(&mut self, frame: Frame, at: Instant) -> Result<(), WireError> {
        let Frame { head, body } = frame;
        self.turn = self.turn.saturating_sub(1 + body.len() / (16 << 10));
        match head.kind {
            Kind::Mail => self.service.mail(&self.peer, head.channel, body),
            Kind::Request => self.request(head, body, at),
            Kind::Ping => self.wire.put_sign(Kind::Pong),
            found => {
                let expected = "a request, mail or a ping";
                return Err(FrameError::Unexpected { expected, found }.into());
            }
        }
        Ok(())
    }

    fn request(&mut self, head: Head, body: Bytes, at: Instant) {
        let deadline = Duration::from_millis(head.deadline_ms.into());
        let bytes = body.len();
        let mut future = self.service.call(&self.peer, head.channel, deadline, body);
        // Polled once here: requests reach the service in the order they came, and one that is
        // answered at once needs no task. The task's own first poll registers a real waker.
        let mut context = Context::from_waker(Waker::noop());
        let reply = |body| Reply {
            channel: head.channel,
            id: head.id,
            body,
            judged: false,
        };
        if let Poll::Ready(body) = future.as_mut().poll(&mut context) {
            self.enqueue(reply(body));
            return;
        }
        self.serial += 1;
        let task = tokio::spawn(serve_one(future, self.serial, head, self.desk.clone()));
        let running = Running {
            task: task.abort_handle(),
            expires: at + deadline,
            bytes,
        };
        self.running_bytes += bytes;
        self.running.insert(self.serial, running);
    }

    /// Takes the finished replies off the desk, and asks to be woken for the next.
    fn collect(&mut self, cx: &mut Context<'_>) {
        let mut finished = std::mem::take(&mut self.scratch);
        {
            let mut desk = self.desk.lock();
            std::mem::swap(&mut desk.finished, &mut finished);
            if !desk.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                desk.waker = Some(cx.waker().clone());
            }
        }
        for Finished { serial, reply } in finished.drain(..) {
            if let Some(running) = self.running.remove(&serial) {
                self.running_bytes -= running.bytes;
            }
            if let Some(reply) = reply {
                self.enqueue(reply);
            }
        }
        self.scratch = finished;
    }

    fn enqueue(&mut self, reply: Reply) {
        if reply.body.len() > self.limits.max_frame {
            let (size, limit) = (reply.body.len(), self.limits.max_frame);
            error!("reply of {size} bytes dropped: the limit of a frame is {limit}");
            return;
        }
        self.reply_bytes += reply.body.len();
        self.replies.push_back(reply);
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), WireError> {
        loop {
            while self.wire.has_room()
                && let Some(reply) = self.replies.pop_front()
            {
                self.reply_bytes -= reply.body.len();
                self.put(reply)?;
            }
            match self.wire.poll_write(cx)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) if self.replies.is_empty() => {
                    return match self.wire.poll_flush(cx) {
                        Poll::Ready(result) => Ok(result?),
                        Poll::Pending => Ok(()),
                    };
                }
                Poll::Ready(()) => {}
            }
        }
    }

    fn put(&mut self, reply: Reply) -> Result<(), WireError> {
        let head = Head {
            kind: Kind::Reply,
            channel: reply.channel,
            id: reply.id,
            deadline_ms: 0,
        };
        let verdict = match reply.judged {
            true => Verdict::Pass,
            false => inject::judge(&Passing {
                from: &self.own,
                to: &self.peer,
                channel: reply.channel,
                kind: Kind::Reply,
                size: reply.body.len(),
            }),
        };
        match verdict {
            Verdict::Pass => self.wire.put(head, reply.body),
            Verdict::Drop => {}
            Verdict::Duplicate => {
                self.wire.put(head, reply.body.clone());
                self.reply_bytes += reply.body.len();
                self.replies.push_front(Reply {
                    judged: true,
                    ..reply
                });
            }
            Verdict::Delay(time) => {
                let desk = self.desk.clone();
                let reply = Reply {
                    judged: true,
                    ..reply
                };
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    // Serial 0 is no request's.
                    desk.lay(Finished {
                        serial: 0,
                        reply: Some(reply),
                    });
                });
            }
            Verdict::Reset => return Err(WireError::Reset),
            Verdict::Flip(bit) => self.wire.put_flipped(head, &reply.body, bit),
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), WireError> {
        // A request past its deadline is of no use to anybody, and its place is.
        let at = now();
        let freed = &mut self.running_bytes;
        self.running.retain(|_, running| {
            let keep = at <= running.expires;
            if !keep {
                *freed -= running.bytes;
                running.task.abort();
            }
            keep
        });
        let full = self.is_full() || self.starved;
        self.check_pace(at, full)?;
        let (heard, took) = self.wire.take_signs();
        if !heard && !took {
            self.wire.rest();
        }
        // A peer that is not read for want of room is excused; one that does not take what was made
        // for it is not, however much it says: it would keep its place, and all of that, for ever.
        let alive = match self.wire.is_blocked() {
            true => took,
            false => heard || took || full,
        };
        if alive {
            self.silent_ticks = 0;
        } else {
            self.silent_ticks += 1;
            if self.silent_ticks >= SILENT_TICKS {
                return Err(WireError::Silent(
                    self.limits.idle_limit * (SILENT_TICKS / TICKS),
                ));
            }
        }
        let spoke = std::mem::take(&mut self.wire.spoke);
        if !spoke && !self.wire.is_blocked() && (full || std::mem::take(&mut self.asked)) {
            self.wire.put_sign(Kind::Pong);
            self.wire.spoke = false;
        }
        Ok(())
    }

    /// Ends a connection that has room for a frame and does not fill it, or leaves its replies: others
    /// need what it holds.
    fn check_pace(&mut self, at: Instant, full: bool) -> Result<(), WireError> {
        let wanted = self.share.is_wanted();
        let hurry = if wanted { 10 } else { 1 };
        if full {
            self.wire.excuse(at);
        }
        let limit = self.limits.frame_timeout / hurry;
        if let Some(since) = self.wire.half_since()
            && at.saturating_duration_since(since) > limit
        {
            return Err(WireError::Slow("a frame was not whole", limit));
        }
        let patience = match wanted || self.held() > self.share.granted() {
            true => SILENT_TICKS / 4,
            false => SILENT_TICKS,
        };
        let (taken, emptied) = self.wire.take_taken();
        if !self.drain.tick(taken, emptied, patience) {
            let time = self.limits.idle_limit * patience / TICKS;
            return Err(WireError::Slow("almost no reply was taken", time));
        }
        Ok(())
    }
}

async fn serve_one(future: BoxFuture<Bytes>, serial: u64, head: Head, desk: Arc<Desk>) {
    let mut ending = Ending {
        desk,
        finished: Some(Finished {
            serial,
            reply: None,
        }),
    };
    let body = future.await;
    let reply = Reply {
        channel: head.channel,
        id: head.id,
        body,
        judged: false,
    };
    ending.finished = Some(Finished {
        serial,
        reply: Some(reply),
    });
}
