//! What the state files hold, counted anew.
//!
//! Replicas tell a digest that is kept up row by row and written beside the rows: a flush or a switch
//! that loses rows leaves it right. So at the end every state is opened once more, from outside, and
//! its rows are read. Those of keys' pieces and of stored replies are held against what they belong
//! to: what nothing points to would stay for ever, and move with its shard.

use super::machines::Machines;
use crate::sim::nodes::Key;
use ctrler::config::GroupId;
use kv::api::ShardState;
use kv::machine::keys::{COPY_LEN, DATA, PIECES, SESSIONS, copy, shard, shard_of};
use kv::machine::value::Head;
use raft::store::{Opened, Stamp, Store, StoreError, StoreOptions};
use std::collections::{BTreeMap, BTreeSet};
use world::disk::SimDiskOptions;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Part of the digest's definition.
const SEED: u64 = 0x686f_6c64_6661_7374;
/// Rows read at a time.
const AT_ONCE: usize = 256;

/// Rows that belong to others, as they are met in the order of keys.
#[derive(Default)]
struct Belonging {
    /// Prefixes of copies that are whole: they do not arrive any more, and are not given away.
    whole: BTreeSet<[u8; COPY_LEN]>,
    /// Rows of keys with long values, by copy and key: their number of pieces.
    pieces: BTreeMap<Vec<u8>, u32>,
    /// Rows of sessions, by copy and session: the highest acknowledged number.
    acked: BTreeMap<Vec<u8>, u64>,
    /// Replies, until their sessions are met (they stand in front of them).
    replies: Vec<(Vec<u8>, u64)>,
}

impl Belonging {
    /// A row of a group of stores; what is wrong with it.
    fn row(&mut self, key: &[u8], value: &bytes::Bytes) -> Result<(), String> {
        if let Some(number) = shard_of(key).filter(|n| key == shard(*n)) {
            // Variant, state, incarnation, and more.
            let decoded = postcard::take_from_bytes::<(u32, ShardState, u64)>(value);
            let ((_, state, incarnation), _) = decoded.map_err(|e| e.to_string())?;
            if state != ShardState::Arriving {
                self.whole.insert(copy(number, incarnation));
            }
        }
        let Some((prefix, [kind, rest @ ..])) = key.split_first_chunk() else {
            return Ok(());
        };
        if !self.whole.contains(prefix) {
            return Ok(());
        }
        let named = |name: &[u8]| [prefix, name].concat();
        match (*kind, rest) {
            (DATA, name) => {
                let head = Head::from_row(value)?;
                self.pieces.insert(named(name), head.value.pieces());
            }
            (PIECES, [name @ .., _, _, _, _]) => {
                let number = u32::from_be_bytes(*rest.last_chunk().expect("four bytes"));
                let count = self.pieces.get(&named(name)).copied().unwrap_or(0);
                if number >= count {
                    return Err(format!("piece {number} of a value of {count} pieces"));
                }
            }
            (SESSIONS, [b'S', session @ ..]) => {
                // Variant, last number, highest number acknowledged, and more.
                let decoded = postcard::take_from_bytes::<(u32, u64, u64)>(value);
                let ((_, _, acked), _) = decoded.map_err(|e| e.to_string())?;
                self.acked.insert(named(session), acked);
            }
            (SESSIONS, [b'R', rest @ ..]) => {
                let (session, seq) = rest.split_last_chunk().ok_or("a short key")?;
                self.replies
                    .push((named(session), u64::from_be_bytes(*seq)));
            }
            _ => {}
        }
        Ok(())
    }

    fn end(self) -> Result<(), String> {
        for (session, seq) in &self.replies {
            match self.acked.get(session) {
                Some(acked) if seq > acked => {}
                other => {
                    return Err(format!(
                        "a reply to number {seq} of a session that acknowledged {other:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// What a state file holds.
struct Counted {
    /// What it says that it holds.
    stamp: Stamp,
    /// Sum of the hashes of all rows, and their number.
    rows: (u64, u64),
    /// What is wrong with rows that belong to others.
    belonging: Result<(), String>,
}

/// Reads all rows. The controllers' belong to nobody.
fn count(group: GroupId, store: &Store) -> Result<Counted, StoreError> {
    let (mut sum, mut rows, mut from) = (0u64, 0, Vec::new());
    let (mut belonging, mut wrong) = (Belonging::default(), Ok(()));
    loop {
        let some = store.rows().range(&from, &[], AT_ONCE, usize::MAX)?;
        let Some((last, _)) = some.last() else {
            return Ok(Counted {
                stamp: store.stamp(),
                rows: (sum, rows),
                belonging: wrong.and_then(|()| belonging.end()),
            });
        };
        from = [last, b"\0".as_slice()].concat();
        for (key, value) in &some {
            let hash = xxh3_64_with_seed(value, xxh3_64_with_seed(key, SEED));
            (sum, rows) = (sum.wrapping_add(hash), rows + 1);
            if group > 0 && wrong.is_ok() {
                wrong = belonging.row(key, value);
            }
        }
    }
}

/// What a member's state file holds; `None` where there is no state.
async fn member(machines: &Machines, key: Key) -> Result<Option<Counted>, StoreError> {
    let disk = machines.cluster.nodes.disk(key);
    disk.set_options(SimDiskOptions::default());
    let options = StoreOptions {
        cache_bytes: 1 << 20,
        ..StoreOptions::default()
    };
    match Store::open(&disk.disk(), options).await? {
        Opened::Ready(store) => Ok(Some(count(machines.site(key).0, &store)?)),
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
            Ok(Some(counted)) => {
                let (rows, stamp) = (counted.rows, counted.stamp);
                if rows != (stamp.digest, stamp.rows) {
                    panic!(
                        "I4: {name}: the rows of its state, {rows:?}, are not those of its stamp, {stamp:?}"
                    );
                }
                if let Err(what) = counted.belonging {
                    panic!("I14: {name}: its state keeps {what}");
                }
            }
            Ok(None) if spoiled.contains(&key) => {}
            Err(_) if spoiled.contains(&key) => {}
            Ok(None) => panic!("I7: {name}: its state is lost, and nothing damaged its disk"),
            Err(error) => panic!("I7: {name}: its state cannot be read: {error}"),
        }
    }
}
