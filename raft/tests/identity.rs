//! Whose data directory it is: made once, counted at every start, refused to others.

use raft::identity::{self, IdentityError};
use raft::store::{Opened, Store, StoreOptions};
use world::disk::{Disk, DiskOp, Open, SimDisk, SimDiskOptions};
use world::testing::block_on_test;

fn disk(seed: u64) -> SimDisk {
    SimDisk::new("identity", seed, SimDiskOptions::default())
}

#[test]
fn made_once_and_counted_at_every_start() {
    block_on_test(async {
        let disk = disk(1);
        let (first, lock) = identity::open(&disk.disk(), 1, 2).expect("opens");
        assert_eq!((first.group, first.node, first.boot), (1, 2, 1));
        assert!(!first.born && first.cluster.is_none());
        drop(lock);
        disk.power_fail();
        let (second, _lock) = identity::open(&disk.disk(), 1, 2).expect("opens");
        assert_eq!((second.disk, second.boot), (first.disk, 2));
        assert_ne!(second.nonce, first.nonce);
    });
}

/// A boot number that was shown to peers is never shown again, wherever the power fails.
#[test]
fn a_boot_number_is_durable_before_it_is_used() {
    block_on_test(async {
        for seed in 0..200 {
            let disk = disk(seed);
            let (mut boot, mut id) = (0, None);
            for start in 1..20 {
                if start % 3 != 0 {
                    disk.crash_at(1 + (seed + start) % 7);
                }
                if let Ok((identity, _lock)) = identity::open(&disk.disk(), 1, 2) {
                    assert!(identity.boot > boot, "boot {} after {boot}", identity.boot);
                    assert_eq!(*id.get_or_insert(identity.disk), identity.disk);
                    boot = identity.boot;
                }
                disk.power_fail();
                disk.clear_faults();
            }
            assert!(boot > 1);
        }
    });
}

#[test]
fn what_is_saved_survives_the_power() {
    block_on_test(async {
        let disk = disk(1);
        let (mut identity, lock) = identity::open(&disk.disk(), 1, 2).expect("opens");
        identity.cluster = Some(77);
        identity.born = true;
        identity.initial.insert(2, identity.disk);
        identity.meet(3, 30, 1, 1, &[]);
        identity::save(&disk.disk(), &identity).expect("saved");
        drop(lock);
        disk.power_fail();
        let (mut again, _lock) = identity::open(&disk.disk(), 1, 2).expect("opens");
        assert_eq!(again.boot, identity.boot + 1);
        assert_eq!(again.before, [identity.nonce]);
        (again.boot, again.nonce) = (identity.boot, identity.nonce);
        again.before.clear();
        assert_eq!(again, identity);
    });
}

#[test]
fn another_node_or_group_is_refused_and_both_are_named() {
    block_on_test(async {
        let disk = disk(1);
        drop(identity::open(&disk.disk(), 1, 2).expect("opens"));
        for (group, node, name) in [
            (1, 3, "node 3 of group 1"),
            (0, 2, "node 2 of the controllers"),
        ] {
            let error = identity::open(&disk.disk(), group, node).expect_err("refused");
            assert!(matches!(error, IdentityError::Foreign { .. }));
            let text = error.to_string();
            assert!(
                text.contains(name) && text.contains("node 2 of group 1"),
                "{text}"
            );
            assert!(text.contains("IDENTITY"), "{text}");
        }
        let (identity, _lock) = identity::open(&disk.disk(), 1, 2).expect("opens");
        assert_eq!(identity.boot, 2, "a refused start does not count");
    });
}

#[test]
fn other_members_than_at_birth_are_refused_and_both_lists_are_named() {
    block_on_test(async {
        let disk = disk(1);
        let check = |members: &[u64]| {
            let members = members.iter().copied().collect();
            identity::check_members(&disk.disk(), 1, 2, &members)
        };
        check(&[1, 2]).expect("nothing is there yet");
        let (mut identity, lock) = identity::open(&disk.disk(), 1, 2).expect("opens");
        check(&[1, 2, 3, 4]).expect("it is not born: nobody is recorded");
        identity.born = true;
        identity.initial = [(1, 10), (2, identity.disk), (3, 30)].into();
        identity::save(&disk.disk(), &identity).expect("saved");
        drop(lock);
        check(&[1, 2, 3]).expect("the same");
        for (members, named) in [
            (&[1, 2][..], "1, 2:"),
            (&[1, 2, 3, 4], "1, 2, 3, 4:"),
            (&[1, 2, 4], "1, 2, 4:"),
        ] {
            let error = check(members).expect_err("refused");
            assert!(matches!(error, IdentityError::Members { .. }));
            let text = error.to_string();
            assert!(text.contains("members 1, 2, 3,"), "{text}");
            assert!(text.contains(&format!("names {named}")), "{text}");
        }
        let (again, _lock) = identity::open(&disk.disk(), 1, 2).expect("opens");
        assert_eq!(again.boot, 2, "nothing was written");
    });
}

