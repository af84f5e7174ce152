//! Damage at rest: whatever single thing is wrong with the files, the log never comes back with
//! other entries than were written, and says so when synced ones are gone.

mod log_support;

use log_support::{Model, OPTIONS, OWNER, entry, hard_state, meta, open};
use raft::log::{Batch, Log, LogError, LogOwner, Recovered};
use raft_protocol::{Abstain, SnapshotMeta};
use world::disk::{Image, SimDisk, SimDiskOptions};
use world::testing::block_on_test;

/// A log of three segments on a disk, and everything it ever was.
struct Made {
    disk: SimDisk,
    image: Image,
    /// The log after every batch.
    history: Vec<Model>,
}

fn make(sealed: bool) -> Made {
    let disk = SimDisk::new("damage", 1, SimDiskOptions::default());
    let (mut log, found) = open(&disk.disk(), &meta(0, 0)).expect("a fresh log");
    assert!(found.fresh);
    let mut model = Model::default();
    let mut history = vec![model.clone()];
    for n in 0..22 {
        let term = 1 + n / 4;
        // Every sixth batch replaces the last two entries.
        let first = if n % 6 == 5 {
            model.last - 1
        } else {
            model.last + 1
        };
        let run = (first..first + 3)
            .map(|i| entry(i, term, &[n as u8; 200]))
            .collect();
        let batch = Batch {
            commit: 0,
            hard_state: hard_state(term, Some(1 + n % 3)),
            runs: vec![run],
        };
        log.append(&batch).expect("append");
        model.append(&batch);
        history.push(model.clone());
    }
    if sealed {
        log.seal().expect("seal");
    }
    drop(log);
    disk.power_fail();
    assert_eq!(disk.files().len(), 3, "{:?}", disk.files());
    Made {
        image: disk.image(),
        disk,
        history,
    }
}

impl Made {
    fn newest(&self) -> &Model {
        self.history.last().expect("not empty")
    }

    /// Bytes of a file that hold something.
    fn used(&self, name: &str) -> u64 {
        let bytes = self.disk.read(name).expect("it is there");
        bytes
            .iter()
            .rposition(|b| *b != 0)
            .map_or(0, |at| at as u64 + 1)
    }

    fn open(&self) -> Result<Recovered, LogError> {
        open(&self.disk.disk(), &meta(0, 0)).map(|(_, found)| found)
    }

    /// The log is cut, says so, abstains through all it had; and still does after a restart.
    fn is_cut(&self, found: &Recovered, what: &str) {
        let newest = self.newest();
        assert!(found.damage.is_some(), "{what}: not said");
        let abstain = Abstain {
            term: newest.hard_state.term,
            index: newest.last,
        };
        assert_eq!(found.hard_state.abstain, Some(abstain), "{what}");
        assert_eq!(found.hard_state.vote, newest.hard_state.vote, "{what}");
        assert!(
            self.history
                .iter()
                .any(|m| m.entries_differ(found).is_none()),
            "{what}: a mixture: {found:?}"
        );
        self.disk.power_fail();
        let again = self.open().expect(what);
        assert_eq!(again.damage, None, "{what}: found twice");
        assert_eq!(again.hard_state, found.hard_state, "{what}: forgotten");
        assert_eq!(again.entries, found.entries, "{what}");
    }
}

/// Flips bits everywhere. Returns how often it was harmless, torn and damage.
fn flip_everywhere(made: &Made) -> (u32, u32, u32) {
    let mut count = (0, 0, 0);
    made.disk.restore(&made.image);
    for (name, len) in made.disk.files() {
        let used = made.used(&name);
        // Headers of segments and records byte by byte, long bodies in strides.
        let dense = |at: &u64| *at < 200 || at % 512 < 100 || at.is_multiple_of(5);
        for at in (0..(used + 600).min(len)).filter(dense) {
            made.disk.restore(&made.image);
            assert!(made.disk.flip_bit(&name, at, (at % 8) as u8));
            let what = format!("{name} byte {at}");
            let found = made.open().expect(&what);
            if found.damage.is_some() {
                count.2 += 1;
                if count.2 % 16 == 0 {
                    made.is_cut(&found, &what);
                } else {
                    assert!(
                        made.history
                            .iter()
                            .any(|m| m.entries_differ(&found).is_none()),
                        "{what}: a mixture"
                    );
                    assert!(found.hard_state.abstain.is_some());
                }
            } else if made.newest().differs(&found).is_none() {
                count.0 += 1;
            } else {
                count.1 += 1;
                assert!(
                    found.torn.is_some(),
                    "{what}: {:?}",
                    made.newest().differs(&found)
                );
                let before = &made.history[made.history.len() - 2];
                assert_eq!(
                    before.differs(&found),
                    None,
                    "{what}: only the last batch may go"
                );
            }
        }
    }
    count
}

