//! The machine over rows in memory, and what tests say to it.
#![allow(dead_code, reason = "each test file uses a part")]

use bytes::Bytes;
use ctrler::api::{Change, Request, Response};
use ctrler::config::{Config, ConfigNum, Group, GroupId, Record};
use ctrler::machine::{Birth, Command, CommandV1, Controller};
use raft::machine::{At, Machine};
use raft::session::Seq;
use raft::store::Rows;
use std::collections::BTreeMap;

pub struct House {
    pub machine: Controller,
    pub rows: Rows,
    pub at: At,
    session: u64,
    seq: u64,
}

impl House {
    pub fn unborn() -> House {
        let (mut machine, rows) = (Controller::default(), Rows::in_memory());
        machine.load(&rows).unwrap();
        House {
            machine,
            rows,
            at: At {
                index: 0,
                term: 1,
                time_ms: 0,
            },
            session: 0,
            seq: 0,
        }
    }

    pub fn new(shards: u32) -> House {
        let mut house = House::unborn();
        assert_eq!(
            house.apply(CommandV1::Birth(Birth {
                cluster: 77,
                shards
            })),
            Response::Done(0)
        );
        house.session = house.open();
        house
    }

    pub fn apply(&mut self, command: CommandV1) -> Response {
        decode(&self.apply_raw(&Command::encode(command)))
    }

    pub fn apply_raw(&mut self, command: &[u8]) -> Bytes {
        self.at.index += 1;
        self.at.time_ms += 10;
        self.machine
            .apply(&mut self.rows, self.at, command)
            .unwrap()
    }

    pub fn open(&mut self) -> u64 {
        match self.apply(CommandV1::Open) {
            Response::Session(session) => session,
            other => panic!("{other:?}"),
        }
    }

    pub fn change(&mut self, change: Change) -> Response {
        self.seq += 1;
        let seq = Seq {
            session: self.session,
            seq: self.seq,
            acked: self.seq - 1,
        };
        self.apply(CommandV1::Write(seq, change))
    }

    /// The change must be taken.
    pub fn done(&mut self, change: Change) -> ConfigNum {
        match self.change(change.clone()) {
            Response::Done(num) => num,
            other => panic!("{change:?}: {other:?}"),
        }
    }

    /// The change must be refused, and change nothing but the session; the reason.
    pub fn refused(&mut self, change: Change) -> String {
        let before = (self.config(None), self.records());
        let reason = match self.change(change.clone()) {
            Response::Invalid(reason) => reason,
            other => panic!("{change:?}: {other:?}"),
        };
        assert_eq!(before, (self.config(None), self.records()));
        reason
    }

    pub fn read(&self, request: &Request) -> Response {
        decode(
            &self
                .machine
                .read(&self.rows, &postcard::to_stdvec(request).unwrap())
                .unwrap(),
        )
    }

    pub fn config(&self, num: Option<ConfigNum>) -> Config {
        match self.read(&Request::Query(num)) {
            Response::Config(config) => config,
            other => panic!("{other:?}"),
        }
    }

    pub fn records(&self) -> BTreeMap<GroupId, Record> {
        match self.read(&Request::Records) {
            Response::Records(records) => records,
            other => panic!("{other:?}"),
        }
    }

    /// As after a restart or the installation of a snapshot.
    pub fn reload(&mut self) {
        self.machine.load(&self.rows).unwrap();
    }

    pub fn all_rows(&self) -> Vec<(Bytes, Bytes)> {
        self.rows.range(b"", b"", usize::MAX, usize::MAX).unwrap()
    }
}

pub fn decode(reply: &[u8]) -> Response {
    postcard::from_bytes(reply).unwrap()
}

pub fn group(id: GroupId) -> Group {
    let servers = (1..=3).map(|n| format!("g{id}-{n}.example:7000")).collect();
    Group {
        servers,
        birth: 1000 + u128::from(id),
    }
}

pub fn join(ids: &[GroupId]) -> Change {
    Change::Join(ids.iter().map(|id| (*id, group(*id))).collect())
}

pub fn leave(ids: &[GroupId]) -> Change {
    Change::Leave(ids.to_vec())
}

pub fn settled(id: GroupId, through: ConfigNum, holds: bool) -> Change {
    Change::Settled {
        group: id,
        info: group(id),
        through,
        holds,
    }
}
