use super::*;

/// Three pages, synced; then one sector and a half of the second are overwritten, and power fails.
fn overwritten(seed: u64, torn_overwrites: f64) -> Vec<u8> {
    let mut file = Inode::default();
    file.write(&[1; 3 * PAGE], 0);
    file.sync(false);
    file.write(&[2; SECTOR + SECTOR / 2], (PAGE + SECTOR) as u64);
    let options = SimDiskOptions {
        torn_overwrites,
        ..SimDiskOptions::default()
    };
    file.power_fail(&mut Rng::new(seed), &options);
    let mut now = vec![0; 3 * PAGE];
    file.read(&mut now, 0);
    now
}

fn is_garbage(sector: &[u8]) -> bool {
    let first = &sector[..SECTOR / 2];
    let whole = |value: u8| first.iter().all(|b| *b == value);
    !whole(1) && !whole(2)
}

#[test]
fn an_overwritten_sector_may_be_torn_and_no_other() {
    let mut torn = [0; 2];
    for seed in 0..100 {
        let now = overwritten(seed, 0.5);
        for (n, sector) in now.chunks(SECTOR).enumerate() {
            match n.checked_sub(PAGE / SECTOR + 1) {
                Some(which @ 0..2) => torn[which] += u32::from(is_garbage(sector)),
                _ => assert_eq!(sector, [1; SECTOR], "sector {n} was not written"),
            }
        }
    }
    assert!(torn.iter().all(|n| (20..80).contains(n)), "{torn:?}");
}

#[test]
fn by_default_an_overwritten_sector_is_old_or_new() {
    for seed in 0..100 {
        let now = overwritten(seed, SimDiskOptions::default().torn_overwrites);
        assert!(!now.chunks(SECTOR).any(is_garbage), "seed {seed}");
    }
}
