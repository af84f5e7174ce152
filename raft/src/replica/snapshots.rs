//! What the Raft task does about the log's beginning: compaction, and snapshots for followers that
//! need what was compacted away.

use super::Consensus;
use crate::log::{LogError, Place};
use crate::replica::log_task::LogOp;
use crate::replica::shared::{Apply, Internal, lock};
use crate::replica::throttle::Waiting;
use crate::replica::transfer;
use crate::store::Spool;
use raft_protocol::{Entry, Fetch, Index, Input, NodeId, Role, SnapshotMeta, Term};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use world::clock::{Instant, now};
use world::observe;

/// Snapshot transfers to followers.
#[derive(Default)]
pub(super) struct Snapshots {
    spool: Option<Arc<Spool>>,
    /// A spool is being made, and covers at least this index.
    requested: Option<Index>,
    waiting: Vec<NodeId>,
    /// Transfers under way, and the terms they began in.
    pub(super) active: Vec<(NodeId, Term)>,
    /// The other members, while this node leads.
    members: BTreeMap<NodeId, Member>,
    /// The log is longer than it would be without those that lag.
    kept_for_them: bool,
    /// Through where the state was durable when that was last told.
    durable: Index,
    /// Where the reading of the log for followers has got to.
    places: BTreeMap<NodeId, Place>,
    /// Members that took no snapshot lately: how often in a row, and when they are tried again.
    failed: BTreeMap<NodeId, (u32, Instant)>,
}

/// How far a member has come.
struct Member {
    /// It needs the entries behind this.
    has: Index,
    /// When it last came further, or was near the log's end.
    since: Instant,
    /// It has installed a snapshot and has not come near the end since.
    installed: bool,
    /// Entries per second that it acknowledges, lately.
    rate: f64,
    /// When that was last looked at, and how far it was.
    looked: (Instant, Index),
}

impl Member {
    fn new(has: Index) -> Member {
        let since = now();
        Member {
            has,
            since,
            installed: false,
            rate: 0.0,
            looked: (since, has),
        }
    }

    /// It holds the log through `acknowledged`; at `near` a member needs nothing that is not kept anyway,
    /// and is waited for no more; nor is one that comes no further.
    fn comes_to(&mut self, acknowledged: Index, near: Index) {
        if acknowledged > self.has {
            (self.has, self.since) = (acknowledged, now());
        }
        if self.has >= near {
            self.since = now();
        }
        self.installed &= self.has < near && self.since.elapsed() < PATIENCE;
        let (at, had) = self.looked;
        let elapsed = at.elapsed();
        if elapsed >= LOOK {
            let rate = (self.has - had) as f64 / elapsed.as_secs_f64();
            self.rate = (self.rate + rate) / 2.0;
            self.looked = (now(), self.has);
        }
    }
}

/// How often the rate of a member is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A member that comes no further for so long after a snapshot is waited for no more.
const PATIENCE: Duration = Duration::from_secs(5);
/// A member that is sent a snapshot, and has not answered for so long, is no reason to slow clients down.
/// (The last chunk may take long: the whole is made durable then.)
const HEARD: Duration = Duration::from_secs(60);
/// Pause after the second transfer in a row that failed, doubled with each one more, and the longest.
/// (A snapshot is a copy of the whole state; a follower without room for it refuses at once, and the
/// first refusal may only mean that it is past it.)
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

impl Snapshots {
    /// This member needs one.
    pub(super) fn wanted_by(&mut self, to: NodeId) {
        self.waiting.push(to);
    }

    /// A transfer has ended, with a snapshot of this index installed.
    pub(super) fn ended(&mut self, to: NodeId, installed: Option<Index>) {
        if let Some(has) = installed {
            self.failed.remove(&to);
            let mut member = Member::new(has);
            member.installed = true;
            self.members.insert(to, member);
            return;
        }
        let (times, until) = self.failed.entry(to).or_insert((0, now()));
        *times += 1;
        let pause = match *times {
            1 => Duration::ZERO,
            n => PAUSE.1.min(PAUSE.0 * (1 << (n - 2).min(8))),
        };
        *until = now() + pause;
    }

    /// Nobody is sent anything any more.
    pub(super) fn stand_down(&mut self) {
        self.waiting.clear();
        self.failed.clear();
        self.members.clear();
        self.kept_for_them = false;
        self.places.clear();
    }

