//! Looking for damage before it is asked for.

use super::StoreError;
use super::base::Base;
use super::generation::Generation;

/// Blocks verified in one step: a MiB.
const BLOCKS: u64 = 256;
/// Rows read in one step, bytes.
const ROWS: usize = 1 << 20;

/// How far a pass over a generation is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pass {
    /// The next block.
    block: u64,
    /// The rows are read, from this key on, before the blocks go on.
    from: Option<Vec<u8>>,
    /// They were read in this pass.
    read: bool,
}

/// One step of a pass; returns how far it is then. Blocking.
///
/// A block that does not match and was not known good is damage, or what a crash left of a block to
/// which nothing refers. Reading all that is referred to tells: once in a pass, however many such
/// blocks there are, and a step at a time, since a long read transaction keeps redb from reusing
/// pages. (A page that is no longer referred to when the reading comes to it is no damage any more.)
pub(super) fn scrub(generation: &Generation, pass: Pass) -> Result<Pass, StoreError> {
    let Some(from) = &pass.from else {
        return verify_some(generation, pass);
    };
    Ok(match read_some(generation, from)? {
        // It began behind the last block.
        None if pass.block == 0 => Pass::default(),
        from => Pass {
            block: pass.block,
            from,
            read: true,
        },
    })
}

fn verify_some(generation: &Generation, pass: Pass) -> Result<Pass, StoreError> {
    let place = &generation.place;
    let found = generation
        .paged
        .scrub(pass.block, BLOCKS)
        .map_err(|e| place.io(e))?;
    if let Some(block) = found.damaged.first() {
        return Err(place.damaged(format_args!("block {block} does not match its checksum")));
    }
    let suspects = !found.suspect.is_empty() && !pass.read;
    if !suspects && found.next.is_none() {
        return Ok(Pass::default());
    }
    Ok(Pass {
        block: found.next.unwrap_or(0),
        from: suspects.then(Vec::new),
        read: pass.read,
    })
}

/// Reads rows from a key on; returns the key to go on from.
fn read_some(generation: &Generation, from: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    let mut bytes = 0;
    for row in Base::view(generation.clone())?.range(from, &[])? {
        let (key, value) = row?;
        bytes += key.len() + value.len();
        if bytes >= ROWS {
            return Ok(Some([&key, b"\0".as_slice()].concat()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::base::ROWS as TABLE;
    use super::super::generation::Place;
    use super::*;
    use world::disk::{SimDisk, SimDiskOptions};

    const FILE: &str = "state-1.redb";
    const KEPT: u8 = 0xab;
    const DELETED: u8 = 0xcd;

    /// A file of several MiB, with a row per block in one half and none any more in the other.
    fn half_empty(sim: &SimDisk) {
        let generation = Place::new(&sim.disk(), 1).open(1 << 20).unwrap();
        for fill in [DELETED, KEPT] {
            let write = generation.database.begin_write().unwrap();
            let mut table = write.open_table(TABLE).unwrap();
            for n in 0..1000u32 {
                let key = [&[fill], n.to_be_bytes().as_slice()].concat();
                table
                    .insert(key.as_slice(), [fill; 3000].as_slice())
                    .unwrap();
            }
            drop(table);
            write.commit().unwrap();
        }
        for _ in 0..2 {
            let write = generation.database.begin_write().unwrap();
            let mut table = write.open_table(TABLE).unwrap();
            table.retain(|key, _| key[0] == KEPT).unwrap();
            drop(table);
            write.commit().unwrap();
        }
    }

    /// Rots a value of this kind in every 200 kB of the file; returns how many.
    fn rot(sim: &SimDisk, fill: u8) -> usize {
        let bytes = sim.read(FILE).unwrap();
        let (mut next, mut rotten) = (0, 0);
        while let Some(at) = bytes[next..].windows(64).position(|w| *w == [fill; 64]) {
            assert!(sim.flip_bit(FILE, (next + at) as u64, 3));
            (next, rotten) = (next + at + 200_000, rotten + 1);
            if next >= bytes.len() {
                break;
            }
        }
        rotten
    }

    /// Steps of a whole pass, and how many of them read rows.
    fn steps(sim: &SimDisk) -> Result<(usize, usize), StoreError> {
        let generation = Place::new(&sim.disk(), 1).open(1 << 20)?;
        let (mut pass, mut steps, mut reading) = (Pass::default(), 0, 0);
        loop {
            reading += usize::from(pass.from.is_some());
            steps += 1;
            pass = scrub(&generation, pass)?;
            if pass == Pass::default() {
                return Ok((steps, reading));
            }
        }
    }

    #[test]
    fn what_a_crash_left_is_told_from_damage_by_reading_the_rows_once() {
        let sim = SimDisk::new("a", 1, SimDiskOptions::default());
        half_empty(&sim);
        let (blocks, reading) = steps(&sim).unwrap();
        assert_eq!(reading, 0);
        // In several steps' blocks.
        assert!(rot(&sim, DELETED) > 10 && blocks > 4);
        // 3 MB of rows are read, a MiB at a time.
        assert_eq!(steps(&sim).unwrap(), (blocks + 3, 3));
        assert!(rot(&sim, KEPT) > 10);
        let error = steps(&sim).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(FILE), "{error}");
    }
}
