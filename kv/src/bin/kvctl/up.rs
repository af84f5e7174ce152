//! up: a whole cluster on this machine.

use crate::child::{News, watch};
use ctrler::client::Client;
use ctrler::config::Group;
use kv::client::router::client_hello;
use kv::ctl::Failure;
use kv::ctl::groups::{find, join_surely, leader_status};
use kv::ctl::plan::{Plan, Server, Up};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use world::disk::Disk;

/// What the directory was made with.
const PLAN: &str = "up.json";
/// Longest such file, bytes.
const MAX_PLAN: usize = 4096;
/// Time for one question while the cluster comes up; then it is asked again.
const QUESTION: Duration = Duration::from_secs(5);
/// Time after which it is said what is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked again.
const POLL: Duration = Duration::from_millis(100);

/// Prints a line. Nobody has to read it: with standard output closed (`kvctl up | head`) or full
/// the cluster runs on.
fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Runs the cluster until SIGINT or SIGTERM.
pub async fn up(up: &Up) -> Result<(), Failure> {
    let shutdown = ctrler::program::shutdown(false).map_err(Failure::no)?;
    // Where nothing is made yet a refusal leaves nothing behind: not the directory, and not a plan
    // that would hold the next try to the ports of this one.
    if !up.data.join(PLAN).exists() {
        refuse_remains(&up.data)?;
        let plan = Plan::make(up, None).map_err(|message| Failure { message, code: 2 })?;
        check_ports(&plan.servers()).await?;
    }
    let dir = Disk::real(&up.data).map_err(at(&up.data))?;
    let _lock = dir.lock().map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Failure::no(format!(
            "{} is in use by another `kvctl up`",
            up.data.display()
        )),
        _ => at(&up.data)(error),
    })?;
    let plan = plan(up, &dir)?;
    let servers = plan.servers();
    check_ports(&servers).await?;

    let (sender, mut news) = mpsc::channel(64);
    let mut stops = Vec::new();
    let mut watchers = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        let (stop, stopped) = oneshot::channel::<()>();
        stops.push(stop);
        let watcher = watch(number, server.clone(), dir.clone(), sender.clone(), stopped);
        watchers.push(tokio::spawn(watcher));
    }
    drop(sender);
    let result = tokio::select! {
        biased;
        () = shutdown => Ok(()),
        failed = live(&plan, &servers, &dir, &mut news) => Err(failed),
    };
    say("stopping");
    drop(stops);
    while let Some(said) = news.recv().await {
        if let News::Said(text) | News::Ended(_, text) = said {
            say(text);
        }
    }
    for watcher in watchers {
        let _ = watcher.await;
    }
    if result.is_ok() {
        say(format_args!(
            "stopped; the data are in {}",
            up.data.display()
        ));
    }
    result
}

/// Servers' data without the plan they were made with: under another plan they would refuse their
/// own directories, or a cluster of other shards would seem to start.
fn refuse_remains(data: &Path) -> Result<(), Failure> {
    let entries = match std::fs::read_dir(data) {
        Ok(entries) => entries,
        // What is wrong with it is told when it is made.
        Err(_) => return Ok(()),
    };
    let mut servers: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.path().join(raft::identity::FILE).exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    servers.sort();
    if servers.is_empty() {
        return Ok(());
    }
    Err(Failure::no(format!(
        "{} has the data of {}, and {PLAN}, which says how they belong together, is gone: put it back \
         ({{\"version\":1,\"groups\":2,\"replicas\":3,\"ctrlers\":3,\"shards\":10,\"port\":7000}} \
         is that of a cluster made without flags), or use another directory",
        data.display(),
        servers.join(", "),
    )))
}

/// The failure that a disk error at a path is.
fn at(path: &Path) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::no(format!("{}: {error}", path.display()))
}

