//! The command line of the kill matrix.

use super::{Effort, Row, Table, Tree};
use crate::mutants::{self, Mutant};
use crate::runner;
use clap::Parser;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
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
        for m in &asked {
            let star = if m.star { "★" } else { " " };
            // A reader that has seen enough (`| head`) is no error.
            let open = if m.tests.is_empty() {
                " OPEN: no test is named for it"
            } else {
                ""
            };
            let line = format!("{} {star} {} ({}){open}", m.id, m.what, m.seen);
            if writeln!(std::io::stdout(), "{line}").is_err() {
                break;
            }
        }
        return Ok(true);
    }
    let root = root()?;
    let (target, _) = runner::own_target_directory()?;
    let mut tree = Tree::new(&root, &target.join("mutants"))?;
    let effort = Effort {
        limit: Duration::from_secs(arguments.limit),
        campaign_only: arguments.campaign_only,
        named_only: arguments.named_only,
        minimise: Duration::from_secs(arguments.minimise),
    };
    if !arguments.no_baseline {
        tree.baseline(&asked, effort)?;
    }
    let (date, commit) = (said("date", &["+%F"]), commit(&root));
    let mut table = Table::read(&root);
    let (mut survivors, mut errors) = (Vec::new(), Vec::new());
    for mutant in &asked {
        let (kill, cpu_seconds) = match tree.kill(mutant, effort, arguments.pages.as_deref()) {
            Ok(ended) => ended,
            Err(why) => {
                println!("{}: ERROR: {why}", mutant.id);
                errors.push(mutant.id);
                continue;
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
                survivors.push(mutant.id);
            }
        }
        let rows = match arguments.campaign_only {
            true => &mut table.campaign,
            false => &mut table.all,
        };
        let row = Row {
            kill,
            cpu_seconds,
            date: date.clone(),
            commit: commit.clone(),
        };
        rows.insert(mutant.id.to_string(), row);
        if !arguments.no_write {
            table.write(&root)?;
        }
    }
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
