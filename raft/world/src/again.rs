//! What stays true is said once, and then at growing distances: a log is not to be filled with it.

use crate::clock::{Duration, Instant};

/// First and longest distance.
const DISTANCE: (Duration, Duration) = (
    Duration::from_secs(10 * 60),
    Duration::from_secs(24 * 60 * 60),
);

/// When one thing is said again.
#[derive(Clone, Debug, Default)]
pub struct Again {
    /// When, and how long after the last time that is; `None`: at once.
    next: Option<(Instant, Duration)>,
}

impl Again {
    /// It is true now: whether it is to be said. At once, then after ten minutes, then after twice as
    /// long each time, up to a day.
    pub fn is_due(&mut self, at: Instant) -> bool {
        let after = match self.next {
            None => DISTANCE.0,
            Some((due, after)) if at >= due => (2 * after).min(DISTANCE.1),
            Some(_) => return false,
        };
        self.next = Some((at + after, after));
        true
    }

    /// It was said, and is true as far as is known.
    pub fn was_said(&self) -> bool {
        self.next.is_some()
    }

    /// It is over: the next time it is said at once.
    pub fn over(&mut self) {
        self.next = None;
    }
}
