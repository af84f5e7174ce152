//! Runs many seeds of the campaign, a process each, and says what they came to.

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
mod ensemble;
#[cfg(not(madsim))]
mod failing;
#[cfg(not(madsim))]
mod seed;
#[cfg(not(madsim))]
mod sweep;

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    use clap::Parser as _;
    sweep::main(sweep::Arguments::parse())
}
