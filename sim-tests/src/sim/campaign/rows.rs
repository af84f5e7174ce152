//! What the state files hold, counted anew.
//!
//! Replicas tell a digest that is kept up row by row and written beside the rows: a flush or a switch
//! that loses rows leaves it right. So at the end every state is opened once more, from outside, and
//! its rows are read.

use super::machines::Machines;
use crate::sim::nodes::Key;
use raft::store::{Opened, Stamp, Store, StoreError, StoreOptions};
use world::disk::SimDiskOptions;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Part of the digest's definition.
const SEED: u64 = 0x686f_6c64_6661_7374;
/// Rows read at a time.
const AT_ONCE: usize = 256;

/// Sum of the hashes of all rows, and their number.
fn count(store: &Store) -> Result<(u64, u64), StoreError> {
    let (mut sum, mut rows, mut from) = (0u64, 0, Vec::new());
    loop {
        let some = store.rows().range(&from, &[], AT_ONCE, usize::MAX)?;
        let Some((last, _)) = some.last() else {
            return Ok((sum, rows));
        };
        from = [last, b"\0".as_slice()].concat();
        for (key, value) in &some {
            let hash = xxh3_64_with_seed(value, xxh3_64_with_seed(key, SEED));
            (sum, rows) = (sum.wrapping_add(hash), rows + 1);
        }
    }
}

/// The stamp of a member's state file, and what is counted; `None` where there is no state.
async fn member(machines: &Machines, key: Key) -> Result<Option<(Stamp, (u64, u64))>, StoreError> {
    let disk = machines.cluster.nodes.disk(key);
    disk.set_options(SimDiskOptions::default());
    let options = StoreOptions {
        cache_bytes: 1 << 20,
        ..StoreOptions::default()
    };
    match Store::open(&disk.disk(), options).await? {
        Opened::Ready(store) => Ok(Some((store.stamp(), count(&store)?))),
        Opened::Lost(..) => Ok(None),
    }
}

/// Every member is down: the rows of each are those of their stamp (I4). Of a disk that was damaged
/// only what can be read.
pub(super) async fn are_those_of_their_stamps(machines: &Machines) {
    let spoiled = machines.spoiled();
    for key in machines.all() {
        let name = machines.cluster.nodes.name(key);
        match member(machines, key).await {
            Ok(Some((stamp, counted))) => {
                if counted != (stamp.digest, stamp.rows) {
                    panic!(
                        "I4: {name}: the rows of its state, {counted:?}, are not those of its stamp, \
                         {stamp:?}"
                    );
                }
            }
            Ok(None) if spoiled.contains(&key) => {}
            Err(_) if spoiled.contains(&key) => {}
            Ok(None) => panic!("I7: {name}: its state is lost, and nothing damaged its disk"),
            Err(error) => panic!("I7: {name}: its state cannot be read: {error}"),
        }
    }
}
