//! A cluster of cores with disks that lose what is not synced and a network of loose mails.
//! Whatever a node does is carried out here, and checked here.
#![allow(dead_code, missing_docs)]

pub mod checker;
pub mod show;
pub mod solo;

use checker::Checker;
use raft_protocol::*;
use std::collections::{BTreeMap, VecDeque};

/// What lies on a node's disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    pub hard: HardState,
    pub base: SnapshotMeta,
    pub entries: Vec<Entry>,
    /// The state machine's stamp.
    pub applied: Index,
    /// What was known to be committed with the last write.
    pub commit: Index,
    pub born: bool,
    pub state_lost: bool,
}

impl Disk {
    pub fn last(&self) -> Index {
        self.base.index + self.entries.len() as u64
    }

    pub fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        let at = index.checked_sub(self.base.index + 1)?;
        self.entries.get(at as usize).map(|e| e.term)
    }

    /// What a driver reads for a follower.
    pub fn fetch(&self, fetch: &Fetch) -> Vec<Entry> {
        if fetch.after < self.base.index {
            return Vec::new();
        }
        let last = fetch.terms.last().map_or(0, |(last, _)| *last);
        let behind = |e: &&Entry| e.index > fetch.after && e.index <= last;
        let mut bytes = 0;
        let fits = |e: &&Entry| {
            let first = bytes == 0;
            bytes += e.size();
            first || bytes <= fetch.max_bytes
        };
        let entries = self.entries.iter().filter(behind);
        entries.take_while(fits).cloned().collect()
    }

    fn write(&mut self, write: &Write) {
        self.hard = write.hard_state;
        self.commit = write.commit;
        if let Some(meta) = &write.reset {
            self.base = meta.clone();
            self.entries.clear();
            self.applied = meta.index;
            self.state_lost = false;
        }
        if let Some(first) = write.entries.first() {
            assert!(
                first.index > self.base.index && first.index <= self.last() + 1,
                "write leaves a gap"
            );
            self.entries
                .truncate((first.index - self.base.index - 1) as usize);
            self.entries.extend(write.entries.iter().cloned());
        }
    }
}

pub struct Node {
    pub core: Option<Core>,
    pub disk: Disk,
    /// Handed out, not on disk.
    pub pending: VecDeque<Write>,
    /// On disk, not reported.
    pub unreported: Option<u64>,
    /// Applied in memory.
    pub applied: Index,
    /// Resets under way: write, leader, index.
    installs: Vec<(u64, NodeId, Index)>,
    pub lives: u64,
}

#[derive(Clone, Debug)]
pub enum Parcel {
    Message(Message),
    Offer {
        term: Term,
        meta: SnapshotMeta,
    },
    /// All chunks of an accepted offer arrived.
    Ready {
        meta: SnapshotMeta,
    },
    Sent {
        installed: Option<Index>,
    },
    /// To itself: the disk is to be read.
    Fetch(Fetch),
}

#[derive(Clone, Debug)]
pub struct Mail {
    pub from: NodeId,
    pub to: NodeId,
    pub parcel: Parcel,
}

pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub mail: Vec<Mail>,
    pub settings: Settings,
    pub seed: u64,
    pub checker: Checker,
    /// What happened, in words, when `settings.explain` is set.
    pub trace: String,
}

pub fn settings() -> Settings {
    Settings {
        election_ticks: 10,
        heartbeat_ticks: 3,
        max_append_bytes: 400,
        max_inflight: 4,
        max_inflight_bytes: 1000,
        max_uncommitted_bytes: 4000,
        cache_bytes: 0,
        explain: true,
    }
}

pub fn configuration(nodes: u64) -> Configuration {
    Configuration {
        voters: (1..=nodes).map(|n| (n, u128::from(n))).collect(),
        ..Default::default()
    }
}

pub fn entry(term: Term, index: Index) -> Entry {
    let body = Body::Command(Payload::from(format!("{index}@{term}")));
    Entry { term, index, body }
}

/// A log of the given terms, from index 1.
pub fn log(terms: &[Term]) -> Vec<Entry> {
    terms.iter().zip(1..).map(|(t, i)| entry(*t, i)).collect()
}

impl Cluster {
    pub fn new(nodes: u64, settings: Settings, seed: u64) -> Cluster {
        let mut cluster = Cluster {
            nodes: BTreeMap::new(),
            mail: Vec::new(),
            settings,
            seed,
            checker: Checker::default(),
            trace: String::new(),
        };
        let base = SnapshotMeta {
            configuration: configuration(nodes),
            ..Default::default()
        };
        for id in 1..=nodes {
            let disk = Disk {
                base: base.clone(),
                born: true,
                ..Default::default()
            };
            cluster.place(id, disk);
        }
        cluster
    }

