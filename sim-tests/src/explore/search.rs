//! Breadth first through every state of a model, once each.
//!
//! Why not the crate stateright, which does the same: it wants whole states (three cores, their
//! logs and disks: some KiB) in its queue, cannot say whether it stopped because it was done or
//! because time was up, and brings a web server along. What is needed is below, and short.
//!
//! States are told apart by a fingerprint of 64 bits: among n states two are taken for one with a
//! probability of about n²/2⁶⁵, a few in a million at ten million states. A state is remembered by
//! its fingerprint, what was spent, and the way to it (24 bytes together); whole states are held
//! only at the edge.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use world::clock::{Duration, Instant, now};

/// Which of the steps from a state: their order is the same at every visit.
pub type Ordinal = u16;

/// What a way used of what the bound allows, a count each.
pub type Spent = [u8; 8];

/// What is walked through.
pub trait Model {
    /// Small. Its hash covers everything that what follows depends on, but for what was spent.
    type State: Clone + Hash;

    /// What the way to `state` used of what the bound allows, a count each. Whatever can follow
    /// a state can follow the same state when less was spent; so a state that was met before, by a
    /// way that spent no more of anything, is not gone on from again.
    fn spent(&self, state: &Self::State) -> Spent;

    /// Where every way begins.
    fn start(&mut self) -> Self::State;

    /// Appends the state behind every possible step, in an order that `state` alone decides.
    /// An error says what the step breaks.
    fn next(&mut self, state: &Self::State, into: &mut Vec<Result<Self::State, String>>);
}

/// When to stop before everything was seen.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Real time.
    pub time: Duration,
    /// Distinct states; each takes 24 to 48 bytes, and some hundred more at the edge.
    pub states: usize,
}

/// How far a search came.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Distinct states.
    pub states: usize,
    /// Steps taken, those to known states included.
    pub steps: u64,
    /// Every state at most this many steps from the start was judged.
    pub depth: usize,
    /// States at the edge: seen, but not stepped from.
    pub edge: usize,
    /// Real time.
    pub time: Duration,
    /// The space within the model's bound was seen whole.
    pub exhausted: bool,
    /// A shortest way to a broken promise, and what was broken.
    pub broken: Option<(Vec<Ordinal>, String)>,
}

impl Report {
    /// Distinct states per second of real time.
    pub fn rate(&self) -> f64 {
        self.states as f64 / self.time.as_secs_f64().max(1e-3)
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (states, steps, depth) = (self.states, self.steps, self.depth);
        let time = self.time.as_secs_f64();
        write!(
            f,
            "{states} states, {steps} steps, depth {depth}, {time:.1} s, {:.0} states/s: ",
            self.rate()
        )?;
        match (&self.broken, self.exhausted) {
            (Some((way, what)), _) => write!(f, "BROKEN after {} steps: {what}", way.len()),
            (None, true) => write!(f, "exhausted"),
            (None, false) => write!(f, "NOT exhausted, {} states at the edge", self.edge),
        }
    }
}

/// Every state, nearest first. `progress` is told now and then.
pub fn breadth_first<M: Model>(
    model: &mut M,
    limits: Limits,
    mut progress: impl FnMut(&Report),
) -> Report {
    let began = now();
    let mut told = began;
    let mut report = Report::default();
    let mut seen = Seen::default();
    let start = model.start();
    seen.enter(&start, model.spent(&start), 0, 0);
    let mut edge = vec![(start, 0)];
    let mut next = Vec::new();
    let mut after = Vec::new();
    while !edge.is_empty() {
        let mut left = edge.len();
        for (state, place) in edge.drain(..) {
            left -= 1;
            model.next(&state, &mut after);
            report.steps += after.len() as u64;
            for (ordinal, state) in after.drain(..).enumerate() {
                let ordinal = ordinal as Ordinal;
                match state {
                    Ok(state) => {
                        let spent = model.spent(&state);
                        if let Some(place) = seen.enter(&state, spent, place, ordinal) {
                            next.push((state, place));
                        }
                    }
                    Err(what) => {
                        let mut way = seen.way(place);
                        way.push(ordinal);
                        report.broken = Some((way, what));
                        return seen.sum_up(report, left + next.len(), began);
                    }
                }
            }
            if left % 256 != 0 {
                continue;
            }
            let late = began.elapsed() >= limits.time;
            if late || seen.ways.len() >= limits.states {
                return seen.sum_up(report, left + next.len(), began);
            }
            if told.elapsed() >= Duration::from_secs(5) {
                told = now();
                report = seen.sum_up(report, left + next.len(), began);
                progress(&report);
            }
        }
        report.depth += 1;
        std::mem::swap(&mut edge, &mut next);
    }
    report.exhausted = true;
    report.depth -= 1;
    seen.sum_up(report, 0, began)
}

/// States that were met, and from where.
#[derive(Default)]
struct Seen {
    /// By fingerprint: what was spent on the first way.
    first: HashMap<u64, Spent, BuildHasherDefault<Ready>>,
    /// What was spent on further ways, where no other spent as little of everything.
    more: HashMap<u64, Vec<Spent>, BuildHasherDefault<Ready>>,
    ways: Vec<(u32, Ordinal)>,
}

impl Seen {
    /// Its place, if it was not met before, or only by ways that spent more of something.
    fn enter(
        &mut self,
        state: &impl Hash,
        spent: Spent,
        from: u32,
        ordinal: Ordinal,
    ) -> Option<u32> {
        let mut hasher = Mix::default();
        state.hash(&mut hasher);
        let print = hasher.finish();
        let within = |other: &Spent| other.iter().zip(&spent).all(|(o, s)| o <= s);
        match self.first.entry(print) {
            Entry::Vacant(place) => {
                place.insert(spent);
            }
            Entry::Occupied(place) if within(place.get()) => return None,
            Entry::Occupied(_) => {
                let more = self.more.entry(print).or_default();
                if more.iter().any(within) {
                    return None;
                }
                more.push(spent);
            }
        }
        let place = u32::try_from(self.ways.len()).ok()?;
        self.ways.push((from, ordinal));
        Some(place)
    }

    fn way(&self, mut place: u32) -> Vec<Ordinal> {
        let mut way = Vec::new();
        while place != 0 {
            let (from, ordinal) = self.ways[place as usize];
            way.push(ordinal);
            place = from;
        }
        way.reverse();
        way
    }

    fn sum_up(&self, mut report: Report, edge: usize, began: Instant) -> Report {
        report.states = self.ways.len();
        report.edge = edge;
        report.time = began.elapsed();
        report
    }
}

/// The fingerprint: 64-bit words, each stirred in by two multiplications (the finalizer of
/// splitmix64). Fixed, so that a search repeats itself.
#[derive(Default)]
pub struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mut z = self.0.rotate_left(5) ^ word.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.0 = z ^ (z >> 31);
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct Ready(u64);

impl Hasher for Ready {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only fingerprints are kept");
    }

    fn write_u64(&mut self, print: u64) {
        self.0 = print;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
