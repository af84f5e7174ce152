//! The lane of a shard: which groups hold it, in which state, and who serves it.
//!
//! Judged at log positions: of the members of a group the first that applies an entry counts.

use super::lanes::field;
use crate::campaign::record::Record;
use serde::Serialize;
use std::collections::BTreeMap;

/// Shards shown.
const MOST: usize = 64;
/// `ShardState::Absent`.
const ABSENT: u64 = 0;

/// A shard.
#[derive(Debug, Serialize)]
pub struct ShardLane {
    /// Its number.
    pub shard: u64,
    /// Rows taken.
    pub rows: usize,
    /// Who holds it.
    pub holdings: Vec<Holding>,
}

/// A group has a shard for a while, in one state.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// From.
    pub from: u64,
    /// To.
    pub to: u64,
    /// The group.
    pub group: u64,
    /// As in `kv::api::ShardState`.
    pub state: u64,
    /// Reads and writes are accepted.
    pub accepts: bool,
    /// The group's configuration.
    pub config: u64,
    /// Row.
    pub row: usize,
}

#[derive(Default)]
struct Build {
    rows: Vec<Option<u64>>,
    /// What each group has now.
    now: BTreeMap<u64, Holding>,
    done: Vec<Holding>,
}

impl Build {
    fn change(&mut self, at: u64, mut next: Holding) {
        let group = next.group;
        if next.state == ABSENT && !self.now.contains_key(&group) {
            return;
        }
        let row = match self.now.remove(&group) {
            Some(mut before) => {
                before.to = at;
                let row = before.row;
                self.done.push(before);
                row
            }
            None => {
                let free = self.rows.iter().position(Option::is_none);
                free.unwrap_or_else(|| {
                    self.rows.push(None);
                    self.rows.len() - 1
                })
            }
        };
        if next.state == ABSENT {
            if let Some(holder) = self.rows.get_mut(row) {
                *holder = None;
            }
        } else {
            self.rows[row] = Some(group);
            next.row = row;
            self.now.insert(group, next);
        }
    }
}

/// The lanes of all shards.
pub fn lanes(record: &Record, end: u64) -> Vec<ShardLane> {
    let mut shards: BTreeMap<u64, Build> = BTreeMap::new();
    // (shard, group) → index of its last change.
    let mut known: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for point in record.points.iter().filter(|p| p.kind == "ownership") {
        let number = |name| field(point, name).unwrap_or(0);
        let (shard, index) = (number("shard"), field(point, "index"));
        if let Some(index) = index {
            let last = known.entry((shard, point.group)).or_insert(0);
            if index <= *last {
                continue;
            }
            *last = index;
        }
        if shards.len() == MOST && !shards.contains_key(&shard) {
            continue;
        }
        let holding = Holding {
            from: point.at_us,
            to: end,
            group: point.group,
            state: number("state"),
            accepts: number("accepts") == 1,
            config: number("config"),
            row: 0,
        };
        shards
            .entry(shard)
            .or_default()
            .change(point.at_us, holding);
    }
    let lane = |(shard, mut build): (u64, Build)| {
        build
            .done
            .extend(std::mem::take(&mut build.now).into_values());
        build.done.sort_by_key(|h| (h.from, h.group));
        ShardLane {
            shard,
            rows: build.rows.len(),
            holdings: build.done,
        }
    };
    shards.into_iter().map(lane).collect()
}
