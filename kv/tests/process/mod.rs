//! Real processes on this machine's loopback, for tests of the programs themselves.
//!
//! Nothing of this runs in the simulation: a test calls [`skipped`] first.
//! Clocks, threads and processes here are those of the machine.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "each target uses a part; real processes live on the real clock"
)]

pub mod cluster;
pub mod load;

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub const KVCTL: &str = env!("CARGO_BIN_EXE_kvctl");
pub const KV: &str = env!("CARGO_BIN_EXE_kv");

/// One test of a target at a time: they measure, and a machine has few cores.
static TURN: Mutex<()> = Mutex::new(());

/// `None` in the simulation, which has no processes; otherwise this test's turn.
pub fn turn() -> Option<MutexGuard<'static, ()>> {
    if world::testing::SIMULATED {
        return None;
    }
    Some(TURN.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Polls until there is something; panics after `patience`.
pub fn until<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A directory that goes when it is dropped. When the test has failed the ends of the logs in it
/// are printed.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (pid, n) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("holdfast-test-{pid}-{n}"));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary directory");
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print_logs(&self.0);
        }
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn print_logs(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            print_logs(&path);
        } else if path.extension().is_some_and(|e| e == "log") {
            let text = text_of(&path);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("── {}", path.display());
            for line in &lines[lines.len().saturating_sub(25)..] {
                eprintln!("   {line}");
            }
        }
    }
}

/// What a file holds, as text; empty when there is none.
pub fn text_of(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// A range of free ports. One listener inside it, which no server uses, keeps other tests out.
pub struct Ports {
    pub base: u16,
    _claim: TcpListener,
}

/// Ports in a range.
const RANGE: u16 = 60;
/// Below the ports that systems give to outgoing connections: one of those could take a server's
/// port while the server is down.
const PORTS: std::ops::Range<u16> = 12_000..30_000;

impl Ports {
    pub fn find() -> Ports {
        let start = world::entropy::random_u64();
        let ranges = u64::from(PORTS.len() as u16 / RANGE);
        for n in 0..ranges {
            let base = PORTS.start + RANGE * ((start.wrapping_add(n)) % ranges) as u16;
            let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
            let Ok(claim) = free(base + RANGE - 1) else {
                continue;
            };
            if (base..base + RANGE - 1).all(|port| free(port).is_ok()) {
                return Ports {
                    base,
                    _claim: claim,
                };
            }
        }
        panic!("no {RANGE} free ports in a row in {PORTS:?}");
    }
}

/// Sends a signal to processes all at once.
pub fn signal(name: &str, pids: &[u32]) {
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    // A process that is gone already is no failure.
    let _ = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -{name} {}", pids.join(" ")))
        .stderr(Stdio::null())
        .status();
}

/// True while a process runs (one that ended and was not waited for does not).
pub fn runs(pid: u32) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // The state follows the name, which is in parentheses.
        Ok(stat) => !matches!(
            stat.rsplit_once(") ").map(|(_, rest)| rest.as_bytes()[0]),
            None | Some(b'Z' | b'X')
        ),
        Err(_) if Path::new("/proc/self/stat").exists() => false,
        Err(_) => Command::new("kill")
            .args(["-0", &pid.to_string()])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success()),
    }
}

/// Waits for the end of a child.
pub fn ended_within(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + patience;
    loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            return Some(status);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a program said, and how it ended.
pub struct Said {
    /// `None`: by a signal.
    pub code: Option<i32>,
    pub out: Vec<u8>,
    pub err: String,
    pub took: Duration,
}

impl std::fmt::Debug for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Said {
            code,
            out,
            err,
            took,
        } = self;
        let out = String::from_utf8_lossy(out);
        write!(f, "exit code {code:?} after {took:?}\n{out}\n{err}")
    }
}

impl Said {
    /// Standard output; the program must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Asserts the exit code and that standard error has `part`.
    pub fn fails(&self, code: i32, part: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.err.contains(part), "no {part:?} in {self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
    }
}

/// A command that has no flags from the environment.
pub fn bare(program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if name_text.starts_with("KV_") || name_text.starts_with("CTRLER_") {
            command.env_remove(&name);
        }
    }
    command.env_remove("RUST_LOG");
    command
}

/// Runs a program to its end. Its streams are files, so that nothing waits for a pipe.
pub fn say(command: Command, stdin: &[u8]) -> Said {
    say_into(command, stdin, None)
}

