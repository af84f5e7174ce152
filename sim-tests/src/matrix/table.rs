//! The matrix as it is kept: data beside the page that people read.

use crate::mutants;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const DATA: &str = "sim-tests/kill-matrix.json";
const PAGE: &str = "sim-tests/KILL-MATRIX.md";
/// Longest complaint shown, characters.
const COMPLAINT: usize = 150;

/// What became of one mutant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What noticed it; `None`: nothing did.
    pub kill: Option<Kill>,
    /// CPU seconds of tests until then.
    pub cpu_seconds: f64,
    /// The day.
    pub date: String,
    /// The tree.
    pub commit: String,
}

/// What noticed a mutant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kill {
    /// Package, target and name.
    pub test: String,
    /// `MADSIM_TEST_SEED`.
    pub seed: u64,
    /// What the test said.
    pub complaint: String,
    /// Events left when the failing plan was made smaller, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
}

/// Rows by id: by all tests, and by the campaign alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// By all tests.
    pub all: BTreeMap<String, Row>,
    /// By the campaign alone.
    #[serde(default)]
    pub campaign: BTreeMap<String, Row>,
}

impl Table {
    /// What is kept in the tree; empty when there is nothing that can be read.
    pub fn read(root: &Path) -> Table {
        let text = std::fs::read_to_string(root.join(DATA)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Keeps it. Errors name the file.
    pub fn write(&self, root: &Path) -> Result<(), String> {
        let data = serde_json::to_string_pretty(self).map_err(|e| e.to_string())?;
        for (name, text) in [(DATA, data + "\n"), (PAGE, self.page())] {
            std::fs::write(root.join(name), text).map_err(|e| format!("{name}: {e}"))?;
        }
        Ok(())
    }

    /// The page.
    pub fn page(&self) -> String {
        let mut page = String::from(
            "# Kill matrix\n\nKnown bugs, put back one at a time by textual replacement on a copy of the tree, and the test\n\
             that noticed each. Written by `cargo run -p sim-tests --bin kill-matrix`; the replacements stand in\n\
             `sim-tests/src/mutants`. ★: shows only under an exact interleaving. \"Campaign alone\": whole clusters\n\
             under drawn faults, without any test written for the bug (`--campaign-only`): the seed, the CPU\n\
             seconds until then, and the events left when its plan was made smaller.\n\n",
        );
        for (rows, what) in [
            (&self.all, "All tests"),
            (&self.campaign, "The campaign alone"),
        ] {
            let (killed, run) = (
                rows.values().filter(|r| r.kill.is_some()).count(),
                rows.len(),
            );
            let star = mutants::all().filter(|m| m.star && rows.contains_key(m.id));
            let stars: Vec<_> = star.collect();
            let dead = stars.iter().filter(|m| rows[m.id].kill.is_some()).count();
            let _ = writeln!(
                page,
                "- {what}: {killed} of {run} killed; ★ {dead} of {}.",
                stars.len()
            );
        }
        page.push_str(
            "\n| id | | bug put back | seen in | killed by | seed | CPU s | what it said | campaign alone | run |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for mutant in mutants::all() {
            let row = self.all.get(mutant.id);
            let system = self.campaign.get(mutant.id);
            let Some(last) = row.or(system) else { continue };
            let kill = row.and_then(|r| r.kill.as_ref());
            let by = match (row, kill) {
                (None, _) => "–".into(),
                (Some(_), None) => "**survived**".into(),
                (Some(_), Some(kill)) => code(&kill.test),
            };
            let whole = match system {
                None => "–".into(),
                Some(Row {
                    kill: None,
                    cpu_seconds,
                    ..
                }) => format!("survived {cpu_seconds:.0} s"),
                Some(Row {
                    kill: Some(kill),
                    cpu_seconds,
                    ..
                }) => {
                    let events = kill.events.map(|n| format!(", {n} events"));
                    let invariant = kill.complaint.split(' ').next().unwrap_or_default();
                    format!(
                        "{invariant} seed {}, {cpu_seconds:.1} s{}",
                        kill.seed,
                        events.unwrap_or_default()
                    )
                }
            };
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {by} | {} | {} | {} | {whole} | {}, {} |",
                mutant.id,
                if mutant.star { "★" } else { "" },
                mutant.what,
                mutant.seen,
                kill.map_or(String::new(), |k| k.seed.to_string()),
                row.map_or(String::new(), |r| format!("{:.1}", r.cpu_seconds)),
                kill.map_or(String::new(), |k| short(&k.complaint)),
                last.date,
                last.commit,
            );
        }
        page
    }
}

fn code(test: &str) -> String {
    format!("`{test}`")
}

/// A complaint that fits into a cell.
pub(super) fn short(complaint: &str) -> String {
    let cut: String = complaint.chars().take(COMPLAINT).collect();
    let more = if cut.len() < complaint.len() {
        "…"
    } else {
        ""
    };
    format!("{cut}{more}")
        .replace('|', "\\|")
        .replace(['\n', '`'], " ")
}
