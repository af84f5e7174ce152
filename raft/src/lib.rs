//! A Raft replica: the consensus core driven over a real or simulated network and disk.

pub mod identity;
pub mod log;
pub mod machine;
pub mod replica;
pub mod session;
pub mod store;

pub use machine::{At, Machine};
pub use raft_protocol as protocol;
pub use replica::{ProposeError, ReadError, Replica};
