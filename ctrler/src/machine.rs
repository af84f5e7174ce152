//! The controllers' replicated state.
//!
//! | key | value |
//! |---|---|
//! | `b` | the cluster's birth ([`Birth`]) |
//! | `l` | the feature level, when it is above 1 |
//! | `n` | number of the latest configuration |
//! | `c`…, `j`… | configurations, see [`crate::history`] |
//! | `r` group | what is known of a group ([`crate::config::Record`]) |
//! | `s`… | sessions |
//!
//! Queries are [`Request`]s; replies to commands and queries are [`Response`]s.

use crate::api::{Change, Request, Response};
use crate::change::{self, Effect, Records};
use crate::config::{ConfigNum, GroupId, SHARDS};
use crate::history::{self, Version, damaged, decode, decode_row, encode, encode_row};
use bytes::Bytes;
use raft::machine::{At, Machine};
use raft::session::{Seq, Table, Verdict};
use raft::store::{Rows, StoreError};
use serde::{Deserialize, Serialize};
use std::cell::OnceCell;

/// A command in the log. Its first byte is the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Version 1.
    V1(CommandV1),
}

/// A command of version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandV1 {
    /// The first command of all: the cluster's id and number of shards. Later ones are ignored.
    Birth(Birth),
    /// Opens a session.
    Open,
    /// Closes a session.
    Close(u64),
    /// A change, exactly once.
    Write(Seq, Change),
    /// Every controller can read commands and rows of this level. A build that does not know it ends
    /// here, and refuses a state that is at it: none goes on past what it cannot read.
    Level(u32),
}

/// The highest feature level this build can read. Kinds of commands and versions of rows that come
/// later are of a higher one, and none is proposed before the level is.
pub const LEVEL: u32 = 1;

impl Command {
    /// The bytes for the log.
    pub fn encode(command: CommandV1) -> Bytes {
        encode(&Command::V1(command)).into()
    }
}

/// What is fixed for a cluster's whole life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Random id of the cluster.
    pub cluster: u128,
    /// Number of shards.
    pub shards: u32,
}

/// Sessions dropped by one command at most, so that no command takes long.
const EXPIRE_AT_ONCE: usize = 8;
const BIRTH: &[u8] = b"b";
const LEVEL_ROW: &[u8] = b"l";
const LATEST: &[u8] = b"n";
const SESSIONS: &[u8] = b"s";

/// The state machine of the controllers.
pub struct Controller {
    sessions: Table,
    /// Caches of what the rows say.
    born: Option<Born>,
    records: Records,
}

struct Born {
    birth: Birth,
    latest: Version,
    /// The answer to a query for the latest configuration, once somebody asked.
    reply: OnceCell<Bytes>,
}

impl Default for Controller {
    fn default() -> Self {
        Controller {
            sessions: Table::new(SESSIONS),
            born: None,
            records: Records::new(),
        }
    }
}

impl Machine for Controller {
    fn load(&mut self, rows: &Rows) -> Result<(), StoreError> {
        *self = Controller::default();
        // Before any other row is read: those may be of newer versions.
        StoreError::check_level(level(rows)?, LEVEL)?;
        let Some(birth) = rows.get(BIRTH)? else {
            return Ok(());
        };
        let birth = decode_row(&birth).ok_or_else(|| damaged("birth", 0, "does not decode"))?;
        let num = rows.get(LATEST)?;
        let num: ConfigNum = num
            .as_deref()
            .and_then(decode_row)
            .ok_or_else(|| damaged("the latest number", 0, "is missing or does not decode"))?;
        let mut from = record_key(0);
        loop {
            let some = rows.range(&from, b"s", 256, 1 << 20)?;
            let Some((last, _)) = some.last() else { break };
            from = [last, b"\0".as_slice()].concat();
            for (key, value) in &some {
                let group = key
                    .get(1..)
                    .and_then(|k| k.try_into().ok())
                    .map(GroupId::from_be_bytes);
                let group = group.ok_or_else(|| damaged("a record's key", 0, "is not a group"))?;
                let record =
                    decode_row(value).ok_or_else(|| damaged("record", group, "does not decode"))?;
                self.records.insert(group, record);
            }
        }
        let latest = history::get(rows, num)?;
        self.remember(birth, latest);
        Ok(())
    }

    fn apply(&mut self, rows: &mut Rows, at: At, command: &[u8]) -> Result<Bytes, StoreError> {
        let Some(Command::V1(command)) = decode(command) else {
            return Ok(reply(&malformed("a command")));
        };
        if let CommandV1::Birth(birth) = command {
            return self.birth(rows, birth);
        }
        if self.born.is_none() {
            return Ok(reply(&Response::Busy));
        }
        match command {
            CommandV1::Birth(_) => unreachable!("handled above"),
            CommandV1::Level(to) => {
                StoreError::check_level(to, LEVEL)?;
                let now = level(rows)?;
                if to <= now {
                    return Ok(reply(&Response::Invalid(format!("the level is {now}"))));
                }
                rows.put(LEVEL_ROW, &encode_row(&to))?;
                Ok(reply(&Response::Done(self.latest())))
            }
            CommandV1::Open => {
                self.sessions.expire(rows, at, EXPIRE_AT_ONCE)?;
                Ok(reply(&match self.sessions.open(rows, at)? {
                    Ok(session) => Response::Session(session),
                    Err(refusal) => Response::Refused(refusal),
                }))
            }
            CommandV1::Close(session) => {
                self.sessions.close(rows, session)?;
                Ok(reply(&Response::Done(self.latest())))
            }
            CommandV1::Write(seq, change) => match self.sessions.judge(rows, at, seq)? {
                Verdict::Repeat(stored) => Ok(stored),
                Verdict::Refused(refusal) => Ok(reply(&Response::Refused(refusal))),
                Verdict::Execute => {
                    let reply = reply(&self.change(rows, &change)?);
                    self.sessions.store(rows, at, seq, &reply)?;
                    Ok(reply)
                }
            },
        }
    }

