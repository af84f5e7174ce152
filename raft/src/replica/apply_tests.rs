//! The apply task alone: installs that cross each other, and reads that wait.

use super::*;
use crate::replica::options::Options;
use crate::replica::parts::{Nothing, disk, options, shared};
use crate::replica::shared::Ends;
use crate::store::{Install, Opened, Rows, Spool, Stamp, StoreError, StoreOptions};
use raft_protocol::Entry;
use std::io::ErrorKind;
use world::disk::{DiskOp, SimDisk};
use world::testing::block_on_test;

async fn open(disk: &SimDisk) -> Store {
    match Store::open(&disk.disk(), StoreOptions::default()).await {
        Ok(Opened::Ready(store)) => *store,
        _ => panic!("fresh"),
    }
}

/// The snapshot of a store elsewhere whose one row says at which index it was made.
async fn snapshot(index: u64) -> Spool {
    let mut store = open(&disk("donor")).await;
    let value = index.to_string();
    store.rows_mut().put(b"key", value.as_bytes()).unwrap();
    store.applied(index, 1, index);
    store.start_snapshot();
    loop {
        if let Done::Spooled(spool) = store.done().await.unwrap() {
            return spool.unwrap();
        }
    }
}

async fn applier(disk: &SimDisk) -> (Arc<Shared>, Applier<Nothing>, Ends) {
    applier_with(disk, options(BTreeMap::new())).await
}

async fn applier_with(disk: &SimDisk, options: Options) -> (Arc<Shared>, Applier<Nothing>, Ends) {
    let store = open(disk).await;
    let (shared, mut ends) = shared(disk, options, &store.stamp());
    let (_, unused) = mpsc::unbounded_channel();
    let events = std::mem::replace(&mut ends.apply, unused);
    let applier = Applier::new(shared.clone(), store, Nothing, events);
    (shared, applier, ends)
}

async fn install(shared: &Shared, stamp: &Stamp) -> Install {
    let (reply, install) = oneshot::channel();
    let stamp = stamp.clone();
    let _ = shared.apply.send(Apply::Install { stamp, reply });
    install.await.unwrap().unwrap()
}

fn fill(mut install: Install, spool: &Spool) -> Installed {
    for number in 0..spool.chunks {
        let chunk = spool.chunk(number).unwrap();
        install.add(number, &chunk).unwrap();
    }
    install.finish().unwrap()
}

/// A command of term 1 for which nobody waits.
fn committed(index: u64, command: &[u8]) -> Committed {
    let mut command = crate::replica::wire::wrap(command);
    crate::replica::wire::stamp(&mut command, 1);
    let body = Body::Command(command);
    let entry = Entry {
        term: 1,
        index,
        body,
    };
    let waiter = None;
    Committed { entry, waiter }
}

/// What the Raft task is told next, but for how much of the log may go.
async fn news(ends: &mut Ends) -> Option<Internal> {
    loop {
        match ends.internal.recv().await {
            Some(Internal::Durable(_)) => {}
            other => return other,
        }
    }
}

/// Rows of a few bytes, each of which may write pages of its own: two flushes of them are not to take
/// more than is kept.
#[test]
fn on_a_short_disk_rows_are_counted_by_their_pages() {
    block_on_test(async {
        let disk = disk("a");
        let (shared, mut applier, _ends) = applier(&disk).await;
        let row = |applier: &mut Applier<Nothing>, n: u64| {
            let rows = applier.store.rows_mut();
            rows.put(&n.to_be_bytes(), b"few").unwrap();
        };
        (0..100).for_each(|n| row(&mut applier, n));
        applier.store.applied(1, 1, 1);
        let short = |free: u64| crate::replica::space::note(&shared, free);
        short(8 << 20);
        assert!(!applier.flush_due(), "100 rows are less than a MiB");
        (100..200).for_each(|n| row(&mut applier, n));
        assert!(applier.flush_due() && !applier.lacks_room());
        (200..300).for_each(|n| row(&mut applier, n));
        assert!(applier.lacks_room());
        short(1 << 30);
        assert!(!applier.flush_due() && !applier.lacks_room());
    });
}

