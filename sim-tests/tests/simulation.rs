//! `cargo test` runs the simulation through this target.
//!
//! It is an ordinary program without `cfg(madsim)`. It has cargo build the tests of the packages
//! once more, in simulation mode (see `sim_tests::runner`), lists the tests found, and runs each in
//! its own process, once per seed.
//!
//! `MADSIM_TEST_SEED` (default 1) is the first seed and `MADSIM_TEST_NUM` (default 1) how many
//! consecutive ones each test is run under. A failing test prints the line that replays it. Paths in
//! `HOLDFAST_PLAN`, `HOLDFAST_RECORD`, `HOLDFAST_SUMMARY` and `HOLDFAST_PAGE` are the caller's.

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    suite::main()
}

#[cfg(not(madsim))]
mod suite {
    use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
    use sim_tests::campaign::plan::Plan;
    use sim_tests::runner::{self, Build, Executable, Run, Verdict};
    use std::path::{Path, PathBuf};
    use std::process::ExitCode;
    use std::time::Duration;

    /// Real time for one test under one seed; a busy loop never ends in virtual time.
    const TIMEOUT: Duration = Duration::from_secs(300);

    pub fn main() -> ExitCode {
        let arguments = Arguments::from_args();
        match trials() {
            Ok((trials, _)) if trials.is_empty() => fail("no simulation test was found"),
            // Nothing that was run is nothing that has passed.
            Ok((trials, _)) if let Some(name) = unknown(&arguments, &trials) => fail(&format!(
                "no test is called {name} (-- --list names them all)"
            )),
            Ok((trials, seeds)) => {
                if !arguments.list {
                    let (count, last) = (trials.len(), seeds.end - 1);
                    eprintln!("simulation: {count} tests, seeds {}..={last}", seeds.start);
                }
                let conclusion: Conclusion = libtest_mimic::run(&arguments, trials);
                conclusion.exit_code()
            }
            Err(reason) => fail(&reason),
        }
    }

    /// The name that was asked for exactly, when there is no such test.
    fn unknown<'a>(arguments: &'a Arguments, trials: &[Trial]) -> Option<&'a str> {
        let name = arguments.filter.as_deref().filter(|_| arguments.exact)?;
        trials
            .iter()
            .all(|trial| trial.name() != name)
            .then_some(name)
    }

    /// The files of the caller's, where they are, for tests that run elsewhere.
    fn files(root: &Path) -> Result<Vec<(String, String)>, String> {
        let shell = std::env::var_os("PWD").map(PathBuf::from);
        let mut files = Vec::new();
        for (variable, must_exist) in runner::FILES {
            let Some(said) = std::env::var_os(variable).filter(|path| !path.is_empty()) else {
                continue;
            };
            let path = runner::resolve(said.as_ref(), must_exist, shell.as_deref(), root)
                .map_err(|e| format!("{variable}={}: {e}", said.display()))?;
            if variable == "HOLDFAST_PLAN" {
                let text = std::fs::read_to_string(&path).map_err(|e| e.to_string());
                text.and_then(|text| Plan::from_json(&text).map_err(|e| e.to_string()))
                    .map_err(|e| format!("{variable}={}: {e}", path.display()))?;
            }
            files.push((variable.into(), path.to_string_lossy().into_owned()));
        }
        Ok(files)
    }

    fn fail(reason: &str) -> ExitCode {
        eprintln!("simulation: {reason}");
        ExitCode::FAILURE
    }

    fn number(variable: &str, default: u64) -> Result<u64, String> {
        let Ok(text) = std::env::var(variable) else {
            return Ok(default);
        };
        let expected = format!(
            "{variable}={text}: expected a number from 0 to {}",
            u64::MAX
        );
        text.parse().map_err(|_| expected)
    }

    fn seeds() -> Result<std::ops::Range<u64>, String> {
        let first = number("MADSIM_TEST_SEED", 1)?;
        let count = number("MADSIM_TEST_NUM", 1)?.max(1);
        Ok(first..first.saturating_add(count))
    }

    fn trials() -> Result<(Vec<Trial>, std::ops::Range<u64>), String> {
        let seeds = seeds()?;
        let (target, release) = runner::own_target_directory()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let root = root
            .canonicalize()
            .map_err(|e| format!("{}: {e}", root.display()))?;
        let files = files(&root)?;
        let what = Build::everything(&root, &target.join("sim"), release);
        let mut trials = Vec::new();
        for executable in runner::build(&what)? {
            for test in runner::list(&executable)? {
                let shown = format!("{}::{}", executable.target, test.name);
                let (executable, seeds) = (executable.clone(), seeds.clone());
                let files = files.clone();
                let run = move || run(&executable, &test.name, seeds, &files);
                trials.push(Trial::test(shown, run).with_ignored_flag(test.ignored));
            }
        }
        Ok((trials, seeds))
    }

    fn run(
        executable: &Executable,
        test: &str,
        seeds: std::ops::Range<u64>,
        files: &[(String, String)],
    ) -> Result<(), Failed> {
        for seed in seeds {
            let outcome = runner::run(&Run {
                executable,
                test,
                seed,
                environment: files,
                limit: TIMEOUT,
                cpu_limit: None,
            })?;
            let why = match outcome.verdict {
                Verdict::Passed => continue,
                Verdict::Failed(status) => status,
                Verdict::Endless => format!("no end after {} s of real time", TIMEOUT.as_secs()),
            };
            let replay = runner::replay_line(&executable.target, test, seed, files);
            return Err(format!("{}\n{why}\nreplay: {replay}", outcome.output).into());
        }
        Ok(())
    }
}
