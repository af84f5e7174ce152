//! The handle of a running replica.

use super::admission::Admission;
use super::error::{ProposeError, ReadError};
use super::meet;
use super::shared::{Apply, Event, Query, Shared, Waiter, lock};
use super::space::FullDisk;
use super::status::ReplicaStatus;
use super::transfer::Receiver;
use super::wire::{Answer, Call, Mail, decode, decode_mail, encode, wrap};
use crate::identity::Identity;
use crate::machine::Machine;
use bytes::Bytes;
use raft_protocol::{Message, NodeId, Term};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use world::clock::{now, timeout};
use world::net::{BoxFuture, Hello};

/// Bytes of a write of which `ReplicaStatus::writes_limited` tells when it would be refused although
/// short ones are not.
const LONG_WRITE: usize = 1 << 20;

/// A running replica. Cheap to clone.
pub struct Replica<M: Machine> {
    shared: Arc<Shared>,
    receiver: Receiver,
    /// Version last seen by [`Replica::changed`] of this handle.
    seen: AtomicU64,
    machine: PhantomData<fn() -> M>,
}

impl<M: Machine> Clone for Replica<M> {
    fn clone(&self) -> Self {
        Replica {
            shared: self.shared.clone(),
            receiver: self.receiver.clone(),
            seen: AtomicU64::new(0),
            machine: PhantomData,
        }
    }
}

impl<M: Machine> Replica<M> {
    pub(super) fn new(shared: Arc<Shared>) -> Replica<M> {
        Replica {
            shared,
            receiver: Receiver::default(),
            seen: AtomicU64::new(0),
            machine: PhantomData,
        }
    }

    /// Replicates a command and returns the machine's reply once it is committed and applied
    /// here. Commands enter in the order in which they were first polled, each when there is room for
    /// it ([`Options::max_uncommitted_bytes`](super::Options::max_uncommitted_bytes)); `Busy` when
    /// there was none until the deadline. Dropping the future leaves the command's fate unknown.
    pub async fn propose(&self, command: Bytes, deadline: Duration) -> Result<Bytes, ProposeError> {
        let admission = &self.shared.admission;
        self.propose_in(admission, command, false, deadline).await
    }

