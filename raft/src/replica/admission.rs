//! Room for commands on their way from a client to the state machine.

use super::shared::COMMAND_BYTES;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use world::turnstile::Turnstile;

/// A command's share of the room, until it is applied or will not be.
pub(super) type Admitted = OwnedSemaphorePermit;

/// A queue: commands are let in one after another, in the order they came, each when there is room
/// for all of it. So a long one is not overtaken by short ones again and again; those behind it wait
/// for it as it waits for those before.
pub(super) struct Admission {
    bytes: usize,
    room: Arc<Semaphore>,
    turn: Turnstile,
}

impl Admission {
    pub(super) fn new(bytes: usize) -> Admission {
        let bytes = bytes.min(u32::MAX as usize);
        Admission {
            bytes,
            room: Arc::new(Semaphore::new(bytes)),
            turn: Turnstile::default(),
        }
    }

    /// Bytes of the commands that were let in and are not applied yet.
    pub(super) fn taken(&self) -> usize {
        self.bytes.saturating_sub(self.room.available_permits())
    }

    /// Waits for a command's turn and its room, and enters with it. `enter` is polled once before the
    /// next one's turn: with that it has its place wherever it waits from then on.
    pub(super) async fn pass<F: Future>(
        &self,
        command: usize,
        enter: impl FnOnce(Admitted) -> F,
    ) -> Option<F::Output> {
        // One that is larger than the room takes all of it.
        let cost = (command + COMMAND_BYTES).min(self.bytes) as u32;
        let in_turn = async {
            // An error: never, it is not closed.
            let room = self.room.clone().acquire_many_owned(cost).await.ok()?;
            let mut entering = Box::pin(enter(room));
            let first = poll_fn(|cx| Poll::Ready(entering.as_mut().poll(cx))).await;
            Some((first, entering))
        };
        match self.turn.pass(in_turn).await? {
            (Poll::Ready(entered), _) => Some(entered),
            (Poll::Pending, entering) => Some(entering.await),
        }
    }
}
