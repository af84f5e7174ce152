//! Building and running the simulation's tests from an ordinary program.
//!
//! The test executables are built by cargo with `--cfg madsim` into a target directory of their own
//! (the path of a final binary is the same in both modes), and each test runs in a process of its
//! own, once per seed: one run's leftovers in thread-locals must not reach the next, or it would not
//! replay. `cargo test`, the kill matrix and the sweep all go through here.

#![expect(
    clippy::disallowed_methods,
    reason = "it watches processes, in real time"
)]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Packages whose tests run in simulation.
pub const PACKAGES: &[&str] = &["world", "raft", "ctrler", "kv", "sim-tests"];
/// Output kept of a test, from its end.
pub const KEEP_OUTPUT: u64 = 64 << 10;
/// The unit of `/proc/PID/stat` (USER_HZ, which is 100 on every Linux).
const TICK: Duration = Duration::from_millis(10);

/// What to build, and where.
#[derive(Clone, Debug)]
pub struct Build {
    /// The workspace.
    pub root: PathBuf,
    /// Its target directory for the simulation.
    pub target: PathBuf,
    /// With `--cfg madsim`; else for the real world.
    pub simulated: bool,
    /// With optimisation, as `--release`; the core's own assertions stay on.
    pub release: bool,
    /// Packages to select; unification of features depends on it, so keep it the same.
    pub packages: Vec<String>,
    /// Integration tests by name; `None`: all of the packages selected.
    pub tests: Option<Vec<String>>,
    /// Unit tests of the libraries too.
    pub lib: bool,
}

impl Build {
    /// Every simulation test of the workspace at `root`.
    pub fn everything(root: &Path, target: &Path, release: bool) -> Self {
        Build {
            root: root.into(),
            target: target.into(),
            simulated: true,
            release,
            packages: PACKAGES.iter().map(|p| p.to_string()).collect(),
            tests: None,
            lib: true,
        }
    }

    /// Some integration tests of `sim-tests`, and nothing else.
    pub fn of_sim_tests(root: &Path, target: &Path, release: bool, tests: &[&str]) -> Self {
        Build {
            packages: vec!["sim-tests".into()],
            tests: Some(tests.iter().map(|t| t.to_string()).collect()),
            lib: false,
            ..Build::everything(root, target, release)
        }
    }
}

/// A test executable of the simulation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Executable {
    /// Its package.
    pub package: String,
    /// Its target: the name of the test file, or of the library.
    pub target: String,
    /// Unit tests of a library.
    pub lib: bool,
    /// Where it is.
    pub path: PathBuf,
    /// The package's directory, in which it runs.
    pub directory: PathBuf,
}

/// A test in an executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// Its path inside the executable.
    pub name: String,
    /// Runs only when asked for.
    pub ignored: bool,
}

/// One run of one test.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where the test is.
    pub executable: &'a Executable,
    /// Its name.
    pub test: &'a str,
    /// `MADSIM_TEST_SEED`.
    pub seed: u64,
    /// More of its environment.
    pub environment: &'a [(String, String)],
    /// Real time after which it is ended: a busy loop never ends in virtual time.
    pub limit: Duration,
    /// The same of its CPU time.
    pub cpu_limit: Option<Duration>,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passed.
    Passed,
    /// It failed: the process's exit status.
    Failed(String),
    /// It was ended at its limit of real or CPU time.
    Endless,
}

/// What a run gave.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// The last [`KEEP_OUTPUT`] bytes of what it printed.
    pub output: String,
    /// CPU time of the process, to the hundredth of a second (real time where `/proc` is missing).
    pub cpu: Duration,
    /// Real time.
    pub wall: Duration,
}

impl Outcome {
    /// It passed.
    pub fn passed(&self) -> bool {
        self.verdict == Verdict::Passed
    }

    /// The first panic's message, as one line; else how it ended.
    pub fn complaint(&self) -> String {
        let mut lines = self.output.lines();
        if lines.any(|l| l.contains("panicked at")) {
            let message: Vec<&str> = lines
                .take_while(|l| !l.starts_with("note: ") && !l.starts_with("stack backtrace"))
                .map(str::trim)
                .filter(|l| !l.is_empty())
                .take(8)
                .collect();
            if !message.is_empty() {
                return message.join(" ");
            }
        }
        match &self.verdict {
            Verdict::Passed => "passed".into(),
            Verdict::Failed(status) => status.clone(),
            Verdict::Endless => "no end within its limit of time".into(),
        }
    }
}

