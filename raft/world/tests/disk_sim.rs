//! What the simulated disk keeps, loses and refuses.

use std::io::ErrorKind;
use std::time::Duration;
use world::disk::{Disk, File, Open, SimDisk, SimDiskOptions};
use world::testing::block_on_test;

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
fn synced_bytes_survive_a_power_failure_and_unsynced_ones_by_chance() {
    let (mut kept, mut lost, mut torn) = (0, 0, 0);
    for seed in 0..200 {
        let sim = sim(seed);
        let disk = sim.disk();
        let file = create_synced(&disk, "f");
        file.write_all_at(&[1; 8192], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[2; 4096], 2048).unwrap();
        sim.power_fail();

        let now = sim.disk().read("f", 1 << 20).unwrap();
        assert_eq!(now.len(), 8192, "the synced length is kept");
        assert!(
            now[..2048].iter().chain(&now[6144..]).all(|b| *b == 1),
            "synced bytes are kept"
        );
        let sectors: Vec<&[u8]> = now[2048..6144].chunks(512).collect();
        assert!(
            sectors.iter().all(|s| **s == [1; 512] || **s == [2; 512]),
            "a sector is old or new"
        );
        match sectors.iter().filter(|s| s[0] == 2).count() {
            8 => kept += 1,
            0 => lost += 1,
            _ => torn += 1,
        }
    }
    assert!(
        kept > 10 && lost > 10 && torn > 10,
        "kept {kept}, lost {lost}, torn {torn}"
    );
}

#[test]
fn any_moment_of_an_unsynced_sector_may_survive() {
    let mut seen = [0; 4];
    for seed in 0..200 {
        let sim = sim(seed);
        let file = create_synced(&sim.disk(), "f");
        for value in 0..4 {
            file.write_all_at(&[value; 512], 0).unwrap();
            if value == 0 {
                file.sync_data().unwrap();
            }
        }
        sim.power_fail();
        seen[usize::from(sim.read("f").unwrap()[0])] += 1;
    }
    assert!(seen.iter().all(|n| *n > 5), "{seen:?}");
}

#[test]
fn unsynced_lengths_are_lost_or_kept() {
    let mut lengths = std::collections::BTreeMap::new();
    for seed in 0..100 {
        let sim = sim(seed);
        let file = create_synced(&sim.disk(), "f");
        file.set_len(1000).unwrap();
        file.sync_data().unwrap();
        file.set_len(100).unwrap();
        file.write_all_at(&[7; 10], 2000).unwrap();
        sim.power_fail();
        *lengths.entry(sim.files()[0].1).or_insert(0) += 1;
    }
    assert!(
        lengths.keys().copied().eq([100, 1000, 2000, 2010]),
        "{lengths:?}"
    );
}

#[test]
fn growth_reads_as_zeros_even_over_what_was_cut() {
    let sim = sim(1);
    let file = create_synced(&sim.disk(), "f");
    file.write_all_at(&[9; 10_000], 0).unwrap();
    file.sync_data().unwrap();
    file.set_len(10).unwrap();
    file.sync_data().unwrap();
    file.set_len(10_000).unwrap();
    let now = sim.read("f").unwrap();
    assert!(now[..10].iter().all(|b| *b == 9) && now[10..].iter().all(|b| *b == 0));
    file.set_len(20).unwrap();
    file.write_all_at(&[1], 9_000).unwrap();
    let now = sim.read("f").unwrap();
    assert!(now[10..9_000].iter().all(|b| *b == 0) && now.len() == 9_001);
}

#[test]
fn names_are_durable_after_a_directory_sync_only() {
    let (mut created, mut renamed, mut removed) = (0, 0, 0);
    for seed in 0..200 {
        let sim = sim(seed);
        let disk = sim.disk();
        disk.create_dir("log").unwrap();
        disk.sync_dir("").unwrap();
        for name in ["log/a", "log/b"] {
            let file = disk.open(name, Open::CreateNew).unwrap();
            file.write_all_at(name.as_bytes(), 0).unwrap();
            file.sync_data().unwrap();
        }
        disk.sync_dir("log").unwrap();
        disk.open("log/new", Open::CreateNew)
            .unwrap()
            .sync_data()
            .unwrap();
        disk.rename("log/a", "log/c").unwrap();
        disk.remove("log/b").unwrap();
        assert_eq!(disk.list("log").unwrap(), ["c", "new"]);
        sim.power_fail();

        let disk = sim.disk();
        let names = disk.list("log").unwrap();
        let has = |name: &str| names.iter().any(|n| n == name);
        assert!(has("a") != has("c"), "a rename is atomic: {names:?}");
        let file = if has("a") { "log/a" } else { "log/c" };
        assert_eq!(disk.read(file, 100).unwrap(), b"log/a");
        created += i32::from(has("new"));
        renamed += i32::from(has("c"));
        removed += i32::from(!has("b"));

        disk.open("log/new", Open::Create).unwrap();
        disk.sync_dir("log").unwrap();
        sim.power_fail();
        assert!(
            sim.disk().exists("log/new").unwrap(),
            "synced names are kept"
        );
    }
    for n in [created, renamed, removed] {
        assert!(
            (40..160).contains(&n),
            "created {created}, renamed {renamed}, removed {removed}"
        );
    }
}

