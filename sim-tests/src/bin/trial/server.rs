//! A controller and the members of a group as child processes.

use kv::client::{Client, ClientOptions};
use kv::ctl::args::GroupSpec;
use kv::ctl::groups::{find, join_surely};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use world::clock::{now, sleep};

/// Says what a child of this program is.
pub const ROLE: &str = "HOLDFAST_TRIAL_ROLE";

/// Time for everything to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// What an attacker is told, in its arguments.
pub struct Target {
    pub attack: String,
    pub shards: u32,
    pub server: String,
    pub ctrlers: Vec<String>,
}

impl Target {
    /// Of the arguments that [`Cluster::attack`] gives.
    pub fn from_args(mut args: impl Iterator<Item = String>) -> Option<Target> {
        Some(Target {
            attack: args.next()?,
            shards: args.next()?.parse().ok()?,
            server: args.next()?,
            ctrlers: args.collect(),
        })
    }
}

/// A child process; ended when dropped.
pub struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client whose operations may take a minute.
pub fn client(ctrlers: &[String]) -> Client {
    Client::new(ClientOptions {
        ctrlers: ctrlers.to_vec(),
        deadline: Duration::from_secs(60),
    })
}

/// A cluster of one controller and one group; ended, and its data removed, when dropped.
pub struct Cluster {
    ctrler: Option<Process>,
    /// The group's members, with what they are started with.
    members: Vec<(Option<Process>, Vec<String>)>,
    /// What the members print goes into files.
    logs: bool,
    directory: PathBuf,
    ctrlers: Vec<String>,
    /// Where the members listen.
    pub servers: Vec<String>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.members.clear();
        self.ctrler = None;
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// So many ports that are free now.
fn ports(number: usize) -> std::io::Result<Vec<u16>> {
    let free: Vec<_> = (0..number)
        .map(|_| std::net::TcpListener::bind("127.0.0.1:0"))
        .collect::<Result<_, _>>()?;
    free.iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect()
}

impl Cluster {
    /// Starts it; the group has so many members.
    pub async fn start(
        members: usize,
        connection_memory: Option<usize>,
    ) -> Result<Cluster, String> {
        Cluster::start_as(members, connection_memory, false).await
    }

    /// Starts it; what the members print is kept.
    pub async fn start_with_logs(members: usize) -> Result<Cluster, String> {
        Cluster::start_as(members, None, true).await
    }

    async fn start_as(
        members: usize,
        connection_memory: Option<usize>,
        logs: bool,
    ) -> Result<Cluster, String> {
        let ports = ports(1 + members).map_err(|e| format!("no free port: {e}"))?;
        let name = format!("holdfast-trial-{}-{}", std::process::id(), ports[0]);
        let addresses: Vec<String> = ports.iter().map(|p| format!("127.0.0.1:{p}")).collect();
        let directory = std::env::temp_dir().join(name);
        let (ctrler, servers) = (addresses[0].clone(), addresses[1..].to_vec());
        let data = |name: &str| directory.join(name).display().to_string();
        let own = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
        let peers: Vec<String> = (1..)
            .zip(&servers)
            .map(|(id, at)| format!("{id}={at}"))
            .collect();
        let peers = peers.join(",");
        let memory = connection_memory.map(|mib| mib.to_string());
        let flags = |id: usize| {
            let (id, data) = (id.to_string(), data(&format!("kv-{id}")));
            let mut args = own(&["--group", "1", "--id", &id, "--peers", &peers]);
            args.extend(own(&["--ctrlers", &ctrler, "--data", &data]));
            if let Some(memory) = &memory {
                args.extend(own(&["--connection-memory", memory]));
            }
            args
        };
        let members = (1..=members).map(|id| (None, flags(id))).collect();
        let of_ctrler = own(&["--id", "1", "--peers", &format!("1={ctrler}"), "--data"]);
        let of_ctrler = [of_ctrler, vec![data("ctrler")]].concat();
        let mut cluster = Cluster {
            ctrler: Some(start("ctrler", &of_ctrler, None)?),
            members,
            logs,
            directory,
            ctrlers: vec![ctrler],
            servers,
        };
        for member in 0..cluster.members.len() {
            cluster.restart(member)?;
        }
        cluster.join().await?;
        Ok(cluster)
    }

