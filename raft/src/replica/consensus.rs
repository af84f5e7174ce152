//! The Raft task: owns the core, and nothing that blocks.
//!
//! One turn drains the inbox, steps what it found, and hands out what the core wants done: at
//! most one batch to the log, one mail per peer. A tick is taken only after the inbox is drained,
//! and missed ticks collapse into one, so that a slow machine alone deposes nobody.

#[path = "proposals.rs"]
mod proposals;
#[path = "snapshots.rs"]
mod snapshots;

use super::error::{ProposeError, ReadError};
use super::log_task::LogOp;
use super::peers::Peers;
use super::shared::{
    APPLY_WINDOW_BYTES, Apply, Committed, Event, INBOX, Internal, Query, Shared, View, Waiter, lock,
};
use super::throttle::Throttle;
use super::told;
use super::wire::unwrap;
use crate::log::LogReader;
use raft_protocol::{Body, Core, Entry, Index, Input, Output, Payload, ReadRefusal, Role, Term};
use snapshots::Snapshots;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::mpsc;
use world::clock::{Instant, sleep_until};
use world::observe;

/// Appends that may still arrive when the log in memory is full, bytes.
const IN_FLIGHT_BYTES: usize = 16 << 20;
/// Batches of reads the core keeps at the most; beyond, it refuses.
const READS: usize = 2 * 16_384;

/// Appends are dropped unread while what is committed of the log in memory is above
/// `Options::max_unapplied_bytes`: a follower whose state machine cannot keep up holds its leader back
/// instead of growing. What is not committed does not count: only more of it may get it committed
/// (a new leader's first entry stands behind all of it, §5.4.2), and the leader bounds it.
pub(super) struct Consensus {
    shared: Arc<Shared>,
    core: Core,
    peers: Peers,
    log: mpsc::UnboundedSender<LogOp>,
    reader: LogReader,
    inbox: mpsc::Receiver<Event>,
    internal: mpsc::UnboundedReceiver<Internal>,
    waiters: BTreeMap<Index, (Term, Waiter)>,
    reads: BTreeMap<u64, Vec<Query>>,
    next_read: u64,
    /// Proposals that wait for their turn, and reads gathered in this one.
    proposals: VecDeque<(Payload, Waiter)>,
    queries: Vec<Query>,
    /// Entries through here may be applied; were handed to the apply task.
    apply_through: Index,
    handed: Index,
    handed_bytes: usize,
    /// Log time of the last command handed out.
    handed_time: u64,
    snapshots: Snapshots,
    throttle: Throttle,
    /// Log time when this node became leader, and when that was.
    lead_time: (u64, Instant),
    role: Role,
    leads_from: Option<Index>,
    abstains: bool,
    pulse: told::Pulse,
}

impl Consensus {
    pub(super) fn new(
        shared: Arc<Shared>,
        core: Core,
        peers: Peers,
        (log, reader): (mpsc::UnboundedSender<LogOp>, LogReader),
        inbox: mpsc::Receiver<Event>,
        internal: mpsc::UnboundedReceiver<Internal>,
        applied: Index,
    ) -> Consensus {
        let abstains = core.status().abstain.is_some();
        Consensus {
            shared,
            core,
            peers,
            log,
            reader,
            inbox,
            internal,
            waiters: BTreeMap::new(),
            reads: BTreeMap::new(),
            next_read: 1,
            proposals: VecDeque::new(),
            queries: Vec::new(),
            apply_through: applied,
            handed: applied,
            handed_bytes: 0,
            handed_time: 0,
            snapshots: Snapshots::default(),
            throttle: Throttle::new(world::clock::now()),
            lead_time: (0, world::clock::now()),
            role: Role::Follower,
            leads_from: None,
            abstains,
            pulse: told::Pulse::default(),
        }
    }

    pub(super) async fn run(mut self) {
        let tick = self.shared.options.tick;
        let mut next_tick = world::clock::now() + tick;
        let mut events = Vec::new();
        loop {
            let shared = self.shared.clone();
            tokio::select! {
                biased;
                () = shared.stopped() => break,
                Some(event) = self.internal.recv() => self.internal(event),
                _ = self.inbox.recv_many(&mut events, INBOX) => {}
                () = sleep_until(next_tick) => {}
            }
            while let Ok(event) = self.internal.try_recv() {
                self.internal(event);
            }
            while events.len() < INBOX
                && let Ok(event) = self.inbox.try_recv()
            {
                events.push(event);
            }
            for event in events.drain(..) {
                self.event(event);
            }
            self.propose();
            self.read();
            let now = world::clock::now();
            if now >= next_tick {
                next_tick = now + tick;
                self.step(Input::Tick);
                self.start_transfers();
                self.attend_to_catch_up();
                self.throttle();
                self.pulse();
            }
            self.hand_out();
            self.peers.flush();
            self.publish();
        }
        self.fail_waiters("shutting down");
        for (_, queries) in std::mem::take(&mut self.reads) {
            refuse(queries, ReadError::Stopped);
        }
        self.publish();
    }

