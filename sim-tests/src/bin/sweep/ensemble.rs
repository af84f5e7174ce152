//! What all runs of a sweep came to.

use crate::seed::Ran;
use sim_tests::campaign::marks;
use sim_tests::campaign::plan::Options;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// So many seeds must see every kind of fault come to something.
const MANY: u64 = 2000;

/// Sums over the runs that have ended.
#[derive(Default)]
pub struct Ensemble {
    /// Seeds run.
    pub seeds: u64,
    /// Seeds that failed, and how.
    pub failed: BTreeMap<u64, String>,
    /// Seeds run a second time.
    pub repeated: u64,
    /// CPU time of all runs of seeds.
    pub cpu: Duration,
    simulated_seconds: f64,
    /// The same of the runs of [`Ensemble::is_large`].
    large: Large,
    operations: u64,
    answered: u64,
    events: u64,
    /// Name → (times, seeds).
    faults: BTreeMap<String, (u64, u64)>,
    /// The same of those that came to something.
    effective: BTreeMap<String, (u64, u64)>,
    marks: BTreeMap<String, (u64, u64)>,
}

/// Runs of large clusters.
#[derive(Default)]
struct Large {
    seeds: u64,
    cpu: Duration,
    simulated_seconds: f64,
}

fn add(sums: &mut BTreeMap<String, (u64, u64)>, of_run: &BTreeMap<String, u64>) {
    for (name, times) in of_run.iter().filter(|(_, times)| **times > 0) {
        let sum = sums.entry(name.clone()).or_default();
        *sum = (sum.0 + times, sum.1 + 1);
    }
}

impl Ensemble {
    /// Three controllers, three groups of three and five clients, or more of each.
    fn is_large(options: &Options) -> bool {
        options.groups >= 3 && options.clients >= 5
    }

    /// Adds a run of a seed, in which these options were drawn.
    pub fn add(&mut self, run: &Ran, options: &Options) {
        self.seeds += 1;
        self.cpu += run.outcome.cpu;
        if let Some(summary) = &run.summary {
            if Self::is_large(options) {
                self.large.seeds += 1;
                self.large.cpu += run.outcome.cpu;
                self.large.simulated_seconds += summary.simulated_seconds;
            }
            self.simulated_seconds += summary.simulated_seconds;
            self.operations += summary.operations;
            self.answered += summary.answered;
            self.events += summary.events;
            add(&mut self.faults, &summary.faults);
            add(&mut self.effective, &summary.effective);
            add(&mut self.marks, &summary.marks);
        }
    }

    /// Expected marks that were never hit.
    pub fn missing(&self) -> Vec<&'static str> {
        let missing = |mark: &&&str| !self.marks.contains_key(**mark);
        marks::EXPECTED.iter().filter(missing).copied().collect()
    }

    /// Kinds of faults that were begun and never came to anything, when there were seeds enough to ask.
    pub fn idle(&self) -> Vec<&str> {
        let kinds = self.faults.keys().filter(|_| self.seeds >= MANY);
        let idle = kinds.filter(|kind| !self.effective.contains_key(*kind));
        idle.map(String::as_str).collect()
    }

    fn per_cpu(&self, what: f64) -> f64 {
        what / self.cpu.as_secs_f64().max(1e-9)
    }

    /// One line on the way.
    pub fn progress(&self, real: Duration, of: Option<u64>, left: Option<Duration>) -> String {
        let of = of.map_or(String::new(), |n| format!(" of {n}"));
        let left = left.map_or(String::new(), |d| format!(" · {} left", duration(d)));
        format!(
            "{} · {}{of} seeds · {} failed · {:.0} seeds per CPU-hour · {:.0} simulated s per CPU-second{left}",
            duration(real),
            self.seeds,
            self.failed.len(),
            self.per_cpu(self.seeds as f64) * 3600.0,
            self.per_cpu(self.simulated_seconds),
        )
    }

    /// The tables at the end.
    pub fn report(&self, real: Duration) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "\nseeds        {} in {}, {} of CPU time",
            self.seeds,
            duration(real),
            duration(self.cpu)
        );
        let _ = writeln!(
            text,
            "speed        {:.0} seeds per CPU-hour; {:.1} simulated seconds each",
            self.per_cpu(self.seeds as f64) * 3600.0,
            self.simulated_seconds / (self.seeds.max(1)) as f64
        );
        let _ = writeln!(
            text,
            "simulated    {}; {:.0} : 1 CPU time of one core, {:.0} : 1 real time",
            duration(Duration::from_secs_f64(self.simulated_seconds)),
            self.per_cpu(self.simulated_seconds),
            self.simulated_seconds / real.as_secs_f64().max(1e-9)
        );
        if self.large.seeds > 0 {
            let (large, cpu) = (&self.large, self.large.cpu.as_secs_f64().max(1e-9));
            let _ = writeln!(
                text,
                "large        {} of them 3 groups of 3 with 5 clients or more: {:.0} seeds per CPU-hour, \
                 {:.1} simulated seconds each, {:.0} : 1 CPU time",
                large.seeds,
                large.seeds as f64 / cpu * 3600.0,
                large.simulated_seconds / large.seeds as f64,
                large.simulated_seconds / cpu
            );
        }
        let _ = writeln!(
            text,
            "operations   {}, {} answered; {} events told by the servers",
            self.operations, self.answered, self.events
        );
        let _ = writeln!(text, "run twice    {} seeds (I22)", self.repeated);
        let _ = writeln!(text, "failed       {}", self.failed.len());
        table(&mut text, "faults begun", &self.faults, &[]);
        table(
            &mut text,
            "came to something",
            &self.effective,
            &self.idle(),
        );
        table(&mut text, "coverage marks", &self.marks, &self.missing());
        if !self.failed.is_empty() {
            let _ = writeln!(text, "\nfailed seeds");
            for (seed, how) in &self.failed {
                let _ = writeln!(text, "  {seed:>8}  {how}");
            }
        }
        text
    }
}

