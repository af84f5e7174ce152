//! Answers to queries, all from one state.

use super::query::{AGENDA_ENTRIES, Agenda, Arrival, Departure, Page, Pulled, Query};
use super::state::{Cursor, ShardRow};
use super::{KvMachine, chunk, reply, value};
use crate::api::{Response, ShardState, ShardStatus};
use crate::slot;
use bytes::Bytes;
use ctrler::config::{ConfigNum, GroupId, ShardId};
use raft::store::{Rows, StoreError};
use serde::Serialize;
use std::collections::BTreeMap;
use world::observe;

fn encode<T: Serialize>(value: &T) -> Bytes {
    Bytes::from(postcard::to_stdvec(value).expect("answers are plain data"))
}

/// The first entries of each group.
fn first_of_each<T>(all: impl Iterator<Item = T>, group: impl Fn(&T) -> GroupId) -> Vec<T> {
    let mut counts: BTreeMap<GroupId, usize> = BTreeMap::new();
    all.filter(|entry| {
        let count = counts.entry(group(entry)).or_default();
        *count += 1;
        *count <= AGENDA_ENTRIES
    })
    .collect()
}

impl KvMachine {
    pub(super) fn answer(&self, rows: &Rows, query: &[u8]) -> Result<Bytes, StoreError> {
        let Ok(query) = postcard::from_bytes::<Query>(query) else {
            return Ok(reply(&Response::Malformed(
                "not a query of this version".to_owned(),
            )));
        };
        Ok(match query {
            Query::Get { shard, key } => reply(&self.get(rows, shard, &key)?),
            Query::Agenda => encode(&self.agenda()),
            Query::Page => encode(&self.page()),
            Query::Pull {
                shard,
                num,
                from,
                by,
            } => encode(&self.pull(rows, shard, num, &from, by)?),
            Query::Installed { mut shards, num } => {
                shards.retain(|shard| self.installed(*shard, num));
                encode(&shards)
            }
            Query::Leaving {
                mut shards,
                num,
                to,
            } => {
                shards.retain(|shard| self.leaving_to(*shard, num, to).is_some());
                encode(&shards)
            }
        })
    }

    /// Length of the value that a query asks for; 0 for any other query.
    pub(super) fn value_bytes(&self, rows: &Rows, query: &[u8]) -> Result<usize, StoreError> {
        let Ok(Query::Get { shard, key }) = postcard::from_bytes(query) else {
            return Ok(0);
        };
        match self.shards.get(&shard) {
            Some(here) => value::length(rows, shard, here.row.incarnation, &key),
            None => Ok(0),
        }
    }

    /// Ownership is judged in the very state that is read.
    fn get(&self, rows: &Rows, shard: ShardId, key: &Bytes) -> Result<Response, StoreError> {
        if let Some(refusal) = self.refusal(shard) {
            return Ok(refusal);
        }
        let of = slot::shard(key, self.total_shards());
        if of != shard {
            return Ok(Response::Invalid(format!(
                "a key of shard {of} asked of shard {shard}"
            )));
        }
        let Some(here) = self.shards.get(&shard) else {
            return Ok(Response::Busy);
        };
        observe(
            self.site,
            "read",
            &[
                ("shard", u64::from(shard)),
                ("config", self.meta.config),
                ("incarnation", here.row.incarnation),
            ],
        );
        let incarnation = here.row.incarnation;
        Ok(Response::Value(value::get(rows, shard, incarnation, key)?))
    }

    /// True when nothing of the present configuration is owed: shards to fetch, and shards given
    /// until the new owner has committed them. Held ones are nobody's due.
    pub(super) fn settled(&self) -> bool {
        self.shards
            .values()
            .all(|here| !matches!(here.row.state, ShardState::Arriving | ShardState::Leaving))
    }

    fn agenda(&self) -> Agenda {
        let rows = || self.shards.iter().map(|(shard, here)| (*shard, &here.row));
        let in_state = |state| rows().filter(move |(_, row)| row.state == state);
        let arriving = in_state(ShardState::Arriving).filter_map(|(shard, row)| {
            Some(Arrival {
                shard,
                from: row.peer?,
                cursor: row.cursor.clone(),
            })
        });
        let leaving = in_state(ShardState::Leaving).filter_map(|(shard, row)| {
            Some(Departure {
                shard,
                to: row.peer?,
                frozen: row.frozen,
            })
        });
        // Those asked for first: only they can be confirmed.
        let (asked, unasked): (Vec<_>, Vec<_>) = leaving.partition(|departure| departure.frozen);
        let leaving = asked.into_iter().chain(unasked);
        Agenda {
            birth: self.meta.birth,
            config: self.meta.config,
            arriving: first_of_each(arriving, |arrival| arrival.from),
            leaving: first_of_each(leaving, |departure| departure.to),
            settled: self.settled(),
            holds: !self.shards.is_empty(),
            dead: self.dead.keys().take(AGENDA_ENTRIES).copied().collect(),
        }
    }

    fn page(&self) -> Page {
        let shards = self.shards.iter().map(|(shard, here)| ShardStatus {
            shard: *shard,
            state: here.row.state,
            incarnation: here.row.incarnation,
            frozen: here.row.frozen,
            peer: here.row.peer,
            keys: here.counters.keys,
            bytes: here.counters.bytes,
        });
        Page {
            birth: self.meta.birth,
            config: self.meta.config,
            shards: shards.collect(),
            sweeping: self.dead.values().map(|dead| dead.bytes).sum(),
            dead: self.dead.len() as u64,
        }
    }

    /// "Installed in n?": our own state says so, or we are beyond n. What is true once stays true.
    fn installed(&self, shard: ShardId, num: ConfigNum) -> bool {
        if self.meta.config != num {
            return self.meta.config > num;
        }
        self.shards
            .get(&shard)
            .is_some_and(|here| here.row.state == ShardState::Serving)
    }

    /// The row of a shard that leaves in a configuration to somebody.
    pub(super) fn leaving_to(
        &self,
        shard: ShardId,
        num: ConfigNum,
        to: (GroupId, u128),
    ) -> Option<&ShardRow> {
        let row = &self.shards.get(&shard)?.row;
        let his = row.peer == Some(to.0) && row.peer_birth == Some(to.1);
        (self.meta.config == num && row.state == ShardState::Leaving && his).then_some(row)
    }

    /// Rows are given only of a frozen copy: nothing of it changes any more.
    fn pull(
        &self,
        rows: &Rows,
        shard: ShardId,
        num: ConfigNum,
        from: &Cursor,
        by: (GroupId, u128),
    ) -> Result<Pulled, StoreError> {
        if self.meta.config < num {
            return Ok(Pulled::NotYet);
        }
        let leaving = self
            .shards
            .get(&shard)
            .filter(|h| h.row.state == ShardState::Leaving);
        if self.meta.config > num || leaving.is_none() {
            return Ok(Pulled::Gone);
        }
        let Some(row) = self.leaving_to(shard, num, by) else {
            return Ok(Pulled::Foreign);
        };
        if !row.frozen {
            return Ok(Pulled::Freeze);
        }
        Ok(Pulled::Chunk(chunk::export(rows, shard, row, from)?))
    }
}
