//! kvctl's flags and arguments.

use clap::builder::FalseyValueParser;
use clap::{Args, Subcommand};
use ctrler::config::{ConfigNum, GroupId, ShardId};
use ctrler::program::{Addresses, parse_id, within};
use std::ffi::OsString;
use std::str::FromStr;
use std::time::Duration;

/// Where `kvctl up` puts its controllers.
pub const DEFAULT_CTRLERS: &str = "127.0.0.1:7000,127.0.0.1:7001,127.0.0.1:7002";

/// What every command understands, before its name.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Controllers of the cluster, HOST:PORT,HOST:PORT,… The default is where `kvctl up` puts them
    #[arg(long, env = "KV_CTRLERS", default_value = DEFAULT_CTRLERS, value_name = "HOST:PORT,…")]
    pub ctrlers: Addresses,
    /// Time an operation may take, retries included: 10, 0.5, 500ms, 2s, 1m
    #[arg(long, env = "KV_TIMEOUT", default_value = "10", value_name = "SECS", value_parser = parse_time)]
    pub timeout: Duration,
}

/// The same after the command's name. (Clap's global flags will not do: `up` has a `--ctrlers` of
/// its own, a number.)
#[derive(Args, Clone, Debug)]
pub struct Override {
    /// Controllers of the cluster; also before the command, and as KV_CTRLERS
    #[arg(long, value_name = "HOST:PORT,…")]
    ctrlers: Option<Addresses>,
    /// Time an operation may take (10, 0.5, 500ms, 2s, 1m); also before the command, and as KV_TIMEOUT
    #[arg(long, value_name = "SECS", value_parser = parse_time)]
    timeout: Option<Duration>,
}

/// A command's own arguments and what every command understands.
#[derive(Args, Clone, Debug)]
pub struct With<A: Args> {
    /// Its own.
    #[command(flatten)]
    pub own: A,
    #[command(flatten)]
    common: Override,
}

impl Common {
    /// Time for one operation.
    pub fn deadline(&self) -> Duration {
        self.timeout
    }
}

/// What kvctl can be asked.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Print the value of a key; exit code 1 when there is none
    #[command(
        after_help = "Examples:\n  kvctl get greeting\n  kvctl get --raw picture > picture.png"
    )]
    Get(With<Get>),
    /// Print the values of several keys, a line each: the key, a tab, the value (both escaped where
    /// they are no plain text); exit code 1 when one is absent. The keys are read one by one, not at
    /// one moment
    Mget(With<Mget>),
    /// Set a key
    #[command(
        after_help = "Examples:\n  kvctl put greeting hello\n  kvctl put picture - < picture.png"
    )]
    Put(With<KeyValue>),
    /// Append to a key's value (an absent key counts as empty); prints the new length
    Append(With<KeyValue>),
    /// Remove a key; exit code 1 when there was none
    Delete(With<Key>),
    /// Set a key if its value is OLD; otherwise exit code 1 and the present value on standard error
    #[command(
        after_help = "Examples:\n  kvctl cas leader alice bob\n  kvctl cas --absent lock mine"
    )]
    Cas(With<Cas>),
    /// Carry out several writes to one shard at once, all or none; read from standard input, one a line
    #[command(
        after_help = "A line is one of\n  put KEY VALUE\n  append KEY VALUE\n  delete KEY\n  cas KEY OLD NEW\n\
        in words without spaces, or as a JSON array: [\"put\",\"a key\",\"a value\"]. Empty lines count for \
        nothing. All keys must be on one shard: a common {tag} in them sees to that. Where a cas finds another \
        value nothing at all is changed (exit code 1).\n\n\
        Example:\n  printf 'put {bob}a 1\\nput {bob}b 2\\n' | kvctl batch"
    )]
    Batch(With<Batch>),
    /// Add replica groups, each with the addresses of its members. For a member group other addresses
    /// of the same servers replace the ones that are known
    #[command(after_help = "Example:\n  kvctl join 3=10.0.0.1:7031,10.0.0.2:7031,10.0.0.3:7031")]
    Join(With<Join>),
    /// Remove replica groups and wait until they have handed over everything, however long that
    /// takes (or --wait SECS); for groups that have left, only wait. Exit code 1 when one joins again
    /// meanwhile, or holds something still when the time is over
    Leave(With<Leave>),
    /// Give a shard to a group and keep it there, whatever joins and leaves (until `unpin`)
    Move(With<Move>),
    /// Let a shard that was moved by hand follow joins and leaves again; it may move at once, so that
    /// groups are even
    Unpin(With<Unpin>),
    /// Print a configuration: which group owns which shard
    Query(With<Query>),
    /// Groups, members, leaders, log positions, shards and their moves; exit code 1 when a shard is not
    /// served, and the first line says so
    #[command(
        after_help = "Examples:\n  kvctl status --watch\n  kvctl status --json | jq .not_served"
    )]
    Status(With<Status>),
    /// Measure operations per second and latency in a closed loop
    Bench(With<Bench>),
}

