//! What the tasks of a replica and its handle share.

use super::admission::{Admission, Admitted};
use super::options::Options;
use super::unsent::Unsent;
use crate::identity::Identity;
use crate::log::Place;
use bytes::Bytes;
use raft_protocol::{
    Configuration, Entry, Index, Message, NodeId, Payload, Role, SnapshotMeta, Status, Term,
};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use world::Site;
use world::clock::{Instant, now};
use world::disk::Disk;
use world::turnstile::Turnstile;

use super::error::{Fatal, ProposeError, ReadError};
use super::space::{FullDisk, Space};
use super::wire::Room;
use crate::store::{Install, Installed, Spool, Stamp, StoreError};

/// Events waiting for the Raft task; beyond, clients wait and mail is dropped.
pub(super) const INBOX: usize = 8192;
/// Bytes of mail waiting for the Raft task, as it lies in memory; beyond, mail is dropped. Several
/// times what a leader has in flight to a follower. (What clients propose and ask counts against
/// `Options::max_uncommitted_bytes` and their connections' limits.)
pub(super) const INBOX_MAIL_BYTES: usize = 64 << 20;
/// Bytes of committed entries handed to the apply task and not yet applied.
pub(super) const APPLY_WINDOW_BYTES: usize = 1 << 20;

/// What a command that waits counts besides its bytes: each one is kept, committed and applied by
/// every member, however short it is. So no more than some thousands of them wait.
pub(super) const COMMAND_BYTES: usize = 4 << 10;

/// The server's own commands have as much room besides as this part of what clients' have.
const OWN_PART: usize = 8;

/// A client that waits for a command.
pub(super) struct Waiter {
    pub(super) reply: oneshot::Sender<Result<Bytes, ProposeError>>,
    pub(super) _admitted: Admitted,
}

/// A client that waits for a read.
pub(super) struct Query {
    pub(super) query: Bytes,
    pub(super) reply: oneshot::Sender<Result<Bytes, ReadError>>,
}

/// From outside to the Raft task; bounded by [`INBOX`].
pub(super) enum Event {
    Mail {
        from: NodeId,
        messages: Vec<Message>,
        /// Its share of [`INBOX_MAIL_BYTES`].
        room: OwnedSemaphorePermit,
    },
    Propose {
        /// In its envelope, without its log time.
        command: Payload,
        waiter: Waiter,
    },
    Read(Query),
}

/// From the replica's own tasks to the Raft task. At most one per write, per batch handed to the
/// apply task, per flush and per transfer, so it needs no bound of its own.
pub(super) enum Internal {
    Persisted(u64),
    Applied {
        bytes: usize,
    },
    Durable(SnapshotMeta),
    Spooled(Result<Arc<Spool>, String>),
    /// See [`Fetch`](raft_protocol::Fetch).
    Fetched {
        to: NodeId,
        entries: Vec<Entry>,
        place: Option<Place>,
    },
    SnapshotSent {
        to: NodeId,
        /// The term in which this node led when the transfer began.
        term: Term,
        installed: Option<Index>,
    },
    Offered {
        from: NodeId,
        term: Term,
        meta: SnapshotMeta,
        reply: oneshot::Sender<bool>,
    },
    Ready(SnapshotMeta),
    Born(Configuration),
}

/// One committed entry and who waits for it.
pub(super) struct Committed {
    pub(super) entry: Entry,
    pub(super) waiter: Option<Waiter>,
}

/// To the apply task. Entries are bounded by [`APPLY_WINDOW_BYTES`]; the rest are one per client
/// request, which the server bounds.
pub(super) enum Apply {
    Entries(Vec<Committed>),
    Reads {
        index: Index,
        queries: Vec<Query>,
    },
    Inspect(Query),
    Configuration(Configuration),
    Spool,
    Install {
        stamp: Stamp,
        reply: oneshot::Sender<Result<Install, StoreError>>,
    },
    Filled(Installed),
    Switch {
        meta: SnapshotMeta,
        reply: oneshot::Sender<()>,
    },
    Stop,
}

/// What the Raft task publishes after every step.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) status: Status,
    /// Index of the no-op of the term this node leads.
    pub(super) leads_from: Option<Index>,
}

/// Shared by the handle and the tasks.
pub(super) struct Shared {
    pub(super) options: Options,
    pub(super) site: Site,
    pub(super) disk: Disk,
    pub(super) identity: Mutex<Identity>,
    /// Serialises replacements of the identity file.
    pub(super) saving: tokio::sync::Mutex<()>,
    pub(super) view: Mutex<View>,
    pub(super) applied: AtomicU64,
    pub(super) durable: AtomicU64,
    pub(super) digest: AtomicU64,
    pub(super) state_bytes: AtomicU64,
    pub(super) log_bytes: AtomicU64,
    /// Room on the disk.
    pub(super) space: Space,
    /// Bytes that may be applied before something must be flushed.
    pub(super) apply_room: AtomicUsize,
    /// Proposals are slowed down for a member that is far behind.
    pub(super) slowed: AtomicBool,
    /// Log time at `applied`.
    pub(super) time_ms: AtomicU64,
    /// Why the node may not vote, besides abstention.
    pub(super) hindrance: Mutex<Option<String>>,
    /// When a member last answered to a snapshot that it is sent.
    pub(super) receiver_heard: Mutex<Option<Instant>>,
    /// Peers that refuse this start of this disk, with what they say.
    pub(super) refusals: Mutex<BTreeMap<NodeId, String>>,
    pub(super) inbox: mpsc::Sender<Event>,
    /// Where requests wait for room in it.
    turn: Turnstile,
    pub(super) internal: mpsc::UnboundedSender<Internal>,
    pub(super) apply: mpsc::UnboundedSender<Apply>,
    /// Clients' commands, and those of the server's own tasks, which clients must not hold up.
    pub(super) admission: Admission,
    pub(super) own_admission: Admission,
    /// Room for mail in the inbox, bytes.
    pub(super) mail_room: Arc<Semaphore>,
    /// Replies on their way, bounded by `Options::max_unsent_bytes`.
    pub(super) unsent: Unsent,
    version: AtomicU64,
    changed: Notify,
    /// What ends the replica, found outside its tasks.
    broken: Mutex<Option<Fatal>>,
    broke: Notify,
    pub(super) stopping: AtomicU64,
    pub(super) stop: Notify,
}

