//! The shard machine in every state it can reach within a bound.
//!
//! **Real** are the machine with its sessions and chunks (`kv::machine`), what its mover decides
//! (`kv::mover::plan`: which errands, what an answer, a record or an install leads to), and the
//! controllers' judgement of reports and of a complete leave (`ctrler::change::settled`,
//! `Record::has_left`). The **model's** are the configurations, the network, the client, and what
//! in the mover only waits and calls (`work`, `answer`). A group is one machine with a log that
//! loses nothing: consensus is the other check's subject. For every command the machine is loaded
//! afresh from its rows, so every member restarts between any two commands.
//!
//! **What happens**, in any order: a message between groups arrives late, again, or never; the
//! same for commands that a leader has decided on; any configuration is proposed at any time, by
//! leaders with wrong ideas too; reports reach the controllers late and again; a group whose leave
//! is complete is shut down, or is not, and is started again when it joins again; the client of each
//! shard has all its writes in flight at once, sends each to any group, again and again, with
//! whatever it had acknowledged by then.
//!
//! **Held to** in every state: the copy that holds a shard has every write that took effect, once
//! and in order, and so has what a get finds (I9, I12, I13); no two groups accept a shard (I11);
//! a shard that is served or given and not yet asked for is accepted (I21); no rows lie about that
//! are neither of a shard there nor to be swept (I14). At every step: configuration n + 1 after n
//! (I15); a refused command changes no row; a group is shut down with nothing in it. And the end
//! (newest configuration everywhere, nothing owed, all reported, swept and acknowledged, every leave
//! complete that can be) is within reach of every state, all lost that is under way in it.
//!
//! **The bound.** Three groups, two shards at most, a given history of configurations, one
//! session for each shard with a given number of writes, no other load. No time passes: no session
//! expires, though the groups' clocks differ. Answers come from the newest applied state of the
//! group asked, not from a lagging member. A copy is swept in at most two steps and travels in at
//! most two chunks. Birth ids are right. Values are short: limits are not the subject.
//!
//! **Why states are few.** A group's state is kept once, and so is what a command makes of it: the
//! whole is some numbers. Messages are never taken back, since any may still come late: what is
//! under way only grows. And all that could be sent is sent: a message need not be delivered, so
//! sending it when it is possible adds to what can happen and takes nothing away. Only for the way
//! back from the end this would be too kind; there, every state begins with nothing under way.

mod check;
mod errands;
mod group;
mod message;
mod model;
mod scenario;
mod session;
mod transcript;
mod walk;

pub use scenario::{Scenario, histories};
pub use walk::{Summary, explore};

use super::search::Limits;
use std::process::ExitCode;
use std::time::Duration;
use world::clock::now;

/// What the program is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Owners in each configuration, a letter for each shard: "AB BA ..", or "A B A B"
    #[arg(long)]
    history: Option<String>,
    /// Without --history: all histories of so many configurations
    #[arg(long, default_value_t = 5)]
    configs: usize,
    /// Without --history: of so many shards, one or two
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Writes of each shard's session, at most 9
    #[arg(long, default_value_t = 2)]
    writes: u8,
    /// Reports reach the controllers late and repeated
    #[arg(long)]
    late_reports: bool,
    /// Configurations are made while everything goes on
    #[arg(long)]
    one_by_one: bool,
    /// Shard 0 does not fit one chunk
    #[arg(long)]
    two_chunks: bool,
    /// Seconds after which to stop, for each history
    #[arg(long, default_value_t = 600)]
    secs: u64,
    /// States after which to stop, for each history
    #[arg(long, default_value_t = 50_000_000)]
    states: usize,
}

/// The program.
pub fn run(options: &Options) -> ExitCode {
    let began = now();
    let limits = Limits {
        time: Duration::from_secs(options.secs),
        states: options.states,
    };
    let all = match &options.history {
        Some(history) => vec![history.clone()],
        None => histories(options.shards.clamp(1, 2), options.configs.max(2)),
    };
    let (mut states, mut whole) = (0, true);
    for history in &all {
        let shards = history.split_whitespace().next().map_or(0, str::len);
        let scenario = Scenario {
            late_reports: options.late_reports,
            one_by_one: options.one_by_one,
            two_chunks: options.two_chunks,
            ..Scenario::new(history, &vec![options.writes; shards])
        };
        match explore(&scenario, limits, |report| println!("  {report}")) {
            Ok(summary) => {
                println!("{summary}");
                if summary.broken.is_some() {
                    return ExitCode::FAILURE;
                }
                states += summary.report.states;
                whole &= summary.report.exhausted && summary.cores.is_some();
            }
            Err(reason) => {
                eprintln!("explore: {reason}");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{} histories, {states} states, {}exhausted, {:.1} s",
        all.len(),
        if whole { "" } else { "NOT " },
        began.elapsed().as_secs_f64()
    );
    ExitCode::SUCCESS
}
