//! The model: three groups, the controllers' records of them, one session for each shard, and what
//! is under way. What can happen next, and what becomes of it.

use super::errands::Duties;
use super::group::{Fixed, Groups, OrderId, StateId, all};
use super::message::{Messages, Msg, MsgId, NetId};
use super::scenario::{GROUPS, Scenario, Script, id, info};
use super::session::{Session, Told};
use ctrler::change;
use ctrler::config::{Group, Record};
use ctrler::history::Version;
use kv::machine::command::{Command, Enter};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// Most shards of a scenario.
pub const SHARDS: usize = 2;

/// Everything but what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Core {
    pub groups: [StateId; GROUPS],
    /// The controllers' records.
    pub settled: [u8; GROUPS],
    pub holds: [bool; GROUPS],
    pub down: [bool; GROUPS],
    /// The newest configuration.
    pub newest: u8,
    /// Writes of each session that have taken effect and were answered.
    pub executed: [u8; SHARDS],
    /// Of these, those whose answer the client has.
    pub acked: [u8; SHARDS],
}

/// Everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub core: Core,
    pub net: NetId,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A command is committed and applied.
    Apply(u8, OrderId),
    /// A report reaches the controllers.
    Report(MsgId),
    /// The client has the answer to its next write.
    Ack(u8),
    /// The controllers make the next configuration.
    Configure,
    /// A group whose leave is complete is shut down.
    ShutDown(u8),
}

/// An action, and the state behind it or the promise it breaks.
pub type Step = (Action, Result<State, String>);

/// What may be under way beyond what the present state sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// All that was ever sent: late, repeated, in any order, or never.
    Keeps,
    /// Nothing: all that was sent before is lost.
    Forgets,
}

/// A scenario's model.
pub struct Model {
    pub scenario: Scenario,
    pub script: Script,
    pub groups: Groups,
    pub messages: Messages,
    enters: Vec<OrderId>,
    /// By group: what it may skip, the last configuration with it.
    skips: [Vec<(u8, OrderId)>; GROUPS],
    /// By shard and number: the write with each `acked` below the number.
    writes: Vec<Vec<Vec<OrderId>>>,
    /// By state, of those asked for.
    pub duties: Vec<Option<Rc<Duties>>>,
    pub answers: HashMap<(MsgId, StateId), Rc<[MsgId]>, Fixed>,
}

impl Model {
    /// The model and its first state: whoever takes part is in configuration 1, and the sessions
    /// are open.
    pub fn new(scenario: &Scenario) -> Result<(Model, State), String> {
        let script = Script::read(scenario)?;
        let shards = scenario.writes.len();
        if shards > SHARDS {
            return Err(format!("{shards} shards, the limit is {SHARDS}"));
        }
        let sessions = scenario.writes.iter().enumerate();
        let sessions = sessions.map(|(s, writes)| Session::new(s, shards, *writes));
        let mut groups = Groups::new(sessions.collect());
        let mut first = [0; GROUPS];
        for group in all() {
            let mut commands = Vec::new();
            if script.takes_part(group) {
                commands.push(Command::Enter(Enter::new(&script.configs[1])));
            }
            for (shard, session) in groups.sessions().iter().enumerate() {
                if script.configs[1].shards[shard] == Some(id(group)) {
                    commands.extend(session.open(scenario.two_chunks && shard == 0));
                }
            }
            first[group] = groups.start(group, &commands)?;
        }
        let enters = script.configs.iter();
        let enters = enters.map(|c| Command::Enter(Enter::new(c)));
        let enters = enters.collect::<Vec<_>>();
        let enters = enters.iter().map(|c| groups.order(c)).collect();
        let mut skips = std::array::from_fn(|_| Vec::new());
        for (group, skips) in skips.iter_mut().enumerate() {
            for skip in script.skips(group) {
                let last = skip.to as u8;
                skips.push((last, groups.order(&Command::Skip(skip))));
            }
        }
        let mut writes = Vec::new();
        for shard in 0..shards {
            let mut of_shard = vec![Vec::new()];
            for n in 1..=groups.sessions()[shard].writes {
                let all: Vec<Command> = (0..n)
                    .map(|acked| groups.sessions()[shard].write(n, acked))
                    .collect();
                of_shard.push(all.iter().map(|c| groups.order(c)).collect());
            }
            writes.push(of_shard);
        }
        let newest = if scenario.one_by_one {
            1
        } else {
            script.last()
        };
        let mut model = Model {
            scenario: scenario.clone(),
            script,
            groups,
            messages: Messages::new(),
            enters,
            skips,
            writes,
            duties: Vec::new(),
            answers: HashMap::default(),
        };
        let mut core = Core {
            groups: first,
            settled: [0; GROUPS],
            holds: [false; GROUPS],
            down: [false; GROUPS],
            newest,
            executed: [0; SHARDS],
            acked: [0; SHARDS],
        };
        model.reports(&mut core)?;
        let net = model.send(&core, 0)?;
        Ok((model, State { core, net }))
    }

