//! A kv server.

use clap::Parser;
use kv::command::{Args, main as run};

fn main() {
    std::process::exit(run(Args::parse()))
}
