//! Bounded exhaustive checks: every state that real code can reach within a bound.
//!
//! A model wraps the code that runs in production, takes one step at a time in every order that the
//! bound allows, and judges each state it comes to. [`search`] walks; what a step is, and what must
//! hold, is the model's. `cargo test` walks small bounds, the program `explore` deeper ones.

pub mod raft;
pub mod search;
pub mod shards;
