//! Shards on the move: configurations entered or skipped, shards frozen, installed, released and
//! swept. Every command here names the configuration it belongs to, and one that comes late changes nothing.

use super::chunk::{self, Chunk};
use super::command::{Ack, Enter, Skip};
use super::state::{Counters, Cursor, Dead, Layout, Row, Run, ShardRow, from_runs};
use super::{KvMachine, Shard, keys};
use crate::api::ShardState;
use bytes::Bytes;
use ctrler::config::{ConfigNum, GroupId, SHARDS, ShardId};
use raft::At;
use raft::store::{Rows, StoreError};
use std::collections::BTreeMap;
use world::observe;

/// Rows deleted by one sweep.
pub const SWEEP_ROWS: usize = 1000;
/// Bytes of rows deleted by one sweep (at least one row goes).
pub const SWEEP_BYTES: usize = 256 << 10;

/// What a configuration does to a shard here.
enum Change {
    /// Never owned by anybody: served, empty.
    Born,
    /// Fetched from its holder.
    Arrive(GroupId),
    /// Held here, and ours again.
    Serve,
    /// Given to a group with this birth id.
    Leave(GroupId, u128),
    /// Nobody's; kept.
    Hold,
}

fn refused(reason: impl Into<String>) -> Result<Ack, StoreError> {
    Ok(Ack::Refused(reason.into()))
}

impl KvMachine {
    /// Enters the next configuration: no other, and only when nothing of the present one is owed.
    pub(super) fn enter(
        &mut self,
        rows: &mut Rows,
        at: At,
        enter: &Enter,
    ) -> Result<Ack, StoreError> {
        if self.meta.birth.is_none() {
            return refused("not born");
        }
        if enter.num != self.meta.config + 1 {
            world::mark!("config: a repeated or late entering is refused");
            return refused(format!(
                "in {}, not next to {}",
                self.meta.config, enter.num
            ));
        }
        if !self.settled() {
            world::mark!("config: entering is refused, something is owed");
            return refused(format!("configuration {} is not settled", self.meta.config));
        }
        let owners = match self.all_shards(&enter.owners) {
            Ok(owners) => owners,
            Err(reason) => return refused(reason),
        };
        let births: BTreeMap<GroupId, u128> = enter.births.iter().copied().collect();
        if !self.dead.is_empty() {
            world::mark!("config: entered while a copy given away is not swept yet");
        }
        // Everything is judged before anything is changed.
        let mut changes = Vec::new();
        for (shard, owner) in owners.iter().enumerate() {
            match self.judge(shard as ShardId, *owner, &births) {
                Ok(None) => {}
                Ok(Some(change)) => changes.push((shard as ShardId, change)),
                Err(reason) => return refused(format!("shard {shard}: {reason}")),
            }
        }
        let old = std::mem::take(&mut self.layout.holders);
        let holders = owners.iter().enumerate();
        let holders = holders
            .map(|(s, owner)| owner.or(old.get(s).copied().flatten()))
            .collect();
        self.put_config(rows, enter.num, Layout { owners, holders })?;
        let fields = [("config", enter.num), ("index", at.index)];
        observe(self.site, "enter", &fields);
        for (shard, change) in changes {
            self.change(rows, at, shard, change)?;
        }
        Ok(Ack::Done)
    }

    /// Goes past configurations that change nothing here. That they do not is the controllers'
    /// word; that this group is where they think it is, and that the last of them gives it what its
    /// rows say it has, is looked at.
    pub(super) fn skip(&mut self, rows: &mut Rows, at: At, skip: &Skip) -> Result<Ack, StoreError> {
        if self.meta.birth.is_none() {
            return refused("not born");
        }
        if skip.from != self.meta.config || skip.to <= skip.from {
            world::mark!("config: a repeated or late skip is refused");
            return refused(format!(
                "in {}, not between {} and {}",
                self.meta.config, skip.from, skip.to
            ));
        }
        let owners = self.all_shards(&skip.owners);
        let (owners, holders) = match (owners, self.all_shards(&skip.holders)) {
            (Ok(owners), Ok(holders)) if owners.len() == holders.len() => (owners, holders),
            (Ok(_), Ok(_)) => return refused("as many holders as owners are expected"),
            (Err(reason), _) | (_, Err(reason)) => return refused(reason),
        };
        // A shard that is still owed, arriving or leaving, is what no configuration gives.
        let share = ctrler::config::share(&owners, &holders, self.group);
        for (shard, share) in (0..).zip(share) {
            let state = self.shards.get(&shard).map(|here| here.row.state);
            let expected = match share {
                (true, true) => Some(ShardState::Serving),
                (false, true) => Some(ShardState::Held),
                _ => None,
            };
            if state != expected || share == (true, false) {
                return refused(format!(
                    "shard {shard}: it is {state:?} here, and {expected:?} in {}",
                    skip.to
                ));
            }
        }
        world::mark!("config: some that change nothing here are skipped");
        self.put_config(rows, skip.to, Layout { owners, holders })?;
        let fields = [
            ("config", skip.to),
            ("index", at.index),
            ("from", skip.from),
        ];
        observe(self.site, "skip", &fields);
        Ok(Ack::Done)
    }

