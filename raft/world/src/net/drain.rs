//! Whether a peer takes the replies that wait for it.
//!
//! The kernel tells of what was taken in large steps: up to a third of its send buffer. So a rate is
//! only seen over a time.

/// Bytes that a peer must take of what waits for it, within its patience.
pub(super) const LEAST_TAKEN: usize = 64 << 10;

/// Counts from when replies began to wait for the socket.
#[derive(Debug, Default)]
pub(super) struct Drain {
    ticks: u32,
    taken: usize,
}

impl Drain {
    /// At every tick: the bytes that the socket took since the one before, and whether it once had
    /// all. `patience`: ticks in which [`LEAST_TAKEN`] must be taken. False when the peer takes too
    /// little.
    pub(super) fn tick(&mut self, taken: usize, emptied: bool, patience: u32) -> bool {
        if emptied {
            *self = Drain::default();
            return true;
        }
        self.ticks += 1;
        self.taken += taken;
        if self.taken >= LEAST_TAKEN {
            *self = Drain::default();
        }
        self.ticks < patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ticks until a peer that takes so many bytes at each is given up; at most a thousand.
    fn ticks(taken: usize, patience: u32) -> u32 {
        let mut drain = Drain::default();
        (1..1000)
            .find(|_| !drain.tick(taken, false, patience))
            .unwrap_or(1000)
    }

    #[test]
    fn who_takes_next_to_nothing_is_given_up() {
        assert_eq!(ticks(0, 80), 80);
        assert_eq!(ticks(512, 80), 80);
        assert_eq!(ticks(LEAST_TAKEN / 80 - 1, 80), 80);
        assert_eq!(ticks(LEAST_TAKEN / 80 + 1, 80), 1000);
        // In a hurry it must take as much in less time.
        assert_eq!(ticks(LEAST_TAKEN / 80 + 1, 20), 20);
        assert_eq!(ticks(LEAST_TAKEN / 20 + 1, 20), 1000);
    }

    #[test]
    fn who_takes_all_or_enough_begins_anew() {
        let mut drain = Drain::default();
        for _ in 0..3 {
            for _ in 0..79 {
                assert!(drain.tick(0, false, 80));
            }
            assert!(drain.tick(0, true, 80));
            for _ in 0..79 {
                assert!(drain.tick(0, false, 80));
            }
            assert!(drain.tick(LEAST_TAKEN, false, 80));
        }
        // The hurry may come in the middle.
        for _ in 0..40 {
            assert!(drain.tick(0, false, 80));
        }
        assert!(!drain.tick(0, false, 20));
    }
}
