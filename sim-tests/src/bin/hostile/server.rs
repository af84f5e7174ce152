//! A controller and a kv server as child processes.

use kv::client::{Client, ClientOptions};
use kv::ctl::args::GroupSpec;
use kv::ctl::groups::{find, join_surely};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use world::clock::{now, sleep};

/// Says what a child of this program is.
pub const ROLE: &str = "HOLDFAST_HOSTILE_ROLE";

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

/// A cluster of one controller and one kv server; ended, and its data removed, when dropped.
pub struct Cluster {
    children: Vec<Process>,
    directory: PathBuf,
    ctrlers: Vec<String>,
    /// Where the kv server listens.
    pub server: String,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.children.clear();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Two ports that are free now.
fn ports() -> std::io::Result<[u16; 2]> {
    let bind = || std::net::TcpListener::bind("127.0.0.1:0");
    let (one, two) = (bind()?, bind()?);
    Ok([one.local_addr()?.port(), two.local_addr()?.port()])
}

impl Cluster {
    pub async fn start(connection_memory: Option<usize>) -> Result<Cluster, String> {
        let [first, second] = ports().map_err(|e| format!("no free port: {e}"))?;
        let name = format!("holdfast-hostile-{}-{first}", std::process::id());
        let ctrler = format!("127.0.0.1:{first}");
        let mut cluster = Cluster {
            children: Vec::new(),
            directory: std::env::temp_dir().join(name),
            ctrlers: vec![ctrler.clone()],
            server: format!("127.0.0.1:{second}"),
        };
        let (peers, kv_peers) = (format!("1={ctrler}"), format!("1={}", cluster.server));
        cluster.spawn("ctrler", &["--id", "1", "--peers", &peers])?;
        let memory = connection_memory.map(|mib| mib.to_string());
        let mut args = vec!["--group", "1", "--id", "1", "--peers", &kv_peers];
        args.extend(["--ctrlers", &ctrler]);
        if let Some(memory) = &memory {
            args.extend(["--connection-memory", memory]);
        }
        cluster.spawn("kv", &args)?;
        let spec = GroupSpec {
            group: 1,
            servers: vec![cluster.server.clone()],
        };
        let failed = |failure: kv::ctl::Failure| failure.message;
        let found = find(&spec, None, PATIENCE).await.map_err(failed)?;
        let group = ctrler::config::Group {
            servers: spec.servers,
            birth: found.birth,
        };
        let client = cluster.client();
        let groups = BTreeMap::from([(1, group)]);
        let wait = Duration::from_secs(2);
        join_surely(client.ctrlers(), groups, wait, |_| {})
            .await
            .map_err(failed)?;
        let put = client.put(b"started", b"yes").await;
        put.map_err(|e| format!("the store does not start: {e}"))?;
        Ok(cluster)
    }

    fn spawn(&mut self, role: &str, args: &[&str]) -> Result<(), String> {
        let data = self.directory.join(role).display().to_string();
        let args = [args, &["--data", &data]].concat();
        self.children.push(start(role, &args)?);
        Ok(())
    }

    /// Starts an attack on the kv server, in a process of its own.
    pub fn attack(&self, attack: &str, shards: u32) -> Result<Process, String> {
        let shards = shards.to_string();
        let mut args = vec![attack, &shards, &self.server];
        args.extend(self.ctrlers.iter().map(String::as_str));
        start("attack", &args)
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        client(&self.ctrlers)
    }

    /// Memory of the kv server that is resident, MiB; an error when it does not run any more.
    pub fn resident(&self) -> Result<u64, String> {
        let pid = self.children[1].0.id();
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

fn start(role: &str, args: &[&str]) -> Result<Process, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let child = Command::new(program)
        .args(args)
        .env(ROLE, role)
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .spawn()
        .map_err(|e| format!("cannot start a {role}: {e}"))?;
    Ok(Process(child))
}
