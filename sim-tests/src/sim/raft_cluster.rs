//! One group of replicas with a state machine that records what it was given.

use super::nodes::{Key, Nodes, eventually};
use bytes::Bytes;
use raft::replica::{CHANNEL, Fatal, Options, ProposeError, ReplicaStatus};
use raft::store::{Rows, StoreError};
use raft::{At, Machine, Replica};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use world::disk::SimDiskOptions;
use world::net::{BoxFuture, Hello, Server, Service};

/// Port of every replica.
const PORT: u16 = 7000;

/// What a [`RaftCluster`] is made with.
#[derive(Clone)]
pub struct RaftOptions {
    /// Members.
    pub replicas: u64,
    /// Their disks.
    pub disk: SimDiskOptions,
    /// Changes the replica's options (limits for snapshots, …), at every start.
    pub adjust: Arc<dyn Fn(&mut Options) + Send + Sync>,
}

impl Default for RaftOptions {
    fn default() -> Self {
        RaftOptions {
            replicas: 3,
            disk: SimDiskOptions::default(),
            adjust: Arc::new(|_| {}),
        }
    }
}

impl RaftOptions {
    /// So many members.
    pub fn of(replicas: u64) -> RaftOptions {
        RaftOptions {
            replicas,
            ..RaftOptions::default()
        }
    }

    /// The same, and this on top.
    pub fn and(self, more: impl Fn(&mut Options) + Send + Sync + 'static) -> RaftOptions {
        let before = self.adjust;
        RaftOptions {
            adjust: Arc::new(move |options| {
                before(options);
                more(options);
            }),
            ..self
        }
    }

    /// Flushes and compacts every few entries, so that snapshots are needed soon.
    pub fn small_log(replicas: u64) -> RaftOptions {
        RaftOptions {
            replicas,
            adjust: Arc::new(|options| {
                options.keep_log_bytes = 1 << 10;
                options.patience = Duration::ZERO;
                options.cache_log_bytes = 1 << 9;
                options.flush_log_bytes = 2 << 10;
                options.log.segment_bytes = 64 << 10;
                options.log.fill_bytes = 16 << 10;
                options.log.recover_bytes = 64 << 10;
                options.store.chunk_bytes = 1 << 10;
                options.store.cache_bytes = 1 << 20;
            }),
            ..RaftOptions::default()
        }
    }
}

/// Keeps every command as a row under its position, and tells the harness.
struct Recorder {
    node: u64,
    seen: Arc<Mutex<Seen>>,
}

/// What the machines of a cluster were given, over all incarnations.
#[derive(Default)]
struct Seen {
    /// Index -> command; the first replica to apply it decides, the others must agree.
    log: BTreeMap<u64, Vec<u8>>,
    /// Highest index each node applied in its present incarnation.
    applied: BTreeMap<u64, u64>,
}

impl Machine for Recorder {
    fn load(&mut self, rows: &Rows) -> Result<(), StoreError> {
        let _ = rows;
        Ok(())
    }

    fn apply(&mut self, rows: &mut Rows, at: At, command: &[u8]) -> Result<Bytes, StoreError> {
        rows.put(&at.index.to_be_bytes(), command)?;
        let mut seen = lock(&self.seen);
        let before = seen.applied.get(&self.node);
        assert!(
            before.is_none_or(|before| *before < at.index),
            "node {} applied {} after {before:?}",
            self.node,
            at.index
        );
        let known = seen.log.entry(at.index).or_insert_with(|| command.to_vec());
        assert_eq!(
            known, command,
            "node {} applied another command at {}",
            self.node, at.index
        );
        seen.applied.insert(self.node, at.index);
        Ok(Bytes::copy_from_slice(&at.index.to_be_bytes()))
    }

    /// All commands in order, each with its length before it.
    fn read(&self, rows: &Rows, _query: &[u8]) -> Result<Bytes, StoreError> {
        let mut all = Vec::new();
        for (_, command) in rows.range(&[], &[], usize::MAX, usize::MAX)? {
            all.extend_from_slice(&(command.len() as u64).to_be_bytes());
            all.extend_from_slice(&command);
        }
        Ok(all.into())
    }
}

struct Port(Replica<Recorder>);

