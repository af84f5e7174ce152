//! Snapshots on their way: the leader's sender and the follower's receiver.
//!
//! A transfer is named by (sender's disk, spool) and goes chunk by chunk over a connection of its
//! own; the receiver says which chunk it wants next, so a transfer resumes where it broke.

use super::CHANNEL;
use super::shared::{Apply, Internal, Shared, lock};
use super::wire::{Answer, Call, decode, encode};
use crate::store::{Install, Spool, Stamp};
use bytes::Bytes;
use raft_protocol::{DiskId, Index, NodeId, Term};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use world::clock::{Instant, now, sleep, timeout};
use world::net::{Hello, Link};

/// For the answer to one call: first, and at most; doubled with each one in a row that fails. A
/// lost answer costs the first, and installing the last chunk may take the longest: what was begun
/// for a call goes on when the call has ended, and the next offer finds it.
const DEADLINE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(20));
/// A transfer gives up after this many calls in a row without an answer (two and a half minutes).
const MAX_FAILURES: u32 = 10;
const RETRY: Duration = Duration::from_millis(200);

/// Sends a snapshot to a follower; the Raft task hears how it ended.
pub(super) fn send(
    shared: Arc<Shared>,
    to: NodeId,
    term: Term,
    link: Option<Link>,
    spool: Arc<Spool>,
) {
    tokio::spawn(async move {
        let installed = match link {
            Some(link) => {
                tokio::select! {
                    biased;
                    () = shared.stopped() => None,
                    installed = transfer(&shared, to, term, &link, &spool) => installed,
                }
            }
            None => None,
        };
        shared.tell(Internal::SnapshotSent {
            to,
            term,
            installed,
        });
        // The last one to hold a spool removes its file.
        let disk = shared.disk.clone();
        disk.job(move || drop(spool)).await;
    });
}

async fn transfer(
    shared: &Arc<Shared>,
    to: NodeId,
    term: Term,
    link: &Link,
    spool: &Arc<Spool>,
) -> Option<Index> {
    tracing::info!(
        to,
        index = spool.stamp.index,
        bytes = spool.bytes,
        "sending a snapshot"
    );
    let offer = encode(&Call::Offer {
        term,
        stamp: spool.stamp.clone(),
        spool: spool.id,
        chunks: spool.chunks,
    });
    let mut failures = 0;
    let mut next = offer.clone();
    loop {
        if lock(&shared.view).status.term != term {
            world::mark!("snapshot: its sender is deposed");
            return None; // deposed: somebody else sends, if need be
        }
        let deadline = DEADLINE.1.min(DEADLINE.0 * (1 << failures.min(8)));
        let answer = match link.call(CHANNEL, next.clone(), deadline).await {
            Ok(body) => {
                *lock(&shared.receiver_heard) = Some(now());
                decode::<Answer>(&body)
            }
            Err(error) => Err(error.to_string()),
        };
        match answer {
            Ok(Answer::Want(number)) => {
                failures = 0;
                let from = spool.clone();
                let chunk = shared.disk.job(move || from.chunk(number)).await;
                match chunk {
                    Ok(data) => {
                        next = encode(&Call::Chunk {
                            spool: spool.id,
                            number,
                            data,
                        })
                    }
                    Err(error) => {
                        tracing::error!(%error, "a spooled snapshot cannot be read");
                        return None;
                    }
                }
            }
            Ok(Answer::Installed(index)) => return Some(index),
            Ok(other) => {
                tracing::info!(to, answer = ?other, "snapshot not taken");
                return None;
            }
            Err(reason) => {
                failures += 1;
                if failures >= MAX_FAILURES {
                    tracing::info!(to, %reason, "gave up sending a snapshot");
                    return None;
                }
                next = offer.clone();
                sleep(RETRY).await;
            }
        }
    }
}

/// A transfer of which nothing was heard for this long is given up, its file removed: as long as
/// it is there, no generation is rewritten. Longer than a sender goes on trying.
const ABANDONED: Duration = Duration::from_secs(300);
/// How often it is looked whether a transfer is of use still.
const LOOK: Duration = Duration::from_secs(5);
/// How long a complete snapshot keeps other transfers out while it waits for its switch.
const SWITCH: Duration = Duration::from_secs(60);

/// A transfer being received.
struct Incoming {
    from: DiskId,
    spool: u128,
    chunks: u64,
    install: Install,
    heard: Instant,
}

/// The follower's end; one transfer at a time, a new one replaces the old.
#[derive(Clone, Default)]
pub(super) struct Receiver {
    incoming: Arc<Mutex<Option<Incoming>>>,
}

