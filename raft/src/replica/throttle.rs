//! The last resort for a member that cannot catch up: proposals wait.
//!
//! While a member is sent a snapshot, and until it has caught up after it, the log behind the snapshot
//! is kept on disk. When that log has grown to half of what it may, clients write faster than the member
//! is fed. Then commands are proposed at a rate that falls with the room that is left, so that the log
//! does not reach its limit before the snapshot has arrived; and from when the member acknowledges
//! entries, at most at half of the rate at which it does, so that the distance shrinks. That
//! lasts until nobody is waited for. Commands that are not proposed wait in their queue, which
//! `Options::max_uncommitted_bytes` bounds, and their clients with them.

use std::time::Duration;
use world::clock::Instant;

/// Of its limit, the part of the log at which it begins.
const BEGINS: f64 = 0.5;
/// Of the rate at which a member acknowledges entries, the part at which new ones come.
const SHARE: f64 = 0.5;
/// Clients are not slowed down below this, bytes and entries per second, whatever is left.
const LEAST_BYTES: f64 = 16e3;
const LEAST_ENTRIES: f64 = 4.0;
/// Least rate, bytes per second, from which proposals are slowed down: of a group at rest nothing is known.
const FIRST_BYTES: f64 = 1e6;
/// What was not used of the rate is saved up for this long.
const SAVED: Duration = Duration::from_millis(100);
/// The rate of proposals is looked at so often.
const LOOK: Duration = Duration::from_millis(500);

/// What is known of a member that is waited for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Waiting {
    /// The log on disk, as a part of how long it may become.
    pub(super) fill: f64,
    /// Entries per second that the slowest one acknowledges; `None` while it is sent a snapshot.
    pub(super) acknowledged: Option<f64>,
}

/// Rates of proposals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rates {
    bytes: f64,
    entries: f64,
}

/// The valve.
#[derive(Debug)]
pub(super) struct Throttle {
    /// Some while proposals are slowed down.
    rates: Option<Rates>,
    /// Bytes proposed per second before it began.
    usual: f64,
    /// Proposed since `looked`.
    bytes: usize,
    looked: Instant,
    /// Seconds' worth of proposals that may be made now; less than none after a large one.
    credit: f64,
    credited: Instant,
}

impl Throttle {
    pub(super) fn new(now: Instant) -> Throttle {
        Throttle {
            rates: None,
            usual: 0.0,
            bytes: 0,
            looked: now,
            credit: 0.0,
            credited: now,
        }
    }

    /// At every tick. True when proposals begin to be slowed down.
    pub(super) fn look(&mut self, now: Instant, waiting: Option<Waiting>) -> bool {
        let since = now.saturating_duration_since(self.looked);
        if since >= LOOK {
            let rate = std::mem::take(&mut self.bytes) as f64 / since.as_secs_f64();
            self.looked = now;
            if self.rates.is_none() {
                self.usual = (self.usual + rate) / 2.0;
            }
        }
        let before = self.rates.is_some();
        self.rates = waiting.filter(|w| before || w.fill > BEGINS).map(|w| {
            let left = ((1.0 - w.fill) / (1.0 - BEGINS)).clamp(0.0, 1.0);
            let acknowledged = w.acknowledged.map(|rate| (rate * SHARE).max(LEAST_ENTRIES));
            Rates {
                bytes: (self.usual.max(FIRST_BYTES) * left).max(LEAST_BYTES),
                entries: acknowledged.unwrap_or(f64::INFINITY),
            }
        });
        let begins = self.rates.is_some() && !before;
        if begins {
            (self.credit, self.credited) = (0.0, now);
        }
        begins
    }

    /// How many of these commands, by their lengths in bytes, may be proposed now: the first ones.
    pub(super) fn admit(&mut self, now: Instant, commands: impl Iterator<Item = usize>) -> usize {
        let Some(rates) = self.rates else {
            let all = commands.fold((0, 0), |(n, bytes), len| (n + 1, bytes + len));
            self.bytes = self.bytes.saturating_add(all.1);
            return all.0;
        };
        let since = now.saturating_duration_since(self.credited).as_secs_f64();
        self.credit = (self.credit + since).min(SAVED.as_secs_f64());
        self.credited = now;
        let mut admitted = 0;
        for len in commands {
            if self.credit <= 0.0 {
                break;
            }
            self.credit -= (len as f64 / rates.bytes).max(1.0 / rates.entries);
            admitted += 1;
        }
        admitted
    }

