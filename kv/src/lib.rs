//! The sharded key/value store: replica groups, shard migration, the client and kvctl.

pub mod api;
pub mod client;
pub mod command;
pub mod ctl;
pub mod machine;
pub mod mover;
pub mod server;
pub mod slot;
