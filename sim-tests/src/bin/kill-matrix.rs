//! Known bugs, put back one at a time: does the suite notice?
//!
//! ```sh
//! cargo run -p sim-tests --bin kill-matrix              # all of them
//! cargo run -p sim-tests --bin kill-matrix -- R01 H     # some: ids, or whole families
//! ```
//!
//! Works on a copy below the target directory; the tree itself is only read, but for the table,
//! which is written into it (`sim-tests/KILL-MATRIX.md`). Exits with 0 when every mutant asked for was
//! killed, with 1 when one survived, with 2 when it could not be told.

#[cfg(madsim)]
fn main() {}

#[cfg(not(madsim))]
fn main() -> std::process::ExitCode {
    sim_tests::matrix::program::main()
}