    /// Puts a node with this disk in place and starts it.
    pub fn place(&mut self, id: NodeId, disk: Disk) {
        let node = Node {
            core: None,
            disk,
            pending: VecDeque::new(),
            unreported: None,
            applied: 0,
            installs: Vec::new(),
            lives: 0,
        };
        self.nodes.insert(id, node);
        self.restart(id);
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[&id]
    }

    pub fn core(&self, id: NodeId) -> &Core {
        self.nodes[&id].core.as_ref().expect("node is up")
    }

    pub fn up(&self) -> Vec<NodeId> {
        self.nodes
            .iter()
            .filter(|(_, n)| n.core.is_some())
            .map(|(id, _)| *id)
            .collect()
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |id: &NodeId| self.core(*id).status().role == Role::Leader;
        let term = |id: &NodeId| self.core(*id).status().term;
        self.up().into_iter().filter(leads).max_by_key(term)
    }

    pub fn note(&mut self, line: impl AsRef<str>) {
        if self.settings.explain {
            self.trace.push_str(line.as_ref());
            self.trace.push('\n');
        }
    }

    /// Ends a node; what is not on its disk is gone.
    pub fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("node exists");
        node.core = None;
        node.pending.clear();
        node.unreported = None;
        // The sender sees its connection break.
        for (_, leader, _) in std::mem::take(&mut node.installs) {
            let parcel = Parcel::Sent { installed: None };
            self.mail.push(Mail {
                from: id,
                to: leader,
                parcel,
            });
        }
    }

    pub fn restart(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("node exists");
        node.lives += 1;
        node.applied = if node.disk.state_lost {
            node.disk.base.index
        } else {
            node.disk.applied
        };
        let disk = node.disk.clone();
        node.core = Some(Core::new(Start {
            id,
            settings: self.settings.clone(),
            seed: self.seed.wrapping_mul(1_000_003) + id * 7919 + node.lives * 104_729,
            hard_state: disk.hard,
            base: disk.base,
            entries: disk.entries,
            applied: node.applied,
            commit: disk.commit,
            born: disk.born,
            state_lost: disk.state_lost,
        }));
        self.checker.forget(id, node.applied);
    }

    /// Steps a node and carries out what it wants.
    pub fn step(&mut self, id: NodeId, input: Input) -> Output {
        let node = self.nodes.get_mut(&id).expect("node exists");
        let Some(core) = node.core.as_mut() else {
            return Output::default();
        };
        let out = core.step(input);
        for line in show::output(id, &out) {
            self.note(line);
        }
        let node = self.nodes.get_mut(&id).expect("node exists");
        if let Some(write) = &out.write {
            node.pending.push_back(write.clone());
        }
        if let Some(through) = out.apply_through {
            assert!(
                through <= node.disk.last(),
                "node {id} applies {through}, which it has not synced"
            );
            node.applied = through;
        }
        for Envelope { to, message } in out.messages.iter().cloned() {
            checker::promise_is_synced(id, &message, node);
            self.mail.push(Mail {
                from: id,
                to,
                parcel: Parcel::Message(message),
            });
        }
        for to in &out.snapshots {
            let term = node.core.as_ref().map_or(0, |c| c.status().term);
            let meta = node.snapshot();
            self.mail.push(Mail {
                from: id,
                to: *to,
                parcel: Parcel::Offer { term, meta },
            });
        }
        for fetch in &out.fetches {
            self.mail.push(Mail {
                from: id,
                to: id,
                parcel: Parcel::Fetch(fetch.clone()),
            });
        }
        self.checker.reads_answered(id, &out);
        self.checker.observe(id, &self.nodes);
        out
    }

    /// Puts the first `count` pending writes on disk, without telling the core.
    pub fn write(&mut self, id: NodeId, count: usize) {
        let node = self.nodes.get_mut(&id).expect("node exists");
        for _ in 0..count.min(node.pending.len()) {
            let write = node.pending.pop_front().expect("counted");
            node.disk.write(&write);
            node.unreported = Some(write.number);
        }
    }

    /// Tells the core what is on disk.
    pub fn report(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("node exists");
        let Some(number) = node.unreported.take() else {
            return;
        };
        let done = |i: &(u64, NodeId, Index)| i.0 <= number;
        let installed: Vec<_> = node.installs.iter().copied().filter(done).collect();
        node.installs.retain(|i| !done(i));
        for (_, leader, index) in installed {
            node.applied = node.applied.max(index);
            let parcel = Parcel::Sent {
                installed: Some(index),
            };
            self.mail.push(Mail {
                from: id,
                to: leader,
                parcel,
            });
        }
        self.step(id, Input::Persisted(number));
    }

    pub fn persist(&mut self, id: NodeId) {
        self.write(id, usize::MAX);
        self.report(id);
    }

    pub fn deliver(&mut self, mail: Mail) {
        let Mail { from, to, parcel } = mail;
        if self.nodes.get(&to).is_none_or(|n| n.core.is_none()) {
            if let Parcel::Offer { .. } | Parcel::Ready { .. } = parcel {
                let parcel = Parcel::Sent { installed: None };
                self.mail.push(Mail {
                    from: to,
                    to: from,
                    parcel,
                });
            }
            return;
        }
        match parcel {
            Parcel::Message(message) => {
                self.step(to, Input::Receive { from, message });
            }
            Parcel::Offer { term, meta } => {
                let offer = Input::SnapshotOffered {
                    from,
                    term,
                    meta: meta.clone(),
                };
                let parcel = match self.step(to, offer).snapshot_accepted {
                    Some(true) => {
                        return self.mail.push(Mail {
                            from,
                            to,
                            parcel: Parcel::Ready { meta },
                        });
                    }
                    _ => Parcel::Sent { installed: None },
                };
                self.mail.push(Mail {
                    from: to,
                    to: from,
                    parcel,
                });
            }
            Parcel::Ready { meta } => {
                let index = meta.index;
                match self.step(to, Input::SnapshotReady(meta)).write {
                    Some(Write {
                        number,
                        reset: Some(_),
                        ..
                    }) => {
                        let node = self.nodes.get_mut(&to).expect("node exists");
                        node.installs.push((number, from, index));
                    }
                    _ => {
                        let parcel = Parcel::Sent { installed: None };
                        self.mail.push(Mail {
                            from: to,
                            to: from,
                            parcel,
                        });
                    }
                }
            }
            Parcel::Fetch(fetch) => {
                let entries = self.nodes[&to].disk.fetch(&fetch);
                let to_whom = fetch.to;
                let fetched = Input::Fetched {
                    to: to_whom,
                    entries,
                };
                self.step(to, fetched);
            }
            Parcel::Sent { installed } => {
                self.step(
                    to,
                    Input::SnapshotSent {
                        to: from,
                        installed,
                    },
                );
            }
        }
    }

    /// Delivers everything that is under way now; not what comes of it.
    pub fn deliver_all(&mut self) {
        for mail in std::mem::take(&mut self.mail) {
            self.deliver(mail);
        }
    }

    /// Syncs and delivers until nothing is left to do.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let busy = |n: &Node| !n.pending.is_empty() || n.unreported.is_some();
            if self.mail.is_empty() && !self.nodes.values().any(busy) {
                return;
            }
            for id in self.up() {
                self.persist(id);
            }
            self.deliver_all();
        }
        panic!("the cluster does not settle");
    }

    pub fn tick(&mut self, id: NodeId, ticks: u32) {
        for _ in 0..ticks {
            self.step(id, Input::Tick);
        }
    }

    /// Ticks a node until it campaigns; what it asks again until then is lost.
    pub fn campaign(&mut self, id: NodeId) {
        for _ in 0..2 * self.settings.election_ticks {
            let sent = self.mail.len();
            let out = self.step(id, Input::Tick);
            if asks_again(&out) {
                self.mail.truncate(sent);
            } else if out.role.is_some() || out.write.is_some() || !out.messages.is_empty() {
                return;
            }
        }
    }

    /// Makes a node leader of a cluster in which nothing is lost.
    pub fn elect(&mut self, id: NodeId) {
        let others: Vec<NodeId> = self.up().into_iter().filter(|n| *n != id).collect();
        for other in others {
            // Their leader falls silent.
            self.tick(other, self.settings.election_ticks - 1);
            self.mail.clear();
        }
        self.campaign(id);
        self.settle();
    }

    pub fn propose(&mut self, id: NodeId, payload: &str) -> Option<Proposed> {
        self.step(id, Input::Propose(vec![Payload::from(payload)]))
            .proposed
    }
}

/// Whether a node repeats, within its timeout, what it asked when it began to stand.
pub fn asks_again(out: &Output) -> bool {
    let again = |reason: &String| reason.ends_with("ask again");
    out.reasons.iter().any(again)
}

impl Node {
    /// A snapshot of the state as applied.
    pub fn snapshot(&self) -> SnapshotMeta {
        let core = self.core.as_ref().expect("node is up");
        let (base, index) = (core.base(), self.applied);
        let term = core.term_at(index).unwrap_or(base.term);
        SnapshotMeta {
            index,
            term,
            configuration: base.configuration.clone(),
        }
    }

    /// The state up to what is applied is durable; the log behind it may go.
    pub fn flush(&mut self) -> Index {
        self.disk.applied = self.disk.applied.max(self.applied);
        self.disk.applied
    }
}
