//! redb over verified blocks over a simulated disk.

use redb::{Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use world::disk::{DiskOp, SimDisk, SimDiskOptions};
use world::paged::{BLOCK, Damage, Paged};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("t");
const CACHE: usize = 1 << 20;
type Model = BTreeMap<u64, Vec<u8>>;

/// A small generator for the tests' own choices.
struct Rng(u64);
impl Rng {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn sim(seed: u64) -> SimDisk {
    SimDisk::new(
        "d",
        seed,
        SimDiskOptions {
            keep_stale: true,
            ..Default::default()
        },
    )
}

fn open(sim: &SimDisk, damage: &Damage) -> Result<Database, redb::Error> {
    let paged = Paged::open_reporting(&sim.disk(), "state.redb", damage.clone())?;
    Ok(Database::builder()
        .set_cache_size(CACHE)
        .create_with_backend(paged)?)
}

/// One durable commit; the stamp is row 0.
fn commit(db: &Database, rows: &Model) -> Result<(), redb::Error> {
    let mut tx = db.begin_write()?;
    tx.set_quick_repair(true);
    {
        let mut table = tx.open_table(TABLE)?;
        for (key, value) in rows {
            if value.is_empty() {
                table.remove(key)?;
            } else {
                table.insert(key, value.as_slice())?;
            }
        }
    }
    tx.commit()?;
    Ok(())
}

fn read_all(db: &Database) -> Result<Model, redb::Error> {
    let tx = db.begin_read()?;
    let table = match tx.open_table(TABLE) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Model::new()),
        table => table?,
    };
    let mut rows = Model::new();
    for row in table.iter()? {
        let (key, value) = row?;
        rows.insert(key.value(), value.value().to_vec());
    }
    Ok(rows)
}

fn some_rows(rng: &mut Rng, stamp: u64) -> Model {
    let mut rows = Model::from([(0, stamp.to_le_bytes().to_vec())]);
    let big = rng.below(12) == 0;
    for _ in 0..rng.below(if big { 400 } else { 40 }) {
        let len = match rng.below(10) {
            0 => 0,
            1 => rng.below(30_000),
            _ => rng.below(400),
        };
        rows.insert(1 + rng.below(3000), vec![stamp as u8; len as usize]);
    }
    rows
}

fn apply(model: &mut Model, rows: &Model) {
    for (key, value) in rows {
        if value.is_empty() {
            model.remove(key);
        } else {
            model.insert(*key, value.clone());
        }
    }
}

/// Crashes inside opens and commits; the content must be that of the last acknowledged commit, or
/// of the one in doubt.
fn crashes(seed: u64, rounds: u64, power: bool) -> u64 {
    let sim = sim(seed);
    let mut rng = Rng(seed * 2 + 1);
    let (mut model, mut in_doubt) = (Model::new(), None::<Model>);
    let (mut stamp, mut acknowledged) = (0, 0);
    // redb takes a file whose creation was interrupted for none of its own: whoever creates one must
    // finish before anything refers to it.
    drop(open(&sim, &Damage::default()).unwrap());
    for round in 0..rounds {
        let damage = Damage::default();
        if rng.below(3) > 0 {
            sim.crash_at(1 + rng.below(60));
        }
        let mut handle = None;
        match open(&sim, &damage) {
            Ok(db) => {
                let found = match read_all(&db) {
                    Ok(found) => found,
                    Err(error) => panic!("seed {seed} round {round}: {error} {:?}", damage.get()),
                };
                if let Some(doubtful) = in_doubt.take().filter(|doubtful| *doubtful == found) {
                    model = doubtful;
                }
                assert!(
                    found == model,
                    "seed {seed} round {round}: a commit was lost or mixed"
                );
                for _ in 0..rng.below(8) {
                    stamp += 1;
                    let rows = some_rows(&mut rng, stamp);
                    let mut next = model.clone();
                    apply(&mut next, &rows);
                    if commit(&db, &rows).is_err() {
                        in_doubt = Some(next);
                        break;
                    }
                    model = next;
                    acknowledged += 1;
                }
                handle = Some(db);
            }
            Err(error) => assert!(
                sim.crashed(),
                "seed {seed} round {round}: {error} {:?}",
                damage.get()
            ),
        }
        assert_eq!(damage.get(), None, "seed {seed} round {round}");
        sim.clear_faults();
        if !sim.crashed() {
            match rng.below(3) {
                0 => drop(handle.take()),
                _ if power => sim.power_fail(),
                _ => sim.process_kill(),
            }
        }
        // Its late writes must change nothing.
        drop(handle);
        if !power && rng.below(4) == 0 {
            sim.power_fail();
        }
    }
    acknowledged
}

