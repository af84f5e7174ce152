//! Holdfast under simulation: clusters, faults, checkers, reports.
//!
//! Everything that needs the simulation lives in [`sim`] and exists only with `--cfg madsim`; the
//! checkers are plain code.

pub mod configs;
pub mod history;
pub mod linear;
#[cfg(madsim)]
pub mod sim;
