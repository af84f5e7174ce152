//! Whom a fault hits, and which links a partition cuts.

use super::nemesis::Nemesis;
use super::network::Cut;
use crate::campaign::fault::Fault;
use crate::sim::nodes::Key;

impl Nemesis {
    /// Whom a fault hits, as things stand.
    pub(super) fn hit(&self, fault: &Fault) -> Vec<Key> {
        match fault {
            Fault::Isolate(who)
            | Fault::OneWay { who, .. }
            | Fault::Flap { who, .. }
            | Fault::HalfOpen(who)
            | Fault::CutFromClients { who, .. }
            | Fault::Down { who, .. }
            | Fault::Pause(who)
            | Fault::Stutter { who, .. }
            | Fault::CrashLoop { who, .. }
            | Fault::PowerOffInside { who, .. }
            | Fault::EmptyDisk(who)
            | Fault::OldDisk(who)
            | Fault::Rot { who, .. }
            | Fault::WrongBlock { who, .. }
            | Fault::LostFile { who, .. }
            | Fault::DiskError { who, .. }
            | Fault::DiskFull { who, .. }
            | Fault::DiskStall { who, .. }
            | Fault::ClockRate { who, .. }
            | Fault::ClockJump { who, .. } => self.key(*who).into_iter().collect(),
            Fault::Split { group, .. }
            | Fault::Bridge { group, .. }
            | Fault::Ring { group }
            | Fault::Swizzle { group, .. }
            | Fault::SlowLink { group, .. }
            | Fault::Rolling { group }
            | Fault::PowerOffWhen { group, .. }
            | Fault::PowerOffInsideWhen { group, .. }
            | Fault::PauseWhen { group, .. }
            | Fault::LeaderChain { group, .. } => self.members(*group),
            Fault::SplitAll { .. } | Fault::PowerCut => self.machines.all(),
            _ => Vec::new(),
        }
    }

    /// The links that a partition cuts.
    pub(super) fn cuts(&self, fault: &Fault, hit: &[Key]) -> Vec<Cut> {
        let both = |a: Key, b: Key| [Cut::Link(a, b), Cut::Link(b, a)];
        let sides = |side: u64| {
            let (one, other): (Vec<(usize, &Key)>, Vec<_>) = hit
                .iter()
                .enumerate()
                .partition(|(i, _)| side >> i & 1 == 0);
            let pairs = one.into_iter().flat_map(move |(_, a)| {
                let other = other.clone();
                other.into_iter().map(move |(_, b)| (*a, *b))
            });
            pairs.flat_map(move |(a, b)| both(a, b)).collect()
        };
        match fault {
            Fault::Isolate(_) => hit
                .iter()
                .flat_map(|key| [Cut::Hearing(*key), Cut::Speech(*key)])
                .collect(),
            Fault::OneWay { hears: true, .. } => hit.iter().map(|k| Cut::Speech(*k)).collect(),
            Fault::OneWay { hears: false, .. } => hit.iter().map(|k| Cut::Hearing(*k)).collect(),
            Fault::Split { side, .. } | Fault::SplitAll { side } => sides(*side),
            Fault::Bridge { a, b, .. } => {
                let key = |n: u64| hit.get(n.wrapping_sub(1) as usize).copied();
                match (key(*a), key(*b)) {
                    (Some(a), Some(b)) if a != b => both(a, b).into(),
                    _ => Vec::new(),
                }
            }
            // Everybody hears the next and the one before; in a group of three that is everybody,
            // so there one direction of the ring is cut.
            Fault::Ring { .. } => {
                let count = hit.len();
                let apart = |i: usize, j: usize| match (j + count - i) % count {
                    0 | 1 => false,
                    d if count > 3 => d != count - 1,
                    _ => true,
                };
                let pairs = (0..count).flat_map(|i| (0..count).map(move |j| (i, j)));
                let cut = pairs.filter(|(i, j)| apart(*i, *j));
                cut.map(|(i, j)| Cut::Link(hit[i], hit[j])).collect()
            }
            _ => Vec::new(),
        }
    }
}
