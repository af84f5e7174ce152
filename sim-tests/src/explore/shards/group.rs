//! Groups' states, each kept once. A state is the rows and nothing else: for every command the
//! machine is loaded afresh from them, so every member is taken to restart between any two
//! commands. What a command does to a state is computed once.

use super::scenario::{GROUPS, id, info};
use super::session::{Session, Told};
use bytes::Bytes;
use kv::api::ShardState;
use kv::machine::command::{Ack, Command};
use kv::machine::notice::Notice;
use kv::machine::query::{Agenda, Page, Query};
use kv::machine::{KvMachine, keys, value};
use kv::mover::plan::{self, Errand};
use raft::store::Rows;
use raft::{At, Machine};
use serde::de::DeserializeOwned;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

/// A hasher without chance.
pub type Fixed = BuildHasherDefault<DefaultHasher>;
/// A group's state.
pub type StateId = u32;
/// A command, of whatever group.
pub type OrderId = u32;

/// A copy of a shard in a group.
#[derive(Clone, Debug)]
pub struct Copy {
    pub state: ShardState,
    pub frozen: bool,
    /// Accepts reads and writes.
    pub accepts: bool,
    /// The configuration at which it came.
    pub incarnation: u64,
    /// Writes found in it, each once and in order; or what is wrong.
    pub found: Result<u8, String>,
}

/// What is known of a state without asking the machine again.
pub struct Facts {
    pub agenda: Agenda,
    pub errands: Vec<Errand>,
    /// By shard.
    pub copies: Vec<Option<Copy>>,
    /// Rows of copies that are neither here nor to be swept.
    pub stray: usize,
}

/// What a command did.
#[derive(Clone, Copy, Debug)]
pub struct Applied {
    pub next: StateId,
    pub told: Told,
}

struct State {
    group: usize,
    rows: Vec<(Bytes, Bytes)>,
    facts: Facts,
    /// By command.
    applied: Vec<Option<Applied>>,
}

struct Order {
    bytes: Bytes,
    command: Command,
}

/// All states and commands met.
pub struct Groups {
    sessions: Vec<Session>,
    states: Vec<State>,
    known: HashMap<(usize, u64, u64), Vec<StateId>, Fixed>,
    orders: Vec<Order>,
    ids: HashMap<Bytes, OrderId, Fixed>,
    /// Broken promises told by `Told::Broken`.
    pub broken: Vec<String>,
    /// Commands the machine applied.
    pub applications: u64,
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    postcard::from_bytes(bytes).map_err(|e| format!("the machine's answer: {e}"))
}

/// No time passes; the clocks of groups have nothing in common.
fn at(group: usize) -> At {
    At {
        index: 1,
        term: 1,
        time_ms: 10_000_000 * id(group),
    }
}

/// A machine over rows.
struct Open {
    machine: KvMachine,
    rows: Rows,
}

impl Open {
    fn new(group: usize, stored: &[(Bytes, Bytes)]) -> Result<Open, String> {
        let mut rows = Rows::in_memory();
        for (key, value) in stored {
            rows.put(key, value).map_err(|e| e.to_string())?;
        }
        let mut machine = KvMachine::new(id(group), 1, Arc::new(Notice::default()));
        machine.load(&rows).map_err(|e| e.to_string())?;
        Ok(Open { machine, rows })
    }

    fn ask<T: DeserializeOwned>(&self, query: &Query) -> Result<T, String> {
        let answer = self.machine.read(&self.rows, &query.to_bytes());
        parse(&answer.map_err(|e| e.to_string())?)
    }
}

impl Groups {
    pub fn new(sessions: Vec<Session>) -> Groups {
        Groups {
            sessions,
            states: Vec::new(),
            known: HashMap::default(),
            orders: Vec::new(),
            ids: HashMap::default(),
            broken: Vec::new(),
            applications: 0,
        }
    }

    /// The state behind these commands, from nothing.
    pub fn start(&mut self, group: usize, commands: &[Command]) -> Result<StateId, String> {
        let mut open = Open::new(group, &[])?;
        let birth = Command::Birth {
            id: info(group).birth,
        };
        for command in std::iter::once(&birth).chain(commands) {
            let applied = open
                .machine
                .apply(&mut open.rows, at(group), &command.to_bytes());
            applied.map_err(|e| e.to_string())?;
        }
        self.intern(group, &open.rows)
    }

    pub fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn facts(&self, state: StateId) -> &Facts {
        &self.states[state as usize].facts
    }

    pub fn group(&self, state: StateId) -> usize {
        self.states[state as usize].group
    }

    pub fn order(&mut self, command: &Command) -> OrderId {
        let bytes = command.to_bytes();
        if let Some(id) = self.ids.get(&bytes) {
            return *id;
        }
        let id = self.orders.len() as OrderId;
        self.ids.insert(bytes.clone(), id);
        self.orders.push(Order {
            bytes,
            command: command.clone(),
        });
        id
    }

    pub fn command(&self, order: OrderId) -> &Command {
        &self.orders[order as usize].command
    }

