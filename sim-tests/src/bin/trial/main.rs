//! Trials of real servers, which print figures and judge nothing.
//!
//! ```text
//! cargo run --release -p sim-tests --bin trial -- hostile             # all attacks, each on new servers
//! cargo run --release -p sim-tests --bin trial -- hostile half-frames unread-values
//! cargo run --release -p sim-tests --bin trial -- failover --kills 100
//! cargo run --release -p sim-tests --bin trial -- catch-up --gib 5
//! ```
//!
//! The servers are child processes of this program on loopback, as the attackers are.

#[cfg(not(madsim))]
mod attacks;
#[cfg(not(madsim))]
mod catch_up;
#[cfg(not(madsim))]
mod failover;
#[cfg(not(madsim))]
mod server;
#[cfg(not(madsim))]
mod witness;

/// As in the servers' own programs.
#[cfg(not(madsim))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(madsim)]
fn main() {
    eprintln!("error: real servers need real sockets: build without --cfg madsim");
    std::process::exit(2);
}

#[cfg(not(madsim))]
fn main() {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    // The children: this program is all of its servers too.
    let code = match std::env::var_os(server::ROLE) {
        Some(role) if role == "attack" => {
            let args = args.map(|arg| arg.to_string_lossy().into_owned());
            match server::Target::from_args(args) {
                Some(target) => ctrler::program::run(attacks::attack(target)),
                None => ctrler::program::fail("expected an attack and its target"),
            }
        }
        Some(role) if role == "ctrler" => ctrler::command::main([name].into_iter().chain(args)),
        Some(_) => kv::command::main([name].into_iter().chain(args)),
        None => run(),
    };
    std::process::exit(code)
}

#[cfg(not(madsim))]
fn run() -> i32 {
    use clap::Parser;

    /// Trials of real servers on this machine.
    #[derive(Parser)]
    #[command(name = "trial")]
    enum Args {
        /// Hostile clients: prints a server's memory and another client's longest waits
        Hostile {
            /// The attacks; all when none is given
            #[arg(value_enum)]
            attacks: Vec<attacks::Attack>,
            /// Seconds of each
            #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
            seconds: u64,
            /// The server's --connection-memory, MiB [default: the server's own default]
            #[arg(long)]
            connection_memory: Option<usize>,
        },
        /// Kills the leader of a group of three again and again: prints how long the next
        /// acknowledged write takes
        Failover {
            /// How often
            #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
            kills: u32,
        },
        /// A follower of a group with much state is away until it needs a snapshot: prints how it
        /// catches up while 64 clients write
        CatchUp {
            /// GiB of values
            #[arg(long, default_value_t = 1.0)]
            gib: f64,
        },
    }

    ctrler::program::run(async move {
        match Args::parse() {
            Args::Hostile {
                attacks,
                seconds,
                connection_memory,
            } => {
                let time = std::time::Duration::from_secs(seconds);
                attacks::run_all(attacks, time, connection_memory).await
            }
            Args::Failover { kills } => failover::run(kills).await,
            Args::CatchUp { gib } => catch_up::run(gib).await,
        }
    })
}
