//! The shard controller: which group owns which shard.

pub mod api;
pub mod client;
pub mod config;
pub mod rebalance;
pub mod server;
