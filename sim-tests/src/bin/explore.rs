//! Bounded exhaustive checks of real code, to deeper bounds than `cargo test` has time for.

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    use clap::Parser as _;
    match Explore::parse() {
        Explore::Raft(options) => sim_tests::explore::raft::run(&options),
        Explore::Shards(options) => sim_tests::explore::shards::run(&options),
    }
}

/// Visits every state within a bound and judges each.
#[cfg(not(madsim))]
#[derive(clap::Parser)]
enum Explore {
    /// The consensus core: elections, replication, reads, crashes.
    Raft(sim_tests::explore::raft::Options),
    /// The shard machine and its mover: moves, leaves, sessions.
    Shards(sim_tests::explore::shards::Options),
}
