//! The apply task: owns the state machine and its store.

use super::error::{Fatal, ReadError};
use super::pace::Pace;
use super::shared::{APPLY_WINDOW_BYTES, Apply, Committed, Internal, Query, Shared, Waiter};
use super::told;
use super::wire::unwrap;
use crate::machine::{At, Machine};
use crate::store::{Done, Installed, Store};
use bytes::Bytes;
use raft_protocol::{Body, Index, SnapshotMeta};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::{mpsc, oneshot};
use world::clock::{Duration, Instant, now, sleep};
use world::observe;
use world::observe::LISTENING;

/// Pauses are taken when they add up to this much.
const SHORTEST_PAUSE: Duration = Duration::from_millis(4);
/// With nothing applied for so long, what is only in memory is flushed and a state file that holds
/// much less than it could is rewritten: what was deleted leaves the disk of a server at rest too.
const AT_REST: Duration = Duration::from_secs(10);
/// Complete snapshots that wait for their switch: the one transfer at a time and those before it.
const MAX_FILLED: usize = 8;
/// Reads that wait for an index; refused beyond.
const MAX_WAITING_READS: usize = 16_384;

pub(super) struct Applier<M> {
    shared: Arc<Shared>,
    store: Store,
    machine: M,
    events: mpsc::UnboundedReceiver<Apply>,
    /// Reads that wait for an index.
    reads: BTreeMap<Index, Vec<Query>>,
    /// How many they are; at most [`MAX_WAITING_READS`].
    waiting: usize,
    /// Complete snapshots beside the present state, all of them above it. The core is asked about
    /// each; one that it took is here until the log task asks for the switch, although another
    /// transfer may have begun, or ended, meanwhile.
    filled: Vec<Installed>,
    /// Bytes of entries applied since the last flush began.
    unflushed: usize,
    /// Bytes of entries that the running flush makes durable.
    in_flush: usize,
    /// When the state is tidied, unless something is applied before.
    tidy_at: Instant,
    /// The brake, and when the running flush began.
    pace: Pace,
    flushing: Option<Instant>,
    owed: Duration,
    time_ms: u64,
}

/// How long rows are worked on before other tasks have the thread: a state larger than memory is read
/// from the disk, and a whole batch of such reads would outlast an election timeout.
const TURN: Duration = Duration::from_millis(2);

/// Since when this task has had its thread.
struct Turn(Instant);

impl Turn {
    fn begin() -> Turn {
        Turn(now())
    }

    async fn share(&mut self) {
        if self.0.elapsed() >= TURN {
            tokio::task::yield_now().await;
            self.0 = now();
        }
    }
}

