//! Snapshots, installs, and states that were lost.

mod store_common;

use raft::store::{Done, Opened, Store, StoreError, StoreOptions};
use std::io::ErrorKind;
use store_common::*;
use world::disk::{DiskOp, SimDisk};
use world::testing::block_on_test;

/// A store with some rows of its own, flushed, at index 5.
async fn receiver(sim: &SimDisk) -> Box<Store> {
    let mut store = open(sim).await;
    for n in 0..5 {
        apply(&mut store, &[("own", "row"), ("k01", ["a", "b"][n % 2])]);
    }
    flush(&mut store).await.unwrap();
    store
}

/// A file of pages for one row, which is being rewritten.
async fn rewriting(sim: &SimDisk) -> Box<Store> {
    let options = StoreOptions {
        rewrite_min_bytes: 1000,
        ..options()
    };
    let mut store = open_with(sim, options).await;
    apply(&mut store, &[("a", "1")]);
    flush(&mut store).await.unwrap();
    store.maybe_flush(false);
    store
}

fn state_files(sim: &SimDisk) -> Vec<String> {
    let files = sim.files().into_iter().map(|(name, _)| name);
    files
        .filter(|name| name.starts_with("state-") || name.starts_with("spool-"))
        .collect()
}

#[test]
fn an_install_replaces_and_does_not_merge() {
    block_on_test(async {
        let sim = sim_disk("a", 1);
        let mut store = receiver(&sim).await;
        store.rows_mut().put(b"overlay", b"gone too").unwrap();
        let (spool, expected, stamp) = donor(1, 50).await;
        let installed = fill(&mut store, &spool).await.unwrap();
        assert_eq!(store.stamp().index, 5, "nothing changes before the switch");
        assert!(store.switch(installed).await.unwrap());
        assert_eq!(
            (store.stamp(), store.durable()),
            (stamp.clone(), stamp.clone())
        );
        assert_eq!(content(store.rows()), expected);
        sim.power_fail();
        let mut store = open(&sim).await;
        assert_eq!((store.stamp(), content(store.rows())), (stamp, expected));
        assert_eq!(state_files(&sim), ["state-2.redb"]);
        apply(&mut store, &[("goes", "on")]);
        flush(&mut store).await.unwrap();
    });
}

/// An install that finds no room is tried again and again, each time as another generation: none of
/// them is left. Found by the campaign.
#[test]
fn an_install_without_room_leaves_no_file() {
    block_on_test(async {
        let sim = sim_disk("a", 1);
        let mut store = receiver(&sim).await;
        let (spool, expected, _) = donor(1, 50).await;
        for left in [0, 1, 100, 4096, 10_000, 20_000] {
            let mut options = sim.options();
            options.capacity = sim.used() + left;
            sim.set_options(options);
            let tried = fill(&mut store, &spool).await;
            assert!(tried.is_err_and(|e| e.is_full()), "with room for {left}");
            assert_eq!(state_files(&sim), ["state-1.redb"]);
        }
        sim.set_options(Default::default());
        let installed = fill(&mut store, &spool).await.unwrap();
        assert!(store.switch(installed).await.unwrap());
        assert_eq!(content(store.rows()), expected);
    });
}

/// A part of what is kept on a full disk is there for what makes room, as an install does: the state
/// that it replaces goes.
#[test]
fn a_small_snapshot_fits_on_a_disk_that_is_nearly_full() {
    block_on_test(async {
        const KEPT: u64 = 1 << 20;
        let sim = sim_disk("a", 1);
        drop(receiver(&sim).await);
        let options = StoreOptions {
            reserve_bytes: KEPT,
            ..options()
        };
        let mut store = open_with(&sim, options).await;
        let (spool, expected, _) = donor(1, 50).await;
        let mut disk = sim.options();
        disk.capacity = sim.used() + KEPT - 4096;
        sim.set_options(disk);
        let installed = fill(&mut store, &spool).await.unwrap();
        assert!(store.switch(installed).await.unwrap());
        assert_eq!(content(store.rows()), expected);
    });
}

#[test]
fn current_never_moves_to_a_lower_stamp() {
    block_on_test(async {
        for index in [4, 5] {
            let sim = sim_disk("a", index);
            let mut store = receiver(&sim).await;
            let (spool, _, _) = donor(1, index).await;
            let installed = fill(&mut store, &spool).await.unwrap();
            assert!(!store.switch(installed).await.unwrap());
            assert_eq!(state_files(&sim), ["state-1.redb"]);
            sim.power_fail();
            assert_eq!(open(&sim).await.stamp().index, 5);
        }
    });
}

