//! Faults of messages, above TCP, and a count of what crosses the network.
//!
//! The simulated network only delays a stream. Here frames vanish, come twice, come late or take
//! their connection with them, as they do when connections break and are made again.

use std::cell::RefCell;
use std::time::Duration;
use world::entropy::random_u64;
use world::net::Kind;
use world::net::inject::{Passing, Verdict, set_judge};

/// How likely what is, for each frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// It vanishes.
    pub drop: f64,
    /// It comes twice.
    pub duplicate: f64,
    /// It comes late,
    pub delay: f64,
    /// by up to this.
    pub latest: Duration,
    /// The connection breaks before it.
    pub reset: f64,
}

impl Faults {
    /// A bad network: a tenth is lost, a tenth late, some doubled.
    pub fn unreliable() -> Faults {
        Faults {
            drop: 0.1,
            duplicate: 0.05,
            delay: 0.1,
            latest: Duration::from_millis(300),
            reset: 0.002,
        }
    }

    /// Messages that come long after the election in which they were sent.
    pub fn very_late() -> Faults {
        Faults {
            delay: 0.3,
            latest: Duration::from_millis(2500),
            ..Faults::unreliable()
        }
    }
}

/// What crossed the network between members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Mails.
    pub mails: u64,
    /// Bytes in them.
    pub mail_bytes: u64,
    /// Requests and replies.
    pub calls: u64,
}

thread_local! {
    static STATE: RefCell<(Faults, Count)> = RefCell::default();
}

/// A fair network that is counted; at the start of every run.
pub fn install() {
    STATE.with(|s| *s.borrow_mut() = Default::default());
    set_judge(Some(Box::new(judge)));
}

fn judge(passing: &Passing<'_>) -> Verdict {
    let faults = STATE.with(|s| {
        let (faults, count) = &mut *s.borrow_mut();
        if passing.kind == Kind::Mail {
            count.mails += 1;
            count.mail_bytes += passing.size as u64;
        } else {
            count.calls += 1;
        }
        *faults
    });
    let rates = [faults.drop, faults.duplicate, faults.delay, faults.reset];
    if rates == [0.0; 4] {
        return Verdict::Pass;
    }
    let mut drawn = unit();
    for (i, rate) in rates.into_iter().enumerate() {
        if drawn < rate {
            return match i {
                // A call is lost with its connection only, and its caller is told.
                0 if passing.kind != Kind::Mail => Verdict::Reset,
                0 => Verdict::Drop,
                1 => Verdict::Duplicate,
                2 => Verdict::Delay(faults.latest.mul_f64(unit())),
                _ => Verdict::Reset,
            };
        }
        drawn -= rate;
    }
    Verdict::Pass
}

/// From now on.
pub fn faults(faults: Faults) {
    STATE.with(|s| s.borrow_mut().0 = faults);
}

/// So far.
pub fn count() -> Count {
    STATE.with(|s| s.borrow().1)
}

/// A number from 0 (inclusive) to 1 (exclusive), drawn by the seed.
pub fn unit() -> f64 {
    (random_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// True with the given probability, by the seed.
pub fn chance(probability: f64) -> bool {
    unit() < probability
}

/// A number below `n`, by the seed.
pub fn below(n: u64) -> u64 {
    random_u64() % n.max(1)
}

/// A duration below `longest`, by the seed.
pub fn pause(longest: Duration) -> Duration {
    longest.mul_f64(unit())
}