impl Command {
    /// What holds for this command, given what stood before its name.
    pub fn common(&self, before: &Common) -> Common {
        let own = match self {
            Command::Get(with) => &with.common,
            Command::Mget(with) => &with.common,
            Command::Batch(with) => &with.common,
            Command::Put(with) | Command::Append(with) => &with.common,
            Command::Delete(with) => &with.common,
            Command::Cas(with) => &with.common,
            Command::Join(with) => &with.common,
            Command::Leave(with) => &with.common,
            Command::Move(with) => &with.common,
            Command::Unpin(with) => &with.common,
            Command::Query(with) => &with.common,
            Command::Status(with) => &with.common,
            Command::Bench(with) => &with.common,
        };
        Common {
            ctrlers: own
                .ctrlers
                .clone()
                .unwrap_or_else(|| before.ctrlers.clone()),
            timeout: own.timeout.unwrap_or(before.timeout),
        }
    }

    /// Whether these arguments ask for help where a value was expected: `kvctl put k --help` would
    /// print it, change nothing, and report success.
    pub fn is_help_for_value<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> bool {
        let is = |arg: &S, names: &[&str]| names.iter().any(|name| arg.as_ref() == *name);
        let command = args.iter().position(|a| is(a, &["put", "append", "cas"]));
        let help = args.iter().position(|a| is(a, &["-h", "--help"]));
        matches!((command, help), (Some(command), Some(help)) if help > command + 1)
    }

    /// The values for which `-` stands for standard input.
    pub fn values(&mut self) -> Vec<&mut OsString> {
        match self {
            Command::Put(with) | Command::Append(with) => vec![&mut with.own.value],
            Command::Cas(with) => with.own.values.iter_mut().collect(),
            _ => Vec::new(),
        }
    }
}

