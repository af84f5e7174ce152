//! The sweep: workers, progress, the verdict.

#![expect(
    clippy::disallowed_methods,
    reason = "it watches processes, in real time"
)]

use crate::ensemble::{Ensemble, duration};
use crate::failing;
use crate::seed::{Campaign, class};
use sim_tests::campaign::draw;
use sim_tests::report::minimise::Limits;
use sim_tests::runner::{self, Build, Executable};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One of so many seeds is run a second time and must do the same (I22).
const REPEAT_EVERY: u64 = 20;
/// Between two lines of progress, at least; at most while nothing ends.
const PROGRESS: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(60);
/// Failures of one class that are minimised; of more only the first page is written.
const MINIMISED_OF_A_CLASS: u64 = 2;
/// Failures of one class whose records are written.
const WRITTEN_OF_A_CLASS: u64 = 10;

/// Runs many seeds of the campaign, a process each, on all cores. Fails when a seed fails, when a
/// seed does not replay, or when a coverage mark was never hit.
#[derive(clap::Parser)]
pub struct Arguments {
    /// Seeds to run; without it and without --secs, 100
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "S", default_value_t = 1)]
    from: u64,
    /// Start no seed after so many seconds
    #[arg(long, value_name = "T")]
    secs: Option<u64>,
    /// Processes at a time; without it, one per core
    #[arg(long, value_name = "J")]
    jobs: Option<NonZeroUsize>,
    /// Where failures are written
    #[arg(long, value_name = "DIR", default_value = "sweep-failures")]
    out: PathBuf,
    /// How the simulation is built
    #[arg(long, value_enum, default_value_t = Profile::Release)]
    profile: Profile,
    /// Real time for one run (seconds)
    #[arg(long, value_name = "T", default_value_t = 120)]
    limit: u64,
    /// Real time for the search for a smaller plan, per failure (seconds)
    #[arg(long, value_name = "T", default_value_t = 600)]
    minimise: u64,
    /// Runs this executable of the campaign instead of building one
    #[arg(long, value_name = "FILE")]
    executable: Option<PathBuf>,
    /// Marks that were never hit are no failure (a few seeds cannot hit all)
    #[arg(long)]
    any_marks: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Profile {
    Release,
    Dev,
}

/// What the workers share.
struct Sweep {
    arguments: Arguments,
    campaign: Campaign,
    since: Instant,
    next: AtomicU64,
    stopped: Arc<AtomicBool>,
    ensemble: Mutex<Ensemble>,
    /// Seeds that failed after Ctrl-C: perhaps only because their run heard it too.
    unjudged: AtomicU64,
    /// Failures per class.
    classes: Mutex<BTreeMap<String, u64>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub fn main(arguments: Arguments) -> ExitCode {
    match run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(reason) => {
            eprintln!("sweep: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Arguments) -> Result<bool, String> {
    if arguments.seeds.is_none() && arguments.secs.is_none() {
        arguments.seeds = Some(100);
    }
    let (target, _) = runner::own_target_directory()?;
    let executable = executable(&arguments, &target)?;
    let scratch = target.join(format!("sweep-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).map_err(|e| format!("{}: {e}", scratch.display()))?;
    let cores = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let jobs = arguments.jobs.unwrap_or(cores).get();
    let sweep = Sweep {
        campaign: Campaign {
            executable,
            limit: Duration::from_secs(arguments.limit),
            scratch: scratch.clone(),
        },
        arguments,
        since: Instant::now(),
        next: AtomicU64::new(0),
        stopped: interrupts()?,
        ensemble: Mutex::default(),
        unjudged: AtomicU64::new(0),
        classes: Mutex::default(),
    };
    let working = AtomicU64::new(jobs as u64);
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                sweep.work();
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        sweep.watch(&working);
    });
    let _ = std::fs::remove_dir_all(&scratch);
    Ok(sweep.verdict())
}

/// The campaign, built or given.
fn executable(arguments: &Arguments, target: &Path) -> Result<Executable, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    if let Some(path) = &arguments.executable {
        let path = path.canonicalize();
        return Ok(Executable {
            package: env!("CARGO_PKG_NAME").into(),
            target: "campaign".into(),
            lib: false,
            path: path.map_err(|e| format!("--executable: {e}"))?,
            directory: directory.into(),
        });
    }
    let release = arguments.profile == Profile::Release;
    let root = directory.join("..");
    let what = Build::of_sim_tests(&root, &target.join("sim"), release, &["campaign"]);
    let built = runner::build(&what)?.into_iter().next();
    built.ok_or_else(|| "there is no campaign to run".into())
}

/// Set by Ctrl-C: no more seeds. The runs under way hear it too, and end.
fn interrupts() -> Result<Arc<AtomicBool>, String> {
    let stopped = Arc::new(AtomicBool::new(false));
    let heard = stopped.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            heard.store(true, Ordering::Relaxed);
            eprintln!("sweep: interrupted");
        }
    });
    // It is needed until the program ends.
    std::mem::forget(runtime);
    Ok(stopped)
}

impl Sweep {
    fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The next seed, if there is to be one.
    fn draw(&self) -> Option<u64> {
        let late = self
            .arguments
            .secs
            .is_some_and(|s| self.since.elapsed().as_secs() >= s);
        if late || self.stopped() {
            return None;
        }
        let place = self.next.fetch_add(1, Ordering::Relaxed);
        let more = self.arguments.seeds.is_none_or(|n| place < n);
        more.then(|| self.arguments.from.wrapping_add(place))
    }

