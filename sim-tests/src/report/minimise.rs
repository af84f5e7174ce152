//! The smallest plan that still fails: delta debugging over the events of a plan.
//!
//! Zeller, Hildebrandt: Simplifying and Isolating Failure-Inducing Input (TSE 2002), algorithm
//! ddmin, then shorter durations, then single events once more. Failing is not monotone (fewer
//! faults change everything that is drawn afterwards), so the result is 1-minimal and not the
//! minimum; and what does not fail with its own seed is given [`OTHER_SEEDS`] in the end.

use crate::campaign::plan::{Event, Options, Plan};
use std::time::Duration;

/// The load is made no shorter than this.
const LEAST_LOAD_MS: u64 = 1000;

/// Seeds tried with a plan, in the end, besides its own.
const OTHER_SEEDS: u64 = 4;

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
            limits,
            since: std::time::Instant::now(),
            others: 0,
        }
    }

    fn all(&mut self, simpler: &mut impl FnMut(&Plan) -> Vec<Plan>) -> Step<()> {
        // What is simpler also runs faster, so it goes first; with fewer events, again.
        self.others(simpler)?;
        self.events()?;
        self.durations()?;
        self.others(simpler)?;
        self.singles()?;
        self.others = OTHER_SEEDS;
        self.events()?;
        self.singles()
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
                seed: self.plan.seed.wrapping_add(other),
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
mod tests {
    use super::*;
    use crate::campaign::fault::Fault;

    const FREE: Limits = Limits {
        time: Duration::from_secs(60),
        runs: 10_000,
    };

    fn plan(events: u64) -> Plan {
        let event = |i| Event {
            at_ms: 100 * i,
            for_ms: 1000 + i,
            fault: Fault::PowerCut,
        };
        Plan {
            seed: 7,
            events: (0..events).map(event).collect(),
            ..Plan::default()
        }
    }

    fn starts(plan: &Plan) -> Vec<u64> {
        plan.events.iter().map(|e| e.at_ms).collect()
    }

    fn none(_: &Plan) -> Vec<Plan> {
        Vec::new()
    }

    #[test]
    fn one_event_of_many() {
        let found = minimise(&plan(100), FREE, none, |p| starts(p).contains(&4200));
        assert_eq!(starts(&found.plan), [4200]);
        assert!(found.complete);
        assert!(found.runs < 70, "{} runs", found.runs);
    }

    #[test]
    fn two_events_that_are_needed_together() {
        for (a, b) in [(0, 9900), (4900, 5000), (300, 400), (0, 100), (9800, 9900)] {
            let fails = |p: &Plan| starts(p).contains(&a) && starts(p).contains(&b);
            let found = minimise(&plan(100), FREE, none, fails);
            assert_eq!(starts(&found.plan), [a, b]);
            assert!(found.complete);
            assert!(found.runs < 150, "{} runs", found.runs);
        }
    }

    #[test]
    fn every_third_event_is_needed() {
        let all: Vec<u64> = (0..12).map(|i| i * 300).collect();
        let found = minimise(&plan(36), FREE, none, |p| {
            all.iter().all(|at| starts(p).contains(at))
        });
        assert_eq!(starts(&found.plan), all);
    }

    /// Of three events it takes all under the drawn seed, and one under another.
    #[test]
    fn another_seed_needs_fewer_events() {
        let fails = |p: &Plan| p.events.len() == 3 || p.seed == 9 && starts(p) == [100];
        let found = minimise(&plan(3), FREE, none, fails);
        assert_eq!((found.plan.seed, starts(&found.plan)), (9, vec![100]));
    }

    #[test]
    fn no_event_is_needed() {
        let found = minimise(&plan(50), FREE, none, |_| true);
        assert_eq!((found.plan.events.len(), found.runs), (0, 1));
        let found = minimise(&plan(0), FREE, none, |_| true);
        assert_eq!((found.plan.events.len(), found.runs), (0, 0));
    }

    #[test]
    fn all_events_are_needed() {
        let found = minimise(&plan(5), FREE, none, |p| p.events.len() == 5);
        assert_eq!(found.plan.events.len(), 5);
        assert!(found.complete);
    }

    #[test]
    fn shorter_durations() {
        let fails = |p: &Plan| p.events.iter().any(|e| e.at_ms == 500 && e.for_ms >= 200);
        let found = minimise(&plan(20), FREE, none, fails);
        assert_eq!(starts(&found.plan), [500]);
        assert!((200..400).contains(&found.plan.events[0].for_ms));
    }

    #[test]
    fn simpler_in_another_respect() {
        // The seed stands for the number of operations.
        let simpler = |p: &Plan| {
            let fewer = |by| Plan {
                seed: p.seed - by,
                ..p.clone()
            };
            (1..=p.seed.min(3)).rev().map(fewer).collect()
        };
        let found = minimise(&plan(8), FREE, simpler, |p| {
            p.seed >= 2 && starts(p).contains(&300)
        });
        assert_eq!((found.plan.seed, starts(&found.plan)), (2, vec![300]));
    }

    #[test]
    fn less_load_until_it_is_needed() {
        let fails = |p: &Plan| p.options.load_ms >= 7000 && p.options.clients >= 2;
        let found = minimise(&plan(3), FREE, less_load, fails);
        assert_eq!(found.plan.events, []);
        assert!((7000..14_000).contains(&found.plan.options.load_ms));
        assert_eq!(found.plan.options.clients, 2);
        let found = minimise(&plan(0), FREE, less_load, |_| true);
        assert_eq!(less_load(&found.plan), []);
    }

    #[test]
    fn a_limit_ends_the_search_with_a_plan_that_fails() {
        for runs in 0..40 {
            let limits = Limits { runs, ..FREE };
            let fails = |p: &Plan| starts(p).contains(&100) && starts(p).contains(&3900);
            let found = minimise(&plan(40), limits, none, fails);
            assert!(fails(&found.plan));
            assert!(found.runs <= runs);
            assert!(!found.complete || found.plan.events.len() == 2);
        }
        let limits = Limits {
            time: Duration::ZERO,
            ..FREE
        };
        assert!(!minimise(&plan(3), limits, none, |_| true).complete);
    }
}
