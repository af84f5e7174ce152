//! What kvctl does, apart from starting processes: commands, output, exit codes.

pub mod args;
pub mod bench;
pub mod data;
pub mod groups;
pub mod histogram;
mod leave;
pub mod plan;
pub mod query;
mod reach;
pub mod served;
pub mod status;
mod table;

use crate::api::{CHANNEL, Op, Request, Response};
use crate::client::router::{client_hello, encode};
use crate::client::{Client, ClientError, ClientOptions};
use args::{Command, Common};
use std::fmt::Display;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use world::net::{Hello, Limits, Link};

/// Exit codes besides 0 (done) and 2 (usage, by clap).
pub mod exit {
    /// The answer is no, or the request was refused: absent key, mismatch, unknown group.
    pub const NO: i32 = 1;
    /// Not done in time; it has certainly had no effect.
    pub const UNAVAILABLE: i32 = 3;
    /// Whether it took effect could not be learnt.
    pub const UNKNOWN: i32 = 4;
    /// What was read could not be printed. A change that was made never ends so.
    pub const OUTPUT: i32 = 5;
}

/// Why a command did not succeed: what standard error says, and the exit code.
#[derive(Debug)]
pub struct Failure {
    /// The message.
    pub message: String,
    /// The exit code.
    pub code: i32,
}

impl Failure {
    /// The answer is no.
    pub fn no(message: impl Into<String>) -> Failure {
        Failure {
            message: message.into(),
            code: exit::NO,
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        let code = match error {
            ClientError::Invalid(_) | ClientError::Full(_) => exit::NO,
            ClientError::Unavailable(_) => exit::UNAVAILABLE,
            ClientError::Unknown(_) => exit::UNKNOWN,
        };
        Failure {
            message: error.to_string(),
            code,
        }
    }
}

impl From<ctrler::client::ClientError> for Failure {
    fn from(error: ctrler::client::ClientError) -> Failure {
        use ctrler::client::ClientError::*;
        let code = match error {
            Invalid(_) => exit::NO,
            Unavailable(_) => exit::UNAVAILABLE,
            Unknown(_) => exit::UNKNOWN,
        };
        Failure {
            message: error.to_string(),
            code,
        }
    }
}

/// Standard output takes nothing. A reader that has seen enough (`| grep -q`, `| head`) is no error.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure {
                message: String::new(),
                code: 0,
            };
        }
        Failure {
            message: format!("cannot print the answer: {error}"),
            code: exit::OUTPUT,
        }
    }
}

/// Where a command writes. Results go to `out`; progress and warnings to `err`.
pub struct Io<'a> {
    /// Standard output.
    pub out: &'a mut (dyn Write + Send),
    /// Standard error.
    pub err: &'a mut (dyn Write + Send),
}

impl Io<'_> {
    /// Prints a line about a change that is made. The change stands whether or not the line can be
    /// printed, so that is no failure: standard error has the line then, and why.
    pub fn done(&mut self, line: impl Display) {
        if let Err(error) = writeln!(self.out, "{line}").and_then(|()| self.out.flush()) {
            self.note(format_args!(
                "warning: this is done and cannot be printed ({error}): {line}"
            ));
        }
    }

    /// Prints a result as JSON.
    pub fn json(&mut self, result: &serde_json::Value) -> std::io::Result<()> {
        writeln!(self.out, "{result:#}")?;
        self.out.flush()
    }

    /// A line of progress or a warning; nothing depends on it.
    pub fn note(&mut self, line: impl Display) {
        let _ = writeln!(self.err, "{line}");
    }
}

/// Time to leave closed sessions behind; a server that does not answer drops them in an hour.
const CLOSE_PATIENCE: Duration = Duration::from_millis(300);

/// Carries out one command. `before` is what stood before its name, `batch` the operations of a
/// `batch`.
pub async fn run(
    before: &Common,
    command: &Command,
    batch: Vec<Op>,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let common = command.common(before);
    let client = Client::new(ClientOptions {
        ctrlers: common.ctrlers.0.clone(),
        deadline: common.deadline(),
    });
    if let Command::Cas(with) = command {
        data::old_and_new(&with.own)?;
    }
    reach::controllers(&client, &common).await?;
    let result = match command {
        Command::Get(with) => data::get(&client, &with.own, io).await,
        Command::Mget(with) => data::mget(&client, &with.own, io).await,
        Command::Batch(with) => data::batch(&client, &with.own, batch, io).await,
        Command::Put(with) => data::put(&client, &with.own, io).await,
        Command::Append(with) => data::append(&client, &with.own, io).await,
        Command::Delete(with) => data::delete(&client, &with.own, io).await,
        Command::Cas(with) => data::cas(&client, &with.own, io).await,
        Command::Join(with) => groups::join(&client, common.deadline(), &with.own, io).await,
        Command::Leave(with) => leave::leave(&client, common.deadline(), &with.own, io).await,
        Command::Move(with) => groups::move_shard(&client, common.deadline(), &with.own, io).await,
        Command::Unpin(with) => groups::unpin(&client, common.deadline(), &with.own, io).await,
        Command::Query(with) => query::query(&client, common.deadline(), &with.own, io).await,
        Command::Status(with) => status::status(&client, &common, &with.own, io).await,
        Command::Bench(with) => bench::bench(&client, &with.own, io).await,
    };
    client.close(CLOSE_PATIENCE).await;
    result
}

/// Asks one kv server one question.
///
/// With `cluster`, a server that belongs to another one refuses. A controller is told from a member
/// by its hello: it would not understand the question, nor we its answer.
pub async fn ask(
    server: &str,
    request: &Request,
    cluster: Option<u128>,
    deadline: Duration,
) -> Result<Response, String> {
    let hello = move || Hello {
        cluster,
        ..client_hello()
    };
    let link = Link::new(
        server,
        Limits::default(),
        Arc::new(hello),
        Arc::new(|hello: &Hello| match hello.group {
            Some(0) => Err("a controller, not a member of a replica group".into()),
            _ => Ok(()),
        }),
    );
    let body = link
        .call(CHANNEL, encode(request), deadline)
        .await
        .map_err(|e| e.to_string())?;
    postcard::from_bytes(&body).map_err(|error| format!("{server}: unreadable answer: {error}"))
}