fn table(text: &mut String, title: &str, sums: &BTreeMap<String, (u64, u64)>, missing: &[&str]) {
    if sums.is_empty() && missing.is_empty() {
        return;
    }
    let names = sums
        .keys()
        .map(String::as_str)
        .chain(missing.iter().copied());
    let width = names
        .map(|n| n.chars().count())
        .chain([title.len()])
        .max()
        .unwrap_or(0);
    let _ = writeln!(text, "\n{title:width$}  {:>12}  {:>9}", "times", "seeds");
    for (name, (times, seeds)) in sums {
        let _ = writeln!(text, "{name:width$}  {times:>12}  {seeds:>9}");
    }
    for name in missing {
        let _ = writeln!(text, "{name:width$}  {:>12}  {:>9}", "NEVER", 0);
    }
}

/// `2 h 03 min`, `4 min 10 s`, `7 s`.
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s:02} s"),
        (h, m, _) => format!("{h} h {m:02} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sim_tests::campaign::record::Summary;
    use sim_tests::runner::{Outcome, Verdict};

    fn ran(fault: &str, mark: &str) -> Ran {
        Ran {
            outcome: Outcome {
                verdict: Verdict::Passed,
                output: String::new(),
                cpu: Duration::from_millis(500),
                wall: Duration::from_secs(1),
            },
            summary: Some(Summary {
                simulated_seconds: 60.0,
                operations: 10,
                answered: 9,
                faults: [(fault.into(), 2), ("never carried out".into(), 0)].into(),
                effective: [(fault.into(), 1)].into(),
                marks: [(mark.into(), 1)].into(),
                ..Summary::default()
            }),
            violation: None,
        }
    }

    #[test]
    fn a_fault_that_never_came_to_anything_is_noticed_in_many_seeds() {
        let mut ensemble = Ensemble::default();
        let mut run = ran("PowerCut", marks::EXPECTED[0]);
        run.summary.as_mut().expect("it has one").effective.clear();
        ensemble.add(&run, &Options::default());
        assert!(ensemble.idle().is_empty());
        ensemble.seeds = MANY;
        assert_eq!(ensemble.idle(), ["PowerCut"]);
        ensemble.add(&ran("PowerCut", marks::EXPECTED[0]), &Options::default());
        assert!(ensemble.idle().is_empty());
    }

    #[test]
    fn sums_of_two_runs() {
        let mut ensemble = Ensemble::default();
        let mark = marks::EXPECTED[0];
        let large = Options {
            groups: 3,
            clients: 5,
            ..Options::default()
        };
        let small = Options {
            groups: 2,
            ..large.clone()
        };
        ensemble.add(&ran("PowerCut", mark), &large);
        ensemble.add(&ran("PowerCut", mark), &small);
        assert_eq!(ensemble.missing(), marks::EXPECTED[1..]);
        let report = ensemble.report(Duration::from_secs(4));
        let squeezed = report.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "seeds 2 in 4 s, 1 s of CPU time",
            "7200 seeds per CPU-hour; 60.0 simulated seconds each",
            "simulated 2 min 00 s; 120 : 1 CPU time of one core, 30 : 1 real time",
            "large 1 of them 3 groups of 3 with 5 clients or more: 7200 seeds per CPU-hour, 60.0 \
             simulated seconds each, 120 : 1 CPU time",
            "operations 20, 18 answered",
            "faults begun times seeds PowerCut 4 2",
            "came to something times seeds PowerCut 2 2",
            &format!("{mark} 2 2"),
            &format!("{} NEVER 0", marks::EXPECTED[1]),
        ] {
            assert!(squeezed.contains(part), "no {part} in\n{report}");
        }
        assert!(!report.contains("never carried out"));
    }
}