    /// Looks at how far the others have come, this far being near the log's end.
    fn progress(&mut self, near: Index, matched: &[(NodeId, Index)]) {
        let is_member = |node: &NodeId| matched.iter().any(|(other, _)| other == node);
        self.members.retain(|node, _| is_member(node));
        for (node, acknowledged) in matched {
            let member = self.members.entry(*node);
            let member = member.or_insert_with(|| Member::new(*acknowledged));
            member.comes_to(*acknowledged, near);
        }
    }

    /// The log through `through` is to go: through where, so that it is left for members that have
    /// installed a snapshot (without it they would be sent another one, and another, for as long as the
    /// load goes on), and for those that came further, or were near its end, within `patience`?
    fn leave_for_those(&mut self, through: Index, patience: Duration) -> Index {
        let waited = |m: &&Member| m.installed || m.since.elapsed() < patience;
        let needed = self.members.values().filter(waited).map(|m| m.has).min();
        let least = needed.unwrap_or(through).min(through);
        self.kept_for_them = least < through;
        least
    }

    /// Whether a member is sent a snapshot, and takes it, or catches up after one; how fast the slowest of
    /// the latter comes on, entries per second, when there is no other kind.
    fn waited_for(&self, receiver_heard: Option<Instant>) -> Option<Option<f64>> {
        let takes = receiver_heard.is_some_and(|at| at.elapsed() < HEARD);
        if self.spool.is_some() && takes {
            return Some(None);
        }
        let installed = self.members.values().filter(|member| member.installed);
        let rates = installed.map(|member| member.rate);
        rates.min_by(f64::total_cmp).map(Some)
    }

    /// Whether a member is to be sent one now.
    fn is_due(&self, to: NodeId) -> bool {
        self.failed
            .get(&to)
            .is_none_or(|(_, until)| *until <= now())
    }
}

impl Consensus {
    /// The state is durable through `durable`: forget the log behind it, less what lagging
    /// followers may still want.
    pub(super) fn compact(&mut self, durable: &SnapshotMeta) {
        self.snapshots.durable = durable.index;
        self.cut();
    }

    /// Looks after those that lag, at every tick: the next flush may be far. What was left of the log for
    /// them goes as they come on.
    pub(super) fn attend_to_catch_up(&mut self) {
        let status = self.core.status();
        if status.role != Role::Leader {
            return;
        }
        let near = self.within_from_end(status.last_index);
        self.snapshots.progress(near, &status.matched);
        if self.snapshots.kept_for_them {
            self.cut();
        }
    }

    /// The first index behind which the log through `last` has no more than `keep_log_bytes`.
    fn within_from_end(&self, last: Index) -> Index {
        let keep = self.shared.space.within(self.shared.options.keep_log_bytes);
        self.core.within(last, keep)
    }

    /// How long the log on disk may grow for those that need its beginning, bytes: half of what would be
    /// free without it, and less on a short disk.
    fn longest_log(&self) -> u64 {
        let shared = &self.shared;
        let used = shared.log_bytes.load(Ordering::Relaxed);
        let half = shared.space.free().saturating_add(used) / 2;
        let longest = half.min(shared.options.max_kept_log_bytes);
        let within = shared.space.within(usize::MAX);
        longest.min(within as u64)
    }

    /// Slows proposals down when the log that is kept for a member becomes long.
    pub(super) fn throttle(&mut self) {
        let log = self.shared.log_bytes.load(Ordering::Relaxed) as f64;
        let heard = *lock(&self.shared.receiver_heard);
        // Who does not lead any more says so at once, though a transfer of its has not ended yet.
        let leads = self.leads_from.is_some();
        let waited_for = leads.then(|| self.snapshots.waited_for(heard)).flatten();
        let waiting = waited_for.map(|acknowledged| Waiting {
            fill: log / (self.longest_log() as f64).max(1.0),
            acknowledged,
        });
        let (before, site) = (self.throttle.is_on(), self.shared.site);
        let begins = self.throttle.look(now(), waiting);
        let slowed = self.throttle.is_on();
        self.shared.slowed.store(slowed, Ordering::Relaxed);
        if begins {
            tracing::warn!(
                group = site.group,
                node = site.node,
                "writes are slowed down: {log} bytes of the log are kept for a member that is sent a \
                 snapshot or catches up after one, half of what they may become"
            );
        } else if before && !slowed {
            tracing::info!(
                group = site.group,
                node = site.node,
                "writes are no longer slowed down"
            );
        }
    }

