//! Several groups in one process, a controller that is a list, and a network that loses, repeats
//! and delays. Groups are replicated logs that never lose an entry: consensus is not the subject.

use super::group::{Group, Rng};
use bytes::Bytes;
use ctrler::config::{Config, GroupId, Record, ShardId, next_of};
use kv::api::{Request, Response};
use kv::machine::command::{Ack, Command};
use kv::mover::plan::{self, Errand, Step};
use kv::mover::wire::{Answer, Ask, Party, What};
use std::collections::BTreeMap;

/// Something under way.
#[derive(Clone, Debug)]
pub enum Msg {
    /// To `ask.to.group`.
    Ask(Ask),
    /// To `ask.from.group`.
    Answer(Ask, Answer),
    /// A command that a leader of the group has decided on.
    Command(GroupId, Command),
    /// To the controllers.
    Report(GroupId, u64, bool),
    /// A client's request, with the client's number and what it knew.
    Request(usize, GroupId, Request, u64),
    /// To the client.
    Reply(usize, Request, Response, u64),
}

/// Everything.
pub struct World {
    pub rng: Rng,
    pub groups: BTreeMap<GroupId, Group>,
    pub configs: Vec<Config>,
    pub records: BTreeMap<GroupId, Record>,
    pub flying: Vec<Msg>,
    pub events: Vec<String>,
}

impl World {
    pub fn new(seed: u64, groups: u64, shards: usize) -> World {
        let mut rng = Rng(seed);
        let configs = vec![Config {
            shards: vec![None; shards],
            holders: vec![None; shards],
            ..Config::default()
        }];
        // The clocks of groups have nothing in common.
        let groups = (1..=groups)
            .map(|id| {
                (
                    id,
                    Group::new(id, u128::from(id) << 64, rng.next() % 10_000_000),
                )
            })
            .collect();
        World {
            rng,
            groups,
            configs,
            records: BTreeMap::new(),
            flying: Vec::new(),
            events: Vec::new(),
        }
    }

    pub fn note(&mut self, event: String) {
        self.events.push(event);
    }

    pub fn latest(&self) -> u64 {
        self.configs.len() as u64 - 1
    }

    /// Adds a configuration with these owners; members are the owners and `also`.
    pub fn configure(&mut self, owners: &[Option<GroupId>], also: &[GroupId]) {
        let last = self.configs.last().expect("never empty").clone();
        let num = last.num + 1;
        let mut config = Config {
            num,
            shards: owners.to_vec(),
            ..Config::default()
        };
        let holders = owners.iter().zip(&last.holders);
        config.holders = holders.map(|(owner, before)| owner.or(*before)).collect();
        for id in owners.iter().flatten().chain(also) {
            let info = ctrler::config::Group {
                servers: vec![format!("group-{id}:1")],
                birth: self.groups[id].birth,
            };
            config.groups.insert(*id, info.clone());
            let record = Record {
                group: info,
                settled: 0,
                holds: false,
                left: None,
            };
            self.records.entry(*id).or_insert(record).left = None;
        }
        for (id, record) in &mut self.records {
            if !config.groups.contains_key(id) && record.left.is_none() {
                record.left = Some(num);
            }
        }
        self.note(format!(
            "config {num}: {owners:?}, members {:?}",
            config.groups.keys()
        ));
        self.configs.push(config);
    }

    fn party(&self, id: GroupId) -> Party {
        Party {
            group: id,
            birth: self.records[&id].group.birth,
        }
    }

    pub fn group(&mut self, id: GroupId) -> &mut Group {
        self.groups.get_mut(&id).expect("a group of the model")
    }

    /// Commits a command in a group, unless it is down.
    pub fn commit(&mut self, id: GroupId, command: &Command) -> Option<Bytes> {
        let elapsed = self.rng.next() % 50;
        let group = self.group(id);
        if group.down {
            return None;
        }
        let reply = group.commit(command, elapsed);
        if !matches!(command, Command::Write { .. } | Command::Open { .. }) {
            let ack = Ack::from_bytes(&reply);
            self.note(format!("group {id}: {} -> {ack:?}", name(command)));
        }
        // The fast path: the new owner tells the old one, and this may be lost as well.
        if let (Command::Install { shard, num, .. }, Some(what)) = (command, plan::notice(command))
            && Ack::from_bytes(&reply) == Ack::Done
        {
            let before = &self.configs[*num as usize - 1];
            if let Some(old) = before.holders[*shard as usize] {
                let ask = Ask {
                    from: self.party(id),
                    to: self.party(old),
                    num: *num,
                    what,
                };
                self.flying.push(Msg::Ask(ask));
            }
        }
        Some(reply)
    }