/// The line that repeats a run, with the variables that it was run under.
pub fn replay_line(
    target: &str,
    test: &str,
    seed: u64,
    environment: &[(String, String)],
) -> String {
    // What it writes is nothing that it depends on; only the campaign reads a plan.
    let reads = |name: &str| target == "campaign" && FILES.contains(&(name, true));
    let variables = environment.iter().filter(|(name, _)| reads(name));
    let variables: String = variables
        .map(|(name, value)| format!("{name}={value} "))
        .collect();
    format!(
        "{variables}MADSIM_TEST_SEED={seed} cargo test -p sim-tests --test simulation -- --exact \
         {target}::{test}"
    )
}

/// Whether a test that was asked for by its whole name is none of these.
pub fn is_unknown<'a>(name: &str, mut tests: impl Iterator<Item = &'a str>) -> bool {
    tests.all(|test| test != name)
}

/// What a run of the campaign reads or writes, by variable: true where the file must be there.
pub const FILES: [(&str, bool); 4] = [
    ("HOLDFAST_PLAN", true),
    ("HOLDFAST_RECORD", false),
    ("HOLDFAST_SUMMARY", false),
    ("HOLDFAST_PAGE", false),
];

/// Where a path of the caller's leads. Tests run in their package's directory, and the caller is
/// elsewhere: a relative path is looked for where the shell stands (`PWD`), in the workspace, and in
/// the package; one that is to be written is the shell's. Errors: it must be there, and is not.
pub fn resolve(
    path: &Path,
    must_exist: bool,
    shell: Option<&Path>,
    root: &Path,
) -> Result<PathBuf, String> {
    let package = root.join("sim-tests");
    let places: Vec<PathBuf> = [shell.unwrap_or(root), root, &package]
        .iter()
        // An absolute path stays what it is.
        .map(|place| place.join(path))
        .collect();
    if !must_exist {
        return Ok(places[0].clone());
    }
    match places.iter().find(|place| place.is_file()) {
        Some(found) => Ok(found.clone()),
        None => {
            let mut looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            looked.dedup();
            Err(format!("no such file: looked for {}", looked.join(", ")))
        }
    }
}

/// The target directory this very program lies in, and whether in its `release` profile:
/// `<target>/<profile>/<name>` or `<target>/<profile>/deps/<name>`. Errors: it lies elsewhere.
pub fn own_target_directory() -> Result<(PathBuf, bool), String> {
    let own = std::env::current_exe().map_err(|e| format!("where am I? {e}"))?;
    let mut up = own.ancestors().skip(1).peekable();
    if up.peek().and_then(|d| d.file_name()) == Some("deps".as_ref()) {
        up.next();
    }
    let (profile, target) = (up.next(), up.next());
    match (profile.and_then(Path::file_name), target) {
        (Some(profile), Some(target)) => Ok((target.into(), profile == "release")),
        _ => Err(format!("{} is not in a target directory", own.display())),
    }
}

/// Has cargo build the executables; its progress and its complaints go to this program's stderr.
/// Errors: cargo cannot be run, or the tree does not compile.
pub fn build(what: &Build) -> Result<Vec<Executable>, String> {
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(&what.root)
        .args(["test", "--no-run"])
        .arg("--message-format=json-render-diagnostics")
        .arg("--target-dir")
        .arg(&what.target)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    if what.simulated {
        command.env("RUSTFLAGS", format!("{flags} --cfg madsim"));
    }
    if what.release {
        command.arg("--release");
        command.env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true");
        command.env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    }
    for package in &what.packages {
        command.args(["--package", package]);
    }
    // Doc tests and binaries have no place in the simulation.
    if what.lib {
        command.arg("--lib");
    }
    match &what.tests {
        None => {
            command.arg("--tests");
        }
        Some(tests) => {
            for test in tests {
                command.args(["--test", test]);
            }
        }
    }
    let output = command
        .output()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        return Err("the simulation does not build (see above)".into());
    }
    let mut executables: Vec<Executable> = output
        .stdout
        .split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .filter_map(|message| executable(&message))
        .collect();
    executables.sort();
    Ok(executables)
}

/// Has cargo check the libraries of a workspace, as [`build`]. Errors: cargo cannot be run, or the tree
/// does not compile.
pub fn check(root: &Path, target: &Path) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(root)
        .args(["check", "--workspace", "--lib", "--target-dir"])
        .arg(target)
        .stdin(Stdio::null())
        .status()
        .map_err(|e| format!("cannot run cargo: {e}"))?;
    match status.success() {
        true => Ok(()),
        false => Err("the tree does not compile (see above)".into()),
    }
}