    /// Asks the machine.
    pub fn ask<T: DeserializeOwned>(&self, state: StateId, query: &Query) -> Result<T, String> {
        let state = &self.states[state as usize];
        Open::new(state.group, &state.rows)?.ask(query)
    }

    /// Applies a command.
    pub fn apply(&mut self, state: StateId, order: OrderId) -> Applied {
        let known = self.states[state as usize].applied.get(order as usize);
        if let Some(Some(applied)) = known {
            return *applied;
        }
        let applied = self.really_apply(state, order).unwrap_or_else(|reason| {
            self.broken.push(reason);
            Applied {
                next: state,
                told: Told::Broken(self.broken.len() as u32 - 1),
            }
        });
        let row = &mut self.states[state as usize].applied;
        if row.len() <= order as usize {
            row.resize(order as usize + 1, None);
        }
        row[order as usize] = Some(applied);
        applied
    }

    fn really_apply(&mut self, state: StateId, order: OrderId) -> Result<Applied, String> {
        self.applications += 1;
        let Order { bytes, command } = &self.orders[order as usize];
        let before = &self.states[state as usize];
        let group = before.group;
        let mut open = Open::new(group, &before.rows)?;
        let reply = open.machine.apply(&mut open.rows, at(group), bytes);
        let reply = reply.map_err(|e| format!("the machine stops: {e}"))?;
        let told = match command {
            Command::Write { shard, seq, .. } => {
                self.sessions[*shard as usize].judge(seq.seq as u8, &parse(&reply)?)?
            }
            _ => match Ack::from_bytes(&reply) {
                Ack::Done => Told::Done,
                Ack::Refused(_) => Told::Refused,
            },
        };
        let was = &before.facts.agenda;
        // From where, and to where.
        let (from, to) = match command {
            Command::Enter(enter) if told == Told::Done => (enter.num - 1, enter.num),
            Command::Skip(skip) if told == Told::Done => (skip.from, skip.to),
            _ => (was.config, was.config),
        };
        let now: Agenda = open.ask(&Query::Agenda)?;
        if now.config != to || was.config != from {
            return Err(format!(
                "I15: in configuration {} after {}",
                now.config, was.config
            ));
        }
        let next = self.intern(group, &open.rows)?;
        if told.changes_nothing() && next != state {
            return Err(format!("a command that was answered {told:?} changed rows"));
        }
        if self.facts(next).agenda != now {
            return Err("a member that restarts here has another agenda".to_owned());
        }
        Ok(Applied { next, told })
    }

    fn intern(&mut self, group: usize, rows: &Rows) -> Result<StateId, String> {
        let stored = rows.range(&[], &[], usize::MAX, usize::MAX);
        let stored = stored.map_err(|e| e.to_string())?;
        let key = (group, rows.digest(), rows.len());
        let same = self.known.entry(key).or_default();
        let found = same
            .iter()
            .find(|id| self.states[**id as usize].rows == stored);
        if let Some(id) = found {
            return Ok(*id);
        }
        let id = self.states.len() as StateId;
        same.push(id);
        let facts = self.look(group, &stored)?;
        self.states.push(State {
            group,
            rows: stored,
            facts,
            applied: Vec::new(),
        });
        Ok(id)
    }

    fn look(&self, group: usize, stored: &[(Bytes, Bytes)]) -> Result<Facts, String> {
        let open = Open::new(group, stored)?;
        let agenda: Agenda = open.ask(&Query::Agenda)?;
        let page: Page = open.ask(&Query::Page)?;
        let mut copies = vec![None; self.sessions.len()];
        for here in &page.shards {
            let session = &self.sessions[here.shard as usize];
            let row = |key: &[u8]| {
                value::get(&open.rows, here.shard, here.incarnation, key).map_err(|e| e.to_string())
            };
            let (list, flag) = (row(&session.list)?, row(&session.flag)?);
            let mut found = session.count(list.as_deref(), flag.as_deref());
            // Whether it is served is asked of it, not concluded.
            let get = Query::Get {
                shard: here.shard,
                key: session.list.clone(),
            };
            let accepts = match open.ask(&get)? {
                kv::api::Response::Value(value) if value == list => true,
                kv::api::Response::Value(value) => {
                    found = Err(format!("a get finds {value:?}, the rows say {list:?}"));
                    true
                }
                _ => false,
            };
            copies[here.shard as usize] = Some(Copy {
                state: here.state,
                frozen: here.frozen,
                accepts,
                incarnation: here.incarnation,
                found,
            });
        }
        let accounted = |key: &[u8]| {
            let of = keys::copy_of(key);
            let live = page
                .shards
                .iter()
                .any(|s| of == Some((s.shard, s.incarnation)));
            live || agenda.dead.iter().any(|dead| of == Some(*dead))
        };
        let first = keys::copy(0, 0);
        let rows = stored.iter().filter(|(key, _)| key[..] >= first[..]);
        Ok(Facts {
            errands: plan::plan(&agenda),
            stray: rows.filter(|(key, _)| !accounted(key)).count(),
            agenda,
            copies,
        })
    }
}

/// Places of all groups.
pub fn all() -> std::ops::Range<usize> {
    0..GROUPS
}
