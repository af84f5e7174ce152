//! The task of one shard: carries out what its stream asks for. It ends with its client.

use super::answer::{Answer, Trouble};
use super::router::{Route, Router, encode};
use super::stream::{Attempt, Sending, Step, Stream};
use super::ticket::Held;
use crate::api::{Op, Request};
use ctrler::config::ShardId;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use raft::session::Seq;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use world::clock::{Instant, now};
use world::net::BoxFuture;

/// Writes handed over but not yet taken by the stream; beyond, callers wait.
pub const INBOX: usize = 256;
/// A session idle for so long is replaced before the next write: the server may have dropped it
/// (it may after an hour, under pressure after a minute), and the outcome of a write that meets a
/// dropped session is unknown.
const SESSION_IDLE: Duration = Duration::from_secs(50);

/// What the task is told.
pub enum Message {
    /// A write.
    Write(Vec<Op>, Held),
    /// Close the session, if it is open and nothing is under way; then answer.
    Close(oneshot::Sender<()>),
}

/// Why a stream does not get on, for its callers' errors.
pub type LastTrouble = Arc<Mutex<Troubles>>;

/// What came in the way since the stream last got on.
#[derive(Clone, Default)]
pub struct Troubles {
    /// The newest.
    last: Option<String>,
    /// The newest of those after which an attempt may have had an effect.
    doubt: Option<String>,
}

impl Troubles {
    /// Why a write has had no effect.
    pub fn unavailable(self) -> Option<String> {
        self.last
    }

    /// Why it is not known whether a write has had an effect, and what came after that.
    pub fn unknown(self, unanswered: String) -> String {
        match (self.doubt, self.last) {
            (Some(doubt), Some(last)) if doubt != last => format!("{doubt}; afterwards {last}"),
            (Some(doubt), _) => doubt,
            (None, Some(last)) => format!("{unanswered}; the last attempt: {last}"),
            (None, None) => unanswered,
        }
    }
}

enum Call {
    Open(u64),
    Write(Attempt),
    Close(oneshot::Sender<()>),
}

type Answered = (Call, Route, Answer);

struct Task {
    shard: ShardId,
    router: Arc<Router>,
    stream: Stream<Held>,
    calls: FuturesUnordered<BoxFuture<Answered>>,
    /// While the stream is halted: ends when it may go on.
    pause: Option<BoxFuture<()>>,
    trouble: LastTrouble,
    used: Instant,
}

/// Runs the stream of a shard until every sender of `inbox` is dropped.
pub async fn run(
    shard: ShardId,
    router: Arc<Router>,
    mut inbox: mpsc::Receiver<Message>,
    trouble: LastTrouble,
) {
    let mut task = Task {
        shard,
        router,
        stream: Stream::default(),
        calls: FuturesUnordered::new(),
        pause: None,
        trouble,
        used: now(),
    };
    loop {
        task.drive();
        let paused = task.pause.is_some();
        tokio::select! {
            biased;
            answered = task.calls.next(), if !task.calls.is_empty() => {
                if let Some(answered) = answered {
                    task.answered(answered);
                }
                // Everything that is ready is taken before anything is sent: one wake-up, one
                // batch.
                while let Some(Some(answered)) = ready(task.calls.next()).await {
                    task.answered(answered);
                }
            }
            _ = async { if let Some(pause) = &mut task.pause { pause.await } }, if paused => {
                task.pause = None;
                task.stream.resume();
            }
            message = inbox.recv(), if task.stream.room() => {
                let Some(message) = message else { return };
                task.message(message);
                while task.stream.room() && let Ok(message) = inbox.try_recv() {
                    task.message(message);
                }
            }
        }
    }
}

/// The future's output if it is ready now.
async fn ready<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

impl Task {
    fn message(&mut self, message: Message) {
        match message {
            Message::Write(ops, ticket) => {
                if self.stream.at_rest()
                    && self.stream.session().is_some()
                    && self.used.elapsed() > SESSION_IDLE
                {
                    self.stream.expire("the session was idle for long");
                }
                self.used = now();
                self.stream.submit(ops, ticket);
            }
            Message::Close(done) => self.close(done),
        }
    }

    /// Sends what the stream wants sent.
    fn drive(&mut self) {
        loop {
            match self.stream.step() {
                Step::Idle => return,
                Step::Open => {
                    let request = Request::Open { shard: self.shard };
                    let epoch = self.stream.epoch();
                    if let Some(route) = self.route() {
                        self.call(Call::Open(epoch), route, &request);
                    }
                }
                Step::Send(writes) => {
                    let Some(route) = self.route() else {
                        // Nothing left: every attempt is known to have had no effect.
                        for Sending { attempt, .. } in writes {
                            self.stream
                                .answer(attempt, Answer::Trouble(Trouble::NoConfig));
                        }
                        continue;
                    };
                    for Sending {
                        attempt,
                        acked,
                        ops,
                    } in writes
                    {
                        let request = Request::Write {
                            shard: self.shard,
                            seq: Seq {
                                session: attempt.session,
                                seq: attempt.seq,
                                acked,
                            },
                            ops: ops.to_vec(),
                        };
                        self.call(Call::Write(attempt), route.clone(), &request);
                    }
                }
            }
        }
    }

    fn route(&mut self) -> Option<Route> {
        match self.router.route(self.shard) {
            Ok(route) => Some(route),
            Err(trouble) => {
                self.stream.halt();
                self.pause(None, trouble);
                None
            }
        }
    }

    /// Queues a call. Calls are first polled in the order in which they are queued, so they
    /// enter the connection in order.
    fn call(&mut self, call: Call, route: Route, request: &Request) {
        let body = encode(request);
        let router = self.router.clone();
        let failures = self.stream.failures();
        self.calls.push(Box::pin(async move {
            let answer = Answer::of(router.call(&route, body, failures).await);
            (call, route, answer)
        }));
    }

    fn answered(&mut self, (call, route, answer): Answered) {
        let trouble = match call {
            Call::Write(attempt) => self.stream.answer(attempt, answer),
            Call::Open(epoch) => self.stream.opened(epoch, answer),
            Call::Close(done) => {
                let _ = done.send(());
                return;
            }
        };
        match trouble {
            Some(trouble) => self.pause(Some(route), trouble),
            None if self.stream.failures() == 0 => {
                *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Troubles::default();
            }
            None => {}
        }
    }

    /// The stream is halted: find out where to go on, and when.
    fn pause(&mut self, at: Option<Route>, trouble: Trouble) {
        let said = match &at {
            Some(at) => format!("group {} at {}: {trouble}", at.group, at.link.target()),
            None => trouble.to_string(),
        };
        let mut troubles = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if !trouble.harmless() {
            troubles.doubt = Some(said.clone());
        }
        troubles.last = Some(said);
        drop(troubles);
        let (shard, router, failures) = (self.shard, self.router.clone(), self.stream.failures());
        self.pause = Some(Box::pin(async move {
            router.recover(shard, at.as_ref(), &trouble, failures).await;
        }));
    }

    fn close(&mut self, done: oneshot::Sender<()>) {
        // Dropping `done` tells as much as an answer.
        if !self.stream.at_rest() {
            return;
        }
        let Some(session) = self.stream.session() else {
            return;
        };
        self.stream.expire("the client is closing");
        if let Ok(route) = self.router.route(self.shard) {
            let request = Request::Close {
                shard: self.shard,
                session,
            };
            self.call(Call::Close(done), route, &request);
        }
    }
}
