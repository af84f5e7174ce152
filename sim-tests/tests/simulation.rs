//! `cargo test` runs the simulation through this target.
//!
//! It is an ordinary program without `cfg(madsim)`. It has cargo build the tests of the packages
//! below once more, with `--cfg madsim` and into a target directory of its own (the path of a final
//! binary is the same in both modes), lists the tests found, and runs each in its own process, once
//! per seed. A process per test also keeps one run's leftovers out of the next, which replay needs.
//!
//! `MADSIM_TEST_SEED` (default 1) is the first seed and `MADSIM_TEST_NUM` (default 1) how many
//! consecutive ones each test is run under. A failing test prints the line that replays it.

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    runner::main()
}

#[cfg(not(madsim))]
#[expect(
    clippy::disallowed_methods,
    reason = "it watches processes, in real time"
)]
mod runner {
    use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::process::{Command, ExitCode, Stdio};
    use std::time::{Duration, Instant};

    /// Packages whose tests run in simulation.
    const PACKAGES: &[&str] = &["world", "raft", "ctrler", "kv", "sim-tests"];
    /// Real time for one test under one seed; a busy loop never ends in virtual time.
    const TIMEOUT: Duration = Duration::from_secs(300);
    /// Output kept of a failed test, from its end.
    const KEEP_OUTPUT: usize = 64 << 10;

    pub fn main() -> ExitCode {
        let arguments = Arguments::from_args();
        let seeds = match seeds() {
            Ok(seeds) => seeds,
            Err(reason) => return fail(&reason),
        };
        let executables = match build() {
            Ok(executables) => executables,
            Err(reason) => return fail(&reason),
        };
        let mut trials = Vec::new();
        for executable in executables {
            match list(&executable) {
                Ok(tests) => {
                    for (name, ignored) in tests {
                        let shown = format!("{}::{name}", executable.target);
                        let (executable, seeds) = (executable.clone(), seeds.clone());
                        let run = move || run(&executable, &name, seeds);
                        trials.push(Trial::test(shown, run).with_ignored_flag(ignored));
                    }
                }
                Err(reason) => return fail(&reason),
            }
        }
        if trials.is_empty() {
            return fail("no simulation test was found");
        }
        if !arguments.list {
            let count = trials.len();
            eprintln!(
                "simulation: {count} tests, seeds {}..={}",
                seeds.start,
                seeds.end - 1
            );
        }
        let conclusion: Conclusion = libtest_mimic::run(&arguments, trials);
        conclusion.exit_code()
    }

    fn fail(reason: &str) -> ExitCode {
        eprintln!("simulation: {reason}");
        ExitCode::FAILURE
    }

    fn number(variable: &str, default: u64) -> Result<u64, String> {
        match std::env::var(variable) {
            Ok(text) => text.parse().map_err(|_| {
                format!(
                    "{variable}={text}: expected a number from 0 to {}",
                    u64::MAX
                )
            }),
            Err(_) => Ok(default),
        }
    }

    fn seeds() -> Result<std::ops::Range<u64>, String> {
        let first = number("MADSIM_TEST_SEED", 1)?;
        let count = number("MADSIM_TEST_NUM", 1)?.max(1);
        Ok(first..first.saturating_add(count))
    }

    #[derive(Clone)]
    struct Executable {
        package: String,
        target: String,
        path: PathBuf,
    }

    /// The target directory this very program lies in: `<target>/<profile>/deps/<name>`.
    fn target_directory() -> Result<(PathBuf, bool), String> {
        let own = std::env::current_exe().map_err(|e| format!("where am I? {e}"))?;
        let mut up = own.ancestors().skip(2);
        let (profile, target) = (up.next(), up.next());
        match (profile.and_then(Path::file_name), target) {
            (Some(profile), Some(target)) => Ok((target.join("sim"), profile == "release")),
            _ => Err(format!("{} is not in a target directory", own.display())),
        }
    }

