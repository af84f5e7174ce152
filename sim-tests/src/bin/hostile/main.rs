//! Hostile clients against a real server: what it then holds in memory, and how long another client
//! waits.
//!
//! ```text
//! cargo run --release -p sim-tests --bin hostile            # all attacks, each on a new server
//! cargo run --release -p sim-tests --bin hostile -- half-frames unread-values
//! ```
//!
//! Every attack has a controller and one kv server to itself, which are child processes of this
//! program on loopback, as the attacker is. Beside the attack another client writes 200 bytes and reads them, again and
//! again, to a shard that the attack does not use.

#[cfg(not(madsim))]
mod attacks;
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
    eprintln!("error: hostile clients need real sockets: build without --cfg madsim");
    std::process::exit(2);
}

#[cfg(not(madsim))]
fn main() {
    let mut args = std::env::args_os();
    let name = args.next().unwrap_or_default();
    // The children: this program is all of its servers too.
    match std::env::var_os(server::ROLE) {
        Some(role) if role == "attack" => {
            let args = args.map(|arg| arg.to_string_lossy().into_owned());
            let Some(target) = server::Target::from_args(args) else {
                std::process::exit(ctrler::program::fail("expected an attack and its target"));
            };
            std::process::exit(ctrler::program::run(attacks::attack(target)))
        }
        Some(role) if role == "ctrler" => {
            std::process::exit(ctrler::command::main([name].into_iter().chain(args)))
        }
        Some(_) => std::process::exit(kv::command::main([name].into_iter().chain(args))),
        None => std::process::exit(run()),
    }
}

#[cfg(not(madsim))]
fn run() -> i32 {
    use attacks::Attack;
    use clap::Parser;

    /// Hostile clients against a real server: prints its memory and another client's longest wait.
    #[derive(Parser)]
    #[command(name = "hostile")]
    struct Args {
        /// The attacks; all when none is given
        #[arg(value_enum)]
        attacks: Vec<Attack>,
        /// Seconds of each
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
        /// The server's --connection-memory, MiB [default: the server's own default]
        #[arg(long)]
        connection_memory: Option<usize>,
    }

    let args = Args::parse();
    let attacks = match args.attacks.is_empty() {
        true => <Attack as clap::ValueEnum>::value_variants().to_vec(),
        false => args.attacks,
    };
    let time = std::time::Duration::from_secs(args.seconds);
    ctrler::program::run(async move {
        println!(
            "{:<16} {:>9} {:>9} {:>9} {:>11} {:>11} {:>8}",
            "ATTACK", "AT START", "MOST", "AFTER", "PUT WAITED", "GET WAITED", "SERVED"
        );
        for attack in attacks {
            let report = attacks::run(attack, time, args.connection_memory).await?;
            println!("{report}");
        }
        Ok::<(), String>(())
    })
}