/// One snapshot is complete and the core has asked for the switch, which waits for a write under
/// way; meanwhile another leader's transfer begins, and is complete as well.
#[test]
fn a_second_install_does_not_take_away_the_first() {
    block_on_test(async {
        let (disk, old, new) = (disk("a"), snapshot(10).await, snapshot(20).await);
        let (shared, applier, mut ends) = applier(&disk).await;
        let life = tokio::spawn(applier.run());
        let first = fill(install(&shared, &old.stamp).await, &old);
        let _ = shared.apply.send(Apply::Filled(first));
        let second = fill(install(&shared, &new.stamp).await, &new);
        let _ = shared.apply.send(Apply::Filled(second));
        for spool in [&old, &new] {
            match news(&mut ends).await {
                Some(Internal::Ready(meta)) => assert_eq!(meta, spool.stamp.meta()),
                _ => panic!("the core is asked about each"),
            }
            let (reply, switched) = oneshot::channel();
            let meta = spool.stamp.meta();
            let _ = shared.apply.send(Apply::Switch { meta, reply });
            switched.await.expect("the snapshot is there");
            assert_eq!(shared.applied.load(Ordering::Relaxed), spool.stamp.index);
        }
        let _ = shared.apply.send(Apply::Stop);
        life.await.unwrap().unwrap();
    });
}

/// A snapshot that the core drops, since the state is past it, leaves no file behind.
#[test]
fn a_snapshot_the_state_has_passed_goes() {
    block_on_test(async {
        let (disk, old, new) = (disk("a"), snapshot(10).await, snapshot(20).await);
        let (shared, applier, mut ends) = applier(&disk).await;
        let life = tokio::spawn(applier.run());
        for spool in [&old, &new] {
            let installed = fill(install(&shared, &spool.stamp).await, spool);
            let _ = shared.apply.send(Apply::Filled(installed));
            assert!(matches!(news(&mut ends).await, Some(Internal::Ready(_))));
        }
        let (reply, switched) = oneshot::channel();
        let meta = new.stamp.meta();
        let _ = shared.apply.send(Apply::Switch { meta, reply });
        switched.await.unwrap();
        let (reply, answer) = oneshot::channel();
        let query = Bytes::new();
        let _ = shared.apply.send(Apply::Inspect(Query { query, reply }));
        assert_eq!(answer.await.unwrap().unwrap(), "20");
        let names = disk.disk().list("").unwrap();
        let states = names.iter().filter(|n| n.starts_with("state-"));
        assert_eq!(states.count(), 1, "{names:?}");
        let _ = shared.apply.send(Apply::Stop);
        life.await.unwrap().unwrap();
    });
}

#[test]
fn a_snapshot_of_nothing_is_refused_and_may_be_asked_for_again() {
    block_on_test(async {
        let (shared, applier, mut ends) = applier(&disk("a")).await;
        let life = tokio::spawn(applier.run());
        for _ in 0..2 {
            let _ = shared.apply.send(Apply::Spool);
            assert!(matches!(
                news(&mut ends).await,
                Some(Internal::Spooled(Err(_)))
            ));
        }
        let _ = shared.apply.send(Apply::Stop);
        life.await.unwrap().unwrap();
    });
}

#[test]
fn reads_that_nobody_waits_for_are_not_kept() {
    block_on_test(async {
        let (_, mut applier, _ends) = applier(&disk("a")).await;
        let queries = |n: usize| {
            let pairs = (0..n).map(|_| oneshot::channel());
            let (replies, answers): (Vec<_>, Vec<_>) = pairs.unzip();
            let query = |reply| Query {
                query: Bytes::new(),
                reply,
            };
            (replies.into_iter().map(query).collect::<Vec<_>>(), answers)
        };
        for _ in 0..3 {
            let (gone, answers) = queries(MAX_WAITING_READS);
            drop(answers);
            applier.wait(7, gone);
            assert_eq!(applier.waiting, MAX_WAITING_READS);
        }
        let (kept, mut answers) = queries(MAX_WAITING_READS);
        applier.wait(7, kept);
        let (refused, mut late) = queries(1);
        applier.wait(8, refused);
        assert_eq!(applier.waiting, MAX_WAITING_READS);
        assert_eq!(late[0].try_recv(), Ok(Err(ReadError::NoLeader)));
        assert!(answers[0].try_recv().is_err(), "it waits on");
    });
}