impl Service for Port {
    fn welcome(&self, peer: &Hello) -> Result<Hello, String> {
        self.0.welcome(peer)
    }
    fn mail(&self, peer: &Hello, channel: u8, body: Bytes) {
        if channel == CHANNEL {
            self.0.mail(peer, body);
        }
    }
    fn call(
        &self,
        peer: &Hello,
        _channel: u8,
        deadline: Duration,
        body: Bytes,
    ) -> BoxFuture<Bytes> {
        self.0.call(peer, deadline, body)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

type Handles = Arc<Mutex<BTreeMap<u64, Replica<Recorder>>>>;

/// A group of replicas. Cheap to clone. Node ids count from 1.
#[derive(Clone)]
pub struct RaftCluster {
    /// The machines below.
    pub nodes: Nodes,
    keys: Arc<BTreeMap<u64, Key>>,
    handles: Handles,
    seen: Arc<Mutex<Seen>>,
}

impl RaftCluster {
    /// A started cluster.
    pub fn new(options: RaftOptions) -> RaftCluster {
        let nodes = Nodes::new();
        super::invariants::install();
        super::wire::install();
        let ip = |node: u64| Ipv4Addr::new(10, 0, 1, node as u8);
        let peers: BTreeMap<u64, String> = (1..=options.replicas)
            .map(|n| (n, format!("{}:{PORT}", ip(n))))
            .collect();
        let handles = Handles::default();
        let seen = Arc::<Mutex<Seen>>::default();
        let mut keys = BTreeMap::new();
        for node in 1..=options.replicas {
            let (adjust, peers) = (options.adjust.clone(), peers.clone());
            let (handles, seen) = (handles.clone(), seen.clone());
            let program = move |disk, shutdown: BoxFuture<()>| -> BoxFuture<Result<(), Fatal>> {
                let (handles, seen) = (handles.clone(), seen.clone());
                let mut options = Options::new(1, node, peers.clone());
                adjust(&mut options);
                Box::pin(async move {
                    lock(&seen).applied.remove(&node);
                    let machine = Recorder { node, seen };
                    let (replica, life) = Replica::start(options, disk, machine).await?;
                    lock(&handles).insert(node, replica.clone());
                    let listen = format!("0.0.0.0:{PORT}");
                    let server = Server::bind(&listen, Default::default()).await;
                    let server = server.map_err(|e| Fatal::Other(e.to_string()))?;
                    let mut life = life;
                    tokio::select! {
                        biased;
                        ended = &mut life => ended,
                        () = server.serve(Arc::new(Port(replica.clone()))) => Ok(()),
                        () = shutdown => {
                            replica.stop();
                            life.await
                        }
                    }
                })
            };
            let name = format!("raft-{node}");
            let key = nodes.add(&name, ip(node), options.disk.clone(), Arc::new(program));
            keys.insert(node, key);
            nodes.start(key);
        }
        RaftCluster {
            nodes,
            keys: Arc::new(keys),
            handles,
            seen,
        }
    }

    /// All node ids.
    pub fn ids(&self) -> Vec<u64> {
        self.keys.keys().copied().collect()
    }

    /// The machine of a node.
    pub fn key(&self, node: u64) -> Key {
        self.keys[&node]
    }

    /// Power failure of a node.
    pub fn kill(&self, node: u64) {
        lock(&self.handles).remove(&node);
        self.nodes.kill(self.key(node));
    }

    /// The process of a node dies, its machine stays.
    pub fn crash(&self, node: u64) {
        lock(&self.handles).remove(&node);
        self.nodes.crash(self.key(node));
    }

    /// True between start and kill.
    pub fn is_up(&self, node: u64) -> bool {
        self.nodes.is_up(self.key(node))
    }

    /// Cuts these nodes off from everybody.
    pub fn isolate(&self, nodes: &[u64]) {
        nodes.iter().for_each(|n| self.nodes.isolate(self.key(*n)));
    }

    /// Undoes [`RaftCluster::isolate`].
    pub fn rejoin(&self, nodes: &[u64]) {
        nodes.iter().for_each(|n| self.nodes.rejoin(self.key(*n)));
    }

    /// All node ids but these.
    pub fn others(&self, nodes: &[u64]) -> Vec<u64> {
        let mut ids = self.ids();
        ids.retain(|n| !nodes.contains(n));
        ids
    }

    /// Starts a killed node.
    pub fn start(&self, node: u64) {
        self.nodes.start(self.key(node));
    }

    /// The replica of a node that is up and has opened its disk.
    fn replica(&self, node: u64) -> Option<Replica<Recorder>> {
        lock(&self.handles).get(&node).cloned()
    }

    /// Status of a node that is up.
    pub fn status(&self, node: u64) -> Option<ReplicaStatus> {
        self.replica(node).map(|replica| replica.status())
    }

    /// The node that leads, among those given, in the highest term; only after its no-op.
    pub fn leader_among(&self, nodes: &[u64]) -> Option<u64> {
        let leads = |n: &&u64| self.replica(**n).is_some_and(|r| r.is_leader());
        let leaders = nodes.iter().filter(leads);
        leaders
            .copied()
            .max_by_key(|n| self.status(*n).map(|s| s.term))
    }

    /// Waits for a leader among the given nodes that are connected to each other.
    pub async fn wait_leader(&self, nodes: &[u64]) -> u64 {
        let limit = Duration::from_secs(30);
        eventually("a leader", limit, || async {
            self.leader_among(nodes).is_some()
        })
        .await;
        self.leader_among(nodes).expect("just seen")
    }

    /// Proposes on one node; the index it was applied at.
    pub async fn propose(
        &self,
        node: u64,
        command: impl Into<Vec<u8>>,
        deadline: Duration,
    ) -> Result<u64, ProposeError> {
        let Some(replica) = self.replica(node) else {
            return Err(ProposeError::NotLeader { leader: None });
        };
        let reply = replica
            .propose(Bytes::from(command.into()), deadline)
            .await?;
        Ok(u64::from_be_bytes(
            reply[..8].try_into().expect("the recorder replies 8 bytes"),
        ))
    }

    /// Proposes until somebody accepts and applies it. The command may land more than once when an
    /// outcome is unknown.
    pub async fn agree(&self, command: &[u8], limit: Duration) -> u64 {
        self.agree_among(&self.ids(), command, limit).await
    }

    /// As [`RaftCluster::agree`], asking only the given nodes.
    pub async fn agree_among(&self, nodes: &[u64], command: &[u8], limit: Duration) -> u64 {
        let since = world::clock::now();
        loop {
            let asked = nodes.iter().filter(|n| {
                let replica = self.replica(**n);
                replica.is_some_and(|r| r.status().role == raft::protocol::Role::Leader)
            });
            for node in asked {
                if let Ok(i) = self.propose(*node, command, Duration::from_secs(3)).await {
                    return i;
                }
            }
            assert!(since.elapsed() < limit, "no agreement within {limit:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Linearizable list of all commands, asked on one node.
    pub async fn read(&self, node: u64, deadline: Duration) -> Option<Vec<Vec<u8>>> {
        let all = self
            .replica(node)?
            .read(Bytes::new(), deadline)
            .await
            .ok()?;
        let mut rest = &all[..];
        let mut commands = Vec::new();
        while let Some((length, tail)) = rest.split_first_chunk::<8>() {
            let (command, tail) = tail.split_at(u64::from_be_bytes(*length) as usize);
            commands.push(command.to_vec());
            rest = tail;
        }
        Some(commands)
    }

    /// Every command applied so far by anybody, by index.
    pub fn applied(&self) -> BTreeMap<u64, Vec<u8>> {
        lock(&self.seen).log.clone()
    }

    /// How often a command was applied, by index.
    pub fn times(&self, command: &[u8]) -> usize {
        lock(&self.seen)
            .log
            .values()
            .filter(|c| &c[..] == command)
            .count()
    }

    /// Waits until all these nodes have applied the same, through at least `index`, and have
    /// equal digests.
    pub async fn settle(&self, nodes: &[u64], index: u64) {
        eventually("equal replicas", Duration::from_secs(60), || async {
            let status: Vec<_> = nodes.iter().filter_map(|n| self.status(*n)).collect();
            status.len() == nodes.len()
                && status.iter().all(|s| s.applied >= index)
                && status
                    .windows(2)
                    .all(|w| (w[0].applied, w[0].digest) == (w[1].applied, w[1].digest))
        })
        .await;
    }
}
