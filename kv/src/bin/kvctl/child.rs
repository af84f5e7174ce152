//! One server as a child process: started, watched, started again, stopped.

use kv::ctl::plan::Server;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use world::clock::{Instant, now};
use world::disk::{Disk, Open};

/// A log file longer than this is moved aside, to one older file; bytes.
const MAX_LOG: u64 = 16 << 20;
/// How often that is looked at.
const LOG_CHECK: Duration = Duration::from_secs(10);
/// Lines of a dead child's log that are shown, and where they are looked for, bytes.
const TAIL: (usize, u64) = (8, 4096);
/// First and longest pause before a dead child is started again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// A child that ran for so long is started again without a longer pause.
const HEALTHY: Duration = Duration::from_secs(30);
/// Time for a child to stop cleanly; then it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// What a watcher tells.
pub enum News {
    /// The child runs, with this process id.
    Started(usize, u32),
    /// To be printed.
    Said(String),
    /// The child does not run any more; to be printed.
    Ended(usize, String),
    /// The child could not be started the first time.
    Failed(String),
}

/// Starts a server and keeps it running until `stop` is dropped; then stops it. A first start that
/// fails ends it. Once the server has run, what is in the way of a start may pass (a full disk, no
/// more processes), and the others run on meanwhile: it is told and tried again.
pub async fn watch(
    number: usize,
    server: Server,
    dir: Disk,
    news: mpsc::Sender<News>,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) {
    let mut pause = BACKOFF.0;
    let mut ran = false;
    // What it last said before it ended: told once, however often that is repeated.
    let mut last_words = Vec::new();
    loop {
        let what = match start(&server, &dir) {
            Ok((mut child, logged)) => {
                ran = true;
                // Waiting for a child closes its standard input, so it is held here.
                let stdin = child.stdin.take();
                let pid = child.id().unwrap_or(0);
                let _ = news.send(News::Started(number, pid)).await;
                let since = now();
                let ended = tokio::select! {
                    biased;
                    _ = &mut stop => {
                        drop(stdin);
                        end(child, &server.name, &news).await;
                        return;
                    }
                    ended = run(&mut child, &server.name, &dir) => ended,
                };
                if since.elapsed() >= HEALTHY {
                    pause = BACKOFF.0;
                }
                let words = tail(&dir, &server.name, logged).unwrap_or_default();
                let again = reason(&words) == reason(&last_words) && reason(&words).is_some();
                let text = obituary(&server, pid, ended, &dir, pause, (&words, again));
                last_words = words;
                text
            }
            Err(error) if ran => {
                let ms = pause.as_millis();
                format!(
                    "cannot start {} again: {error}; trying again in {ms} ms",
                    server.name
                )
            }
            Err(error) => {
                let why = format!("cannot start {}: {error}", server.name);
                let _ = news.send(News::Failed(why)).await;
                return;
            }
        };
        let _ = news.send(News::Ended(number, what)).await;
        tokio::select! {
            biased;
            _ = &mut stop => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(BACKOFF.1);
    }
}

/// This program's file. When it was replaced meanwhile its path names nothing ("… (deleted)") or
/// another version; under this name Linux has the one that runs.
fn program() -> io::Result<PathBuf> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe()
}

/// Starts a server. Also where its part of the log begins.
fn start(server: &Server, dir: &Disk) -> io::Result<(Child, u64)> {
    shorten(dir, &log(&server.name))?;
    let logged = dir.open(&log(&server.name), Open::Create)?.len()?;
    let mut command = Command::new(program()?);
    command
        .args(&server.args)
        .arg("--data")
        .arg(dir.path(&server.name))
        // The child ends when this pipe does: however this process ends, it does not outlive it.
        .stdin(Stdio::piped())
        .stdout(dir.append_stdio(&log(&server.name))?)
        .stderr(dir.append_stdio(&log(&server.name))?)
        // Ours to pass on: unset flags of a server must not come from the environment.
        .env_remove("KV_LISTEN")
        .env_remove("CTRLER_LISTEN")
        .kill_on_drop(true);
    // Ctrl-C in the terminal is for this process, which then stops its children in its own way.
    #[cfg(unix)]
    command.process_group(0).arg0("kvctl");
    Ok((command.spawn()?, logged))
}

