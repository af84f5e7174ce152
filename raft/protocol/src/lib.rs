//! Raft consensus as a pure state machine: no async, clock, file, socket or entropy.
//!
//! Everything that happens to the core is one [`Input`]; everything it wants done is one
//! [`Output`], whose fields are listed in the order in which they are to be carried out.
//! Time arrives as [`Input::Tick`], chance as a seed.

mod core;
mod input;
mod message;
mod types;

pub use crate::core::{Core, Settings, Start, Status};
pub use input::{
    Input, Output, Proposed, ReadOutcome, ReadRefusal, RoleChange, SnapshotMeta, Write,
};
pub use message::{Envelope, Message};
pub use types::{
    Abstain, Body, Configuration, DiskId, Entry, HardState, Index, NodeId, Payload, Role, Term,
};
