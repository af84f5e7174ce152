//! Opening a data directory and starting the tasks.

use super::apply::Applier;
use super::consensus::Consensus;
use super::error::Fatal;
use super::handle::Replica;
use super::log_task;
use super::meet;
use super::options::Options;
use super::peers::Peers;
use super::shared::{Shared, lock};
use super::space;
use super::told;
use crate::identity::{self, Identity};
use crate::log::{Log, LogError, LogOwner, Recovered};
use crate::machine::Machine;
use crate::store::{Opened, Stamp, Store};
use raft_protocol::{Core, Start};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use world::disk::{DirLock, Disk};
use world::entropy;
use world::net::BoxFuture;

impl<M: Machine> Replica<M> {
    /// Opens the disk and starts the tasks. The returned future is the replica's life: it ends
    /// with a fatal error, or with `Ok` after [`Replica::stop`]. Dropping it ends the tasks.
    pub async fn start(
        options: Options,
        disk: Disk,
        mut machine: M,
    ) -> Result<(Replica<M>, BoxFuture<Result<(), Fatal>>), Fatal> {
        let (group, node) = (options.group, options.node);
        let opened = disk.clone();
        let members = options.peers.keys().copied().collect();
        let opening = move || {
            // Refused before anything is written.
            identity::check_members(&opened, group, node, &members)?;
            identity::open(&opened, group, node)
        };
        let (identity, dir_lock) = disk.job(opening).await?;
        let (store, lost) = match Store::open(&disk, options.store.clone()).await? {
            Opened::Ready(store) => (*store, None),
            Opened::Lost(store, reason) => (*store, Some(reason)),
        };
        let stamp = store.stamp();
        let owner = LogOwner {
            group,
            node,
            disk: identity.disk,
        };
        let (opened, log_options, covered) = (disk.clone(), options.log.clone(), stamp.meta());
        let born = identity.born;
        let recovery = move || {
            // Judged before anything is made: after another restart a log just made would pass.
            match born && !Log::exists(&opened)? {
                true => Ok(None),
                false => Log::open(&opened, owner, log_options, &covered).map(Some),
            }
        };
        let recovered: Result<_, LogError> = disk.job(recovery).await;
        let Some((log, recovered)) = recovered? else {
            // It may have promised what the log held; empty-handed it must not go on.
            return Err(Fatal::Other(format!(
                "{}: the log is gone, although this member has had its vote: put the directory \
                 back as it was",
                disk.path("log").display()
            )));
        };
        report(group, node, &recovered);
        // A lost state is replayed from a log that still begins at its beginning.
        let state_lost = recovered.base.index > stamp.index;
        let lost = lost.or_else(|| {
            let gone = || format!("{} is missing", disk.path("CURRENT").display());
            state_lost.then(gone)
        });
        let state_was_lost = lost.is_some();
        if let Some(reason) = lost {
            let cure = if state_lost {
                "a peer's snapshot"
            } else {
                "the log"
            };
            tracing::error!(group, node, %reason, "state lost: to be rebuilt from {cure}");
        }
        machine.load(store.rows())?;
        let damaged = recovered.damage.is_some();
        let core = core(&options, &identity, &stamp, recovered, state_lost);

        let (shared, ends) = Shared::new(options, disk, identity, core.status(), &stamp);
        let (boot, members) = (lock(&shared.identity).boot, shared.options.peers.len());
        told::start(shared.site, &core, boot, members, damaged, state_was_lost);
        let (log_ops, log_rx) = mpsc::unbounded_channel();
        let mut store = store;
        if stamp.configuration.voters.is_empty() {
            store.set_configuration(meet::initial_configuration(&lock(&shared.identity)));
        }
        let peers = Peers::new(shared.clone());
        let handed = core.base().index.max(stamp.index);
        let raft = Consensus::new(
            shared.clone(),
            core,
            peers,
            (log_ops, log.reader()),
            ends.inbox,
            ends.internal,
            handed,
        );
        let applier = Applier::new(shared.clone(), store, machine, ends.apply);
        let born = lock(&shared.identity).born;
        let tasks = Tasks {
            raft: tokio::spawn(raft.run()),
            log: tokio::spawn(log_task::run(shared.clone(), log, log_rx)),
            apply: tokio::spawn(applier.run()),
            space: tokio::spawn(space::watch(shared.clone())),
            announced: meet::announce(&shared),
            birth: (!born).then(|| {
                let birth = meet::birth(shared.clone());
                tokio::spawn(async move { Ok(birth.await?) })
            }),
            _lock: dir_lock,
        };
        let life = Box::pin(life(shared.clone(), tasks));
        Ok((Replica::new(shared), life))
    }
}

