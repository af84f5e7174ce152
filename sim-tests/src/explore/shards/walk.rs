//! The walk through all states; then, backwards from the end, whether it can be reached from
//! everywhere.

use super::group::Fixed;
use super::model::{Action, Core, Model, Network, State};
use super::scenario::Scenario;
use crate::explore::search::{self, Limits, Ordinal, Report, Spent};
use kv::machine::command::Command;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;
use world::clock::now;

const STUCK: &str = "liveness: with all lost that is under way here, the newest configuration is \
                     never reached, or something is owed for ever";

/// What was explored of a scenario.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The scenario.
    pub name: String,
    /// The walk. What is under way is a part of its states.
    pub report: Report,
    /// States without what is under way. From each of them the end can be reached, unless a
    /// broken promise says otherwise; `None`: not looked at.
    pub cores: Option<usize>,
    /// States of single groups, and commands that the machine applied to them.
    pub groups: (usize, u64),
    /// Different messages.
    pub messages: usize,
    /// Steps of each kind: whether the walk came to where it matters.
    pub marks: BTreeMap<&'static str, u64>,
    /// Real time, the way back included.
    pub took: Duration,
    /// A broken promise, and the shortest way to it.
    pub broken: Option<(String, String)>,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {}; {} states of a group, {} commands applied, {} messages; ",
            self.name, self.report, self.groups.0, self.groups.1, self.messages,
        )?;
        if let Some(cores) = self.cores {
            write!(
                f,
                "the end is within reach of all {cores} without messages; "
            )?;
        }
        write!(f, "{:.1} s in all", self.took.as_secs_f64())?;
        match &self.broken {
            Some((what, way)) => write!(f, "\nBROKEN: {what}\n{way}"),
            None => Ok(()),
        }
    }
}

/// Explores a scenario.
///
/// # Errors
/// The scenario is none; see [`super::scenario::Script::read`].
pub fn explore(
    scenario: &Scenario,
    limits: Limits,
    progress: impl FnMut(&Report),
) -> Result<Summary, String> {
    let began = now();
    let (model, first) = Model::new(scenario)?;
    let mut walk = Walk {
        model,
        first,
        cores: Vec::new(),
        ids: HashMap::default(),
        marks: BTreeMap::new(),
        wanted: None,
    };
    let report = search::breadth_first(&mut walk, limits, progress);
    let mut broken = report.broken.clone();
    let mut cores = None;
    if broken.is_none() {
        match walk.backwards(limits) {
            Back::All(count) => cores = Some(count),
            Back::TooMany => {}
            Back::Broken(what) => broken = Some((Vec::new(), what)),
            Back::Stuck(core) => {
                walk.wanted = Some(core);
                // The same walk, to a shortest way there; none: it is the first state.
                let again = search::breadth_first(&mut walk, limits, |_| {});
                broken = Some(again.broken.unwrap_or((Vec::new(), STUCK.to_owned())));
            }
        }
    }
    let broken = broken.map(|(way, what)| (what, walk.transcript(&way)));
    Ok(Summary {
        name: scenario.name(),
        report,
        cores,
        groups: (walk.model.groups.len(), walk.model.groups.applications),
        messages: walk.model.messages.len(),
        marks: walk.marks,
        took: began.elapsed(),
        broken,
    })
}

struct Walk {
    model: Model,
    first: State,
    /// States without what is under way.
    cores: Vec<Core>,
    ids: HashMap<Core, u32, Fixed>,
    marks: BTreeMap<&'static str, u64>,
    /// To be told as broken: nothing leads from here to the end.
    wanted: Option<Core>,
}

enum Back {
    All(usize),
    TooMany,
    Stuck(Core),
    Broken(String),
}

impl search::Model for Walk {
    type State = State;

    fn start(&mut self) -> State {
        let first = self.first;
        self.meet(&first.core);
        first
    }

