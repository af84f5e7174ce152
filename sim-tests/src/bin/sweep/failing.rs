//! A seed that failed: its record, a smaller plan that still fails, and their pages.

use crate::seed::{Campaign, Ran, class};
use sim_tests::campaign::record::Violation;
use sim_tests::report::{self, minimise};
use std::path::Path;

/// Writes into `directory` what a failing run gives back: `drawn/` as the seed drew it, `minimised/`,
/// and `told.txt`, which is also returned. `stopped` ends the search for a smaller plan.
pub fn write(
    campaign: &Campaign,
    seed: u64,
    ran: &Ran,
    violation: &Violation,
    limits: minimise::Limits,
    stopped: impl Fn() -> bool,
    directory: &Path,
) -> Result<String, String> {
    let io = |e: std::io::Error| format!("{}: {e}", directory.display());
    std::fs::create_dir_all(directory).map_err(io)?;
    std::fs::write(directory.join("output.txt"), &ran.outcome.output).map_err(io)?;
    let (record, _) = campaign.record(seed, None)?;
    let mut text = report::failure(&record, &directory.join("drawn"));
    if record.violation.as_ref().map(class) != Some(class(violation)) {
        text += "the run with its record failed otherwise than the run without: see I22\n";
    } else if limits.runs > 0 {
        let wanted = class(violation);
        let fails = |plan: &_| {
            let same = |ran: Ran| ran.violation.as_ref().map(class) == Some(wanted.clone());
            !stopped() && campaign.run(seed, Some(plan)).is_ok_and(same)
        };
        let found = minimise::minimise(&record.plan, limits, minimise::less_load, fails);
        let (before, after) = (record.plan.events.len(), found.plan.events.len());
        let (runs, end) = (
            found.runs,
            if found.complete {
                "no event can be left out"
            } else {
                "a limit ended the search"
            },
        );
        text += &format!("\nminimised: {after} of {before} events, after {runs} runs; {end}\n");
        let (smaller, _) = campaign.record(seed, Some(&found.plan))?;
        text += &report::failure(&smaller, &directory.join("minimised"));
    }
    std::fs::write(directory.join("told.txt"), &text).map_err(io)?;
    Ok(text)
}

/// Two runs of one seed that differed: runs both again with their records and says where they part.
pub fn divergence(campaign: &Campaign, seed: u64, directory: &Path) -> Result<String, String> {
    let ((a, _), (b, _)) = (campaign.record(seed, None)?, campaign.record(seed, None)?);
    let text = match report::divergence(&a, &b) {
        Some(text) => format!("seed {seed} does not replay: {text}"),
        None => format!(
            "seed {seed} did not replay, but two runs with whole records are the same: run it more often\n"
        ),
    };
    report::failure(&a, &directory.join("first"));
    report::failure(&b, &directory.join("second"));
    let told = directory.join("told.txt");
    std::fs::write(&told, &text).map_err(|e| format!("{}: {e}", told.display()))?;
    Ok(text)
}
