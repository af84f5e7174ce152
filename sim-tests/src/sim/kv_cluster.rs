//! A whole cluster: controllers, groups and clients, started from the entry points the binaries
//! call.

use super::nodes::{Key, Nodes, eventually};
use ctrler::config::{Config, ConfigNum, Group, GroupId, ShardId};
use kv::api;
use kv::client::{Client, ClientOptions};
use raft::replica::{Fatal, Options};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};
use world::disk::SimDiskOptions;
use world::net::{BoxFuture, Hello, Limits, Link, PROTOCOL};

/// Port of every server.
const PORT: u16 = 7000;
/// For setting up.
const LONG: Duration = Duration::from_secs(60);

/// What a [`KvCluster`] is made with.
#[derive(Clone)]
pub struct KvOptions {
    /// Controllers.
    pub ctrlers: u64,
    /// Groups made (started, not joined): 1, 2, …
    pub groups: u64,
    /// Members of each group.
    pub replicas: u64,
    /// Shards.
    pub shards: u32,
    /// Disks.
    pub disk: SimDiskOptions,
    /// Changes every replica's options.
    pub adjust: Arc<dyn Fn(&mut Options) + Send + Sync>,
    /// Time for one client operation.
    pub deadline: Duration,
}

impl Default for KvOptions {
    fn default() -> Self {
        KvOptions {
            ctrlers: 3,
            groups: 1,
            replicas: 3,
            shards: ctrler::config::DEFAULT_SHARDS,
            disk: SimDiskOptions::default(),
            adjust: Arc::new(|_| {}),
            deadline: Duration::from_secs(60),
        }
    }
}

/// Small limits: flushes, snapshots, rewrites and cut logs after some tens of KiB.
pub fn small(options: &mut Options) {
    options.log.segment_bytes = 64 << 10;
    options.log.fill_bytes = 16 << 10;
    options.log.recover_bytes = 0;
    options.log.reserve_bytes = 64 << 10;
    options.store.overlay_bytes = 24 << 10;
    options.store.overlay_limit = 128 << 10;
    options.store.rewrite_min_bytes = 128 << 10;
    options.store.chunk_bytes = 4 << 10;
    options.store.cache_bytes = 1 << 20;
    options.store.reserve_bytes = 16 << 10;
    options.keep_log_bytes = 8 << 10;
    options.flush_log_bytes = 16 << 10;
    options.max_kept_log_bytes = 256 << 10;
    options.patience = Duration::ZERO;
    options.cache_log_bytes = 2 << 10;
    options.max_unflushed_bytes = 32 << 10;
    options.max_unapplied_bytes = 64 << 10;
}

/// A cluster. Cheap to clone. Group 0 is the controllers'.
#[derive(Clone)]
pub struct KvCluster {
    /// The machines below.
    pub nodes: Nodes,
    options: KvOptions,
    keys: Arc<BTreeMap<(GroupId, u64), Key>>,
}

pub(super) fn address(group: GroupId, node: u64) -> (Ipv4Addr, String) {
    let ip = Ipv4Addr::new(10, 0, group as u8, node as u8);
    (ip, format!("{ip}:{PORT}"))
}

fn members(group: GroupId, count: u64) -> BTreeMap<u64, String> {
    (1..=count).map(|n| (n, address(group, n).1)).collect()
}

impl KvCluster {
    /// A started cluster in which no group has joined yet.
    pub fn new(options: KvOptions) -> KvCluster {
        let nodes = Nodes::new();
        super::invariants::install();
        super::ownership::install();
        let mut keys = BTreeMap::new();
        let ctrlers: Vec<String> = members(0, options.ctrlers).into_values().collect();
        for group in 0..=options.groups {
            let count = if group == 0 {
                options.ctrlers
            } else {
                options.replicas
            };
            for node in 1..=count {
                let (ip, _) = address(group, node);
                let mut replica = Options::new(group, node, members(group, count));
                (options.adjust)(&mut replica);
                let listen = format!("0.0.0.0:{PORT}");
                let (shards, ctrlers) = (options.shards, ctrlers.clone());
                let program =
                    move |disk, shutdown: BoxFuture<()>| -> BoxFuture<Result<(), Fatal>> {
                        let (replica, listen) = (replica.clone(), listen.clone());
                        if group == 0 {
                            let options = ctrler::server::ServerOptions {
                                replica,
                                listen,
                                shards,
                            };
                            Box::pin(ctrler::server::run(options, disk, shutdown))
                        } else {
                            let ctrlers = ctrlers.clone();
                            let options = kv::server::ServerOptions {
                                replica,
                                listen,
                                ctrlers,
                            };
                            Box::pin(kv::server::run(options, disk, shutdown))
                        }
                    };
                let name = if group == 0 {
                    format!("ctrler-{node}")
                } else {
                    format!("kv-{group}-{node}")
                };
                let key = nodes.add(&name, ip, options.disk.clone(), Arc::new(program));
                keys.insert((group, node), key);
                nodes.start(key);
            }
        }
        KvCluster {
            nodes,
            options,
            keys: Arc::new(keys),
        }
    }

    /// A started cluster in which these groups have joined and serve.
    pub async fn with_groups(options: KvOptions, joined: &[GroupId]) -> KvCluster {
        let cluster = KvCluster::new(options);
        cluster.join(joined).await;
        cluster
    }

    /// The machine of a server.
    pub fn key(&self, group: GroupId, node: u64) -> Key {
        self.keys[&(group, node)]
    }

    /// All machines of a group.
    pub fn group(&self, group: GroupId) -> Vec<Key> {
        self.keys
            .iter()
            .filter(|((g, _), _)| *g == group)
            .map(|(_, key)| *key)
            .collect()
    }

