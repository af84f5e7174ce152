//! Orders to the controllers, in the middle of everything.

use super::nemesis::{Nemesis, lock, ms};
use crate::campaign::fault::{Down, Fault};
use ctrler::client::ClientError;
use ctrler::config::{Config, ConfigNum, GroupId, ShardId};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// For an order to the controllers.
const ORDER: Duration = Duration::from_secs(20);

/// A change that the controllers say they made.
#[derive(Clone, Copy, Debug)]
enum Change {
    Move(ShardId, GroupId),
    Join(GroupId),
    Leave(GroupId),
}

impl Change {
    fn is_in(self, config: &Config) -> bool {
        match self {
            Change::Move(shard, group) => config.shards.get(shard as usize) == Some(&Some(group)),
            Change::Join(group) => config.groups.contains_key(&group),
            Change::Leave(group) => !config.groups.contains_key(&group),
        }
    }
}

/// What was asked of the controllers, and what they said of it. Cheap to clone.
#[derive(Clone, Default)]
pub struct Orders {
    made: Arc<Mutex<Vec<(ConfigNum, Change)>>>,
    /// Joins of each group that were asked for, and those of which it is known what came of them.
    joins: Arc<Mutex<BTreeMap<GroupId, (u64, u64)>>>,
}

impl Orders {
    /// Every change that was said to be made is in the configuration that was named for it.
    ///
    /// # Panics
    /// When one is not (I9).
    pub fn are_in(&self, configs: &[Config]) {
        for (num, change) in lock(&self.made).iter() {
            let config = configs.get(*num as usize);
            assert!(
                config.is_some_and(|config| change.is_in(config)),
                "I9: {change:?} was said to be made by configuration {num}, and is not in it: {config:?}"
            );
        }
    }

    /// A join is asked for; true when every earlier one of the group has an answer.
    fn joins(&self, group: GroupId) -> bool {
        let mut joins = lock(&self.joins);
        let (asked, known) = joins.entry(group).or_default();
        *asked += 1;
        *asked == *known + 1
    }

    /// It has an answer; true when no other one was asked for meanwhile.
    fn joined(&self, group: GroupId) -> bool {
        let mut joins = lock(&self.joins);
        let (asked, known) = joins.entry(group).or_default();
        *known += 1;
        *asked == *known
    }
}

impl Nemesis {
    /// Tells the controllers, and does not mind when they refuse or cannot be reached; true when they
    /// did something of it.
    pub(super) async fn order(&self, fault: &Fault) -> bool {
        let mut done = false;
        let cluster = &self.machines.cluster;
        let controller = cluster.controller();
        match fault {
            Fault::Move { shard, .. } if self.is_spared(*shard) => {}
            Fault::Move { shard, group } => {
                let moved = controller.move_shard(*shard, *group, ORDER).await;
                done |= self.made(moved.as_ref(), Change::Move(*shard, *group));
            }
            Fault::Join(groups) => {
                let mut joining = BTreeMap::new();
                for group in groups {
                    self.reopen(*group);
                    if let Ok(identity) = timeout(ms(3000), cluster.identify(*group)).await {
                        joining.insert(*group, identity);
                    }
                }
                // One by one, since one that is a member already spoils the whole order.
                for (group, identity) in joining {
                    let before = controller.query(None, ORDER).await;
                    let new = before.is_ok_and(|c| !c.groups.contains_key(&group));
                    let alone = self.orders.joins(group);
                    let joined = controller.join([(group, identity)].into(), ORDER).await;
                    done |= self.made(joined.as_ref(), Change::Join(group));
                    if matches!(joined, Err(ClientError::Unknown(_))) {
                        continue;
                    }
                    let alone = self.orders.joined(group) && alone;
                    if let (true, true, Err(ClientError::Invalid(why))) = (new, alone, &joined) {
                        assert!(
                            !why.contains("a member already"),
                            "I9: group {group} was no member, nobody else had it join, and: {why}"
                        );
                    }
                }
            }
            Fault::Leave { groups, shutdown } => {
                for group in groups {
                    let left = controller.leave(vec![*group], ORDER).await;
                    done |= self.made(left.as_ref(), Change::Leave(*group));
                    if let (Ok(num), true) = (left, *shutdown) {
                        self.shut_when_done(*group, num).await;
                    }
                }
            }
            _ => {}
        }
        done
    }

    /// True when an order made a configuration.
    fn made(&self, answer: Result<&ConfigNum, &ClientError>, change: Change) -> bool {
        answer.is_ok_and(|num| {
            lock(&self.orders.made).push((*num, change));
            self.newest.told(*num);
            true
        })
    }

    /// Shards of the group that is to be left alone stay where they are.
    fn is_spared(&self, shard: ShardId) -> bool {
        self.spared.contains(&shard)
    }

    /// A group that left may be shut down when the controllers have it that it is done.
    async fn shut_when_done(&self, group: GroupId, since: ConfigNum) {
        let cluster = &self.machines.cluster;
        let controller = cluster.controller();
        let done = async {
            loop {
                let record = controller.record(group, ORDER).await;
                if matches!(record, Ok(Some(r)) if r.settled >= since && !r.holds) {
                    return;
                }
                sleep(ms(200)).await;
            }
        };
        if timeout(ORDER, done).await.is_err() {
            return;
        }
        if lock(&self.shut).insert(group) {
            for key in cluster.group(group) {
                self.machines.hold(key, Down::Graceful).await;
            }
        }
    }

    fn reopen(&self, group: GroupId) {
        if lock(&self.shut).remove(&group) {
            for key in self.machines.cluster.group(group) {
                self.machines.release(key);
            }
        }
    }
}