/// `get`
#[derive(Args, Clone, Debug)]
pub struct Get {
    /// The key, any bytes
    pub key: OsString,
    /// Print the value alone, without a newline after it; also where --json is set
    #[arg(long, env = "KV_RAW", value_parser = FalseyValueParser::new())]
    pub raw: bool,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// The flag of everything that prints.
#[derive(Args, Clone, Debug)]
pub struct Json {
    /// Print the result as JSON. What is no UTF-8 text stands in hexadecimal under a name that ends
    /// in _hex
    #[arg(long = "json", env = "KV_JSON", value_parser = FalseyValueParser::new())]
    pub json: bool,
}

/// `mget`
#[derive(Args, Clone, Debug)]
pub struct Mget {
    /// The keys, any bytes
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<OsString>,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `batch`
#[derive(Args, Clone, Debug)]
pub struct Batch {
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `delete`
#[derive(Args, Clone, Debug)]
pub struct Key {
    /// The key, any bytes
    pub key: OsString,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `put`, `append`
#[derive(Args, Clone, Debug)]
pub struct KeyValue {
    /// The key, any bytes
    pub key: OsString,
    /// The value, any bytes; `-` reads it from standard input
    #[arg(allow_hyphen_values = true)]
    pub value: OsString,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `cas`
#[derive(Args, Clone, Debug)]
#[command(
    override_usage = "kvctl cas [OPTIONS] <KEY> <OLD> <NEW>\n       kvctl cas [OPTIONS] --absent <KEY> <NEW>"
)]
pub struct Cas {
    /// The key, any bytes
    pub key: OsString,
    /// What the value must be, then what it becomes; any bytes; `-` reads one of them from
    /// standard input. With --absent only what it becomes
    #[arg(required = true, num_args = 1..=2, value_names = ["OLD", "NEW"], allow_hyphen_values = true)]
    pub values: Vec<OsString>,
    /// The key must be absent
    #[arg(long)]
    pub absent: bool,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `join`
#[derive(Args, Clone, Debug)]
pub struct Join {
    /// A group: its number and the addresses of all its members, such as
    /// 3=10.0.0.1:7031,10.0.0.2:7031,10.0.0.3:7031
    #[arg(required = true, value_name = "GID=HOST:PORT,…")]
    pub groups: Vec<GroupSpec>,
    /// Pass over groups that have ever joined: members, and those that left, which are not brought
    /// back (for scripts that run more than once)
    #[arg(long, env = "KV_IF_ABSENT", value_parser = FalseyValueParser::new())]
    pub if_absent: bool,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `leave`
#[derive(Args, Clone, Debug)]
pub struct Leave {
    /// The groups
    #[arg(required = true, value_name = "GID", value_parser = parse_id)]
    pub groups: Vec<GroupId>,
    /// Do not wait until the groups have handed over everything. They may be shut down only
    /// after that
    #[arg(long, env = "KV_NO_WAIT", value_parser = FalseyValueParser::new())]
    pub no_wait: bool,
    /// Wait no longer than this; the groups have left all the same. (--timeout is the time for one
    /// question to the controllers)
    #[arg(long, value_name = "SECS", value_parser = within(1..=31_536_000u64))]
    pub wait: Option<u64>,
    /// Also when no group remains: then no shard is served, and nobody takes what the groups hold,
    /// until another group joins
    #[arg(long)]
    pub last: bool,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `move`
#[derive(Args, Clone, Debug)]
pub struct Move {
    /// The shard, from 0
    #[arg(value_parser = within(0..=ctrler::config::SHARDS.end() - 1))]
    pub shard: ShardId,
    /// The group
    #[arg(value_name = "GID", value_parser = parse_id)]
    pub group: GroupId,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `unpin`
#[derive(Args, Clone, Debug)]
pub struct Unpin {
    /// The shard, from 0
    #[arg(value_parser = within(0..=ctrler::config::SHARDS.end() - 1))]
    pub shard: ShardId,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `query`
#[derive(Args, Clone, Debug)]
pub struct Query {
    /// The configuration's number, from 0; without it the latest
    #[arg(value_parser = within(0..=ConfigNum::MAX))]
    pub num: Option<ConfigNum>,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// `status`
#[derive(Args, Clone, Debug)]
pub struct Status {
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
    /// Look again and again until Ctrl-C, by default every 2 s
    #[arg(long, value_name = "SECS", num_args = 0..=1, default_missing_value = "2", value_parser = parse_time)]
    pub watch: Option<Duration>,
}

/// `bench`
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// Concurrent clients
    #[arg(long, env = "KV_BENCH_CLIENTS", default_value_t = 64, value_parser = within(1..=65_536u32))]
    pub clients: u32,
    /// Operations each client keeps under way
    #[arg(long, env = "KV_BENCH_DEPTH", default_value_t = 1, value_parser = within(1..=1024u32))]
    pub depth: u32,
    /// Bytes of a value
    #[arg(long, env = "KV_BENCH_VALUE", default_value_t = 256, value_parser = parse_value_size)]
    pub value: usize,
    /// Number of different keys
    #[arg(long, env = "KV_BENCH_KEYS", default_value_t = 100_000, value_parser = within(1..=u64::MAX))]
    pub keys: u64,
    /// Share of reads, from 0 to 1
    #[arg(long, env = "KV_BENCH_READS", default_value_t = 0.5, value_parser = parse_share)]
    pub reads: f64,
    /// Seconds to measure
    #[arg(long, env = "KV_BENCH_SECS", default_value_t = 10, value_parser = within(1..=86_400u64))]
    pub secs: u64,
    /// Connections per server that the clients share
    #[arg(long, env = "KV_BENCH_CONNECTIONS", default_value_t = 1, value_parser = within(1..=256u32))]
    pub connections: u32,
    /// Write every key once before measuring
    #[arg(long, env = "KV_BENCH_PRELOAD", value_parser = FalseyValueParser::new())]
    pub preload: bool,
    /// Where to measure the disk's own sync time: a directory on the disk the servers use
    #[arg(long, env = "KV_BENCH_DATA", default_value = ".", value_name = "DIR")]
    pub data: String,
    /// Leave the keys that were written ("bench:N"); without it they are deleted at the end
    #[arg(long, env = "KV_BENCH_KEEP", value_parser = FalseyValueParser::new())]
    pub keep: bool,
    /// How it prints.
    #[command(flatten)]
    pub json: Json,
}

/// Longest time an operation may be given, seconds.
const MAX_TIME: u64 = 86_400;

/// Parses a time: seconds (10, 0.5), or with a unit (500ms, 2s, 1m, 1h). At least 1 ms.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic());
    let (number, unit) = text.split_at(split.unwrap_or(text.len()));
    let scale = match unit {
        "ms" => Some(0.001),
        "" | "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    };
    let plain = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds = number.parse::<f64>().ok().filter(|_| plain).zip(scale);
    match seconds.map(|(number, scale)| number * scale) {
        Some(seconds) if (0.001..=MAX_TIME as f64).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!(
            "expected seconds, or a time such as 500ms, 2s or 1m; from 1ms to {MAX_TIME}"
        )),
    }
}

fn parse_value_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes <= crate::api::MAX_VALUE => Ok(bytes),
        _ => Err(format!(
            "expected a number of bytes up to {}",
            crate::api::MAX_VALUE
        )),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("expected a number from 0 to 1".into()),
    }
}

/// A group to join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSpec {
    /// Its number.
    pub group: GroupId,
    /// Its members' addresses.
    pub servers: Vec<String>,
}

impl FromStr for GroupSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<GroupSpec, String> {
        let (group, servers) = text.split_once('=').ok_or_else(|| {
            format!("{text:?} is not a group: expected GID=HOST:PORT,HOST:PORT,…")
        })?;
        Ok(GroupSpec {
            group: parse_id(group)?,
            servers: servers.parse::<Addresses>()?.0,
        })
    }
}
