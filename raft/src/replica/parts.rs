//! Parts of a replica for tests of one of its tasks alone.

use super::options::Options;
use super::shared::{Ends, Shared};
use crate::identity::Identity;
use crate::machine::{At, Machine};
use crate::store::{Rows, Stamp, StoreError};
use bytes::Bytes;
use raft_protocol::{Core, HardState, NodeId, SnapshotMeta, Start};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use world::disk::{SimDisk, SimDiskOptions};

/// A machine that does nothing, and reads the row that is named, or else the row "key".
pub(super) struct Nothing;

impl Machine for Nothing {
    fn load(&mut self, _: &Rows) -> Result<(), StoreError> {
        Ok(())
    }
    fn apply(&mut self, _: &mut Rows, _: At, _: &[u8]) -> Result<Bytes, StoreError> {
        Ok(Bytes::new())
    }
    fn read(&self, rows: &Rows, query: &[u8]) -> Result<Bytes, StoreError> {
        let key = if query.is_empty() { b"key" } else { query };
        Ok(rows.get(key)?.unwrap_or_default())
    }
    fn least_answer(&self, rows: &Rows, query: &[u8]) -> Result<usize, StoreError> {
        Ok(self.read(rows, query)?.len())
    }
}

/// A disk on which hardly anything takes time.
pub(super) fn disk(name: &str) -> SimDisk {
    let options = SimDiskOptions {
        latency: (Duration::ZERO, Duration::from_micros(100)),
        ..SimDiskOptions::default()
    };
    SimDisk::new(name, 1, options)
}

/// Of node 1 of group 1.
pub(super) fn options(peers: BTreeMap<NodeId, String>) -> Options {
    Options::new(1, 1, peers)
}

/// What the tasks of node 1 of group 1 share, and the ends to which nobody listens yet. It has met
/// node 2 when that is among its peers.
pub(super) fn shared(disk: &SimDisk, options: Options, stamp: &Stamp) -> (Arc<Shared>, Ends) {
    let core = Core::new(Start {
        id: 1,
        settings: options.settings(),
        seed: 1,
        hard_state: HardState::default(),
        base: SnapshotMeta::default(),
        entries: Vec::new(),
        applied: 0,
        commit: 0,
        born: true,
        state_lost: false,
    });
    let other = options.peers.contains_key(&2);
    let identity = Identity {
        disk: 1,
        cluster: None,
        group: 1,
        node: 1,
        boot: 1,
        nonce: 1,
        born: true,
        initial: BTreeMap::new(),
        met: other.then_some((2, 2)).into_iter().collect(),
        boots: other.then_some((2, (1, 1))).into_iter().collect(),
        before: Vec::new(),
    };
    Shared::new(options, disk.disk(), identity, core.status(), stamp)
}
