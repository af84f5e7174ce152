//! Waiting for room without losing one's place.

use std::future::Future;
use tokio::sync::Mutex;

/// Lets futures through one at a time, in the order in which they were first polled.
///
/// Waiting for room in a queue of tokio's does not keep that order by itself. Whoever has been given
/// room goes on when its waker has run, and others come first meanwhile: a newcomer that finds room
/// left, or, when a task has used up its cooperative budget (128 uses in one poll), those that are
/// put off after it, with their room in hand, and are woken in reverse.
#[derive(Debug, Default)]
pub struct Turnstile(Mutex<()>);

impl Turnstile {
    /// Runs `enter` after those before it. Dropped, it gives up its place, or its turn. It is not
    /// subject to the budget, so that a task that lets many through need not be woken for each.
    /// Who has the turn must be polled until it is through, or dropped: all behind it wait.
    pub async fn pass<T>(&self, enter: impl Future<Output = T>) -> T {
        // The lock is handed from each to the next in line: it is never free while somebody waits.
        let in_turn = async {
            let _turn = self.0.lock().await;
            enter.await
        };
        unbudgeted(in_turn).await
    }
}

#[cfg(not(madsim))]
fn unbudgeted<F: Future>(future: F) -> impl Future<Output = F::Output> {
    tokio::task::unconstrained(future)
}

/// The simulation's tasks have no budget.
#[cfg(madsim)]
fn unbudgeted<F: Future>(future: F) -> impl Future<Output = F::Output> {
    future
}
