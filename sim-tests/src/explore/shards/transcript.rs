//! A way through the states, for a reader.

use super::group::all;
use super::message::{Msg, MsgId};
use super::model::{Action, Core, Model, Network, State};
use super::scenario::{letter, place};
use kv::machine::command::Command;
use kv::mover::wire::What;
use std::fmt::Write;

impl Model {
    /// The steps from a state on: what happens, where everything stands then, and what is sent.
    pub fn transcript(&mut self, first: State, path: &[Action]) -> String {
        let mut text = format!(
            "{}\n  0  {}",
            self.scenario.name(),
            self.standing(&first.core)
        );
        text.push_str(&self.sent(&[], &first));
        let mut state = first;
        for (n, action) in path.iter().enumerate() {
            let _ = write!(text, "\n{:3}  {}", n + 1, self.step(action));
            match self.act(&state, *action, Network::Keeps) {
                Err(reason) => {
                    let _ = write!(text, "\n     ✗ {reason}");
                    break;
                }
                Ok(None) => text.push_str("  (nothing changes)"),
                Ok(Some(next)) => {
                    let _ = write!(text, "\n     {}", self.standing(&next.core));
                    let before = self.messages.members(state.net);
                    text.push_str(&self.sent(&before, &next));
                    state = next;
                }
            }
        }
        text
    }

    fn step(&self, action: &Action) -> String {
        match action {
            Action::Apply(group, order) => {
                let command = show(self.groups.command(*order));
                format!("{} applies: {command}", letter((*group).into()))
            }
            Action::Report(msg) => format!("the controllers take in: {}", self.show(*msg)),
            Action::Ack(shard) => format!("the client has its next answer from shard {shard}"),
            Action::Configure => "the controllers make the next configuration".to_owned(),
            Action::ShutDown(group) => format!("{} is shut down", letter((*group).into())),
        }
    }

    fn sent(&self, before: &[MsgId], state: &State) -> String {
        let now = self.messages.members(state.net);
        let new = now.iter().filter(|m| !before.contains(m));
        let new: Vec<String> = new.map(|m| self.show(*m)).collect();
        match new.is_empty() {
            true => String::new(),
            false => format!("\n     under way: {}", new.join("; ")),
        }
    }

    fn show(&self, msg: MsgId) -> String {
        match self.messages.get(msg) {
            Msg::Order { group, order } => {
                format!(
                    "to {} {}",
                    letter(*group),
                    show(self.groups.command(*order))
                )
            }
            Msg::Report {
                group,
                through,
                holds,
            } => format!(
                "{} has settled {through} and holds {}",
                letter(*group),
                if *holds { "shards" } else { "nothing" }
            ),
            Msg::Ask(ask) => {
                let what = match &ask.what {
                    What::Pull { shard, from } if from.key.is_empty() => format!("Pull {shard}"),
                    What::Pull { shard, .. } => format!("Pull {shard}, the rest"),
                    What::Installed { shards } => format!("Installed {shards:?}?"),
                    What::Arrived { shards } => format!("Arrived {shards:?}"),
                };
                let (from, to) = (place(ask.from.group), place(ask.to.group));
                let (from, to) = (letter(from), letter(to));
                format!("{from} asks {to}: {what} of {}", ask.num)
            }
        }
    }

    fn standing(&self, core: &Core) -> String {
        let mut text = String::new();
        for group in all().filter(|g| self.script.takes_part(*g)) {
            let facts = self.groups.facts(core.groups[group]);
            let _ = write!(text, "{} in {}", letter(group), facts.agenda.config);
            if core.down[group] {
                text.push_str(", down");
            }
            for (shard, copy) in facts.copies.iter().enumerate() {
                let Some(copy) = copy else { continue };
                let found = match &copy.found {
                    Ok(found) => found.to_string(),
                    Err(wrong) => wrong.clone(),
                };
                let _ = write!(text, ", {shard}:{:?}", copy.state);
                if copy.frozen {
                    text.push_str("/frozen");
                }
                if copy.accepts {
                    text.push_str("/served");
                }
                let _ = write!(text, " with {found}");
            }
            for (shard, incarnation) in &facts.agenda.dead {
                let _ = write!(text, ", to sweep {shard} of {incarnation}");
            }
            let record = self.record(core, group);
            let _ = write!(text, " (record: {}", record.settled);
            if let Some(left) = record.left {
                let _ = write!(text, ", left in {left}, holds {}", record.holds);
            }
            text.push_str(") │ ");
        }
        let shards = self.groups.sessions().len();
        let _ = write!(
            text,
            "writes {:?}, acknowledged {:?}",
            &core.executed[..shards],
            &core.acked[..shards]
        );
        text
    }
}

/// A command in some words.
fn show(command: &Command) -> String {
    match command {
        Command::Enter(enter) => format!("Enter {}", enter.num),
        Command::Skip(skip) => format!("Skip {} to {}", skip.from + 1, skip.to),
        Command::Install {
            shard, num, chunk, ..
        } => {
            let rows = chunk.rows.len();
            let last = if chunk.next.is_none() {
                ", the last"
            } else {
                ""
            };
            format!("Install {shard} of {num} ({rows} rows{last})")
        }
        Command::Write { shard, seq, .. } => {
            format!("write {} of shard {shard}, acked {}", seq.seq, seq.acked)
        }
        Command::Freeze { shard, num } => format!("Freeze {shard} of {num}"),
        Command::Release { shard, num } => format!("Release {shard} of {num}"),
        Command::Sweep { shard, incarnation } => format!("Sweep {shard} of {incarnation}"),
        other => format!("{other:?}"),
    }
}
