//! A pipelining client of one shard that knows what every answer must be.

use super::group::Rng;
use super::world::Msg;
use bytes::Bytes;
use ctrler::config::{GroupId, ShardId};
use kv::api::{Op, Outcome, Request, Response};
use kv::slot;
use raft::session::{Refusal, Seq};
use std::collections::BTreeSet;

/// Unanswered writes at most.
const WINDOW: u64 = 4;

pub struct Client {
    pub number: usize,
    pub shard: ShardId,
    pub key: Bytes,
    flag: Bytes,
    pub session: Option<u64>,
    /// Highest write made.
    pub made: u64,
    /// Every write through this one is answered.
    pub acked: u64,
    answered: BTreeSet<u64>,
    pub target: GroupId,
    /// Bytes of padding in each token.
    padding: usize,
}

impl Client {
    pub fn new(number: usize, shard: ShardId, shards: u32, padding: usize) -> Client {
        // A tag that lies in the shard, so that both keys do.
        let tag = (0..)
            .map(|n| format!("{{c{number}-{n}}}"))
            .find(|tag| slot::shard(tag.as_bytes(), shards) == shard)
            .expect("every shard has slots");
        Client {
            number,
            shard,
            key: Bytes::from(format!("{tag}list")),
            flag: Bytes::from(format!("{tag}flag")),
            session: None,
            made: 0,
            acked: 0,
            answered: BTreeSet::new(),
            target: 1,
            padding,
        }
    }

    fn token(&self, n: u64) -> String {
        format!("{n:05}{}", ".".repeat(self.padding))
    }

    fn token_len(&self) -> u64 {
        5 + self.padding as u64
    }

    /// Write n appends its number to the list, and sets the flag or deletes it.
    fn write(&self, session: u64, n: u64) -> Request {
        let append = Op::Append {
            key: self.key.clone(),
            value: Bytes::from(self.token(n)),
        };
        let flag = match n % 2 {
            1 => Op::Put {
                key: self.flag.clone(),
                value: Bytes::from(n.to_string()),
            },
            _ => Op::Delete {
                key: self.flag.clone(),
            },
        };
        let seq = Seq {
            session,
            seq: n,
            acked: self.acked,
        };
        Request::Write {
            shard: self.shard,
            seq,
            ops: vec![append, flag],
        }
    }

    /// Something to send.
    pub fn act(&mut self, rng: &mut Rng) -> Vec<Msg> {
        let Some(session) = self.session else {
            return vec![self.send(Request::Open { shard: self.shard })];
        };
        if rng.chance(20) {
            return vec![self.send(Request::Get {
                shard: self.shard,
                key: self.key.clone(),
            })];
        }
        if self.made < self.acked + WINDOW && rng.chance(50) {
            self.made += 1;
            return vec![self.send(self.write(session, self.made))];
        }
        self.resend()
    }

    /// Everything unanswered, again.
    pub fn resend(&self) -> Vec<Msg> {
        let Some(session) = self.session else {
            return Vec::new();
        };
        let open = (self.acked + 1..=self.made).filter(|n| !self.answered.contains(n));
        open.map(|n| self.send(self.write(session, n))).collect()
    }

    pub fn send(&self, request: Request) -> Msg {
        Msg::Request(self.number, self.target, request, self.acked)
    }

    /// Takes an answer in; an error is a broken promise.
    pub fn take(
        &mut self,
        request: &Request,
        response: Response,
        known: u64,
        rng: &mut Rng,
        groups: u64,
    ) -> Result<(), String> {
        let me = format!("client {} of shard {}", self.number, self.shard);
        match (request, response) {
            (_, Response::WrongGroup { owner, .. }) => {
                self.target = owner.unwrap_or(1 + rng.next() % groups);
            }
            (_, Response::Busy) => {}
            (Request::Open { .. }, Response::Session(id)) => {
                self.session.get_or_insert(id);
            }
            (Request::Get { .. }, Response::Value(value)) => {
                let found = self
                    .length(value.as_deref())
                    .map_err(|e| format!("{me}: {e}"))?;
                if found < known || found > self.made {
                    return Err(format!(
                        "{me}: read {found} writes, where {known} were answered before and {} made",
                        self.made
                    ));
                }
            }
            (Request::Write { seq, .. }, Response::Written(outcomes)) => {
                let n = seq.seq;
                let expected = vec![
                    Outcome::Written {
                        len: n * self.token_len(),
                    },
                    match n % 2 {
                        1 => Outcome::Written {
                            len: n.to_string().len() as u64,
                        },
                        _ => Outcome::Deleted { existed: true },
                    },
                ];
                if outcomes != expected {
                    return Err(format!(
                        "{me}: write {n}: {outcomes:?}, expected {expected:?}"
                    ));
                }
                self.answered.insert(n);
                while self.answered.remove(&(self.acked + 1)) {
                    self.acked += 1;
                }
            }
            (Request::Write { seq, .. }, Response::Refused(refusal)) => match refusal {
                Refusal::Gap(last) if last >= self.acked.min(seq.acked) => {}
                Refusal::Stale if seq.seq <= self.acked => {}
                other => return Err(format!("{me}: write {}: {other:?}", seq.seq)),
            },
            (request, response) => return Err(format!("{me}: {request:?}: {response:?}")),
        }
        Ok(())
    }

    /// How many writes a value holds, each once and in order.
    pub fn length(&self, value: Option<&[u8]>) -> Result<u64, String> {
        let value = value.unwrap_or_default();
        let count = value.len() as u64 / self.token_len();
        let expected: String = (1..=count).map(|n| self.token(n)).collect();
        match expected.as_bytes() == value {
            true => Ok(count),
            false => Err(format!(
                "a value of {} bytes that no order of its writes gives",
                value.len()
            )),
        }
    }
}
