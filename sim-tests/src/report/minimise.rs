//! The smallest plan that still fails: delta debugging over the events of a plan.
//!
//! Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input (TSE 2002), algorithm
//! ddmin, then shorter durations, then single events once more. Failing is not monotone: fewer
//! faults change everything that is drawn afterwards, and a plan that has all it takes may need luck.
//! So between a first ddmin and a last one a random half of the events is tried under one seed after
//! another, and in the end what does not fail with its own seed is given [`OTHER_SEEDS`]. The result
//! is 1-minimal and not the minimum.

use crate::campaign::dice::Draw;
use crate::campaign::plan::{Event, Options, Plan};
use std::time::Duration;

/// The load is made no shorter than this.
const LEAST_LOAD_MS: u64 = 1000;

/// Seeds tried with a plan, in the end, besides its own.
const OTHER_SEEDS: u64 = 4;

/// Lists as short as this are not halved at random.
const FEW: usize = 4;
/// Random parts tried in a row without luck, of a half and then of three quarters of the events.
const TRIES: u32 = 40;
/// Parts of the limits after which the first ddmin, and the halving, give way.
const SHARES: (f64, f64) = (0.35, 0.7);

/// When to stop looking for a smaller plan.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Real time.
    pub time: Duration,
    /// Runs.
    pub runs: usize,
}

/// The outcome of a search.
#[derive(Clone, Debug, PartialEq)]
pub struct Minimised {
    /// The smallest plan found that fails.
    pub plan: Plan,
    /// Runs made.
    pub runs: usize,
    /// No single event can be left out. False: a limit came first.
    pub complete: bool,
}

/// Reduces `plan`, which fails, to one that still does.
///
/// `fails` runs a plan and tells whether it fails in the same way; what "the same" is, usually the
/// same invariant, is its business. `simpler` proposes plans with the same events that are simpler
/// in another respect (fewer operations, a shorter load), the simplest first: each that fails is
/// taken, and it is asked again.
pub fn minimise(
    plan: &Plan,
    limits: Limits,
    mut simpler: impl FnMut(&Plan) -> Vec<Plan>,
    fails: impl FnMut(&Plan) -> bool,
) -> Minimised {
    let mut search = Search::new(plan, limits, fails);
    let complete = search.all(&mut simpler).is_some();
    Minimised {
        runs: search.runs,
        plan: search.plan,
        complete,
    }
}

/// Plans with the same events and less to do for the clients: for [`minimise`].
pub fn less_load(plan: &Plan) -> Vec<Plan> {
    let with = |change: &dyn Fn(&mut Options)| {
        let mut simpler = plan.clone();
        change(&mut simpler.options);
        simpler
    };
    let simpler = [
        with(&|o| o.safety_only = true),
        with(&|o| o.load_ms = (o.load_ms / 2).max(LEAST_LOAD_MS.min(o.load_ms))),
        with(&|o| o.load_ms = (o.load_ms * 3 / 4).max(LEAST_LOAD_MS.min(o.load_ms))),
        with(&|o| o.clients = (o.clients / 2).max(1)),
        with(&|o| o.clients = (o.clients - 1).max(1)),
        with(&|o| o.padding = 0),
    ];
    simpler.into_iter().filter(|s| s != plan).collect()
}

struct Search<F> {
    plan: Plan,
    fails: F,
    runs: usize,
    /// The limits, and those of the present phase.
    whole: Limits,
    limits: Limits,
    since: std::time::Instant,
    /// Other seeds tried with each list of events.
    others: u64,
}

/// A step of the search; `None`: a limit was reached.
type Step<T> = Option<T>;

impl<F: FnMut(&Plan) -> bool> Search<F> {
    #[expect(clippy::disallowed_methods, reason = "a limit of real time")]
    fn new(plan: &Plan, limits: Limits, fails: F) -> Self {
        Search {
            plan: plan.clone(),
            fails,
            runs: 0,
            whole: limits,
            limits,
            since: std::time::Instant::now(),
            others: 0,
        }
    }

    fn all(&mut self, simpler: &mut impl FnMut(&Plan) -> Vec<Plan>) -> Step<()> {
        // What is simpler also runs faster, so it goes first; with fewer events, again.
        self.phase(SHARES.0);
        let _ = self.others(simpler).and_then(|()| self.events());
        self.phase(SHARES.1);
        let _ = self.halves();
        self.phase(1.0);
        self.others(simpler)?;
        self.events()?;
        self.durations()?;
        self.others(simpler)?;
        self.singles()?;
        self.others = OTHER_SEEDS;
        self.events()?;
        self.singles()
    }

