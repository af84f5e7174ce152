//! The command line of the kill matrix.

use super::{Alone, Bench, Effort, Row, Switch, Table};
use crate::mutants::{self, Mutant};
use crate::runner;
use clap::Parser;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Puts known bugs back, one at a time, and tells which test notices each.
#[derive(Parser)]
struct Arguments {
    /// Ids, or beginnings of ids; none: all.
    ids: Vec<String>,
    /// Only those that need an exact interleaving.
    #[arg(long)]
    stars: bool,
    /// Show them and run nothing.
    #[arg(long)]
    list: bool,
    /// Only see that they compile.
    #[arg(long, conflicts_with = "list")]
    check: bool,
    /// CPU seconds of tests for each.
    #[arg(long, default_value_t = 120)]
    limit: u64,
    /// The campaign alone: what its drawn faults notice, without any test written for it.
    #[arg(long, conflicts_with = "named_only")]
    campaign_only: bool,
    /// Only the tests that each names as most likely to notice.
    #[arg(long)]
    named_only: bool,
    /// Where a seed of the campaign that notices leaves its smaller plan and its timeline.
    #[arg(long, value_name = "DIR")]
    pages: Option<PathBuf>,
    /// Real time for the search for that smaller plan (seconds).
    #[arg(long, value_name = "T", default_value_t = 120)]
    minimise: u64,
    /// Mutants judged at a time; without it, one per core.
    #[arg(long, value_name = "J")]
    jobs: Option<NonZeroUsize>,
    /// Do not run the named tests on the unchanged tree first (what kills is verified there anyway).
    #[arg(long)]
    no_baseline: bool,
    /// Leave the table in the tree as it is.
    #[arg(long)]
    no_write: bool,
}

/// The program: see `src/bin/kill-matrix.rs`.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(why) => {
            eprintln!("kill-matrix: {why}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let asked = asked(arguments)?;
    if arguments.list {
        let switch = super::bench::switched(&root()?)?;
        for m in &asked {
            let star = if m.star { "★" } else { " " };
            // A reader that has seen enough (`| head`) is no error.
            let open = if m.tests.is_empty() {
                " OPEN: no test is named for it"
            } else {
                ""
            };
            let alone = if switch.numbers.contains_key(m.id) {
                ""
            } else {
                " (built alone)"
            };
            let line = format!("{} {star} {} ({}){open}{alone}", m.id, m.what, m.seen);
            if writeln!(std::io::stdout(), "{line}").is_err() {
                break;
            }
        }
        return Ok(true);
    }
    let root = root()?;
    let (target, _) = runner::own_target_directory()?;
    let place = target.join("mutants");
    let effort = Effort {
        limit: Duration::from_secs(arguments.limit),
        campaign_only: arguments.campaign_only,
        named_only: arguments.named_only,
        minimise: Duration::from_secs(arguments.minimise),
    };
    let switch = Switch::new(&root, &place.join("switched"))?;
    let (chosen, alone): (Vec<&Mutant>, Vec<&Mutant>) = asked.iter().partition(|m| switch.has(m));
    if arguments.check {
        switch.check()?;
        let tree = Alone::new(&root, &place)?;
        for mutant in &alone {
            tree.check(mutant)
                .map_err(|why| format!("{}: {why}", mutant.id))?;
        }
        println!("{} mutants compile", asked.len());
        return Ok(true);
    }
    eprintln!(
        "{} mutants behind one switch, {} built alone",
        chosen.len(),
        alone.len()
    );
    let record = Record {
        arguments,
        effort,
        date: said("date", &["+%F"]),
        commit: commit(&root),
        judged: Mutex::new(Judged {
            table: Table::read(&root),
            survivors: Vec::new(),
            errors: Vec::new(),
        }),
    };
    if !chosen.is_empty() {
        let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let jobs = arguments.jobs.unwrap_or(cores).get();
        record.judge_all(&switch, &chosen, jobs)?;
    }
    if !alone.is_empty() {
        // Its copy holds one at a time.
        record.judge_all(&Alone::new(&root, &place)?, &alone, 1)?;
    }
    let judged = lock(&record.judged);
    let (survivors, errors) = (&judged.survivors, &judged.errors);
    let killed = asked.len() - survivors.len() - errors.len();
    println!(
        "{killed} of {} killed; survived: {survivors:?}; errors: {errors:?}",
        asked.len()
    );
    match errors.is_empty() {
        true => Ok(survivors.is_empty()),
        false => Err("some could not be judged".into()),
    }
}

