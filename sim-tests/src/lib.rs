//! Holdfast under simulation: clusters, faults, checkers, reports.
//!
//! Everything that needs the simulation lives in [`sim`] and exists only with `--cfg madsim`; the
//! checkers are plain code. `runner`, which builds and runs the simulation's tests, exists only without.

pub mod campaign;
pub mod configs;
pub mod digest;
#[cfg(not(madsim))]
pub mod explore;
pub mod history;
pub mod linear;
#[cfg(not(madsim))]
pub mod matrix;
#[cfg(not(madsim))]
pub mod mutants;
pub mod report;
#[cfg(not(madsim))]
pub mod runner;
#[cfg(madsim)]
pub mod sim;
