//! Files that have grown are copied, and what makes the copy wait.

mod store_common;

use raft::store::{Done, Shortage, Store, StoreOptions};
use std::time::Duration;
use store_common::*;
use world::clock::timeout;
use world::disk::SimDisk;
use world::testing::block_on_test;

/// With these a file of some hundred rows is worth a rewrite.
fn eager() -> StoreOptions {
    StoreOptions {
        rewrite_min_bytes: 100_000,
        ..options()
    }
}

/// 400 rows are flushed, and then all but the first `kept` are deleted; the file's bytes between.
async fn grown(sim: &SimDisk, options: StoreOptions, kept: u32) -> (Box<Store>, u64) {
    grown_to(sim, options, 400, kept).await
}

async fn grown_to(sim: &SimDisk, options: StoreOptions, rows: u32, kept: u32) -> (Box<Store>, u64) {
    let mut store = open_with(sim, options).await;
    for n in 0..rows {
        let value = [n as u8; 5_000];
        store.rows_mut().put(&n.to_be_bytes(), &value).unwrap();
    }
    step(&mut store);
    flush(&mut store).await.unwrap();
    let grown = store.bytes();
    leave(&mut store, kept).await;
    (store, grown)
}

/// Deletes all rows but the first `kept`.
async fn leave(store: &mut Store, kept: u32) {
    for n in kept..400u32 {
        store.rows_mut().delete(&n.to_be_bytes()).unwrap();
    }
    step(store);
    flush(store).await.unwrap();
}

#[test]
fn a_grown_file_is_rewritten() {
    block_on_test(async {
        let sim = sim_disk("a", 8);
        let (mut store, grown) = grown(&sim, eager(), 20).await;
        assert!(grown > 2_000_000);
        let before = (store.stamp(), content(store.rows()));
        store.maybe_flush(false);
        // Flushes wait; what is applied meanwhile stays in the overlay.
        apply(&mut store, &[("new", "row")]);
        assert!(!store.maybe_flush(true));
        assert!(matches!(store.done().await, Ok(Done::Rewritten)));
        assert_eq!(store.durable(), before.0);
        assert!(store.bytes() < grown / 4, "{} of {grown}", store.bytes());
        assert!(!store.maybe_flush(false), "once is enough");
        sim.power_fail();
        let mut store = open_with(&sim, eager()).await;
        assert_eq!((store.stamp(), content(store.rows())), before);
        assert!(sim.used() < grown / 2, "the old file is gone");
        apply(&mut store, &[("new", "row")]);
        flush(&mut store).await.unwrap();
    });
}

/// What is free inside a file is of no use to a disk that is full: the less room there is, the sooner
/// it is given back, also of a file that is not worth it otherwise.
#[test]
fn the_less_room_the_sooner_a_file_is_rewritten() {
    block_on_test(async {
        // Of 400 rows so many are left; the shortest disk on which the file stays as it is.
        for (kept, stays) in [(280, Shortage::Short), (100, Shortage::None)] {
            let sim = sim_disk("a", 9);
            let unusual = StoreOptions {
                rewrite_min_bytes: 1 << 40,
                ..options()
            };
            let (mut store, _) = grown(&sim, unusual, 400).await;
            // How short a file of these rows can be is known once it was rewritten.
            let rewritten = async |store: &mut Store, shortage| {
                store.spare_room(shortage);
                store.maybe_flush(false);
                let done = timeout(Duration::from_millis(500), store.done()).await;
                matches!(done, Ok(Ok(Done::Rewritten)))
            };
            assert!(rewritten(&mut store, Shortage::NearlyFull).await);
            leave(&mut store, kept).await;
            let file = store.bytes();
            let mut last = None;
            for shortage in [Shortage::None, Shortage::Short, Shortage::NearlyFull] {
                if rewritten(&mut store, shortage).await {
                    break;
                }
                last = Some(shortage);
            }
            assert_eq!(last, Some(stays), "{kept} rows left in {file} bytes");
        }
    });
}

/// A disk that is almost full wants a smaller file and has no room for two: the store goes on with the
/// one it has, and tries again when there is room.
#[test]
fn a_rewrite_without_room_is_put_off() {
    block_on_test(async {
        let sim = sim_disk("a", 11);
        let (mut store, grown) = grown(&sim, eager(), 100).await;
        let roomy = sim.options();
        // Half a MB of rows: it begins only where they would fit, if only just.
        for (left, begins) in [
            (0, false),
            (5_000, false),
            (200_000, false),
            (520_000, true),
        ] {
            sim.set_options(world::disk::SimDiskOptions {
                capacity: sim.used() + left,
                ..roomy.clone()
            });
            let before = sim.stats().bytes_written;
            store.maybe_flush(false);
            // Whether or not it begins, it leaves nothing.
            let mut gone = 0;
            while gone < 5 {
                let ended = timeout(Duration::from_millis(20), store.done()).await;
                assert!(ended.is_err(), "with room for {left}");
                let states = sim.files().into_iter().map(|(name, _)| name);
                let states = states.filter(|name| name.starts_with("state-")).count();
                let begun = sim.stats().bytes_written > before;
                assert!(begins || !begun, "with room for {left}");
                gone = match begun == begins && states == 1 {
                    true => gone + 1,
                    false => 0,
                };
            }
            sim.set_options(roomy.clone());
            apply(&mut store, &[("new", "row")]);
            flush(&mut store).await.unwrap();
        }
        store.maybe_flush(false);
        assert!(matches!(store.done().await, Ok(Done::Rewritten)));
        assert!(store.bytes() < grown / 2, "{} of {grown}", store.bytes());
    });
}