/// The same, its standard output going elsewhere if so asked.
pub fn say_into(mut command: Command, stdin: &[u8], out: Option<Stdio>) -> Said {
    let dir = TempDir::new();
    let file = |name: &str| dir.path().join(name);
    fs::write(file("in"), stdin).expect("a file for standard input");
    let make = |name: &str| fs::File::create(file(name)).expect("a file for output");
    let since = Instant::now();
    let kept = make("out");
    let mut child = command
        .stdin(fs::File::open(file("in")).expect("standard input"))
        .stdout(out.unwrap_or_else(|| kept.into()))
        .stderr(make("err"))
        .spawn()
        .expect("the program starts");
    let ended = ended_within(&mut child, Duration::from_secs(60));
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let said = Said {
        code: ended.and_then(|status| status.code()),
        out: fs::read(file("out")).expect("its output"),
        err: text_of(&file("err")),
        took: since.elapsed(),
    };
    assert!(ended.is_some(), "did not end: {said:?}");
    said
}

/// A program that runs while the test does something else; killed when dropped.
pub struct Running {
    child: Child,
    dir: TempDir,
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let dir = TempDir::new();
        let make = |name: &str| fs::File::create(dir.path().join(name)).expect("a file");
        let child = command
            .stdin(Stdio::null())
            .stdout(make("out"))
            .stderr(make("err"))
            .spawn()
            .expect("the program starts");
        Running { child, dir }
    }

    /// Waits until standard error has `part`. The program must not end before.
    pub fn says(&mut self, part: &str) {
        self.has("err", part);
    }

    /// The same of standard output.
    pub fn prints(&mut self, part: &str) {
        self.has("out", part);
    }

    fn has(&mut self, file: &str, part: &str) {
        until(part, Duration::from_secs(40), || {
            let ended = self.child.try_wait().expect("waiting for a child");
            let said = text_of(&self.dir.path().join(file));
            let has = said.contains(part);
            assert!(has || ended.is_none(), "{ended:?} without {part:?}: {said}");
            has.then_some(())
        });
    }

    /// Its end, which must come within 20 s.
    pub fn ends(mut self) -> Said {
        let since = Instant::now();
        let ended = ended_within(&mut self.child, Duration::from_secs(20));
        let said = Said {
            code: ended.and_then(|status| status.code()),
            out: fs::read(self.dir.path().join("out")).expect("its output"),
            err: text_of(&self.dir.path().join("err")),
            took: since.elapsed(),
        };
        assert!(ended.is_some(), "did not end: {said:?}");
        said
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One server, started by hand.
pub struct Server {
    pub name: String,
    pub data: PathBuf,
    log: PathBuf,
    program: String,
    pub args: Vec<String>,
    child: Option<Child>,
}

impl Server {
    /// `args` has everything but `--data`.
    pub fn new(dir: &Path, name: &str, program: &str, args: Vec<String>) -> Server {
        Server {
            name: name.into(),
            data: dir.join(name),
            log: dir.join(format!("{name}.log")),
            program: program.into(),
            args,
            child: None,
        }
    }

    pub fn command(&self) -> Command {
        let mut command = bare(&self.program);
        command.args(&self.args).arg("--data").arg(&self.data);
        command
    }

    pub fn start(&mut self) {
        let command = self.command();
        self.start_as(command);
    }

    /// Starts it by a command of the caller's.
    pub fn start_as(&mut self, mut command: Command) {
        assert!(self.child.is_none(), "{} runs", self.name);
        let log = || -> io::Result<fs::File> {
            fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&self.log)
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(log().expect("a log"))
            .stderr(log().expect("a log"))
            .spawn();
        self.child = Some(child.expect("the server starts"));
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// Its log so far.
    pub fn said(&self) -> String {
        text_of(&self.log)
    }

    pub fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let status = ended_within(self.child.as_mut()?, patience)?;
        self.child = None;
        Some(status)
    }

    /// SIGTERM; how long it took to stop. It must stop cleanly.
    pub fn stop(&mut self) -> Duration {
        let since = Instant::now();
        signal("TERM", &[self.pid()]);
        let Some(status) = self.ended_within(Duration::from_secs(20)) else {
            panic!("{} does not stop", self.name);
        };
        assert!(status.success(), "{}: {status}\n{}", self.name, self.said());
        since.elapsed()
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