    /// What was asked of the disk for a follower is read beside everything else.
    pub(super) fn fetch(&mut self, fetch: Fetch) {
        let (shared, reader) = (self.shared.clone(), self.reader.clone());
        let place = self.snapshots.places.remove(&fetch.to);
        tokio::spawn(async move {
            let to = fetch.to;
            let read = shared.disk.job(move || reader.read(&fetch, place)).await;
            let (entries, place) = match read {
                Err(LogError::Io(error)) => return shared.fail(LogError::Io(error).into()),
                Err(error) => {
                    tracing::error!(%error, to, "the log cannot be read for a follower, which is sent a snapshot");
                    (Vec::new(), None)
                }
                Ok(read) => read,
            };
            shared.tell(Internal::Fetched { to, entries, place });
        });
    }

    pub(super) fn fetched(&mut self, to: NodeId, entries: Vec<Entry>, place: Option<Place>) {
        match entries.is_empty() {
            true => world::mark!("log: what a follower needs is gone when it is read"),
            false => world::mark!("log: a follower is fed from the disk"),
        }
        if let Some(place) = place {
            self.snapshots.places.insert(to, place);
        }
        self.step(Input::Fetched { to, entries });
    }

    fn cut(&mut self) {
        let status = self.core.status();
        let mut through = self.snapshots.durable.min(status.commit);
        let log_bytes = self.shared.log_bytes.load(Ordering::Relaxed);
        if log_bytes <= self.longest_log() {
            through = self.within_from_end(through);
            let spool = self.snapshots.spool.as_ref().map(|s| s.stamp.index);
            for needed in [spool, self.snapshots.requested].into_iter().flatten() {
                if needed < through {
                    world::mark!("compaction: the log behind a snapshot in transfer is kept");
                }
                through = through.min(needed);
            }
            // Who only lags does not make it so long that clients would be slowed down for it.
            let patience = match log_bytes <= self.longest_log() / 3 {
                true => self.shared.options.patience,
                false => Duration::ZERO,
            };
            through = self.snapshots.leave_for_those(through, patience);
            if self.snapshots.kept_for_them {
                world::mark!("compaction: the log is kept for a member that lags");
            }
        } else {
            world::mark!("compaction: the log is too long to be kept for anybody");
            self.snapshots.kept_for_them = false;
        }
        if through > status.base_index {
            self.step(Input::Compact(through));
            let base = self.core.base().clone();
            observe(self.shared.site, "compact", &[("index", base.index)]);
            let _ = self.log.send(LogOp::Purge(base));
        }
    }

    pub(super) fn start_transfers(&mut self) {
        let snapshots = &self.snapshots;
        if !snapshots.waiting.iter().any(|to| snapshots.is_due(*to)) {
            return;
        }
        let base = self.core.status().base_index;
        match &self.snapshots.spool {
            Some(spool) if spool.stamp.index >= base => {
                let term = self.core.status().term;
                for to in std::mem::take(&mut self.snapshots.waiting) {
                    if !self.snapshots.is_due(to) {
                        self.snapshots.waiting.push(to);
                        continue;
                    }
                    if self.snapshots.active.contains(&(to, term)) {
                        continue; // its end is reported to the core
                    }
                    self.snapshots.active.push((to, term));
                    let link = self.peers.bulk(to);
                    transfer::send(self.shared.clone(), to, term, link, spool.clone());
                }
            }
            _ if self.snapshots.requested.is_none() => {
                self.drop_spool();
                self.snapshots.requested = Some(self.shared.applied.load(Ordering::Relaxed));
                let _ = self.shared.apply.send(Apply::Spool);
            }
            _ => {}
        }
    }

    pub(super) fn spooled(&mut self, result: Result<Arc<Spool>, String>) {
        self.snapshots.requested = None;
        match result {
            Ok(spool) => {
                self.snapshots.spool = Some(spool);
                self.start_transfers();
                self.release_spool();
            }
            Err(reason) => {
                tracing::warn!(%reason, "no snapshot for a lagging follower");
                for to in std::mem::take(&mut self.snapshots.waiting) {
                    self.snapshots.ended(to, None);
                    self.step(Input::SnapshotSent {
                        to,
                        installed: None,
                    });
                }
            }
        }
    }

    /// Removes the spool when nobody is to be sent it now.
    pub(super) fn release_spool(&mut self) {
        let snapshots = &self.snapshots;
        if snapshots.active.is_empty() && !snapshots.waiting.iter().any(|to| snapshots.is_due(*to))
        {
            self.drop_spool();
        }
    }