/// Locks; a poisoned lock means a task of this replica panicked, which ends it anyway.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The receiving ends, for the tasks.
pub(super) struct Ends {
    pub(super) inbox: mpsc::Receiver<Event>,
    pub(super) internal: mpsc::UnboundedReceiver<Internal>,
    pub(super) apply: mpsc::UnboundedReceiver<Apply>,
}

impl Shared {
    pub(super) fn new(
        options: Options,
        disk: Disk,
        identity: Identity,
        status: Status,
        stamp: &Stamp,
    ) -> (Arc<Shared>, Ends) {
        let (inbox, inbox_rx) = mpsc::channel(INBOX);
        let (internal, internal_rx) = mpsc::unbounded_channel();
        let (apply, apply_rx) = mpsc::unbounded_channel();
        let shared = Shared {
            site: Site {
                group: options.group,
                node: options.node,
            },
            admission: Admission::new(options.max_uncommitted_bytes),
            own_admission: Admission::new(options.max_uncommitted_bytes / OWN_PART),
            mail_room: Arc::new(Semaphore::new(INBOX_MAIL_BYTES)),
            space: Space::new(options.log.reserve_bytes, options.store.reserve_bytes),
            options,
            disk,
            identity: Mutex::new(identity),
            saving: tokio::sync::Mutex::new(()),
            view: Mutex::new(View {
                status,
                leads_from: None,
            }),
            applied: AtomicU64::new(stamp.index),
            durable: AtomicU64::new(stamp.index),
            digest: AtomicU64::new(stamp.digest),
            state_bytes: AtomicU64::new(0),
            log_bytes: AtomicU64::new(0),
            apply_room: AtomicUsize::new(usize::MAX),
            slowed: AtomicBool::new(false),
            time_ms: AtomicU64::new(stamp.time_ms),
            hindrance: Mutex::new(None),
            receiver_heard: Mutex::new(None),
            refusals: Mutex::default(),
            inbox,
            turn: Turnstile::default(),
            internal,
            apply,
            unsent: Unsent::default(),
            version: AtomicU64::new(1),
            changed: Notify::new(),
            broken: Mutex::new(None),
            broke: Notify::new(),
            stopping: AtomicU64::new(0),
            stop: Notify::new(),
        };
        let ends = Ends {
            inbox: inbox_rx,
            internal: internal_rx,
            apply: apply_rx,
        };
        (Arc::new(shared), ends)
    }

    /// Tells the Raft task; it may be gone already when the replica stops.
    pub(super) fn tell(&self, event: Internal) {
        let _ = self.internal.send(event);
    }

    /// Puts a client's request into the inbox, in the order in which requests came; false when the
    /// replica has ended. A client counts on that order: a write of its stream that overtakes another
    /// is refused.
    pub(super) async fn ask(&self, request: Event) -> bool {
        self.turn.pass(self.inbox.send(request)).await.is_ok()
    }

    /// Something was applied, or the role changed.
    pub(super) fn bump(&self) {
        self.version.fetch_add(1, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Waits until the version differs from `seen`, and returns it.
    pub(super) async fn changed(&self, seen: u64) -> u64 {
        loop {
            let notified = self.changed.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let version = self.version.load(Ordering::Relaxed);
            if version != seen {
                return version;
            }
            notified.await;
        }
    }

    /// Ends the replica.
    pub(super) fn fail(&self, error: Fatal) {
        lock(&self.broken).get_or_insert(error);
        self.broke.notify_one();
    }

    /// Resolves with what ended the replica.
    pub(super) async fn failed(&self) -> Fatal {
        loop {
            if let Some(error) = lock(&self.broken).take() {
                return error;
            }
            self.broke.notified().await;
        }
    }

    pub(super) fn is_leader(&self) -> bool {
        let view = lock(&self.view);
        view.status.role == Role::Leader
            && view
                .leads_from
                .is_some_and(|noop| self.applied.load(Ordering::Relaxed) >= noop)
    }

    /// Bytes of commands on their way to the log, and then to the state.
    pub(super) fn on_the_way(&self) -> usize {
        self.admission.taken() + self.own_admission.taken()
    }

    /// The disk of the group that is nearly full, if one is, with these bytes of commands on their way.
    pub(super) fn full_disk(&self, on_the_way: usize) -> Option<FullDisk> {
        let own = FullDisk {
            node: self.options.node,
            free: self.space.left(),
        };
        let is_full = self.space.is_full(on_the_way);
        let peer = || self.space.full_peer(on_the_way, now());
        is_full.then_some(own).or_else(peer)
    }

    /// What is said to the others of this member's disk.
    pub(super) fn room(&self) -> Option<Room> {
        let full = self.space.is_full(self.on_the_way());
        let free = self.space.left();
        (full || self.space.is_short()).then_some(Room { free, full })
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) != 0
    }

    /// Resolves when the replica was told to stop.
    pub(super) async fn stopped(&self) {
        loop {
            let notified = self.stop.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            if self.is_stopping() {
                return;
            }
            notified.await;
        }
    }
}
