//! Machines, networks and clusters inside one simulation.

mod bounds;
pub mod campaign;
mod held;
pub mod invariants;
pub mod kv_cluster;
pub mod ledger;
pub mod nodes;
pub mod ownership;
pub mod probe;
pub mod raft_cluster;
mod reads;
mod sessions;
pub mod trace;
pub mod unrest;
pub mod wire;
pub mod workload;

pub use kv_cluster::{KvCluster, KvOptions};
pub use nodes::{Key, Nodes};
pub use raft_cluster::{RaftCluster, RaftOptions};
pub use workload::{Book, Load, Mix};
