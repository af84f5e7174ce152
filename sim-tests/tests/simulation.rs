//! `cargo test` runs the simulation through this target.
//!
//! It is an ordinary program without `cfg(madsim)`. It has cargo build the tests of the packages
//! once more, in simulation mode (see `sim_tests::runner`), lists the tests found, and runs each in
//! its own process, once per seed.
//!
//! `MADSIM_TEST_SEED` (default 1) is the first seed and `MADSIM_TEST_NUM` (default 1) how many
//! consecutive ones each test is run under. A failing test prints the line that replays it.

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    suite::main()
}

#[cfg(not(madsim))]
mod suite {
    use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
    use sim_tests::runner::{self, Build, Executable, Run, Verdict};
    use std::path::Path;
    use std::process::ExitCode;
    use std::time::Duration;

    /// Real time for one test under one seed; a busy loop never ends in virtual time.
    const TIMEOUT: Duration = Duration::from_secs(300);

    pub fn main() -> ExitCode {
        let arguments = Arguments::from_args();
        match trials() {
            Ok((trials, _)) if trials.is_empty() => fail("no simulation test was found"),
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
        let what = Build::everything(&root, &target.join("sim"), release);
        let mut trials = Vec::new();
        for executable in runner::build(&what)? {
            for test in runner::list(&executable)? {
                let shown = format!("{}::{}", executable.target, test.name);
                let (executable, seeds) = (executable.clone(), seeds.clone());
                let run = move || run(&executable, &test.name, seeds);
                trials.push(Trial::test(shown, run).with_ignored_flag(test.ignored));
            }
        }
        Ok((trials, seeds))
    }

    fn run(executable: &Executable, test: &str, seeds: std::ops::Range<u64>) -> Result<(), Failed> {
        for seed in seeds {
            let outcome = runner::run(&Run {
                executable,
                test,
                seed,
                environment: &[],
                limit: TIMEOUT,
                cpu_limit: None,
            })?;
            let why = match outcome.verdict {
                Verdict::Passed => continue,
                Verdict::Failed(status) => status,
                Verdict::Endless => format!("no end after {} s of real time", TIMEOUT.as_secs()),
            };
            let replay = runner::replay_line(executable, test, seed);
            return Err(format!("{}\n{why}\nreplay: {replay}", outcome.output).into());
        }
        Ok(())
    }
}