    fn log_is_full(&self) -> bool {
        let options = &self.shared.options;
        let max = options.max_unapplied_bytes.max(2 * options.cache_log_bytes);
        self.core.status().log_bytes > max && self.core.committed_bytes() > max
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Mail {
                from,
                messages,
                room: _room,
            } => {
                for message in messages {
                    if message.carries_entries() && self.log_is_full() {
                        world::mark!("append: dropped unread, the log in memory is full");
                        continue;
                    }
                    told::receives(&self.core, &message);
                    self.step(Input::Receive { from, message });
                }
            }
            Event::Propose { command, waiter } => self.proposals.push_back((command, waiter)),
            Event::Read(query) => self.queries.push(query),
        }
    }

    fn internal(&mut self, event: Internal) {
        match event {
            Internal::Persisted(number) => {
                observe(self.shared.site, "sync", &[("write", number)]);
                self.step(Input::Persisted(number));
            }
            Internal::Applied { bytes } => self.handed_bytes -= bytes,
            Internal::Durable(meta) => self.compact(&meta),
            Internal::Spooled(result) => self.spooled(result),
            Internal::Fetched { to, entries, place } => self.fetched(to, entries, place),
            Internal::SnapshotSent {
                to,
                term,
                installed,
            } => {
                self.snapshots.active.retain(|a| *a != (to, term));
                // The end of a transfer of an earlier term is none of the present one's.
                let present = term == self.core.status().term;
                if present {
                    self.snapshots.ended(to, installed);
                }
                self.release_spool();
                if present {
                    self.step(Input::SnapshotSent { to, installed });
                }
            }
            Internal::Offered {
                from,
                term,
                meta,
                reply,
            } => {
                let output = self.core.step(Input::SnapshotOffered { from, term, meta });
                let _ = reply.send(output.snapshot_accepted == Some(true));
                self.carry_out(output);
            }
            Internal::Ready(meta) => {
                let last = self.core.status().last_index;
                self.step(Input::SnapshotReady(meta));
                match self.core.status().last_index {
                    now if now < last => world::mark!("install: the log behind it is dropped"),
                    now if now > self.core.base().index => {
                        world::mark!("install: a suffix of the log is kept");
                    }
                    _ => {}
                }
            }
            Internal::Born(configuration) => self.step(Input::Born(configuration)),
        }
    }

    /// All reads of one turn share one read index.
    fn read(&mut self) {
        self.queries.retain(|q| !q.reply.is_closed());
        if self.queries.is_empty() {
            return;
        }
        if self.leads_from.is_some_and(|noop| self.handed < noop) {
            world::mark!("read: asked of a leader before its term has committed anything");
        }
        let id = self.next_read;
        self.next_read += 1;
        self.reads.insert(id, std::mem::take(&mut self.queries));
        observe(self.shared.site, "ask", &[("read", id)]);
        self.step(Input::Read(id));
    }

    fn step(&mut self, input: Input) {
        let output = self.core.step(input);
        self.carry_out(output);
    }

    fn carry_out(&mut self, output: Output) {
        let site = self.shared.site;
        if let Some(write) = output.write {
            told::write(site, &write);
            let abstains = write.hard_state.abstain.is_some();
            if std::mem::replace(&mut self.abstains, abstains) && !abstains {
                world::mark!("abstention: it ends");
            }
            if let Some(meta) = &write.reset {
                // Entries up to here will not be handed out: the snapshot has them.
                self.handed = self.handed.max(meta.index);
            }
            let _ = self.log.send(LogOp::Write(write));
        }
        for envelope in output.messages {
            self.peers.push(envelope);
        }
        if let Some(index) = output.apply_through {
            self.apply_through = self.apply_through.max(index);
        }
        for outcome in output.reads {
            let Some(queries) = self.reads.remove(&outcome.id) else {
                continue;
            };
            match outcome.result {
                Ok(index) => {
                    let fields = [("read", outcome.id), ("index", index)];
                    observe(site, "read-index", &fields);
                    let _ = self.shared.apply.send(Apply::Reads { index, queries });
                }
                Err(refusal @ (ReadRefusal::NoLeader | ReadRefusal::Deposed)) => {
                    if refusal == ReadRefusal::Deposed {
                        world::mark!("read: leadership is lost while it waits");
                    }
                    refuse(queries, ReadError::NoLeader);
                }
            }
        }
        if let Some(reason) = output.malformed {
            tracing::warn!(
                group = site.group,
                node = site.node,
                "malformed consensus mail ignored: {reason}"
            );
        }
        for node in output.snapshots {
            self.snapshots.wanted_by(node);
        }
        for fetch in output.fetches {
            self.fetch(fetch);
        }
        if let Some(change) = output.role {
            told::role(site, &self.core, &change);
            tracing::info!(
                group = site.group, node = site.node, role = ?change.role, term = change.term,
                leader = change.leader, "role"
            );
            self.role_changed(change.role);
        }
        self.start_transfers();
    }

    fn role_changed(&mut self, role: Role) {
        if role == Role::Leader && self.role != Role::Leader {
            let status = self.core.status();
            if status.commit + 1 < status.last_index {
                world::mark!("leader: it begins with entries of earlier terms not committed");
            }
            self.leads_from = Some(status.last_index);
            self.lead_time = (self.last_log_time(), world::clock::now());
        }
        if role != Role::Leader {
            if self.role == Role::Leader && !self.waiters.is_empty() {
                world::mark!("leader: deposed with proposals under way");
            }
            self.leads_from = None;
            // Whether they will be committed by another leader is not known here.
            self.fail_waiters("leadership moved");
            // Who does not lead offers nothing: a follower would take it for the leader.
            self.snapshots.stand_down();
            self.release_spool();
        }
        self.role = role;
    }

    /// Log time of the last command in the log, or of the state when the log has none.
    fn last_log_time(&self) -> u64 {
        let status = self.core.status();
        let applied = self.shared.time_ms.load(Ordering::Relaxed);
        let not_handed = self.core.entries(self.handed + 1, Index::MAX, usize::MAX);
        let in_log = last_time(not_handed).unwrap_or(self.handed_time);
        debug_assert!(
            self.handed >= status.evicted_index,
            "what is evicted was handed out"
        );
        in_log.max(applied)
    }

    fn fail_waiters(&mut self, why: &'static str) {
        for (_, (_, waiter)) in std::mem::take(&mut self.waiters) {
            let _ = waiter.reply.send(Err(ProposeError::Unknown(why)));
        }
        for (_, waiter) in std::mem::take(&mut self.proposals) {
            let _ = waiter
                .reply
                .send(Err(ProposeError::NotLeader { leader: None }));
        }
    }

    /// Hands committed entries to the apply task, within its window.
    fn hand_out(&mut self) {
        while self.handed < self.apply_through && self.handed_bytes < APPLY_WINDOW_BYTES {
            let room = APPLY_WINDOW_BYTES - self.handed_bytes;
            let entries = self.core.entries(self.handed + 1, self.apply_through, room);
            let Some(last) = entries.last() else { break };
            let (through, term) = (last.index, last.term);
            let mut batch = Vec::with_capacity(entries.len());
            for entry in entries {
                self.handed_bytes += entry.size();
                let waiter = match self.waiters.remove(&entry.index) {
                    Some((term, waiter)) if term == entry.term => Some(waiter),
                    Some((_, waiter)) => {
                        let lost = Err(ProposeError::Unknown("another entry was committed there"));
                        let _ = waiter.reply.send(lost);
                        None
                    }
                    None => None,
                };
                batch.push(Committed {
                    entry: entry.clone(),
                    waiter,
                });
            }
            self.handed_time = last_time(entries).unwrap_or(self.handed_time);
            self.handed = through;
            told::commit(self.shared.site, &self.core, through, term);
            let _ = self.shared.apply.send(Apply::Entries(batch));
        }
        let cache = self.shared.options.cache_log_bytes;
        let status = self.core.status();
        if status.log_bytes > cache + cache / 4 && status.evicted_index < self.handed {
            self.step(Input::Evict(self.handed));
        }
    }

    fn pulse(&mut self) {
        let options = &self.shared.options;
        // What a start finds behind the state is in memory until it is applied.
        let start = options.max_unflushed_bytes + options.keep_log_bytes;
        let log =
            options.max_unapplied_bytes + options.cache_log_bytes + options.cache_log_bytes / 4;
        let log = log.max(start) + options.max_uncommitted_bytes + IN_FLIGHT_BYTES;
        let (core, inside, reads) = (&self.core, self.internal.len(), self.reads.len());
        self.pulse.beat(self.shared.site, || {
            [
                ("log in memory", core.status().log_bytes, log),
                ("news from the replica's own tasks", inside, INBOX),
                ("read batches under way", reads, READS),
            ]
        });
    }

    fn publish(&mut self) {
        let status = self.core.status();
        let view = View {
            status,
            leads_from: self.leads_from,
        };
        let changed = {
            let mut shown = lock(&self.shared.view);
            let changed = (shown.status.role, shown.status.term, shown.status.leader)
                != (view.status.role, view.status.term, view.status.leader);
            *shown = view;
            changed
        };
        if changed {
            self.shared.bump();
        }
    }
}

/// Log time of the last command among these.
fn last_time(entries: &[Entry]) -> Option<u64> {
    entries.iter().rev().find_map(|entry| match &entry.body {
        Body::Command(payload) => unwrap(&payload.0).map(|(time, _)| time),
        Body::Noop | Body::Configuration(_) => None,
    })
}

fn refuse(queries: Vec<Query>, error: ReadError) {
    for query in queries {
        let _ = query.reply.send(Err(error.clone()));
    }
}
