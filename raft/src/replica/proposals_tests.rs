//! The Raft task of a group of one, with neither a log nor a state behind it.

use super::*;
use crate::log::{Log, LogOptions, LogOwner};
use crate::replica::log_task::LogOp;
use crate::replica::parts::{disk, options, shared};
use crate::replica::peers::Peers;
use crate::replica::shared::{Apply, Event, Internal, Query, Shared, Waiter};
use crate::replica::wire::wrap;
use crate::store::Stamp;
use bytes::Bytes;
use raft_protocol::{Configuration, Core, HardState, SnapshotMeta, Start, Write};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use world::clock::timeout;
use world::testing::block_on_test;

/// What the Raft task hands out.
struct Leader {
    shared: Arc<Shared>,
    writes: mpsc::UnboundedReceiver<LogOp>,
    applies: mpsc::UnboundedReceiver<Apply>,
}

impl Leader {
    /// The next write; none when none comes.
    async fn write(&mut self) -> Option<Write> {
        match timeout(Duration::from_secs(5), self.writes.recv()).await {
            Ok(Some(LogOp::Write(write))) => Some(write),
            _ => None,
        }
    }

    /// The write is on disk, and what it holds is applied as soon as it is handed out.
    async fn carry_out(&mut self, write: &Write) {
        self.shared.tell(Internal::Persisted(write.number));
        let mut left = write.entries.len();
        while left > 0 {
            if let Some(Apply::Entries(batch)) = self.applies.recv().await {
                left -= batch.len();
                let bytes = batch.iter().map(|c| c.entry.size()).sum();
                self.shared.tell(Internal::Applied { bytes });
            }
        }
    }

    async fn propose(&self, bytes: usize) {
        let (reply, _) = oneshot::channel();
        let admission = &self.shared.admission;
        let admitted = admission.pass(0, |admitted| async { admitted }).await;
        let waiter = Waiter {
            reply,
            _admitted: admitted.expect("there is room"),
        };
        let command = wrap(&vec![7; bytes]);
        assert!(self.shared.ask(Event::Propose { command, waiter }).await);
    }
}

/// One whose first entry is applied.
async fn leader() -> Leader {
    let disk = disk("a");
    let (shared, ends) = shared(&disk, options(BTreeMap::new()), &Stamp::default());
    let owner = LogOwner {
        group: 1,
        node: 1,
        disk: 1,
    };
    let base = SnapshotMeta {
        configuration: Configuration {
            voters: BTreeMap::from([(1, 1)]),
            ..Configuration::default()
        },
        ..SnapshotMeta::default()
    };
    let log = Log::open(&disk.disk(), owner, LogOptions::default(), &base);
    let core = Core::new(Start {
        id: 1,
        settings: shared.options.settings(),
        seed: 1,
        hard_state: HardState::default(),
        base,
        entries: Vec::new(),
        applied: 0,
        commit: 0,
        born: true,
        state_lost: false,
    });
    let (ops, writes) = mpsc::unbounded_channel();
    let reader = log.expect("the log opens").0.reader();
    let peers = Peers::new(shared.clone());
    let (inbox, internal) = (ends.inbox, ends.internal);
    let raft = Consensus::new(
        shared.clone(),
        core,
        peers,
        (ops, reader),
        inbox,
        internal,
        0,
    );
    tokio::spawn(raft.run());
    let mut leader = Leader {
        shared,
        writes,
        applies: ends.apply,
    };
    // Its vote, and the first entry of its term.
    for _ in 0..3 {
        if let Some(write) = leader.write().await {
            leader.carry_out(&write).await;
            if !write.entries.is_empty() {
                return leader;
            }
        }
    }
    panic!("it does not lead");
}

/// The state has no room: no command gets into the log, and a read waits for nothing.
#[test]
fn reads_do_not_wait_for_commands_for_which_there_is_no_room() {
    block_on_test(async {
        let mut leader = leader().await;
        leader.shared.apply_room.store(0, Ordering::Relaxed);
        leader.propose(1 << 20).await;
        let (reply, _answer) = oneshot::channel();
        let query = Bytes::new();
        assert!(leader.shared.ask(Event::Read(Query { query, reply })).await);
        match leader.applies.recv().await {
            Some(Apply::Reads { index, .. }) => assert_eq!(index, 1),
            _ => panic!("the read is handed out first"),
        }
        assert!(leader.write().await.is_none(), "nothing is written");
        leader.shared.apply_room.store(1, Ordering::Relaxed);
        assert!(leader.write().await.is_some(), "the command had its turn");
    });
}

/// Long commands, many at once: each write is of some of them, and no more are written than may be
/// committed and not applied.
#[test]
fn long_commands_are_written_some_at_a_time() {
    block_on_test(async {
        let mut leader = leader().await;
        for _ in 0..20 {
            leader.propose(1 << 20).await;
        }
        let mut writes = Vec::new();
        while let Some(write) = leader.write().await {
            assert_eq!(write.entries.len(), 1);
            writes.push(write);
        }
        assert_eq!(writes.len() * WRITE_BYTES, AHEAD_BYTES);
        for write in &writes {
            leader.carry_out(write).await;
        }
        assert!(leader.write().await.is_some(), "the others have their turn");
    });
}
