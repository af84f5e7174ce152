//! Time: a monotonic clock. Wall-clock time is used nowhere.

pub use tokio::time::{Duration, Instant};

/// Now.
pub fn now() -> Instant {
    Instant::now()
}
