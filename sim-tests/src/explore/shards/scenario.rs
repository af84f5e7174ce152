//! What happens to the configurations: a word for each, in it a letter for each shard.

use super::group::all;
use ctrler::config::{Config, ConfigNum, Group, GroupId, share};
use kv::machine::command::Skip;
use std::collections::BTreeMap;

/// Groups of the model: A, B and C.
pub const GROUPS: usize = 3;

/// One of the models to explore.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Owners in configuration 1, 2, …: "AB BA C." gives shard 0 to A, B, C and shard 1 to B, A,
    /// nobody. A group that is named takes part from configuration 1 on, and leaves in the first
    /// one behind the last in which it owns something; where nobody owns anything all have left.
    pub history: String,
    /// Writes of the session of each shard.
    pub writes: Vec<u8>,
    /// Reports to the controllers are messages, late and repeated; else they arrive at once.
    pub late_reports: bool,
    /// Configurations are made one after the other, while everything else goes on, and a group
    /// that was shut down and joins again is started again. Else all exist from the start: groups
    /// read them one by one anyway, and only the records differ.
    pub one_by_one: bool,
    /// Shard 0 is too large for one chunk.
    pub two_chunks: bool,
}

impl Scenario {
    /// All configurations at once, reports at once, small shards.
    pub fn new(history: &str, writes: &[u8]) -> Scenario {
        Scenario {
            history: history.to_owned(),
            writes: writes.to_vec(),
            late_reports: false,
            one_by_one: false,
            two_chunks: false,
        }
    }

    /// Reports late, configurations one by one.
    pub fn controllers_too(mut self) -> Scenario {
        self.late_reports = true;
        self.one_by_one = true;
        self
    }

    /// More rows than one chunk takes.
    pub fn large(mut self) -> Scenario {
        self.two_chunks = true;
        self
    }

    /// Its name in reports.
    pub fn name(&self) -> String {
        let mut name = format!("{} · writes {:?}", self.history, self.writes);
        for (set, what) in [
            (self.late_reports, "reports late"),
            (self.one_by_one, "configurations one by one"),
            (self.two_chunks, "two chunks"),
        ] {
            if set {
                name = format!("{name} · {what}");
            }
        }
        name
    }
}

/// A scenario's configurations.
pub struct Script {
    /// All of them, number 0 first.
    pub configs: Vec<Config>,
    /// For each configuration, as the newest: where each group left, if it is not a member.
    pub left: Vec<[Option<ConfigNum>; GROUPS]>,
}

/// "A" for group 1, and so on.
pub fn letter(group: usize) -> char {
    char::from(b'A' + group as u8)
}

/// The group's number in the store.
pub fn id(group: usize) -> GroupId {
    group as GroupId + 1
}

/// The group's place here.
pub fn place(group: GroupId) -> usize {
    group as usize - 1
}

/// What the controllers know of a group.
pub fn info(group: usize) -> Group {
    Group {
        servers: vec![format!("group-{}:1", id(group))],
        birth: u128::from(id(group)) << 64,
    }
}