    fn build() -> Result<Vec<Executable>, String> {
        let (directory, release) = target_directory()?;
        let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let mut command = Command::new(cargo);
        command
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args([
                "test",
                "--no-run",
                "--message-format=json-render-diagnostics",
            ])
            .arg("--target-dir")
            .arg(&directory)
            .env("RUSTFLAGS", format!("{flags} --cfg madsim"))
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .stdin(Stdio::null())
            .stderr(Stdio::inherit());
        if release {
            command.arg("--release");
        }
        for package in PACKAGES {
            command.args(["--package", package]);
        }
        // Doc tests and binaries have no place in the simulation.
        command.args(["--lib", "--tests"]);
        let output = command
            .output()
            .map_err(|e| format!("cannot run cargo: {e}"))?;
        if !output.status.success() {
            return Err("the simulation does not build (see above)".into());
        }
        let mut executables = Vec::new();
        for line in output.stdout.split(|b| *b == b'\n') {
            let Ok(message) = serde_json::from_slice::<serde_json::Value>(line) else {
                continue;
            };
            let path = message["executable"].as_str();
            if message["reason"] == "compiler-artifact"
                && message["profile"]["test"] == true
                && let (Some(path), Some(target)) = (path, message["target"]["name"].as_str())
                && target != "simulation"
                && message["target"]["kind"][0] != "bin"
            {
                let package = message["package_id"].as_str().unwrap_or_default();
                let package = package.rsplit(['/', '#']).find(|part| !part.contains('@'));
                executables.push(Executable {
                    package: package
                        .unwrap_or_default()
                        .split('#')
                        .next()
                        .unwrap_or_default()
                        .into(),
                    target: target.into(),
                    path: path.into(),
                });
            }
        }
        executables.sort_by(|a, b| (&a.package, &a.target).cmp(&(&b.package, &b.target)));
        Ok(executables)
    }

    /// Names of the tests, and whether each is ignored by default.
    fn list(executable: &Executable) -> Result<Vec<(String, bool)>, String> {
        let listing = |extra: &[&str]| -> Result<Vec<String>, String> {
            let output = Command::new(&executable.path)
                .args(["--list", "--format", "terse"])
                .args(extra)
                .stdin(Stdio::null())
                .output()
                .map_err(|e| format!("{}: {e}", executable.path.display()))?;
            let text = String::from_utf8_lossy(&output.stdout);
            Ok(text
                .lines()
                .filter_map(|l| l.strip_suffix(": test"))
                .map(String::from)
                .collect())
        };
        let ignored = listing(&["--ignored"])?;
        Ok(listing(&[])?
            .into_iter()
            .map(|n| (n.clone(), ignored.contains(&n)))
            .collect())
    }

    fn run(executable: &Executable, name: &str, seeds: std::ops::Range<u64>) -> Result<(), Failed> {
        for seed in seeds {
            run_seed(executable, name, seed)?;
        }
        Ok(())
    }

    fn run_seed(executable: &Executable, name: &str, seed: u64) -> Result<(), Failed> {
        let output = executable
            .path
            .with_extension(format!("{}.{seed}.out", name.replace(':', "_")));
        let open = || -> std::io::Result<(Stdio, Stdio)> {
            let file = File::create(&output)?;
            Ok((Stdio::from(file.try_clone()?), Stdio::from(file)))
        };
        let (stdout, stderr) = open().map_err(|e| format!("{}: {e}", output.display()))?;
        let mut child = Command::new(&executable.path)
            .args(["--exact", name, "--nocapture", "--include-ignored"])
            .env("MADSIM_TEST_SEED", seed.to_string())
            .env_remove("MADSIM_TEST_NUM")
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .map_err(|e| format!("{}: {e}", executable.path.display()))?;
        let since = Instant::now();
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break Ok(status),
                Ok(None) if since.elapsed() > TIMEOUT => {
                    let _ = child.kill();
                    let _ = child.wait();
                    break Err(format!("no end after {} s of real time", TIMEOUT.as_secs()));
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => break Err(e.to_string()),
            }
        };
        let why = match status {
            Ok(status) if status.success() => {
                let _ = std::fs::remove_file(&output);
                return Ok(());
            }
            Ok(status) => status.to_string(),
            Err(reason) => reason,
        };
        let text = std::fs::read(&output).unwrap_or_default();
        let _ = std::fs::remove_file(&output);
        let tail =
            String::from_utf8_lossy(&text[text.len().saturating_sub(KEEP_OUTPUT)..]).into_owned();
        Err(format!(
            "{tail}\n{why}\nreplay: MADSIM_TEST_SEED={seed} cargo test -p sim-tests --test simulation -- \
             --exact {}::{name}",
            executable.target
        )
        .into())
    }
}