    /// A group for each shard, of as many shards as there were.
    fn all_shards(&self, runs: &[Run]) -> Result<Vec<Option<GroupId>>, String> {
        let groups = from_runs(runs).ok_or("too many shards")?;
        let total = self.layout.owners.len();
        if !SHARDS.contains(&(groups.len() as u32)) || (total > 0 && total != groups.len()) {
            return Err(format!("{} shards, where {total} were", groups.len()));
        }
        Ok(groups)
    }

    fn put_config(
        &mut self,
        rows: &mut Rows,
        num: ConfigNum,
        layout: Layout,
    ) -> Result<(), StoreError> {
        self.layout = layout;
        rows.put(keys::LAYOUT, &self.layout.to_row())?;
        self.meta.config = num;
        self.put_meta(rows)
    }

    fn judge(
        &self,
        shard: ShardId,
        owner: Option<GroupId>,
        births: &BTreeMap<GroupId, u128>,
    ) -> Result<Option<Change>, String> {
        let holder = self.layout.holders.get(shard as usize).copied().flatten();
        let state = self
            .shards
            .get(&shard)
            .map_or(ShardState::Absent, |here| here.row.state);
        // What the history says of us must be what our rows say: a group that lost its rows
        // must not serve an empty shard in their place.
        let expected = if holder == Some(self.group) {
            matches!(state, ShardState::Serving | ShardState::Held)
        } else {
            state == ShardState::Absent
        };
        if !expected {
            return Err(format!(
                "it is {state:?} here, and its holder is {holder:?}"
            ));
        }
        let ours = holder == Some(self.group);
        Ok(match owner {
            Some(owner) if owner == self.group => match holder {
                None => Some(Change::Born),
                Some(from) if !ours => Some(Change::Arrive(from)),
                Some(_) if state == ShardState::Held => Some(Change::Serve),
                Some(_) => None,
            },
            Some(owner) if ours => match births.get(&owner) {
                Some(birth) => Some(Change::Leave(owner, *birth)),
                None => return Err(format!("its owner {owner} is not a group")),
            },
            None if ours && state == ShardState::Serving => Some(Change::Hold),
            _ => None,
        })
    }

    fn change(
        &mut self,
        rows: &mut Rows,
        at: At,
        shard: ShardId,
        change: Change,
    ) -> Result<(), StoreError> {
        let num = self.meta.config;
        match change {
            Change::Born | Change::Arrive(_) => {
                let copies = (shard, 0)..=(shard, ConfigNum::MAX);
                if self.dead.range(copies).next().is_some() {
                    world::mark!("shard: it comes back before its old copy is swept");
                }
                let row = match change {
                    Change::Arrive(from) => ShardRow::arriving(num, from),
                    _ => ShardRow::serving(num),
                };
                self.shards
                    .insert(shard, Shard::new(shard, row, Counters::default()));
                rows.put(&keys::counters(shard), &Counters::default().to_row())?;
            }
            Change::Serve => {
                world::mark!("shard: Held, then Serving");
                self.with(shard, |row| *row = row.served());
            }
            Change::Leave(to, birth) => self.with(shard, |row| {
                // A Held copy is served by nobody: it is frozen as it is.
                if row.state == ShardState::Held {
                    world::mark!("shard: Held, then Leaving");
                    row.freeze(at);
                }
                row.state = ShardState::Leaving;
                row.peer = Some(to);
                row.peer_birth = Some(birth);
            }),
            Change::Hold => {
                world::mark!("shard: Serving, then Held");
                self.with(shard, |row| row.state = ShardState::Held);
            }
        }
        self.put_shard(rows, at, shard)
    }

    fn with(&mut self, shard: ShardId, change: impl FnOnce(&mut ShardRow)) {
        if let Some(here) = self.shards.get_mut(&shard) {
            change(&mut here.row);
        }
    }

    /// The shard in this state, in this configuration and no other.
    fn fenced(&mut self, shard: ShardId, num: ConfigNum, state: ShardState) -> Option<&mut Shard> {
        if self.meta.config != num {
            return None;
        }
        self.shards
            .get_mut(&shard)
            .filter(|here| here.row.state == state)
    }