#[test]
fn a_directory_in_use_is_refused() {
    block_on_test(async {
        let disk = disk(1);
        let (_, _lock) = identity::open(&disk.disk(), 1, 2).expect("opens");
        let error = identity::open(&disk.disk(), 1, 2).expect_err("refused");
        assert!(matches!(error, IdentityError::InUse { .. }), "{error}");
        assert!(error.to_string().contains("/sim/identity"), "{error}");
    });
}

#[test]
fn data_without_an_identity_are_refused() {
    block_on_test(async {
        for name in ["log/0000000000000001.seg", "state-1.redb", "CURRENT"] {
            let disk = disk(1);
            disk.disk().create_dir("log").expect("made");
            if !name.starts_with("log") {
                disk.wipe();
            }
            disk.disk().open(name, Open::Create).expect("made");
            let error = identity::open(&disk.disk(), 1, 2).expect_err("refused");
            assert!(matches!(error, IdentityError::Missing { .. }), "{error}");
            let text = error.to_string();
            assert!(
                text.contains(name.split('/').next().unwrap_or(name)),
                "{text}"
            );
        }
    });
}

#[test]
fn a_damaged_file_is_refused_with_its_path() {
    block_on_test(async {
        let disk = disk(1);
        drop(identity::open(&disk.disk(), 1, 2).expect("opens"));
        let image = disk.image();
        let len = disk.read("IDENTITY").expect("there").len() as u64;
        for at in 0..len {
            disk.restore(&image);
            assert!(disk.flip_bit("IDENTITY", at, 5));
            let error = identity::open(&disk.disk(), 1, 2).expect_err("refused");
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert!(
                error.to_string().contains("/sim/identity/IDENTITY"),
                "{error}"
            );
            disk.restore(&image);
            assert!(disk.truncate("IDENTITY", at));
            let error = identity::open(&disk.disk(), 1, 2).expect_err("refused");
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        }
        disk.restore(&image);
        disk.disk()
            .open("IDENTITY", Open::Write)
            .and_then(|f| f.set_len(2 << 20))
            .expect("long");
        let error = identity::open(&disk.disk(), 1, 2).expect_err("refused");
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
    });
}

#[test]
fn a_disk_that_cannot_be_written_is_named() {
    block_on_test(async {
        for op in [DiskOp::Write, DiskOp::Sync, DiskOp::Name] {
            let disk = disk(1);
            disk.fail_nth(op, 1, std::io::ErrorKind::PermissionDenied);
            let error = identity::open(&disk.disk(), 1, 2).expect_err("refused");
            assert!(matches!(error, IdentityError::Io { .. }), "{error}");
            assert!(error.to_string().contains("/sim/identity"), "{error}");
        }
    });
}

/// On real files: the lock excludes a second opening, and a read-only place is named.
#[test]
#[cfg_attr(madsim, ignore = "real files")]
fn on_real_files() {
    let root = std::env::temp_dir().join(format!("holdfast-identity-{}", std::process::id()));
    let disk = Disk::real(&root).expect("made");
    let (first, lock) = identity::open(&disk, 4, 1).expect("opens");
    let busy = identity::open(&disk, 4, 1).expect_err("locked");
    assert!(matches!(busy, IdentityError::InUse { .. }), "{busy}");
    drop(lock);
    let (second, _lock) = identity::open(&disk, 4, 1).expect("opens");
    assert_eq!((second.disk, second.boot), (first.disk, 2));
    std::fs::remove_dir_all(&root).expect("cleaned");
}

