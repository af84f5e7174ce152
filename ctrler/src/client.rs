//! A client of the controllers; used by kv servers, by the store's client and by kvctl.

use crate::api::{Change, Request, Response};
use crate::config::{Config, ConfigNum, Group, GroupId, Record, ShardId};
use crate::courier::{Courier, Failure};
use crate::history::{decode, encode};
use crate::stream::Stream;
use raft::replica::ReplicaStatus;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use world::net::{CallError, Hello};

/// Changes of one client that may wait for one another; beyond: `Unavailable`, nothing sent.
pub const MAX_WAITING: usize = 256;

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Refused; the reason says what was expected. Nothing changed.
    #[error("{0}")]
    Invalid(String),
    /// No controller leader answered in time. Nothing was changed by this call.
    #[error("no controller answered in time ({0})")]
    Unavailable(String),
    /// A change was sent and its outcome could not be learnt in time.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
}

/// A client. Cheap to clone; clones share connections, and changes go one after the other.
///
/// A dropped call leaves the client as it was: a change that was sent goes on by itself until its
/// outcome is known or its deadline has passed, and one that was not sent never is.
#[derive(Clone)]
pub struct Client {
    courier: Arc<Courier>,
    stream: Arc<Mutex<Stream>>,
    waiting: Arc<Semaphore>,
}

impl Client {
    /// A client of the controllers at these addresses ("host:port"). `hello` introduces the
    /// caller.
    pub fn new(servers: Vec<String>, hello: Arc<dyn Fn() -> Hello + Send + Sync>) -> Client {
        Client {
            courier: Arc::new(Courier::new(servers, hello)),
            stream: Arc::new(Mutex::new(Stream::default())),
            waiting: Arc::new(Semaphore::new(MAX_WAITING)),
        }
    }

    /// The latest configuration, linearizably, or an old one.
    pub async fn query(
        &self,
        num: Option<ConfigNum>,
        deadline: Duration,
    ) -> Result<Config, ClientError> {
        match self.read(Request::Query(num), deadline).await? {
            Response::Config(config) => Ok(config),
            other => Err(unexpected(other)),
        }
    }

    /// The configuration to which a group in `after` may go at once: the next one, or the last of a
    /// run that changes nothing for it. `Invalid` when there is none yet.
    pub async fn next(
        &self,
        group: GroupId,
        after: ConfigNum,
        deadline: Duration,
    ) -> Result<Config, ClientError> {
        match self.read(Request::Next { group, after }, deadline).await? {
            Response::Config(config) => Ok(config),
            // Controllers of a build that does not know the request.
            Response::Malformed(_) => self.query(Some(after + 1), deadline).await,
            other => Err(unexpected(other)),
        }
    }

    /// Cluster id, number of shards, latest number.
    pub async fn cluster(&self, deadline: Duration) -> Result<(u128, u32, ConfigNum), ClientError> {
        match self.read(Request::Cluster, deadline).await? {
            Response::Cluster {
                cluster,
                shards,
                latest,
            } => Ok((cluster, shards, latest)),
            other => Err(unexpected(other)),
        }
    }

    /// Adds groups.
    pub async fn join(
        &self,
        groups: BTreeMap<GroupId, Group>,
        deadline: Duration,
    ) -> Result<ConfigNum, ClientError> {
        self.change(Change::Join(groups), deadline).await
    }

    /// Removes groups (does not wait for them to hand over: see `record`).
    pub async fn leave(
        &self,
        groups: Vec<GroupId>,
        deadline: Duration,
    ) -> Result<ConfigNum, ClientError> {
        self.change(Change::Leave(groups), deadline).await
    }

    /// Pins a shard to a group; the number of the configuration in which it is. Where it is pinned
    /// there already no configuration is made.
    pub async fn move_shard(
        &self,
        shard: ShardId,
        group: GroupId,
        deadline: Duration,
    ) -> Result<ConfigNum, ClientError> {
        self.change(Change::Move(shard, group), deadline).await
    }

    /// Ends a shard's pin; the number of the configuration in which it has none.
    pub async fn unpin(
        &self,
        shard: ShardId,
        deadline: Duration,
    ) -> Result<ConfigNum, ClientError> {
        self.change(Change::Unpin(shard), deadline).await
    }

    /// Reports that a group owes nothing up to `through`.
    pub async fn settled(
        &self,
        group: GroupId,
        info: Group,
        through: ConfigNum,
        holds: bool,
        deadline: Duration,
    ) -> Result<(), ClientError> {
        let report = Change::Settled {
            group,
            info,
            through,
            holds,
        };
        self.change(report, deadline).await.map(|_| ())
    }