/// Copy at 6, a flush reaches 7 in the old generation, the log is cut to 7, the switch goes to 6:
/// the entry between would be nowhere.
#[test]
fn a_flush_that_overtakes_an_install_keeps_it_from_switching() {
    block_on_test(async {
        let sim = sim_disk("a", 2);
        let mut store = receiver(&sim).await;
        let (spool, _, _) = donor(1, 6).await;
        let installed = fill(&mut store, &spool).await.unwrap();
        apply(&mut store, &[("x", "6")]);
        apply(&mut store, &[("x", "7")]);
        store.maybe_flush(true);
        assert!(!store.switch(installed).await.unwrap());
        assert_eq!(store.durable().index, 7);
        sim.power_fail();
        assert_eq!(open(&sim).await.stamp().index, 7);
    });
}

#[test]
fn a_flush_in_flight_does_not_leak_into_an_installed_generation() {
    block_on_test(async {
        let sim = sim_disk("a", 3);
        let mut store = receiver(&sim).await;
        let (spool, expected, stamp) = donor(1, 60).await;
        let installed = fill(&mut store, &spool).await.unwrap();
        apply(&mut store, &[("x", "6")]);
        store.maybe_flush(true);
        assert!(store.switch(installed).await.unwrap());
        assert_eq!(
            (store.stamp(), content(store.rows())),
            (stamp.clone(), expected.clone())
        );
        sim.power_fail();
        let store = open(&sim).await;
        assert_eq!((store.stamp(), content(store.rows())), (stamp, expected));
    });
}

#[test]
fn an_install_that_is_given_up_leaves_nothing() {
    block_on_test(async {
        let sim = sim_disk("a", 4);
        let mut store = receiver(&sim).await;
        let before = store.stamp();
        let (spool, _, _) = donor(1, 60).await;
        let mut install = store.install(spool.stamp.clone()).await.unwrap();
        install.add(0, &spool.chunk(0).unwrap()).unwrap();
        assert_eq!(state_files(&sim).len(), 2);
        drop(install);
        drop(fill(&mut store, &spool).await.unwrap());
        assert_eq!(state_files(&sim), ["state-1.redb"]);
        // And one that a crash interrupts goes at the next start.
        let mut install = store.install(spool.stamp.clone()).await.unwrap();
        install.add(0, &spool.chunk(0).unwrap()).unwrap();
        sim.process_kill();
        assert_eq!(state_files(&sim).len(), 2);
        assert_eq!(open(&sim).await.stamp(), before);
        assert_eq!(state_files(&sim), ["state-1.redb"]);
    });
}

#[test]
fn chunks_that_are_not_the_snapshot_are_refused() {
    block_on_test(async {
        let sim = sim_disk("a", 5);
        let mut store = receiver(&sim).await;
        let (spool, _, stamp) = donor(1, 60).await;
        assert!(spool.chunks > 3);
        let chunk = |number| spool.chunk(number).unwrap();
        for number in 0..spool.chunks {
            assert!(chunk(number).len() <= options().chunk_bytes);
        }
        let refused = |result: Result<(), StoreError>| match result {
            Err(StoreError::Damaged { reason, .. }) => reason,
            other => panic!("{other:?}"),
        };
        let mut install = store.install(stamp.clone()).await.unwrap();
        refused(install.add(1, &chunk(1)));
        refused(install.add(0, &chunk(1)));
        refused(install.add(0, &chunk(0)[..3]));
        let mut flipped = chunk(0).to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        refused(install.add(0, &flipped));
        flipped[0] = 9;
        refused(install.add(0, &flipped));
        install.add(0, &chunk(0)).unwrap();
        assert_eq!(install.next(), 1);
        // Not all of it.
        let Err(error) = install.finish() else {
            panic!("a part is not the whole")
        };
        assert!(error.to_string().contains("snapshot at 60"), "{error}");
        // All of it, under a stamp that is another's.
        let mut other = stamp.clone();
        other.digest ^= 1;
        let mut install = store.install(other).await.unwrap();
        for number in 0..spool.chunks {
            install.add(number, &chunk(number)).unwrap();
        }
        assert!(install.finish().is_err());
        assert!(spool.chunk(spool.chunks).is_err());
        // What a peer sent is no damage of this disk.
        sim.process_kill();
        assert_eq!(open(&sim).await.stamp().index, 5);
    });
}

