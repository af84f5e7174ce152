//! What `kvctl up` starts: which servers, where they listen, where their data are. No processes.

use super::args::GroupSpec;
use clap::Args;
use ctrler::program::within;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Most members of a group and most controllers: their ports are one digit apart.
const MAX_MEMBERS: u16 = 9;
/// Most groups.
const MAX_GROUPS: u16 = 100;

/// The flags of `up`.
#[derive(Args, Clone, Debug, Default)]
pub struct Up {
    /// Directory of all servers' data and logs; made when absent. Started again on it, the
    /// cluster goes on with its data
    #[arg(
        long,
        env = "KV_UP_DATA",
        default_value = "./holdfast-data",
        value_name = "DIR"
    )]
    pub data: PathBuf,
    /// Replica groups [default: 2, or as DIR was made]; more than DIR was made with are added, and join
    #[arg(long, env = "KV_UP_GROUPS", value_name = "N", value_parser = within(1..=MAX_GROUPS))]
    pub groups: Option<u16>,
    /// Members of each group [default: 3, or as DIR was made]
    #[arg(long, env = "KV_UP_REPLICAS", value_name = "N", value_parser = within(1..=MAX_MEMBERS))]
    pub replicas: Option<u16>,
    /// Controllers [default: 3, or as DIR was made]
    #[arg(long, env = "KV_UP_CTRLERS", value_name = "N", value_parser = within(1..=MAX_MEMBERS))]
    pub ctrlers: Option<u16>,
    /// Shards [default: 10, or as DIR was made]
    #[arg(long, env = "KV_UP_SHARDS", value_name = "N", value_parser = within(ctrler::config::SHARDS))]
    pub shards: Option<u32>,
    /// First port: controllers listen there and on those after it, member M of group G on this
    /// plus 10 G plus M [default: 7000, or as DIR was made]
    #[arg(long, env = "KV_UP_PORT", value_name = "PORT", value_parser = within(1..=u16::MAX))]
    pub port: Option<u16>,
}

/// What a directory was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Format of this file.
    pub version: u32,
    /// Replica groups.
    pub groups: u16,
    /// Members of each.
    pub replicas: u16,
    /// Controllers.
    pub ctrlers: u16,
    /// Shards.
    pub shards: u32,
    /// First port.
    pub port: u16,
}

/// Format of the plan's file.
const VERSION: u32 = 1;

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name, also that of its directory and its log file.
    pub name: String,
    /// The replica group; 0: the controllers.
    pub group: u64,
    /// Where it listens.
    pub address: String,
    /// Its command line, `--data` not included.
    pub args: Vec<String>,
}

impl Server {
    /// The program that it is.
    pub fn program(&self) -> &'static str {
        match self.group {
            0 => "ctrler",
            _ => "kv",
        }
    }
}

impl Plan {
    /// The plan the flags ask for, given the one the directory was made with, if any.
    pub fn make(up: &Up, made: Option<Plan>) -> Result<Plan, String> {
        let Some(made) = made else {
            let plan = Plan {
                version: VERSION,
                groups: up.groups.unwrap_or(2),
                replicas: up.replicas.unwrap_or(3),
                ctrlers: up.ctrlers.unwrap_or(3),
                shards: up.shards.unwrap_or(ctrler::config::DEFAULT_SHARDS),
                port: up.port.unwrap_or(7000),
            };
            return plan.check();
        };
        let flags = [
            (
                "--replicas",
                up.replicas.map(u32::from),
                u32::from(made.replicas),
            ),
            (
                "--ctrlers",
                up.ctrlers.map(u32::from),
                u32::from(made.ctrlers),
            ),
            ("--shards", up.shards, made.shards),
            ("--port", up.port.map(u32::from), u32::from(made.port)),
        ];
        for (flag, asked, made) in flags {
            if let Some(asked) = asked.filter(|asked| *asked != made) {
                return Err(format!(
                    "{} was made with {flag} {made}, and {flag} {asked} is asked for: leave the \
                     flag out, or use another directory",
                    up.data.display()
                ));
            }
        }
        let mut plan = made;
        match up.groups {
            // The new ones join when it is started.
            Some(asked) if asked > plan.groups => plan.groups = asked,
            Some(asked) if asked < plan.groups => {
                return Err(format!(
                    "{} was made with --groups {made}, and --groups {asked} is asked for: leave the flag \
                     out (`kvctl leave GID` takes the shards of a group; its servers go on running), or use \
                     another directory",
                    up.data.display(),
                    made = plan.groups,
                ));
            }
            _ => {}
        }
        plan.check()
    }

