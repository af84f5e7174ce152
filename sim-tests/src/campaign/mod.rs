//! The campaign: whole clusters under everything that can go wrong, drawn by a seed.

pub(crate) mod dice;
pub mod draw;
pub mod fault;
pub mod marks;
pub mod plan;
pub mod record;
