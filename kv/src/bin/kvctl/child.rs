//! One server as a child process: started, watched, started again, stopped.

use kv::ctl::plan::Server;
use std::io::{self, PipeReader, Read};
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot};
use world::clock::now;
use world::disk::{Disk, Open};

/// A log file that would grow longer than this is moved aside, to one older file; bytes.
const MAX_LOG: u64 = 16 << 20;
/// Lines of a dead child's log that are shown, and the bytes of it that are kept for that.
const TAIL: (usize, usize) = (8, 4096);
/// Bytes taken at a time of what a child writes.
const CHUNK: usize = 64 << 10;
/// Time for the last of what a dead child wrote to arrive.
const LAST_WORDS: Duration = Duration::from_secs(1);
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
            Ok((mut child, mut log)) => {
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
                    ended = child.wait() => ended,
                };
                if since.elapsed() >= HEALTHY {
                    pause = BACKOFF.0;
                }
                let words = match &ended {
                    // Nothing was wrong: somebody has asked it to stop.
                    Ok(status) if status.success() => Vec::new(),
                    _ => log.last_words().await,
                };
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

/// Starts a server, and what keeps its log.
fn start(server: &Server, dir: &Disk) -> io::Result<(Child, Log)> {
    let (reader, writer) = io::pipe()?;
    // Where no log can be kept nothing is started.
    dir.open(&log(&server.name), Open::Create)?;
    let mut command = Command::new(program()?);
    command
        .args(&server.args)
        .arg("--data")
        .arg(dir.path(&server.name))
        // The child ends when this pipe does: however this process ends, it does not outlive it.
        .stdin(Stdio::piped())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // Ours to pass on: unset flags of a server must not come from the environment.
        .env_remove("KV_LISTEN")
        .env_remove("CTRLER_LISTEN")
        .kill_on_drop(true);
    // Ctrl-C in the terminal is for this process, which then stops its children in its own way. In a
    // list of processes they have the name of their program.
    #[cfg(unix)]
    command.process_group(0).arg0(server.program());
    let child = command.spawn()?;
    Ok((child, Log::keep(dir.clone(), log(&server.name), reader)))
}

/// What a child writes, on its way to its log file.
struct Log {
    tail: Arc<Mutex<Vec<u8>>>,
    ended: oneshot::Receiver<()>,
}

impl Log {
    #[expect(
        clippy::disallowed_methods,
        reason = "reads of a pipe block, and processes are real"
    )]
    /// Keeps it on a thread of its own, until the child's end of the pipe is closed.
    fn keep(dir: Disk, name: String, mut from: PipeReader) -> Log {
        let tail = Arc::<Mutex<Vec<u8>>>::default();
        let (end, ended) = oneshot::channel();
        let kept = tail.clone();
        std::thread::spawn(move || {
            let mut chunk = vec![0; CHUNK];
            while let Ok(n @ 1..) = from.read(&mut chunk) {
                // A full disk must not stop the child; the next lines are tried again.
                let _ = append(&dir, &name, &chunk[..n]);
                let mut tail = kept.lock().unwrap_or_else(PoisonError::into_inner);
                tail.extend_from_slice(&chunk[..n]);
                let surplus = tail.len().saturating_sub(TAIL.1);
                tail.drain(..surplus);
            }
            let _ = end.send(());
        });
        Log { tail, ended }
    }

    /// The last lines that a child has written, which has ended.
    async fn last_words(&mut self) -> Vec<String> {
        let _ = tokio::time::timeout(LAST_WORDS, &mut self.ended).await;
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(&tail).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL.0)..];
        last.iter().map(|line| line.to_string()).collect()
    }
}

/// Appends to a log file. It is opened by its name each time: whoever moves or removes it finds the
/// rest in a new one.
fn append(dir: &Disk, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut file = dir.open(name, Open::Create)?;
    let mut len = file.len()?;
    if len > 0 && len + bytes.len() as u64 > MAX_LOG {
        drop(file);
        dir.rename(name, &format!("{name}.old"))?;
        file = dir.open(name, Open::Create)?;
        len = 0;
    }
    file.write_all_at(bytes, len)
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
