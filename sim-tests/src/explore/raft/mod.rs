//! The consensus core in every state it can reach within a bound.
//!
//! **What runs** is the core of production (`raft_protocol::Core`), a copy per state, and around
//! each a disk that has what was written and reported, and the writes before that. Everything a
//! cluster does to it happens, in every order: a node stands for election, and asks again; a message arrives, late,
//! again, or never; a command or a read comes from a client; a heartbeat is due; a write reaches the
//! disk, at once or after other things happened; a node crashes, loses what is not on its disk, and
//! starts again.
//!
//! **What is judged** in every state are the invariants I1 to I6 of the simulation: one leader in a
//! term; logs match, in memory and on disk; a leader holds every entry ever seen committed in an
//! earlier term; whoever commits an index commits the same there; what is committed is synced on a
//! quorum, then and from then on; term, vote, commit and match indices never go back. And reads: a
//! read index is not below what anybody knew to be committed when the read was asked. The core's own
//! invariants are looked at after every step, and a panic is a broken promise.
//!
//! **The bound** ([`Bound`]) counts terms, commands, reads, heartbeats, crashes and lags over the
//! whole way. It does not count lost, late or repeated messages: each link between two nodes keeps
//! the newest `in_flight` messages, and what it keeps may arrive any number of times, or never, in
//! any order (a request for a read index once). With one, the default, a message may come as late as
//! you like, but never after a newer one on the same link.
//!
//! **What is left out on purpose, and why nothing is missed by it:**
//! - Time. A timeout passes when the search says so. A leader is taken for dead, and takes itself
//!   for deposed, at the moment at which that makes a difference: when somebody asks for a vote, or
//!   when it stands itself.
//! - Pre-votes, unless `pre_votes` is set. They promise nothing; here everybody may stand at any
//!   time, which is more than can happen. (With them, of two that ask at once one always comes
//!   first, as within the shortest time.)
//! - Pre-votes asked for again within a timeout: they promise nothing, and the next timeout asks the
//!   same. (A candidate's requests are repeated.)
//! - Answers nobody waits for any more (`Local::is_deaf_to`), and numbers that only count
//!   (`Core::canonical`).
//! - The other nodes' turn to stand first: until somebody does, the nodes differ in name alone.
//! - Ways that come to a known state and spent no less on it.
//!
//! **What is left out, and is not covered:** snapshots and compaction, damage and abstention, births,
//! changes of membership, and limits of the pipeline; and whether anything ever gets done: safety
//! only.

mod check;
mod local;
mod model;
mod tables;
mod words;

pub use model::Raft;

use super::search::{Limits, breadth_first};
use std::process::ExitCode;
use world::clock::Duration;

/// What is explored. Counts are of a whole way, all nodes together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Voting members, at most five.
    pub nodes: u8,
    /// The highest term anybody stands in.
    pub terms: u8,
    /// Commands proposed; the first entry of each leader is not counted.
    pub entries: u8,
    /// Reads asked.
    pub reads: u8,
    /// Heartbeat rounds for no other reason than that they are due.
    pub beats: u8,
    /// Crashes.
    pub crashes: u8,
    /// Steps after which a write is not yet on disk when other things happen to the same node.
    /// Without them a crash loses nothing but memory.
    pub lags: u8,
    /// The newest messages from one node to one other that may still arrive: in any order, any
    /// number of times, or never.
    pub in_flight: u8,
    /// Explore pre-votes, too.
    pub pre_votes: bool,
    /// An append carries all there is, instead of one entry.
    pub whole_appends: bool,
}

impl Default for Bound {
    /// Three nodes in one term, a link that keeps the newest message, and nothing else.
    fn default() -> Bound {
        Bound {
            nodes: 3,
            terms: 1,
            entries: 0,
            reads: 0,
            beats: 0,
            crashes: 0,
            lags: 0,
            in_flight: 1,
            pre_votes: false,
            whole_appends: false,
        }
    }
}

/// What the program is told.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Voting members
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=5))]
    nodes: u8,
    /// The highest term anybody stands in
    #[arg(long, default_value_t = 2)]
    terms: u8,
    /// Commands proposed
    #[arg(long, default_value_t = 0)]
    entries: u8,
    /// Reads asked
    #[arg(long, default_value_t = 0)]
    reads: u8,
    /// Heartbeat rounds that are due
    #[arg(long, default_value_t = 0)]
    beats: u8,
    /// Crashes
    #[arg(long, default_value_t = 1)]
    crashes: u8,
    /// Steps after which a write is not yet on disk when other things happen to the node
    #[arg(long, default_value_t = 1)]
    lags: u8,
    /// The newest messages from one node to one other that may still arrive
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    in_flight: u8,
    /// Explore pre-votes, too
    #[arg(long)]
    pre_votes: bool,
    /// An append carries all there is
    #[arg(long)]
    whole_appends: bool,
    /// Seconds after which to stop
    #[arg(long, default_value_t = 600)]
    secs: u64,
    /// States after which to stop
    #[arg(long, default_value_t = 50_000_000)]
    states: usize,
}

impl Options {
    fn bound(&self) -> Bound {
        Bound {
            nodes: self.nodes,
            terms: self.terms,
            entries: self.entries,
            reads: self.reads,
            beats: self.beats,
            crashes: self.crashes,
            lags: self.lags,
            in_flight: self.in_flight,
            pre_votes: self.pre_votes,
            whole_appends: self.whole_appends,
        }
    }
}

/// The program.
pub fn run(options: &Options) -> ExitCode {
    let bound = options.bound();
    println!("{bound:?}");
    let limits = Limits {
        time: Duration::from_secs(options.secs),
        states: options.states,
    };
    let mut model = Raft::new(bound);
    let report = breadth_first(&mut model, limits, |report| println!("  {report}"));
    let (nodes, messages, steps) = model.sizes();
    println!("{report}");
    println!("  {nodes} distinct nodes, {messages} messages, {steps} steps of the core");
    match &report.broken {
        Some((way, _)) => {
            println!("{}", Raft::transcript(bound, way));
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}
