//! A controller server: the replica of the controllers' state behind its port.

use raft::replica::{Fatal, Options};
use std::future::Future;
use world::disk::Disk;

/// What a controller is started with.
#[derive(Clone)]
pub struct ServerOptions {
    /// The replica (group 0).
    pub replica: Options,
    /// Address to listen on.
    pub listen: String,
    /// Number of shards if this start gives birth to the cluster.
    pub shards: u32,
}

/// Runs a controller until `shutdown` resolves (`Ok`) or it cannot go on. The same in production
/// and in simulation.
pub async fn run(
    options: ServerOptions,
    disk: Disk,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Fatal> {
    let _ = (options, disk, shutdown);
    todo!()
}
