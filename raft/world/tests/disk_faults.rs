//! Faults of the simulated disk that are made to order.

use std::io::ErrorKind;
use world::disk::{Disk, DiskOp, File, Open, SimDisk, SimDiskOptions};

fn sim(seed: u64) -> SimDisk {
    SimDisk::new("d", seed, SimDiskOptions::default())
}

fn create_synced(disk: &Disk, name: &str) -> File {
    let file = disk.open(name, Open::CreateNew).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("").unwrap();
    file
}

#[test]
fn after_a_failed_sync_the_data_are_gone_and_the_next_sync_says_ok() {
    let sim = sim(1);
    let file = create_synced(&sim.disk(), "f");
    file.write_all_at(&[1; 5000], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 5000], 0).unwrap();
    sim.fail_nth(DiskOp::Sync, 1, ErrorKind::Other);
    let error = file.sync_data().unwrap_err();
    assert!(error.to_string().contains("sync /sim/d/f"), "{error}");
    file.sync_data().unwrap();
    assert_eq!(sim.read("f").unwrap(), vec![1; 5000]);
}

#[test]
fn injected_errors_hit_the_operation_they_name() {
    let sim = sim(1);
    let disk = sim.disk();
    let file = create_synced(&disk, "f");
    sim.fail_nth(DiskOp::Write, 2, ErrorKind::Other);
    file.write_all_at(&[1; 100], 0).unwrap();
    assert_eq!(
        file.write_all_at(&[2; 100], 0).unwrap_err().kind(),
        ErrorKind::Other
    );
    file.write_all_at(&[3; 100], 0).unwrap();
    sim.fail_nth(DiskOp::Read, 1, ErrorKind::TimedOut);
    assert_eq!(disk.read("f", 100).unwrap_err().kind(), ErrorKind::TimedOut);
    assert_eq!(disk.read("f", 100).unwrap(), [3; 100]);
    sim.fail_nth(DiskOp::Name, 1, ErrorKind::Other);
    assert!(disk.open("g", Open::Create).is_err());
    assert!(!disk.exists("g").unwrap());
    sim.set_error_rate(DiskOp::Sync, 0.5, ErrorKind::Other);
    let failed = (0..200).filter(|_| file.sync_data().is_err()).count();
    assert!((50..150).contains(&failed), "{failed}");
    sim.clear_faults();
    file.sync_data().unwrap();
}

/// On a sparse disk a length is free and what is written costs whole pages, the holes between not.
#[test]
fn a_sparse_disk_counts_the_pages_that_were_written() {
    let page = 4096;
    let sim = SimDisk::new(
        "d",
        1,
        SimDiskOptions {
            capacity: 4 * page,
            sparse: true,
            ..Default::default()
        },
    );
    let disk = sim.disk();
    let file = create_synced(&disk, "f");
    file.set_len(100 * page).unwrap();
    assert_eq!((sim.used(), file.len().unwrap()), (0, 100 * page));
    file.write_all_at(&[1; 10], 50 * page).unwrap();
    file.write_all_at(&[2; 4096], 60 * page + 1).unwrap();
    assert_eq!(sim.used(), 3 * page);
    file.sync_data().unwrap();
    file.write_all_at(&[3; 4096], 60 * page).unwrap();
    assert_eq!((sim.used(), disk.free().unwrap()), (3 * page, page));
    let error = file.write_all_at(&[4; 4096 * 2], 70 * page).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(sim.used(), 4 * page, "what fits is written");
    file.set_len(60 * page).unwrap();
    file.sync_data().unwrap();
    assert_eq!(sim.used(), page);
}

#[test]
fn a_full_disk_refuses_growth_and_takes_overwrites() {
    let sim = SimDisk::new(
        "d",
        1,
        SimDiskOptions {
            capacity: 10_000,
            ..Default::default()
        },
    );
    let disk = sim.disk();
    let file = create_synced(&disk, "f");
    file.write_all_at(&[1; 9_000], 0).unwrap();
    let error = file.write_all_at(&[2; 5_000], 9_000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StorageFull);
    assert_eq!(sim.used(), 10_000, "a short write: what fits is written");
    file.write_all_at(&[3; 10_000], 0).unwrap();
    assert_eq!(
        file.set_len(10_001).unwrap_err().kind(),
        ErrorKind::StorageFull
    );
    disk.open("g", Open::Create).unwrap();
    file.set_len(100).unwrap();
    disk.open("g", Open::Write)
        .unwrap()
        .write_all_at(&[4; 9_900], 0)
        .unwrap();
}

#[test]
fn the_power_fails_inside_the_operation_asked_for() {
    for n in 1..=5 {
        let sim = sim(n);
        let file = create_synced(&sim.disk(), "f");
        let called = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let count = called.clone();
        sim.on_crash(Some(Box::new(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        })));
        sim.crash_at(n);
        for i in 1..=6 {
            assert_eq!(
                file.write_all_at(&[1], i).is_ok(),
                i < n,
                "operation {i} of {n}"
            );
        }
        assert!(sim.crashed() && !sim.crashed());
        assert_eq!(called.load(std::sync::atomic::Ordering::Relaxed), 1);
        sim.disk()
            .open("f", Open::Write)
            .unwrap()
            .write_all_at(&[1], 0)
            .unwrap();
    }
}

#[test]
fn damage_changes_what_is_stored() {
    let sim = SimDisk::new(
        "d",
        1,
        SimDiskOptions {
            keep_stale: true,
            ..Default::default()
        },
    );
    let file = create_synced(&sim.disk(), "f");
    for value in [1u8, 2] {
        file.write_all_at(&[value; 4096], 0).unwrap();
        file.write_all_at(&[value + 10; 4096], 4096).unwrap();
        file.sync_data().unwrap();
    }
    assert!(sim.flip_bit("f", 5000, 3));
    assert_eq!(sim.read("f").unwrap()[5000], 12 ^ 8);
    assert!(!sim.flip_bit("f", 8192, 0) && !sim.flip_bit("none", 0, 0));
    assert!(sim.make_stale("f", 1));
    assert_eq!(sim.read("f").unwrap()[4096..], [11; 4096]);
    assert!(sim.misdirect("f", 0, 1));
    assert_eq!(sim.read("f").unwrap()[4096..], [2; 4096]);
    let before = sim.read("f").unwrap();
    let (offset, bit) = sim.rot("f").unwrap();
    assert_eq!(
        sim.read("f").unwrap()[offset as usize],
        before[offset as usize] ^ (1 << bit)
    );
    assert!(sim.truncate("f", 10));
    sim.power_fail();
    assert_eq!(sim.files(), [("f".to_string(), 10)]);
    assert!(sim.delete("f"));
    sim.power_fail();
    assert!(sim.files().is_empty());
}

#[test]
fn an_image_is_the_disk_of_that_moment() {
    let sim = sim(1);
    let file = create_synced(&sim.disk(), "f");
    file.write_all_at(&[1; 100_000], 0).unwrap();
    let image = sim.image();
    file.write_all_at(&[2; 50_000], 0).unwrap();
    file.sync_data().unwrap();
    create_synced(&sim.disk(), "g");
    for _ in 0..2 {
        sim.restore(&image);
        assert!(file.len().is_err(), "handles are fenced");
        sim.power_fail();
        assert_eq!(sim.files().len(), 1);
        assert_eq!(sim.read("f").unwrap(), vec![1; 100_000]);
        sim.disk()
            .open("f", Open::Write)
            .unwrap()
            .write_all_at(&[3; 10], 0)
            .unwrap();
    }
}
