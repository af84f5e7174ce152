//! kvctl: a client of the store, an instrument, and a whole cluster on one machine.

mod child;
mod up;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use ctrler::program::without_empty_variables;
use kv::ctl::args::{Command, Common};
use kv::ctl::data::read_stdin;
use kv::ctl::plan::Up;
use kv::ctl::{Failure, Io};
use std::ffi::OsString;
use std::io::Write;
use std::process::exit;

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
}

/// The children of `up` are this program: it needs no other file to run a cluster.
fn serve() -> Option<i32> {
    let mut args = std::env::args_os();
    let _program = args.next();
    let server = args.next()?;
    if server == "serve-ctrler" {
        let flags = [OsString::from("ctrler")].into_iter().chain(args);
        return Some(ctrler::command::main(flags));
    }
    if server == "serve-kv" {
        let flags = [OsString::from("kv")].into_iter().chain(args);
        return Some(kv::command::main(flags));
    }
    None
}

/// What the command line asks for; ends the program with what is wrong with it.
fn parse() -> Cli {
    let args: Vec<OsString> = std::env::args_os().collect();
    let command = without_empty_variables(Cli::command());
    let cli = command
        .try_get_matches_from(&args)
        .and_then(|matches| Cli::from_arg_matches(&matches));
    match cli {
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
            let (mut out, mut err) = (std::io::stdout(), std::io::stderr());
            kv::ctl::run(
                &cli.common,
                &command,
                &mut Io {
                    out: &mut out,
                    err: &mut err,
                },
            )
            .await
        }
        Task::Up(up) => up::up(&up).await,
    }
}