#[test]
fn power_failures_inside_commit_and_open_lose_no_acknowledged_commit() {
    let acknowledged: u64 = (1..=30).map(|seed| crashes(seed, 30, true)).sum();
    assert!(acknowledged > 1000, "{acknowledged}");
}

#[test]
fn killed_processes_lose_no_acknowledged_commit() {
    let acknowledged: u64 = (100..110).map(|seed| crashes(seed, 30, false)).sum();
    assert!(acknowledged > 300, "{acknowledged}");
}

/// A database of several groups of blocks, closed.
fn filled(sim: &SimDisk) -> Model {
    let db = open(sim, &Damage::default()).unwrap();
    let mut model = Model::new();
    for stamp in 1..40u64 {
        let rows: Model = (0..200)
            .map(|i| (i * 40 + stamp, vec![stamp as u8; 1000]))
            .collect();
        commit(&db, &rows).unwrap();
        apply(&mut model, &rows);
    }
    model
}

/// Opens and reads all: the right rows, or damage reported.
fn read_or_damage(sim: &SimDisk, model: &Model) -> bool {
    let damage = Damage::default();
    match open(sim, &damage).and_then(|db| read_all(&db)) {
        Ok(found) => {
            assert!(found == *model, "wrong rows were served");
            damage.get().is_some()
        }
        Err(error) => {
            let what = damage
                .get()
                .unwrap_or_else(|| panic!("damage was not reported: {error}"));
            assert!(what.starts_with("/sim/d/state.redb: "), "{what}");
            true
        }
    }
}

const FILE: &str = "state.redb";
/// Pages before redb's second page: the first page, two of sums, redb's header.
const FIRST_VERIFIED: u64 = 4;

fn page_count(sim: &SimDisk) -> u64 {
    sim.files().iter().find(|(name, _)| name == FILE).unwrap().1 / BLOCK as u64
}

#[test]
fn no_flipped_bit_is_ever_served() {
    let sim = sim(1);
    let model = filled(&sim);
    let healthy = sim.image();
    let pages = page_count(&sim);
    assert!(pages > 2500, "{pages}");
    let mut rng = Rng(77);
    let mut noticed = 0;
    for _ in 0..300 {
        sim.restore(&healthy);
        let offset =
            FIRST_VERIFIED * BLOCK as u64 + rng.below((pages - FIRST_VERIFIED) * BLOCK as u64);
        assert!(sim.flip_bit(FILE, offset, rng.below(8) as u8));
        noticed += u64::from(read_or_damage(&sim, &model));
    }
    // The others hit pages that redb does not use.
    assert!(noticed > 100, "{noticed}");
}

