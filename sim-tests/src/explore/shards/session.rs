//! The client's session of a shard: write n appends its number to a list, and sets a flag or
//! deletes it. So what a copy must hold, and what a write must be answered, follow from n alone.

use bytes::Bytes;
use ctrler::config::ShardId;
use kv::api::{Op, Outcome, Response};
use kv::machine::command::Command;
use kv::slot;
use raft::session::{Refusal, Seq};

/// Most writes of one session: each is one digit.
pub const MAX_WRITES: u8 = 9;
/// The session's id: the first one opened.
const SESSION: u64 = 1;
/// A value so long that two of them do not fit one chunk.
const LONG: usize = 150 << 10;

/// What a command was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Done,
    Refused,
    /// Write n has taken effect, now or before.
    Written(u8),
    WrongGroup,
    /// The last write that took effect.
    Gap(u8),
    Stale(u8),
    /// A broken promise; its number.
    Broken(u32),
}

impl Told {
    /// Who gets such an answer has changed nothing.
    pub fn changes_nothing(self) -> bool {
        !matches!(self, Told::Done | Told::Written(_))
    }
}

/// A session of a shard.
pub struct Session {
    pub shard: ShardId,
    pub list: Bytes,
    pub flag: Bytes,
    pub writes: u8,
}

impl Session {
    pub fn new(shard: usize, shards: usize, writes: u8) -> Session {
        let shard = shard as ShardId;
        let mut tags = (0..).map(|n| format!("{{{n}}}"));
        let tag = tags.find(|tag| slot::shard(tag.as_bytes(), shards as u32) == shard);
        let tag = tag.expect("every shard has slots");
        Session {
            shard,
            list: Bytes::from(format!("{tag}list")),
            flag: Bytes::from(format!("{tag}flag")),
            writes: writes.min(MAX_WRITES),
        }
    }

    /// Commands that open the session, and make the shard long before it.
    pub fn open(&self, long: bool) -> Vec<Command> {
        let mut commands = vec![Command::Open { shard: self.shard }];
        if long {
            commands.push(Command::Open { shard: self.shard });
            for (n, name) in ["a", "z"].into_iter().enumerate() {
                let key = Bytes::from([&self.list[..], name.as_bytes()].concat());
                commands.push(Command::Write {
                    shard: self.shard,
                    seq: Seq {
                        session: SESSION + 1,
                        seq: n as u64 + 1,
                        acked: n as u64,
                    },
                    ops: vec![Op::Put {
                        key,
                        value: Bytes::from(vec![b'.'; LONG]),
                    }],
                });
            }
        }
        commands
    }

    /// Write n, sent when everything through `acked` was answered.
    pub fn write(&self, n: u8, acked: u8) -> Command {
        let list = Op::Append {
            key: self.list.clone(),
            value: Bytes::from(n.to_string()),
        };
        let key = self.flag.clone();
        let flag = match n % 2 {
            1 => Op::Put {
                key,
                value: Bytes::from(n.to_string()),
            },
            _ => Op::Delete { key },
        };
        Command::Write {
            shard: self.shard,
            seq: Seq {
                session: SESSION,
                seq: n.into(),
                acked: acked.into(),
            },
            ops: vec![list, flag],
        }
    }

    /// Takes the answer to write n in; an error is an answer that no state allows.
    pub fn judge(&self, n: u8, response: &Response) -> Result<Told, String> {
        match response {
            Response::Written(outcomes) => {
                let flag = match n % 2 {
                    1 => Outcome::Written { len: 1 },
                    _ => Outcome::Deleted { existed: true },
                };
                let right = [Outcome::Written { len: n.into() }, flag];
                match outcomes[..] == right {
                    true => Ok(Told::Written(n)),
                    false => Err(format!(
                        "I9: write {n} answered {outcomes:?}, expected {right:?}"
                    )),
                }
            }
            Response::WrongGroup { .. } => Ok(Told::WrongGroup),
            Response::Refused(Refusal::Gap(last)) => Ok(Told::Gap(*last as u8)),
            Response::Refused(Refusal::Stale) => Ok(Told::Stale(n)),
            other => Err(format!("I9: write {n} answered {other:?}")),
        }
    }

    /// How many writes a copy holds, each once and in order.
    pub fn count(&self, list: Option<&[u8]>, flag: Option<&[u8]>) -> Result<u8, String> {
        let list = list.unwrap_or_default();
        let n = list.len() as u8;
        let right: String = (1..=n).map(|n| n.to_string()).collect();
        let right_flag = (n % 2 == 1).then(|| n.to_string());
        let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if list != right.as_bytes() || flag != right_flag.as_deref().map(str::as_bytes) {
            return Err(format!(
                "list {:?} and flag {:?}, which no order of its writes gives",
                show(list),
                flag.map(show)
            ));
        }
        Ok(n)
    }
}
