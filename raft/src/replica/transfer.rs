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
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;
use world::net::{Hello, Link};

/// For the answer to one chunk; installing the last one may take long.
const DEADLINE: Duration = Duration::from_secs(20);
/// A transfer gives up after this many calls in a row without an answer.
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
                    installed = transfer(&shared, to, term, &link, spool) => installed,
                }
            }
            None => None,
        };
        shared.tell(Internal::SnapshotSent { to, installed });
    });
}

async fn transfer(
    shared: &Arc<Shared>,
    to: NodeId,
    term: Term,
    link: &Link,
    spool: Arc<Spool>,
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
            return None; // deposed: somebody else sends, if need be
        }
        let answer = match link.call(CHANNEL, next.clone(), DEADLINE).await {
            Ok(body) => decode::<Answer>(&body),
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

/// A transfer being received.
struct Incoming {
    from: DiskId,
    spool: u128,
    chunks: u64,
    next: u64,
    /// Taken while a chunk is being written.
    install: Option<Install>,
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
        let (reply, accepted) = oneshot::channel();
        let index = stamp.index;
        shared.tell(Internal::Offered {
            from: peer.node,
            term,
            meta: stamp.meta(),
            reply,
        });
        if accepted.await != Ok(true) {
            let applied = shared.applied.load(Ordering::Relaxed);
            if applied >= index {
                return Answer::Installed(applied);
            }
            return Answer::Refused("not wanted".into());
        }
        {
            let mut incoming = lock(&self.incoming);
            if let Some(known) = incoming.as_ref()
                && (known.from, known.spool) == (peer.disk, spool)
            {
                if known.install.is_some() {
                    return Answer::Want(known.next);
                }
                return Answer::Refused("busy with this transfer".into());
            }
            *incoming = None;
        }
        let (reply, install) = oneshot::channel();
        let _ = shared.apply.send(Apply::Install { stamp, reply });
        let install = match install.await {
            Ok(Ok(install)) => install,
            Ok(Err(error)) => return Answer::Refused(error.to_string()),
            Err(_) => return Answer::Refused("shutting down".into()),
        };
        *lock(&self.incoming) = Some(Incoming {
            from: peer.disk,
            spool,
            chunks,
            next: 0,
            install: Some(install),
        });
        if chunks == 0 {
            return self.finish(shared, index).await;
        }
        Answer::Want(0)
    }

    pub(super) async fn chunk(
        &self,
        shared: &Arc<Shared>,
        peer: &Hello,
        spool: u128,
        number: u64,
        data: Bytes,
    ) -> Answer {
        let mut install = {
            let mut incoming = lock(&self.incoming);
            match incoming.as_mut() {
                Some(known) if (known.from, known.spool) == (peer.disk, spool) => {
                    if known.next != number {
                        return Answer::Want(known.next);
                    }
                    match known.install.take() {
                        Some(install) => install,
                        None => return Answer::Refused("busy with this transfer".into()),
                    }
                }
                _ => return Answer::Refused("no such transfer: offer it again".into()),
            }
        };
        let index = install.stamp.index;
        let added = shared
            .disk
            .job(move || install.add(number, &data).map(|()| install))
            .await;
        let last = match added {
            Ok(install) => {
                let mut incoming = lock(&self.incoming);
                match incoming.as_mut() {
                    Some(known) if (known.from, known.spool) == (peer.disk, spool) => {
                        known.install = Some(install);
                        known.next = number + 1;
                        known.next >= known.chunks
                    }
                    // Replaced by another transfer meanwhile.
                    _ => return Answer::Refused("another transfer took over".into()),
                }
            }
            Err(error) => {
                *lock(&self.incoming) = None;
                tracing::warn!(%error, "a snapshot chunk cannot be taken");
                return Answer::Refused(error.to_string());
            }
        };
        if last {
            self.finish(shared, index).await
        } else {
            Answer::Want(number + 1)
        }
    }

    /// All chunks are here: commit, let the core decide, wait until the switch is made.
    async fn finish(&self, shared: &Arc<Shared>, index: Index) -> Answer {
        let install = lock(&self.incoming)
            .take()
            .and_then(|incoming| incoming.install);
        let Some(install) = install else {
            return Answer::Refused("no such transfer: offer it again".into());
        };
        match shared.disk.job(move || install.finish()).await {
            Ok(installed) => {
                let _ = shared.apply.send(Apply::Filled(installed));
            }
            Err(error) => {
                tracing::warn!(%error, "a received snapshot is refused");
                return Answer::Refused(error.to_string());
            }
        }
        let mut seen = 0;
        loop {
            let applied = shared.applied.load(Ordering::Relaxed);
            if applied >= index {
                return Answer::Installed(applied);
            }
            seen = shared.changed(seen).await;
        }
    }
}
