//! The client's session: one ordered stream of changes, each exactly once.

use crate::api::{Change, Request, Response};
use crate::client::{ClientError, unexpected};
use crate::config::ConfigNum;
use crate::courier::{Courier, Failure};
use raft::session::{Refusal, Seq};
use world::clock::{Duration, Instant};

/// A session and the changes answered in it. All through `answered` have a known outcome; the one
/// in flight is `answered + 1`.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    session: u64,
    answered: u64,
}

impl Stream {
    /// Gives the session up, and its id.
    pub fn take(&mut self) -> Option<u64> {
        self.open.take().map(|open| open.session)
    }

    /// Carries one change out. Its number is taken again and again until the outcome is known;
    /// when that does not happen in time the session is given up, since a later change must not
    /// take the same number, nor one behind a number that may never arrive.
    pub async fn change(
        &mut self,
        courier: &Courier,
        change: Change,
        until: Instant,
    ) -> Result<ConfigNum, ClientError> {
        loop {
            let open = match self.open {
                Some(open) => open,
                None => self.open_session(courier, until).await?,
            };
            let seq = Seq {
                session: open.session,
                seq: open.answered + 1,
                acked: open.answered,
            };
            let sent = courier
                .send(&Request::Write(seq, change.clone()), left(until))
                .await;
            match sent {
                Ok(Response::Done(num)) => {
                    self.answered(open);
                    return Ok(num);
                }
                Ok(Response::Invalid(reason)) => {
                    self.answered(open);
                    return Err(ClientError::Invalid(reason));
                }
                Ok(Response::Refused(Refusal::Window | Refusal::Busy)) => {
                    world::clock::sleep(left(until).min(Duration::from_millis(100))).await;
                    if left(until).is_zero() {
                        return Err(ClientError::Unavailable(
                            "the session's table is full".into(),
                        ));
                    }
                }
                // Refused at the first attempt whose fate is known: it has had no effect and,
                // ids being used once, never will. (With doubt the courier says so.)
                Ok(Response::Refused(Refusal::SessionExpired | Refusal::Gap(_))) => {
                    self.open = None;
                }
                Ok(other) => {
                    self.open = None;
                    return Err(ClientError::Unknown(unexpected(other).to_string()));
                }
                Err(Failure {
                    in_doubt: true,
                    reason,
                }) => {
                    self.open = None;
                    return Err(ClientError::Unknown(reason));
                }
                Err(Failure {
                    in_doubt: false,
                    reason,
                }) => {
                    return Err(ClientError::Unavailable(reason));
                }
            }
        }
    }

    async fn open_session(
        &mut self,
        courier: &Courier,
        until: Instant,
    ) -> Result<Open, ClientError> {
        loop {
            // A session opened without our learning of it costs nothing: it expires.
            match courier.send(&Request::Open, left(until)).await {
                Ok(Response::Session(session)) => {
                    let open = Open {
                        session,
                        answered: 0,
                    };
                    self.open = Some(open);
                    return Ok(open);
                }
                Ok(Response::Refused(Refusal::Busy)) if !left(until).is_zero() => {
                    world::clock::sleep(left(until).min(Duration::from_millis(100))).await;
                }
                Ok(Response::Refused(refusal)) => {
                    return Err(ClientError::Unavailable(format!("no session: {refusal:?}")));
                }
                Ok(other) => return Err(unexpected(other)),
                Err(Failure { reason, .. }) => return Err(ClientError::Unavailable(reason)),
            }
        }
    }

    fn answered(&mut self, open: Open) {
        self.open = Some(Open {
            answered: open.answered + 1,
            ..open
        });
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(world::clock::now())
}
