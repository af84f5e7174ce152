//! The state machine of a replica group: shards, their rows and sessions, and their moves.
//!
//! ```text
//!                 never owned: born empty
//!   Absent ─────────────────────────────────▶ Serving ──────▶ Leaving ──────▶ gone
//!     │  another has it                        ▲  ▲ │  given    (served until     (rows swept
//!     └───────────────▶ Arriving ──────────────┘  │ │           frozen)            in steps)
//!                                  all rows here  │ ▼ nobody next   ▲
//!                                  owner again    Held ─────────────┘ another is named
//! ```
//!
//! The machine never calls out. It exposes what is to be done as an [`query::Agenda`]; the leader's
//! mover does it and brings the result back as a command fenced by the configuration's number.
//! Ownership is judged here, where a command stands in the log, and for a read in the same state
//! that is read.

pub mod chunk;
pub mod command;
pub mod keys;
mod moves;
pub mod notice;
pub mod query;
mod read;
pub mod state;
pub mod value;
pub mod write;

use crate::api::{Response, ShardState};
use bytes::Bytes;
use command::{Ack, Command, LEVEL};
use ctrler::config::{ConfigNum, GroupId, ShardId};
use notice::Notice;
use raft::session::{Refusal, Seq, Table, Verdict};
use raft::store::{Rows, StoreError};
use raft::{At, Machine};
use state::{Counters, Dead, Layout, Meta, Row, ShardRow};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::{Site, observe};

/// Commands between two looks for expired sessions of the shard written to.
const EXPIRE_EVERY: u64 = 256;
/// Sessions dropped at such a look.
const EXPIRE_MAX: usize = 8;
/// Rows read at a time while the caches are filled.
const LOAD_ROWS: usize = 512;

/// The machine. The rows hold everything; the fields are caches rebuilt by `load`.
pub struct KvMachine {
    group: GroupId,
    site: Site,
    notice: Arc<Notice>,
    meta: Meta,
    layout: Layout,
    shards: BTreeMap<ShardId, Shard>,
    dead: BTreeMap<(ShardId, ConfigNum), Dead>,
}

/// A shard that is not Absent.
struct Shard {
    row: ShardRow,
    counters: Counters,
    table: Table,
}

impl Shard {
    fn new(shard: ShardId, row: ShardRow, counters: Counters) -> Shard {
        let table = Table::new(&keys::sessions(shard, row.incarnation));
        Shard {
            row,
            counters,
            table,
        }
    }
}

/// Tells the harness of a session.
fn told(site: Site, kind: &'static str, at: At, shard: ShardId, session: u64) {
    let fields = [
        ("shard", u64::from(shard)),
        ("session", session),
        ("index", at.index),
    ];
    observe(site, kind, &fields);
}

/// Tells it which sessions the last call dropped.
fn dropped(site: Site, at: At, shard: ShardId, table: &Table) {
    for session in table.dropped() {
        told(site, "expired", at, shard, *session);
    }
}

/// A client's reply.
fn reply(response: &Response) -> Bytes {
    Bytes::from(postcard::to_stdvec(response).expect("responses are plain data"))
}

impl KvMachine {
    /// The machine of a group. `notice` is told when the agenda changed.
    pub fn new(group: GroupId, node: u64, notice: Arc<Notice>) -> KvMachine {
        KvMachine {
            group,
            site: Site { group, node },
            notice,
            meta: Meta::default(),
            layout: Layout::default(),
            shards: BTreeMap::new(),
            dead: BTreeMap::new(),
        }
    }

    /// Why a shard is not served here; `None`: it is.
    fn refusal(&self, shard: ShardId) -> Option<Response> {
        if self.meta.birth.is_none() {
            return Some(Response::Busy);
        }
        let owner = match self.shards.get(&shard) {
            Some(here) if here.row.accepts() => return None,
            // Arriving: its old owner; frozen: its new one; Held: nobody.
            Some(here) => {
                if here.row.state == ShardState::Arriving {
                    world::mark!("shard: asked for while it arrives");
                }
                here.row.peer
            }
            None => self.layout.owners.get(shard as usize).copied().flatten(),
        };
        Some(Response::WrongGroup {
            config: self.meta.config,
            owner,
        })
    }

    fn total_shards(&self) -> u32 {
        self.layout.owners.len() as u32
    }

