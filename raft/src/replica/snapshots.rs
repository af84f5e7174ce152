//! What the Raft task does about the log's beginning: compaction, and snapshots for followers that
//! need what was compacted away.

use super::Consensus;
use crate::replica::log_task::LogOp;
use crate::replica::shared::Apply;
use crate::replica::transfer;
use crate::store::Spool;
use raft_protocol::{Index, Input, NodeId, SnapshotMeta, Term};
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
    /// Members that took no snapshot lately: how often in a row, and when they are tried again.
    failed: BTreeMap<NodeId, (u32, Instant)>,
}

/// Pause after the second transfer in a row that failed, doubled with each one more, and the longest.
/// (A snapshot is a copy of the whole state; a follower without room for it refuses at once, and the
/// first refusal may only mean that it is past it.)
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));

impl Snapshots {
    /// This member needs one.
    pub(super) fn wanted_by(&mut self, to: NodeId) {
        self.waiting.push(to);
    }

    /// A transfer has ended.
    pub(super) fn ended(&mut self, to: NodeId, installed: bool) {
        if installed {
            self.failed.remove(&to);
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
        let options = &self.shared.options;
        let status = self.core.status();
        let mut through = durable.index.min(status.commit);
        if status.log_bytes <= options.max_log_bytes - options.max_unflushed_bytes() {
            let keep = options.keep_log_bytes;
            let mut kept = 0;
            for entry in self
                .core
                .entries(status.base_index + 1, through, usize::MAX)
                .iter()
                .rev()
            {
                kept += entry.size();
                if kept > keep {
                    break;
                }
                through = entry.index - 1;
            }
            let spool = self.snapshots.spool.as_ref().map(|s| s.stamp.index);
            for needed in [spool, self.snapshots.requested].into_iter().flatten() {
                if needed < through {
                    world::mark!("compaction: the log behind a snapshot in transfer is kept");
                }
                through = through.min(needed);
            }
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
                    self.snapshots.ended(to, false);
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
            snapshots.ended(2, false);
            assert!(snapshots.is_due(2), "at once");
            snapshots.ended(2, false);
            assert!(!snapshots.is_due(2) && snapshots.is_due(3));
            sleep(PAUSE.0 + PAUSE.0 / 5).await;
            assert!(snapshots.is_due(2));
            for _ in 0..100 {
                snapshots.ended(2, false);
            }
            let (_, until) = snapshots.failed[&2];
            let left = until.saturating_duration_since(now());
            assert!(left <= PAUSE.1 && left > PAUSE.1 / 2, "{left:?}");
            snapshots.ended(2, true);
            assert!(snapshots.is_due(2));
            snapshots.ended(2, false);
            snapshots.ended(2, false);
            snapshots.stand_down();
            assert!(
                snapshots.is_due(2),
                "another leadership knows nothing of it"
            );
        });
    }
}
