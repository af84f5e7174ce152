//! Back-pressure of the state on the log: how long to pause between batches.
//!
//! Rows are applied into an overlay much faster than a flush drains it. Without a brake the
//! overlay runs into its hard limit and clients meet a gap as long as the rest of the flush. So the
//! brake sets in early and gently: while a flush runs, a batch costs the time in which the flush,
//! at the rate of the last one, drains a share of what the batch added. The share grows with the
//! fill of the overlay.

use std::time::Duration;

/// Rate taken for the first flush, bytes per second.
const FIRST_RATE: f64 = 16e6;
/// Fill (in overlays) from which on batches pause.
const FREE: f32 = 0.5;
/// One pause is at most this long, so that no single batch makes a gap.
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// The brake.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes per second of past flushes, smoothed.
    rate: f64,
    /// Fill when the running flush began.
    begun: Option<f32>,
}

impl Pace {
    pub(super) fn new() -> Pace {
        Pace {
            rate: FIRST_RATE,
            begun: None,
        }
    }

    /// A flush of an overlay filled to `fill` begins.
    pub(super) fn flush_begins(&mut self, fill: f32) {
        self.begun = Some(fill);
    }

    /// It ended after `took`.
    pub(super) fn flush_ended(&mut self, took: Duration, overlay_bytes: usize) {
        let Some(fill) = self.begun.take() else {
            return;
        };
        let rate = f64::from(fill) * overlay_bytes as f64 / took.as_secs_f64().max(1e-3);
        self.rate = (self.rate + rate) / 2.0;
    }

    /// The pause after a batch that raised the fill from `before` to `after`.
    pub(super) fn pause(&self, before: f32, after: f32, overlay_bytes: usize) -> Duration {
        if self.begun.is_none() || after <= FREE || after <= before {
            return Duration::ZERO;
        }
        // At a full overlay the pause lets the flush drain as much as was added; at twice that,
        // double.
        let share = f64::from((after - FREE) / (1.0 - FREE)).min(2.0);
        let bytes = f64::from(after - before) * overlay_bytes as f64;
        Duration::from_secs_f64(bytes * share / self.rate.max(1.0)).min(MAX_PAUSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OVERLAY: usize = 10_000_000;

    #[test]
    fn no_pause_while_nothing_is_flushed_or_there_is_room() {
        let mut pace = Pace::new();
        assert_eq!(pace.pause(0.8, 0.9, OVERLAY), Duration::ZERO);
        pace.flush_begins(1.0);
        assert_eq!(pace.pause(0.3, 0.4, OVERLAY), Duration::ZERO);
    }

    #[test]
    fn the_pause_grows_with_the_fill_and_with_the_batch() {
        let mut pace = Pace::new();
        pace.flush_begins(1.0);
        let small = pace.pause(0.60, 0.61, OVERLAY);
        let fuller = pace.pause(0.95, 0.96, OVERLAY);
        let larger = pace.pause(0.59, 0.61, OVERLAY);
        assert!(Duration::ZERO < small && small < fuller && small < larger);
        assert!(pace.pause(0.0, 1.9, OVERLAY) <= MAX_PAUSE);
    }

    #[test]
    fn at_a_full_overlay_applying_is_as_slow_as_flushing() {
        let mut pace = Pace::new();
        for _ in 0..20 {
            pace.flush_begins(1.0);
            pace.flush_ended(Duration::from_secs(2), OVERLAY);
        }
        pace.flush_begins(1.0);
        // 5 MB/s drained: 10 kB cost 2 ms.
        let pause = pace.pause(0.999, 1.0, OVERLAY);
        assert!((1.9e-3..2.1e-3).contains(&pause.as_secs_f64()), "{pause:?}");
    }
}
