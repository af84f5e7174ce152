//! The mover: runs the errands of a group's machine while this member leads it.
//!
//! ```text
//!   machine ──agenda──▶ plan ──errands──▶ one task each ──calls──▶ controllers, other groups
//!      ▲                                       │
//!      └────────── commands, fenced ───────────┘
//! ```
//!
//! Every errand is repeated until the agenda no longer names it. A member that does not lead (any
//! more) drops its errands at once; what they already sent comes back as commands that name their
//! configuration, and a late one changes nothing. Absent: pacing of a move against the clients'
//! load, and copying before the freeze.

pub mod answer;
mod peers;
pub mod plan;
pub mod wire;
mod work;

pub use peers::Peers;

use crate::machine::KvMachine;
use crate::machine::notice::Notice;
use crate::machine::query::{Agenda, Query};
use ctrler::client::Client;
use ctrler::config::{Group, GroupId};
use plan::Errand;
use raft::Replica;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::task::JoinHandle;
use work::Work;

/// Leadership and agenda are looked at this often even when nothing rings.
const POLL: Duration = Duration::from_millis(50);

/// What the mover works with.
pub struct Mover {
    /// This group.
    pub group: GroupId,
    /// Its members' addresses, for its record.
    pub servers: Vec<String>,
    /// The replica.
    pub replica: Replica<KvMachine>,
    /// Rings when the agenda changed.
    pub notice: Arc<Notice>,
    /// The controllers.
    pub ctrlers: Client,
    /// The other groups.
    pub peers: Peers,
    /// The controllers have this group with this birth id in their records.
    pub recorded: AtomicBool,
}

/// Tasks under way; they end with the value.
#[derive(Default)]
struct Running(BTreeMap<Errand, JoinHandle<()>>);

impl Running {
    fn retain(&mut self, wanted: &BTreeSet<Errand>) {
        self.0.retain(|errand, task| {
            let keep = wanted.contains(errand);
            if !keep {
                task.abort();
            }
            keep
        });
    }

    /// A report that was made need not be made again; anything else that ended and is still
    /// wanted is begun again.
    fn has(&self, errand: &Errand) -> bool {
        self.0
            .get(errand)
            .is_some_and(|task| matches!(errand, Errand::Report { .. }) || !task.is_finished())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in self.0.values() {
            task.abort();
        }
    }
}

impl Mover {
    /// This group's entry in the controllers' records.
    fn info(&self, birth: u128) -> Group {
        Group {
            servers: self.servers.clone(),
            birth,
        }
    }

    /// What the machine has to do, as of now and here.
    async fn agenda(&self) -> Option<Agenda> {
        let reply = self.replica.inspect(Query::Agenda.to_bytes()).await.ok()?;
        postcard::from_bytes(&reply).ok()
    }

    /// Runs errands for ever; they end when the future is dropped.
    pub async fn run(self: Arc<Mover>) {
        let mut running = Running::default();
        loop {
            let agenda = match self.replica.is_leader() {
                true => self.agenda().await,
                false => None,
            };
            match agenda {
                None => running = Running::default(),
                Some(agenda) => {
                    let wanted: BTreeSet<Errand> = plan::plan(&agenda).into_iter().collect();
                    running.retain(&wanted);
                    for errand in wanted {
                        if !running.has(&errand) {
                            let work = Work {
                                mover: self.clone(),
                                birth: agenda.birth,
                            };
                            let task = tokio::spawn(work.run(errand.clone()));
                            running.0.insert(errand, task);
                        }
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.notice.heard() => {}
                () = world::clock::sleep(POLL) => {}
            }
        }
    }
}
