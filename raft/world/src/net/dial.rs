//! The background task of a link: connect, drive the connection, connect again.

use super::CallError;
use super::frame::{Frame, FrameError, Head, Kind};
use super::hello::{Hello, MAX_HELLO, common_protocol};
use super::inject::{self, Passing, Verdict};
use super::link::{Outgoing, Shared, State, What};
use super::serving::{TICKS, ticker};
use super::wire::{Wire, WireError};
use crate::clock::{Duration, Instant, now, sleep_until, timeout};
use bytes::Bytes;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::Ipv4Addr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::TcpStream;
use tokio::time::{Interval, Sleep};
use tracing::{debug, info};

/// Time between a failed attempt to connect and the next: from the first, doubling, to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// The most of it while a call waits.
const CALL_BACKOFF: Duration = Duration::from_millis(100);

/// The most of it on a link that is kept: a good deal less than an election takes.
const KEPT_BACKOFF: Duration = Duration::from_millis(250);

/// A connection that stood this long was a success: the next attempt is made at once.
const STOOD: Duration = Duration::from_secs(1);

/// Ticks without a sign of life, while one is expected, after which to ping; and to give up.
const PING_TICKS: u32 = TICKS / 2;
const DEAD_TICKS: u32 = TICKS;

/// Ticks of idleness after which to ping; the second where the link is kept: that its connection is
/// dead is to be known before it is needed.
const IDLE_TICKS: (u32, u32) = (5 * TICKS, TICKS);

/// Why there is no connection.
enum Failure {
    NotConnected(String),
    Refused(String),
}

impl From<WireError> for Failure {
    fn from(e: WireError) -> Self {
        Failure::NotConnected(e.to_string())
    }
}

/// Connects when there is something to send, or always when the link is kept, until the link is no longer used.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut backoff = BACKOFF.0;
    let mut ended: Option<Instant> = None;
    while wait(&shared, ended, backoff).await {
        let mut stood = Duration::ZERO;
        let mut attempt = std::pin::pin!(timeout(shared.limits.connect_timeout, connect(&shared)));
        let connected = tokio::select! {
            biased;
            connected = &mut attempt => connected,
            () = unused(&shared) => break,
        };
        let late = || format!("no connection within {:?}", shared.limits.connect_timeout);
        let connected = connected.unwrap_or_else(|_| Err(Failure::NotConnected(late())));
        let target = &shared.target;
        match connected {
            Ok((wire, own, peer)) => {
                debug!("{target}: connected: {peer:?}");
                let began = now();
                let why = Driving::new(shared.clone(), wire, own, peer).run().await;
                stood = now().duration_since(began);
                shared.fail_all(&shared.not_sent(&why), &shared.no_answer(&why));
                match why {
                    WireError::Unused => break,
                    why => info!("{target}: connection lost: {why}"),
                }
            }
            Err(Failure::NotConnected(reason)) => {
                debug!("{target}: cannot connect: {reason}");
                let error = shared.not_sent(reason);
                shared.fail_all(&error, &error);
            }
            Err(Failure::Refused(reason)) => {
                // Worth a line: two clusters, or two versions, are mixed up.
                info!("{target}: refused: {reason}");
                let error = CallError::Refused {
                    target: target.clone(),
                    reason,
                };
                shared.fail_all(&error, &error);
            }
        }
        if stood >= STOOD {
            (ended, backoff) = (None, BACKOFF.0);
        } else {
            backoff = if ended.is_some() {
                (backoff * 2).min(BACKOFF.1)
            } else {
                BACKOFF.0
            };
            ended = Some(now());
        }
    }
    let error = shared.not_sent("the link is no longer used");
    shared.fail_all(&error, &error);
}

/// Waits until a connection is wanted and the backoff since `ended` is over. False when the link
/// is no longer used.
async fn wait(shared: &Shared, ended: Option<Instant>, backoff: Duration) -> bool {
    let mut timer: Option<(Instant, Pin<Box<Sleep>>)> = None;
    poll_fn(|cx| {
        let mut state = shared.lock();
        register(&mut state, cx);
        if state.unused {
            return Poll::Ready(false);
        }
        let pause = if !state.calls.is_empty() {
            backoff.min(CALL_BACKOFF)
        } else if state.kept {
            backoff.min(KEPT_BACKOFF)
        } else if state.wanted {
            backoff
        } else {
            return Poll::Pending;
        };
        drop(state);
        let not_before = match ended {
            Some(ended) if now() < ended + pause => ended + pause,
            _ => return Poll::Ready(true),
        };
        // A call that arrives meanwhile shortens the wait.
        let (_, timer) = match &mut timer {
            Some(timer) if timer.0 == not_before => timer,
            _ => timer.insert((not_before, Box::pin(sleep_until(not_before)))),
        };
        timer.as_mut().poll(cx).map(|()| true)
    })
    .await
}

