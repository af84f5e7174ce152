//! Clocks of single nodes, over the simulation's one virtual clock.

use madsim::runtime::Handle;
use madsim::task::NodeId;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;
use tokio::time::{Sleep, error::Elapsed};

/// The simulation's own clock.
type True = std::time::Instant;

#[allow(
    clippy::disallowed_methods,
    reason = "intercepted: this is the simulation's clock"
)]
fn true_now() -> True {
    True::now()
}

/// A node's clock: what it showed at one moment, and how fast it has gone since.
#[derive(Clone, Copy)]
struct Clock {
    at: True,
    shown: True,
    /// Millionths by which it is fast (or slow, below 0).
    ppm: i64,
}

const MILLION: i64 = 1_000_000;

impl Clock {
    fn fresh() -> Clock {
        let at = true_now();
        Clock {
            at,
            shown: at,
            ppm: 0,
        }
    }

    fn speed(&self) -> f64 {
        (MILLION + self.ppm) as f64 / MILLION as f64
    }

    fn shows(&self) -> True {
        self.shown + (true_now() - self.at).mul_f64(self.speed())
    }

    /// How long `duration` of this clock takes.
    fn takes(&self, duration: Duration) -> Duration {
        // Waiting for ever stays so.
        Duration::try_from_secs_f64(duration.as_secs_f64() / self.speed()).unwrap_or(duration)
    }
}

thread_local! {
    static CLOCKS: RefCell<BTreeMap<NodeId, Clock>> = const { RefCell::new(BTreeMap::new()) };
    /// Whether some node's clock differs: nearly no run pays for the search.
    static ANY: Cell<bool> = const { Cell::new(false) };
}

/// The clock of the node that runs now, if it is not the simulation's.
fn own() -> Option<Clock> {
    if !ANY.get() || Handle::try_current().is_err() {
        return None;
    }
    CLOCKS.with(|c| c.borrow().get(&madsim::plugin::node()).copied())
}

/// What the harness does to clocks.
pub mod inject {
    use super::{ANY, CLOCKS, Clock, MILLION};
    use madsim::task::NodeId;
    use std::time::Duration;

    fn change(node: NodeId, change: impl FnOnce(&mut Clock)) {
        CLOCKS.with(|c| {
            let mut clocks = c.borrow_mut();
            let clock = clocks.entry(node).or_insert_with(Clock::fresh);
            let now = Clock::fresh().at;
            (clock.shown, clock.at) = (clock.shows(), now);
            change(clock);
        });
        ANY.set(true);
    }

    /// From now on the node's clock is fast (or slow, below 0) by so many millionths. What it
    /// sleeps already ends as it was begun.
    ///
    /// # Panics
    /// When the clock would stand still or go back.
    pub fn set_rate_ppm(node: NodeId, ppm: i64) {
        assert!(ppm > -MILLION, "a monotonic clock goes on");
        change(node, |clock| clock.ppm = ppm);
    }

    /// The node's clock jumps. Only forward, for it is monotonic: so looks a machine that was
    /// suspended. No sleep ends with it; who looks at a deadline afterwards finds it passed.
    pub fn jump(node: NodeId, by: Duration) {
        change(node, |clock| clock.shown += by);
    }

    /// All clocks are the simulation's again; for the start of a run.
    pub fn clear() {
        CLOCKS.with(|c| c.borrow_mut().clear());
        ANY.set(false);
    }
}

/// A moment of the node's clock. Moments of different nodes have nothing in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(True);

impl Instant {
    /// Now.
    pub fn now() -> Instant {
        Instant(own().map_or_else(true_now, |clock| clock.shows()))
    }

    /// Time since then.
    pub fn elapsed(&self) -> Duration {
        Instant::now().saturating_duration_since(*self)
    }

    /// Time from `earlier` to this; zero when that is later.
    pub fn duration_since(&self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }

    /// As [`Instant::duration_since`].
    pub fn saturating_duration_since(&self, earlier: Instant) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    /// The moment so much later, if there is one.
    pub fn checked_add(&self, duration: Duration) -> Option<Instant> {
        self.0.checked_add(duration).map(Instant)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;
    fn add(self, duration: Duration) -> Instant {
        Instant(self.0 + duration)
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        self.0 += duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;
    fn sub(self, duration: Duration) -> Instant {
        Instant(self.0 - duration)
    }
}

impl Sub for Instant {
    type Output = Duration;
    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

fn takes(duration: Duration) -> Duration {
    own().map_or(duration, |clock| clock.takes(duration))
}

/// Sleeps for so long by this node's clock.
pub fn sleep(duration: Duration) -> Sleep {
    tokio::time::sleep(takes(duration))
}

/// Sleeps until this node's clock shows `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    sleep(deadline.saturating_duration_since(Instant::now()))
}

/// Gives a future so long by this node's clock.
pub fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    tokio::time::timeout(takes(duration), future)
}