    /// What can happen when all that was under way is lost, and nothing is ever late again.
    pub fn forgetful(&mut self, core: &Core, out: &mut Vec<Step>) -> Result<(), String> {
        let net = self.send(core, 0)?;
        self.next(&State { core: *core, net }, Network::Forgets, out);
        Ok(())
    }

    pub fn up(&self, core: &Core, group: usize) -> bool {
        self.script.takes_part(group) && !core.down[group]
    }

    /// The controllers' record of a group.
    pub fn record(&self, core: &Core, group: usize) -> Record {
        Record {
            group: info(group),
            settled: core.settled[group].into(),
            holds: core.holds[group],
            left: self.script.left[usize::from(core.newest)][group],
        }
    }

    /// What can happen, in an order that the state alone decides. An error is a broken promise.
    pub fn next(&mut self, state: &State, network: Network, out: &mut Vec<Step>) {
        let core = &state.core;
        let mut actions: Vec<Action> = Vec::new();
        for msg in self.messages.members(state.net).iter() {
            match self.messages.get(*msg) {
                Msg::Order { group, order } => actions.push(Action::Apply(*group as u8, *order)),
                Msg::Report { .. } => actions.push(Action::Report(*msg)),
                Msg::Ask(_) => {}
            }
        }
        for group in all() {
            // A leader with wrong ideas may propose to enter any configuration there is.
            for enter in &self.enters[1..=usize::from(core.newest)] {
                actions.push(Action::Apply(group as u8, *enter));
            }
            for (last, skip) in &self.skips[group] {
                if *last <= core.newest {
                    actions.push(Action::Apply(group as u8, *skip));
                }
            }
            // Whatever the client may have sent by now, to whomever, and however often.
            for (shard, writes) in self.writes.iter().enumerate() {
                let acked = usize::from(core.acked[shard]);
                for write in writes {
                    let sent = write.iter().take(acked + 1);
                    actions.extend(sent.map(|order| Action::Apply(group as u8, *order)));
                }
            }
            let left = self.record(core, group).has_left();
            if left && self.up(core, group) {
                actions.push(Action::ShutDown(group as u8));
            }
        }
        for shard in 0..self.writes.len() {
            if core.acked[shard] < core.executed[shard] {
                actions.push(Action::Ack(shard as u8));
            }
        }
        if core.newest < self.script.last() {
            actions.push(Action::Configure);
        }
        for action in actions {
            if let Some(next) = self.act(state, action, network).transpose() {
                out.push((action, next));
            }
        }
    }