    /// Nothing is counted: what bounds the space are the histories and the writes.
    fn spent(&self, _: &State) -> Spent {
        Spent::default()
    }

    fn next(&mut self, state: &State, into: &mut Vec<Result<State, String>>) {
        let mut steps = Vec::new();
        self.model.next(state, Network::Keeps, &mut steps);
        for (action, next) in steps {
            *self.marks.entry(self.kind(&action)).or_default() += 1;
            into.push(next.and_then(|next| self.judge(next)));
        }
    }
}

impl Walk {
    /// A state's number; true: met for the first time.
    fn meet(&mut self, core: &Core) -> (u32, bool) {
        if let Some(id) = self.ids.get(core) {
            return (*id, false);
        }
        let id = self.cores.len() as u32;
        self.cores.push(*core);
        self.ids.insert(*core, id);
        (id, true)
    }

    fn judge(&mut self, state: State) -> Result<State, String> {
        if self.wanted == Some(state.core) {
            return Err(STUCK.to_owned());
        }
        if self.meet(&state.core).1 {
            self.model.check(&state.core)?;
        }
        Ok(state)
    }

    /// From every state that was met, all that is under way lost, the end must be reachable by
    /// what the movers send from then on.
    fn backwards(&mut self, limits: Limits) -> Back {
        let mut edges: Vec<(u32, u32)> = Vec::new();
        let mut steps = Vec::new();
        let mut at = 0;
        while at < self.cores.len() {
            // More are met only where a limit cut the walk.
            if self.cores.len() > 2 * limits.states {
                return Back::TooMany;
            }
            let core = self.cores[at];
            steps.clear();
            if let Err(what) = self.model.forgetful(&core, &mut steps) {
                return Back::Broken(what);
            }
            for (_, next) in steps.drain(..) {
                match next {
                    Ok(next) => edges.push((self.meet(&next.core).0, at as u32)),
                    Err(what) => return Back::Broken(what),
                }
            }
            at += 1;
        }
        edges.sort_unstable();
        let mut good: Vec<bool> = self.cores.iter().map(|c| self.model.at_end(c)).collect();
        let mut work: Vec<u32> = (0..good.len() as u32)
            .filter(|c| good[*c as usize])
            .collect();
        while let Some(to) = work.pop() {
            let from = edges.partition_point(|(t, _)| *t < to);
            for (_, from) in edges[from..].iter().take_while(|(t, _)| *t == to) {
                if !std::mem::replace(&mut good[*from as usize], true) {
                    work.push(*from);
                }
            }
        }
        match good.iter().position(|good| !good) {
            None => Back::All(good.len()),
            // The first of them was met by the shortest way.
            Some(stuck) => Back::Stuck(self.cores[stuck]),
        }
    }

    fn kind(&self, action: &Action) -> &'static str {
        match action {
            Action::Apply(_, order) => match self.model.groups.command(*order) {
                Command::Write { .. } => "write",
                Command::Enter(_) => "enter",
                Command::Skip(_) => "skip",
                Command::Freeze { .. } => "freeze",
                Command::Install { .. } => "install",
                Command::Release { .. } => "release",
                Command::Sweep { .. } => "sweep",
                _ => "other",
            },
            Action::Report(_) => "report",
            Action::Ack(_) => "ack",
            Action::Configure => "configure",
            Action::ShutDown(_) => "shut down",
        }
    }

    fn transcript(&mut self, way: &[Ordinal]) -> String {
        let (mut path, mut state) = (Vec::new(), self.first);
        for ordinal in way {
            let mut steps = Vec::new();
            self.model.next(&state, Network::Keeps, &mut steps);
            let Some((action, next)) = steps.into_iter().nth(usize::from(*ordinal)) else {
                break;
            };
            path.push(action);
            match next {
                Ok(next) => state = next,
                Err(_) => break,
            }
        }
        self.model.transcript(self.first, &path)
    }
}
