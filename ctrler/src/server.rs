//! A controller server: the replica of the controllers' state behind its port.

use crate::api::{CHANNEL, Request, Response};
use crate::history::{decode, encode};
use crate::machine::{Birth, Command, CommandV1, Controller};
use bytes::Bytes;
use raft::replica::{Fatal, Options, ProposeError, ReadError, Replica};
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};
use world::disk::Disk;
use world::net::{BoxFuture, Hello, Server, Service};

/// Longest time a request is worked on, whatever its caller says.
const MAX_DEADLINE: Duration = Duration::from_secs(60);
/// While the cluster is not born, its birth is looked for at least this often.
const BIRTH_PAUSE: Duration = Duration::from_millis(100);
const BIRTH_DEADLINE: Duration = Duration::from_secs(2);

/// What a controller is started with.
#[derive(Clone)]
pub struct ServerOptions {
    /// The replica (group 0).
    pub replica: Options,
    /// Address to listen on.
    pub listen: String,
    /// Number of shards if this start gives birth to the cluster.
    pub shards: u32,
}

/// Runs a controller until `shutdown` resolves (`Ok`) or it cannot go on. The same in production
/// and in simulation.
pub async fn run(
    options: ServerOptions,
    disk: Disk,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Fatal> {
    let node = options.replica.node;
    if options.replica.group != 0 || !options.replica.peers.contains_key(&node) {
        return Err(Fatal::Other(format!(
            "a controller is a member of group 0 and one of its own peers; given: node {node} of group {}",
            options.replica.group
        )));
    }
    // The port before the disk: a second start with the same flags fails at its port and touches
    // nothing.
    let server = Server::bind(&options.listen, options.replica.limits.clone())
        .await
        .map_err(|error| Fatal::Other(error.to_string()))?;
    let addresses = options.replica.peers.clone();
    let (replica, mut life) = Replica::start(options.replica, disk, Controller::default()).await?;
    info!(node, listen = %server.local_addr(), "controller started");

    let service = Arc::new(Port {
        replica: replica.clone(),
        addresses: Arc::new(addresses),
    });
    let mut serving = Box::pin(server.serve(service));
    let mut born = Box::pin(born(replica.clone(), options.shards));
    let mut shutdown = Box::pin(shutdown);
    let mut named = false;
    let ended = loop {
        tokio::select! {
            biased;
            end = &mut life => return end,
            () = &mut shutdown => break Ok(()),
            birth = &mut born, if !named => match birth {
                Ok(()) => named = true,
                Err(error) => break Err(error),
            },
            () = &mut serving => break Err(Fatal::Other("the port was closed".into())),
        }
    };
    info!(node, "stopping");
    // No new connections or requests; what waits is unknown to its callers, who ask again.
    drop(serving);
    replica.stop();
    let end = life.await;
    ended.and(end)
}

/// Sees to it that the cluster is born, and stamps its id on this node's disk.
async fn born(replica: Replica<Controller>, shards: u32) -> Result<(), Fatal> {
    let cluster = Bytes::from(encode(&Request::Cluster));
    loop {
        let known = match replica.inspect(cluster.clone()).await {
            Ok(reply) => decode::<Response>(&reply),
            Err(ReadError::Busy) => {
                world::clock::sleep(BIRTH_PAUSE).await;
                continue;
            }
            // The replica is ending, and says why itself.
            Err(_) => return std::future::pending().await,
        };
        if let Some(Response::Cluster {
            cluster,
            shards: fixed,
            ..
        }) = known
        {
            if fixed != shards {
                warn!(
                    fixed,
                    given = shards,
                    "the number of shards was fixed at birth; the flag is ignored"
                );
            }
            info!(cluster = %format_args!("{cluster:032x}"), shards = fixed, "cluster known");
            return replica.set_cluster(cluster).await.map_err(Fatal::Other);
        }
        if replica.is_leader() {
            let birth = Birth {
                cluster: world::entropy::random_u128(),
                shards,
            };
            let command = Command::encode(CommandV1::Birth(birth));
            match replica.propose(command, BIRTH_DEADLINE).await {
                Ok(reply) => match decode(&reply) {
                    Some(Response::Invalid(reason)) => warn!(reason, "birth not taken"),
                    _ => continue,
                },
                Err(error) => info!(%error, "birth not proposed"),
            }
        }
        // The pause keeps a busy log from making this a tight loop.
        world::clock::sleep(BIRTH_PAUSE).await;
    }
}

#[derive(Clone)]
struct Port {
    replica: Replica<Controller>,
    /// Where the controllers are reached, for hints.
    addresses: Arc<BTreeMap<u64, String>>,
}

impl Service for Port {
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
        let port = self.clone();
        Box::pin(async move {
            if channel != CHANNEL {
                return response(&Response::Malformed(format!(
                    "channel {channel}: a controller serves {CHANNEL}"
                )));
            }
            match decode::<Request>(&body) {
                Some(request) => port.serve(request, body, deadline.min(MAX_DEADLINE)).await,
                None => response(&Response::Malformed(
                    "a request that this version does not know".into(),
                )),
            }
        })
    }
}