/// What is known so far.
struct Judged {
    table: Table,
    survivors: Vec<&'static str>,
    errors: Vec<&'static str>,
}

/// A run of this program.
struct Record<'a> {
    arguments: &'a Arguments,
    effort: Effort,
    date: String,
    commit: String,
    judged: Mutex<Judged>,
}

fn lock(judged: &Mutex<Judged>) -> MutexGuard<'_, Judged> {
    judged.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Record<'_> {
    /// Judges mutants, as many at a time as there are jobs.
    fn judge_all(
        &self,
        bench: &impl Bench,
        mutants: &[&Mutant],
        jobs: usize,
    ) -> Result<(), String> {
        if !self.arguments.no_baseline {
            super::baseline(bench, mutants, self.effort)?;
        }
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(mutant) = mutants.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.judge(bench, mutant)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            let ended = workers.into_iter().map(|worker| match worker.join() {
                Ok(ended) => ended,
                Err(_) => Err("a worker panicked".into()),
            });
            ended.collect()
        })
    }

    /// Errors: the table cannot be written.
    fn judge(&self, bench: &impl Bench, mutant: &Mutant) -> Result<(), String> {
        let ended = super::kill(bench, mutant, self.effort, self.arguments.pages.as_deref());
        let mut judged = lock(&self.judged);
        let (kill, cpu_seconds) = match ended {
            Ok(ended) => ended,
            Err(why) => {
                println!("{}: ERROR: {why}", mutant.id);
                judged.errors.push(mutant.id);
                return Ok(());
            }
        };
        match &kill {
            Some(kill) => println!(
                "{}: killed by {} under seed {} after {cpu_seconds:.1} CPU s: {}",
                mutant.id, kill.test, kill.seed, kill.complaint
            ),
            None => {
                println!(
                    "{}: SURVIVED {cpu_seconds:.1} CPU s: {}",
                    mutant.id, mutant.what
                );
                judged.survivors.push(mutant.id);
            }
        }
        let rows = match self.arguments.campaign_only {
            true => &mut judged.table.campaign,
            false => &mut judged.table.all,
        };
        let row = Row {
            kill,
            cpu_seconds,
            date: self.date.clone(),
            commit: self.commit.clone(),
        };
        rows.insert(mutant.id.to_string(), row);
        match self.arguments.no_write {
            true => Ok(()),
            false => judged.table.write(bench.root()),
        }
    }
}

/// The tree: what cargo was called for, or else where this was started.
fn root() -> Result<PathBuf, String> {
    let here = std::env::current_dir().map_err(|e| format!("the present directory: {e}"))?;
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let from = package.unwrap_or(here);
    let is_root = |dir: &&Path| dir.join("sim-tests/Cargo.toml").is_file();
    let found = from.ancestors().find(is_root).map(Path::to_path_buf);
    found.ok_or_else(|| format!("{} is not in a tree of this project", from.display()))
}

fn asked(arguments: &Arguments) -> Result<Vec<&'static Mutant>, String> {
    for id in &arguments.ids {
        if !mutants::all().any(|m| m.id.starts_with(id.as_str())) {
            return Err(format!("there is no mutant {id}: see --list"));
        }
    }
    let chosen = |m: &&Mutant| {
        let named = arguments.ids.is_empty() || arguments.ids.iter().any(|id| m.id.starts_with(id));
        named && (m.star || !arguments.stars)
    };
    Ok(mutants::all().filter(chosen).collect())
}

/// The commit, and whether the tree differs from it.
fn commit(root: &Path) -> String {
    let root = root.display().to_string();
    let git = |arguments: &[&str]| said("git", &[&["-C", root.as_str()], arguments].concat());
    let commit = git(&["rev-parse", "--short=10", "HEAD"]);
    let changed = git(&["status", "--porcelain", "--", "raft", "ctrler", "kv"]);
    match changed.is_empty() {
        true => commit,
        false => format!("{commit}+"),
    }
}

/// What a command says; "?" when it cannot be run.
fn said(command: &str, arguments: &[&str]) -> String {
    match Command::new(command).args(arguments).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().into()
        }
        _ => "?".into(),
    }
}