    /// True while proposals are slowed down.
    pub(super) fn is_on(&self) -> bool {
        self.rates.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(25);
    const LEN: usize = 1000;
    /// What clients would write in a tick: 20 MB/s.
    const WANTED: usize = 500;
    const LIMIT: usize = 400_000;

    /// A member is sent a snapshot for so many ticks, then takes in so many entries in each. When it
    /// has caught up, in ticks, and how long the log became, in entries.
    fn catch_up(sent: usize, taken: usize) -> (Option<usize>, usize) {
        let mut now = world::clock::now();
        let mut throttle = Throttle::new(now);
        let (mut log, mut longest) = (0, 0);
        for tick in 0..200_000 {
            now += TICK;
            let waiting = Waiting {
                fill: log as f64 / LIMIT as f64,
                acknowledged: (tick >= sent).then_some(taken as f64 / TICK.as_secs_f64()),
            };
            throttle.look(now, Some(waiting));
            log += throttle.admit(now, std::iter::repeat_n(LEN, WANTED));
            longest = longest.max(log);
            if tick >= sent {
                log = log.saturating_sub(taken);
                if log == 0 {
                    return (Some(tick), longest);
                }
            }
        }
        (None, longest)
    }

    /// Who takes in more than clients write costs them nothing.
    #[test]
    fn a_member_that_is_fast_enough_slows_nobody_down() {
        // 100 s of sending: 100 entries are too many in no tick.
        let (ticks, longest) = catch_up(300, WANTED + 100);
        assert_eq!((ticks, longest), (Some(300 + 1499), 301 * WANTED));
    }

    #[test]
    fn a_slow_member_catches_up_within_the_limit() {
        // Clients alone would fill the log after 800 ticks.
        for (sent, taken) in [
            (600, 50),
            (3000, 50),
            (3000, WANTED),
            (20_000, 10),
            (0, 100),
        ] {
            let (ticks, longest) = catch_up(sent, taken);
            // Nobody is stopped altogether: a snapshot that takes for ever is given up at the limit.
            let least = sent as f64 * TICK.as_secs_f64() * LEAST_BYTES / LEN as f64;
            let most = LIMIT as f64 + if sent > 3000 { least } else { 0.0 };
            assert!((longest as f64) < most, "{sent} {taken}: {longest}");
            // At half of its rate the other half is gained.
            let most = sent + 5 * LIMIT / (2 * taken);
            assert!(ticks.is_some_and(|t| t < most), "{sent} {taken}: {ticks:?}");
        }
    }

    /// What is saved up is little, and one large command is paid for afterwards.
    #[test]
    fn rates_are_kept_whatever_the_lengths() {
        let mut now = world::clock::now();
        let mut throttle = Throttle::new(now);
        let waiting = |acknowledged| {
            Some(Waiting {
                fill: 0.75,
                acknowledged,
            })
        };
        assert!(throttle.look(now, waiting(None)), "it begins");
        assert!(!throttle.look(now, waiting(None)), "it goes on");
        now += Duration::from_secs(60);
        // Half a MB/s, of which a tenth of a second is saved.
        assert_eq!(throttle.admit(now, std::iter::repeat_n(LEN, 900)), 50);
        now += Duration::from_secs(1);
        assert_eq!(throttle.admit(now, [5_000_000, 1].into_iter()), 1);
        now += Duration::from_secs(9);
        assert_eq!(throttle.admit(now, [1].into_iter()), 0);
        now += Duration::from_secs(1);
        assert_eq!(throttle.admit(now, [1].into_iter()), 1);
        // By the number of entries, when it acknowledges few of them: half of 100.
        throttle.look(now, waiting(Some(100.0)));
        let mut admitted = 0;
        for _ in 0..400 {
            now += TICK;
            admitted += throttle.admit(now, std::iter::repeat_n(1, 10));
        }
        assert!((490..=510).contains(&admitted), "{admitted} in ten seconds");
        assert!(!throttle.look(now, None) && !throttle.is_on());
        assert_eq!(throttle.admit(now, std::iter::repeat_n(LEN, 900)), 900);
    }
}