    /// As [`Replica::propose`], for the server's own commands: they have room of their own, so that
    /// what clients wait for (a shard on the move) does not wait for clients.
    pub async fn propose_own(
        &self,
        command: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, ProposeError> {
        let admission = &self.shared.own_admission;
        self.propose_in(admission, command, false, deadline).await
    }

    /// As [`Replica::propose`], for what may make the state grow: refused when a disk of the group is
    /// nearly full, or would be with all commands on their way and this one.
    pub async fn propose_growing(
        &self,
        command: Bytes,
        deadline: Duration,
    ) -> Result<Bytes, ProposeError> {
        let admission = &self.shared.admission;
        self.propose_in(admission, command, true, deadline).await
    }

    async fn propose_in(
        &self,
        admission: &Admission,
        command: Bytes,
        grows: bool,
        deadline: Duration,
    ) -> Result<Bytes, ProposeError> {
        let shared = &self.shared;
        let (size, limit) = (command.len(), shared.options.max_command());
        if size > limit {
            return Err(ProposeError::TooLarge { size, limit });
        }
        if shared.is_stopping() {
            return Err(ProposeError::Stopped);
        }
        let end = now() + deadline;
        let (reply, answer) = oneshot::channel();
        // The caller's copy may be a part of something larger, and this may wait for long.
        let wrapped = wrap(&command);
        drop(command);
        let enter = admission.pass(size, |admitted| async move {
            // Not before it is let in: with it all that is on its way is counted.
            if grows && let Some(full) = shared.full_disk(shared.on_the_way()) {
                return Err(ProposeError::Full(full));
            }
            let waiter = Waiter {
                reply,
                _admitted: admitted,
            };
            let command = wrapped;
            let asked = shared.ask(Event::Propose { command, waiter }).await;
            asked.then_some(()).ok_or(ProposeError::Stopped)
        });
        match timeout(deadline, enter).await {
            Ok(Some(Ok(()))) => {}
            Ok(Some(Err(error))) => return Err(error),
            Ok(None) => return Err(ProposeError::Stopped),
            Err(_) => {
                world::mark!("propose: no room until the deadline");
                return Err(ProposeError::Busy);
            }
        }
        match timeout(end.saturating_duration_since(now()), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(ProposeError::Unknown("the replica ended")),
            Err(_) => Err(ProposeError::Unknown("time ran out")),
        }
    }

    /// A disk of the group that is nearly full, this replica's or that of a member that it hears, or
    /// would be with a command of so many bytes more. (A command that is in the log is applied whatever
    /// the disks say.)
    pub fn full_disk(&self, command: usize) -> Option<FullDisk> {
        let shared = &self.shared;
        shared.full_disk(shared.on_the_way() + command)
    }

    /// A linearizable read (ReadIndex), on any member. The answer counts against
    /// `Options::max_unsent_bytes` for as long as it is kept: copy what is kept for long.
    pub async fn read(&self, query: Bytes, deadline: Duration) -> Result<Bytes, ReadError> {
        let (reply, answer) = oneshot::channel();
        let event = Event::Read(Query { query, reply });
        if !self.shared.ask(event).await {
            return Err(ReadError::Stopped);
        }
        match timeout(deadline, answer).await {
            Ok(result) => result.unwrap_or(Err(ReadError::Stopped)),
            Err(_) => Err(ReadError::Deadline),
        }
    }

    /// A read of the local state as it is, possibly stale. It is `Busy` later than a read.
    pub async fn inspect(&self, query: Bytes) -> Result<Bytes, ReadError> {
        let (reply, answer) = oneshot::channel();
        let event = Apply::Inspect(Query { query, reply });
        self.shared
            .apply
            .send(event)
            .map_err(|_| ReadError::Stopped)?;
        answer.await.unwrap_or(Err(ReadError::Stopped))
    }

    /// A status page.
    pub fn status(&self) -> ReplicaStatus {
        let shared = &self.shared;
        let view = lock(&shared.view).clone();
        let status = view.status;
        let not_voting = match status.abstain {
            Some(abstain) => Some(format!(
                "synced log entries were lost to damage: abstains until its log matches a \
                 leader through term {} index {}",
                abstain.term, abstain.index
            )),
            None => lock(&shared.hindrance)
                .clone()
                .or_else(|| refused(&shared.refusals, shared.options.peers.len())),
        };
        ReplicaStatus {
            group: shared.options.group,
            node: shared.options.node,
            role: status.role,
            term: status.term,
            leader: status.leader,
            last: status.last_index,
            commit: status.commit,
            applied: shared.applied.load(Ordering::Relaxed),
            durable: shared.durable.load(Ordering::Relaxed),
            base: status.base_index,
            disk_bytes: shared.state_bytes.load(Ordering::Relaxed)
                + shared.log_bytes.load(Ordering::Relaxed),
            not_voting,
            digest: shared.digest.load(Ordering::Relaxed),
            matched: status.matched,
            free_bytes: shared.space.free(),
            disk_short: shared.space.is_short(),
            writes_limited: self.writes_limited(),
        }
    }

    /// What a leader does to clients' writes at present, other than to carry them out.
    fn writes_limited(&self) -> Option<String> {
        if !self.is_leader() {
            return None;
        }
        let free = |full: FullDisk| {
            let FullDisk { node, free } = full;
            format!("{free} bytes are free on the disk of node {node}")
        };
        if let Some(full) = self.full_disk(0) {
            return Some(format!("refused: {}", free(full)));
        }
        if let Some(full) = self.full_disk(LONG_WRITE) {
            return Some(format!("refused when they are long: {}", free(full)));
        }
        let slowed = self.shared.slowed.load(Ordering::Relaxed);
        slowed.then(|| "slowed down until a member has caught up".to_owned())
    }

    /// The present leader as far as known, and the term.
    pub fn leader(&self) -> (Option<NodeId>, Term) {
        let view = lock(&self.shared.view);
        (view.status.leader, view.status.term)
    }

    /// True when this node leads and has applied an entry of its term.
    pub fn is_leader(&self) -> bool {
        self.shared.is_leader()
    }

    /// Resolves when something was applied, or the role changed, since the last call on this
    /// handle; spurious wake-ups occur.
    pub async fn changed(&self) {
        let version = self.shared.changed(self.seen.load(Ordering::Relaxed)).await;
        self.seen.store(version, Ordering::Relaxed);
    }

    /// The identity, for hellos.
    pub fn identity(&self) -> Identity {
        lock(&self.shared.identity).clone()
    }

    /// Stamps the cluster id once it is known (durably). An error when another one is stamped.
    pub async fn set_cluster(&self, cluster: u128) -> Result<(), String> {
        match lock(&self.shared.identity).cluster {
            Some(known) if known == cluster => return Ok(()),
            Some(known) => {
                return Err(format!(
                    "this data directory belongs to cluster {known:032x}, not to {cluster:032x}"
                ));
            }
            None => {}
        }
        // Another call may have stamped it meanwhile.
        let stamp = |own: &mut Identity| {
            own.cluster.get_or_insert(cluster);
        };
        meet::update(&self.shared, stamp)
            .await
            .map_err(|error| error.to_string())?;
        match lock(&self.shared.identity).cluster {
            Some(known) if known != cluster => Err(format!(
                "this data directory belongs to cluster {known:032x}, not to {cluster:032x}"
            )),
            _ => Ok(()),
        }
    }

    /// Our hello for a connection to (or from) anybody.
    pub fn hello(&self, to: Option<(u64, u64)>) -> Hello {
        meet::hello(&self.shared, to)
    }

    /// Judges a peer's hello (used in the server's `welcome`).
    pub fn welcome(&self, peer: &Hello) -> Result<Hello, String> {
        meet::welcome(&self.shared, peer)
    }

    /// Hands in mail that arrived on [`super::CHANNEL`]. Mail that does not fit the inbox, or
    /// cannot be read, is dropped: consensus repeats what matters.
    pub fn mail(&self, peer: &Hello, body: Bytes) {
        let shared = &self.shared;
        if !meet::on_record(shared, peer) {
            return;
        }
        // Its room first: what there is no room for is not even decoded.
        let Some(mut room) = self.mail_room(body.len()) else {
            return;
        };
        match decode_mail(&body, shared.options.protocol.1) {
            Ok(Mail { messages, short }) => {
                shared.space.heard(peer.node, short);
                let bytes: usize = messages.iter().map(Message::size).sum();
                match self.mail_room(bytes.saturating_sub(body.len())) {
                    Some(more) => room.merge(more),
                    None => return,
                }
                let event = Event::Mail {
                    from: peer.node,
                    messages,
                    room,
                };
                let _ = shared.inbox.try_send(event);
            }
            Err(reason) => tracing::warn!(node = peer.node, %reason, "unreadable consensus mail"),
        }
    }

    /// Room for so many bytes of mail, if there is.
    fn mail_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes).ok()?;
        let room = self.shared.mail_room.clone();
        room.try_acquire_many_owned(bytes).ok()
    }

    /// Serves a call that arrived on [`super::CHANNEL`].
    pub fn call(&self, peer: &Hello, deadline: Duration, body: Bytes) -> BoxFuture<Bytes> {
        let shared = self.shared.clone();
        let receiver = self.receiver.clone();
        let peer = peer.clone();
        Box::pin(async move {
            if peer.group != Some(shared.options.group) || peer.node == 0 {
                return encode(&Answer::Refused(
                    "only members of the group may ask this".into(),
                ));
            }
            let serve = async {
                match decode::<Call>(&body) {
                    Ok(Call::Meet { disk }) => meet::met(&shared, &peer, disk),
                    Ok(Call::Offer { .. } | Call::Chunk { .. })
                        if !meet::on_record(&shared, &peer) =>
                    {
                        Answer::Refused("not recorded yet: call again".into())
                    }
                    Ok(Call::Offer {
                        term,
                        stamp,
                        spool,
                        chunks,
                    }) => {
                        receiver
                            .offer(&shared, &peer, term, stamp, spool, chunks)
                            .await
                    }
                    Ok(Call::Chunk {
                        spool,
                        number,
                        data,
                    }) => receiver.chunk(&shared, &peer, spool, number, data).await,
                    Err(_) => Answer::Malformed,
                }
            };
            let answer = timeout(deadline, serve).await;
            encode(&answer.unwrap_or_else(|_| Answer::Refused("time ran out".into())))
        })
    }

    /// Stops promptly: waiting requests are answered as unknown, the state is flushed.
    pub fn stop(&self) {
        self.shared.stopping.store(1, Ordering::Relaxed);
        self.shared.stop.notify_waiters();
    }
}

/// What the peers say that refuse this start, when so few others are left that it can never be one of a
/// majority.
fn refused(refusals: &Mutex<BTreeMap<NodeId, String>>, members: usize) -> Option<String> {
    let refusals = lock(refusals);
    let left = members.saturating_sub(refusals.len());
    let said: Vec<&str> = refusals.values().map(String::as_str).collect();
    (left <= members / 2).then(|| format!("it is not heard: {}", said.join("; ")))
}

#[cfg(test)]
#[path = "handle_tests.rs"]
mod tests;