impl Receiver {
    pub(super) async fn offer(
        &self,
        shared: &Arc<Shared>,
        peer: &Hello,
        term: Term,
        stamp: Stamp,
        spool: u128,
        chunks: u64,
    ) -> Answer {
        let mut incoming = self.incoming.clone().lock_owned().await;
        let (reply, accepted) = oneshot::channel();
        let index = stamp.index;
        shared.tell(Internal::Offered {
            from: peer.node,
            term,
            meta: stamp.meta(),
            reply,
        });
        if accepted.await != Ok(true) {
            world::mark!("snapshot: an offer is not wanted");
            let applied = shared.applied.load(Ordering::Relaxed);
            if applied >= index {
                return Answer::Installed(applied);
            }
            return Answer::Refused("not wanted".into());
        }
        if let Some(known) = incoming.as_mut()
            && (known.from, known.spool) == (peer.disk, spool)
        {
            world::mark!("snapshot: a transfer resumes");
            known.heard = now();
            return Answer::Want(known.install.next());
        }
        if let Some(old) = incoming.take() {
            world::mark!("snapshot: a transfer is replaced by another");
            shared.disk.job(move || drop(old)).await;
        }
        let (reply, install) = oneshot::channel();
        let _ = shared.apply.send(Apply::Install { stamp, reply });
        let install = match install.await {
            Ok(Ok(install)) => install,
            Ok(Err(error)) => return Answer::Refused(error.to_string()),
            Err(_) => return Answer::Refused("shutting down".into()),
        };
        *incoming = Some(Incoming {
            from: peer.disk,
            spool,
            chunks,
            install,
            heard: now(),
        });
        self.watch(shared.clone(), spool);
        if chunks > 0 {
            return Answer::Want(0);
        }
        self.to_the_end(shared, incoming, index, None).await
    }

    pub(super) async fn chunk(
        &self,
        shared: &Arc<Shared>,
        peer: &Hello,
        spool: u128,
        number: u64,
        data: Bytes,
    ) -> Answer {
        let incoming = self.incoming.clone().lock_owned().await;
        let index = match incoming.as_ref() {
            Some(known) if (known.from, known.spool) == (peer.disk, spool) => {
                if known.install.next() != number {
                    return Answer::Want(known.install.next());
                }
                known.install.stamp.index
            }
            _ => return Answer::Refused("no such transfer: offer it again".into()),
        };
        let chunk = Some((number, data));
        self.to_the_end(shared, incoming, index, chunk).await
    }

    /// Takes a step in a task of its own: the call it serves ends with its connection or its
    /// deadline, and what was received is not to be lost with it.
    async fn to_the_end(
        &self,
        shared: &Arc<Shared>,
        incoming: OwnedMutexGuard<Option<Incoming>>,
        index: Index,
        chunk: Option<(u64, Bytes)>,
    ) -> Answer {
        let shared = shared.clone();
        tokio::spawn(async move {
            let (stopped, step) = (shared.clone(), step(&shared, incoming, index, chunk));
            tokio::select! {
                biased;
                () = stopped.stopped() => Answer::Refused("shutting down".into()),
                answer = step => answer,
            }
        })
        .await
        .unwrap_or_else(|error| Answer::Refused(error.to_string()))
    }

    /// Gives the transfer up when its sender does, or when the log has overtaken it.
    fn watch(&self, shared: Arc<Shared>, spool: u128) {
        let incoming = self.incoming.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = shared.stopped() => return,
                    () = sleep(LOOK) => {}
                }
                let mut incoming = incoming.lock().await;
                match incoming.as_ref() {
                    Some(known) if known.spool == spool => {
                        let applied = shared.applied.load(Ordering::Relaxed);
                        let overtaken = applied >= known.install.stamp.index;
                        if overtaken || known.heard.elapsed() >= ABANDONED {
                            let old = incoming.take();
                            return shared.disk.job(move || drop(old)).await;
                        }
                    }
                    _ => return,
                }
            }
        });
    }
}

/// Adds a chunk; when all are there commits, lets the core decide, and waits until the switch is
/// made: until then no other transfer begins.
async fn step(
    shared: &Arc<Shared>,
    mut incoming: OwnedMutexGuard<Option<Incoming>>,
    index: Index,
    chunk: Option<(u64, Bytes)>,
) -> Answer {
    let Some(mut known) = incoming.take() else {
        return Answer::Refused("no such transfer: offer it again".into());
    };
    if let Some((number, data)) = chunk {
        let add = move || known.install.add(number, &data).map(|()| known);
        known = match shared.disk.job(add).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "a snapshot chunk cannot be taken");
                return Answer::Refused(error.to_string());
            }
        };
        known.heard = now();
    }
    if known.install.next() < known.chunks {
        let next = known.install.next();
        *incoming = Some(known);
        return Answer::Want(next);
    }
    match shared.disk.job(move || known.install.finish()).await {
        Ok(installed) => {
            let _ = shared.apply.send(Apply::Filled(installed));
        }
        Err(error) => {
            tracing::warn!(%error, "a received snapshot is refused");
            return Answer::Refused(error.to_string());
        }
    }
    let switched = async {
        let mut seen = 0;
        loop {
            let applied = shared.applied.load(Ordering::Relaxed);
            if applied >= index {
                return Answer::Installed(applied);
            }
            seen = shared.changed(seen).await;
        }
    };
    let late = |_| Answer::Refused("the switch takes long".into());
    timeout(SWITCH, switched).await.unwrap_or_else(late)
}
