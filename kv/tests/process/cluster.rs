//! `kvctl up`, and a small cluster started by hand.

use super::{
    KV, KVCTL, Ports, Said, Server, TempDir, bare, ended_within, say, signal, text_of, until,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

/// Runs kvctl against controllers.
pub fn kvctl(ctrlers: &str, args: &[&str], stdin: &[u8]) -> Said {
    let mut command = bare(KVCTL);
    command.env("KV_CTRLERS", ctrlers).args(args);
    say(command, stdin)
}

/// A cluster that `kvctl up` runs.
pub struct Up {
    child: Option<Child>,
    program: PathBuf,
    flags: Vec<String>,
    /// What it printed, per start.
    outs: Vec<PathBuf>,
    pub ctrlers: String,
    pub ports: Ports,
    pub dir: TempDir,
}

impl Up {
    /// Waits until every group has arrived in the newest configuration and moves nothing.
    pub fn settled(&self) {
        until("shards settle", Duration::from_secs(30), || {
            let status = self.status();
            let num = status["config"]["num"].as_u64()?;
            let groups = status["groups"].as_array()?;
            let quiet = |group: &Value| {
                let serving = |shard: &Value| shard["state"] == "serving";
                group["config"] == num
                    && group["settled"] == num
                    && group["shards"]
                        .as_array()
                        .is_some_and(|s| s.iter().all(serving))
            };
            groups.iter().all(quiet).then_some(())
        });
    }

    /// Starts it and waits until it is ready.
    pub fn start(groups: u16, replicas: u16, ctrlers: u16) -> Up {
        Up::start_as(Path::new(KVCTL), groups, replicas, ctrlers)
    }

    /// The same with another file of the program.
    pub fn start_as(program: &Path, groups: u16, replicas: u16, ctrlers: u16) -> Up {
        let ports = Ports::find();
        let addresses: Vec<String> = (0..ctrlers)
            .map(|n| format!("127.0.0.1:{}", ports.base + n))
            .collect();
        let flags = [
            ("--groups", groups),
            ("--replicas", replicas),
            ("--ctrlers", ctrlers),
            ("--port", ports.base),
        ];
        let flags = flags.map(|(flag, value)| format!("{flag}={value}"));
        let mut up = Up {
            child: None,
            program: program.to_path_buf(),
            flags: flags.to_vec(),
            outs: Vec::new(),
            ctrlers: addresses.join(","),
            ports,
            dir: TempDir::new(),
        };
        up.again();
        up
    }

    /// Starts it again on the same data and waits until it is ready.
    pub fn again(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let out = self.dir.path().join(format!("up-{}.log", self.outs.len()));
        let file = || {
            let file = fs::OpenOptions::new().create(true).append(true).open(&out);
            file.expect("a file for its output")
        };
        let child = bare(self.program.to_str().expect("a plain path"))
            .arg("up")
            .arg("--data")
            .arg(self.data())
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(file())
            .stderr(file())
            .spawn();
        self.child = Some(child.expect("kvctl starts"));
        self.outs.push(out);
        let mut ended = None;
        super::until("`up` is ready", Duration::from_secs(40), || {
            ended = self.child.as_mut().and_then(|c| c.try_wait().ok()?);
            (ended.is_some() || self.said().contains("\nready\n")).then_some(())
        });
        assert_eq!(ended, None, "`up` ended: {}", self.said());
    }

    /// Another value of a flag for the next start.
    pub fn set(&mut self, flag: &str, value: u16) {
        self.flags.retain(|f| !f.starts_with(&format!("{flag}=")));
        self.flags.push(format!("{flag}={value}"));
    }

    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What this start printed.
    pub fn said(&self) -> String {
        self.outs.last().map(|out| text_of(out)).unwrap_or_default()
    }

    /// The newest process id of each server.
    pub fn pids(&self) -> BTreeMap<String, u32> {
        let mut pids = BTreeMap::new();
        for line in self.said().lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (name, pid) = match words[..] {
                [name, address, pid, _] if address.contains(':') => (name, pid),
                [name, "runs", "again", "(pid", pid] => (name, pid.trim_end_matches(')')),
                _ => continue,
            };
            if let Ok(pid) = pid.parse() {
                pids.insert(name.to_string(), pid);
            }
        }
        pids
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn kvctl(&self, args: &[&str]) -> Said {
        kvctl(&self.ctrlers, args, b"")
    }

    pub fn status(&self) -> Value {
        let said = self.kvctl(&["status", "--json"]);
        // 1: a shard is not served just now.
        assert!(matches!(said.code, Some(0 | 1)), "{said:?}");
        serde_json::from_slice(&said.out).expect("status prints JSON")
    }

    /// The leader's name; of the controllers for group 0. Waits for one.
    pub fn leader(&self, group: u64) -> String {
        super::until("a leader", Duration::from_secs(10), || {
            let status = self.status();
            let leader = |of: &Value| of["leader"].as_u64();
            if group == 0 {
                let leader = status["ctrlers"].as_array()?.iter().find_map(leader)?;
                return Some(format!("ctrler-{leader}"));
            }
            let groups = status["groups"].as_array()?;
            let leader = leader(groups.iter().find(|g| g["group"] == group)?)?;
            Some(format!("kv-{group}-{leader}"))
        })
    }

    /// A member that does not lead.
    pub fn follower(&self, group: u64) -> String {
        let leader = self.leader(group);
        let prefix = match group {
            0 => "ctrler-".to_string(),
            group => format!("kv-{group}-"),
        };
        let mut names = self.pids().into_keys();
        names
            .find(|name| name.starts_with(&prefix) && *name != leader)
            .expect("a follower")
    }

    pub fn ended_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let status = ended_within(self.child.as_mut()?, patience)?;
        self.child = None;
        Some(status)
    }

    /// SIGKILL for the parent and every child at the same moment.
    pub fn kill_all(&mut self) {
        let mut pids: Vec<u32> = self.pids().into_values().collect();
        if let Some(child) = &self.child {
            pids.push(child.id());
        }
        signal("KILL", &pids);
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        super::until("the processes end", Duration::from_secs(5), || {
            pids.iter().all(|pid| !super::runs(*pid)).then_some(())
        });
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // Only what still runs as ours: a process id may be somebody else's by now.
        let pids: Vec<u32> = self.pids().into_values().collect();
        let ours = self.data().display().to_string();
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in pids {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&ours) {
                signal("KILL", &[pid]);
            }
        }
    }
}

