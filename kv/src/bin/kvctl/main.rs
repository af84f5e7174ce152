//! kvctl: a client of the store, an instrument, and a whole cluster on one machine.

mod child;
mod up;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ctrler::program::without_empty_variables;
use kv::ctl::args::{Command, Common};
use kv::ctl::data::{read_batch, read_stdin};
use kv::ctl::plan::Up;
use kv::ctl::{Failure, Io};
use std::ffi::OsString;
use std::io::Write;
use std::process::exit;

/// A third less processor time per write than with the system's allocator, and about half of the memory
/// kept after load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Talks to a Holdfast cluster, changes which groups are in it, measures it, and runs one on this
/// machine.
#[derive(Parser)]
#[command(
    name = "kvctl",
    version,
    after_help = "Keys and values are any bytes. A value given as `-` is read from standard input (so is \
                  a `-` itself: printf - | kvctl put KEY -). What follows `--` is no flag: \
                  kvctl get -- -key. Variables of the environment that are empty count as unset.\n\
                  Exit codes: 0 done; 1 the answer is no, or the request was refused; 2 usage; \
                  3 not done in time, certainly without effect; 4 whether it took effect could not \
                  be learnt; 5 what was read could not be printed (a change that was made ends with \
                  0 and a warning)."
)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    #[command(flatten)]
    Ctl(Command),
    /// Run a whole cluster here, a child process per server, until Ctrl-C
    Up(Up),
    /// Print a script that completes kvctl's commands and flags in a shell
    #[command(
        after_help = "Examples:\n  source <(kvctl completions bash)\n  kvctl completions fish > ~/.config/fish/completions/kvctl.fish"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The children of `up` are this program: it needs no other file to run a cluster.
fn serve() -> Option<i32> {
    let mut args = std::env::args_os();
    let _program = args.next();
    let server = args.next()?;
    let program = match server.to_str()? {
        "serve-ctrler" => "ctrler",
        "serve-kv" => "kv",
        _ => return None,
    };
    // Lists of processes and sockets show this one, not the name of the file. Its threads inherit it.
    if cfg!(target_os = "linux") {
        let _ = std::fs::write("/proc/self/comm", program);
    }
    let flags = [OsString::from(program)].into_iter().chain(args);
    Some(match program {
        "ctrler" => ctrler::command::main(flags),
        _ => kv::command::main(flags),
    })
}

/// Names that other stores have for these commands.
const SYNONYMS: &[(&str, &str)] = &[
    ("set", "put"),
    ("write", "put"),
    ("insert", "put"),
    ("del", "delete"),
    ("rm", "delete"),
    ("remove", "delete"),
    ("unset", "delete"),
    ("read", "get"),
    ("cat", "get"),
    ("swap", "cas"),
    ("txn", "batch"),
    ("multi", "batch"),
    ("start", "up"),
    ("info", "status"),
    ("ls", "status"),
    ("config", "query"),
    ("benchmark", "bench"),
];

/// Names the command that was meant, where clap would name the one that is spelt most alike.
fn suggest(mut error: clap::Error) -> clap::Error {
    let meant = match error.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(name)) => SYNONYMS.iter().find(|(other, _)| other == name),
        _ => None,
    };
    if let Some((_, name)) = meant {
        error.remove(ContextKind::SuggestedCommand);
        let names = vec![name.to_string()];
        error.insert(
            ContextKind::SuggestedSubcommand,
            ContextValue::Strings(names),
        );
    }
    error
}

/// What the command line asks for; ends the program with what is wrong with it.
fn parse() -> Cli {
    let args: Vec<OsString> = std::env::args_os().collect();
    let command = without_empty_variables(Cli::command());
    let cli = command
        .try_get_matches_from(&args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match cli {
        Err(error) if error.kind() == ErrorKind::InvalidSubcommand => suggest(error).exit(),
        Err(error)
            if error.kind() == ErrorKind::DisplayHelp && Command::is_help_for_value(&args) =>
        {
            let _ = writeln!(
                std::io::stderr(),
                "{error}\nerror: help was asked for where a value was expected, and nothing was done: \
                 a value that looks like this flag follows `--`, as in kvctl put KEY -- --help"
            );
            exit(2);
        }
        cli => cli.unwrap_or_else(|error| error.exit()),
    }
}

fn main() {
    if let Some(code) = serve() {
        exit(code);
    }
    let cli = parse();
    let mut failed = None;
    let code = ctrler::program::run(async {
        match work(cli).await {
            Ok(()) => {}
            Err(failure) => failed = Some(failure),
        }
        Ok::<(), String>(())
    });
    match failed {
        Some(Failure { message, code }) => {
            if !message.is_empty() {
                // Without a reader the exit code must do.
                let _ = writeln!(std::io::stderr(), "error: {message}");
            }
            exit(code);
        }
        None => exit(code),
    }
}

async fn work(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Task::Ctl(mut command) => {
            read_stdin(&mut command.values(), &mut std::io::stdin())?;
            let batch = match command {
                Command::Batch(_) => read_batch(&mut std::io::stdin())?,
                _ => Vec::new(),
            };
            let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
            kv::ctl::run(
                &cli.common,
                &command,
                batch,
                &mut Io {
                    out: &mut out,
                    err: &mut err,
                },
            )
            .await
        }
        Task::Up(up) => up::up(&up).await,
        Task::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "kvctl", &mut script);
            Ok(std::io::stdout().write_all(&script)?)
        }
    }
}
