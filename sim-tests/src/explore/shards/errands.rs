//! What groups say to each other and to the controllers: the messages that a state sends, and the
//! commands that they lead to where they arrive.

use super::group::{StateId, all};
use super::message::{Msg, MsgId, NetId};
use super::model::{Core, Model};
use super::scenario::{id, info, place};
use ctrler::config::ConfigNum;
use kv::machine::command::Command;
use kv::machine::query::Pulled;
use kv::mover::plan::{self, Errand, Step};
use kv::mover::wire::{Answer, Ask, Party, What};
use std::rc::Rc;

/// The errands of a group's state.
pub struct Duties {
    messages: Rc<[MsgId]>,
    pub report: Option<(u8, bool)>,
    /// Releases that the record of a group allows when it has settled a configuration.
    by_record: Vec<(usize, ConfigNum, Rc<[MsgId]>)>,
}

fn party(group: usize) -> Party {
    Party {
        group: id(group),
        birth: info(group).birth,
    }
}

impl Model {
    /// What is under way behind `net`. All that the movers could send in this state is sent, and
    /// every question is answered in every state in which it could arrive: more messages than
    /// there need be, none of which need be delivered.
    pub fn send(&mut self, core: &Core, net: NetId) -> Result<NetId, String> {
        let old = self.messages.members(net);
        let mut new: Vec<MsgId> = Vec::new();
        let mut work: Vec<Rc<[MsgId]>> = Vec::new();
        for group in all() {
            if !self.up(core, group) {
                continue;
            }
            let duties = self.duties(core.groups[group])?;
            work.push(duties.messages.clone());
            for (to, num, releases) in &duties.by_record {
                if plan::recorded(&self.record(core, *to), *num) {
                    work.push(releases.clone());
                }
            }
        }
        for msg in old.iter() {
            work.extend(self.answered(core, *msg)?);
        }
        while let Some(messages) = work.pop() {
            for msg in messages.iter() {
                if old.binary_search(msg).is_err() && !new.contains(msg) {
                    new.push(*msg);
                    work.extend(self.answered(core, *msg)?);
                }
            }
        }
        if new.is_empty() {
            return Ok(net);
        }
        new.extend_from_slice(&old);
        Ok(self.messages.set(new))
    }

    /// The commands that a question leads to when it arrives in this state.
    fn answered(&mut self, core: &Core, msg: MsgId) -> Result<Option<Rc<[MsgId]>>, String> {
        let Msg::Ask(ask) = self.messages.get(msg) else {
            return Ok(None);
        };
        let group = place(ask.to.group);
        if !self.up(core, group) {
            return Ok(None);
        }
        let state = core.groups[group];
        if let Some(known) = self.answers.get(&(msg, state)) {
            return Ok(Some(known.clone()));
        }
        let ask = ask.clone();
        let answers: Rc<[MsgId]> = self.answer(state, &ask)?.into();
        self.answers.insert((msg, state), answers.clone());
        Ok(Some(answers))
    }

    fn answer(&mut self, state: StateId, ask: &Ask) -> Result<Vec<MsgId>, String> {
        let (asked, asks) = (place(ask.to.group), place(ask.from.group));
        let me = self.groups.facts(state).agenda.birth.map(|birth| Party {
            group: ask.to.group,
            birth,
        });
        let query = match plan::judge(ask, me) {
            Step::Answer(_) => return Ok(Vec::new()),
            Step::Query(query) => query,
        };
        let (group, commands) = match &ask.what {
            What::Installed { .. } => {
                let answer = Answer::Installed(self.groups.ask(state, &query)?);
                (asks, plan::answered(&ask.what, ask.num, answer))
            }
            // Nobody sends it here: the old owner asks, as it does by itself.
            What::Arrived { .. } => return Ok(Vec::new()),
            What::Pull { shard, .. } => {
                let pulled: Pulled = self.groups.ask(state, &query)?;
                match plan::pulled(pulled, *shard, ask.num) {
                    Ok(answer) => return self.rows(asks, ask, answer),
                    Err(freeze) => (asked, vec![freeze]),
                }
            }
        };
        commands.iter().map(|c| self.send_order(group, c)).collect()
    }

    /// The new owner installs rows, and asks for those behind them meanwhile.
    fn rows(&mut self, group: usize, ask: &Ask, answer: Answer) -> Result<Vec<MsgId>, String> {
        let mut sent = Vec::new();
        if let (Answer::Rows(chunk), What::Pull { shard, .. }) = (&answer, &ask.what)
            && let Some(next) = &chunk.next
        {
            let what = What::Pull {
                shard: *shard,
                from: next.clone(),
            };
            let ask = Ask {
                what,
                ..ask.clone()
            };
            sent.push(self.messages.id(Msg::Ask(ask))?);
        }
        for command in plan::answered(&ask.what, ask.num, answer) {
            sent.push(self.send_order(group, &command)?);
        }
        Ok(sent)
    }

    fn send_order(&mut self, group: usize, command: &Command) -> Result<MsgId, String> {
        let order = self.groups.order(command);
        self.messages.id(Msg::Order { group, order })
    }

    pub fn duties(&mut self, state: StateId) -> Result<Rc<Duties>, String> {
        if let Some(Some(known)) = self.duties.get(state as usize) {
            return Ok(known.clone());
        }
        let duties = Rc::new(self.plan(state)?);
        if self.duties.len() <= state as usize {
            self.duties.resize(state as usize + 1, None);
        }
        self.duties[state as usize] = Some(duties.clone());
        Ok(duties)
    }

    /// One attempt at each errand, as the mover makes it.
    fn plan(&mut self, state: StateId) -> Result<Duties, String> {
        let group = self.groups.group(state);
        let facts = self.groups.facts(state);
        let (agenda, errands) = (facts.agenda.clone(), facts.errands.clone());
        let (mut sent, mut report, mut by_record) = (Vec::new(), None, Vec::new());
        let ask = |to, num, what| {
            Msg::Ask(Ask {
                from: party(group),
                to: party(place(to)),
                num,
                what,
            })
        };
        for errand in errands {
            match errand {
                Errand::Birth => return Err("a group that is not born".to_owned()),
                // Entering is always possible here.
                Errand::Next { .. } => {}
                Errand::Report { through, holds } => {
                    let through = through as u8;
                    report = Some((through, holds));
                    if self.scenario.late_reports {
                        sent.push(self.messages.id(Msg::Report {
                            group,
                            through,
                            holds,
                        })?);
                    }
                }
                Errand::Pull { shard, num, from } => {
                    if let Some(cursor) = plan::cursor(&agenda, shard, num) {
                        let what = What::Pull {
                            shard,
                            from: cursor,
                        };
                        sent.push(self.messages.id(ask(from, num, what))?);
                    }
                }
                Errand::Confirm { to, num } => {
                    let given = plan::given(&agenda, to, num).unwrap_or_default();
                    if given.is_empty() {
                        continue;
                    }
                    let what = What::Installed {
                        shards: given.clone(),
                    };
                    sent.push(self.messages.id(ask(to, num, what))?);
                    let mut releases = Vec::new();
                    for command in plan::releases(given, num) {
                        releases.push(self.send_order(group, &command)?);
                    }
                    by_record.push((place(to), num, releases.into()));
                }
                Errand::Sweep { shard, incarnation } => {
                    let sweep = Command::Sweep { shard, incarnation };
                    sent.push(self.send_order(group, &sweep)?);
                }
            }
        }
        Ok(Duties {
            messages: sent.into(),
            report,
            by_record,
        })
    }
}