/// The plan of the directory; written down when it is new.
fn plan(up: &Up, dir: &Disk) -> Result<Plan, Failure> {
    let path = dir.path(PLAN);
    let made = match dir.read(PLAN, MAX_PLAN) {
        Ok(bytes) => Some(
            Plan::parse(&bytes).map_err(|why| Failure::no(format!("{}: {why}", path.display())))?,
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(at(&path)(error)),
    };
    let plan = Plan::make(up, made.clone()).map_err(Failure::no)?;
    if made.as_ref() != Some(&plan) {
        let text = serde_json::to_vec_pretty(&plan).map_err(|e| Failure::no(e.to_string()))?;
        dir.write_atomic(PLAN, &text).map_err(at(&path))?;
    }
    Ok(plan)
}

/// Every port that is taken is named before anything is started.
async fn check_ports(servers: &[Server]) -> Result<(), Failure> {
    let mut taken = Vec::new();
    for server in servers {
        if let Err(error) = TcpListener::bind(&server.address).await {
            taken.push(format!("{} for {}: {error}", server.address, server.name));
        }
    }
    if taken.is_empty() {
        return Ok(());
    }
    Err(Failure::no(format!(
        "cannot listen on\n  {}\nstop what uses them, or choose other ports with --port (a directory \
         that is made keeps its own: then another --data too)",
        taken.join("\n  ")
    )))
}

/// Prints what happens; returns only when the cluster cannot run.
async fn live(
    plan: &Plan,
    servers: &[Server],
    dir: &Disk,
    news: &mut mpsc::Receiver<News>,
) -> Failure {
    let mut pids: BTreeMap<usize, u32> = BTreeMap::new();
    let mut running: BTreeSet<usize> = BTreeSet::new();
    let mut ready = Box::pin(join(plan.clone()));
    let mut is_ready = false;
    let mut shown = false;
    loop {
        tokio::select! {
            biased;
            event = news.recv() => match event {
                None => return Failure::no("no server can be started"),
                Some(News::Failed(why)) => return Failure::no(why),
                Some(News::Said(text)) => say(text),
                Some(News::Ended(number, text)) => {
                    running.remove(&number);
                    say(text);
                }
                Some(News::Started(number, pid)) => {
                    running.insert(number);
                    let again = pids.insert(number, pid).is_some();
                    if again {
                        say(format_args!("{} runs again (pid {pid})", servers[number].name));
                    }
                    if !shown && pids.len() == servers.len() {
                        shown = true;
                        show(servers, &pids, dir);
                    }
                }
            },
            joined = &mut ready, if !is_ready => {
                if let Err(failure) = joined {
                    return failure;
                }
                is_ready = true;
                let down: Vec<&str> = servers
                    .iter()
                    .zip(0..)
                    .filter(|(_, number)| !running.contains(number))
                    .map(|(server, _)| server.name.as_str())
                    .collect();
                say("\nready");
                if !down.is_empty() {
                    say(format_args!("not running (see above): {}", down.join(", ")));
                }
                say_how(plan);
            }
        }
    }
}

fn show(servers: &[Server], pids: &BTreeMap<usize, u32>, dir: &Disk) {
    say(format_args!(
        "{:<10}  {:<21}  {:>7}  DATA (log: NAME.log beside it)",
        "SERVER", "ADDRESS", "PID"
    ));
    for (number, server) in servers.iter().enumerate() {
        let pid = pids.get(&number).copied().unwrap_or(0);
        let data = dir.path(&server.name);
        say(format_args!(
            "{:<10}  {:<21}  {pid:>7}  {}",
            server.name,
            server.address,
            data.display()
        ));
    }
}

fn say_how(plan: &Plan) {
    let ctrlers = plan.ctrlers().join(",");
    let set = match ctrlers == kv::ctl::args::DEFAULT_CTRLERS {
        true => String::new(),
        false => format!("  export KV_CTRLERS={ctrlers}\n"),
    };
    for note in plan.frailty() {
        say(note);
    }
    say(format_args!(
        "In another shell:\n{set}  kvctl put greeting hello\n  kvctl get greeting\n  kvctl status\n\
         Ctrl-C stops the cluster; the same command starts it again with its data."
    ));
}

/// Waits until the cluster is born and joins the groups that never were members; then waits until
/// every member group has heard of it.
async fn join(plan: Plan) -> Result<(), Failure> {
    let client = Client::new(plan.ctrlers(), Arc::new(client_hello));
    let patience = world::clock::now() + PATIENCE;
    let config = loop {
        let why = match client.query(None, QUESTION).await {
            Ok(config) => break config,
            Err(error) => error,
        };
        if world::clock::now() > patience {
            say(format_args!("waiting for the controllers: {why}"));
        }
        tokio::time::sleep(POLL).await;
    };
    // A group that left is not brought back: somebody wanted it gone.
    let known = loop {
        match client.records(QUESTION).await {
            Ok(records) => break records,
            Err(error) => say(format_args!("waiting for the controllers: {error}")),
        }
    };
    let mut groups = BTreeMap::new();
    for spec in plan.groups() {
        if config.groups.contains_key(&spec.group) || known.contains_key(&spec.group) {
            continue;
        }
        let birth = loop {
            match find(&spec, None, PATIENCE).await {
                Ok(found) => break found.birth,
                Err(failure) => say(format_args!("waiting: {}", failure.message)),
            }
        };
        groups.insert(
            spec.group,
            Group {
                servers: spec.servers,
                birth,
            },
        );
    }
    join_surely(&client, groups, QUESTION, |why| say(why)).await?;
    let config = loop {
        match client.query(None, QUESTION).await {
            Ok(config) => break config,
            Err(error) => say(format_args!("waiting for the controllers: {error}")),
        }
    };
    for (group, info) in &config.groups {
        let patience = world::clock::now() + PATIENCE;
        let mut said = false;
        loop {
            let status = leader_status(&info.servers, QUESTION).await;
            if status.is_some_and(|s| s.replica.leader.is_some() && s.config >= config.num) {
                break;
            }
            if !said && world::clock::now() > patience {
                said = true;
                say(format_args!("waiting for group {group} to take its shards"));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}