#[test]
fn stale_and_misdirected_blocks_are_noticed() {
    let sim = sim(2);
    let model = filled(&sim);
    let healthy = sim.image();
    let pages = page_count(&sim);
    let mut rng = Rng(78);
    let mut noticed = 0;
    for _ in 0..200 {
        sim.restore(&healthy);
        let any = |rng: &mut Rng| FIRST_VERIFIED + rng.below(pages - FIRST_VERIFIED);
        let (from, to) = (any(&mut rng), any(&mut rng));
        assert!(sim.misdirect(FILE, from, to));
        noticed += u64::from(read_or_damage(&sim, &model));
    }
    assert!(noticed > 60, "{noticed}");

    // A block that is acknowledged, synced, and on disk still what it was before.
    let sim = self::sim(3);
    let paged = Paged::open(&sim.disk(), "f").unwrap();
    paged.set_len(10 * BLOCK as u64).unwrap();
    for value in [1, 2] {
        paged.write(5 * BLOCK as u64, &[value; BLOCK]).unwrap();
        paged.sync_data().unwrap();
    }
    assert!(sim.make_stale("f", 3 + 5));
    let error = paged.read(5 * BLOCK as u64, &mut [0; BLOCK]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(
        error.to_string().contains("/sim/d/f: block 5 is damaged"),
        "{error}"
    );
    assert_eq!(paged.damage().get(), Some(error.to_string()));
}

#[test]
fn reads_and_writes_of_any_shape_agree_with_plain_bytes() {
    let sim = sim(4);
    let mut paged = Paged::open(&sim.disk(), "f").unwrap();
    let blocks = 2300u64; // three groups
    let mut plain = vec![0u8; blocks as usize * BLOCK];
    paged.set_len(blocks * BLOCK as u64).unwrap();
    let mut rng = Rng(5);
    for i in 0..600u64 {
        let len = match rng.below(3) {
            0 => rng.below(100),
            1 => BLOCK as u64 * (1 + rng.below(40)),
            _ => rng.below(3_000_000),
        };
        let mut offset = rng.below(plain.len() as u64 - len);
        if rng.below(2) == 0 {
            offset -= offset % BLOCK as u64;
        }
        let range = offset as usize..(offset + len) as usize;
        if rng.below(2) == 0 {
            plain[range.clone()].fill(i as u8);
            paged.write(offset, &plain[range]).unwrap();
        } else {
            let mut found = vec![0; len as usize];
            paged.read(offset, &mut found).unwrap();
            assert!(found == plain[range], "read {i}");
        }
        if i % 50 == 49 {
            let cut = plain.len() / BLOCK - rng.below(700) as usize;
            plain[cut * BLOCK..].fill(0);
            paged.set_len((cut * BLOCK) as u64).unwrap();
            assert!(paged.read((cut * BLOCK) as u64, &mut [0]).is_err());
            paged.set_len(plain.len() as u64).unwrap();
            assert_eq!(StorageBackend::len(&paged).unwrap(), plain.len() as u64);
        }
        if i % 100 == 99 {
            paged.sync_data().unwrap();
            sim.power_fail();
            paged = Paged::open(&sim.disk(), "f").unwrap();
        }
    }
    assert_eq!(paged.scrub(0, u64::MAX).unwrap().checked, blocks);
}

#[test]
fn torn_sums_never_make_synced_blocks_unreadable() {
    for seed in 0..200 {
        let sim = sim(seed);
        let mut rng = Rng(seed + 9);
        let blocks = 2100u64;
        let paged = Paged::open(&sim.disk(), "f").unwrap();
        paged.set_len(blocks * BLOCK as u64).unwrap();
        let mut synced: BTreeMap<u64, u8> = BTreeMap::new();
        let mut paged = Some(paged);
        for round in 0..8u8 {
            let file = match paged.take() {
                Some(file) => file,
                None => Paged::open(&sim.disk(), "f").unwrap(),
            };
            for (block, value) in &synced {
                let mut found = [0; BLOCK];
                file.read(block * BLOCK as u64, &mut found).unwrap();
                assert!(
                    found == [*value; BLOCK],
                    "seed {seed} round {round} block {block}"
                );
            }
            // As redb does: only blocks that nothing refers to are written.
            let mut new = BTreeMap::new();
            for _ in 0..30 {
                let block = 1 + rng.below(blocks - 1);
                if StorageBackend::len(&file).unwrap() == blocks * BLOCK as u64
                    && !synced.contains_key(&block)
                {
                    file.write(block * BLOCK as u64, &[round + 1; BLOCK])
                        .unwrap();
                    new.insert(block, round + 1);
                }
            }
            sim.crash_at(1 + rng.below(8));
            if file.sync_data().is_ok() {
                synced.extend(new);
            }
            sim.clear_faults();
            match rng.below(3) {
                0 => sim.process_kill(),
                _ => sim.power_fail(),
            }
        }
    }
}

#[test]
fn the_scrub_tells_damage_from_what_a_crash_left() {
    let sim = sim(6);
    let paged = Paged::open(&sim.disk(), "f").unwrap();
    paged.set_len(200 * BLOCK as u64).unwrap();
    paged.write(10 * BLOCK as u64, &[1; 100 * BLOCK]).unwrap();
    paged.sync_data().unwrap();
    let clean = paged.scrub(0, 150).unwrap();
    assert_eq!(
        (clean.checked, clean.next, clean.damaged.len()),
        (150, Some(150), 0)
    );
    assert_eq!(paged.scrub(150, 150).unwrap().next, None);
    // Rot in a block known good.
    assert!(sim.flip_bit("f", (3 + 20) * BLOCK as u64, 1));
    assert_eq!(paged.scrub(0, u64::MAX).unwrap().damaged, [20]);
    assert!(paged.damage().get().unwrap().contains("block 20 "));
    // Met for the first time after an opening it is only suspect; a read is certain.
    let paged = Paged::open(&sim.disk(), "f").unwrap();
    let found = paged.scrub(0, u64::MAX).unwrap();
    assert_eq!((found.damaged.len(), found.suspect), (0, vec![20]));
    assert_eq!(paged.damage().get(), None);
    assert!(paged.read(20 * BLOCK as u64, &mut [0; BLOCK]).is_err());
    // Written anew it is good again.
    paged.write(20 * BLOCK as u64, &[2; BLOCK]).unwrap();
    assert_eq!(paged.scrub(0, u64::MAX).unwrap().suspect, []);
}

#[test]
fn after_a_failed_write_or_sync_nothing_more_is_changed() {
    for op in [DiskOp::Write, DiskOp::Sync] {
        let sim = sim(7);
        let paged = Paged::open(&sim.disk(), "f").unwrap();
        paged.set_len(10 * BLOCK as u64).unwrap();
        paged.write(BLOCK as u64, &[1; BLOCK]).unwrap();
        sim.fail_nth(op, 1, ErrorKind::Other);
        assert!(paged.sync_data().is_err());
        assert!(paged.sync_data().is_err(), "a later sync must not say Ok");
        assert!(paged.write(0, &[1; BLOCK]).is_err());
    }
}

/// The kernel may show a page that it could not write, and takes it for clean: the next life would
/// believe it, cut the log behind it, and lose it with the power. In a commit's sync as in the one of
/// the next open.
#[test]
fn what_a_failed_sync_left_in_memory_is_not_read() {
    for seed in 0..40 {
        let sim = sim(seed);
        let read = |paged: &Paged| {
            let mut block = [0; BLOCK];
            let read = paged.read(BLOCK as u64, &mut block);
            read.map(|()| block[0]).map_err(|e| e.to_string())
        };
        let paged = Paged::open(&sim.disk(), "f").unwrap();
        paged.set_len(10 * BLOCK as u64).unwrap();
        paged.write(BLOCK as u64, &[1; BLOCK]).unwrap();
        paged.sync_data().unwrap();
        paged.write(BLOCK as u64, &[2; BLOCK]).unwrap();
        sim.fail_nth(DiskOp::Sync, 1, ErrorKind::Other);
        if seed % 2 == 0 {
            assert!(paged.sync_data().is_err());
        } else {
            drop(paged);
            assert!(Paged::open(&sim.disk(), "f").is_err());
        }
        let shown = read(&Paged::open(&sim.disk(), "f").unwrap());
        sim.power_fail();
        let kept = read(&Paged::open(&sim.disk(), "f").unwrap());
        assert_eq!(shown, kept, "seed {seed}");
    }
}

#[test]
fn a_damaged_first_page_is_damage_and_an_interrupted_creation_is_not() {
    let sim = sim(8);
    filled(&sim);
    assert!(sim.flip_bit(FILE, 9, 0));
    let damage = Damage::default();
    assert!(open(&sim, &damage).is_err());
    assert!(damage.get().unwrap().contains("first page"));

    for seed in 0..100 {
        let sim = self::sim(seed);
        sim.crash_at(1 + seed % 5);
        assert!(Paged::open(&sim.disk(), "f").is_err());
        let paged = Paged::open(&sim.disk(), "f").unwrap();
        assert!(paged.is_empty().unwrap());
    }
}

trait IsEmpty {
    fn is_empty(&self) -> std::io::Result<bool>;
}

impl IsEmpty for Paged {
    fn is_empty(&self) -> std::io::Result<bool> {
        Ok(StorageBackend::len(self)? == 0)
    }
}
