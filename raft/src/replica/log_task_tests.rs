//! The log task alone: the order of what reaches the disk.

use super::*;
use crate::log::{LogOptions, LogOwner};
use crate::replica::parts::{disk, options, shared};
use crate::replica::shared::Ends;
use crate::store::Stamp;
use raft_protocol::{Abstain, Body, Entry, HardState, Index, Term};
use std::collections::BTreeMap;
use tokio::task::JoinHandle;
use world::disk::SimDisk;
use world::testing::block_on_test;

fn write(number: u64, term: Term, indices: std::ops::RangeInclusive<Index>) -> Write {
    let entry = |index| Entry {
        term,
        index,
        body: Body::Noop,
    };
    Write {
        commit: 0,
        number,
        hard_state: HardState {
            term,
            ..HardState::default()
        },
        reset: None,
        entries: indices.map(entry).collect(),
    }
}

fn open(disk: &SimDisk) -> (Log, crate::log::Recovered) {
    let owner = LogOwner {
        group: 1,
        node: 1,
        disk: 1,
    };
    let options = LogOptions::default();
    Log::open(&disk.disk(), owner, options, &SnapshotMeta::default()).expect("the log opens")
}

type Life = JoinHandle<Result<(), Fatal>>;
type Ops = mpsc::UnboundedSender<LogOp>;

/// A log task with five entries synced on this disk, and what it is held by.
async fn begun(disk: &SimDisk) -> (Life, Ops, Arc<Shared>, Ends) {
    let (shared, mut ends) = shared(disk, options(BTreeMap::new()), &Stamp::default());
    let (log, _) = open(disk);
    let (ops, rx) = mpsc::unbounded_channel();
    let life = tokio::spawn(run(shared.clone(), log, rx));
    let _ = ops.send(LogOp::Write(write(1, 1, 1..=5)));
    let synced = ends.internal.recv().await;
    assert!(matches!(synced, Some(Internal::Persisted(1))));
    (life, ops, shared, ends)
}

async fn end(life: Life) {
    life.abort();
    let _ = life.await;
}

/// A suffix that replaces another while that one still waits for its sync: in one batch with it,
/// and behind it. The other way round the replaced entries would be the log after a restart.
#[test]
fn what_replaces_a_suffix_is_written_behind_it() {
    let mut batch = Batch {
        commit: 0,
        hard_state: HardState::default(),
        runs: Vec::new(),
    };
    push(&mut batch, write(1, 1, 1..=2));
    push(&mut batch, write(2, 1, 3..=3));
    push(&mut batch, write(3, 2, 2..=3));
    let runs = batch.runs.iter().map(|run| {
        let last = run.last().expect("not empty");
        (run[0].index, last.index, last.term)
    });
    assert_eq!(runs.collect::<Vec<_>>(), [(1, 3, 1), (2, 3, 2)]);
}

/// Writes that share a sync: whatever of the hard state the last one says, and only the last, is on
/// disk when its number is reported, whether or not it carries entries and however many share. (A vote
/// that is the second write of a sync is told as soon as the sync is over.)
#[test]
fn a_shared_sync_holds_the_newest_hard_state() {
    let voted = |vote| HardState {
        term: 7,
        vote: Some(vote),
        abstain: None,
    };
    let abstains = HardState {
        abstain: Some(Abstain { term: 7, index: 9 }),
        ..voted(2)
    };
    let without = |number, hard_state| Write {
        commit: 0,
        number,
        hard_state,
        reset: None,
        entries: Vec::new(),
    };
    let with = |number, hard_state, index| Write {
        commit: 0,
        hard_state,
        ..write(number, 1, index..=index)
    };
    let batches = [
        vec![with(2, voted(2), 6), without(3, voted(3))],
        vec![without(2, voted(2)), with(3, voted(3), 6)],
        vec![
            without(2, voted(2)),
            without(3, voted(3)),
            with(4, voted(1), 6),
        ],
        vec![
            with(2, voted(2), 6),
            with(3, voted(2), 7),
            without(4, abstains),
        ],
        vec![without(2, abstains), without(3, voted(2))],
    ];
    for writes in batches {
        block_on_test(async move {
            let disk = disk("a");
            let (life, ops, _shared, mut ends) = begun(&disk).await;
            // All lie there before the task looks: one sync takes them all.
            let last = writes.last().expect("some").clone();
            for write in &writes {
                let _ = ops.send(LogOp::Write(write.clone()));
            }
            let synced = ends.internal.recv().await;
            assert!(
                matches!(synced, Some(Internal::Persisted(n)) if n == last.number),
                "not one sync: {writes:?}"
            );
            disk.power_fail();
            end(life).await;
            let (_, recovered) = open(&disk);
            assert_eq!(recovered.hard_state, last.hard_state, "{writes:?}");
        });
    }
}

/// The power fails when the apply task is asked to switch to the snapshot, which `CURRENT` does not
/// name yet: the log is still the old one, whole, and the old state can be continued from it.
#[test]
fn the_log_is_reset_after_the_switch() {
    block_on_test(async {
        let disk = disk("a");
        let (life, ops, _shared, mut ends) = begun(&disk).await;
        let snapshot = SnapshotMeta {
            index: 100,
            term: 2,
            ..SnapshotMeta::default()
        };
        let _ = ops.send(LogOp::Write(Write {
            commit: 0,
            reset: Some(snapshot.clone()),
            ..write(2, 2, 101..=101)
        }));
        let Some(Apply::Switch { meta, reply }) = ends.apply.recv().await else {
            panic!("the apply task is asked to switch");
        };
        assert_eq!(meta, snapshot);
        disk.power_fail();
        end(life).await;
        drop(reply);
        let (_, recovered) = open(&disk);
        assert_eq!(recovered.base.index, 0);
        assert_eq!(recovered.entries.last().map(|e| e.index), Some(5));
    });
}

/// The process was killed before it proved its last batch: the next life does, or damage to that batch
/// would be taken for a torn tail as long as nothing else is written.
#[test]
fn the_last_batch_of_an_earlier_life_is_sealed() {
    block_on_test(async {
        let disk = disk("a");
        let (life, _, shared, _ends) = begun(&disk).await;
        end(life).await;
        let (log, recovered) = open(&disk);
        assert_eq!(recovered.entries.len(), 5);
        let (_ops, rx) = mpsc::unbounded_channel();
        let life = tokio::spawn(run(shared, log, rx));
        sleep(IDLE + IDLE / 2).await;
        end(life).await;
        let (name, _) = disk
            .files()
            .into_iter()
            .find(|(n, _)| n.ends_with(".seg"))
            .expect("one");
        // Behind the two copies of the header.
        assert!(disk.flip_bit(&name, 2 * 4096 + 100, 0));
        let (_, recovered) = open(&disk);
        assert!(recovered.damage.is_some(), "{:?}", recovered.torn);
    });
}