    /// What is known of a group.
    pub async fn record(
        &self,
        group: GroupId,
        deadline: Duration,
    ) -> Result<Option<Record>, ClientError> {
        match self.read(Request::Record(group), deadline).await? {
            Response::Record(record) => Ok(record),
            other => Err(unexpected(other)),
        }
    }

    /// All records.
    pub async fn records(
        &self,
        deadline: Duration,
    ) -> Result<BTreeMap<GroupId, Record>, ClientError> {
        match self.read(Request::Records, deadline).await? {
            Response::Records(records) => Ok(records),
            other => Err(unexpected(other)),
        }
    }

    /// The status page of every controller, or why it did not answer.
    pub async fn status(&self, deadline: Duration) -> Vec<(String, Result<ReplicaStatus, String>)> {
        let mut pages = Vec::new();
        for server in self.courier.servers().to_vec() {
            let courier = self.courier.clone();
            let asked = server.clone();
            pages.push((
                server,
                tokio::spawn(async move {
                    let body = encode(&Request::Status).into();
                    match courier.ask(&asked, body, deadline).await {
                        Ok(reply) => match decode(&reply) {
                            Some(Response::Status(status)) => Ok(status),
                            Some(other) => Err(unexpected(other).to_string()),
                            None => Err("an answer that this version does not know".into()),
                        },
                        Err(error) => Err(error.to_string()),
                    }
                }),
            ));
        }
        let mut answers = Vec::new();
        for (server, page) in pages {
            let page = page.await.unwrap_or_else(|e| Err(e.to_string()));
            answers.push((server, page));
        }
        answers
    }

    /// Whether any controller is reached: `Ok` as soon as one has answered, else why none did, in the
    /// order of their addresses. Asks each of them once, and changes nothing.
    pub async fn reach(&self, deadline: Duration) -> Result<(), Vec<CallError>> {
        let servers = self.courier.servers();
        let (tell, mut told) = mpsc::channel(servers.len().max(1));
        for (server, number) in servers.iter().cloned().zip(0..) {
            let (courier, tell) = (self.courier.clone(), tell.clone());
            tokio::spawn(async move {
                let body = encode(&Request::Status).into();
                let answer = courier.ask(&server, body, deadline).await;
                let _ = tell.send((number, answer)).await;
            });
        }
        drop(tell);
        let mut errors: BTreeMap<usize, CallError> = BTreeMap::new();
        while let Some((number, answer)) = told.recv().await {
            match answer {
                Ok(_) => return Ok(()),
                Err(error) => errors.insert(number, error),
            };
        }
        Err(errors.into_values().collect())
    }

    /// Tells the controllers that the session is not needed any more, so that it makes room first.
    /// Worth a call before a short-lived program ends; nothing depends on it.
    pub async fn close(&self, deadline: Duration) {
        let session = self.stream.lock().await.take();
        if let Some(session) = session {
            let _ = self.courier.send(&Request::Close(session), deadline).await;
        }
    }

    async fn read(&self, request: Request, deadline: Duration) -> Result<Response, ClientError> {
        match self.courier.send(&request, deadline).await {
            Ok(Response::Invalid(reason)) => Err(ClientError::Invalid(reason)),
            Ok(response) => Ok(response),
            // A read changes nothing, whether it was served or not.
            Err(Failure { reason, .. }) => Err(ClientError::Unavailable(reason)),
        }
    }

    /// Runs a change in a task of its own, so that dropping the call drops the waiting only: the
    /// number it took in the session is then still answered before the next change takes its own.
    async fn change(&self, change: Change, deadline: Duration) -> Result<ConfigNum, ClientError> {
        let Ok(permit) = self.waiting.clone().try_acquire_owned() else {
            return Err(ClientError::Unavailable(format!(
                "{MAX_WAITING} changes of this client are waiting already"
            )));
        };
        let (mut tell, told) = oneshot::channel();
        let (courier, stream) = (self.courier.clone(), self.stream.clone());
        let until = world::clock::now() + deadline;
        tokio::spawn(async move {
            let _permit = permit;
            let turn = tokio::select! {
                biased;
                // Nobody waits any more, and nothing was sent.
                _ = tell.closed() => return,
                turn = world::clock::timeout(deadline, stream.lock()) => turn,
            };
            let outcome = match turn {
                Ok(mut stream) => stream.change(&courier, change, until).await,
                Err(_) => Err(ClientError::Unavailable(
                    "earlier changes are still waiting".into(),
                )),
            };
            let _ = tell.send(outcome);
        });
        told.await
            .unwrap_or_else(|_| Err(ClientError::Unknown("this process is shutting down".into())))
    }
}

pub(crate) fn unexpected(response: Response) -> ClientError {
    ClientError::Unavailable(match response {
        Response::Malformed(reason) => format!("a controller of another version: {reason}"),
        other => format!("a controller gave an answer of the wrong kind: {other:?}"),
    })
}
