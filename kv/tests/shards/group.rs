//! A group of the model: a log that never loses an entry, and members that apply it. And chance.

use bytes::Bytes;
use ctrler::config::{GroupId, ShardId};
use kv::api::{Request, Response, ShardState};
use kv::machine::KvMachine;
use kv::machine::command::Command;
use kv::machine::notice::Notice;
use kv::machine::query::{Agenda, Page, Query};
use raft::store::Rows;
use raft::{At, Machine};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// Numbers from a seed (SplitMix64).
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// One replica of a group.
pub struct Member {
    pub machine: KvMachine,
    pub rows: Rows,
    pub applied: usize,
}

/// A group: its log, and two members of which the second may lag.
pub struct Group {
    pub id: GroupId,
    pub birth: u128,
    pub log: Vec<(At, Bytes)>,
    pub members: Vec<Member>,
    pub down: bool,
    time_ms: u64,
}

impl Group {
    pub fn new(id: GroupId, birth: u128, time_ms: u64) -> Group {
        let member = || Member {
            machine: KvMachine::new(id, 1, Arc::new(Notice::default())),
            rows: Rows::in_memory(),
            applied: 0,
        };
        let mut group = Group {
            id,
            birth,
            log: Vec::new(),
            members: vec![member(), member()],
            down: false,
            time_ms,
        };
        group.commit(&Command::Birth { id: birth }, 1);
        group
    }

    /// Commits a command; the first member applies it.
    pub fn commit(&mut self, command: &Command, elapsed_ms: u64) -> Bytes {
        self.time_ms += elapsed_ms;
        let at = At {
            index: self.log.len() as u64 + 1,
            term: 1,
            time_ms: self.time_ms,
        };
        self.log.push((at, command.to_bytes()));
        self.catch_up(0)
    }

    /// Applies what a member has not applied; the last reply.
    pub fn catch_up(&mut self, member: usize) -> Bytes {
        let member = &mut self.members[member];
        let mut reply = Bytes::new();
        for (at, command) in &self.log[member.applied..] {
            reply = member
                .machine
                .apply(&mut member.rows, *at, command)
                .expect("rows in memory");
        }
        member.applied = self.log.len();
        reply
    }

    /// A member starts again: everything it keeps in memory comes from its rows.
    pub fn restart(&mut self, member: usize) {
        let member = &mut self.members[member];
        member.machine = KvMachine::new(self.id, 1, Arc::new(Notice::default()));
        member.machine.load(&member.rows).expect("rows in memory");
    }

    pub fn read(&self, query: &Query) -> Bytes {
        let member = &self.members[0];
        member
            .machine
            .read(&member.rows, &query.to_bytes())
            .expect("rows in memory")
    }

    pub fn ask<T: DeserializeOwned>(&self, query: &Query) -> T {
        postcard::from_bytes(&self.read(query)).expect("the machine's own answer")
    }

    pub fn agenda(&self) -> Agenda {
        self.ask(&Query::Agenda)
    }

    pub fn page(&self) -> Page {
        self.ask(&Query::Page)
    }

    /// Shards that accept reads and writes here.
    pub fn accepts(&self) -> Vec<ShardId> {
        let serves = |s: &kv::api::ShardStatus| match s.state {
            ShardState::Serving => true,
            ShardState::Leaving => !s.frozen,
            _ => false,
        };
        self.page()
            .shards
            .iter()
            .filter(|s| serves(s))
            .map(|s| s.shard)
            .collect()
    }

    /// A client's request, served at once.
    pub fn serve(&mut self, request: Request, elapsed_ms: u64) -> Response {
        let bytes = match request {
            Request::Get { shard, key } => self.read(&Query::Get { shard, key }),
            Request::Open { shard } => self.commit(&Command::Open { shard }, elapsed_ms),
            Request::Close { shard, session } => {
                self.commit(&Command::Close { shard, session }, elapsed_ms)
            }
            Request::Write { shard, seq, ops } => {
                self.commit(&Command::Write { shard, seq, ops }, elapsed_ms)
            }
            other => panic!("not a request of the model: {other:?}"),
        };
        postcard::from_bytes(&bytes).expect("the machine's own answer")
    }
}
