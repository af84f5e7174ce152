//! Orders to the controllers, in the middle of everything.

use super::nemesis::{Nemesis, lock, ms};
use crate::campaign::fault::{Down, Fault};
use ctrler::client::ClientError;
use ctrler::config::{ConfigNum, GroupId, ShardId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// For an order to the controllers.
const ORDER: Duration = Duration::from_secs(20);

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
                done |= self.made(moved.as_ref());
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
                    let joined = controller.join([(group, identity)].into(), ORDER).await;
                    done |= self.made(joined.as_ref());
                }
            }
            Fault::Leave { groups, shutdown } => {
                for group in groups {
                    let left = controller.leave(vec![*group], ORDER).await;
                    done |= self.made(left.as_ref());
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
    fn made(&self, answer: Result<&ConfigNum, &ClientError>) -> bool {
        answer.is_ok_and(|num| {
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
