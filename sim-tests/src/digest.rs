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

/// Bytes that are taken in at a time.
const STEP: usize = 8;

/// One more than the byte's value.
fn digit(byte: u8) -> u128 {
    u128::from(byte) + 1
}

fn times(a: u64, b: u64) -> u64 {
    modulo(u128::from(a) * u128::from(b))
}

/// Of a number below 2^123.
fn modulo(n: u128) -> u64 {
    reduce((n as u64 & P) + (n >> 61) as u64)
}

/// Of a number below 2^63.
fn reduce(n: u64) -> u64 {
    let n = (n & P) + (n >> 61);
    if n >= P { n - P } else { n }
}

/// base^0 to base^STEP.
fn first_powers(base: u64) -> [u64; STEP + 1] {
    let mut powers = [1; STEP + 1];
    for n in 1..=STEP {
        powers[n] = times(powers[n - 1], base);
    }
    powers
}

/// base^n.
fn power(base: u64, n: u64) -> u64 {
    let (mut result, mut square, mut left) = (1, base, n);
    while left > 0 {
        if left & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        left >>= 1;
    }
    result
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
            let powers = first_powers(base);
            let mut sum = 0;
            let mut steps = bytes.chunks_exact(STEP);
            for step in &mut steps {
                // One product per byte, none of which waits for another; all together
                // below 2^123.
                let digits = step.iter().zip(powers.iter().rev().skip(1));
                let low: u128 = digits.map(|(b, p)| digit(*b) * u128::from(*p)).sum();
                sum = modulo(u128::from(sum) * u128::from(powers[STEP]) + low);
            }
            for byte in steps.remainder() {
                sum = modulo(u128::from(sum) * u128::from(base) + digit(*byte));
            }
            (digest.sums[i], digest.powers[i]) = (sum, power(base, digest.len));
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
