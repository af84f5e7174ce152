//! Holdfast under simulation: clusters, faults, checkers, reports.
//!
//! Everything that needs the simulation lives in [`sim`] and exists only with `--cfg madsim`; the
//! checkers are plain code.

#[cfg(madsim)]
pub mod sim;
