//! Accepting connections, and the hello of each.

use super::budget::Budget;
use super::frame::{FrameError, Head, Kind};
use super::hello::{Hello, MAX_HELLO, PROTOCOL, common_protocol};
use super::places::{Entry, Guest, Open, Seat};
use super::serving::Serving;
use super::wire::{Wire, WireError};
use super::{Limits, Service};
use crate::again::Again;
use crate::clock::{Duration, Instant, now, sleep, timeout};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::yield_now;
use tracing::{debug, warn};

/// After a failed accept (say, out of file descriptors) this long passes before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// At most one warning per server and this time: garbage on the port cannot fill a disk.
const WARN_EVERY: Duration = Duration::from_secs(1);

/// Refusals that are remembered, so that each is said at growing distances.
const REFUSED: usize = 64;

/// A listening server.
pub struct Server {
    listener: TcpListener,
    addr: SocketAddr,
    limits: Limits,
}

impl Server {
    /// Binds. The error names the address.
    pub async fn bind(addr: &str, limits: Limits) -> io::Result<Server> {
        let name = |e: io::Error| io::Error::new(e.kind(), format!("cannot listen on {addr}: {e}"));
        let listener = TcpListener::bind(addr).await.map_err(name)?;
        let addr = listener.local_addr().map_err(name)?;
        Ok(Server {
            listener,
            addr,
            limits,
        })
    }

    /// The bound address.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until the future is dropped; then closes all connections.
    pub async fn serve(self, service: Arc<dyn Service>) {
        let house = Arc::new(House {
            service,
            budget: Budget::new(&self.limits),
            limits: self.limits,
            quiet: Mutex::new(Quiet {
                last: None,
                suppressed: 0,
                refused: BTreeMap::new(),
            }),
        });
        let open = Open::default();
        let mut number = 0u64;
        loop {
            let (stream, peer) = match self.listener.accept().await {
                Ok(accepted) => accepted,
                Err(e) => {
                    house.warn(|| format!("{}: cannot accept: {e}", self.addr));
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            number += 1;
            let start =
                |seat| tokio::spawn(connection(stream, peer, house.clone(), seat)).abort_handle();
            match open.0.take(number, &house.limits, start) {
                Entry::Free => {}
                Entry::Freed => {
                    house.warn(|| format!("{peer}: has the place of one that said no hello"));
                    // The other's socket is closed when its task has run.
                    yield_now().await;
                }
                Entry::None => house.warn(|| format!("{peer}: closed: all connections are taken")),
            }
        }
    }
}

/// What the connections of a server share.
struct House {
    service: Arc<dyn Service>,
    limits: Limits,
    budget: Budget,
    quiet: Mutex<Quiet>,
}

struct Quiet {
    last: Option<Instant>,
    suppressed: u64,
    /// Who was refused for what, and when that is said again.
    refused: BTreeMap<(IpAddr, String), Again>,
}

impl House {
    /// Whoever is refused comes back every second, for the same reason.
    fn refused(&self, addr: SocketAddr, reason: String) {
        let due = {
            let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (addr.ip(), reason.clone());
            if quiet.refused.len() >= REFUSED && !quiet.refused.contains_key(&key) {
                quiet.refused.clear();
            }
            quiet.refused.entry(key).or_default().is_due(now())
        };
        if due {
            self.warn(|| format!("{addr}: refused: {reason}"));
        }
    }

    fn warn(&self, text: impl FnOnce() -> String) {
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now();
        if quiet
            .last
            .is_some_and(|last| at.duration_since(last) < WARN_EVERY)
        {
            quiet.suppressed += 1;
            return;
        }
        quiet.last = Some(at);
        match std::mem::take(&mut quiet.suppressed) {
            0 => warn!("{}", text()),
            n => warn!("{} ({n} warnings like this were not logged)", text()),
        }
    }
}

async fn connection(stream: TcpStream, addr: SocketAddr, house: Arc<House>, seat: Seat) {
    let ended = match timeout(house.limits.hello_timeout, greet(stream, &house, &seat)).await {
        Ok(Ok((wire, peer, own))) => {
            debug!("{addr}: connected: {peer:?}");
            let limits = house.limits.clone();
            let share = house.budget.share(Guest::of(&peer, &own));
            Serving::new(wire, house.service.clone(), limits, peer, own, share)
                .run()
                .await
        }
        Ok(Err(Greeting::Wire(e))) => e,
        Ok(Err(Greeting::Refused(reason))) => {
            house.refused(addr, reason);
            return;
        }
        Err(_) => {
            house.warn(|| {
                format!(
                    "{addr}: closed: no hello for {:?}",
                    house.limits.hello_timeout
                )
            });
            return;
        }
    };
    match ended {
        WireError::Frame(e) => house.warn(|| format!("{addr}: closed: {e}")),
        e => debug!("{addr}: ended: {e}"),
    }
    drop(seat);
}

enum Greeting {
    Wire(WireError),
    Refused(String),
}

impl<E: Into<WireError>> From<E> for Greeting {
    fn from(e: E) -> Self {
        Greeting::Wire(e.into())
    }
}

/// Hears the peer's hello and answers it.
async fn greet(
    stream: TcpStream,
    house: &House,
    seat: &Seat,
) -> Result<(Wire, Hello, Hello), Greeting> {
    // Frames are gathered into large writes already; waiting for more only adds latency.
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream, MAX_HELLO);
    let frame = wire.receive().await?;
    if frame.head.kind != Kind::Hello {
        Err(FrameError::Unexpected {
            expected: "a hello",
            found: frame.head.kind,
        })?;
    }
    let peer = Hello::from_bytes(&frame.body)?;
    let judged = common_protocol(PROTOCOL, peer.protocol)
        .and_then(|_| house.service.welcome(&peer))
        .and_then(
            |own| match seat.keep(Guest::of(&peer, &own), &house.limits) {
                true => Ok(own),
                false => Err(format!(
                    "all {} connections for clients are taken",
                    house.limits.max_connections
                )),
            },
        );
    match judged {
        Ok(own) => {
            wire.send(Head::plain(Kind::Hello, 0), own.to_bytes())
                .await?;
            wire.set_max_frame(house.limits.max_frame);
            Ok((wire, peer, own))
        }
        Err(mut reason) => {
            while reason.len() > MAX_HELLO {
                reason.pop();
            }
            wire.send(Head::plain(Kind::Refused, 0), Bytes::from(reason.clone()))
                .await?;
            Err(Greeting::Refused(reason))
        }
    }
}
