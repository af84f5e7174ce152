//! Time: a monotonic clock. Wall-clock time is used nowhere.
//!
//! In simulation every node has a clock of its own, which the harness may make faster or slower or
//! have jump ([`inject`]). What a server measures or waits for goes through this module, so that a
//! drifting node ticks faster or slower than its peers.

pub use tokio::time::Duration;

#[cfg(not(madsim))]
pub use tokio::time::{Instant, sleep, sleep_until, timeout};

#[cfg(madsim)]
mod sim;
#[cfg(madsim)]
pub use sim::{Instant, inject, sleep, sleep_until, timeout};

/// Now, by this node's clock.
#[allow(
    clippy::disallowed_methods,
    reason = "the one place that reads the clock"
)]
pub fn now() -> Instant {
    Instant::now()
}
