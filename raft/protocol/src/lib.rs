//! Raft consensus as a pure state machine: no async, clock, file, socket or entropy.
//!
//! Everything that happens to the core is one [`Input`]; everything it wants done is one
//! [`Output`], whose fields are listed in the order in which they are to be carried out.
//! Time arrives as [`Input::Tick`], chance as a seed.

/// Says why the core does what it does; nothing is formatted unless asked for.
macro_rules! why {
    ($core:expr, $($text:tt)*) => {
        if $core.settings.explain {
            let reason = format!($($text)*);
            $core.out.reasons.push(reason);
        }
    };
}

mod canonical;
mod chance;
mod core;
mod election;
mod follower;
mod input;
mod invariants;
mod lead;
mod log;
mod message;
mod on_disk;
mod progress;
mod reads;
mod replication;
mod snapshot;
mod types;
mod writes;

pub use crate::core::{Core, Settings, Start, Status};
pub use input::{
    Fetch, Input, Output, Proposed, ReadOutcome, ReadRefusal, RoleChange, SnapshotMeta, Write,
};
pub use invariants::{Facts, check_transition};
pub use message::{AppendVerdict, Envelope, HeartbeatVerdict, Message};
pub use types::{
    Abstain, Body, Configuration, DiskId, Entry, HardState, Index, MAX_NUMBER, NodeId, Payload,
    Role, Term,
};
