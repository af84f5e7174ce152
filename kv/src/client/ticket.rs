//! Between a caller that waits and the stream that carries its write.
//!
//! Exactly one of two things happens first: the write leaves (the outcome is then unknown until
//! it is answered), or its caller gives up (the write then never leaves). One atomic state
//! decides, so that a caller whose time is over can say which.

use super::ClientError;
use crate::api::Outcome;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};
use tokio::sync::oneshot;

/// What the stream knows of a caller.
pub trait Ticket {
    /// The write is about to leave. False when its caller has given up: it must not leave.
    fn start(&self) -> bool;
    /// Every attempt that left certainly had no effect: the write counts as not sent again.
    fn take_back(&self);
    /// True while the caller waits.
    fn wanted(&self) -> bool;
    /// Tells the caller.
    fn finish(self, result: WriteResult);
}

/// What a caller is told.
pub type WriteResult = Result<Vec<Outcome>, ClientError>;

/// Not sent, or sent without any possible effect.
const WAITING: u8 = 0;
/// An attempt may have had an effect.
const SENT: u8 = 1;
/// The caller is gone.
const GONE: u8 = 2;

/// The stream's half.
pub struct Held {
    state: Arc<AtomicU8>,
    reply: oneshot::Sender<WriteResult>,
}

/// The caller's half. Dropping it gives up.
pub struct Waiting {
    state: Arc<AtomicU8>,
    reply: oneshot::Receiver<WriteResult>,
}

/// The two halves.
pub fn pair() -> (Held, Waiting) {
    let state = Arc::new(AtomicU8::new(WAITING));
    let (sender, receiver) = oneshot::channel();
    (
        Held {
            state: state.clone(),
            reply: sender,
        },
        Waiting {
            state,
            reply: receiver,
        },
    )
}

impl Ticket for Held {
    fn start(&self) -> bool {
        match self.state.compare_exchange(WAITING, SENT, SeqCst, SeqCst) {
            Ok(_) => true,
            Err(state) => state == SENT,
        }
    }

    fn take_back(&self) {
        // A caller that is gone stays gone.
        let _ = self.state.compare_exchange(SENT, WAITING, SeqCst, SeqCst);
    }

    fn wanted(&self) -> bool {
        self.state.load(SeqCst) != GONE
    }

    fn finish(self, result: WriteResult) {
        let _ = self.reply.send(result);
    }
}

impl Waiting {
    /// The result; `None` when the stream ended without one.
    pub async fn result(&mut self) -> Option<WriteResult> {
        (&mut self.reply).await.ok()
    }

    /// Gives up. An answer that came meanwhile counts; otherwise true when an attempt may have
    /// had an effect.
    pub fn give_up(mut self) -> Result<WriteResult, bool> {
        let before = self.state.swap(GONE, SeqCst);
        match self.reply.try_recv() {
            Ok(result) => Ok(result),
            Err(_) => Err(before == SENT),
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.state.store(GONE, SeqCst);
    }
}
