//! What the tests of store and sessions share.
#![allow(dead_code, missing_docs)]

/// SplitMix64: a walk is its seed.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n
    }

    /// True once in `n`.
    pub fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The seeds of a test: the one asked for, or a few.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    match std::env::var("MADSIM_TEST_SEED").ok().and_then(|s| s.parse::<u64>().ok()) {
        Some(seed) => seed * 1000..seed * 1000 + count,
        None => 1..1 + count,
    }
}
