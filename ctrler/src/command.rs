//! The program `ctrler`: its flags and its life. `kvctl up` runs it too, as a child process of its own.

use crate::api::{CHANNEL, Request, Response};
use crate::machine::LEVEL;
use crate::program::{self, Peers};
use crate::server::{self, ServerOptions};
use clap::Parser;
use raft::replica::Options;
use std::ffi::OsString;
use std::path::PathBuf;
use world::disk::Disk;

/// A shard controller of Holdfast: one of the servers that decide which replica group owns which
/// shard.
///
/// All of --peers must be up once, when the cluster is born; after that a majority is enough. The
/// same --peers go to every controller.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "ctrler",
    version,
    after_help = "Logs go to standard error; RUST_LOG sets their level (info by default). SIGTERM and SIGINT \
                  stop the server cleanly."
)]
pub struct Args {
    /// Number of this server among the peers, from 1
    #[arg(long, env = "CTRLER_ID", value_name = "ID", value_parser = program::parse_id)]
    pub id: u64,
    /// All controllers, this one included: where they reach each other and clients reach them
    #[arg(long, env = "CTRLER_PEERS", value_name = "ID=HOST:PORT,…")]
    pub peers: Peers,
    /// Directory of this server's data; made when absent, and used by no other server
    #[arg(long, env = "CTRLER_DATA", value_name = "DIR")]
    pub data: PathBuf,
    /// Address to listen on [default: all interfaces, at the port of this server's peer entry]
    #[arg(long, env = "CTRLER_LISTEN", value_name = "HOST:PORT", value_parser = program::parse_address)]
    pub listen: Option<String>,
    /// Number of shards, fixed when the cluster is born
    #[arg(
        long,
        env = "CTRLER_SHARDS",
        value_name = "N",
        default_value_t = crate::config::DEFAULT_SHARDS,
        value_parser = program::within(crate::config::SHARDS)
    )]
    pub shards: u32,
    /// Memory for the connections that this server accepts, MiB, from 64 [default: a sixteenth of the
    /// machine's or container's memory, from 64 to 128]
    #[arg(long, env = "CTRLER_CONNECTION_MEMORY", value_name = "MIB", value_parser = program::parse_memory)]
    pub connection_memory: Option<usize>,
    /// End when standard input ends (for a parent that starts this as its child)
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
    /// Liveness: ask the server running with these flags whether it answers, and exit with 0 or 1
    #[arg(long)]
    pub health: bool,
    /// Readiness: ask it whether a leader is known; exit with 0, or with 1 and the reason
    #[arg(long)]
    pub ready: bool,
}

/// Runs the program to its end and returns its exit code. `args`: its name and its flags.
pub fn main(args: impl IntoIterator<Item = OsString>) -> i32 {
    program::run(start(program::parse(args)))
}

async fn start(args: Args) -> Result<(), String> {
    let listen = args.peers.listen(args.id, args.listen.as_deref())?;
    if args.health || args.ready {
        let status = postcard::to_stdvec(&Request::Status).map_err(|e| e.to_string())?;
        let answer = program::health(&listen, CHANNEL, status.into()).await?;
        return match postcard::from_bytes(&answer) {
            _ if !args.ready => Ok(()),
            Ok(Response::Status(page)) => program::ready(&page),
            other => Err(format!("unexpected answer: {other:?}")),
        };
    }
    program::init_tracing()?;
    let shutdown = program::shutdown(args.exit_with_stdin)?;
    let disk = Disk::real(args.data).map_err(|e| e.to_string())?;
    let mut replica = Options::new(0, args.id, args.peers.0);
    replica.limits = program::limits(args.connection_memory)?;
    replica.max_unsent_bytes = replica.limits.unsent();
    replica.level = LEVEL;
    let options = ServerOptions {
        replica,
        listen,
        shards: args.shards,
    };
    server::run(options, disk, shutdown)
        .await
        .map_err(|e| e.to_string())
}