/// Entries are applied while a flush runs, so many that the log is full of them; it takes nothing
/// more in, so no entry comes that would ask for their flush. Found by the campaign (I21): both
/// followers stood still for ten seconds, and the group with them.
#[test]
fn what_was_applied_during_a_flush_is_flushed_without_being_asked() {
    block_on_test(async {
        let mut options = options(BTreeMap::new());
        options.flush_log_bytes = 100;
        let (shared, applier, mut ends) = applier_with(&disk("a"), options).await;
        let life = tokio::spawn(applier.run());
        let batch = |index| Apply::Entries(vec![committed(index, &[b'.'; 200])]);
        for index in 1..=2 {
            let _ = shared.apply.send(batch(index));
        }
        let durable = async {
            loop {
                match ends.internal.recv().await {
                    Some(Internal::Durable(meta)) if meta.index == 2 => return,
                    Some(_) => {}
                    None => panic!("the apply task ended"),
                }
            }
        };
        let patience = AT_REST / 2;
        let flushed = world::clock::timeout(patience, durable).await;
        assert!(flushed.is_ok(), "not flushed within {patience:?}");
        let _ = shared.apply.send(Apply::Stop);
        life.await.unwrap().unwrap();
    });
}

/// Clients that do not take what they asked for do not make a server gather it: it answers no more
/// reads until some has been taken, the long ones first. Its own tasks go on looking at the state for
/// a while.
#[test]
fn replies_that_wait_to_be_sent_are_bounded() {
    block_on_test(async {
        let mut options = options(BTreeMap::new());
        options.max_unsent_bytes = 200;
        let (shared, mut applier, _ends) = applier_with(&disk("a"), options).await;
        let rows = applier.store.rows_mut();
        rows.put(b"key", &[7; 60]).unwrap();
        rows.put(b"short", &[8; 20]).unwrap();
        let ask_for = |applier: &mut Applier<Nothing>, query: &'static [u8], inspect: bool| {
            let (reply, mut answer) = oneshot::channel();
            let query = Bytes::from_static(query);
            let query = Query { query, reply };
            match inspect {
                true => applier.inspect(query).unwrap(),
                false => applier.read(query).unwrap(),
            }
            answer.try_recv().unwrap()
        };
        let ask = |applier: &mut _, inspect| ask_for(applier, b"", inspect);
        let first = ask(&mut applier, false).unwrap();
        assert_eq!(&first[..], [7; 60]);
        // One that nobody waits for any more does not count.
        drop(ask(&mut applier, false).unwrap());
        let second = ask(&mut applier, false).unwrap();
        assert_eq!(shared.unsent.bytes(), 120);
        assert_eq!(ask(&mut applier, false), Err(ReadError::Busy));
        // Short ones have the second half, as long as they take a quarter of what is left.
        let short = ask_for(&mut applier, b"short", false);
        assert!(short.is_ok(), "{short:?}");
        assert_eq!(shared.unsent.bytes(), 140);
        assert_eq!(ask_for(&mut applier, b"short", false), Err(ReadError::Busy));
        drop(short);
        let seen = [ask(&mut applier, true), ask(&mut applier, true)];
        assert!(seen.iter().all(Result::is_ok), "{seen:?}");
        assert_eq!(ask(&mut applier, true), Err(ReadError::Busy));
        drop(seen);
        // It counts until the last slice of it is gone.
        let rest = first.slice(59..);
        drop(first);
        assert_eq!(ask(&mut applier, false), Err(ReadError::Busy));
        drop(rest);
        let third = ask(&mut applier, false);
        assert!(third.is_ok(), "{third:?}");
        drop((second, third));
        assert_eq!(shared.unsent.bytes(), 0);
    });
}

/// A state file of pages for one row, which is being rewritten, and gives way to a flush.
async fn giving_way(disk: &SimDisk) -> Store {
    let options = StoreOptions {
        rewrite_min_bytes: 1000,
        ..StoreOptions::default()
    };
    let Ok(Opened::Ready(mut store)) = Store::open(&disk.disk(), options).await else {
        panic!("fresh")
    };
    store.rows_mut().put(b"key", b"1").unwrap();
    store.applied(1, 1, 1);
    assert!(store.maybe_flush(true));
    assert!(matches!(store.done().await, Ok(Done::Flushed)));
    assert!(!store.maybe_flush(false));
    store.rows_mut().put(b"key", b"2").unwrap();
    store.applied(2, 1, 2);
    store.give_way();
    *store
}