    /// What the numbers of members do not survive, if that is little.
    pub fn frailty(&self) -> Vec<String> {
        [("group", self.replicas), ("the controllers", self.ctrlers)]
            .into_iter()
            .filter(|(_, members)| *members < 3)
            .map(|(what, members)| {
                let what = match what {
                    "group" => "each group".to_string(),
                    other => other.to_string(),
                };
                let many = match members {
                    1 => "one server".into(),
                    n => format!("{n} servers, which must both run"),
                };
                format!("note: {what}: {many}; no failure of one is survived (3 survive one)")
            })
            .collect()
    }

    /// Reads a plan's file.
    pub fn parse(bytes: &[u8]) -> Result<Plan, String> {
        let plan: Plan = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        match plan.version {
            VERSION => plan.check(),
            other => Err(format!(
                "format version {other}, this program knows {VERSION}"
            )),
        }
    }

    /// The flags' own limits, for a file that somebody has edited, and what the numbers are together.
    fn check(self) -> Result<Plan, String> {
        let limits = [
            ("groups", u32::from(self.groups), 1..=u32::from(MAX_GROUPS)),
            (
                "replicas",
                u32::from(self.replicas),
                1..=u32::from(MAX_MEMBERS),
            ),
            (
                "ctrlers",
                u32::from(self.ctrlers),
                1..=u32::from(MAX_MEMBERS),
            ),
            ("shards", self.shards, ctrler::config::SHARDS),
            ("port", u32::from(self.port), 1..=u32::from(u16::MAX)),
        ];
        for (what, number, limit) in limits {
            if !limit.contains(&number) {
                return Err(format!(
                    "{what} {number}: expected a number from {} to {}",
                    limit.start(),
                    limit.end()
                ));
            }
        }
        let last = u32::from(self.port) + 10 * u32::from(self.groups) + u32::from(self.replicas);
        match u16::try_from(last) {
            Ok(_) => Ok(self),
            Err(_) => Err(format!(
                "--port {}: the last server would need port {last}",
                self.port
            )),
        }
    }

    fn ctrler_addresses(&self) -> Vec<String> {
        (0..self.ctrlers)
            .map(|i| format!("127.0.0.1:{}", self.port + i))
            .collect()
    }

    fn group_addresses(&self, group: u16) -> Vec<String> {
        (1..=self.replicas)
            .map(|m| format!("127.0.0.1:{}", self.port + 10 * group + m))
            .collect()
    }

    /// The controllers' addresses.
    pub fn ctrlers(&self) -> Vec<String> {
        self.ctrler_addresses()
    }

    /// The groups to join.
    pub fn groups(&self) -> Vec<GroupSpec> {
        (1..=self.groups)
            .map(|g| GroupSpec {
                group: u64::from(g),
                servers: self.group_addresses(g),
            })
            .collect()
    }

    /// All servers.
    pub fn servers(&self) -> Vec<Server> {
        let ctrlers = self.ctrler_addresses();
        let mut servers = Vec::new();
        for (address, id) in ctrlers.iter().zip(1u64..) {
            let (id, shards) = (id.to_string(), self.shards.to_string());
            let args = [
                "serve-ctrler",
                "--id",
                &id,
                "--peers",
                &peers(&ctrlers),
                "--shards",
                &shards,
            ];
            servers.push(server(format!("ctrler-{id}"), 0, address, &args));
        }
        for number in 1..=self.groups {
            let members = self.group_addresses(number);
            for (address, id) in members.iter().zip(1u64..) {
                let (group, id) = (number.to_string(), id.to_string());
                let (peers, ctrlers) = (peers(&members), ctrlers.join(","));
                let args = [
                    "serve-kv",
                    "--group",
                    &group,
                    "--id",
                    &id,
                    "--peers",
                    &peers,
                    "--ctrlers",
                    &ctrlers,
                ];

                servers.push(server(
                    format!("kv-{group}-{id}"),
                    u64::from(number),
                    address,
                    &args,
                ));
            }
        }
        servers
    }
}

fn peers(addresses: &[String]) -> String {
    let entries: Vec<String> = addresses
        .iter()
        .zip(1..)
        .map(|(address, id)| format!("{id}={address}"))
        .collect();
    entries.join(",")
}

fn server(name: String, group: u64, address: &str, args: &[&str]) -> Server {
    let mut args: Vec<String> = args.iter().map(|arg| arg.to_string()).collect();
    // Only this machine may connect; and the parent holds the other end of standard input.
    args.extend([
        "--listen".into(),
        address.into(),
        "--exit-with-stdin".into(),
    ]);
    Server {
        name,
        group,
        address: address.into(),
        args,
    }
}