/// The test executable that a message of cargo tells of.
fn executable(message: &serde_json::Value) -> Option<Executable> {
    let path = message["executable"].as_str()?;
    let target = message["target"]["name"].as_str()?;
    let kind = message["target"]["kind"][0].as_str()?;
    let is_test = message["profile"]["test"] == true && kind != "bin" && target != "simulation";
    if message["reason"] != "compiler-artifact" || !is_test {
        return None;
    }
    // "path+file:///…/raft/protocol#raft-protocol@0.1.0" or "path+file:///…/raft#0.1.0".
    let id = message["package_id"].as_str()?;
    let (place, name) = id.split_once('#')?;
    let package = match name.split_once('@') {
        Some((name, _)) => name,
        None => place.rsplit('/').next()?,
    };
    let manifest = Path::new(message["manifest_path"].as_str()?);
    Some(Executable {
        package: package.into(),
        target: target.into(),
        lib: kind == "lib",
        path: path.into(),
        directory: manifest.parent()?.into(),
    })
}

/// The tests of an executable. Errors: it cannot be run.
pub fn list(executable: &Executable) -> Result<Vec<Test>, String> {
    let listing = |extra: &[&str]| -> Result<Vec<String>, String> {
        let output = Command::new(&executable.path)
            .args(["--list", "--format", "terse"])
            .args(extra)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("{}: {e}", executable.path.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|l| l.strip_suffix(": test"));
        Ok(names.map(String::from).collect())
    };
    let ignored = listing(&["--ignored"])?;
    let test = |name: String| Test {
        ignored: ignored.contains(&name),
        name,
    };
    Ok(listing(&[])?.into_iter().map(test).collect())
}

/// Runs one test under one seed, in a process of its own. Errors: it cannot be started.
pub fn run(what: &Run<'_>) -> Result<Outcome, String> {
    // Runs of the same test may go on side by side.
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let path = &what.executable.path;
    let output = path.with_extension(format!("{}.{serial}.out", std::process::id()));
    let outcome = watch(what, &output);
    let _ = std::fs::remove_file(&output);
    outcome
}

fn watch(what: &Run<'_>, output: &Path) -> Result<Outcome, String> {
    let path = &what.executable.path;
    let open = || -> std::io::Result<(Stdio, Stdio)> {
        let file = File::create(output)?;
        Ok((Stdio::from(file.try_clone()?), Stdio::from(file)))
    };
    let (stdout, stderr) = open().map_err(|e| format!("{}: {e}", output.display()))?;
    let mut child = Command::new(path)
        .args(["--exact", what.test, "--nocapture", "--include-ignored"])
        .current_dir(&what.executable.directory)
        .env("CARGO_MANIFEST_DIR", &what.executable.directory)
        .env("MADSIM_TEST_SEED", what.seed.to_string())
        .env_remove("MADSIM_TEST_NUM")
        .envs(what.environment.iter().map(|(k, v)| (k, v)))
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let since = Instant::now();
    let (status, cpu) = wait(&mut child, what.limit, what.cpu_limit)
        .map_err(|e| format!("{}: {e}", path.display()))?;
    let wall = since.elapsed();
    let verdict = match status {
        Some(status) if status.success() => Verdict::Passed,
        Some(status) => Verdict::Failed(status.to_string()),
        None => Verdict::Endless,
    };
    Ok(Outcome {
        verdict,
        output: tail(output).unwrap_or_default(),
        cpu: cpu.unwrap_or(wall),
        wall,
    })
}

/// Waits for a child; `None`: it was ended at a limit. With it the CPU time that it took.
fn wait(
    child: &mut Child,
    limit: Duration,
    cpu_limit: Option<Duration>,
) -> std::io::Result<(Option<ExitStatus>, Option<Duration>)> {
    let since = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        // What a process used is to be read before it is waited for; then it is gone.
        let used = cpu_time(child.id());
        if !matches!(used, Some((_, false)))
            && let Some(status) = child.try_wait()?
        {
            return Ok((Some(status), used.map(|(cpu, _)| cpu)));
        }
        let cpu = used.map_or(Duration::ZERO, |(cpu, _)| cpu);
        if since.elapsed() > limit || cpu_limit.is_some_and(|limit| cpu > limit) {
            child.kill()?;
            child.wait()?;
            return Ok((None, used.map(|(cpu, _)| cpu)));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// CPU time of a process and of the children it has waited for, and whether it has ended.
fn cpu_time(process: u32) -> Option<(Duration, bool)> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name, in brackets, may contain anything; the state is the first field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u32 = fields
        .get(11..15)?
        .iter()
        .map_while(|f| f.parse::<u32>().ok())
        .sum();
    Some((TICK * ticks, fields[0] == "Z"))
}

fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(KEEP_OUTPUT)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