impl<M: Machine> Applier<M> {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Store,
        machine: M,
        events: mpsc::UnboundedReceiver<Apply>,
    ) -> Applier<M> {
        let time_ms = store.stamp().time_ms;
        Applier {
            shared,
            store,
            machine,
            events,
            reads: BTreeMap::new(),
            waiting: 0,
            filled: Vec::new(),
            unflushed: 0,
            in_flush: 0,
            tidy_at: now() + AT_REST,
            pace: Pace::new(),
            flushing: None,
            owed: Duration::ZERO,
            time_ms,
        }
    }

    pub(super) async fn run(mut self) -> Result<(), Fatal> {
        self.tell();
        self.publish();
        // The last life may have ended between a flush and the cut of the log behind it. Nothing else
        // would ask for that cut when the log is so full that it takes nothing in.
        self.durable();
        loop {
            tokio::select! {
                biased;
                done = self.store.done() => self.done(done?),
                event = self.events.recv() => match event {
                    None | Some(Apply::Stop) => break,
                    Some(event) => self.event(event).await?,
                },
                () = sleep(self.tidy_at.saturating_duration_since(now())) => {
                    self.tidy_at = now() + AT_REST;
                    self.store.rest();
                    self.flush(true);
                }
            }
        }
        for (_, queries) in std::mem::take(&mut self.reads) {
            for query in queries {
                let _ = query.reply.send(Err(ReadError::Stopped));
            }
        }
        Ok(self.store.close().await?)
    }

    async fn event(&mut self, event: Apply) -> Result<(), Fatal> {
        match event {
            Apply::Entries(batch) => self.entries(batch).await?,
            Apply::Reads { index, queries } if index <= self.store.applied_index() => {
                self.answers(index);
                let mut turn = Turn::begin();
                for query in queries {
                    turn.share().await;
                    self.read(query)?;
                }
            }
            Apply::Reads { index, queries } => self.wait(index, queries),
            Apply::Inspect(query) => self.inspect(query)?,
            Apply::Configuration(configuration) => {
                if self.store.stamp().configuration.voters.is_empty() {
                    self.store.set_configuration(configuration);
                }
            }
            Apply::Spool if self.store.applied_index() == 0 => {
                let nothing = Err("nothing is applied here yet".to_string());
                self.shared.tell(Internal::Spooled(nothing));
            }
            Apply::Spool => self.store.start_snapshot(),
            Apply::Install { stamp, reply } => {
                let before = self.store.durable().index;
                match self.store.install(stamp).await {
                    // A job that it waited for: that ends the server, and is no answer to the sender.
                    Err(error) if self.store.has_failed() => return Err(error.into()),
                    install => {
                        let _ = reply.send(install);
                    }
                }
                if self.store.durable().index > before {
                    self.done(Done::Flushed);
                }
            }
            Apply::Filled(installed) => {
                let meta = installed.stamp.meta();
                self.filled.push(installed);
                self.shared.tell(Internal::Ready(meta));
                self.drop_filled().await;
            }
            Apply::Switch { meta, reply } => self.switch(&meta, reply).await?,
            Apply::Stop => {}
        }
        Ok(())
    }

    /// Nothing may be applied until a flush is through: the overlay is at its hard limit, or what it
    /// makes durable fills the log. (Of rows that are written again and again the overlay stays small,
    /// and the log behind it does not.)
    fn lacks_room(&self) -> bool {
        let unflushed = self.unflushed + self.in_flush;
        let much = unflushed >= self.longest_unflushed() || self.pages() >= 2;
        self.store.full() || (much && self.store.is_behind())
    }

    /// Bytes that may be applied before a flush must be through; 0 when nothing may.
    fn room(&self) -> usize {
        let unflushed = self.unflushed + self.in_flush;
        let entries = self.longest_unflushed().saturating_sub(unflushed);
        let overlay = self.shared.options.store.overlay_limit;
        let rows = overlay.saturating_sub(self.store.memory());
        match self.lacks_room() {
            true => 0,
            false => rows.min(entries).max(1),
        }
    }

    /// What the next flush takes of a short disk, in its limits: a row counts there by its pages.
    fn pages(&self) -> usize {
        let space = &self.shared.space;
        match space.is_short() {
            true => self.store.flush_cost() / space.within(usize::MAX),
            false => 0,
        }
    }

    /// A flush is due, because of the log behind it, of a short disk, or of what waits for room.
    fn flush_due(&self) -> bool {
        self.unflushed >= self.flush_log_bytes() || self.pages() >= 1 || self.room() == 0
    }

    /// Bytes of entries that may be applied and not durable.
    fn longest_unflushed(&self) -> usize {
        let usual = self.shared.options.max_unflushed_bytes;
        usual.min(2 * self.shared.space.within(usual))
    }

    async fn wait_for_room(&mut self) -> Result<(), Fatal> {
        while self.lacks_room() {
            world::mark!("apply: the overlay is at its hard limit");
            self.store.give_way();
            self.flush(true);
            let done = self.store.done().await?;
            self.done(done);
        }
        Ok(())
    }

    /// What is applied is told to those who wait for it.
    fn reply(&mut self, replies: &mut Vec<(Waiter, Bytes)>) {
        self.publish();
        for (waiter, reply) in replies.drain(..) {
            let _ = waiter.reply.send(Ok(reply));
        }
    }

    async fn entries(&mut self, batch: Vec<Committed>) -> Result<(), Fatal> {
        let before = self.store.pressure();
        let mut turn = Turn::begin();
        let mut bytes = 0;
        let mut replies = Vec::new();
        for Committed { entry, waiter } in batch {
            bytes += entry.size();
            if entry.index <= self.store.applied_index() {
                continue; // a snapshot that was installed meanwhile has it
            }
            // Before each one: an append of a byte may bring a row of megabytes.
            if self.lacks_room() {
                self.reply(&mut replies);
                self.wait_for_room().await?;
            }
            let reply = match &entry.body {
                Body::Noop => Bytes::new(),
                Body::Configuration(configuration) => {
                    self.store.set_configuration(configuration.clone());
                    Bytes::new()
                }
                Body::Command(payload) => match unwrap(&payload.0) {
                    Some((time_ms, command)) => {
                        self.time_ms = self.time_ms.max(time_ms);
                        let at = At {
                            index: entry.index,
                            term: entry.term,
                            time_ms: self.time_ms,
                        };
                        turn.share().await;
                        self.machine.apply(self.store.rows_mut(), at, command)?
                    }
                    None => {
                        return Err(Fatal::Other(format!(
                            "entry {} is in a format this version does not know: it was written \
                             by a newer version",
                            entry.index
                        )));
                    }
                },
            };
            self.store.applied(entry.index, entry.term, self.time_ms);
            self.unflushed += entry.size();
            self.tell();
            if let Some(waiter) = waiter {
                replies.push((waiter, reply));
            }
        }
        self.reply(&mut replies);
        self.shared.tell(Internal::Applied { bytes });
        if !self.filled.is_empty() {
            self.drop_filled().await;
        }
        self.tidy_at = now() + AT_REST;
        let force = self.flush_due();
        let overlay = self.shared.options.store.overlay_bytes;
        let pause = self.pace.pause(before, self.store.pressure(), overlay);
        if self.unflushed >= self.longest_unflushed() / 2 {
            self.store.give_way();
        }
        self.flush(force);
        self.waiting_reads()?;
        // Timers are coarse: small pauses are saved up.
        self.owed += pause;
        if self.owed >= SHORTEST_PAUSE {
            sleep(std::mem::take(&mut self.owed)).await;
        }
        Ok(())
    }

    /// Keeps reads until their index is applied. A state that is to be rebuilt may take long:
    /// those whose clients have gone are dropped, and beyond the limit reads are refused.
    fn wait(&mut self, index: Index, queries: Vec<Query>) {
        if self.waiting + queries.len() > MAX_WAITING_READS {
            self.reads.retain(|_, waiting| {
                waiting.retain(|query| !query.reply.is_closed());
                !waiting.is_empty()
            });
            self.waiting = self.reads.values().map(Vec::len).sum();
        }
        if self.waiting + queries.len() > MAX_WAITING_READS {
            for query in queries {
                let _ = query.reply.send(Err(ReadError::NoLeader));
            }
            return;
        }
        world::mark!("read: waits until its index is applied");
        self.waiting += queries.len();
        self.reads.entry(index).or_default().extend(queries);
    }

    /// Bytes of entries after which the state is flushed: fewer on a short disk.
    fn flush_log_bytes(&self) -> usize {
        let shared = &self.shared;
        shared.space.within(shared.options.flush_log_bytes)
    }

    /// Starts a flush if one is due.
    fn flush(&mut self, force: bool) {
        let overlay = self.shared.options.store.overlay_limit + 4 * APPLY_WINDOW_BYTES;
        let options = &self.shared.options;
        let unsent = 2 * options.max_unsent_bytes + options.limits.max_frame;
        let sizes = [
            ("unsent replies", self.shared.unsent.bytes(), unsent),
            ("overlays", self.store.memory(), overlay),
            ("waiting reads", self.waiting, MAX_WAITING_READS),
            ("received snapshots", self.filled.len(), MAX_FILLED),
        ];
        told::size(self.shared.site, &sizes);
        let fill = self.store.pressure();
        self.store.spare_room(self.shared.space.shortage());
        if self.store.maybe_flush(force) {
            self.in_flush = std::mem::take(&mut self.unflushed);
            self.pace.flush_begins(fill);
            self.flushing = Some(world::clock::now());
        }
    }

    /// Serves the reads whose index is applied now.
    fn waiting_reads(&mut self) -> Result<(), Fatal> {
        let applied = self.store.applied_index();
        while let Some(first) = self.reads.first_entry()
            && *first.key() <= applied
        {
            let (index, queries) = first.remove_entry();
            self.waiting -= queries.len();
            self.answers(index);
            for query in queries {
                self.read(query)?;
            }
        }
        Ok(())
    }

    /// Tells the checkers that reads of this read index are answered next.
    fn answers(&self, index: Index) {
        let applied = self.store.applied_index();
        let fields = [("index", index), ("applied", applied)];
        observe(self.shared.site, "answer", &fields);
    }

    fn read(&mut self, query: Query) -> Result<(), Fatal> {
        self.answer(query, self.shared.options.max_unsent_bytes)
    }

    /// Twice the limit: replies that clients do not take shall not keep the server's own tasks from
    /// looking at the state, and yet there is an end of what clients may inspect.
    fn inspect(&mut self, query: Query) -> Result<(), Fatal> {
        self.answer(query, 2 * self.shared.options.max_unsent_bytes)
    }

    /// Answers a query, unless that many bytes of replies wait to be sent: half of them may be any,
    /// the other half is for short ones, which take a quarter of what is left at most. So clients that
    /// leave long values unread do not keep short reads from anybody.
    fn answer(&mut self, query: Query, max_unsent: usize) -> Result<(), Fatal> {
        if query.reply.is_closed() {
            return Ok(());
        }
        let unsent = self.shared.unsent.bytes();
        let may = match max_unsent.saturating_sub(unsent) {
            0 => false,
            left if left > max_unsent / 2 => true,
            left => {
                let answer = self.machine.least_answer(self.store.rows(), &query.query)?;
                let short = answer <= left / 4;
                if short {
                    world::mark!("read: a short answer passes where long ones wait to be sent");
                }
                short
            }
        };
        if !may {
            let _ = query.reply.send(Err(ReadError::Busy));
            return Ok(());
        }
        let answer = self.machine.read(self.store.rows(), &query.query)?;
        let _ = query.reply.send(Ok(self.shared.unsent.count(answer)));
        Ok(())
    }

    /// Tells the Raft task how much of the log may go.
    fn durable(&self) {
        let durable = [("index", self.store.durable().meta().index)];
        observe(self.shared.site, "durable", &durable);
        self.shared
            .tell(Internal::Durable(self.store.durable().meta()));
    }

    fn done(&mut self, done: Done) {
        match done {
            Done::Flushed | Done::Rewritten => {
                self.in_flush = 0;
                // The store began one itself, in the place of a rewrite that gave way.
                if !self.store.is_behind() {
                    self.unflushed = 0;
                }
                if let Some(since) = self.flushing.take() {
                    let overlay = self.shared.options.store.overlay_bytes;
                    self.pace.flush_ended(since.elapsed(), overlay);
                }
                self.tell();
                self.publish();
                self.durable();
                // What was applied meanwhile may fill the log, and then nothing more arrives that
                // would ask for its flush.
                if self.flush_due() {
                    self.flush(true);
                }
            }
            Done::Spooled(result) => {
                let result = result.map(|mut spool| {
                    // The state was flushed before the initial members had met.
                    if spool.stamp.configuration.voters.is_empty() {
                        spool.stamp.configuration = self.store.stamp().configuration;
                    }
                    Arc::new(spool)
                });
                let result = result.map_err(|e| e.to_string());
                self.shared.tell(Internal::Spooled(result));
            }
        }
    }

    async fn switch(
        &mut self,
        meta: &SnapshotMeta,
        reply: oneshot::Sender<()>,
    ) -> Result<(), Fatal> {
        let found = self.filled.iter().position(|i| i.stamp.meta() == *meta);
        let Some(found) = found else {
            return Err(Fatal::Other(
                "the snapshot to switch to is not there".into(),
            ));
        };
        let installed = self.filled.remove(found);
        if !self.store.switch(installed).await? {
            // The log must not be reset to what the state is already past.
            return Err(Fatal::Other(format!(
                "the snapshot to switch to, at {}, is not above the state",
                meta.index
            )));
        }
        self.machine.load(self.store.rows())?;
        self.time_ms = self.store.stamp().time_ms;
        (self.unflushed, self.in_flush) = (0, 0);
        observe(self.shared.site, "install", &[("index", meta.index)]);
        self.tell();
        self.publish();
        let _ = reply.send(());
        self.drop_filled().await;
        self.waiting_reads()
    }

    /// Snapshots the state has passed are of no use, and while one is held no file is rewritten.
    async fn drop_filled(&mut self) {
        let applied = self.store.applied_index();
        let passed = |i: &mut Installed| i.stamp.index <= applied;
        let old: Vec<Installed> = self.filled.extract_if(.., passed).collect();
        if !old.is_empty() {
            world::mark!("snapshot: overtaken by the log after it was received");
            self.shared.disk.job(move || drop(old)).await;
        }
    }

    /// Tells the checkers what is applied.
    fn tell(&self) {
        if !LISTENING {
            return;
        }
        let stamp = self.store.stamp();
        let fields = [
            ("index", stamp.index),
            ("term", stamp.term),
            ("digest", stamp.digest),
            ("durable", self.store.durable().index),
            ("time", stamp.time_ms),
        ];
        observe(self.shared.site, "apply", &fields);
    }

    fn publish(&self) {
        let stamp = self.store.stamp();
        let shared = &self.shared;
        shared.digest.store(stamp.digest, Ordering::Relaxed);
        shared.time_ms.store(stamp.time_ms, Ordering::Relaxed);
        shared.applied.store(stamp.index, Ordering::Relaxed);
        shared.apply_room.store(self.room(), Ordering::Relaxed);
        shared.space.unflushed(self.store.memory());
        shared
            .durable
            .store(self.store.durable().index, Ordering::Relaxed);
        shared
            .state_bytes
            .store(self.store.bytes(), Ordering::Relaxed);
        shared.bump();
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
