//! kvctl: a client of the store, an instrument, and a whole cluster on one machine.

mod child;
mod up;

use clap::{Parser, Subcommand};
use kv::ctl::args::{Command, Common};
use kv::ctl::data::read_stdin;
use kv::ctl::plan::Up;
use kv::ctl::{Failure, Io};
use std::io::Write;
use std::process::exit;

/// Talks to a Holdfast cluster, changes which groups are in it, measures it, and runs one on this
/// machine.
#[derive(Parser)]
#[command(
    name = "kvctl",
    version,
    after_help = "Keys and values are any bytes. A value given as `-` is read from standard input.\n\
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
        let flags = [std::ffi::OsString::from("ctrler")].into_iter().chain(args);
        return Some(ctrler::command::main(ctrler::command::Args::parse_from(
            flags,
        )));
    }
    if server == "serve-kv" {
        let flags = [std::ffi::OsString::from("kv")].into_iter().chain(args);
        return Some(kv::command::main(kv::command::Args::parse_from(flags)));
    }
    None
}

fn main() {
    if let Some(code) = serve() {
        exit(code);
    }
    let cli = Cli::parse();
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