/// What an earlier life left unfinished may be what fills the disk: it goes before anything is written.
/// A directory that is refused is left as it is.
#[test]
fn leftovers_are_removed_before_anything_is_written() {
    block_on_test(async {
        let disk = disk(1);
        drop(identity::open(&disk.disk(), 1, 2).expect("opens"));
        let mounted = disk.disk();
        mounted.create_dir("log").expect("made");
        let leftovers = ["CURRENT.tmp", "log/spare.tmp", "spool-7"];
        let kept = ["log/0000000000000001.seg", "state-1.redb"];
        for name in leftovers.iter().chain(&kept) {
            let file = mounted.open(name, Open::Create).expect("made");
            file.write_all_at(&[7; 4096], 0).expect("written");
            file.sync_data().expect("synced");
        }
        let has = |name: &&&str| disk.files().iter().any(|(file, _)| file == **name);
        let mut full = disk.options();
        full.capacity = disk.used();
        disk.set_options(full);
        identity::open(&disk.disk(), 1, 3).expect_err("another's");
        assert_eq!(leftovers.iter().filter(has).count(), leftovers.len());
        let (_, _lock) = identity::open(&disk.disk(), 1, 2).expect("there is room again");
        assert_eq!(leftovers.iter().filter(has).count(), 0);
        assert_eq!(kept.iter().filter(has).count(), kept.len());
    });
}

/// A copy of the state that was not finished may be what fills the disk. What may be all that there is of
/// the state stays.
#[test]
fn an_unfinished_state_file_is_removed_before_anything_is_written() {
    block_on_test(async {
        for (current, removed) in [(true, true), (false, false)] {
            let disk = disk(2);
            drop(identity::open(&disk.disk(), 1, 2).expect("opens"));
            let opened = Store::open(&disk.disk(), StoreOptions::default()).await;
            let Ok(Opened::Ready(mut store)) = opened else {
                panic!("a fresh store opens");
            };
            store.rows_mut().put(b"key", b"value").expect("put");
            store.applied(1, 1, 1);
            store.close().await.expect("flushed");
            let mounted = disk.disk();
            let file = mounted.open("state-2.redb", Open::Create).expect("made");
            file.write_all_at(&[7; 4096], 0).expect("written");
            file.sync_data().expect("synced");
            if !current {
                mounted.remove("CURRENT").expect("removed");
            }
            let mut full = disk.options();
            full.capacity = disk.used();
            disk.set_options(full);
            let opened = identity::open(&disk.disk(), 1, 2);
            assert_eq!(opened.is_ok(), removed);
            let has = |name: &str| disk.files().iter().any(|(file, _)| file == name);
            assert_eq!(has("state-2.redb"), !removed);
            assert!(has("state-1.redb"));
        }
    });
}

/// Killed between the rename of CURRENT and the sync of it, and then the power fails in the next start:
/// whichever of the two CURRENT names afterwards is there.
#[test]
fn what_current_may_still_name_is_not_removed() {
    block_on_test(async {
        let name = |bytes: &[u8]| format!("state-{}.redb", bytes[1]);
        let (mut before, mut after) = (0, 0);
        for seed in 0..40 {
            let disk = disk(seed);
            drop(identity::open(&disk.disk(), 1, 2).expect("opens"));
            for number in [1u64, 2] {
                let mounted = disk.disk();
                let file = format!("state-{number}.redb");
                let file = mounted.open(&file, Open::Create).expect("made");
                file.sync_data().expect("synced");
                mounted.sync_dir("").expect("synced");
                // Format 1 of CURRENT: generation and index, and the CRC-32 of them.
                let body = [0, number as u8, number as u8];
                let bytes = [&body[..], &crc32fast::hash(&body).to_le_bytes()].concat();
                let file = mounted.open("CURRENT.tmp", Open::Create).expect("made");
                file.write_all_at(&bytes, 0).expect("written");
                file.sync_data().expect("synced");
                mounted.rename("CURRENT.tmp", "CURRENT").expect("renamed");
                if number == 1 {
                    mounted.sync_dir("").expect("synced");
                }
            }
            disk.process_kill();
            for nth in 1..6 {
                let image = disk.image();
                disk.crash_at(nth);
                let _ = identity::open(&disk.disk(), 1, 2);
                disk.power_fail();
                let current = disk.disk().read("CURRENT", 100).expect("one of the two");
                let files = disk.files();
                let is_there = files.iter().any(|(file, _)| *file == name(&current));
                assert!(is_there, "seed {seed}, {nth}: {current:?} {files:?}");
                match current[1] {
                    1 => before += 1,
                    _ => after += 1,
                }
                disk.restore(&image);
            }
        }
        assert!(
            before > 0 && after > 0,
            "both were tried: {before}, {after}"
        );
    });
}
