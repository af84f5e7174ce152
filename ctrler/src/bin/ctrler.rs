//! A controller server.

use clap::Parser;
use ctrler::command::{Args, main as run};

fn main() {
    std::process::exit(run(Args::parse()))
}
