//! A kv server: the replica of a group behind its port, and the mover that runs its errands.

use raft::replica::{Fatal, Options};
use std::future::Future;
use world::disk::Disk;

/// What a kv server is started with.
#[derive(Clone)]
pub struct ServerOptions {
    /// The replica.
    pub replica: Options,
    /// Address to listen on.
    pub listen: String,
    /// Controllers, "host:port".
    pub ctrlers: Vec<String>,
}

/// Runs a kv server until `shutdown` resolves (`Ok`) or it cannot go on. The same in production
/// and in simulation.
pub async fn run(
    options: ServerOptions,
    disk: Disk,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Fatal> {
    let _ = (options, disk, shutdown);
    todo!()
}
