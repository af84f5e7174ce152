//! The kill matrix: known bugs put back one at a time, and what notices them.
//!
//! A mutant goes through stages, the cheapest first: the tests it names; unit tests, models and
//! exhaustive searches of the crates it changes; the scenarios of whole systems; the campaign. The
//! first test that fails kills it, if the same test under the same seed passes on the unchanged tree
//! (else this is an error, as is a mutant that does not compile).
//!
//! All mutants that can be are built once, into one tree, and a variable chooses among them when a
//! test starts ([`switch`]); without it the same executables are the unchanged tree. The others are
//! put into a copy one at a time and built each ([`tree`]).

mod bench;
pub mod program;
mod stages;
mod switch;
mod table;
mod tree;

pub use bench::{Alone, Bench, Switch};
pub use table::{Kill, Row, Table};

use crate::mutants::Mutant;
use crate::runner::{self, Run};
use bench::Subject;
use stages::Stage;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tree::target_of;

/// Real time for one run of one test.
const TIMEOUT: Duration = Duration::from_secs(600);

/// What a mutant is put through.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// CPU time of tests; building is not counted.
    pub limit: Duration,
    /// The campaign alone.
    pub campaign_only: bool,
    /// Only the tests that the mutant names.
    pub named_only: bool,
    /// Real time for the search for a smaller plan.
    pub minimise: Duration,
}

/// Tests run so far against one mutant.
#[derive(Default)]
struct Spent {
    cpu: Duration,
    runs: u64,
}

/// Runs the unchanged tree through the first stages of these mutants; all must pass. Errors say
/// what failed.
pub fn baseline(bench: &impl Bench, mutants: &[&Mutant], effort: Effort) -> Result<(), String> {
    let mut seen = Vec::new();
    for mutant in mutants {
        let named = match effort.campaign_only {
            true => vec![stages::campaign(1)],
            false => stages::named(mutant),
        };
        for stage in named {
            for target in &stage.targets {
                let clean = bench.clean(target)?;
                for test in chosen(&clean, &stage)? {
                    let key = (target.clone(), test.clone());
                    if !seen.contains(&key) {
                        must_pass(&clean, &test, 1)?;
                        seen.push(key);
                    }
                }
            }
            if effort.named_only {
                break; // the others are built when the first does not notice
            }
        }
    }
    eprintln!("baseline: {} tests pass on the unchanged tree", seen.len());
    Ok(())
}

fn must_pass(clean: &Subject, test: &str, seed: u64) -> Result<(), String> {
    let outcome = one(clean, test, seed, None, None)?;
    if outcome.passed() {
        return Ok(());
    }
    let (package, target) = target_of(&clean.executable);
    let complaint = outcome.complaint();
    Err(format!(
        "{package}/{target}::{test} under seed {seed} fails on the unchanged tree: {complaint}"
    ))
}

/// Puts a mutant through its stages. Errors: a stale replacement, a mutant that does not compile, a
/// test that fails on the unchanged tree as well.
///
/// `pages`: where a failing seed of the campaign leaves its plan, made smaller, and timeline.
pub fn kill(
    bench: &impl Bench,
    mutant: &Mutant,
    effort: Effort,
    pages: Option<&Path>,
) -> Result<(Option<Kill>, f64), String> {
    let mut all = Vec::new();
    if effort.campaign_only {
        all.push(stages::campaign(u64::MAX));
    } else {
        all.extend(stages::named(mutant));
        if !effort.named_only {
            all.extend(stages::models(bench.root(), mutant)?);
            all.extend(stages::simulation(bench.root(), mutant)?);
        }
    }
    let mut spent = Spent::default();
    for stage in all {
        if spent.cpu >= effort.limit.mul_f64(stage.share) {
            continue;
        }
        let subjects = bench.mutated(mutant, &stage.targets)?;
        let found = try_stage(&stage, &subjects, effort.limit, &mut spent)?;
        eprintln!(
            "{}: {} of {:?}: {} runs, {:.1} CPU s so far",
            mutant.id,
            stage.name,
            stage
                .targets
                .iter()
                .map(|t| t.1.as_str())
                .collect::<Vec<_>>(),
            spent.runs,
            spent.cpu.as_secs_f64()
        );
        if let Some((subject, mut kill)) = found {
            if let Some(pages) = pages.filter(|_| stage.name == stages::CAMPAIGN) {
                kill.events = explain(mutant, &subject, kill.seed, effort, pages)?;
            }
            let clean = bench.clean(&target_of(&subject.executable))?;
            let name = kill.test.split_once("::").map_or("", |(_, name)| name);
            must_pass(&clean, name, kill.seed)?;
            return Ok((Some(kill), spent.cpu.as_secs_f64()));
        }
    }
    Ok((None, spent.cpu.as_secs_f64()))
}