#[test]
fn a_flipped_bit_is_never_taken_for_data() {
    block_on_test(async {
        let (harmless, torn, damage) = flip_everywhere(&make(false));
        assert!(
            harmless > 100 && torn > 100 && damage > 1000,
            "{harmless} {torn} {damage}"
        );
    });
}

/// After the seal nothing that was appended can pass for a torn tail.
#[test]
fn a_sealed_log_loses_nothing_silently() {
    block_on_test(async {
        let made = make(true);
        let (harmless, torn, damage) = flip_everywhere(&made);
        assert_eq!(torn, 0);
        assert!(harmless > 100 && damage > 1000, "{harmless} {damage}");
    });
}

#[test]
fn a_truncated_segment_is_damage_or_refused() {
    block_on_test(async {
        let made = make(true);
        for (number, (name, len)) in made.disk.files().into_iter().enumerate() {
            for at in (0..len).step_by(512) {
                made.disk.restore(&made.image);
                assert!(made.disk.truncate(&name, at));
                let what = format!("{name} cut to {at}");
                match made.open() {
                    Ok(found) if found.damage.is_some() => made.is_cut(&found, &what),
                    Ok(found) => {
                        assert!(number < 2, "{what}: not said");
                        assert_eq!(made.newest().differs(&found), None, "{what}");
                    }
                    // The newest segment may have held any term.
                    Err(LogError::Damaged { path, .. }) => {
                        assert!(number == 2, "{what}");
                        assert!(path.ends_with(&name), "{path:?}");
                    }
                    Err(error) => panic!("{what}: {error}"),
                }
            }
        }
    });
}

#[test]
fn a_missing_segment_is_damage() {
    block_on_test(async {
        let made = make(true);
        let files = made.disk.files();
        for (name, _) in &files[..2] {
            made.disk.restore(&made.image);
            assert!(made.disk.delete(name));
            let found = made.open().expect("opens");
            made.is_cut(&found, name);
        }
        for (name, _) in &files {
            assert!(made.disk.delete(name) || !made.disk.files().iter().any(|f| f.0 == *name));
        }
    });
}

