//! What the machine gives us: frames on TCP, a disk, a clock, chance; real or simulated.
//!
//! This is the only production crate that knows which of the two it runs on.

pub mod again;
pub mod clock;
pub mod disk;
pub mod entropy;
pub mod files;
pub mod memory;
pub mod net;
pub mod observe;
pub mod paged;
pub mod signal;
pub mod testing;
pub mod turnstile;

pub use observe::{Site, observe};