fn report(group: u64, node: u64, recovered: &Recovered) {
    if let Some(torn) = &recovered.torn {
        tracing::info!(group, node, "cut an unfinished write off the log: {torn}");
    }
    if let Some(damage) = &recovered.damage {
        tracing::error!(
            group,
            node,
            "damaged log, cut there; this node abstains: {damage}"
        );
    }
}

fn core(
    options: &Options,
    identity: &Identity,
    stamp: &Stamp,
    recovered: Recovered,
    state_lost: bool,
) -> Core {
    let mut base = recovered.base;
    if base.configuration.voters.is_empty() {
        base.configuration = if base.index == stamp.index {
            stamp.configuration.clone()
        } else {
            raft_protocol::Configuration::default()
        };
    }
    if base.configuration.voters.is_empty() {
        base.configuration = meet::initial_configuration(identity);
    }
    Core::new(Start {
        id: options.node,
        settings: options.settings(),
        seed: entropy::random_u64(),
        hard_state: recovered.hard_state,
        commit: recovered.commit,
        applied: stamp.index.max(base.index),
        base,
        entries: recovered.entries,
        born: identity.born,
        state_lost,
    })
}

struct Tasks {
    raft: JoinHandle<()>,
    log: JoinHandle<Result<(), Fatal>>,
    apply: JoinHandle<Result<(), Fatal>>,
    space: JoinHandle<()>,
    birth: Option<JoinHandle<Result<(), Fatal>>>,
    announced: Vec<JoinHandle<()>>,
    _lock: DirLock,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.raft.abort();
        self.log.abort();
        self.apply.abort();
        self.space.abort();
        self.announced.iter().for_each(JoinHandle::abort);
        if let Some(birth) = &self.birth {
            birth.abort();
        }
    }
}

/// Until a task fails, or all of them ended after a stop.
async fn life(shared: Arc<Shared>, mut tasks: Tasks) -> Result<(), Fatal> {
    loop {
        tokio::select! {
            biased;
            error = shared.failed() => return Err(error),
            ended = &mut tasks.log => {
                // It ends by itself only when the Raft task is gone.
                flatten(ended)?;
                break;
            }
            ended = &mut tasks.apply => {
                flatten(ended)?;
                return Err(Fatal::Other("the apply task ended".into()));
            }
            ended = birth(&mut tasks.birth) => {
                tasks.birth = None;
                flatten(ended)?;
            }
        }
    }
    if let Err(error) = (&mut tasks.raft).await {
        return Err(Fatal::Other(format!("the Raft task failed: {error}")));
    }
    if !shared.is_stopping() {
        return Err(Fatal::Other("the Raft task ended".into()));
    }
    let _ = shared.apply.send(super::shared::Apply::Stop);
    flatten((&mut tasks.apply).await)
}

async fn birth(
    task: &mut Option<JoinHandle<Result<(), Fatal>>>,
) -> Result<Result<(), Fatal>, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}

fn flatten(ended: Result<Result<(), Fatal>, impl std::fmt::Display>) -> Result<(), Fatal> {
    ended.unwrap_or_else(|error| Err(Fatal::Other(format!("a task failed: {error}"))))
}
