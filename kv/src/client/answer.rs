//! What came back from one attempt, sorted by what it means for the caller. Pure.

use crate::api::{Outcome, Response};
use bytes::Bytes;
use ctrler::config::{ConfigNum, GroupId, ShardId};
use raft::session::Refusal;
use world::net::CallError;

/// What one attempt came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A write was executed, now or before: its stored reply.
    Written(Vec<Outcome>),
    /// A value was read.
    Value(Option<Bytes>),
    /// A session was opened.
    Session(u64),
    /// A session was closed.
    Closed,
    /// The session refused the write; nothing was consumed.
    Refused(Refusal),
    /// The request itself is refused; nothing happened.
    Invalid(String),
    /// The write is refused by a server whose disk is nearly full; nothing was consumed.
    Full(String),
    /// No answer to the request proper.
    Trouble(Trouble),
}

/// Why an attempt brought no answer, and what can be learnt from that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The group does not serve the shard.
    #[error("the group does not serve the shard (its configuration is {config})")]
    WrongGroup {
        /// The group's configuration.
        config: ConfigNum,
        /// Who might serve it.
        owner: Option<GroupId>,
    },
    /// The server does not lead; who does, if it knows.
    #[error("{}", match .0 { Some((node, at)) => format!("the leader is {node} at {at}"), None => "no leader is known".into() })]
    NotLeader(Option<(u64, String)>),
    /// The server or the session's window is full.
    #[error("{0}")]
    Busy(&'static str),
    /// The server's disk is nearly full.
    #[error("{0}")]
    Full(String),
    /// The server cannot say whether the write was executed.
    #[error("the server could not learn whether the write was committed")]
    Unknown,
    /// The request was not sent.
    #[error("{0}")]
    Unreachable(String),
    /// The request may have been served, but no answer came.
    #[error("{0}")]
    Silent(String),
    /// The server answered with something that cannot be read here.
    #[error("{0}")]
    Unreadable(String),
    /// It is not known yet where to send it.
    #[error("no configuration is known yet: no controller has answered")]
    NoConfig,
    /// The shard has no owner.
    #[error("shard {shard} belongs to no group in configuration {config}")]
    NoOwner {
        /// The shard.
        shard: ShardId,
        /// The configuration.
        config: ConfigNum,
    },
}

impl Trouble {
    /// True when this attempt certainly had no effect and will have none.
    pub fn harmless(&self) -> bool {
        match self {
            Trouble::WrongGroup { .. }
            | Trouble::NotLeader(_)
            | Trouble::Busy(_)
            | Trouble::Full(_)
            | Trouble::Unreachable(_)
            | Trouble::NoConfig
            | Trouble::NoOwner { .. } => true,
            Trouble::Unknown | Trouble::Silent(_) | Trouble::Unreadable(_) => false,
        }
    }
}

impl Answer {
    /// Sorts the result of a call.
    pub fn of(result: Result<Bytes, CallError>) -> Answer {
        let body = match result {
            Ok(body) => body,
            Err(CallError::TooLarge { size, limit }) => {
                return Answer::Invalid(format!(
                    "the request has {size} bytes, more than a frame may have ({limit})"
                ));
            }
            // Whoever tells of it says where it was.
            Err(CallError::NoAnswer { reason, .. }) => {
                return Answer::Trouble(Trouble::Silent(format!("sent, and no answer: {reason}")));
            }
            Err(CallError::NotSent { reason, .. }) => {
                return Answer::Trouble(Trouble::Unreachable(format!("not sent: {reason}")));
            }
            Err(CallError::Refused { reason, .. }) => {
                return Answer::Trouble(Trouble::Unreachable(format!("refused: {reason}")));
            }
        };
        match postcard::from_bytes::<Response>(&body) {
            Ok(response) => Answer::from(response),
            Err(error) => {
                Answer::Trouble(Trouble::Unreadable(format!("unreadable answer: {error}")))
            }
        }
    }
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        Answer::Trouble(match response {
            Response::Written(outcomes) => return Answer::Written(outcomes),
            Response::Value(value) => return Answer::Value(value),
            Response::Session(id) => return Answer::Session(id),
            Response::Closed => return Answer::Closed,
            Response::Invalid(reason) => return Answer::Invalid(reason),
            Response::Full(reason) => return Answer::Full(reason),
            Response::Refused(Refusal::Busy) => {
                Trouble::Busy("the shard has no room for a session")
            }
            Response::Refused(Refusal::Window) => Trouble::Busy("the session's window is full"),
            Response::Refused(refusal) => return Answer::Refused(refusal),
            Response::WrongGroup { config, owner } => Trouble::WrongGroup { config, owner },
            Response::NotLeader(hint) => Trouble::NotLeader(hint),
            Response::Busy => Trouble::Busy("the server is busy"),
            Response::Unknown => Trouble::Unknown,
            // A request this version of the server cannot read did nothing there, but an earlier
            // attempt elsewhere may have; counted with the unknown.
            Response::Malformed(reason) => {
                Trouble::Unreadable(format!("the server could not read the request: {reason}"))
            }
            other @ (Response::Identity { .. } | Response::Status(_)) => {
                Trouble::Unreadable(format!("an answer to another question: {other:?}"))
            }
        })
    }
}
