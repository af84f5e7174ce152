//! Real files: names in errors, locks, and the same redb over them.

use redb::{Database, ReadableDatabase, TableDefinition};
use std::io::ErrorKind;
use std::path::PathBuf;
use world::disk::{Disk, Open};
use world::paged::Paged;
use world::testing::block_on_test;

/// A directory of this process that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("holdfast-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn files_names_and_lengths() {
    let scratch = Scratch::new("files");
    let disk = Disk::real(scratch.0.join("deep/er")).unwrap();
    disk.create_dir("log/old").unwrap();
    disk.create_dir("log").unwrap();
    let file = disk.open("log/a", Open::CreateNew).unwrap();
    assert!(file.is_empty().unwrap());
    file.write_all_at(b"hello", 3).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("log").unwrap();
    assert_eq!(disk.read("log/a", 8).unwrap(), b"\0\0\0hello");
    assert_eq!(
        disk.read("log/a", 7).unwrap_err().kind(),
        ErrorKind::InvalidData
    );
    file.set_len(4).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    disk.rename("log/a", "log/b").unwrap();
    disk.write_atomic("CURRENT", b"1").unwrap();
    disk.write_atomic("CURRENT", b"22").unwrap();
    assert_eq!(disk.list("").unwrap(), ["CURRENT", "log"]);
    assert_eq!(disk.list("log").unwrap(), ["b", "old"]);
    assert_eq!(disk.read("CURRENT", 10).unwrap(), b"22");
    disk.remove("log/b").unwrap();
    assert!(!disk.exists("log/b").unwrap() && disk.exists("log/old").unwrap());
}

#[test]
fn errors_name_the_operation_and_the_path_and_keep_their_kind() {
    let scratch = Scratch::new("errors");
    let disk = Disk::real(&scratch.0).unwrap();
    let path = disk.path("absent").display().to_string();
    let named = |error: std::io::Error, kind, operation: &str| {
        assert_eq!(error.kind(), kind);
        let text = error.to_string();
        assert!(text.contains(&path) && text.contains(operation), "{text}");
    };
    named(
        disk.open("absent", Open::Read).unwrap_err(),
        ErrorKind::NotFound,
        "open",
    );
    named(
        disk.list("absent").unwrap_err(),
        ErrorKind::NotFound,
        "list",
    );
    named(
        disk.remove("absent").unwrap_err(),
        ErrorKind::NotFound,
        "remove",
    );
    named(
        disk.rename("absent", "x").unwrap_err(),
        ErrorKind::NotFound,
        "rename",
    );
    named(
        disk.sync_dir("absent").unwrap_err(),
        ErrorKind::NotFound,
        "sync",
    );
    let file = disk.open("absent", Open::CreateNew).unwrap();
    named(
        disk.open("absent", Open::CreateNew).unwrap_err(),
        ErrorKind::AlreadyExists,
        "open",
    );
    named(
        file.read_exact_at(&mut [0; 4], 0).unwrap_err(),
        ErrorKind::UnexpectedEof,
        "read",
    );
    assert_eq!(
        disk.open("../x", Open::Create).unwrap_err().kind(),
        ErrorKind::InvalidInput
    );
}

#[test]
fn the_lock_is_exclusive_and_goes_with_its_guard() {
    let scratch = Scratch::new("lock");
    let disk = Disk::real(&scratch.0).unwrap();
    let held = disk.lock().unwrap();
    let error = Disk::real(&scratch.0).unwrap().lock().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    drop(held);
    disk.lock().unwrap();
}

#[test]
fn jobs_run_to_their_end() {
    let scratch = Scratch::new("jobs");
    let disk = Disk::real(&scratch.0).unwrap();
    block_on_test(async move {
        let worker = disk.clone();
        assert!(disk.job(move || worker.exists("")).await.unwrap());
    });
}

#[test]
fn redb_over_verified_blocks_over_a_real_file() {
    let scratch = Scratch::new("redb");
    let disk = Disk::real(&scratch.0).unwrap();
    let table: TableDefinition<u64, u64> = TableDefinition::new("t");
    for round in 0..3 {
        let db = Database::builder()
            .create_with_backend(Paged::open(&disk, "state.redb").unwrap())
            .unwrap();
        let mut tx = db.begin_write().unwrap();
        tx.set_quick_repair(true);
        {
            let mut rows = tx.open_table(table).unwrap();
            for key in 0..5000 {
                rows.insert(key, key + round).unwrap();
            }
        }
        tx.commit().unwrap();
    }
    let file = disk.open("state.redb", Open::Write).unwrap();
    let len = file.len().unwrap();
    let count = |_| {
        let paged = Paged::open(&disk, "state.redb")?;
        let damage = paged.damage();
        let count = Database::builder()
            .create_with_backend(paged)
            .map_err(redb::Error::from)
            .and_then(|db| {
                Ok(db
                    .begin_read()?
                    .open_table(table)?
                    .range(0..5000)?
                    .filter(|r| matches!(r, Ok((k, v)) if k.value() + 2 == v.value()))
                    .count())
            });
        std::io::Result::Ok((count.ok(), damage.get()))
    };
    assert_eq!(count(()).unwrap(), (Some(5000), None));
    // Every byte of every page but the first and redb's header, wrong.
    let mut page = vec![0; 4096];
    for at in (4 * 4096..len).step_by(4096) {
        file.read_exact_at(&mut page, at).unwrap();
        page.iter_mut().for_each(|byte| *byte ^= 1);
        file.write_all_at(&page, at).unwrap();
    }
    let (found, damage) = count(()).unwrap();
    assert!(found != Some(5000) && damage.unwrap().contains("state.redb: block "));
}

/// `cargo test --release -p world --test disk_real -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn a_flush_compared_with_plain_redb() {
    let scratch = Scratch::new("flush");
    let disk = Disk::real(&scratch.0).unwrap();
    let table: TableDefinition<&[u8], &[u8]> = TableDefinition::new("t");
    let value = [7u8; 256];
    for round in 0..4 {
        for paged in [false, true] {
            let name = format!("{paged}-{round}");
            let mut builder = Database::builder();
            builder.set_cache_size(64 << 20);
            let db = if paged {
                builder
                    .create_with_backend(Paged::open(&disk, &name).unwrap())
                    .unwrap()
            } else {
                builder.create(disk.path(&name)).unwrap()
            };
            let mut times = Vec::new();
            for _ in 0..3 {
                let start = world::clock::now();
                let mut tx = db.begin_write().unwrap();
                tx.set_quick_repair(true);
                {
                    let mut rows = tx.open_table(table).unwrap();
                    for key in 0..100_000u64 {
                        rows.insert(
                            [key.to_be_bytes(), key.to_be_bytes()].concat().as_slice(),
                            value.as_slice(),
                        )
                        .unwrap();
                    }
                }
                tx.commit().unwrap();
                times.push(start.elapsed().as_millis());
            }
            println!("paged {paged}: load and two flushes {times:?} ms");
        }
    }
}