/// Waits for the end of a child, and keeps its log short meanwhile.
async fn run(child: &mut Child, name: &str, dir: &Disk) -> io::Result<ExitStatus> {
    let mut check: Instant = now() + LOG_CHECK;
    loop {
        tokio::select! {
            biased;
            ended = child.wait() => return ended,
            () = tokio::time::sleep(check.saturating_duration_since(now())) => {
                // A full disk must not stop the watcher; it is tried again.
                let _ = shorten(dir, &log(name));
                check = now() + LOG_CHECK;
            }
        }
    }
}

/// Waits for a child to stop, as the end of its standard input has asked it to.
async fn end(mut child: Child, name: &str, news: &mpsc::Sender<News>) {
    if tokio::time::timeout(STOP_PATIENCE, child.wait())
        .await
        .is_err()
    {
        let seconds = STOP_PATIENCE.as_secs();
        let _ = news
            .send(News::Said(format!(
                "{name} did not stop within {seconds} s: killed"
            )))
            .await;
        let _ = child.kill().await;
    }
}

fn log(name: &str) -> String {
    format!("{name}.log")
}

/// Moves a long log aside. The child goes on appending to the same file, which is then short.
fn shorten(dir: &Disk, name: &str) -> io::Result<()> {
    let file = dir.open(name, Open::Create)?;
    let len = file.len()?;
    if len <= MAX_LOG {
        return Ok(());
    }
    let old = dir.open(&format!("{name}.old"), Open::Create)?;
    old.set_len(0)?;
    let mut buf = vec![0; 1 << 20];
    let mut at = 0;
    while at < len {
        let n = buf.len().min((len - at) as usize);
        file.read_exact_at(&mut buf[..n], at)?;
        old.write_all_at(&buf[..n], at)?;
        at += n as u64;
    }
    file.set_len(0)
}

/// The last lines that a server has written to its log since it began at `start`.
fn tail(dir: &Disk, name: &str, start: u64) -> io::Result<Vec<String>> {
    let file = dir.open(&log(name), Open::Read)?;
    let len = file.len()?;
    // A log that was moved aside meanwhile is shorter than it was.
    let start = if start > len { 0 } else { start };
    let from = len.saturating_sub(TAIL.1).max(start);
    let mut buf = vec![0; (len - from) as usize];
    file.read_exact_at(&mut buf, from)?;
    let text = String::from_utf8_lossy(&buf).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(TAIL.0)..]
        .iter()
        .map(|l| l.to_string())
        .collect())
}

/// The error that a server ended with, as its last line has it.
fn reason(words: &[String]) -> Option<&str> {
    let last = words.last().map(String::as_str);
    last.filter(|line| line.starts_with("error: "))
}

fn obituary(
    server: &Server,
    pid: u32,
    ended: io::Result<ExitStatus>,
    dir: &Disk,
    pause: Duration,
    (words, again): (&[String], bool),
) -> String {
    let how = match ended {
        Ok(status) => status.to_string(),
        Err(error) => format!("cannot be watched: {error}"),
    };
    let path: PathBuf = dir.path(&log(&server.name));
    let mut text = format!("{} (pid {pid}) ended: {how}", server.name);
    let ms = pause.as_millis();
    if again {
        text.push_str(&format!(
            ", for the same reason; starting it again in {ms} ms"
        ));
        return text;
    }
    for line in words {
        text.push_str(&format!("\n    {line}"));
    }
    text.push_str(&format!(
        "\n  its log is {}; starting it again in {ms} ms",
        path.display()
    ));
    text
}