#[test]
fn a_snapshot_is_of_one_moment_while_the_store_goes_on() {
    block_on_test(async {
        let sim = sim_disk("a", 6);
        let mut store = receiver(&sim).await;
        apply(&mut store, &[("x", "at 6")]);
        store.start_snapshot();
        apply(&mut store, &[("x", "at 7"), ("y", "at 7")]);
        let mut spool = None;
        while spool.is_none() {
            match store.done().await.unwrap() {
                Done::Spooled(done) => spool = Some(done.unwrap()),
                _ => {
                    // The spool has just been started: it must not see this.
                    apply(&mut store, &[("x", "later")]);
                    store.maybe_flush(true);
                }
            }
        }
        let spool = spool.unwrap();
        assert!(spool.stamp.index >= 6);
        flush(&mut store).await.unwrap();
        assert!(store.durable().index > spool.stamp.index);

        let other = sim_disk("b", 6);
        let mut copy = open(&other).await;
        let installed = fill(&mut copy, &spool).await.unwrap();
        assert!(copy.switch(installed).await.unwrap());
        assert_eq!(copy.stamp(), spool.stamp);
        let x = copy.rows().get(b"x").unwrap().unwrap();
        assert_eq!(
            x,
            if spool.stamp.index == 6 {
                "at 6"
            } else {
                "at 7"
            }
        );
        assert!(
            state_files(&sim)
                .iter()
                .any(|name| name.starts_with("spool-"))
        );
        drop(spool);
        assert_eq!(state_files(&sim), ["state-1.redb"]);
    });
}

#[test]
fn rows_larger_than_a_chunk_cross_it() {
    block_on_test(async {
        let sim = sim_disk("a", 7);
        let mut store = open(&sim).await;
        store.rows_mut().put(b"big", &vec![5; 100_000]).unwrap();
        store.rows_mut().put(&[9; 3_000], b"").unwrap();
        step(&mut store);
        let spool = snapshot(&mut store).await.unwrap();
        assert!(spool.chunks > 100);
        let other = sim_disk("b", 7);
        let mut copy = open(&other).await;
        let installed = fill(&mut copy, &spool).await.unwrap();
        assert!(copy.switch(installed).await.unwrap());
        assert_eq!(content(copy.rows()), content(store.rows()));
    });
}

#[test]
fn an_empty_state_has_a_snapshot() {
    block_on_test(async {
        let sim = sim_disk("a", 8);
        let mut store = open(&sim).await;
        store.start_snapshot();
        step(&mut store);
        let spool = snapshot(&mut store).await.unwrap();
        assert_eq!(spool.chunks, 0);
        let other = sim_disk("b", 8);
        let mut copy = open(&other).await;
        let installed = fill(&mut copy, &spool).await.unwrap();
        assert!(copy.switch(installed).await.unwrap());
        assert_eq!(copy.stamp(), store.stamp());
    });
}

#[test]
fn an_install_cancels_a_rewrite() {
    block_on_test(async {
        let sim = sim_disk("a", 9);
        let mut store = rewriting(&sim).await;
        let (spool, expected, _) = donor(1, 60).await;
        let installed = fill(&mut store, &spool).await.unwrap();
        store.maybe_flush(false);
        assert!(store.switch(installed).await.unwrap());
        assert_eq!(content(store.rows()), expected);
        store.close().await.unwrap();
        assert_eq!(state_files(&sim).len(), 1, "{:?}", state_files(&sim));
        assert_eq!(content(open(&sim).await.rows()), expected);
    });
}

/// What an install waits for ends in an error that is the server's end, and not the transfer's.
#[test]
fn a_job_that_fails_under_an_install_fails_the_store() {
    block_on_test(async {
        let sim = sim_disk("a", 10);
        let mut store = rewriting(&sim).await;
        apply(&mut store, &[("a", "2")]);
        store.give_way();
        let (spool, ..) = donor(1, 60).await;
        assert!(!store.has_failed());
        sim.fail_nth(DiskOp::Sync, 1, ErrorKind::Other);
        assert!(fill(&mut store, &spool).await.is_err());
        assert!(store.has_failed());
    });
}

