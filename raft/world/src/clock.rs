//! Time: a monotonic clock. Wall-clock time is used nowhere.

pub use tokio::time::{Duration, Instant};

/// Now.
#[allow(
    clippy::disallowed_methods,
    reason = "in simulation this is std's, intercepted"
)]
pub fn now() -> Instant {
    Instant::now()
}
