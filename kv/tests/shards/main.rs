//! Shards on the move: a random walk over several groups, and named schedules.

mod client;
mod named;
mod walk;
mod world;
