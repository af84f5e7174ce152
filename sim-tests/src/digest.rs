//! What a value is, in a few words: equal values have equal digests, and the digest of two values
//! put together follows from theirs. So a model of appends needs no copy of what grows.
//!
//! A polynomial hash (Karp and Rabin 1987) modulo the prime 2^61 - 1, under two bases. For two
//! different values of n bytes the chance of equal digests is at most (n / 2^61)^2, and nobody here
//! chooses values by the bases.

/// The modulus.
const P: u64 = (1 << 61) - 1;
/// Two bases below it, drawn once.
const BASES: [u64; 2] = [0x12a8_97f1_6c0d_3e5b, 0x0b7e_1516_28ae_d2a6];

/// Length and sums of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Digest {
    len: u64,
    /// One byte more than each byte's value, as digits, the last one lowest.
    sums: [u64; 2],
    /// The bases to the power of the length.
    powers: [u64; 2],
}

fn times(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    reduce((product as u64 & P) + (product >> 61) as u64)
}

/// Of a number below 2^62.
fn reduce(n: u64) -> u64 {
    if n >= P { n - P } else { n }
}

impl Digest {
    /// Of nothing.
    pub const EMPTY: Digest = Digest {
        len: 0,
        sums: [0; 2],
        powers: [1; 2],
    };

    /// Of some bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut digest = Digest::EMPTY;
        digest.len = bytes.len() as u64;
        for (i, base) in BASES.into_iter().enumerate() {
            for byte in bytes {
                digest.sums[i] = reduce(times(digest.sums[i], base) + u64::from(*byte) + 1);
                digest.powers[i] = times(digest.powers[i], base);
            }
        }
        digest
    }

    /// Of the bytes of this one with those of another behind them.
    pub fn then(self, behind: Digest) -> Digest {
        let both = |i: usize| {
            let sum = reduce(times(self.sums[i], behind.powers[i]) + behind.sums[i]);
            (sum, times(self.powers[i], behind.powers[i]))
        };
        let (one, two) = (both(0), both(1));
        Digest {
            len: self.len + behind.len,
            sums: [one.0, two.0],
            powers: [one.1, two.1],
        }
    }

    /// How many bytes.
    pub fn len(self) -> u64 {
        self.len
    }

    /// Of no bytes.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_has_the_digest_of_the_whole() {
        let whole: Vec<u8> = (0..1000u32).map(|n| (n * n % 251) as u8).collect();
        for at in [0, 1, 2, 499, 999, 1000] {
            let (front, back) = whole.split_at(at);
            let both = Digest::of(front).then(Digest::of(back));
            assert_eq!(both, Digest::of(&whole), "cut at {at}");
        }
        assert_eq!(Digest::of(b""), Digest::EMPTY);
        assert!(Digest::EMPTY.is_empty());
        assert_eq!(Digest::of(&whole).len(), 1000);
    }

    #[test]
    fn every_change_of_one_byte_and_every_swap_shows() {
        let whole: Vec<u8> = (0..300u32).map(|n| (n % 7) as u8).collect();
        let mut seen = std::collections::HashSet::from([Digest::of(&whole)]);
        for at in 0..whole.len() {
            let mut other = whole.clone();
            other[at] += 1;
            assert!(seen.insert(Digest::of(&other)), "a change at {at}");
        }
        assert_ne!(Digest::of(b"ab"), Digest::of(b"ba"));
        assert_ne!(Digest::of(b"\0"), Digest::of(b"\0\0"));
        assert_ne!(Digest::of(b""), Digest::of(b"\0"));
    }

    #[test]
    fn numbers_stay_below_the_modulus() {
        let long = Digest::of(&[0xff; 5000]);
        for n in long.sums.into_iter().chain(long.powers).chain(BASES) {
            assert!(n < P);
        }
        assert_eq!(times(P - 1, P - 1), 1);
    }
}
