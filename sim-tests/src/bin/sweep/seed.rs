//! One run of one seed, and what it says of itself.

use sim_tests::campaign::plan::Plan;
use sim_tests::campaign::record::{Record, Summary, Violation};
use sim_tests::runner::{self, Executable, Outcome, Verdict};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The campaign's executable and how to run it.
pub struct Campaign {
    pub executable: Executable,
    /// CPU time for one run; of real time ten times as much, since the machine may be busy.
    pub limit: Duration,
    /// For files that a run writes; they are read and removed.
    pub scratch: PathBuf,
}

/// The test of the campaign's executable that is run.
const TEST: &str = "campaign";

/// What a run came to.
pub struct Ran {
    pub outcome: Outcome,
    /// `None`: it died before it could write any.
    pub summary: Option<Summary>,
    pub violation: Option<Violation>,
}

#[derive(serde::Deserialize)]
struct Told {
    summary: Summary,
    violation: Option<Violation>,
}

impl Campaign {
    /// Runs a seed under the plan that it draws, or under another.
    pub fn run(&self, seed: u64, plan: Option<&Plan>) -> Result<Ran, String> {
        let told = self.file("summary");
        let environment = [("HOLDFAST_SUMMARY", told.as_path())];
        let outcome = self.start(seed, plan, &environment)?;
        let text = std::fs::read_to_string(&told);
        let _ = std::fs::remove_file(&told);
        let told: Option<Told> = text.ok().and_then(|t| serde_json::from_str(&t).ok());
        let (summary, violation) = match told {
            Some(told) => (Some(told.summary), told.violation),
            None => (None, None),
        };
        let violation = violation.or_else(|| unsaid(&outcome));
        Ok(Ran {
            outcome,
            summary,
            violation,
        })
    }

    /// The same with the whole record. Errors: it left none, since it died or did not end.
    pub fn record(&self, seed: u64, plan: Option<&Plan>) -> Result<(Record, Outcome), String> {
        let file = self.file("record");
        let outcome = self.start(seed, plan, &[("HOLDFAST_RECORD", file.as_path())])?;
        let text = std::fs::read_to_string(&file);
        let _ = std::fs::remove_file(&file);
        let text = text.map_err(|_| format!("no record: {}", outcome.complaint()))?;
        let record = serde_json::from_str(&text).map_err(|e| format!("not a record: {e}"))?;
        Ok((record, outcome))
    }

    fn start(
        &self,
        seed: u64,
        plan: Option<&Plan>,
        files: &[(&str, &Path)],
    ) -> Result<Outcome, String> {
        let shown = |path: &Path| path.to_string_lossy().into_owned();
        let files = files
            .iter()
            .map(|(name, path)| (name.to_string(), shown(path)));
        let mut environment: Vec<(String, String)> = files.collect();
        let kept = self.file("plan");
        if let Some(plan) = plan {
            std::fs::write(&kept, plan.to_json())
                .map_err(|e| format!("{}: {e}", kept.display()))?;
            environment.push(("HOLDFAST_PLAN".into(), shown(&kept)));
        }
        let outcome = runner::run(&runner::Run {
            executable: &self.executable,
            test: TEST,
            seed,
            environment: &environment,
            limit: 10 * self.limit,
            cpu_limit: Some(self.limit),
        });
        if plan.is_some() {
            let _ = std::fs::remove_file(&kept);
        }
        outcome
    }

    fn file(&self, what: &str) -> PathBuf {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        self.scratch.join(format!("{what}-{serial}.json"))
    }
}

/// The violation of a run that could not name one.
fn unsaid(outcome: &Outcome) -> Option<Violation> {
    let message = match &outcome.verdict {
        Verdict::Passed => return None,
        Verdict::Endless => format!(
            "no end within {} s of CPU time, {} s of real time",
            outcome.cpu.as_secs(),
            outcome.wall.as_secs()
        ),
        Verdict::Failed(_) => outcome.complaint(),
    };
    Some(Violation {
        at_us: 0,
        invariant: "I20".into(),
        message,
    })
}

/// What makes two failures the same: the invariant, and where that is only "no panic" the message
/// without its numbers.
pub fn class(violation: &Violation) -> String {
    if violation.invariant != "I20" && violation.invariant != "?" {
        return violation.invariant.clone();
    }
    let words = violation.message.chars().filter(|c| !c.is_ascii_digit());
    let words: String = words.take(60).collect();
    format!("{}: {}", violation.invariant, words.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_failures() {
        let of = |invariant: &str, message: &str| {
            class(&Violation {
                at_us: 0,
                invariant: invariant.into(),
                message: message.into(),
            })
        };
        assert_eq!(of("I8", "key 1"), of("I8", "key 2"));
        assert_ne!(of("I8", "key 1"), of("I1", "key 1"));
        assert_eq!(
            of("I20", "index 17 is past 3"),
            of("I20", "index 4 is past 200")
        );
        assert_ne!(of("I20", "index 17 is past 3"), of("I20", "no leader"));
    }
}