    /// The group joins, and serves.
    async fn join(&self) -> Result<(), String> {
        let spec = GroupSpec {
            group: 1,
            servers: self.servers.clone(),
        };
        let failed = |failure: kv::ctl::Failure| failure.message;
        let found = find(&spec, None, PATIENCE).await.map_err(failed)?;
        let group = ctrler::config::Group {
            servers: spec.servers,
            birth: found.birth,
        };
        let client = self.client();
        let groups = BTreeMap::from([(1, group)]);
        let wait = Duration::from_secs(2);
        join_surely(client.ctrlers(), groups, wait, |_| {})
            .await
            .map_err(failed)?;
        let put = client.put(b"started", b"yes").await;
        put.map_err(|e| format!("the store does not start: {e}"))
    }

    /// Starts a member, from 0.
    pub fn restart(&mut self, member: usize) -> Result<(), String> {
        let log = self.logs.then(|| self.log(member));
        let (process, args) = &mut self.members[member];
        *process = Some(start("kv", args, log)?);
        Ok(())
    }

    fn log(&self, member: usize) -> PathBuf {
        self.directory.join(format!("kv-{}.log", member + 1))
    }

    /// What the members have said of this.
    pub fn lines_in_logs(&self, text: &str) -> Result<Vec<String>, String> {
        let mut lines = Vec::new();
        for member in 0..self.members.len() {
            let log = std::fs::read_to_string(self.log(member)).map_err(|e| e.to_string())?;
            let said = log.lines().filter(|line| line.contains(text));
            lines.extend(said.map(str::to_owned));
        }
        Ok(lines)
    }

    /// Kills a member, from 0, as `kill -9` does.
    pub fn kill(&mut self, member: usize) {
        self.members[member].0 = None;
    }

    /// Starts an attack on the first member, in a process of its own.
    pub fn attack(&self, attack: &str, shards: u32) -> Result<Process, String> {
        let target = [
            attack.to_owned(),
            shards.to_string(),
            self.servers[0].clone(),
        ];
        start("attack", &[&target[..], &self.ctrlers].concat(), None)
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        client(&self.ctrlers)
    }

    /// Memory of the first member that is resident, MiB; an error when it does not run any more.
    pub fn resident(&self) -> Result<u64, String> {
        self.resident_of(0)
    }

    /// The same of a member, from 0.
    pub fn resident_of(&self, member: usize) -> Result<u64, String> {
        let process = self.members[member].0.as_ref();
        let pid = process.ok_or("it was killed")?.0.id();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.map_err(|e| format!("the kv server has ended: {e}"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        Ok(kib.ok_or("the kv server has ended")? >> 10)
    }

    /// The most of [`Cluster::resident`] until `end` resolves.
    pub async fn most_resident(&self, time: Duration) -> Result<u64, String> {
        let (end, mut most) = (now() + time, 0);
        while now() < end {
            most = most.max(self.resident()?);
            sleep(Duration::from_millis(100)).await;
        }
        Ok(most)
    }
}

/// Starts a child, which prints its errors, or into a file what it does.
fn start(role: &str, args: &[String], log: Option<PathBuf>) -> Result<Process, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut command = Command::new(program);
    command.args(args).env(ROLE, role).stdin(Stdio::null());
    match log {
        None => command.env("RUST_LOG", "error"),
        Some(path) => {
            let open = || {
                std::fs::create_dir_all(path.parent()?).ok()?;
                let mut options = std::fs::OpenOptions::new();
                options.create(true).append(true).open(&path).ok()
            };
            let file = open().ok_or_else(|| format!("cannot write {}", path.display()))?;
            let err = file.try_clone().map_err(|e| e.to_string())?;
            command.env("RUST_LOG", "info").stdout(file).stderr(err)
        }
    };
    let child = command
        .spawn()
        .map_err(|e| format!("cannot start a {role}: {e}"))?;
    Ok(Process(child))
}
