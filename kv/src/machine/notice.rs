//! Tells the mover that the agenda may have changed. Not part of the state: a lost notice costs
//! one poll.

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

/// A bell between the machine, the server's door and the mover.
#[derive(Debug, Default)]
pub struct Notice {
    bell: Notify,
    newer: Notify,
    arrived: Notify,
}

impl Notice {
    /// Rings: shards, configuration or copies to sweep changed.
    pub fn changed(&self) {
        self.bell.notify_one();
    }

    /// Resolves when it rang since the last call.
    pub async fn heard(&self) {
        self.bell.notified().await;
    }

    /// Rings: somebody says that a shard given away has arrived.
    pub fn arrived(&self) {
        self.arrived.notify_waiters();
    }

    /// Resolves when that happens after this call, awaited or not.
    pub fn heard_of_arrival(&self) -> Notified<'_> {
        self.arrived.notified()
    }

    /// Rings: somebody spoke of a configuration newer than ours.
    pub fn newer(&self) {
        self.newer.notify_one();
    }

    /// Resolves when that happened since the last call.
    pub async fn heard_of_newer(&self) {
        self.newer.notified().await;
    }
}
