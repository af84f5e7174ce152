//! Faults above TCP, for the simulation: what is to happen to a frame about to be sent.
//!
//! TCP neither drops nor doubles nor reorders, but a reconnect between two frames does all three.
//! The harness sets a judge; without one, and always in production, everything passes.

use super::{Hello, Kind};
use std::time::Duration;

/// A frame about to be handed to the socket.
#[derive(Clone, Copy, Debug)]
pub struct Passing<'a> {
    /// The sender.
    pub from: &'a Hello,
    /// The receiver, as it said hello.
    pub to: &'a Hello,
    /// The frame's channel.
    pub channel: u8,
    /// `Request`, `Reply` or `Mail`; nothing else is judged.
    pub kind: Kind,
    /// Bytes of the body.
    pub size: usize,
}

/// What happens to a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is sent.
    Pass,
    /// It vanishes. A request counts as sent.
    Drop,
    /// It is sent twice: a request is then served twice.
    Duplicate,
    /// It is sent later, if the connection still stands: frames behind it overtake it.
    Delay(Duration),
    /// The connection breaks before it.
    Reset,
    /// It is sent with one bit flipped: this one, modulo its length.
    Flip(u64),
}

#[cfg(madsim)]
mod judge {
    use super::{Passing, Verdict};
    use std::cell::RefCell;

    type Judge = Box<dyn FnMut(&Passing<'_>) -> Verdict>;

    thread_local! {
        static JUDGE: RefCell<Option<Judge>> = const { RefCell::new(None) };
    }

    /// Sets (or removes) the judge of this thread's simulation. It must not use the network.
    pub fn set_judge(judge: Option<Judge>) {
        JUDGE.with(|j| *j.borrow_mut() = judge);
    }

    pub(crate) fn judge(passing: &Passing<'_>) -> Verdict {
        JUDGE.with(|j| match j.borrow_mut().as_mut() {
            Some(judge) => judge(passing),
            None => Verdict::Pass,
        })
    }
}

#[cfg(madsim)]
pub(super) use judge::judge;
#[cfg(madsim)]
pub use judge::set_judge;

/// Production: everything passes.
#[cfg(not(madsim))]
#[inline]
pub(super) fn judge(passing: &Passing<'_>) -> Verdict {
    let _ = passing;
    Verdict::Pass
}