    /// One attempt at an errand, as the mover makes it.
    pub fn errand(&mut self, id: GroupId, errand: &Errand) {
        if self.groups[&id].down {
            return;
        }
        let agenda = self.groups[&id].agenda();
        match errand {
            Errand::Birth => unreachable!("groups of the model are born"),
            Errand::Next { after } => {
                let known = self.records.contains_key(&id);
                // Half of the controllers know what a group may skip.
                let next = match self.rng.next() % 2 {
                    0 => next_of(&self.configs, *after, id),
                    _ => self.configs.get(*after as usize + 1),
                };
                if let Some(command) = next.and_then(|config| plan::entering(*after, config))
                    && known
                {
                    self.flying.push(Msg::Command(id, command));
                }
            }
            Errand::Report { through, holds } => {
                self.flying.push(Msg::Report(id, *through, *holds));
            }
            Errand::Pull { shard, num, from } => {
                if let Some(cursor) = plan::cursor(&agenda, *shard, *num) {
                    let what = What::Pull {
                        shard: *shard,
                        from: cursor,
                    };
                    let ask = Ask {
                        from: self.party(id),
                        to: self.party(*from),
                        num: *num,
                        what,
                    };
                    self.flying.push(Msg::Ask(ask));
                }
            }
            Errand::Confirm { to, num } => {
                let Some(shards) = plan::given(&agenda, *to, *num) else {
                    return;
                };
                if plan::recorded(&self.records[to], *num) {
                    for command in plan::releases(shards, *num) {
                        self.flying.push(Msg::Command(id, command));
                    }
                } else {
                    let what = What::Installed { shards };
                    let ask = Ask {
                        from: self.party(id),
                        to: self.party(*to),
                        num: *num,
                        what,
                    };
                    self.flying.push(Msg::Ask(ask));
                }
            }
            Errand::Sweep { shard, incarnation } => {
                let (shard, incarnation) = (*shard, *incarnation);
                self.flying
                    .push(Msg::Command(id, Command::Sweep { shard, incarnation }));
            }
        }
    }

    pub fn errands(&self, id: GroupId) -> Vec<Errand> {
        plan::plan(&self.groups[&id].agenda())
    }

    /// A question arrives.
    fn asked(&mut self, ask: Ask) {
        let id = ask.to.group;
        let group = &self.groups[&id];
        if group.down {
            return;
        }
        let me = group.agenda().birth.map(|birth| Party { group: id, birth });
        let query = match plan::judge(&ask, me) {
            Step::Answer(answer) => return self.flying.push(Msg::Answer(ask, answer)),
            Step::Query(query) => query,
        };
        let answer = match &ask.what {
            What::Installed { .. } => Answer::Installed(group.ask(&query)),
            // The old owner asks, as it does by itself.
            What::Arrived { .. } => Answer::Noted,
            What::Pull { shard, .. } => match plan::pulled(group.ask(&query), *shard, ask.num) {
                Ok(answer) => answer,
                Err(freeze) => {
                    self.flying.push(Msg::Command(id, freeze));
                    Answer::Busy
                }
            },
        };
        self.flying.push(Msg::Answer(ask, answer));
    }

    /// An answer arrives.
    fn answered(&mut self, ask: Ask, answer: Answer) {
        for command in plan::answered(&ask.what, ask.num, answer) {
            self.flying.push(Msg::Command(ask.from.group, command));
        }
    }

