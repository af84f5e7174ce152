//! What is to be done, from what the machine says: pure, so that the same decisions run in the
//! mover and in the tests' model.

use super::wire::{Answer, Ask, Party, What};
use crate::machine::command::{Command, Enter, Skip};
use crate::machine::query::{Agenda, Pulled, Query};
use crate::machine::state::Cursor;
use ctrler::config::{Config, ConfigNum, GroupId, Record, ShardId};
use std::collections::BTreeMap;

/// Shards fetched at once from one group.
pub const PULLS: usize = 4;
/// Shards fetched at once from all groups together.
pub const MAX_PULLS: usize = 64;

/// Something to be done. Idempotent: done twice, or by two leaders, it changes nothing more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Errand {
    /// Propose a birth id.
    Birth,
    /// Look for the configuration behind this one and propose to enter it.
    Next {
        /// The present one.
        after: ConfigNum,
    },
    /// Tell the controllers that nothing through this configuration is owed.
    Report {
        /// The configuration.
        through: ConfigNum,
        /// Whether some shard is here.
        holds: bool,
    },
    /// Fetch a shard.
    Pull {
        /// The shard.
        shard: ShardId,
        /// The configuration in which it comes.
        num: ConfigNum,
        /// Who has it.
        from: GroupId,
    },
    /// Learn whether shards given have been committed by their new owner, and release them.
    Confirm {
        /// The new owner.
        to: GroupId,
        /// The configuration in which they go.
        num: ConfigNum,
    },
    /// Delete the rows of a copy given away.
    Sweep {
        /// The shard.
        shard: ShardId,
        /// The copy.
        incarnation: ConfigNum,
    },
}

/// The errands of an agenda. A configuration is entered only when nothing of the one before is
/// owed; sweeping holds up nothing, and goes one copy at a time.
pub fn plan(agenda: &Agenda) -> Vec<Errand> {
    if agenda.birth.is_none() {
        return vec![Errand::Birth];
    }
    let num = agenda.config;
    let mut errands: Vec<Errand> = Vec::new();
    // A few from each group, one that does not answer must not hold up those of others.
    let mut from_each: BTreeMap<GroupId, usize> = BTreeMap::new();
    let mut pulls: Vec<(usize, GroupId, ShardId)> = Vec::new();
    for arrival in &agenda.arriving {
        let place = from_each.entry(arrival.from).or_default();
        if *place < PULLS {
            pulls.push((*place, arrival.from, arrival.shard));
        }
        *place += 1;
    }
    pulls.sort_unstable();
    for (_, from, shard) in pulls.into_iter().take(MAX_PULLS) {
        errands.push(Errand::Pull { shard, num, from });
    }
    for departure in &agenda.leaving {
        errands.push(Errand::Confirm {
            to: departure.to,
            num,
        });
    }
    for (shard, incarnation) in agenda.dead.iter().take(1) {
        errands.push(Errand::Sweep {
            shard: *shard,
            incarnation: *incarnation,
        });
    }
    if agenda.settled {
        if num > 0 {
            errands.push(Errand::Report {
                through: num,
                holds: agenda.holds,
            });
        }
        errands.push(Errand::Next { after: num });
    } else if num > 1 {
        // Entered, so the one before is settled. Said for the addresses: the other groups must
        // find this one where it is now, or nothing it owes is ever fetched.
        errands.push(Errand::Report {
            through: num - 1,
            holds: agenda.holds,
        });
    }
    errands.sort();
    errands.dedup();
    errands
}

/// What a group in configuration `after` does with the controllers' answer to
/// [`ctrler::api::Request::Next`]; nothing when it is not behind `after`.
pub fn entering(after: ConfigNum, next: &Config) -> Option<Command> {
    match next.num.checked_sub(after) {
        None | Some(0) => None,
        Some(1) => Some(Command::Enter(Enter::new(next))),
        Some(_) => Some(Command::Skip(Skip::new(after, next))),
    }
}

/// Where to go on with a shard; `None` when it is not arriving in this configuration (any more).
pub fn cursor(agenda: &Agenda, shard: ShardId, num: ConfigNum) -> Option<Cursor> {
    let arrival = agenda.arriving.iter().find(|a| a.shard == shard)?;
    (agenda.config == num).then(|| arrival.cursor.clone())
}