    /// From now on a limit is reached at this part of it.
    fn phase(&mut self, share: f64) {
        self.limits = Limits {
            time: self.whole.time.mul_f64(share),
            runs: (self.whole.runs as f64 * share) as usize,
        };
    }

    /// Parts drawn at random, each under a seed of its own.
    fn halves(&mut self) -> Step<()> {
        let mut draw = Draw::new(self.plan.seed);
        let mut unlucky = 0;
        while self.plan.events.len() > FEW && unlucky < 2 * TRIES {
            let kept = if unlucky < TRIES { 50 } else { 75 };
            let mut events = self.plan.events.clone();
            events.retain(|_| draw.chance(kept));
            if events.len() == self.plan.events.len() {
                continue;
            }
            let candidate = Plan {
                other_seed: Some(draw.next() >> 32),
                events,
                ..self.plan.clone()
            };
            unlucky = match self.try_plan(candidate)? {
                true => 0,
                false => unlucky + 1,
            };
        }
        Some(())
    }

    /// Keeps `candidate` if it fails.
    fn try_plan(&mut self, candidate: Plan) -> Step<bool> {
        if self.runs >= self.limits.runs || self.since.elapsed() >= self.limits.time {
            return None;
        }
        self.runs += 1;
        let fails = (self.fails)(&candidate);
        if fails {
            self.plan = candidate;
        }
        Some(fails)
    }

    fn try_events(&mut self, events: Vec<Event>) -> Step<bool> {
        for other in 0..=self.others {
            let candidate = Plan {
                other_seed: match other {
                    0 => self.plan.other_seed,
                    _ => Some(self.plan.run_seed().wrapping_add(other)),
                },
                events: events.clone(),
                ..self.plan.clone()
            };
            if self.try_plan(candidate)? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// ddmin. The empty list goes first: many bugs need no fault at all.
    fn events(&mut self) -> Step<()> {
        if self.plan.events.is_empty() || self.try_events(Vec::new())? {
            return Some(());
        }
        let mut parts = 2;
        while self.plan.events.len() >= 2 {
            let length = self.plan.events.len().div_ceil(parts);
            if self.subset(length)? {
                parts = 2;
            } else if self.complement(length)? {
                parts = parts.saturating_sub(1).max(2);
            } else if length == 1 {
                break;
            } else {
                parts = (parts * 2).min(self.plan.events.len());
            }
        }
        Some(())
    }

    /// One part alone.
    fn subset(&mut self, length: usize) -> Step<bool> {
        let events = self.plan.events.clone();
        for part in events.chunks(length) {
            if part.len() < events.len() && self.try_events(part.to_vec())? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// All but one part; the last parts first, since later faults are more often beside the point.
    fn complement(&mut self, length: usize) -> Step<bool> {
        let events = self.plan.events.clone();
        let parts = events.len().div_ceil(length);
        // With two parts, a complement is the other part.
        if parts <= 2 && length > 1 {
            return Some(false);
        }
        for part in (0..parts).rev() {
            let (from, to) = (part * length, events.len().min((part + 1) * length));
            let rest = [&events[..from], &events[to..]].concat();
            if self.try_events(rest)? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Leaves out single events until none can be.
    fn singles(&mut self) -> Step<()> {
        while !self.plan.events.is_empty() && self.complement(1)? {}
        Some(())
    }

    /// Shortens what lasts: to a quarter if that still fails, else to a half, and again.
    fn durations(&mut self) -> Step<()> {
        for at in 0..self.plan.events.len() {
            let mut divisor = 4;
            while divisor >= 2 && self.plan.events[at].for_ms >= divisor {
                let mut events = self.plan.events.clone();
                events[at].for_ms /= divisor;
                if !self.try_events(events)? {
                    divisor /= 2;
                }
            }
        }
        Some(())
    }

    fn others(&mut self, simpler: &mut impl FnMut(&Plan) -> Vec<Plan>) -> Step<()> {
        'again: loop {
            for candidate in simpler(&self.plan) {
                if self.try_plan(candidate)? {
                    continue 'again;
                }
            }
            return Some(());
        }
    }
}

#[cfg(test)]
#[path = "minimise_tests.rs"]
mod tests;
