//! The driver: one task owns the consensus core, one the log, one the state machine.
//!
//! ```text
//!  clients ──propose, read──▶ ┌───────────┐ ──batches──▶ log task ──▶ disk
//!  peers ───────mail────────▶ │ Raft task │ ◀─persisted──┘
//!                             └───────────┘ ──committed──▶ apply task ──▶ rows, replies
//! ```
//! Nothing that blocks runs in the Raft task. A promise leaves only when the log task has reported
//! the number of the write it rests on.

mod admission;
mod apply;
mod consensus;
mod error;
mod handle;
mod log_task;
mod meet;
mod options;
mod pace;
#[cfg(test)]
mod parts;
mod peers;
mod shared;
mod space;
mod start;
mod status;
mod throttle;
mod told;
mod transfer;
mod unsent;
mod wire;

pub use error::{Fatal, ProposeError, ReadError};
pub use handle::Replica;
pub use options::Options;
pub use space::FullDisk;
pub use status::ReplicaStatus;

/// Channel of consensus mail and calls on a server's port. Applications use others.
pub const CHANNEL: u8 = 0;