    /// All machines.
    pub fn all(&self) -> Vec<Key> {
        self.keys.values().copied().collect()
    }

    /// Addresses of the controllers.
    pub fn ctrlers(&self) -> Vec<String> {
        members(0, self.options.ctrlers).into_values().collect()
    }

    /// Node numbers of a group's members.
    pub fn members(&self, group: GroupId) -> Vec<u64> {
        self.keys
            .keys()
            .filter(|(g, _)| *g == group)
            .map(|(_, node)| *node)
            .collect()
    }

    /// A client of the store; to be made and used on a machine (see [`Nodes::run`]).
    pub fn client(&self) -> Client {
        self.client_within(self.options.deadline)
    }

    /// A client that gives up after `deadline`.
    pub fn client_within(&self, deadline: Duration) -> Client {
        Client::new(ClientOptions {
            ctrlers: self.ctrlers(),
            deadline,
        })
    }

    /// The n-th key of a shard.
    pub fn key_of(&self, shard: ShardId, n: usize) -> Vec<u8> {
        (0u64..)
            .map(|i| format!("s{i}").into_bytes())
            .filter(|key| kv::slot::shard(key, self.options.shards) == shard)
            .nth(n)
            .expect("every shard has keys without end")
    }

    /// A client of the controllers; to be made and used on a machine.
    pub fn controller(&self) -> ctrler::client::Client {
        ctrler::client::Client::new(self.ctrlers(), Arc::new(hello))
    }

    /// Asks one server's group who it is.
    pub async fn identify(&self, group: GroupId) -> Group {
        let request = postcard::to_allocvec(&api::Request::Identify).expect("encodes");
        for node in (1..=self.options.replicas).cycle() {
            let (_, target) = address(group, node);
            let link = Link::new(
                target,
                Limits::default(),
                Arc::new(hello),
                Arc::new(|_: &Hello| Ok(())),
            );
            let answer = link
                .call(api::CHANNEL, request.clone().into(), Duration::from_secs(1))
                .await;
            if let Ok(body) = answer
                && let Ok(api::Response::Identity {
                    birth: Some(birth),
                    servers,
                    ..
                }) = postcard::from_bytes(&body)
            {
                return Group { servers, birth };
            }
            sleep(Duration::from_millis(50)).await;
        }
        unreachable!("the cycle is endless")
    }

    /// Joins groups; waits until the controllers have it.
    pub async fn join(&self, groups: &[GroupId]) -> ConfigNum {
        let cluster = self.clone();
        let groups = groups.to_vec();
        self.nodes
            .run(async move {
                let mut joining = BTreeMap::new();
                for group in groups {
                    let identity = timeout(LONG, cluster.identify(group)).await;
                    joining.insert(group, identity.expect("the group answers"));
                }
                let done = cluster.controller().join(joining, LONG).await;
                done.expect("the join is accepted")
            })
            .await
    }

    /// Removes groups; does not wait for them to hand over.
    pub async fn leave(&self, groups: &[GroupId]) -> ConfigNum {
        let (controller, groups) = (self.clone(), groups.to_vec());
        self.nodes
            .run(async move { controller.controller().leave(groups, LONG).await })
            .await
            .expect("the leave is accepted")
    }

    /// Pins a shard to a group.
    pub async fn move_shard(&self, shard: ShardId, group: GroupId) -> ConfigNum {
        let cluster = self.clone();
        self.nodes
            .run(async move { cluster.controller().move_shard(shard, group, LONG).await })
            .await
            .expect("the move is accepted")
    }

    /// The latest configuration.
    pub async fn config(&self) -> Config {
        let cluster = self.clone();
        self.nodes
            .run(async move { cluster.controller().query(None, LONG).await })
            .await
            .expect("the controllers answer")
    }

    /// Waits until every group has settled the latest configuration: nothing is on its way.
    pub async fn settled(&self) {
        let cluster = self.clone();
        self.nodes
            .run(async move { cluster.wait_settled().await })
            .await;
    }

    async fn wait_settled(&self) {
        let controller = &self.controller();
        eventually(
            "all groups settled",
            Duration::from_secs(120),
            || async move {
                let Ok(config) = controller.query(None, LONG).await else {
                    return false;
                };
                let Ok(records) = controller.records(LONG).await else {
                    return false;
                };
                let settled = |g| records.get(g).is_some_and(|r| r.settled >= config.num);
                config.groups.keys().all(settled)
            },
        )
        .await;
    }

    /// Waits until a group that left is done: it holds nothing and may be shut down.
    pub async fn left(&self, group: GroupId, since: ConfigNum) {
        let cluster = self.clone();
        self.nodes
            .run(async move { cluster.wait_left(group, since).await })
            .await;
    }

    async fn wait_left(&self, group: GroupId, since: ConfigNum) {
        let controller = &self.controller();
        eventually(
            "the group has handed over",
            Duration::from_secs(120),
            || async move {
                let record = controller.record(group, LONG).await;
                matches!(record, Ok(Some(r)) if r.settled >= since && !r.holds)
            },
        )
        .await;
    }

    /// Kills every server of a group.
    pub fn kill_group(&self, group: GroupId) {
        for key in self.group(group) {
            if self.nodes.is_up(key) {
                self.nodes.kill(key);
            }
        }
    }

    /// Starts every server of a group that is down.
    pub fn start_group(&self, group: GroupId) {
        for key in self.group(group) {
            if !self.nodes.is_up(key) {
                self.nodes.start(key);
            }
        }
    }
}

/// A client's hello.
pub(super) fn hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        cluster: None,
        group: None,
        node: 0,
        disk: 0,
        boot: 0,
        nonce: 0,
        to: None,
        before: Vec::new(),
        level: 1,
    }
}
