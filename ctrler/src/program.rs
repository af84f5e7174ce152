//! What the server binaries share: flags' values, tracing, the runtime, signals, health, errors.

use crate::address::{check_address, port};
use bytes::Bytes;
use clap::{Command, Parser};
use raft::replica::ReplicaStatus;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::io::Write;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tracing_subscriber::EnvFilter;
use world::net::{DEFAULT_MEMORY, Hello, LEAST_MEMORY, Limits, Link, PROTOCOL};

/// Threads that run a server's tasks: one for the Raft task, one beside it for connections; more
/// gain nothing, since disk work has threads of its own.
const WORKERS: usize = 2;
/// On fewer cores one thread carries a server (its disk has threads of its own): handing work
/// from thread to thread costs more there than a second thread gains.
const MULTI_THREAD_CORES: usize = 4;
/// How long a health check waits for its answer.
const HEALTH_DEADLINE: Duration = Duration::from_secs(3);
/// Largest `--connection-memory`, MiB: no part of it is 4 GiB.
const MAX_MEMORY_MIB: usize = 8191;
/// Most members of one group.
const MAX_PEERS: usize = crate::config::MAX_SERVERS;

/// The value of `--peers`: "1=HOST:PORT,2=HOST:PORT,…".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers(pub BTreeMap<u64, String>);

impl FromStr for Peers {
    type Err = String;

    fn from_str(text: &str) -> Result<Peers, String> {
        let mut peers = BTreeMap::new();
        for part in text.split(',').map(str::trim) {
            let (id, address) = part.split_once('=').ok_or_else(|| {
                format!("{part:?} is not a peer: expected ID=HOST:PORT,ID=HOST:PORT,… such as 1=10.0.0.1:7000")
            })?;
            let id = parse_id(id)?;
            check_address(address)?;
            if peers.values().any(|known| known == address) {
                return Err(format!(
                    "{address} is given twice: expected one address per peer"
                ));
            }
            if peers.insert(id, address.to_string()).is_some() {
                return Err(format!("peer {id} is given twice: expected each id once"));
            }
        }
        match peers.len() {
            1..=MAX_PEERS => Ok(Peers(peers)),
            n => Err(format!("{n} peers: expected 1 to {MAX_PEERS}")),
        }
    }
}

impl Peers {
    /// The address of a node that must be among them.
    pub fn own(&self, id: u64) -> Result<&str, String> {
        self.0.get(&id).map(String::as_str).ok_or_else(|| {
            let ids: Vec<String> = self.0.keys().map(u64::to_string).collect();
            format!(
                "--id {id} is not among --peers: expected one of {}",
                ids.join(", ")
            )
        })
    }

    /// Where to listen: as given, or on all interfaces at the port of the own entry (those of IPv6 too
    /// where that entry is an address of it).
    pub fn listen(&self, id: u64, given: Option<&str>) -> Result<String, String> {
        let own = self.own(id)?;
        Ok(match given {
            Some(given) => given.to_string(),
            None => {
                let all = if own.starts_with('[') {
                    "[::]"
                } else {
                    "0.0.0.0"
                };
                // Its form was checked when it was parsed.
                format!("{all}:{}", port(own).unwrap_or_default())
            }
        })
    }
}

/// A list of addresses: "HOST:PORT,HOST:PORT,…".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(pub Vec<String>);

impl FromStr for Addresses {
    type Err = String;

    fn from_str(text: &str) -> Result<Addresses, String> {
        let mut addresses: Vec<String> = Vec::new();
        for address in text.split(',').map(str::trim) {
            check_address(address)?;
            if addresses.iter().any(|known| known == address) {
                return Err(format!(
                    "{address} is given twice: expected each address once"
                ));
            }
            addresses.push(address.to_string());
        }
        Ok(Addresses(addresses))
    }
}

