//! Carries one request to whichever controller can serve it: tries them in turn, follows hints,
//! and keeps account of whether an attempt's fate is unknown.

use crate::api::{CHANNEL, Request, Response};
use crate::history::{decode, encode};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use world::net::{CallError, Hello, Limits, Link};

/// Longest wait for one server's answer before the next is asked.
const ATTEMPT: Duration = Duration::from_millis(1000);
/// Pause after a server could not serve; doubles with every fruitless round up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(200);
/// Links to addresses that only hints gave; beyond: those are dropped and made anew.
const MAX_HINTED: usize = 16;

/// A request that got no answer it can go by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// True when some attempt may have been served.
    pub in_doubt: bool,
    /// What the last servers said.
    pub reason: String,
}

/// Links to the controllers, and who led them last.
pub(crate) struct Courier {
    servers: Vec<String>,
    hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    links: BTreeMap<String, Link>,
    leader: Option<String>,
    /// Where the next round starts.
    turn: usize,
}

impl Courier {
    pub fn new(servers: Vec<String>, hello: Arc<dyn Fn() -> Hello + Send + Sync>) -> Courier {
        Courier {
            servers,
            hello,
            known: Mutex::default(),
        }
    }

    pub fn servers(&self) -> &[String] {
        &self.servers
    }

    /// Asks one server, once.
    pub async fn ask(
        &self,
        server: &str,
        body: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, CallError> {
        let link = self.link(server);
        link.call(CHANNEL, body, deadline).await
    }

    /// Asks until some server gives an answer other than "not I", "not now" or "I cannot say". That it
    /// does not know the request counts only where the caller can ask in an older form.
    pub async fn send(&self, request: &Request, deadline: Duration) -> Result<Response, Failure> {
        let until = world::clock::now() + deadline;
        let body: Bytes = encode(request).into();
        let mut failure = Failure {
            in_doubt: false,
            reason: "no time was left to ask".into(),
        };
        let mut fruitless = 0u32;
        if self.servers.is_empty() {
            failure.reason = "no controllers are given".into();
            return Err(failure);
        }
        loop {
            let left = until.saturating_duration_since(world::clock::now());
            if left.is_zero() {
                return Err(failure);
            }
            let server = self.next();
            let answer = self.ask(&server, body.clone(), left.min(ATTEMPT)).await;
            let mut hint = None;
            match answer.map(|reply| decode::<Response>(&reply)) {
                Ok(Some(Response::NotLeader(leader))) => {
                    failure.reason = format!("{server} does not lead");
                    hint = leader
                        .map(|(_, address)| address)
                        .filter(|address| *address != server);
                }
                Ok(Some(Response::Busy)) => {
                    failure.reason = format!("{server} is busy or not ready")
                }
                Ok(Some(Response::Unknown)) => {
                    failure = Failure {
                        in_doubt: true,
                        reason: format!("{server} could not say whether it was committed"),
                    };
                }
                Ok(Some(response @ Response::Malformed(_))) if request.has_older_form() => {
                    return Ok(response);
                }
                Ok(Some(Response::Malformed(reason))) => {
                    failure.reason = format!("{server} is of another version: {reason}");
                }
                Ok(Some(response)) => {
                    self.served_by(&server);
                    // An attempt of unknown fate before this one leaves no doubt behind: the
                    // answer is about the same number of the same session.
                    return match response {
                        Response::Refused(_) if failure.in_doubt => Err(Failure {
                            in_doubt: true,
                            reason: format!("{} and then refused: {response:?}", failure.reason),
                        }),
                        response => Ok(response),
                    };
                }
                Ok(None) => {
                    failure = Failure {
                        in_doubt: true,
                        reason: format!("{server} gave an answer that this version does not know"),
                    };
                }
                Err(error) => {
                    failure.in_doubt |= matches!(error, CallError::NoAnswer { .. });
                    let hopeless = matches!(error, CallError::TooLarge { .. });
                    failure.reason = error.to_string();
                    if hopeless {
                        return Err(failure);
                    }
                }
            }
            let hinted = hint.is_some();
            self.not_served_by(&server, hint);
            // A fresh hint is followed at once, but two servers that name each other are not
            // asked in a tight loop.
            fruitless += 1;
            if hinted && fruitless % 2 == 1 {
                continue;
            }
            let rounds = fruitless / self.servers.len() as u32;
            let pause = (MIN_PAUSE * (1 << rounds.min(8))).min(MAX_PAUSE);
            let left = until.saturating_duration_since(world::clock::now());
            world::clock::sleep(pause.min(left)).await;
        }
    }

    /// Whom to ask: the leader as far as known, or the next in turn.
    fn next(&self) -> String {
        let known = self.known();
        let turn = known.turn % self.servers.len();
        known
            .leader
            .clone()
            .unwrap_or_else(|| self.servers[turn].clone())
    }

    fn served_by(&self, server: &str) {
        self.known().leader = Some(server.to_string());
    }

    fn not_served_by(&self, server: &str, hint: Option<String>) {
        let mut known = self.known();
        // Another call may have learnt better meanwhile.
        if known
            .leader
            .as_deref()
            .is_none_or(|leader| leader == server)
            || hint.is_some()
        {
            known.leader = hint;
        }
        if let Some(place) = self.servers.iter().position(|s| s == server) {
            known.turn = place + 1;
        }
    }

    fn link(&self, server: &str) -> Link {
        let mut known = self.known();
        if let Some(link) = known.links.get(server) {
            return link.clone();
        }
        if known.links.len() >= self.servers.len() + MAX_HINTED {
            known
                .links
                .retain(|address, _| self.servers.contains(address));
        }
        let own = self.hello.clone();
        let check = move |peer: &Hello| judge(&own(), peer);
        let link = Link::new(
            server,
            Limits::default(),
            self.hello.clone(),
            Arc::new(check),
        );
        known.links.insert(server.to_string(), link.clone());
        link
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Nothing that holds the lock can leave it half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server must be a controller, and of our cluster if we know ours.
fn judge(own: &Hello, peer: &Hello) -> Result<(), String> {
    if peer.group != Some(0) {
        return Err(match peer.group {
            Some(group) => format!("this is a server of group {group}, expected a controller"),
            None => "this is a client, expected a controller".into(),
        });
    }
    match (own.cluster, peer.cluster) {
        (Some(own), Some(peer)) if own != peer => Err(format!(
            "the controller belongs to cluster {peer:032x}, we to {own:032x}"
        )),
        _ => Ok(()),
    }
}
