//! The machine of one group.

mod golden;
mod operations;
