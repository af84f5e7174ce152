//! A kv server: the replica of a group behind its port, and the mover that runs its errands.

mod carrier;
mod door;

use crate::machine::KvMachine;
use crate::machine::notice::Notice;
use crate::machine::query::{Page, Query};
use crate::mover::{Mover, Peers};
use carrier::Carrier;
use ctrler::client::Client;
use ctrler::config::GroupId;
use ctrler::program::client_hello;
use door::Door;
use raft::Replica;
use raft::replica::{Fatal, Options};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};
use world::disk::Disk;
use world::net::{Hello, SayHello, Server};

/// While the cluster's id is not known, the controllers are asked this often.
const STAMP_PAUSE: Duration = Duration::from_millis(500);
/// Time for one answer of the controllers.
const STAMP_DEADLINE: Duration = Duration::from_secs(5);

/// What a kv server is started with.
#[derive(Clone)]
pub struct ServerOptions {
    /// The replica.
    pub replica: Options,
    /// Address to listen on.
    pub listen: String,
    /// Controllers, "host:port".
    pub ctrlers: Vec<String>,
}

/// Runs a kv server until `shutdown` resolves (`Ok`) or it cannot go on. The same in production
/// and in simulation.
pub async fn run(
    options: ServerOptions,
    disk: Disk,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Fatal> {
    let (group, node) = (options.replica.group, options.replica.node);
    let limits = options.replica.limits.clone();
    let members = Arc::new(options.replica.peers.clone());
    if group == 0 || !members.contains_key(&node) {
        return Err(Fatal::Other(format!(
            "a kv server is a member of a group from 1 on and one of its own peers; given: node {node} \
             of group {group}"
        )));
    }
    // The port before the disk: a second start with the same flags fails at its port and touches
    // nothing.
    let server = Server::bind(&options.listen, limits.clone())
        .await
        .map_err(|error| Fatal::Other(error.to_string()))?;
    let notice = Arc::new(Notice::default());
    let machine = KvMachine::new(group, node, notice.clone());
    let (replica, mut life) = Replica::start(options.replica, disk, machine).await?;
    info!(group, node, listen = %server.local_addr(), "kv server started");

    let speaker = replica.clone();
    let hello: SayHello = Arc::new(move || speaker.hello(None));
    // What is carried counts among the leader's clients.
    let carrying = replica.clone();
    let as_client: SayHello = Arc::new(move || Hello {
        cluster: carrying.identity().cluster,
        ..client_hello()
    });
    let door = Door {
        group,
        replica: replica.clone(),
        notice: notice.clone(),
        members: members.clone(),
        carrier: Arc::new(Carrier::new(group, node, &members, &limits, &as_client)),
    };
    // Asks as a stranger: controllers of another cluster refuse a member's hello.
    let strangers = Client::new(options.ctrlers.clone(), Arc::new(client_hello));
    let ctrlers = Client::new(options.ctrlers, hello.clone());
    let mover = Arc::new(Mover {
        group,
        servers: members.values().cloned().collect(),
        replica: replica.clone(),
        notice,
        ctrlers: ctrlers.clone(),
        peers: Peers::new(ctrlers.clone(), limits, hello),
        recorded: Default::default(),
    });
    let mut serving = Box::pin(server.serve(Arc::new(door)));
    let mut moving = Box::pin(mover.run());
    let (stamped_by, mut stamped) = (replica.clone(), false);
    let mut stamping = Box::pin(async move {
        match stamped_by.identity().cluster {
            None => stamp(stamped_by, ctrlers, group).await,
            Some(cluster) => same_cluster(cluster, strangers).await,
        }
    });
    let mut shutdown = Box::pin(shutdown);
    let ended = loop {
        tokio::select! {
            biased;
            end = &mut life => return end,
            () = &mut shutdown => break Ok(()),
            result = &mut stamping, if !stamped => match result {
                Ok(()) => stamped = true,
                Err(reason) => break Err(Fatal::Other(reason)),
            },
            () = &mut moving => break Err(Fatal::Other("the mover ended".to_owned())),
            () = &mut serving => break Err(Fatal::Other("the port was closed".to_owned())),
        }
    };
    info!(group, node, "stopping");
    // No new requests and no errands; what waits is unknown to its callers, who ask again.
    drop(serving);
    drop(moving);
    replica.stop();
    let end = life.await;
    ended.and(end)
}

/// Stamps the cluster's id on this node's disk, once its controllers name this group by number
/// and birth id.
async fn stamp(replica: Replica<KvMachine>, ctrlers: Client, group: GroupId) -> Result<(), String> {
    let mut warned = false;
    while replica.identity().cluster.is_none() {
        let page = replica.inspect(Query::Page.to_bytes()).await.ok();
        let page: Option<Page> = page.and_then(|reply| postcard::from_bytes(&reply).ok());
        if let Some(birth) = page.and_then(|page| page.birth)
            && let Ok(Some(record)) = ctrlers.record(group, STAMP_DEADLINE).await
        {
            if record.group.birth == birth {
                if let Ok((cluster, _, _)) = ctrlers.cluster(STAMP_DEADLINE).await {
                    info!(group, cluster = %format_args!("{cluster:032x}"), "cluster known");
                    return replica.set_cluster(cluster).await;
                }
            } else if !warned {
                warned = true;
                warn!(
                    group,
                    "the controllers know this group number with another birth id"
                );
            }
        }
        world::clock::sleep(STAMP_PAUSE).await;
    }
    Ok(())
}

/// Holds the cluster's id that is stamped on this node's disk against its controllers, once they
/// answer; meanwhile it serves what it has.
async fn same_cluster(own: u128, ctrlers: Client) -> Result<(), String> {
    loop {
        match ctrlers.cluster(STAMP_DEADLINE).await {
            Ok((theirs, _, _)) if theirs == own => return Ok(()),
            Ok((theirs, _, _)) => {
                return Err(format!(
                    "the data directory belongs to cluster {own:032x}, and --ctrlers are of \
                     cluster {theirs:032x}: start with the flags it was made with, or another \
                     directory"
                ));
            }
            Err(_) => world::clock::sleep(STAMP_PAUSE).await,
        }
    }
}