/// The log and the flushes beside a copy end the server when they find no room. A rewrite leaves less of
/// it than other copies: it is what makes room.
#[test]
fn a_copy_leaves_the_log_its_room() {
    block_on_test(async {
        let sim = sim_disk("a", 13);
        let options = StoreOptions {
            reserve_bytes: 3_000_000,
            ..eager()
        };
        let (mut store, grown) = grown(&sim, options, 100).await;
        let roomy = sim.options();
        let room = |left| world::disk::SimDiskOptions {
            capacity: sim.used() + left,
            ..roomy.clone()
        };
        sim.set_options(room(749_999));
        let before = sim.stats().bytes_written;
        store.maybe_flush(false);
        let ended = timeout(Duration::from_secs(1), store.done()).await;
        assert!(ended.is_err(), "there is room for it, and not for the log");
        assert_eq!(sim.stats().bytes_written, before);
        sim.set_options(room(2_999_999));
        store.start_snapshot();
        let Ok(Done::Spooled(Err(error))) = store.done().await else {
            panic!("it spooled");
        };
        assert!(error.to_string().contains("kept for the log"), "{error}");
        assert_eq!(sim.stats().bytes_written, before);
        sim.set_options(room(grown + 3_000_000));
        store.start_snapshot();
        assert!(matches!(store.done().await, Ok(Done::Spooled(Ok(_)))));
    });
}

/// All rows are deleted while the file is being rewritten with them: what the fresh file holds counts,
/// not what is left after the deletions, or it would seem to have always been so big.
#[test]
fn what_is_deleted_during_a_rewrite_makes_another_one_due() {
    block_on_test(async {
        let sim = sim_disk("a", 10);
        let (mut store, grown) = grown(&sim, eager(), 50).await;
        store.maybe_flush(false);
        for n in 0..50u32 {
            store.rows_mut().delete(&n.to_be_bytes()).unwrap();
        }
        apply(&mut store, &[("one", "row")]);
        assert!(matches!(store.done().await, Ok(Done::Rewritten)));
        let fresh = store.bytes();
        flush(&mut store).await.unwrap();
        store.maybe_flush(false);
        let again = timeout(Duration::from_secs(10), store.done()).await;
        assert!(
            matches!(again, Ok(Ok(Done::Rewritten))),
            "the file is not rewritten again"
        );
        assert!(
            store.bytes() < fresh,
            "{} of {fresh} of {grown}",
            store.bytes()
        );
    });
}

#[test]
fn who_waits_for_room_does_not_wait_for_a_rewrite_that_gave_way() {
    block_on_test(async {
        let sim = sim_disk("a", 9);
        let options = StoreOptions {
            overlay_limit: 10_000,
            ..eager()
        };
        let (mut store, _) = grown(&sim, options, 20).await;
        store.maybe_flush(false);
        apply(&mut store, &[("new", &"row".repeat(5_000))]);
        assert!(store.full());
        assert!(!store.maybe_flush(true), "the rewrite runs, and gives way");
        let done = tokio::time::timeout(std::time::Duration::from_secs(60), store.done()).await;
        assert!(matches!(done, Ok(Ok(Done::Flushed))), "for ever full");
        assert!(!store.full());
    });
}

/// Under steady load a rewrite that is longer than the load lets it run would be begun behind each
/// flush, and cost as much each time.
#[test]
fn a_rewrite_that_gave_way_waits_for_rest() {
    block_on_test(async {
        let sim = sim_disk("a", 12);
        let (mut store, _) = grown(&sim, eager(), 50).await;
        store.maybe_flush(false);
        apply(&mut store, &[("one", "row")]);
        store.give_way();
        let done = timeout(Duration::from_secs(60), store.done()).await;
        assert!(
            matches!(done, Ok(Ok(Done::Flushed))),
            "who waits for a flush gets it, whatever room there is"
        );
        for n in 0..3 {
            apply(&mut store, &[("new", &n.to_string())]);
            flush(&mut store).await.unwrap();
            let before = sim.stats().changes;
            // Nor by who wants a flush at all costs, and finds that there is nothing to flush.
            store.maybe_flush(n > 0);
            let pending = timeout(Duration::from_secs(1), store.done()).await;
            assert!(pending.is_err(), "it is not begun again");
            assert_eq!(sim.stats().changes, before);
        }
        store.rest();
        store.maybe_flush(true);
        let done = timeout(Duration::from_secs(60), store.done()).await;
        assert!(matches!(done, Ok(Ok(Done::Rewritten))), "at rest it is");
    });
}