    /// What becomes of a state; `None`: nothing.
    pub fn act(
        &mut self,
        state: &State,
        action: Action,
        network: Network,
    ) -> Result<Option<State>, String> {
        let mut core = state.core;
        match action {
            Action::Apply(group, order) => {
                let group = usize::from(group);
                if !self.up(&core, group) {
                    return Ok(None);
                }
                let before = core.groups[group];
                let applied = self.groups.apply(before, order);
                self.judge(&mut core, group, order, applied.told)?;
                if applied.next == before {
                    return Ok(None);
                }
                core.groups[group] = applied.next;
            }
            Action::Report(msg) => {
                if let Msg::Report {
                    group,
                    through,
                    holds,
                } = *self.messages.get(msg)
                {
                    self.settle(&mut core, group, through, holds)?;
                }
            }
            Action::Ack(shard) => core.acked[usize::from(shard)] += 1,
            Action::Configure => {
                core.newest += 1;
                // Who joins again is started again, with what its disks have.
                let next = &self.script.configs[usize::from(core.newest)];
                for group in all() {
                    core.down[group] &= !next.groups.contains_key(&id(group));
                }
            }
            Action::ShutDown(group) => {
                let group = usize::from(group);
                let facts = self.groups.facts(core.groups[group]);
                if facts.copies.iter().any(Option::is_some) {
                    return Err("shut down with a shard".to_owned());
                }
                core.down[group] = true;
            }
        }
        if core == state.core {
            return Ok(None);
        }
        self.reports(&mut core)?;
        let net = match network {
            Network::Keeps => self.send(&core, state.net)?,
            Network::Forgets => self.send(&core, 0)?,
        };
        Ok(Some(State { core, net }))
    }

    /// Takes in what a command was answered.
    fn judge(
        &self,
        core: &mut Core,
        group: usize,
        order: OrderId,
        told: Told,
    ) -> Result<(), String> {
        if let Told::Broken(n) = told {
            return Err(self.groups.broken[n as usize].clone());
        }
        let Command::Write { shard, seq, .. } = self.groups.command(order) else {
            return Ok(());
        };
        let facts = self.groups.facts(core.groups[group]);
        let copy = facts.copies[*shard as usize].as_ref();
        let accepts = copy.is_some_and(|copy| copy.accepts);
        if accepts != (told != Told::WrongGroup) {
            return Err(format!(
                "C06: accepts: {accepts}, and write {} is answered {told:?}",
                seq.seq
            ));
        }
        let executed = &mut core.executed[*shard as usize];
        match told {
            Told::Written(n) if n == *executed + 1 => *executed = n,
            Told::Written(n) if n > *executed => {
                return Err(format!("I9: write {n} took effect behind {executed}"));
            }
            Told::Gap(last) if last != *executed => {
                return Err(format!(
                    "I9: the session is at {last}, but {executed} writes took effect"
                ));
            }
            Told::Stale(n) if n > core.acked[*shard as usize] => {
                return Err(format!("write {n} is stale, but was never acknowledged"));
            }
            _ => {}
        }
        Ok(())
    }

    /// A report reaches the controllers, judged by their own code.
    fn settle(
        &self,
        core: &mut Core,
        group: usize,
        through: u8,
        holds: bool,
    ) -> Result<(), String> {
        if (core.settled[group], core.holds[group]) == (through, holds) {
            return Ok(());
        }
        let latest = Version {
            num: core.newest.into(),
            ..Version::default()
        };
        let records = BTreeMap::from([(id(group), self.record(core, group))]);
        let report: &Group = &info(group);
        let effect = change::settled(&latest, &records, id(group), report, through.into(), holds)?;
        if let Some(record) = effect.records.get(&id(group)) {
            core.settled[group] = record.settled as u8;
            core.holds[group] = record.holds;
        }
        Ok(())
    }

    /// Reports that arrive at once.
    fn reports(&mut self, core: &mut Core) -> Result<(), String> {
        if self.scenario.late_reports {
            return Ok(());
        }
        for group in all().filter(|g| self.up(core, *g)).collect::<Vec<_>>() {
            if let Some((through, holds)) = self.duties(core.groups[group])?.report {
                self.settle(core, group, through, holds)?;
            }
        }
        Ok(())
    }
}
