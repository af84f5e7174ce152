//! The store, promise by promise.

mod store_common;

use bytes::Bytes;
use raft::store::{Done, Opened, Rows, Store, StoreError, StoreOptions};
use std::io::ErrorKind;
use store_common::*;
use world::disk::DiskOp;
use world::testing::block_on_test;

fn value(rows: &Rows, key: &str) -> Option<Bytes> {
    rows.get(key.as_bytes()).unwrap()
}

#[test]
fn a_range_stops_on_its_limits() {
    let mut rows = Rows::in_memory();
    for key in ["a", "b", "c", "d"] {
        rows.put(key.as_bytes(), b"12345").unwrap();
    }
    rows.delete(b"b").unwrap();
    let keys = |from: &str, to: &str, max, bytes| -> String {
        let found = rows
            .range(from.as_bytes(), to.as_bytes(), max, bytes)
            .unwrap();
        found.iter().map(|(key, _)| key[0] as char).collect()
    };
    assert_eq!(keys("", "", 9, 99), "acd");
    assert_eq!(keys("a", "d", 9, 99), "ac");
    assert_eq!(keys("b", "", 1, 99), "c");
    assert_eq!(keys("", "", 9, 12), "ac");
    assert_eq!(keys("", "", 9, 11), "a");
    assert_eq!(keys("", "", 9, 1), "a", "one row at least");
    assert_eq!(keys("", "", 0, 99), "");
    assert_eq!(keys("d", "a", 9, 99), "");
    assert_eq!(keys("a", "a", 9, 99), "");
}

#[test]
fn the_digest_is_that_of_the_rows_and_not_of_their_history() {
    let mut one = Rows::in_memory();
    let mut other = Rows::in_memory();
    one.put(b"a", b"1").unwrap();
    one.put(b"b", b"2").unwrap();
    one.put(b"a", b"3").unwrap();
    one.put(b"x", b"").unwrap();
    assert!(one.delete(b"x").unwrap());
    assert!(!one.delete(b"x").unwrap());
    other.put(b"a", b"3").unwrap();
    other.put(b"b", b"2").unwrap();
    assert_eq!((one.digest(), one.len()), (other.digest(), other.len()));
    other.put(b"b", b"").unwrap();
    other.put(b"b2", b"").unwrap();
    other.delete(b"b").unwrap();
    assert_ne!(one.digest(), other.digest());
}

#[test]
fn what_is_flushed_survives_a_power_failure_and_what_is_not_does_not() {
    block_on_test(async {
        let sim = sim_disk("a", 1);
        let mut store = open(&sim).await;
        assert_eq!(store.stamp().index, 0);
        apply(&mut store, &[("a", "1"), ("b", "2")]);
        assert_eq!(store.durable().index, 0);
        flush(&mut store).await.unwrap();
        let durable = store.durable();
        assert_eq!(durable, store.stamp());
        apply(&mut store, &[("a", "lost")]);
        sim.power_fail();
        let store = open(&sim).await;
        assert_eq!(store.stamp(), durable);
        assert_eq!(value(store.rows(), "a").unwrap(), "1");
        assert_eq!(value(store.rows(), "b").unwrap(), "2");
    });
}

#[test]
fn reads_see_through_all_three_layers() {
    block_on_test(async {
        let sim = sim_disk("a", 2);
        let mut store = open(&sim).await;
        apply(
            &mut store,
            &[("a", "base"), ("b", "base"), ("c", "base"), ("d", "base")],
        );
        flush(&mut store).await.unwrap();
        apply(&mut store, &[("b", "frozen"), ("e", "frozen")]);
        store.rows_mut().delete(b"c").unwrap();
        assert!(store.maybe_flush(true));
        assert!(!store.maybe_flush(true), "one at a time");
        // The flush has not run yet.
        store.rows_mut().put(b"c", b"above").unwrap();
        store.rows_mut().delete(b"e").unwrap();
        store.rows_mut().delete(b"d").unwrap();
        let all = content(store.rows());
        let all: Vec<(&[u8], &[u8])> = all.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"a", b"base"), (b"b", b"frozen"), (b"c", b"above")];
        assert_eq!(all, expected);
        assert_eq!(store.rows().len(), 3);
        // The stamp of a flush is that of the moment it froze.
        assert!(matches!(store.done().await, Ok(Done::Flushed)));
        assert_eq!((store.durable().index, store.durable().rows), (1 + 1, 4));
    });
}

#[test]
fn a_dropped_wait_loses_nothing() {
    block_on_test(async {
        let sim = sim_disk("a", 3);
        let mut store = open(&sim).await;
        apply(&mut store, &[("a", "1")]);
        store.maybe_flush(true);
        let mut dropped = 0;
        while store.durable().index == 0 {
            tokio::select! {
                biased;
                () = std::future::ready(()) => { dropped += 1; tokio::task::yield_now().await; }
                done = store.done() => { done.unwrap(); }
            }
            let _ = tokio::time::timeout(std::time::Duration::from_millis(1), store.done()).await;
        }
        assert!(dropped > 0);
        assert_eq!(store.durable(), store.stamp());
    });
}

#[test]
fn pressure_rises_with_the_overlay() {
    block_on_test(async {
        let sim = sim_disk("a", 4);
        let mut store = open(&sim).await;
        assert!(store.pressure() < 0.01 && !store.full());
        assert!(!store.maybe_flush(false));
        store.rows_mut().put(b"a", &[0; 6_000]).unwrap();
        step(&mut store);
        assert!(store.pressure() >= 1.0);
        assert!(store.maybe_flush(false));
        store.rows_mut().put(b"b", &[0; 17_900]).unwrap();
        assert!(store.full(), "the frozen overlay counts too");
        store.done().await.unwrap();
        assert!(!store.full());
    });
}