impl Script {
    /// Reads a history.
    ///
    /// # Errors
    /// A letter that is no group, words of different length, a shard without an owner beside one
    /// that has one (the controllers make no such configuration), or fewer than two configurations.
    pub fn read(scenario: &Scenario) -> Result<Script, String> {
        let words: Vec<&str> = scenario.history.split_whitespace().collect();
        let shards = words.first().map_or(0, |word| word.len());
        if words.len() < 2 || shards == 0 || shards != scenario.writes.len() {
            return Err(format!(
                "{:?}, writes {:?}: expected two words or more, and writes for each letter of one",
                scenario.history, scenario.writes
            ));
        }
        let mut owners: Vec<Vec<Option<GroupId>>> = vec![vec![None; shards]];
        for word in words {
            let read: Option<Vec<_>> = word
                .bytes()
                .map(|letter| match letter {
                    b'.' => Some(None),
                    b'A'..=b'C' => Some(Some(id(usize::from(letter - b'A')))),
                    _ => None,
                })
                .collect();
            let whole = |read: &Vec<Option<GroupId>>| {
                read.len() == shards && read.iter().all(|o| o.is_some() == read[0].is_some())
            };
            match read.filter(whole) {
                Some(read) => owners.push(read),
                None => {
                    return Err(format!(
                        "{word:?}: expected {shards} of A, B, C; or only dots"
                    ));
                }
            }
        }
        if owners[1][0].is_none() {
            return Err("the first configuration has owners".to_owned());
        }
        let mut script = Script {
            configs: vec![Config {
                shards: owners[0].clone(),
                holders: owners[0].clone(),
                ..Config::default()
            }],
            left: vec![[None; GROUPS]],
        };
        for num in 1..owners.len() {
            let member = |group: &GroupId| {
                owners[num][0].is_some() && owners[num..].iter().any(|o| o.contains(&Some(*group)))
            };
            let members = (0..GROUPS).map(id).filter(member);
            let groups: BTreeMap<GroupId, Group> =
                members.map(|id| (id, info(place(id)))).collect();
            let last = &script.configs[num - 1];
            let holders = owners[num].iter().zip(&last.holders);
            let holders = holders.map(|(owner, before)| owner.or(*before)).collect();
            let mut left = script.left[num - 1];
            for (group, left) in left.iter_mut().enumerate() {
                let before = last.groups.contains_key(&id(group));
                match groups.contains_key(&id(group)) {
                    true => *left = None,
                    false if before => *left = Some(num as ConfigNum),
                    false => {}
                }
            }
            script.left.push(left);
            script.configs.push(Config {
                num: num as ConfigNum,
                shards: owners[num].clone(),
                holders,
                groups,
                ..Config::default()
            });
        }
        Ok(script)
    }

    /// Number of the last configuration.
    pub fn last(&self) -> u8 {
        (self.configs.len() - 1) as u8
    }

    /// All that a group may skip: two configurations or more behind one that it can be in.
    pub fn skips(&self, group: usize) -> Vec<Skip> {
        let share = |c: &Config| share(&c.shards, &c.holders, id(group)).collect::<Vec<_>>();
        let mut skips = Vec::new();
        for (from, config) in self.configs.iter().enumerate().skip(1) {
            let behind = self.configs[from + 1..].iter();
            let same = behind.take_while(|next| share(next) == share(config));
            skips.extend(same.skip(1).map(|to| Skip::new(from as ConfigNum, to)));
        }
        skips
    }

    /// Whether the controllers know a group. Whoever takes part joins in configuration 1.
    pub fn takes_part(&self, group: usize) -> bool {
        self.configs[1].groups.contains_key(&id(group))
    }
}

/// Every history of so many shards and configurations in which each configuration changes
/// something; of those that differ only in the groups' names, the one that names them in order.
pub fn histories(shards: usize, configs: usize) -> Vec<String> {
    let mut words = vec![String::new()];
    for _ in 0..shards {
        let longer = words.iter().flat_map(|word| {
            let letters = all().map(letter);
            letters.map(move |letter| format!("{word}{letter}"))
        });
        words = longer.collect();
    }
    words.push(".".repeat(shards));
    let mut all: Vec<Vec<&str>> = vec![Vec::new()];
    for _ in 0..configs {
        let longer = all.iter().flat_map(|history| {
            let next = words
                .iter()
                .filter(|word| history.last() != Some(&&word[..]));
            next.map(|word| [&history[..], &[word]].concat())
        });
        all = longer.collect();
    }
    let all = all.into_iter().map(|history| history.join(" "));
    all.filter(|history| !history.starts_with('.') && in_order(history))
        .collect()
}

/// Whether no group is named before the one before it.
fn in_order(history: &str) -> bool {
    let first = |group: usize| history.find(letter(group)).unwrap_or(usize::MAX);
    (1..GROUPS).all(|group| first(group - 1) <= first(group))
}
