//! Chance: the only place that draws it. In simulation the seed decides.

use rand::TryRng;
use rand::rngs::SysRng;

/// A random number, straight from the system. A thread's generator, seeded once, would carry over
/// from one simulation to the next on the same thread, and neither would replay.
pub fn random_u64() -> u64 {
    SysRng
        .try_next_u64()
        .expect("the system gives random numbers")
}

/// A random identity.
pub fn random_u128() -> u128 {
    u128::from(random_u64()) << 64 | u128::from(random_u64())
}
