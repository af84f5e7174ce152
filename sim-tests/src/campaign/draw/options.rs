//! What holds for a whole run.

use super::templates::MOST_PIPELINED;
use crate::campaign::dice::Draw;
use crate::campaign::fault::FAMILIES;
use crate::campaign::plan::{Broken, Options, Work};

/// Draws it.
pub(super) fn draw(draw: &mut Draw) -> Options {
    // Five members now and then: two may be missing, and votes and acknowledgements take more ways.
    let replicas = draw.of(&[3, 3, 3, 3, 5]);
    let groups = draw.from(1, if replicas > 3 { 2 } else { 3 });
    let joined = draw.from(1, groups);
    // Now and then a long run with many operations.
    let long = draw.chance(2);
    let depth = if long { 1 } else { draw.of(&[1, 1, 1, 3]) };
    let padding = match draw.chance(3) {
        // A value of several chunks of a move.
        true => 300_000,
        false => draw.of(&[0, 0, 500, 4000, 60_000]),
    };
    let families = FAMILIES
        .iter()
        .filter(|_| draw.chance(45))
        .map(|f| (*f).to_owned())
        .collect();
    let spared = match groups > 1 && draw.chance(15) {
        true => draw.from(1, joined),
        false => 0,
    };
    let shards = match draw.of(&[2, 4, 6, 10]) {
        // The group that no fault touches must own one.
        few if spared > 0 => few.max(joined),
        shards => shards,
    };
    Options {
        groups,
        joined,
        replicas,
        spared,
        ctrlers: 3,
        shards: shards as u32,
        small_limits: draw.chance(70),
        append_bytes: draw.of(&[1 << 20, 1 << 20, 64]) as usize,
        clients: match (long, depth) {
            (true, _) => 10,
            (_, 1) => draw.from(2, 6),
            _ => draw.from(1, MOST_PIPELINED),
        },
        depth,
        keys: draw.from(3, 16),
        odd_keys: draw.chance(20),
        hot_percent: draw.of(&[0, 0, 50]),
        work: draw.of(&[
            Work::Mixed,
            Work::Mixed,
            Work::Appends,
            Work::Counters,
            Work::Batches,
        ]),
        pause_ms: if long {
            60
        } else {
            // What is long is written now and then, and many at a time come with pauses.
            let pause = draw.of(&[40, 100, 100, 300]);
            pause.max(padding as u64 / 600).max(35 * depth)
        },
        padding,
        load_ms: if long {
            90_000
        } else {
            draw.of(&[20_000, 40_000, 60_000])
        },
        latency_ms: draw.of(&[(1, 2), (1, 10), (1, 10), (5, 60)]),
        disk_us: draw.of(&[(100, 4000), (50, 500), (1000, 20_000)]),
        stall_ppm: draw.of(&[0, 0, 0, 2000, 20_000]),
        garbage_percent: draw.of(&[0, 5, 50]),
        // Of what a cluster with small values has at a time, a few times over.
        disk_kib: match padding {
            ..=500 => draw.of(&[0, 0, 3 << 10, 6 << 10]),
            _ => 0,
        },
        patience_ms: draw.of(&[0, 0, 3000, 60_000]),
        kept_kib: draw.of(&[16, 256, 256]),
        core_only: draw.chance(25),
        broken: draw.of(&[
            Broken::Down,
            Broken::CutOff,
            Broken::Deaf,
            Broken::Mute,
            Broken::Still,
            Broken::Hung,
        ]),
        broken_leader: draw.chance(70),
        over_budget: draw.chance(5),
        families,
        ..Options::default()
    }
}