/// A program's command without the variables of the environment that are empty: an empty one counts
/// as unset, as in a file of settings where it is left blank.
pub fn without_empty_variables(command: Command) -> Command {
    let names: Vec<String> = command
        .get_subcommands()
        .map(|c| c.get_name().to_string())
        .collect();
    let command = names.into_iter().fold(command, |command, name| {
        command.mut_subcommand(name, without_empty_variables)
    });
    command.mut_args(|arg| match arg.get_env().and_then(std::env::var_os) {
        Some(value) if value.is_empty() => arg.env(None::<&str>),
        _ => arg,
    })
}

/// Parses a server's flags; ends the program with what is wrong with them.
pub fn parse<P: Parser>(args: impl IntoIterator<Item = OsString>) -> P {
    let matches = without_empty_variables(P::command()).get_matches_from(args);
    P::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// Parses the id of a node or a group: a number from 1.
pub fn parse_id(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(id) if id != 0 => Ok(id),
        _ => Err(format!("{text:?} is not an id: expected a number from 1")),
    }
}

/// A parser of whole numbers in a range, which names the range when it refuses.
pub fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text: &str| match text.parse() {
        Ok(number) if range.contains(&number) => Ok(number),
        _ => Err(format!(
            "expected a whole number from {} to {}",
            range.start(),
            range.end()
        )),
    }
}

/// Parses an address for a flag.
pub fn parse_address(text: &str) -> Result<String, String> {
    check_address(text).map(|()| text.to_string())
}

/// Logs to standard error what `RUST_LOG` asks for, by default `info`. An unreadable `RUST_LOG`
/// is an error that says so.
pub fn init_tracing() -> Result<(), String> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text).map_err(|error| {
            format!("RUST_LOG={text:?}: {error}; expected levels such as info or raft=debug,info")
        })?,
        _ => EnvFilter::new("info"),
    };
    // Colours are for people, not for files.
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(ansi);
    let _ = log.with_writer(std::io::stderr).try_init();
    Ok(())
}

/// The limits of a server of this process.
///
/// `memory`: MiB for the connections that it accepts; by default a sixteenth of the machine's or the
/// container's memory, from 64 to 128 MiB. This process may have as many files open as the system lets
/// it; where that is not enough for the usual number of connections besides a server's own files there
/// are fewer, and where it is not enough for [`LEAST_CONNECTIONS`](world::net::LEAST_CONNECTIONS) the
/// error says how many files are needed.
pub fn limits(memory: Option<usize>) -> Result<Limits, String> {
    let memory = match memory {
        Some(mib) => mib.saturating_mul(1 << 20),
        None => default_memory(world::memory::available()),
    };
    let limits = Limits {
        memory,
        ..Limits::default()
    };
    let Some(open_files) = world::files::allow_open_files() else {
        return Ok(limits);
    };
    let wanted = limits.max_connections;
    let limits = limits.within(open_files).map_err(|needed| {
        format!(
            "this process may have {open_files} files open, and a server needs {needed}: raise the \
             limit (ulimit -n)"
        )
    })?;
    let connections = limits.max_connections;
    if connections < wanted {
        tracing::warn!(
            open_files,
            wanted,
            connections,
            "fewer clients than usual can be served at once: this process may not have more files open"
        );
    }
    Ok(limits)
}

fn default_memory(available: Option<u64>) -> usize {
    let part = available.and_then(|bytes| usize::try_from(bytes / 16).ok());
    part.unwrap_or(DEFAULT_MEMORY)
        .clamp(LEAST_MEMORY, DEFAULT_MEMORY)
}

/// Parses the value of `--connection-memory`, MiB.
pub fn parse_memory(text: &str) -> Result<usize, String> {
    within(LEAST_MEMORY >> 20..=MAX_MEMORY_MIB)(text)
}