/// With the whole log gone the last term is unknown, and a term too low would let this node
/// acknowledge entries to a deposed leader: it must not start at all.
#[test]
fn a_lost_log_beside_a_state_is_refused() {
    block_on_test(async {
        let disk = SimDisk::new("lost", 1, SimDiskOptions::default());
        match open(&disk.disk(), &meta(50, 3)).map(|(_, found)| found) {
            Err(LogError::Damaged { path, reason }) => {
                assert!(path.ends_with("log"), "{path:?}");
                assert!(reason.contains("through index 50"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
        let found = open(&disk.disk(), &meta(0, 0)).expect("a fresh one").1;
        assert!(found.fresh);
    });
}

#[test]
fn garbage_as_the_newest_segment_is_refused_by_name() {
    block_on_test(async {
        let made = make(false);
        let (name, _) = made.disk.files().pop().expect("three");
        let garbage: Vec<u8> = (0..9000u32).map(|n| (n * 31 % 251) as u8).collect();
        assert!(made.disk.overwrite(&name, 0, &garbage));
        let error = made.open().expect_err("refused").to_string();
        assert!(error.contains(&name), "{error}");
    });
}

/// The header of a segment that never held a record: an ordinary power failure, nothing is lost.
#[test]
fn an_unused_newest_segment_without_a_header_is_a_torn_tail() {
    block_on_test(async {
        let made = make(false);
        let disk = made.disk.disk();
        let file = disk
            .open("log/0000000000000004.seg", world::disk::Open::CreateNew)
            .expect("made");
        file.set_len(16 << 10).expect("long");
        file.write_all_at(b"HOLDFLOG", 0).expect("written");
        let found = made.open().expect("opens");
        assert!(found.torn.is_some());
        assert_eq!(made.newest().differs(&found), None);
        assert_eq!(made.disk.files().len(), 3);
    });
}

#[test]
fn segments_of_another_node_are_refused() {
    block_on_test(async {
        let made = make(false);
        let other = LogOwner { node: 3, ..OWNER };
        let error = Log::open(&made.disk.disk(), other, OPTIONS, &meta(0, 0))
            .map(|(_, found)| found)
            .expect_err("refused");
        assert!(matches!(error, LogError::Foreign { found, expected, .. }
            if found == OWNER && expected == other));
    });
}

/// One copy of a segment's header is enough, and the other is written again.
#[test]
fn a_header_copy_is_repaired() {
    block_on_test(async {
        let made = make(true);
        let (name, _) = made.disk.files().pop().expect("three");
        for (first, second) in [(20, 4096 + 20), (4096 + 20, 20)] {
            made.disk.restore(&made.image);
            made.disk.flip_bit(&name, first, 1);
            assert_eq!(made.newest().differs(&made.open().expect("opens")), None);
            made.disk.power_fail();
            made.disk.flip_bit(&name, second, 1);
            assert_eq!(made.newest().differs(&made.open().expect("opens")), None);
        }
    });
}

/// A block that holds what it held before, or another block's content.
#[test]
fn stale_and_misdirected_blocks_are_damage() {
    block_on_test(async {
        let made = make(true);
        for (name, _) in made.disk.files() {
            made.disk.restore(&made.image);
            let blocks = made.used(&name) / 512;
            for block in 16..blocks {
                made.disk.restore(&made.image);
                let zeros = [0; 512];
                made.disk.overwrite(&name, block * 512, &zeros);
                let found = made.open().expect("opens");
                if made.newest().differs(&found).is_some() {
                    made.is_cut(&found, &format!("{name} block {block} zeroed"));
                }
                made.disk.restore(&made.image);
                let bytes = made.disk.read(&name).expect("there");
                let other = &bytes[8192..8192 + 512];
                made.disk.overwrite(&name, block * 512, other);
                let found = made.open().expect("opens");
                if made.newest().differs(&found).is_some() {
                    made.is_cut(&found, &format!("{name} block {block} misdirected"));
                }
            }
        }
    });
}

/// Power fails inside every operation of the recovery from damage: the next recovery finds the
/// same, be it the damage again or the finished cut.
#[test]
fn recovery_from_damage_survives_power_failures() {
    block_on_test(async {
        let made = make(true);
        let files = made.disk.files();
        let mut crashes = 0;
        for seed in 0..20 {
            for nth in 1.. {
                let disk = SimDisk::new("twice", seed, SimDiskOptions::default());
                disk.restore(&made.image);
                disk.flip_bit(&files[1].0, 8500, 3);
                disk.crash_at(nth);
                let first = open(&disk.disk(), &meta(0, 0)).map(|(_, found)| found);
                let done = !disk.crashed();
                disk.power_fail();
                disk.clear_faults();
                let found = open(&disk.disk(), &meta(0, 0)).expect("opens").1;
                let abstain = found
                    .hard_state
                    .abstain
                    .expect("the damage is not forgotten");
                assert_eq!((abstain.term, abstain.index), (6, made.newest().last));
                assert!(
                    made.history
                        .iter()
                        .any(|m| m.entries_differ(&found).is_none())
                );
                if done {
                    assert_eq!(first.expect("no failure").entries, found.entries);
                    break;
                }
                crashes += 1;
            }
        }
        assert!(crashes > 100, "{crashes}");
    });
}

/// A second damage while the first still binds demands at least as much.
#[test]
fn abstentions_add_up() {
    block_on_test(async {
        let made = make(true);
        let files = made.disk.files();
        made.disk.flip_bit(&files[0].0, 8500, 3);
        let (mut log, found) = open(&made.disk.disk(), &meta(0, 0)).expect("opens");
        let first = found.hard_state.abstain.expect("abstains");
        let last = found.entries.last().map_or(0, |e| e.index);
        for term in [6, 7] {
            let mut hard = hard_state(term, None);
            hard.abstain = Some(first);
            for n in 1..=2 {
                let runs = vec![vec![entry(last + n, term, b"x")]];
                let batch = Batch {
                    commit: 0,
                    hard_state: hard,
                    runs,
                };
                log.append(&batch).expect("append");
            }
            let image = made.disk.image();
            made.disk.process_kill();
            let (name, _) = made.disk.files().pop().expect("one");
            let at = made.used(&name) / 512 * 512 - 512;
            made.disk.flip_bit(&name, at + 10, 1);
            let again = open(&made.disk.disk(), &meta(0, 0)).expect("opens").1;
            let second = again.hard_state.abstain.expect("abstains");
            assert!(again.damage.is_some());
            assert_eq!(second.term, term);
            // In the later term only an entry of a term later still proves the first loss made good.
            let index = if term == first.term {
                first.index
            } else {
                u64::MAX
            };
            assert_eq!(second.index, index);
            made.disk.restore(&image);
            log = open(&made.disk.disk(), &meta(0, 0)).expect("opens").0;
        }
    });
}

/// Power fails inside every operation of a reset: what is there afterwards is the log before it,
/// judged by the state that has switched already, or the log after it.
#[test]
fn a_reset_survives_power_failures() {
    block_on_test(async {
        let made = make(true);
        let newest = made.newest().clone();
        let kept = newest.last - 3;
        let cases = [
            meta(kept, newest.term_at(kept).expect("it is there")),
            meta(kept, 7),
            meta(newest.last + 10, 7),
        ];
        for (case, stamp) in cases.iter().enumerate() {
            for seed in 0..20 {
                for nth in 1.. {
                    let disk = SimDisk::new("reset", seed, SimDiskOptions::default());
                    disk.restore(&made.image);
                    let mut log = open(&disk.disk(), &meta(0, 0)).expect("opens").0;
                    let mut after = newest.clone();
                    let suffix = after.reset(hard_state(7, None), stamp);
                    assert_eq!(suffix.len(), if case == 0 { 3 } else { 0 });
                    disk.crash_at(nth);
                    let done = log.reset(hard_state(7, None), stamp, &suffix).is_ok();
                    disk.power_fail();
                    disk.clear_faults();
                    let found = open(&disk.disk(), stamp).expect("opens").1;
                    assert_eq!(found.damage, None);
                    let before = newest.behind(stamp).without_covered(stamp, &found);
                    let as_after = after.differs(&found);
                    if done {
                        assert_eq!(as_after, None, "case {case} seed {seed}");
                        assert_eq!(disk.files().len(), 1, "older segments are gone");
                        break;
                    }
                    let as_before = before.differs(&found);
                    assert!(
                        as_before.is_none() || as_after.is_none(),
                        "case {case} seed {seed} operation {nth}: {as_before:?} {as_after:?}"
                    );
                }
            }
        }
    });
}

/// A torn tail does not excuse that the state reaches beyond the log: that batch was synced.
#[test]
fn a_torn_tail_below_the_stamp_is_damage() {
    block_on_test(async {
        let made = make(false);
        let stamp = |index| -> SnapshotMeta {
            meta(index, made.newest().term_at(index).expect("it is there"))
        };
        let (name, _) = made.disk.files().pop().expect("three");
        let last = made.newest().last;
        made.disk.flip_bit(&name, made.used(&name) - 1, 1);
        let image = made.disk.image();
        let found = open(&made.disk.disk(), &stamp(last - 3)).expect("opens").1;
        assert!(found.damage.is_none() && found.torn.is_some());
        made.disk.restore(&image);
        let found = open(&made.disk.disk(), &stamp(last)).expect("opens").1;
        assert!(found.damage.is_some());
        assert_eq!((found.base.index, found.entries.len()), (last, 0));
        assert_eq!(
            found.hard_state.abstain.map(|a| (a.term, a.index)),
            Some((6, last))
        );
    });
}
