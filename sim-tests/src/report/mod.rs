//! What a failing run gives back: the line that replays it, what was drawn, its faults as a list, a
//! smaller list that still fails, a picture, and for two runs that differ the first difference.

#[cfg(test)]
pub(crate) mod demo;
pub mod divergence;
pub mod minimise;
pub mod timeline;

use crate::campaign::plan::Plan;
use crate::campaign::record::Record;
use std::fmt::Write;
use std::path::{Path, PathBuf};

pub use divergence::divergence;

/// Longest message of a violation that is printed (characters).
const MESSAGE: usize = 4000;
/// Where plans that once failed are kept, and run again by `cargo test`.
pub const REGRESSIONS: &str = "sim-tests/regressions";

/// The variable in which the kill matrix names the bug that it has put back.
pub const BUG: &str = "HOLDFAST_BUG";

/// The line that runs a record's seed again.
pub fn replay_line(record: &Record) -> String {
    // The runner names a test with the file that it is in.
    let test = match record.test.contains("::") {
        true => record.test.clone(),
        false => format!("campaign::{}", record.test),
    };
    format!(
        "MADSIM_TEST_SEED={} cargo test -p sim-tests --test simulation -- --exact {test}",
        record.plan.seed
    )
}

/// The line that runs a record's very plan again, from the file that [`failure`] writes into
/// `directory` (which ends with a slash).
pub fn replay_plan_line(record: &Record, directory: &str) -> String {
    let name = file_name(record);
    let line = replay_line(record);
    format!("HOLDFAST_PLAN={directory}{name}.plan.json {line}")
}

/// The options of a plan, as names and values.
pub fn options(plan: &Plan) -> Vec<(String, String)> {
    match serde_json::to_value(&plan.options) {
        Ok(serde_json::Value::Object(options)) => options
            .into_iter()
            .map(|(name, value)| (name, value.to_string()))
            .collect(),
        other => vec![("options".into(), format!("{other:?}"))],
    }
}

/// `campaign-7`: the files of a run, without their endings.
pub fn file_name(record: &Record) -> String {
    let test = record.test.rsplit("::").next().unwrap_or_default();
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let test: String = test.chars().map(letter).collect();
    format!("{test}-{}", record.plan.seed)
}

/// Writes what a run leaves (`.json`: the record; `.plan.json`; `.html`) into `directory`, which is
/// made, and gives the text to print. A file that cannot be written is named in the text.
pub fn failure(record: &Record, directory: &Path) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}", replay_line(record));
    for line in lines(record) {
        let _ = writeln!(text, "{line}");
    }
    match write(record, directory) {
        Ok(page) => {
            let shown = directory
                .canonicalize()
                .unwrap_or_else(|_| directory.into());
            let shown = format!("{}/", shown.display());
            let plan = format!("{}.plan.json", file_name(record));
            let _ = writeln!(text, "timeline:  {}", page.display());
            let _ = writeln!(text, "this plan: {}", replay_plan_line(record, &shown));
            let _ = writeln!(text, "keep it:   cp {shown}{plan} {REGRESSIONS}/");
        }
        Err(reason) => {
            let _ = writeln!(text, "no timeline: {reason}");
        }
    }
    text
}

/// `seed 7`, or `seed 7 (run under 9)`.
fn seeds(record: &Record) -> String {
    let (drawn, run) = (record.plan.seed, record.plan.run_seed());
    match drawn == run {
        true => format!("seed {drawn}"),
        false => format!("seed {drawn} (run under {run})"),
    }
}

/// Options, events and violation, a line each.
fn lines(record: &Record) -> Vec<String> {
    let mut lines = vec![format!("{} of {}", seeds(record), record.test)];
    lines.push("options".into());
    for (name, value) in options(&record.plan) {
        lines.push(format!("  {name}: {value}"));
    }
    lines.push(format!("events ({})", record.plan.events.len()));
    lines.extend(record.plan.events.iter().map(|e| format!("  {e}")));
    if let Some(violation) = &record.violation {
        let message: String = violation.message.chars().take(MESSAGE).collect();
        lines.push(format!(
            "{} violated at {}.{:06} s: {message}",
            violation.invariant,
            violation.at_us / 1_000_000,
            violation.at_us % 1_000_000
        ));
    }
    lines
}

fn write(record: &Record, directory: &Path) -> Result<PathBuf, String> {
    let name = file_name(record);
    let failed = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    std::fs::create_dir_all(directory).map_err(|e| failed(directory, e))?;
    let put = |ending: &str, text: String| {
        let path = directory.join(format!("{name}.{ending}"));
        std::fs::write(&path, text).map_err(|e| failed(&path, e))?;
        Ok::<_, String>(path)
    };
    let json = serde_json::to_string(record).map_err(|e| e.to_string())?;
    put("json", json)?;
    put("plan.json", record.plan.to_json())?;
    let bug = std::env::var(BUG).ok();
    put("html", timeline::page(record, bug.as_deref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("holdfast-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_failure_is_written_and_told() {
        let record = demo::record();
        let directory = directory("report");
        let text = failure(&record, &directory);
        let read = |ending: &str| {
            std::fs::read_to_string(directory.join(format!("campaign-7.{ending}")))
                .expect("is there")
        };
        assert_eq!(
            serde_json::from_str::<Record>(&read("json")).expect("a record"),
            record
        );
        assert_eq!(
            Plan::from_json(&read("plan.json")).expect("a plan"),
            record.plan
        );
        assert_eq!(read("html"), timeline::page(&record, None));
        let replay = "MADSIM_TEST_SEED=7 cargo test -p sim-tests --test simulation -- --exact \
                      campaign::campaign";
        assert!(text.starts_with(&format!("{replay}\n")), "{text}");
        for part in [
            "  clients: 5",
            "PowerCut",
            "I8 violated at 48.000000 s: not linearizable",
            "campaign-7.html",
            &format!("campaign-7.plan.json {replay}"),
            REGRESSIONS,
        ] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        std::fs::remove_dir_all(directory).expect("is there");
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_told() {
        let file = directory("report-file");
        std::fs::write(&file, "").expect("writes");
        let text = failure(&demo::record(), &file.join("below"));
        assert!(
            text.contains("MADSIM_TEST_SEED=7") && text.contains("no timeline: "),
            "{text}"
        );
        std::fs::remove_file(file).expect("is there");
    }
}
