//! The port of a kv server: clients' requests, other groups' questions, consensus. What is checked
//! here only spares work; what counts is judged where the command is applied.

use super::carrier::Carrier;
use crate::api::{CARRY_CHANNEL, CHANNEL, GROUP_CHANNEL, KvStatus, Op, Request, Response};
use crate::machine::KvMachine;
use crate::machine::command::Command;
use crate::machine::notice::Notice;
use crate::machine::query::{Page, Query};
use crate::machine::write;
use crate::mover::answer::Asked;
use bytes::Bytes;
use ctrler::config::GroupId;
use raft::Replica;
use raft::protocol::NodeId;
use raft::replica::{FullDisk, ProposeError, ReadError};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use world::net::{BoxFuture, Hello, Service};

/// Longest time a request is worked on, whatever its caller says.
const MAX_DEADLINE: Duration = Duration::from_secs(60);

/// What stands behind the port. Cheap to clone.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) group: GroupId,
    pub(super) replica: Replica<KvMachine>,
    pub(super) notice: Arc<Notice>,
    /// Where the group's members are reached, for hints.
    pub(super) members: Arc<BTreeMap<NodeId, String>>,
    pub(super) carrier: Arc<Carrier>,
}

fn encode(response: &Response) -> Bytes {
    Bytes::from(postcard::to_stdvec(response).expect("responses are plain data"))
}

impl Service for Door {
    fn welcome(&self, peer: &Hello) -> Result<Hello, String> {
        self.replica.welcome(peer)
    }

    fn mail(&self, peer: &Hello, channel: u8, body: Bytes) {
        if channel == raft::replica::CHANNEL {
            self.replica.mail(peer, body);
        }
    }

    fn call(&self, peer: &Hello, channel: u8, deadline: Duration, body: Bytes) -> BoxFuture<Bytes> {
        if channel == raft::replica::CHANNEL {
            return self.replica.call(peer, deadline, body);
        }
        let door = self.clone();
        let deadline = deadline.min(MAX_DEADLINE);
        match channel {
            CHANNEL => Box::pin(async move { door.client(body, deadline).await }),
            CARRY_CHANNEL => Box::pin(async move { door.carried(body, deadline).await }),
            GROUP_CHANNEL => Box::pin(async move {
                let asked = Asked {
                    group: door.group,
                    replica: &door.replica,
                    notice: &door.notice,
                    members: &door.members,
                };
                asked.answer(&body).await.to_bytes()
            }),
            other => Box::pin(async move {
                encode(&Response::Malformed(format!(
                    "channel {other}: a kv server serves {CHANNEL} and {CARRY_CHANNEL} to clients"
                )))
            }),
        }
    }
}

impl Door {
    /// A request of a client that cannot reach the leader.
    async fn carried(&self, body: Bytes, deadline: Duration) -> Bytes {
        let is_write = matches!(
            postcard::from_bytes::<Request>(&body),
            Ok(Request::Write { .. } | Request::Open { .. } | Request::Close { .. })
        );
        let own = self.replica.identity().node;
        match self.replica.leader() {
            (Some(leader), _) if is_write && leader != own => {
                // A handle of its own: each remembers what it has seen.
                let replica = self.replica.clone();
                let deposed = async move {
                    while replica.leader().0 == Some(leader) {
                        replica.changed().await;
                    }
                };
                match self.carrier.carry(leader, body, deadline, deposed).await {
                    Ok(answer) => answer,
                    Err(response) => encode(&response),
                }
            }
            _ => self.client(body, deadline).await,
        }
    }

    async fn client(&self, body: Bytes, deadline: Duration) -> Bytes {
        let Ok(request) = postcard::from_bytes::<Request>(&body) else {
            return encode(&Response::Malformed(
                "a request that this version does not know".to_owned(),
            ));
        };
        // What it says may be long, and is held once while it waits.
        drop(body);
        match request {
            Request::Get { shard, key } => match write::check_key(key.len()) {
                Ok(()) => self.read(Query::Get { shard, key }, deadline).await,
                Err(reason) => encode(&Response::Invalid(reason)),
            },
            Request::Write { shard, seq, ops } => match write::check_limits(&ops) {
                Ok(()) => {
                    let grows = ops.iter().any(Op::stores);
                    let command = Command::Write { shard, seq, ops };
                    self.write(command, grows, deadline).await
                }
                Err(reason) => encode(&Response::Invalid(reason)),
            },
            // Whoever deletes needs a session.
            Request::Open { shard } => self.write(Command::Open { shard }, false, deadline).await,
            Request::Close { shard, session } => {
                let command = Command::Close { shard, session };
                self.write(command, false, deadline).await
            }
            Request::Identify => encode(&self.identify().await),
            Request::Status => encode(&self.status().await),
        }
    }

    async fn read(&self, query: Query, deadline: Duration) -> Bytes {
        match self.replica.read(query.to_bytes(), deadline).await {
            Ok(reply) => reply,
            Err(ReadError::NoLeader) => {
                let (leader, _) = self.replica.leader();
                let own = self.replica.identity().node;
                encode(&self.not_leader(leader.filter(|leader| *leader != own)))
            }
            // A read has no effect, whatever became of it.
            Err(ReadError::Busy | ReadError::Deadline | ReadError::Stopped) => {
                encode(&Response::Busy)
            }
        }
    }

    /// `grows`: it may make the state grow.
    async fn write(&self, command: Command, grows: bool, deadline: Duration) -> Bytes {
        let bytes = command.to_bytes();
        drop(command);
        let proposed = match grows {
            true => self.replica.propose_growing(bytes, deadline).await,
            false => self.replica.propose(bytes, deadline).await,
        };
        encode(&match proposed {
            Ok(reply) => return reply,
            Err(ProposeError::NotLeader { leader }) => self.not_leader(leader),
            Err(ProposeError::Busy) => Response::Busy,
            Err(ProposeError::Full(disk)) => self.full(disk),
            Err(error @ ProposeError::TooLarge { .. }) => Response::Invalid(error.to_string()),
            Err(ProposeError::Unknown(_) | ProposeError::Stopped) => Response::Unknown,
        })
    }

    /// A write that stores something, and a disk that is nearly full. Only the leader knows all of them.
    fn full(&self, disk: FullDisk) -> Response {
        let own = self.replica.identity().node;
        let (leader, _) = self.replica.leader();
        if leader != Some(own) {
            return self.not_leader(leader);
        }
        world::mark!("door: a write is refused, a disk is nearly full");
        Response::Full(format!(
            "the disk of node {} of group {} is nearly full: {} bytes are free, and the last are kept \
             for deletions; delete keys or give it room",
            disk.node, self.group, disk.free
        ))
    }

    fn not_leader(&self, leader: Option<NodeId>) -> Response {
        Response::NotLeader(leader.and_then(|id| Some((id, self.members.get(&id)?.clone()))))
    }

    async fn page(&self) -> Option<Page> {
        let reply = self.replica.inspect(Query::Page.to_bytes()).await.ok()?;
        postcard::from_bytes(&reply).ok()
    }

    async fn identify(&self) -> Response {
        let Some(page) = self.page().await else {
            return Response::Busy;
        };
        Response::Identity {
            group: self.group,
            birth: page.birth,
            servers: self.members.values().cloned().collect(),
        }
    }

    async fn status(&self) -> Response {
        let Some(page) = self.page().await else {
            return Response::Busy;
        };
        Response::Status(Box::new(KvStatus {
            replica: self.replica.status(),
            config: page.config,
            shards: page.shards,
            sweeping: page.sweeping,
            dead: page.dead,
        }))
    }
}