/// Shards given to a group in this configuration that it has at least asked for: others cannot
/// have arrived. `None` when none is given to it (any more).
pub fn given(agenda: &Agenda, to: GroupId, num: ConfigNum) -> Option<Vec<ShardId>> {
    if agenda.config != num || !agenda.leaving.iter().any(|d| d.to == to) {
        return None;
    }
    let frozen = agenda.leaving.iter().filter(|d| d.to == to && d.frozen);
    Some(frozen.map(|d| d.shard).collect())
}

/// What a group does about a question, once it is known that it is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answer this.
    Answer(Answer),
    /// Ask the machine this, and answer by [`pulled`], [`installed`] or [`arrived`].
    Query(Query),
}

/// Judges a question. `me`: this group, `None` while it is not born.
pub fn judge(ask: &Ask, me: Option<Party>) -> Step {
    if me != Some(ask.to) {
        return Step::Answer(Answer::Refused(format!(
            "meant for group {} born {:032x}; this is {}",
            ask.to.group,
            ask.to.birth,
            match me {
                Some(me) => format!("group {} born {:032x}", me.group, me.birth),
                None => "a group that is not born yet".to_owned(),
            }
        )));
    }
    let (num, by) = (ask.num, (ask.from.group, ask.from.birth));
    match &ask.what {
        What::Installed { shards } | What::Arrived { shards }
            if shards.len() > super::wire::MAX_SHARDS =>
        {
            Step::Answer(Answer::Refused(format!(
                "more than {} shards",
                super::wire::MAX_SHARDS
            )))
        }
        What::Pull { shard, from } => Step::Query(Query::Pull {
            shard: *shard,
            num,
            from: from.clone(),
            by,
        }),
        What::Installed { shards } => Step::Query(Query::Installed {
            shards: shards.clone(),
            num,
        }),
        What::Arrived { shards } => Step::Query(Query::Leaving {
            shards: shards.clone(),
            num,
            to: by,
        }),
    }
}

/// The answer to a Pull; `Err`: this command first, then ask the machine again.
pub fn pulled(reply: Pulled, shard: ShardId, num: ConfigNum) -> Result<Answer, Command> {
    Ok(match reply {
        Pulled::NotYet => Answer::NotYet,
        Pulled::Freeze => return Err(Command::Freeze { shard, num }),
        Pulled::Chunk(chunk) => Answer::Rows(chunk),
        Pulled::Gone => {
            world::mark!("mover: asked for a shard that is gone");
            Answer::Gone
        }
        Pulled::Foreign => {
            Answer::Refused(format!("shard {shard} does not go to this group in {num}"))
        }
    })
}

/// The commands that an answer leads to, in the group that asked; `asked` is its question.
pub fn answered(asked: &What, num: ConfigNum, answer: Answer) -> Vec<Command> {
    match (asked, answer) {
        (What::Pull { shard, from }, Answer::Rows(chunk)) => vec![Command::Install {
            shard: *shard,
            num,
            from: from.clone(),
            chunk,
        }],
        (What::Installed { shards: given }, Answer::Installed(mut shards)) => {
            shards.retain(|shard| given.contains(shard));
            releases(shards, num)
        }
        _ => Vec::new(),
    }
}

/// Whether the controllers' record of a group says that everything given to it up to this
/// configuration has arrived: the group itself may have left and been shut down since.
pub fn recorded(record: &Record, num: ConfigNum) -> bool {
    record.settled >= num
}

/// What the new owner tells the old one when a command has taken effect; the old one asks by
/// itself when this is lost.
pub fn notice(command: &Command) -> Option<What> {
    match command {
        Command::Install { shard, chunk, .. } if chunk.next.is_none() => Some(What::Arrived {
            shards: vec![*shard],
        }),
        _ => None,
    }
}

/// The commands that release shards.
pub fn releases(shards: Vec<ShardId>, num: ConfigNum) -> Vec<Command> {
    shards
        .into_iter()
        .map(|shard| Command::Release { shard, num })
        .collect()
}