    fn open(&mut self, rows: &mut Rows, at: At, shard: ShardId) -> Result<Response, StoreError> {
        if let Some(refusal) = self.refusal(shard) {
            return Ok(refusal);
        }
        let Some(here) = self.shards.get_mut(&shard) else {
            return Ok(Response::Busy);
        };
        here.table.expire(rows, at, EXPIRE_MAX)?;
        dropped(self.site, at, shard, &here.table);
        let opened = here.table.open(rows, at)?;
        dropped(self.site, at, shard, &here.table);
        Ok(match opened {
            Ok(session) => {
                told(self.site, "open", at, shard, session);
                Response::Session(session)
            }
            Err(refusal) => Response::Refused(refusal),
        })
    }

    fn close(
        &mut self,
        rows: &mut Rows,
        shard: ShardId,
        session: u64,
    ) -> Result<Response, StoreError> {
        if let Some(refusal) = self.refusal(shard) {
            return Ok(refusal);
        }
        if let Some(here) = self.shards.get_mut(&shard) {
            here.table.close(rows, session)?;
        }
        Ok(Response::Closed)
    }

    /// Ownership first, then the session: a refusal consumes no number and is not stored.
    fn write(
        &mut self,
        rows: &mut Rows,
        at: At,
        shard: ShardId,
        seq: Seq,
        ops: &[crate::api::Op],
    ) -> Result<Bytes, StoreError> {
        if let Some(refusal) = self.refusal(shard) {
            return Ok(reply(&refusal));
        }
        if let Err(reason) = write::check_limits(ops)
            .and_then(|()| write::check_shard(ops, shard, self.total_shards()))
        {
            return Ok(reply(&Response::Invalid(reason)));
        }
        let config = self.meta.config;
        let Some(here) = self.shards.get_mut(&shard) else {
            return Ok(reply(&Response::Busy));
        };
        if at.index.is_multiple_of(EXPIRE_EVERY) {
            here.table.expire(rows, at, EXPIRE_MAX)?;
            dropped(self.site, at, shard, &here.table);
        }
        let verdict = here.table.judge(rows, at, seq)?;
        dropped(self.site, at, shard, &here.table);
        match verdict {
            Verdict::Repeat(stored) => return Ok(stored),
            Verdict::Refused(refusal) => {
                if refusal == Refusal::SessionExpired {
                    told(self.site, "expired", at, shard, seq.session);
                }
                return Ok(reply(&Response::Refused(refusal)));
            }
            Verdict::Execute => {}
        }
        let before = here.counters;
        if here.row.state == ShardState::Leaving {
            world::mark!("shard: written while it leaves, before the freeze");
        }
        let incarnation = here.row.incarnation;
        let target = write::Target {
            shard,
            incarnation,
            change: here.row.change(at.index),
        };
        let outcomes = write::execute(rows, target, &mut here.counters, ops)?;
        if here.counters != before {
            rows.put(&keys::counters(shard), &here.counters.to_row())?;
        }
        let answer = reply(&Response::Written(outcomes));
        here.table.store(rows, at, seq, &answer)?;
        observe(
            self.site,
            "serve",
            &[
                ("shard", u64::from(shard)),
                ("config", config),
                ("incarnation", incarnation),
                ("index", at.index),
                ("session", seq.session),
                ("seq", seq.seq),
            ],
        );
        Ok(answer)
    }

    fn birth(&mut self, rows: &mut Rows, id: u128) -> Result<Ack, StoreError> {
        if self.meta.birth.is_some() {
            return Ok(Ack::Refused("born already".to_owned()));
        }
        self.meta = Meta {
            birth: Some(id),
            // Not this build's: another member may read the birth with a newer one.
            level: Command::Birth { id }.level(),
            config: 0,
        };
        self.put_meta(rows)?;
        Ok(Ack::Done)
    }

    /// A build that does not know the level ends here: the entries behind may be of kinds that it
    /// cannot read, and others carry them out.
    fn level(&mut self, rows: &mut Rows, level: u32) -> Result<Ack, StoreError> {
        StoreError::check_level(level, LEVEL)?;
        if self.meta.birth.is_none() || level <= self.meta.level {
            return Ok(Ack::Refused(format!("the level is {}", self.meta.level)));
        }
        self.meta.level = level;
        self.put_meta(rows)?;
        Ok(Ack::Done)
    }

    fn put_meta(&mut self, rows: &mut Rows) -> Result<(), StoreError> {
        rows.put(keys::META, &self.meta.to_row())?;
        self.notice.changed();
        Ok(())
    }