#[test]
fn after_a_failed_sync_nothing_is_retried() {
    block_on_test(async {
        let sim = sim_disk("a", 5);
        let mut store = open(&sim).await;
        apply(&mut store, &[("a", "1")]);
        flush(&mut store).await.unwrap();
        apply(&mut store, &[("a", "2")]);
        sim.fail_nth(DiskOp::Sync, 1, ErrorKind::Other);
        store.maybe_flush(true);
        let Err(error) = store.done().await else {
            panic!("it must fail")
        };
        assert!(error.to_string().contains("state-1.redb"), "{error}");
        assert_eq!(store.durable().index, 1);
        assert!(!store.maybe_flush(true));
        drop(store);
        let store = open(&sim).await;
        assert!(store.stamp().index >= 1);
    });
}

#[test]
fn a_full_disk_is_said_with_its_path_and_harms_nothing() {
    block_on_test(async {
        let sim = sim_disk("a", 6);
        let mut store = open(&sim).await;
        apply(&mut store, &[("a", "1")]);
        flush(&mut store).await.unwrap();
        let roomy = sim.options();
        sim.set_options(world::disk::SimDiskOptions {
            capacity: sim.used(),
            ..roomy.clone()
        });
        store.rows_mut().put(b"big", &vec![1; 8 << 20]).unwrap();
        step(&mut store);
        let error = flush(&mut store).await.unwrap_err();
        assert!(
            error.is_full() && error.to_string().contains("state-1.redb"),
            "{error}"
        );
        sim.process_kill();
        sim.set_options(roomy);
        let mut store = open(&sim).await;
        assert_eq!(store.stamp().index, 1);
        apply(&mut store, &[("b", "2")]);
        flush(&mut store).await.unwrap();
    });
}

#[test]
fn closing_flushes() {
    block_on_test(async {
        let sim = sim_disk("a", 7);
        let mut store = open(&sim).await;
        apply(&mut store, &[("a", "1")]);
        store.maybe_flush(true);
        apply(&mut store, &[("b", "2")]);
        store.start_snapshot();
        store.close().await.unwrap();
        sim.power_fail();
        let store = open(&sim).await;
        assert_eq!(store.stamp().index, 2);
        assert_eq!(content(store.rows()).len(), 2);
    });
}

#[test]
fn members_that_apply_the_same_rows_flush_in_turn() {
    block_on_test(async {
        let mut begun = Vec::new();
        for node in 1..=3 {
            let sim = sim_disk("a", node);
            let first_share = StoreOptions::in_turn(node).first_share;
            let mut store = open_with(
                &sim,
                StoreOptions {
                    first_share,
                    ..options()
                },
            )
            .await;
            for i in 0..400 {
                apply(&mut store, &[(&format!("{i:03}"), "value")]);
                // Once everything is flushed at once, as at rest.
                if store.maybe_flush(i == 200) {
                    begun.push((i, node));
                    store.done().await.unwrap();
                }
            }
        }
        begun.retain(|(i, _)| *i != 200);
        begun.sort();
        // An overlay holds 57 of these rows.
        for two in begun.windows(2) {
            let ((a, left), (b, right)) = (two[0], two[1]);
            // At rest all begin anew.
            let anew = (a..b).contains(&200);
            assert!(b - a >= 15 && (anew || left != right), "{begun:?}");
        }
        assert!(begun.len() >= 18, "{begun:?}");
    });
}

#[test]
fn threads_apply_while_the_disk_flushes() {
    // On real files and threads: concurrency inside a commit is what the simulation does not show.
    let root = std::env::temp_dir().join(format!("store-{}", std::process::id()));
    let path = root.clone();
    block_on_test(async move {
        let disk = world::disk::Disk::real(&path).unwrap();
        let options = StoreOptions {
            overlay_bytes: 200_000,
            ..StoreOptions::default()
        };
        let mut model = Content::new();
        let mut dice = Dice(9);
        let Ok(Opened::Ready(mut store)) = Store::open(&disk, options.clone()).await else {
            panic!("fresh")
        };
        for round in 0..20_000u64 {
            let key = Bytes::from(format!("{:04}", dice.below(5000)));
            let value = Bytes::from(round.to_string().repeat(9));
            store.rows_mut().put(&key, &value).unwrap();
            model.insert(key, value);
            step(&mut store);
            store.maybe_flush(false);
            if round % 100 == 0 {
                let wait = tokio::time::timeout(std::time::Duration::from_millis(1), store.done());
                if let Ok(done) = wait.await {
                    done.unwrap();
                }
                assert_eq!(content(store.rows()).len(), model.len());
            }
        }
        assert!(store.durable().index > 10_000);
        let stamp = store.stamp();
        store.close().await.unwrap();
        let Ok(Opened::Ready(store)) = Store::open(&disk, options).await else {
            panic!("there")
        };
        assert_eq!(store.stamp(), stamp);
        assert_eq!(content(store.rows()), model);
    });
    std::fs::remove_dir_all(root).unwrap();
}

#[test]
fn errors_name_what_is_wrong() {
    block_on_test(async {
        let sim = sim_disk("a", 10);
        drop(open(&sim).await);
        sim.fail_nth(DiskOp::Read, 1, ErrorKind::Other);
        match Store::open(&sim.disk(), options()).await {
            Err(StoreError::Io { path, .. }) => assert!(path.ends_with("CURRENT"), "{path:?}"),
            _ => panic!("a disk that fails is not a state that is lost"),
        }
    });
}
