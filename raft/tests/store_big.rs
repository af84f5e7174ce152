//! Size and speed on a real disk; run by hand:
//! `cargo test --release -p raft --test store_big -- --ignored --nocapture`.

mod store_common;

use raft::store::{Opened, Store, StoreOptions};
use std::time::Duration;
use store_common::*;
use world::testing::block_on_test;

const KEYS: u64 = 1_000_000;

fn resident_mib() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|n| n.parse::<u64>().ok());
    (pages.unwrap_or(0) * 4096) >> 20
}

fn key(n: u64) -> [u8; 16] {
    let mut key = *b"key/000000000000";
    key[8..].copy_from_slice(&n.to_be_bytes());
    key
}

#[test]
#[ignore = "a million rows on a real disk"]
fn a_million_rows() {
    let root = std::env::temp_dir().join(format!("big-{}", std::process::id()));
    let path = root.clone();
    block_on_test(async move {
        let disk = world::disk::Disk::real(&path).unwrap();
        let Ok(Opened::Ready(mut store)) = Store::open(&disk, StoreOptions::default()).await else {
            panic!("fresh")
        };
        let mut dice = Dice(1);
        let mut worst = Duration::ZERO;
        let begun = world::clock::now();
        for n in 0..KEYS * 3 / 2 {
            // First in order of a hash, then overwrites.
            let id = if n < KEYS {
                n.wrapping_mul(0x9e37_79b9) % KEYS
            } else {
                dice.below(KEYS)
            };
            let step_begun = world::clock::now();
            store.rows_mut().put(&key(id), &[n as u8; 256]).unwrap();
            step(&mut store);
            store.maybe_flush(false);
            worst = worst.max(step_begun.elapsed());
            while store.full() {
                store.done().await.unwrap();
            }
            if n % 64 == 0 {
                let wait = tokio::time::timeout(Duration::ZERO, store.done());
                if let Ok(done) = wait.await {
                    done.unwrap();
                }
            }
            if n % 250_000 == 0 {
                println!(
                    "{n}: {:?}, worst step {worst:?}, resident {} MiB, file {} MiB, durable {}",
                    begun.elapsed(),
                    resident_mib(),
                    store.bytes() >> 20,
                    store.durable().index,
                );
                worst = Duration::ZERO;
            }
        }
        let durable = store.durable().index;
        // As after a kill: nothing is closed.
        std::mem::forget(store);
        tokio::time::sleep(Duration::from_secs(4)).await;
        let begun = world::clock::now();
        let Ok(Opened::Ready(mut store)) = Store::open(&disk, StoreOptions::default()).await else {
            panic!("there")
        };
        println!("opened in {:?} at {}", begun.elapsed(), store.stamp().index);
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(store.stamp().index >= durable);
        let begun = world::clock::now();
        step(&mut store);
        let spool = snapshot(&mut store).await.unwrap();
        println!("spooled {} MiB in {:?}", spool.bytes >> 20, begun.elapsed());
        let begun = world::clock::now();
        let mut other = match Store::open(
            &world::disk::Disk::real(path.join("other")).unwrap(),
            StoreOptions::default(),
        )
        .await
        {
            Ok(Opened::Ready(store)) => store,
            _ => panic!("fresh"),
        };
        let installed = fill(&mut other, &spool).await.unwrap();
        assert!(other.switch(installed).await.unwrap());
        println!(
            "installed in {:?}, file {} MiB, resident {} MiB",
            begun.elapsed(),
            other.bytes() >> 20,
            resident_mib()
        );
        assert!(resident_mib() < 500);
    });
    std::fs::remove_dir_all(root).unwrap();
}