    /// Writes a shard's row and tells the harness and the mover.
    fn put_shard(&mut self, rows: &mut Rows, at: At, shard: ShardId) -> Result<(), StoreError> {
        if let Some(here) = self.shards.get(&shard) {
            rows.put(&keys::shard(shard), &here.row.to_row())?;
        }
        self.tell(at, shard);
        Ok(())
    }

    fn tell(&self, at: At, shard: ShardId) {
        let row = self.shards.get(&shard).map(|here| &here.row);
        observe(
            self.site,
            "ownership",
            &[
                ("shard", u64::from(shard)),
                ("state", row.map_or(ShardState::Absent, |r| r.state) as u64),
                ("accepts", u64::from(row.is_some_and(ShardRow::accepts))),
                ("incarnation", row.map_or(0, |r| r.incarnation)),
                ("config", self.meta.config),
                ("index", at.index),
            ],
        );
        self.notice.changed();
    }
}

impl Machine for KvMachine {
    fn load(&mut self, rows: &Rows) -> Result<(), StoreError> {
        self.meta = match rows.get(keys::META)? {
            Some(row) => Meta::from_row(&row)?,
            None => Meta::default(),
        };
        // Before any other row is read: those may be of newer versions.
        StoreError::check_level(self.meta.level, LEVEL)?;
        self.layout = match rows.get(keys::LAYOUT)? {
            Some(row) => Layout::from_row(&row)?,
            None => Layout::default(),
        };
        self.shards.clear();
        self.dead.clear();
        let (from, to) = keys::all_shards();
        for (key, value) in scan(rows, &from, &to)? {
            let Some(shard) = keys::shard_of(&key) else {
                continue;
            };
            let counters = match rows.get(&keys::counters(shard))? {
                Some(row) => Counters::from_row(&row)?,
                None => Counters::default(),
            };
            let row = ShardRow::from_row(&value)?;
            self.shards.insert(shard, Shard::new(shard, row, counters));
        }
        let (from, to) = keys::all_dead();
        for (key, value) in scan(rows, &from, &to)? {
            let Some(copy) = keys::copy_of(&key) else {
                continue;
            };
            self.dead.insert(copy, Dead::from_row(&value)?);
        }
        self.notice.changed();
        Ok(())
    }

    fn apply(&mut self, rows: &mut Rows, at: At, command: &[u8]) -> Result<Bytes, StoreError> {
        let Some(command) = Command::from_bytes(command) else {
            return Ok(reply(&Response::Malformed(
                "not a command of this version".to_owned(),
            )));
        };
        // Until the group is born nothing is gated: its first command says at which level it is.
        if self.meta.birth.is_some() && command.level() > self.meta.level {
            return Ok(reply(&Response::Malformed(
                "a command above the group's level".to_owned(),
            )));
        }
        let ack = match command {
            Command::Write { shard, seq, ops } => return self.write(rows, at, shard, seq, &ops),
            Command::Open { shard } => return Ok(reply(&self.open(rows, at, shard)?)),
            Command::Close { shard, session } => {
                return Ok(reply(&self.close(rows, shard, session)?));
            }
            Command::Birth { id } => self.birth(rows, id)?,
            Command::Level { level } => self.level(rows, level)?,
            Command::Enter(enter) => self.enter(rows, at, &enter)?,
            Command::Skip(skip) => self.skip(rows, at, &skip)?,
            Command::Freeze { shard, num } => self.freeze(rows, at, shard, num)?,
            Command::Install {
                shard,
                num,
                from,
                chunk,
            } => self.install(rows, at, shard, num, &from, &chunk)?,
            Command::Release { shard, num } => self.release(rows, at, shard, num)?,
            Command::Sweep { shard, incarnation } => self.sweep(rows, shard, incarnation)?,
        };
        Ok(ack.to_bytes())
    }

    fn read(&self, rows: &Rows, query: &[u8]) -> Result<Bytes, StoreError> {
        self.answer(rows, query)
    }

    fn least_answer(&self, rows: &Rows, query: &[u8]) -> Result<usize, StoreError> {
        self.value_bytes(rows, query)
    }
}

/// All rows of a small range.
fn scan(rows: &Rows, from: &[u8], to: &[u8]) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let mut all: Vec<(Bytes, Bytes)> = Vec::new();
    let mut from = from.to_vec();
    loop {
        let mut found = rows.range(&from, to, LOAD_ROWS, usize::MAX)?;
        match found.last() {
            None => return Ok(all),
            Some((key, _)) => from = [&key[..], &[0]].concat(),
        }
        all.append(&mut found);
    }
}