    /// The last one to hold a spool removes its file: not in this task.
    fn drop_spool(&mut self) {
        if let Some(spool) = self.snapshots.spool.take() {
            let disk = self.shared.disk.clone();
            tokio::spawn(async move { disk.job(move || drop(spool)).await });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use world::clock::sleep;
    use world::testing::block_on_test;

    /// The first refusal may mean that the follower is past the snapshot; more of them, that it has no
    /// room: then the whole state would be copied again and again.
    #[test]
    fn who_takes_no_snapshot_is_left_in_peace_for_longer_and_longer() {
        block_on_test(async {
            let mut snapshots = Snapshots::default();
            assert!(snapshots.is_due(2));
            snapshots.ended(2, None);
            assert!(snapshots.is_due(2), "at once");
            snapshots.ended(2, None);
            assert!(!snapshots.is_due(2) && snapshots.is_due(3));
            sleep(PAUSE.0 + PAUSE.0 / 5).await;
            assert!(snapshots.is_due(2));
            for _ in 0..100 {
                snapshots.ended(2, None);
            }
            let (_, until) = snapshots.failed[&2];
            let left = until.saturating_duration_since(now());
            assert!(left <= PAUSE.1 && left > PAUSE.1 / 2, "{left:?}");
            snapshots.ended(2, Some(9));
            assert!(snapshots.is_due(2));
            snapshots.ended(2, None);
            snapshots.ended(2, None);
            snapshots.stand_down();
            assert!(
                snapshots.is_due(2),
                "another leadership knows nothing of it"
            );
        });
    }

    /// The log is left for a member that has installed a snapshot until it comes near the end, once: what
    /// it misses after that is as little a reason to keep the log as with any other.
    #[test]
    fn who_has_come_near_after_a_snapshot_is_waited_for_no_more() {
        block_on_test(async {
            let mut snapshots = Snapshots::default();
            let leave = |snapshots: &mut Snapshots, through| {
                let left = snapshots.leave_for_those(through, Duration::ZERO);
                assert_eq!(snapshots.kept_for_them, left < through);
                left
            };
            snapshots.ended(2, Some(100));
            assert_eq!(leave(&mut snapshots, 300), 100);
            snapshots.progress(290, &[(2, 250), (3, 300)]);
            assert_eq!(leave(&mut snapshots, 300), 250);
            assert!(snapshots.waited_for(None).is_some());
            snapshots.progress(290, &[(2, 290), (3, 300)]);
            assert_eq!(leave(&mut snapshots, 300), 300);
            // It falls behind again.
            snapshots.progress(900, &[(2, 290), (3, 900)]);
            assert_eq!(leave(&mut snapshots, 900), 900);
            assert_eq!(snapshots.waited_for(None), None);
        });
    }

    /// A member that restarts, or is cut off for a moment, finds the log where it left it; one that is
    /// gone for longer is a reason to keep it no more, nor is one that was long gone at an election.
    #[test]
    fn who_lags_is_waited_for_with_patience() {
        block_on_test(async {
            const PATIENCE: Duration = Duration::from_millis(300);
            let mut snapshots = Snapshots::default();
            let members = |two, three| [(2, two), (3, three)];
            snapshots.progress(100, &members(100, 100));
            sleep(2 * PATIENCE).await;
            // Near the end all the time: it goes only now.
            snapshots.progress(100, &members(100, 100));
            snapshots.progress(900, &members(100, 900));
            assert_eq!(snapshots.leave_for_those(800, PATIENCE), 100);
            assert_eq!(snapshots.leave_for_those(800, Duration::ZERO), 800);
            assert_eq!(
                snapshots.waited_for(None),
                None,
                "nobody is slowed down for it"
            );
            sleep(PATIENCE / 2).await;
            snapshots.progress(900, &members(101, 900));
            sleep(PATIENCE / 2).await;
            snapshots.progress(900, &members(101, 900));
            assert_eq!(snapshots.leave_for_those(800, PATIENCE), 101, "it comes on");
            sleep(PATIENCE).await;
            snapshots.progress(900, &members(101, 900));
            assert_eq!(snapshots.leave_for_those(800, PATIENCE), 800);
            // A member no more.
            snapshots.ended(2, Some(500));
            snapshots.progress(900, &members(500, 900)[1..]);
            assert_eq!(snapshots.leave_for_those(800, PATIENCE), 800);
        });
    }
}