    /// From here on the shard is not served: its new owner, in this configuration itself, asks
    /// for it.
    pub(super) fn freeze(
        &mut self,
        rows: &mut Rows,
        at: At,
        shard: ShardId,
        num: ConfigNum,
    ) -> Result<Ack, StoreError> {
        let Some(here) = self.fenced(shard, num, ShardState::Leaving) else {
            world::mark!("move: a late freeze");
            return refused("not leaving in this configuration");
        };
        if here.row.frozen {
            world::mark!("move: frozen twice");
            return refused("frozen already");
        }
        here.row.freeze(at);
        self.put_shard(rows, at, shard)?;
        Ok(Ack::Done)
    }

    /// Rows of an arriving shard, accepted only at the cursor; with the last of them it serves,
    /// whatever else of the configuration is still on its way.
    pub(super) fn install(
        &mut self,
        rows: &mut Rows,
        at: At,
        shard: ShardId,
        num: ConfigNum,
        from: &Cursor,
        chunk: &Chunk,
    ) -> Result<Ack, StoreError> {
        let Some(here) = self.fenced(shard, num, ShardState::Arriving) else {
            world::mark!("move: rows of a shard that is not arriving");
            return refused("not arriving in this configuration");
        };
        if here.row.cursor != *from {
            world::mark!("move: rows at a wrong cursor");
            return refused("not where its rows end");
        }
        let incarnation = here.row.incarnation;
        if let Err(reason) = chunk::check(from, chunk, at.time_ms) {
            return refused(reason);
        }
        chunk::install(
            rows,
            shard,
            incarnation,
            chunk,
            at.time_ms,
            &mut here.counters,
        )?;
        rows.put(&keys::counters(shard), &here.counters.to_row())?;
        here.row.changes = here.row.changes.max(chunk.changes);
        match &chunk.next {
            Some(next) => here.row.cursor = next.clone(),
            None => {
                // The table may have cached nothing while rows came in below it.
                let counters = here.counters;
                *here = Shard::new(shard, here.row.served(), counters);
            }
        }
        self.put_shard(rows, at, shard)?;
        Ok(Ack::Done)
    }

    /// The new owner has committed the shard. Without the number a late notice would delete a
    /// shard that has come back.
    pub(super) fn release(
        &mut self,
        rows: &mut Rows,
        at: At,
        shard: ShardId,
        num: ConfigNum,
    ) -> Result<Ack, StoreError> {
        let Some(here) = self.fenced(shard, num, ShardState::Leaving) else {
            world::mark!("move: a late release");
            return refused("not leaving in this configuration");
        };
        if !here.row.frozen {
            return refused("not even frozen");
        }
        let incarnation = here.row.incarnation;
        let dead = Dead {
            bytes: here.counters.bytes,
            swept: Bytes::new(),
        };
        self.shards.remove(&shard);
        rows.delete(&keys::shard(shard))?;
        rows.delete(&keys::counters(shard))?;
        rows.put(&keys::dead(shard, incarnation), &dead.to_row())?;
        self.dead.insert((shard, incarnation), dead);
        self.tell(at, shard);
        Ok(Ack::Done)
    }

    /// Deletes some rows of a copy given away, and with the last of them its own row.
    pub(super) fn sweep(
        &mut self,
        rows: &mut Rows,
        shard: ShardId,
        incarnation: ConfigNum,
    ) -> Result<Ack, StoreError> {
        let Some(dead) = self.dead.get_mut(&(shard, incarnation)) else {
            return refused("nothing to sweep");
        };
        let prefix = keys::copy(shard, incarnation);
        let start = [&prefix[..], &dead.swept].concat();
        let end = keys::copy_end(shard, incarnation);
        let found = rows.range(&start, &end, SWEEP_ROWS, SWEEP_BYTES)?;
        for (row, value) in &found {
            rows.delete(row)?;
            let bytes = chunk::counted(&row[keys::COPY_LEN..], value);
            dead.bytes = dead.bytes.saturating_sub(bytes);
        }
        match found.last() {
            Some((last, _)) => {
                dead.swept = Bytes::from([&last[keys::COPY_LEN..], &[0]].concat());
                rows.put(&keys::dead(shard, incarnation), &dead.to_row())?;
            }
            None => {
                self.dead.remove(&(shard, incarnation));
                rows.delete(&keys::dead(shard, incarnation))?;
                self.notice.changed();
            }
        }
        Ok(Ack::Done)
    }
}
