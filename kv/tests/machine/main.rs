//! The machine of one group.

mod golden;
mod long_values;
mod operations;
