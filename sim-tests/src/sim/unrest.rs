//! Unrest for whole clusters: lossy links, random partitions, staggered and total failures.

use super::kv_cluster::KvCluster;
use super::nodes::Key;
use ctrler::config::GroupId;
use std::time::Duration;
use tokio::time::sleep;
use world::entropy::random_u64;
use world::net::inject::{Verdict, set_judge};

/// A random duration.
pub fn between(least_ms: u64, most_ms: u64) -> Duration {
    Duration::from_millis(least_ms + random_u64() % (most_ms - least_ms + 1))
}

/// From now on frames are lost (5 of 100, requests and replies alike), doubled (5), overtaken by
/// later ones (10), and now and then a connection breaks.
pub fn unreliable() {
    set_judge(Some(Box::new(|_| match random_u64() % 200 {
        0..10 => Verdict::Drop,
        10..20 => Verdict::Duplicate,
        20..40 => Verdict::Delay(between(1, 200)),
        40 => Verdict::Reset,
        _ => Verdict::Pass,
    })));
}

/// From now on what groups say to each other is lost (10 of 100), doubled (20) or comes up to 3 s
/// late (30); everything else passes.
pub fn unreliable_between_groups() {
    set_judge(Some(Box::new(|passing| {
        if passing.channel != kv::api::GROUP_CHANNEL {
            return Verdict::Pass;
        }
        match random_u64() % 100 {
            0..10 => Verdict::Drop,
            10..30 => Verdict::Duplicate,
            30..60 => Verdict::Delay(between(1, 3000)),
            _ => Verdict::Pass,
        }
    })));
}

/// Everything passes again.
pub fn reliable() {
    set_judge(None);
}

impl KvCluster {
    /// Splits a group at random into two sides (one may be empty).
    pub fn split(&self, group: GroupId) {
        let (left, right): (Vec<Key>, Vec<Key>) = self
            .group(group)
            .into_iter()
            .partition(|_| random_u64().is_multiple_of(2));
        self.nodes.partition(&[&left, &right]);
    }

    /// A member of each of these groups after the other loses its power and comes back.
    pub async fn rolling_restart(&self, groups: &[GroupId], down: Duration) {
        for node in self.members(groups[0]) {
            for group in groups {
                self.nodes.kill(self.key(*group, node));
            }
            sleep(down).await;
            for group in groups {
                self.nodes.start(self.key(*group, node));
            }
            sleep(Duration::from_millis(1500)).await;
        }
    }

    /// Power fails everywhere at once, and comes back.
    pub async fn power_cut(&self, down: Duration) {
        for key in self.all() {
            if self.nodes.is_up(key) {
                self.nodes.kill(key);
            }
        }
        sleep(down).await;
        for key in self.all() {
            self.nodes.start(key);
        }
    }
}
