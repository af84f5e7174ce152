//! The machine of one group.

mod golden;
mod level;
mod long_values;
mod operations;