/// An install waits for the job that runs. Its failure was an answer to who offered the snapshot: the
/// server lived on with a store that did nothing more, until its log was full and it stood still.
#[test]
fn a_flush_that_fails_under_an_install_ends_the_server() {
    block_on_test(async {
        let (disk, offered) = (disk("a"), snapshot(10).await);
        let store = giving_way(&disk).await;
        let (shared, mut ends) = shared(&disk, options(BTreeMap::new()), &store.stamp());
        let (_, unused) = mpsc::unbounded_channel();
        let events = std::mem::replace(&mut ends.apply, unused);
        let life = tokio::spawn(Applier::new(shared.clone(), store, Nothing, events).run());
        disk.fail_nth(DiskOp::Sync, 1, ErrorKind::Other);
        let (reply, answer) = oneshot::channel();
        let stamp = offered.stamp.clone();
        let _ = shared.apply.send(Apply::Install { stamp, reply });
        assert!(answer.await.is_err(), "it has no answer");
        let ended = life.await.unwrap();
        assert!(matches!(ended, Err(Fatal::Store(_))), "{ended:?}");
    });
}

/// What was applied before a flush that the store began itself, in the place of a rewrite that gave
/// way, is durable then: it does not count as unflushed, or each batch would wait for a flush.
#[test]
fn a_flush_that_the_store_began_itself_counts() {
    block_on_test(async {
        let disk = disk("a");
        let store = giving_way(&disk).await;
        let (shared, _ends) = shared(&disk, options(BTreeMap::new()), &store.stamp());
        let (_, events) = mpsc::unbounded_channel();
        let mut applier = Applier::new(shared, store, Nothing, events);
        applier.unflushed = 1000;
        let done = applier.store.done().await.unwrap();
        assert!(matches!(done, Done::Flushed));
        applier.done(done);
        assert_eq!(applier.unflushed, 0);
    });
}

/// Writes a row of 100 000 bytes for each command, however short.
struct Long;

impl Machine for Long {
    fn load(&mut self, _: &Rows) -> Result<(), StoreError> {
        Ok(())
    }
    fn apply(&mut self, rows: &mut Rows, at: At, _: &[u8]) -> Result<Bytes, StoreError> {
        rows.put(&at.index.to_be_bytes(), &[7; 100_000])?;
        Ok(Bytes::new())
    }
    fn read(&self, _: &Rows, _: &[u8]) -> Result<Bytes, StoreError> {
        Ok(Bytes::new())
    }
}

/// Commands of a few bytes, hundreds of them in a batch, whose rows are a thousand times as long: the
/// rows in memory end where they are said to, and who waits for what is applied does not wait for the
/// flush.
#[test]
fn short_commands_with_long_rows_wait_for_the_flush_within_a_batch() {
    block_on_test(async {
        let disk = disk("a");
        let limit = 1 << 20;
        let store_options = StoreOptions {
            overlay_limit: limit,
            ..StoreOptions::default()
        };
        let Ok(Opened::Ready(store)) = Store::open(&disk.disk(), store_options).await else {
            panic!("fresh")
        };
        let (shared, _ends) = shared(&disk, options(BTreeMap::new()), &store.stamp());
        let (_, events) = mpsc::unbounded_channel();
        let mut applier = Applier::new(shared.clone(), *store, Long, events);
        let batch = (1..=100).map(|index| committed(index, b"a"));
        applier.entries(batch.collect()).await.unwrap();
        assert_eq!(applier.store.applied_index(), 100);
        let memory = applier.store.memory();
        assert!(memory <= limit + 110_000, "{memory} bytes in memory");
        // Where no room is left, who proposes knows, and the flush that makes it has begun.
        let room = || shared.apply_room.load(Ordering::Relaxed);
        let mut index = 100;
        while room() > 0 {
            index += 1;
            applier.entries(vec![committed(index, b"a")]).await.unwrap();
            assert!(index < 120, "the room does not shrink");
        }
        let done = applier.store.done().await.unwrap();
        applier.done(done);
        assert!(room() > limit / 2);
    });
}
