//! Shards on the move: a random walk over several groups, and named schedules.

mod ages;
mod chunks;
mod client;
mod group;
mod late;
mod rules;
mod steps;
mod walk;
mod world;
mod wounds;
