//! Latencies, counted in buckets whose width grows with the value: each is at most 1.6 % wide.

use std::time::Duration;

/// Buckets per doubling: 2^6.
const BITS: u32 = 6;
/// Longest latency told apart, 2^40 ns (18 minutes).
const MAX_BITS: u32 = 40;

/// A histogram of durations.
#[derive(Clone, Debug)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        let buckets = ((MAX_BITS - BITS + 1) << BITS) as usize;
        Histogram {
            buckets: vec![0; buckets],
            count: 0,
            max: Duration::ZERO,
        }
    }
}

/// The bucket of a value: exact below 2^6 ns, then the leading 7 bits count.
fn bucket(ns: u64) -> usize {
    let shift = (64 - ns.leading_zeros()).saturating_sub(BITS + 1);
    ((shift << BITS) as u64 + (ns >> shift)) as usize
}

/// The largest value of a bucket.
fn upper(bucket: usize) -> u64 {
    let (row, step) = ((bucket >> BITS) as u32, (bucket & ((1 << BITS) - 1)) as u64);
    match row {
        0 => step,
        _ => (((1 << BITS) + step + 1) << (row - 1)) - 1,
    }
}

impl Histogram {
    /// Counts one.
    pub fn add(&mut self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let last = self.buckets.len() - 1;
        self.buckets[bucket(ns).min(last)] += 1;
        self.count += 1;
        self.max = self.max.max(took);
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        self.max
    }

    /// The duration that a share `q` (0 to 1) of all did not exceed; zero when there are none.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = ((q * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (i, n) in self.buckets.iter().enumerate() {
            seen += n;
            if seen >= rank {
                return Duration::from_nanos(upper(i)).min(self.max);
            }
        }
        self.max
    }
}