/// Runs the whole of a program on a runtime of its own and returns its exit code: 0, or 1 after
/// an error was printed to standard error.
pub fn run<E: Display>(program: impl Future<Output = Result<(), E>>) -> i32 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = if cores < MULTI_THREAD_CORES {
        tokio::runtime::Builder::new_current_thread()
    } else {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(WORKERS);
        builder
    };
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(format_args!("cannot start the runtime: {error}")),
    };
    let result = runtime.block_on(program);
    // Dropping it would wait for a thread that may be reading standard input for ever.
    std::mem::forget(runtime);
    match result {
        Ok(()) => 0,
        Err(error) => fail(error),
    }
}

/// Prints an error and returns the exit code that goes with it.
pub fn fail(error: impl Display) -> i32 {
    // Nobody has to hear it.
    let _ = writeln!(std::io::stderr(), "error: {error}");
    1
}

/// Resolves when the program shall end: at SIGTERM or SIGINT, or, if asked for, when standard
/// input ends (the parent process is gone, however it ended).
pub fn shutdown(with_stdin: bool) -> Result<impl Future<Output = ()> + Send + 'static, String> {
    let signal =
        world::signal::termination().map_err(|e| format!("cannot wait for signals: {e}"))?;
    Ok(async move {
        tokio::select! {
            biased;
            () = signal => {}
            () = stdin_ended(), if with_stdin => {}
        }
    })
}

async fn stdin_ended() {
    let mut stdin = tokio::io::stdin();
    let mut scratch = [0; 256];
    while !matches!(stdin.read(&mut scratch).await, Ok(0) | Err(_)) {}
}

/// The hello of a client.
pub fn client_hello() -> Hello {
    Hello {
        protocol: PROTOCOL,
        cluster: None,
        group: None,
        node: 0,
        disk: 0,
        boot: 0,
        nonce: 0,
        to: None,
        before: Vec::new(),
        level: 1,
    }
}

/// Asks the server that listens on `listen` of this machine for its status, which is the answer; for
/// health checks.
pub async fn health(listen: &str, channel: u8, status: Bytes) -> Result<Bytes, String> {
    let target = match listen.rsplit_once(':') {
        Some(("0.0.0.0", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_string(),
    };
    let link = Link::new(
        target,
        Limits::default(),
        Arc::new(client_hello),
        Arc::new(|_: &Hello| Ok(())),
    );
    let answer = link.call(channel, status, HEALTH_DEADLINE).await;
    answer.map_err(|error| error.to_string())
}

/// What a member that is ready knows: who leads.
pub fn ready(status: &ReplicaStatus) -> Result<(), String> {
    match (status.leader, &status.not_voting) {
        (Some(_), _) => Ok(()),
        (None, Some(why)) => Err(format!(
            "no leader is known; this member does not vote: {why}"
        )),
        (None, None) => Err("no leader is known: a majority of the members must run".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_connections_follows_the_machine_within_bounds() {
        let mib = |available: Option<u64>| default_memory(available.map(|gib| gib << 30)) >> 20;
        assert_eq!(mib(None), 128);
        assert_eq!(mib(Some(0)), 64);
        assert_eq!(default_memory(Some(1536 << 20)) >> 20, 96);
        assert_eq!(mib(Some(1 << 30)), 128);
        assert_eq!(parse_memory("64"), Ok(64));
        for wrong in ["63", "8192", "1G", "", "-1"] {
            let said = parse_memory(wrong).expect_err(wrong);
            assert!(said.contains("from 64 to 8191"), "{said}");
        }
    }

    #[test]
    fn all_interfaces_are_listened_on_in_the_own_entrys_family() {
        let peers: Peers = "1=[::1]:7001,2=127.0.0.1:7002,3=db3.example:7003"
            .parse()
            .expect("well formed");
        let listen = |id, given| peers.listen(id, given);
        assert_eq!(listen(1, None), Ok("[::]:7001".into()));
        assert_eq!(listen(2, None), Ok("0.0.0.0:7002".into()));
        assert_eq!(listen(3, None), Ok("0.0.0.0:7003".into()));
        assert_eq!(listen(1, Some("[::1]:7000")), Ok("[::1]:7000".into()));
        assert!(listen(4, None).is_err());
    }
}