    fn read(&self, rows: &Rows, query: &[u8]) -> Result<Bytes, StoreError> {
        let Some(request) = decode::<Request>(query) else {
            return Ok(reply(&malformed("a query")));
        };
        let Some(born) = &self.born else {
            return Ok(reply(&Response::Busy));
        };
        let latest = born.latest.num;
        Ok(reply(&match request {
            Request::Query(None) => return born.reply(rows),
            Request::Query(Some(num)) if num == latest => return born.reply(rows),
            Request::Query(Some(num)) if num > latest => Response::Invalid(format!(
                "configuration {num} does not exist yet: the latest is {latest}"
            )),
            Request::Query(Some(num)) => {
                Response::Config(history::expand(rows, &history::get(rows, num)?)?)
            }
            Request::Next { after, .. } if after >= latest => Response::Invalid(format!(
                "configuration {} does not exist yet: the latest is {latest}",
                after.saturating_add(1)
            )),
            Request::Next { group, after } => {
                let next = history::next_for(rows, latest, after, group)?;
                Response::Config(history::expand(rows, &next)?)
            }
            Request::Record(group) => Response::Record(self.records.get(&group).cloned()),
            Request::Records => Response::Records(self.records.clone()),
            Request::Cluster => Response::Cluster {
                cluster: born.birth.cluster,
                shards: born.birth.shards,
                latest,
            },
            Request::Open | Request::Close(_) | Request::Write(..) | Request::Status => {
                malformed("a query")
            }
        }))
    }
}

impl Controller {
    fn latest(&self) -> ConfigNum {
        self.born.as_ref().map_or(0, |b| b.latest.num)
    }

    fn birth(&mut self, rows: &mut Rows, birth: Birth) -> Result<Bytes, StoreError> {
        if self.born.is_some() {
            return Ok(reply(&Response::Invalid(
                "the cluster is born already".into(),
            )));
        }
        if !SHARDS.contains(&birth.shards) {
            return Ok(reply(&Response::Invalid(format!(
                "{} shards: expected {} to {}",
                birth.shards,
                SHARDS.start(),
                SHARDS.end()
            ))));
        }
        let first = Version::first(birth.shards);
        history::put(rows, None, &first)?;
        rows.put(LATEST, &encode_row(&first.num))?;
        rows.put(BIRTH, &encode_row(&birth))?;
        self.remember(birth, first);
        Ok(reply(&Response::Done(0)))
    }

    fn change(&mut self, rows: &mut Rows, change: &Change) -> Result<Response, StoreError> {
        let Some(Born { birth, latest, .. }) = &self.born else {
            return Ok(Response::Busy);
        };
        let (birth, records) = (*birth, &self.records);
        let effect = match change {
            Change::Join(groups) => change::join(latest, records, groups),
            Change::Leave(groups) => change::leave(latest, records, groups),
            Change::Move(shard, group) => change::move_shard(latest, *shard, *group),
            Change::Unpin(shard) => change::unpin(latest, *shard),
            Change::Settled {
                group,
                info,
                through,
                holds,
            } => change::settled(latest, records, *group, info, *through, *holds),
        };
        let Effect {
            version,
            joined,
            records,
        } = match effect {
            Ok(effect) => effect,
            Err(reason) => return Ok(Response::Invalid(reason)),
        };
        for (group, record) in records {
            rows.put(&record_key(group), &encode_row(&record))?;
            self.records.insert(group, record);
        }
        if let Some(next) = version {
            for (group, info) in &joined {
                history::put_join(rows, next.num, *group, info)?;
            }
            history::put(rows, Some(latest), &next)?;
            rows.put(LATEST, &encode_row(&next.num))?;
            self.remember(birth, next);
        }
        Ok(Response::Done(self.latest()))
    }

    fn remember(&mut self, birth: Birth, latest: Version) {
        self.born = Some(Born {
            birth,
            latest,
            reply: OnceCell::new(),
        });
    }
}

impl Born {
    fn reply(&self, rows: &Rows) -> Result<Bytes, StoreError> {
        if let Some(reply) = self.reply.get() {
            return Ok(reply.clone());
        }
        let config = history::expand(rows, &self.latest)?;
        Ok(self
            .reply
            .get_or_init(|| reply(&Response::Config(config)))
            .clone())
    }
}

fn level(rows: &Rows) -> Result<u32, StoreError> {
    match rows.get(LEVEL_ROW)? {
        Some(row) => decode_row(&row).ok_or_else(|| damaged("the level", 0, "does not decode")),
        None => Ok(1),
    }
}

fn record_key(group: GroupId) -> Vec<u8> {
    [b"r".as_slice(), &group.to_be_bytes()].concat()
}

fn reply(response: &Response) -> Bytes {
    encode(response).into()
}

fn malformed(what: &str) -> Response {
    Response::Malformed(format!("{what} that this version does not know"))
}
