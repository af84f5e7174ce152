//! Whole clusters under everything that can go wrong, drawn by the seed.
//!
//! `HOLDFAST_PLAN=FILE` runs a kept plan instead of the drawn one, `HOLDFAST_RECORD=FILE` writes the
//! whole run as JSON, `HOLDFAST_SUMMARY=FILE` its figures, `HOLDFAST_PAGE=FILE` its timeline, passed or
//! not. Without `HOLDFAST_RECORD` and `HOLDFAST_SUMMARY` a failing run is made
//! smaller (for at most [`MINIMISE`], or `HOLDFAST_MINIMISE=SECONDS`) and leaves its plan and a timeline.
#![cfg(madsim)]

use sim_tests::campaign::plan::Plan;
use sim_tests::campaign::record::Record;
use sim_tests::campaign::{draw, marks};
use sim_tests::report;
use sim_tests::report::minimise::{Limits, less_load, minimise};
use sim_tests::sim::campaign;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Real time for making a failing plan smaller.
const MINIMISE: Duration = Duration::from_secs(120);
/// Seeds of [`ensemble`]; those of two neighbouring seeds do not overlap.
const ENSEMBLE: u64 = 40;

/// What an environment variable says.
fn said(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|path| !path.is_empty())
}

fn write(path: &str, text: String) {
    std::fs::write(path, text).unwrap_or_else(|e| panic!("{path}: {e}"));
}

fn read(path: &Path) -> Plan {
    let shown = path.display();
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{shown}: {e}"));
    Plan::from_json(&text).unwrap_or_else(|e| panic!("{shown}: {e}"))
}

fn seed() -> u64 {
    let seed = std::env::var("MADSIM_TEST_SEED").ok();
    seed.and_then(|s| s.parse().ok()).unwrap_or(1)
}

/// Fails the test for a violation, after explaining it.
fn judge(record: &Record) {
    let Some(violation) = &record.violation else {
        return;
    };
    explain(record, &violation.invariant);
    panic!("{} is violated: {}", violation.invariant, violation.message);
}

/// A smaller plan that fails in the same way, and its timeline.
fn explain(record: &Record, invariant: &str) {
    // The runs below fail on purpose, again and again.
    std::panic::set_hook(Box::new(|_| {}));
    let fails = |plan: &Plan| {
        let found = campaign::run(&record.test, plan, false).violation;
        found.is_some_and(|v| v.invariant == invariant)
    };
    let seconds = said("HOLDFAST_MINIMISE").and_then(|s| s.parse().ok());
    let limits = Limits {
        time: seconds.map_or(MINIMISE, Duration::from_secs),
        runs: 1000,
    };
    let smaller = minimise(&record.plan, limits, less_load, fails);
    let whole = campaign::run(&record.test, &smaller.plan, true);
    let _ = std::panic::take_hook();
    println!(
        "from {} events to {} in {} runs{}",
        record.plan.events.len(),
        smaller.plan.events.len(),
        smaller.runs,
        if smaller.complete {
            ""
        } else {
            " (the time was up)"
        }
    );
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("failures");
    println!("{}", report::failure(&whole, &directory));
}

#[test]
fn campaign() {
    let plan = match said("HOLDFAST_PLAN") {
        Some(path) => read(Path::new(&path)),
        None => draw::plan(seed()),
    };
    plan.header().iter().for_each(|line| println!("{line}"));
    let (whole, summary) = (said("HOLDFAST_RECORD"), said("HOLDFAST_SUMMARY"));
    let page = said("HOLDFAST_PAGE");
    let record = campaign::run("campaign", &plan, whole.is_some() || page.is_some());
    println!("{:?}", record.summary);
    if let Some(path) = &whole {
        write(path, serde_json::to_string(&record).expect("plain data"));
    }
    if let Some(path) = &page {
        write(path, report::timeline::page(&record, None));
        println!("timeline:  {path}");
    }
    if let Some(path) = &summary {
        let told = serde_json::json!({"summary": record.summary, "violation": record.violation});
        write(path, told.to_string());
    }
    match (&record.violation, whole.or(summary)) {
        (Some(v), Some(_)) => panic!("{} is violated: {}", v.invariant, v.message),
        _ => judge(&record),
    }
}

/// Some of the seeds that nobody has looked at. All that is not rare must have happened in them.
#[test]
fn ensemble() {
    let mut hits: BTreeMap<String, u64> = BTreeMap::new();
    for n in 0..ENSEMBLE {
        let plan = draw::plan(seed() * 1_000_000 + n);
        let record = campaign::run("campaign", &plan, false);
        for (mark, times) in &record.summary.marks {
            *hits.entry(mark.clone()).or_default() += times;
        }
        judge(&record);
    }
    for (mark, times) in &hits {
        println!("{times:>9}  {mark}");
    }
    let missed = marks::missed(&hits);
    assert!(missed.is_empty(), "never in {ENSEMBLE} seeds: {missed:#?}");
}

/// Plans that once failed.
#[test]
fn kept_plans() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("regressions");
    let files =
        std::fs::read_dir(&directory).unwrap_or_else(|e| panic!("{}: {e}", directory.display()));
    let mut paths: Vec<_> = files
        .map(|f| f.expect("a readable directory").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
    paths.sort();
    for path in paths {
        println!("{}", path.display());
        judge(&campaign::run("campaign", &read(&path), false));
    }
}

/// The same plan twice in one process gives the same events.
#[test]
fn same_seed_same_run() {
    let plan = draw::plan(seed());
    let (one, two) = (
        campaign::run("campaign", &plan, true),
        campaign::run("campaign", &plan, true),
    );
    if let Some(difference) = report::divergence(&one, &two) {
        panic!("I22: seed {} does not replay: {difference}", plan.seed);
    }
    assert_eq!(one.summary, two.summary, "I22");
    judge(&one);
}
