//! The newest configuration: whoever asks the controllers is told no older one than anybody was told
//! of before he asked.

use crate::sim::kv_cluster::KvCluster;
use crate::sim::unrest::between;
use ctrler::config::{ConfigNum, GroupId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::sleep;

/// For one question.
const PATIENCE: Duration = Duration::from_secs(5);

/// The newest that anybody was told of. Cheap to clone.
#[derive(Clone, Default)]
pub struct Newest(Arc<AtomicU64>);

impl Newest {
    /// Somebody was told of it.
    pub fn told(&self, num: ConfigNum) {
        self.0.fetch_max(num, Ordering::Relaxed);
    }

    /// Asks again and again, until it is stopped.
    ///
    /// # Panics
    /// When an answer is older than what was told before the question, or what a group has settled goes
    /// back (I6).
    pub async fn ask(self, cluster: KvCluster, stop: Arc<AtomicBool>) {
        let controller = cluster.controller();
        let mut settled: BTreeMap<GroupId, ConfigNum> = BTreeMap::new();
        while !stop.load(Ordering::Relaxed) {
            let before = self.0.load(Ordering::Relaxed);
            if let Ok(config) = controller.query(None, PATIENCE).await {
                assert!(
                    config.num >= before,
                    "I6: a query was answered with configuration {}, after somebody had been told of {before}",
                    config.num
                );
                self.told(config.num);
            }
            if let Ok(records) = controller.records(PATIENCE).await {
                for (group, record) in records {
                    let before = settled.insert(group, record.settled).unwrap_or(0);
                    assert!(
                        record.settled >= before,
                        "I6: the record of group {group} says that it has settled {}, and said {before} before",
                        record.settled
                    );
                }
            }
            sleep(between(50, 500)).await;
        }
    }
}