#[test]
fn a_file_renamed_twice_has_one_name() {
    let mut names = std::collections::BTreeMap::new();
    for seed in 0..100 {
        let sim = sim(seed);
        let disk = sim.disk();
        create_synced(&disk, "a");
        disk.rename("a", "b").unwrap();
        disk.rename("b", "c").unwrap();
        sim.power_fail();
        *names
            .entry(sim.disk().list("").unwrap().join(" "))
            .or_insert(0) += 1;
    }
    assert!(
        names.keys().map(String::as_str).eq(["a", "b", "c"]),
        "{names:?}"
    );
}

#[test]
fn a_replaced_file_is_the_old_or_the_new_one() {
    for seed in 0..300 {
        let sim = sim(seed);
        sim.disk().write_atomic("CURRENT", b"one").unwrap();
        sim.crash_at(1 + seed % 8);
        let done = sim.disk().write_atomic("CURRENT", b"and two");
        assert_eq!(done.is_err(), sim.crashed());
        if done.is_ok() {
            sim.power_fail();
        }
        let now = sim.disk().read("CURRENT", 100).unwrap();
        assert!(
            now == b"and two" || (done.is_err() && now == b"one"),
            "{now:?}"
        );
    }
}

#[test]
fn handles_of_a_dead_incarnation_change_nothing() {
    for kill in [SimDisk::power_fail, SimDisk::process_kill, SimDisk::wipe] {
        let sim = sim(3);
        let disk = sim.disk();
        let file = create_synced(&disk, "f");
        file.write_all_at(b"before", 0).unwrap();
        file.sync_data().unwrap();
        let lock = disk.lock().unwrap();
        assert_eq!(disk.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
        kill(&sim);
        let before: Vec<_> = sim.files().iter().map(|(name, _)| sim.read(name)).collect();
        assert!(file.write_all_at(b"after", 0).is_err());
        assert!(file.set_len(0).is_err());
        assert!(file.sync_data().is_err());
        assert!(file.read_exact_at(&mut [0], 0).is_err());
        assert!(disk.open("g", Open::Create).is_err());
        assert!(disk.remove("f").is_err());
        assert!(disk.rename("f", "g").is_err());
        assert!(disk.create_dir("d").is_err());
        assert!(disk.lock().is_err());
        let after: Vec<_> = sim.files().iter().map(|(name, _)| sim.read(name)).collect();
        assert_eq!(before, after);
        let held = sim.disk().lock().expect("a dead incarnation holds no lock");
        drop(lock);
        assert!(
            sim.disk().lock().is_err(),
            "a late drop does not release its successor's lock"
        );
        drop(held);
        sim.disk().lock().unwrap();
    }
}

#[test]
fn a_killed_process_loses_nothing_it_wrote_until_the_power_fails() {
    let mut lost = 0;
    for seed in 0..50 {
        let sim = sim(seed);
        create_synced(&sim.disk(), "f")
            .write_all_at(b"written", 0)
            .unwrap();
        sim.process_kill();
        assert_eq!(sim.disk().read("f", 100).unwrap(), b"written");
        sim.power_fail();
        lost += i32::from(sim.read("f").unwrap() != b"written");
    }
    assert!(
        lost > 10,
        "read back after a kill is not the same as durable: lost {lost}"
    );
}

#[test]
fn the_same_seed_gives_the_same_disk() {
    let run = |seed| {
        let sim = sim(seed);
        for round in 0..20u8 {
            let disk = sim.disk();
            let file = disk.open(&format!("f{}", round % 3), Open::Create).unwrap();
            file.write_all_at(&[round; 10_000], u64::from(round) * 777)
                .unwrap();
            if round % 4 == 0 {
                file.sync_data().unwrap();
                disk.sync_dir("").unwrap();
            }
            sim.power_fail();
        }
        sim.files()
            .iter()
            .map(|(name, _)| sim.read(name))
            .collect::<Vec<_>>()
    };
    assert!(run(5) == run(5));
    assert!(run(5) != run(6));
}

#[test]
fn a_job_takes_its_drawn_time_and_runs_in_between() {
    block_on_test(async {
        let latency = (Duration::from_millis(20), Duration::from_millis(30));
        let sim = SimDisk::new(
            "d",
            1,
            SimDiskOptions {
                latency,
                ..Default::default()
            },
        );
        let disk = sim.disk();
        let start = world::clock::now();
        let ran = disk.job(world::clock::now).await;
        assert!(ran >= start);
        let took = start.elapsed();
        assert!(
            took >= Duration::from_millis(18) && took < Duration::from_secs(5),
            "{took:?}"
        );

        sim.set_options(SimDiskOptions {
            stall: 1.0,
            ..sim.options()
        });
        let start = world::clock::now();
        disk.job(|| ()).await;
        assert!(start.elapsed() >= Duration::from_millis(98));
    });
}

#[test]
fn names_that_leave_the_disk_are_refused() {
    let disk = sim(1).disk();
    for name in ["", "/etc/x", "../x", "a/../../x", "a//b", ".", "a/"] {
        assert_eq!(
            disk.open(name, Open::Create).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{name:?}"
        );
    }
}