    fn work(&self) {
        while let Some(seed) = self.draw() {
            if let Err(reason) = self.seed(seed) {
                self.failed(seed, &format!("cannot be judged: {reason}"));
            }
        }
    }

    fn failed(&self, seed: u64, how: &str) {
        if self.stopped() {
            self.unjudged.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let line = how.lines().next().unwrap_or_default();
        eprintln!("seed {seed} failed: {line}");
        lock(&self.ensemble).failed.insert(seed, line.into());
    }

    fn seed(&self, seed: u64) -> Result<(), String> {
        let ran = self.campaign.run(seed, None)?;
        if self.stopped() && ran.summary.is_none() {
            return Ok(());
        }
        lock(&self.ensemble).add(&ran, &draw::plan(seed).options);
        let directory = self.arguments.out.join(format!("seed-{seed}"));
        if let Some(violation) = &ran.violation {
            let class = class(violation);
            self.failed(
                seed,
                &format!("{}: {}", violation.invariant, violation.message),
            );
            let before = {
                let mut classes = lock(&self.classes);
                let count = classes.entry(class).or_insert(0);
                *count += 1;
                *count - 1
            };
            if before >= WRITTEN_OF_A_CLASS || self.stopped() {
                return Ok(());
            }
            let limits = Limits {
                time: Duration::from_secs(self.arguments.minimise),
                runs: if before < MINIMISED_OF_A_CLASS {
                    2000
                } else {
                    0
                },
            };
            let stopped = || self.stopped();
            match failing::write(
                &self.campaign,
                seed,
                &ran,
                violation,
                limits,
                stopped,
                &directory,
            ) {
                Ok(text) => eprintln!("{text}"),
                Err(reason) => eprintln!("seed {seed}: {reason}"),
            }
        } else if (seed.wrapping_sub(self.arguments.from)).is_multiple_of(REPEAT_EVERY) {
            let again = self.campaign.run(seed, None)?;
            if self.stopped() {
                return Ok(());
            }
            lock(&self.ensemble).repeated += 1;
            if again.summary != ran.summary {
                self.failed(seed, "I22: the second run differs from the first");
                eprintln!("{}", failing::divergence(&self.campaign, seed, &directory)?);
            }
        }
        Ok(())
    }

    /// Shows progress until the workers are done.
    fn watch(&self, working: &AtomicU64) {
        let (mut shown, mut seeds) = (Instant::now(), 0);
        while working.load(Ordering::Relaxed) > 0 {
            std::thread::sleep(Duration::from_millis(50));
            let ensemble = lock(&self.ensemble);
            let due = shown.elapsed() >= PROGRESS && ensemble.seeds > seeds;
            if due || shown.elapsed() >= QUIET {
                (shown, seeds) = (Instant::now(), ensemble.seeds);
                let real = self.since.elapsed();
                let left = self.left(real, ensemble.seeds);
                eprintln!("{}", ensemble.progress(real, self.arguments.seeds, left));
            }
        }
    }

    /// Time left, at the speed so far.
    fn left(&self, real: Duration, done: u64) -> Option<Duration> {
        let by_time = self
            .arguments
            .secs
            .map(|s| Duration::from_secs(s).saturating_sub(real));
        let by_seeds = self
            .arguments
            .seeds
            .filter(|_| done > 0)
            .map(|n| real.mul_f64(n.saturating_sub(done) as f64 / done as f64));
        match (by_time, by_seeds) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Prints and writes the tables; true: nothing failed.
    fn verdict(&self) -> bool {
        let ensemble = lock(&self.ensemble);
        let mut text = ensemble.report(self.since.elapsed());
        let missing = ensemble.missing().len();
        let marks = self.arguments.any_marks || missing == 0;
        let idle = ensemble.idle().len();
        let unjudged = self.unjudged.load(Ordering::Relaxed);
        let held =
            ensemble.failed.is_empty() && unjudged == 0 && ensemble.seeds > 0 && marks && idle == 0;
        let verdict = match (held, ensemble.failed.len()) {
            (true, _) => "held".to_owned(),
            (false, 0) if unjudged > 0 => {
                format!("{unjudged} seeds failed after the interruption and were not judged")
            }
            (false, 0) if missing > 0 && !marks => {
                format!("not enough: {missing} marks were never hit")
            }
            (false, 0) if idle > 0 => {
                format!("not enough: {idle} kinds of faults never came to anything")
            }
            (false, 0) => "no seed was run".to_owned(),
            (false, n) => format!("{n} seeds failed: see {}", self.arguments.out.display()),
        };
        let first = self.arguments.from;
        let interrupted = if self.stopped() { " (interrupted)" } else { "" };
        text += &format!(
            "\nsweep from seed {first}, {}: {verdict}{interrupted}\n",
            duration(self.since.elapsed())
        );
        print!("{text}");
        if !ensemble.failed.is_empty() {
            let path = self.arguments.out.join("sweep.txt");
            let _ = std::fs::create_dir_all(&self.arguments.out);
            if let Err(e) = std::fs::write(&path, &text) {
                eprintln!("{}: {e}", path.display());
            }
        }
        held
    }
}