fn register(state: &mut State, cx: &Context<'_>) {
    if !state
        .waker
        .as_ref()
        .is_some_and(|w| w.will_wake(cx.waker()))
    {
        state.waker = Some(cx.waker().clone());
    }
}

/// Ready when the link is no longer used.
async fn unused(shared: &Shared) {
    poll_fn(|cx| {
        let mut state = shared.lock();
        register(&mut state, cx);
        if state.unused {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
}

/// Where a name below "localhost" leads that no server of names need know.
fn this_machine(target: &str) -> Option<(Ipv4Addr, u16)> {
    let (name, port) = target.rsplit_once(':')?;
    let below = name.to_ascii_lowercase().ends_with(".localhost");
    let port = port.parse().ok()?;
    below.then_some((Ipv4Addr::LOCALHOST, port))
}

/// Resolves the name, connects, exchanges hellos.
async fn connect(shared: &Shared) -> Result<(Wire, Hello, Hello), Failure> {
    let io = |e: std::io::Error| Failure::from(WireError::from(e));
    let target = shared.target.as_str();
    let stream = match (TcpStream::connect(target).await, this_machine(target)) {
        // Whoever knows the name has said where it is; to others it is this machine (RFC 6761).
        (Err(_), Some(here)) => TcpStream::connect(here).await,
        (connected, _) => connected,
    };
    let stream = stream.map_err(io)?;
    let addresses = (stream.local_addr().ok(), stream.peer_addr().ok());
    stream.set_nodelay(true).map_err(io)?;
    let own = (shared.hello)();
    let mut wire = Wire::new(stream, MAX_HELLO);
    wire.send(Head::plain(Kind::Hello, 0), own.to_bytes())
        .await?;
    let Frame { head, body } = wire.receive().await?;
    match head.kind {
        Kind::Hello => {}
        Kind::Refused => {
            return Err(Failure::Refused(
                String::from_utf8_lossy(&body).into_owned(),
            ));
        }
        found => {
            let expected = "a hello or a refusal";
            return Err(WireError::from(FrameError::Unexpected { expected, found }).into());
        }
    }
    let peer = Hello::from_bytes(&body).map_err(WireError::from)?;
    // A connection to a local port of the ephemeral range where nobody listens may find itself.
    if peer == own && addresses.0 == addresses.1 {
        return Err(Failure::NotConnected(
            "connected to itself: nobody listens".into(),
        ));
    }
    common_protocol(own.protocol, peer.protocol).map_err(Failure::Refused)?;
    (shared.check)(&peer).map_err(Failure::Refused)?;
    wire.set_max_frame(shared.limits.max_frame);
    Ok((wire, own, peer))
}

/// An established connection.
struct Driving {
    shared: Arc<Shared>,
    wire: Wire,
    own: Hello,
    peer: Arc<Hello>,
    connection: u64,
    replies: Vec<(u64, Bytes)>,
    ticker: Interval,
    /// Since the last sign of life: ticks in which none was due, and in which one was.
    idle_ticks: u32,
    silent_ticks: u32,
}

impl Driving {
    fn new(shared: Arc<Shared>, wire: Wire, own: Hello, peer: Hello) -> Driving {
        let peer = Arc::new(peer);
        let connection = {
            let mut state = shared.lock();
            state.peer = Some(peer.clone());
            state.wanted = false;
            state.connection += 1;
            state.connection
        };
        let ticker = ticker(shared.limits.idle_limit);
        Driving {
            shared,
            wire,
            own,
            peer,
            connection,
            replies: Vec::new(),
            ticker,
            idle_ticks: 0,
            silent_ticks: 0,
        }
    }

    /// Drives the connection until it ends; says why it did.
    async fn run(mut self) -> WireError {
        match poll_fn(|cx| self.poll(cx)).await {
            Ok(never) => match never {},
            Err(e) => e,
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Infallible, WireError>> {
        loop {
            let mut again = self.read(cx)?;
            self.write(cx)?;
            // After reading: signs of life that are already here count.
            while self.ticker.poll_tick(cx).is_ready() {
                self.tick()?;
                again = true;
            }
            if !again {
                return Poll::Pending;
            }
        }
    }

    /// Reads once and hands out replies; true when there may be more to read at once.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, WireError> {
        let filled = self.wire.poll_fill(cx);
        while let Some(Frame { head, body }) = self.wire.next_frame()? {
            match head.kind {
                Kind::Reply => self.replies.push((head.id, body)),
                Kind::Pong => {}
                found => {
                    let expected = "a reply or a pong";
                    return Err(FrameError::Unexpected { expected, found }.into());
                }
            }
        }
        if !self.replies.is_empty() {
            let mut state = self.shared.lock();
            // A reply to a call nobody waits for any more is dropped.
            let answers: Vec<_> = self
                .replies
                .drain(..)
                .filter_map(|(id, body)| Some((state.calls.remove(&id)?.answer, body)))
                .collect();
            drop(state);
            for (answer, body) in answers {
                let _ = answer.send(Ok(body));
            }
        }
        match filled {
            Poll::Ready(filled) => {
                // Only what is said from here on can still be unanswered.
                self.wire.spoke = false;
                filled.map(|()| true)
            }
            Poll::Pending => Ok(false),
        }
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), WireError> {
        loop {
            let emptied = self.gather(cx)?;
            match self.wire.poll_write(cx)? {
                Poll::Pending => return Ok(()),
                Poll::Ready(()) if emptied => {
                    return match self.wire.poll_flush(cx) {
                        Poll::Ready(result) => Ok(result?),
                        Poll::Pending => Ok(()),
                    };
                }
                Poll::Ready(()) => {}
            }
        }
    }

    /// Moves frames from the queue to the wire while it has room; true when the queue is empty.
    fn gather(&mut self, cx: &Context<'_>) -> Result<bool, WireError> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        if state.unused {
            return Err(WireError::Unused);
        }
        register(&mut state, cx);
        let at = now();
        let mut released = 0;
        let mut result = Ok(());
        while result.is_ok()
            && self.wire.has_room()
            && let Some(out) = state.queue.pop_front()
        {
            released += out.weight as usize;
            result = self.put(&mut state, out, at);
        }
        let emptied = state.queue.is_empty();
        drop(state);
        shared.release(released);
        result.map(|()| emptied)
    }

    fn put(&mut self, state: &mut State, out: Outgoing, at: Instant) -> Result<(), WireError> {
        let head = match out.what {
            What::Mail => Head::plain(Kind::Mail, out.channel),
            What::Call { id, deadline } => {
                let left = deadline.saturating_duration_since(at).as_millis();
                let Some(call) = state.calls.get_mut(&id) else {
                    return Ok(());
                };
                call.sent = true;
                let deadline_ms = left.clamp(1, u32::MAX.into()) as u32;
                Head {
                    kind: Kind::Request,
                    channel: out.channel,
                    id,
                    deadline_ms,
                }
            }
        };
        let verdict = match out.judged {
            true => Verdict::Pass,
            false => inject::judge(&Passing {
                from: &self.own,
                to: &self.peer,
                channel: out.channel,
                kind: head.kind,
                size: out.body.len(),
            }),
        };
        match verdict {
            Verdict::Pass => self.wire.put(head, out.body),
            Verdict::Drop => {}
            Verdict::Duplicate => {
                self.wire.put(head, out.body.clone());
                state.queue.push_front(Outgoing {
                    weight: 0,
                    judged: true,
                    ..out
                });
            }
            Verdict::Delay(time) => {
                let (shared, connection) = (self.shared.clone(), self.connection);
                let out = Outgoing {
                    weight: 0,
                    judged: true,
                    ..out
                };
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    let mut state = shared.lock();
                    if state.connection == connection && state.peer.is_some() {
                        state.queue.push_back(out);
                        state.wake();
                    }
                });
            }
            Verdict::Reset => return Err(WireError::Reset),
            Verdict::Flip(bit) => self.wire.put_flipped(head, &out.body, bit),
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), WireError> {
        let (heard, took) = self.wire.take_signs();
        if !heard && !took {
            self.wire.rest();
        }
        if heard || took {
            (self.idle_ticks, self.silent_ticks) = (0, 0);
            return Ok(());
        }
        let (asked, kept) = {
            let state = self.shared.lock();
            (!state.calls.is_empty(), state.kept)
        };
        if self.wire.spoke || asked {
            self.silent_ticks += 1;
            if self.silent_ticks > DEAD_TICKS {
                return Err(WireError::Silent(self.shared.limits.idle_limit));
            }
            if self.silent_ticks == PING_TICKS {
                self.wire.put_sign(Kind::Ping);
            }
        } else {
            self.idle_ticks += 1;
            let due = if kept { IDLE_TICKS.1 } else { IDLE_TICKS.0 };
            if self.idle_ticks >= due {
                self.wire.put_sign(Kind::Ping);
            }
        }
        Ok(())
    }
}