/// The members of a group, started by hand with the program `kv`.
pub struct Members {
    pub group: u64,
    pub addresses: Vec<String>,
    pub servers: Vec<Server>,
}

impl Members {
    /// Three members on ports from `port` on; not started yet.
    pub fn new(dir: &Path, group: u64, port: u16, ctrlers: &str) -> Members {
        let addresses: Vec<String> = (1..=3u16)
            .map(|n| format!("127.0.0.1:{}", port + n))
            .collect();
        let peers = peers(&addresses);
        let servers = (1..=3)
            .map(|id| {
                let args = kv_args(group, id, &peers, ctrlers, &addresses[id as usize - 1]);
                Server::new(dir, &format!("kv-{group}-{id}"), KV, args)
            })
            .collect();
        Members {
            group,
            addresses,
            servers,
        }
    }

    /// "GID=HOST:PORT,…" as `join` wants it.
    pub fn spec(&self) -> String {
        format!("{}={}", self.group, self.addresses.join(","))
    }

    /// The status page of a member (from 0), if it answers.
    pub fn page(&self, member: usize) -> Option<kv::api::KvStatus> {
        page(&self.addresses[member])
    }
}

/// "1=HOST:PORT,…" as `--peers` wants it.
pub fn peers(addresses: &[String]) -> String {
    let peers = (1..).zip(addresses).map(|(id, at)| format!("{id}={at}"));
    peers.collect::<Vec<_>>().join(",")
}

/// The flags of `kv`, `--data` not included.
pub fn kv_args(group: u64, id: u64, peers: &str, ctrlers: &str, listen: &str) -> Vec<String> {
    let flags = [
        ("--group", group.to_string()),
        ("--id", id.to_string()),
        ("--peers", peers.to_string()),
        ("--ctrlers", ctrlers.to_string()),
        ("--listen", listen.to_string()),
    ];
    let args = flags.into_iter().flat_map(|(f, v)| [f.to_string(), v]);
    args.collect()
}

/// The status page of a kv server, if it answers.
pub fn page(address: &str) -> Option<kv::api::KvStatus> {
    use kv::api::{Request, Response};
    let address = address.to_string();
    let answer = world::testing::block_on_test(async move {
        kv::ctl::ask(&address, &Request::Status, None, Duration::from_secs(2)).await
    });
    match answer {
        Ok(Response::Status(page)) => Some(*page),
        _ => None,
    }
}