/// The tests of a stage in an executable.
fn chosen(subject: &Subject, stage: &Stage) -> Result<Vec<String>, String> {
    let executable = &subject.executable;
    let wanted = |name: &str| {
        stage.tests.is_empty() || stage.tests.iter().any(|begin| name.starts_with(begin))
    };
    let tests = runner::list(executable)?;
    // Long ones are there only for whoever asks for them.
    let only_long = !tests.is_empty() && tests.iter().all(|t| t.ignored);
    let names = tests.into_iter();
    let names = names.filter(|t| !t.ignored && wanted(&t.name));
    let names: Vec<String> = names.map(|t| t.name).collect();
    // A stage that runs nothing notices nothing, and would say that nothing is to be noticed.
    match (names.is_empty(), stage.tests.is_empty()) {
        (false, _) => Ok(names),
        (true, true) if only_long => Ok(names),
        (true, true) => Err(format!("{} has no tests", executable.target)),
        (true, false) => Err(format!(
            "{} has no test {:?}",
            executable.target, stage.tests
        )),
    }
}

fn try_stage(
    stage: &Stage,
    subjects: &[Subject],
    limit: Duration,
    spent: &mut Spent,
) -> Result<Option<(Subject, Kill)>, String> {
    let mut tests = Vec::new();
    for subject in subjects {
        for name in chosen(subject, stage)? {
            tests.push((subject, name));
        }
    }
    let share = limit.mul_f64(stage.share);
    for seed in stage.seeds.clone() {
        for (subject, test) in &tests {
            let Some(left) = share.checked_sub(spent.cpu).filter(|left| !left.is_zero()) else {
                return Ok(None);
            };
            let outcome = one(subject, test, seed, Some(left), None)?;
            spent.cpu += outcome.cpu;
            spent.runs += 1;
            // Ended at the limit of the whole, it may have been about to pass.
            let cut_short = outcome.verdict == runner::Verdict::Endless && outcome.cpu >= left;
            if !outcome.passed() && !cut_short {
                let (package, target) = target_of(&subject.executable);
                let kill = Kill {
                    test: format!("{package}/{target}::{test}"),
                    seed,
                    complaint: outcome.complaint(),
                    events: None,
                };
                return Ok(Some(((*subject).clone(), kill)));
            }
        }
    }
    Ok(None)
}

/// `explained`: what fails explains itself, with so much time for a smaller plan, and the page names
/// the bug.
fn one(
    subject: &Subject,
    test: &str,
    seed: u64,
    cpu_limit: Option<Duration>,
    explained: Option<(Duration, &str)>,
) -> Result<runner::Outcome, String> {
    // Mutants of one executable are judged side by side.
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let path = &subject.executable.path;
    let told = path.with_extension(format!("{}.{serial}.told.json", std::process::id()));
    let mut environment = match explained {
        None => vec![("HOLDFAST_SUMMARY".into(), told.to_string_lossy().into())],
        Some((time, bug)) => vec![
            ("HOLDFAST_MINIMISE".into(), time.as_secs().to_string()),
            (crate::report::BUG.into(), bug.into()),
        ],
    };
    environment.extend(subject.choice());
    let outcome = runner::run(&Run {
        executable: &subject.executable,
        test,
        seed,
        environment: &environment,
        limit: TIMEOUT,
        cpu_limit,
    });
    let _ = std::fs::remove_file(&told);
    outcome
}

/// Has a failing seed of the campaign explain itself, and keeps plan and timeline as `ID.plan.json`
/// and `ID.html`. The number of events left.
fn explain(
    mutant: &Mutant,
    subject: &Subject,
    seed: u64,
    effort: Effort,
    pages: &Path,
) -> Result<Option<u64>, String> {
    let bug = format!("{}, {}", mutant.id, mutant.what);
    let outcome = one(
        subject,
        stages::CAMPAIGN,
        seed,
        None,
        Some((effort.minimise, &bug)),
    )?;
    let line = outcome.output.lines().find(|l| l.starts_with("from "));
    let (Some(line), Some(page)) = (line, told(&outcome.output, "timeline:")) else {
        return Err(format!(
            "seed {seed} does not explain itself: {}",
            outcome.output
        ));
    };
    let said = |e: std::io::Error| format!("{}: {e}", pages.display());
    std::fs::create_dir_all(pages).map_err(said)?;
    let page = Path::new(page);
    for (from, to) in [("html", "html"), ("plan.json", "plan.json")] {
        let to = pages.join(format!("{}.{to}", mutant.id));
        std::fs::copy(page.with_extension(from), to).map_err(said)?;
    }
    eprintln!("{}: {line}", mutant.id);
    let events = line.split(" to ").nth(1).and_then(|t| t.split(' ').next());
    Ok(events.and_then(|n| n.parse().ok()))
}

/// What stands behind a word at the beginning of a line.
fn told<'a>(output: &'a str, word: &str) -> Option<&'a str> {
    let line = output.lines().find_map(|l| l.strip_prefix(word))?;
    Some(line.trim())
}