    /// Delivers a message. What is a client's comes back.
    pub fn deliver(&mut self, msg: Msg) -> Option<Msg> {
        match msg {
            Msg::Ask(ask) => self.asked(ask),
            Msg::Answer(ask, answer) => self.answered(ask, answer),
            Msg::Command(id, command) => {
                self.commit(id, &command);
            }
            Msg::Report(id, through, holds) => {
                let record = self
                    .records
                    .get_mut(&id)
                    .expect("only recorded groups report");
                // Late reports say nothing new.
                if through > record.settled {
                    record.settled = through;
                    record.holds = holds;
                    self.note(format!("group {id} settled {through}, holds {holds}"));
                }
            }
            Msg::Request(client, id, request, known) => {
                if !self.groups[&id].down {
                    let elapsed = self.rng.next() % 50;
                    let response = self.group(id).serve(request.clone(), elapsed);
                    self.note(format!(
                        "group {id}: client {client} {} -> {response:?}",
                        ask(&request)
                    ));
                    self.flying
                        .push(Msg::Reply(client, request, response, known));
                }
            }
            reply @ Msg::Reply(..) => return Some(reply),
        }
        None
    }

    /// A group that has handed over everything may be shut down.
    pub fn may_shut_down(&self, id: GroupId) -> bool {
        let complete = |r: &Record| r.left.is_some_and(|left| r.settled >= left) && !r.holds;
        self.records.get(&id).is_some_and(complete) && !self.groups[&id].down
    }

    /// Never two owners: at no moment do two groups accept operations of one shard.
    pub fn check_owners(&self) -> Result<(), String> {
        let mut owners: BTreeMap<ShardId, GroupId> = BTreeMap::new();
        for (id, group) in &self.groups {
            for shard in group.accepts() {
                if let Some(other) = owners.insert(shard, *id) {
                    return Err(format!(
                        "shard {shard} is served by groups {other} and {id}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// Delivers everything and runs all errands, without loss, until nothing is owed anywhere.
    pub fn finish(&mut self) {
        for _ in 0..500 {
            for msg in std::mem::take(&mut self.flying) {
                self.deliver(msg);
            }
            if self.at_rest() {
                return;
            }
            for id in self.groups.keys().copied().collect::<Vec<_>>() {
                for errand in self.errands(id) {
                    self.errand(id, &errand);
                }
            }
        }
        panic!("never at rest: {:#?}", self.events);
    }

    /// Every group that takes part is in the latest configuration, owes nothing, has reported it,
    /// and has swept what it gave.
    pub fn at_rest(&self) -> bool {
        self.records.iter().all(|(id, record)| {
            let agenda = self.groups[id].agenda();
            let settled = agenda.config == self.latest() && agenda.settled;
            let done = settled && agenda.dead.is_empty() && record.settled == self.latest();
            self.groups[id].down || done
        })
    }

    /// Rows of copies that no shard of the group has.
    pub fn stray_rows(&self, id: GroupId) -> usize {
        let group = &self.groups[&id];
        let live: Vec<_> = group
            .page()
            .shards
            .iter()
            .map(|s| (s.shard, s.incarnation))
            .collect();
        let all = group.members[0]
            .rows
            .range(&[0x04], &[], usize::MAX, usize::MAX);
        let all = all.expect("rows in memory");
        let copy = |key: &[u8]| {
            let shard = u32::from_be_bytes(key[1..5].try_into().expect("four bytes"));
            (
                shard,
                u64::from_be_bytes(key[5..13].try_into().expect("eight bytes")),
            )
        };
        all.iter()
            .filter(|(key, _)| key[0] == 4 || !live.contains(&copy(key)))
            .count()
    }
}

/// A command in one word or two.
pub fn name(command: &Command) -> String {
    match command {
        Command::Enter(enter) => format!("Enter {}", enter.num),
        Command::Skip(skip) => format!("Skip {}..={}", skip.from + 1, skip.to),
        Command::Install {
            shard, num, chunk, ..
        } => {
            format!(
                "Install {shard}@{num} {} rows, last {}",
                chunk.rows.len(),
                chunk.next.is_none()
            )
        }
        other => format!("{other:?}"),
    }
}

fn ask(request: &Request) -> String {
    match request {
        Request::Write { shard, seq, .. } => format!("write {shard} {seq:?}"),
        Request::Get { shard, .. } => format!("get {shard}"),
        other => format!("{other:?}"),
    }
}