/// Ways to lose a state, and what the reason must name.
type Loss = (fn(&SimDisk), &'static str);

const LOSSES: [Loss; 6] = [
    (|sim| assert!(sim.delete("CURRENT")), "CURRENT"),
    (|sim| assert!(sim.flip_bit("CURRENT", 1, 0)), "CURRENT"),
    (|sim| assert!(sim.truncate("CURRENT", 3)), "CURRENT"),
    (|sim| assert!(sim.delete("state-1.redb")), "state-1.redb"),
    (
        |sim| assert!(sim.truncate("state-1.redb", 5000)),
        "state-1.redb",
    ),
    (
        |sim| assert!(sim.overwrite("state-1.redb", 0, &[0x55; 60_000])),
        "state-1.redb",
    ),
];

#[test]
fn a_lost_state_is_said_until_an_install_replaces_it() {
    block_on_test(async {
        for (seed, (lose, named)) in LOSSES.iter().enumerate() {
            let sim = sim_disk("a", seed as u64);
            receiver(&sim).await.close().await.unwrap();
            sim.process_kill();
            lose(&sim);
            let (store, reason) = open_lost(&sim).await;
            assert!(reason.contains(named), "{reason}");
            assert_eq!((store.stamp().index, store.rows().len()), (0, 0));
            store.close().await.unwrap();
            // Still lost; and an install that a crash interrupts changes nothing.
            let (spool, expected, _) = donor(1, 3).await;
            let (mut store, _) = open_lost(&sim).await;
            drop(fill(&mut store, &spool).await.unwrap());
            sim.power_fail();
            let (mut store, _) = open_lost(&sim).await;
            // The stamp may be below what was lost.
            let installed = fill(&mut store, &spool).await.unwrap();
            assert!(store.switch(installed).await.unwrap());
            store.close().await.unwrap();
            assert_eq!(state_files(&sim).len(), 1);
            sim.power_fail();
            assert_eq!(content(open(&sim).await.rows()), expected);
        }
    });
}

#[test]
fn a_lost_state_can_be_rebuilt_from_the_log() {
    block_on_test(async {
        for (seed, (lose, _)) in LOSSES.iter().enumerate() {
            let sim = sim_disk("a", seed as u64);
            drop(receiver(&sim).await);
            sim.process_kill();
            lose(&sim);
            let (mut store, _) = open_lost(&sim).await;
            apply(&mut store, &[("again", "1")]);
            flush(&mut store).await.unwrap();
            sim.power_fail();
            let mut store = open(&sim).await;
            assert_eq!((store.stamp().index, store.rows().len()), (1, 1));
            apply(&mut store, &[("again", "2")]);
            store.close().await.unwrap();
            assert_eq!(open(&sim).await.stamp().index, 2);
            assert_eq!(state_files(&sim).len(), 1);
        }
    });
}

/// Damage in a block that opening does not read ends the server when it is met; the next start
/// must know of it.
#[test]
fn damage_met_while_running_is_remembered() {
    block_on_test(async {
        let sim = sim_disk("a", 11);
        let mut store = open(&sim).await;
        for n in 0..2000u32 {
            store
                .rows_mut()
                .put(&n.to_be_bytes(), &[0xab; 2000])
                .unwrap();
        }
        step(&mut store);
        store.close().await.unwrap();
        sim.process_kill();
        let Ok(Opened::Ready(store)) = Store::open(&sim.disk(), options()).await else {
            panic!("sound")
        };
        // Rot in a value of every block from the middle on.
        let bytes = sim.read("state-1.redb").unwrap();
        let values = bytes
            .windows(8)
            .enumerate()
            .filter(|(_, window)| *window == [0xab; 8]);
        for (offset, _) in values.step_by(64).collect::<Vec<_>>() {
            sim.flip_bit("state-1.redb", offset as u64, 3);
        }
        let failed = (0..2000u32).find_map(|n| store.rows().get(&n.to_be_bytes()).err());
        let Some(error @ StoreError::Damaged { .. }) = failed else {
            panic!("{failed:?}")
        };
        assert!(error.to_string().contains("state-1.redb"), "{error}");
        drop(store);
        let (_, reason) = open_lost(&sim).await;
        assert!(!reason.is_empty());
    });
}
