//! The program `kv`: its flags and its life. `kvctl up` runs it too, as a child process of its own.

use crate::api::{CHANNEL, KvStatus, Request, Response};
use crate::machine::command::LEVEL;
use crate::server::{self, ServerOptions};
use clap::Parser;
use ctrler::client::Client;
use ctrler::program::{self, Addresses, Peers};
use raft::replica::Options;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use world::disk::Disk;

/// Time for the controllers to tell which configuration is the newest.
const READY_DEADLINE: Duration = Duration::from_secs(1);

/// A server of a replica group of Holdfast: holds the shards that the controllers assign to its
/// group.
///
/// All of --peers must be up once, when the group is born; after that a majority is enough. The
/// same --peers go to every member. A group takes part once it has joined: kvctl join.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "kv",
    version,
    after_help = "Logs go to standard error; RUST_LOG sets their level (info by default). SIGTERM and SIGINT \
                  stop the server cleanly."
)]
pub struct Args {
    /// Number of this server's replica group, from 1; a number is never used for another group again
    #[arg(long, env = "KV_GROUP", value_name = "GID", value_parser = program::parse_id)]
    pub group: u64,
    /// Number of this server among the peers, from 1
    #[arg(long, env = "KV_ID", value_name = "ID", value_parser = program::parse_id)]
    pub id: u64,
    /// All members of the group, this one included: where they reach each other and clients reach them
    #[arg(long, env = "KV_PEERS", value_name = "ID=HOST:PORT,…")]
    pub peers: Peers,
    /// The shard controllers
    #[arg(long, env = "KV_CTRLERS", value_name = "HOST:PORT,…")]
    pub ctrlers: Addresses,
    /// Directory of this server's data; made when absent, and used by no other server
    #[arg(long, env = "KV_DATA", value_name = "DIR")]
    pub data: PathBuf,
    /// Address to listen on [default: all interfaces, at the port of this server's peer entry]
    #[arg(long, env = "KV_LISTEN", value_name = "HOST:PORT", value_parser = program::parse_address)]
    pub listen: Option<String>,
    /// Memory for the connections that this server accepts, MiB, from 64 [default: a sixteenth of the
    /// machine's or container's memory, from 64 to 128]
    #[arg(long, env = "KV_CONNECTION_MEMORY", value_name = "MIB", value_parser = program::parse_memory)]
    pub connection_memory: Option<usize>,
    /// End when standard input ends (for a parent that starts this as its child)
    #[arg(long, hide = true)]
    pub exit_with_stdin: bool,
    /// Liveness: ask the server running with these flags whether it answers, and exit with 0 or 1
    #[arg(long)]
    pub health: bool,
    /// Readiness: ask it whether a leader is known and the newest
    /// configuration is entered (as far as the controllers answer); exit with 0, or with 1 and the reason
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
            Ok(Response::Status(page)) => ready(args.group, &page, args.ctrlers.0).await,
            other => Err(format!("unexpected answer: {other:?}")),
        };
    }
    program::init_tracing()?;
    let shutdown = program::shutdown(args.exit_with_stdin)?;
    let disk = Disk::real(args.data).map_err(|e| e.to_string())?;
    let mut replica = Options::new(args.group, args.id, args.peers.0);
    replica.limits = program::limits(args.connection_memory)?;
    replica.max_unsent_bytes = replica.limits.unsent();
    replica.level = LEVEL;
    let options = ServerOptions {
        replica,
        listen,
        ctrlers: args.ctrlers.0,
    };
    server::run(options, disk, shutdown)
        .await
        .map_err(|e| e.to_string())
}

/// Whether a member is ready: it knows a leader, and has entered the newest configuration that the
/// controllers can tell of. Controllers that do not answer, and groups that never joined (which enter
/// none), leave it at the leader: what is served is served without them.
async fn ready(group: u64, page: &KvStatus, ctrlers: Vec<String>) -> Result<(), String> {
    program::ready(&page.replica)?;
    let client = Client::new(ctrlers, Arc::new(program::client_hello));
    let newest = async {
        client.record(group, READY_DEADLINE).await.ok()??;
        client.cluster(READY_DEADLINE).await.ok()
    };
    let newest = world::clock::timeout(READY_DEADLINE, newest).await;
    match newest {
        Ok(Some((.., newest))) if page.config < newest => Err(format!(
            "in configuration {} and not in the newest, {newest}, yet",
            page.config
        )),
        _ => Ok(()),
    }
}