impl Port {
    async fn serve(&self, request: Request, body: Bytes, deadline: Duration) -> Bytes {
        match request {
            Request::Status => response(&Response::Status(self.replica.status())),
            Request::Query(Some(_)) | Request::Next { .. } => {
                // A configuration that exists never changes: whoever has it may answer.
                match self.replica.inspect(body.clone()).await {
                    Ok(reply) if is_config(&reply) => reply,
                    _ => {
                        world::mark!(
                            "ctrler: a configuration not known here is asked of the leader"
                        );
                        self.read(body, deadline).await
                    }
                }
            }
            Request::Query(None) | Request::Record(_) | Request::Records | Request::Cluster => {
                self.read(body, deadline).await
            }
            Request::Open => self.write(CommandV1::Open, deadline).await,
            Request::Close(session) => self.write(CommandV1::Close(session), deadline).await,
            Request::Write(seq, change) => {
                self.write(CommandV1::Write(seq, change), deadline).await
            }
        }
    }

    /// Linearizable: a deposed leader finds no quorum that confirms it, and does not answer.
    async fn read(&self, query: Bytes, deadline: Duration) -> Bytes {
        match self.replica.read(query, deadline).await {
            Ok(reply) => reply,
            Err(ReadError::NoLeader) => response(&Response::NotLeader(self.leader())),
            Err(ReadError::Busy | ReadError::Deadline | ReadError::Stopped) => {
                response(&Response::Busy)
            }
        }
    }

    async fn write(&self, command: CommandV1, deadline: Duration) -> Bytes {
        response(&match self
            .replica
            .propose(Command::encode(command), deadline)
            .await
        {
            Ok(reply) => return reply,
            Err(ProposeError::NotLeader { leader }) => Response::NotLeader(self.address(leader)),
            Err(ProposeError::Busy | ProposeError::Full(_)) => Response::Busy,
            Err(error @ ProposeError::TooLarge { .. }) => Response::Invalid(error.to_string()),
            Err(ProposeError::Unknown(_) | ProposeError::Stopped) => Response::Unknown,
        })
    }

    /// The leader, unless it is this node.
    fn leader(&self) -> Option<(u64, String)> {
        let (leader, _) = self.replica.leader();
        self.address(leader.filter(|leader| *leader != self.replica.identity().node))
    }

    fn address(&self, leader: Option<u64>) -> Option<(u64, String)> {
        leader.and_then(|id| Some((id, self.addresses.get(&id)?.clone())))
    }
}

/// True for an encoded [`Response::Config`], without decoding all of it: the first byte of an
/// encoded enum of few variants is its variant.
fn is_config(reply: &[u8]) -> bool {
    reply.first() == Some(&CONFIG_VARIANT)
}

/// Place of `Config` among the responses; kept by a golden test.
pub(crate) const CONFIG_VARIANT: u8 = 0;

fn response(response: &Response) -> Bytes {
    encode(response).into()
}
