//! Chance: the only place that draws it. In simulation the seed decides.

/// A random number.
pub fn random_u64() -> u64 {
    rand::random()
}

/// A random identity.
pub fn random_u128() -> u128 {
    rand::random()
}
