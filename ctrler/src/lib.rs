//! The shard controller: which group owns which shard.
//!
//! Configurations, numbered from 0, are a replicated state machine: [`machine`] applies changes
//! judged by [`change`], [`rebalance`] decides who owns what, [`history`] keeps every
//! configuration, [`server`] is the machine behind a port, [`client`] asks it, and [`program`] is
//! what the server binaries share.

pub mod address;
pub mod api;
mod bounded;
pub mod change;
pub mod client;
pub mod command;
pub mod config;
mod courier;
pub mod history;
pub mod machine;
pub mod program;
pub mod rebalance;
pub mod server;
mod stream;
