//! Room on the disk: how much there is, what is done early when it runs short, and what is said of it.

use super::shared::Shared;
use crate::store::Shortage;
use raft_protocol::NodeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::again::Again;
use world::clock::{Instant, now, sleep};

/// How often the disk is looked at, besides the look before each write to the log.
const LOOK: Duration = Duration::from_secs(1);
/// A limit is at most this share of what is free, when that is less than the reserve.
const SHARE: u64 = 8;
/// And at least this share of what is kept to the last: several of them fit into it.
const LEAST_SHARE: u64 = 8;
/// Bytes that a byte of a command takes of the state's file, at most: a piece of a long value stands in
/// pages of twice its length. (It is in the log besides.)
const STATE_COST: u64 = 2;
/// What a member has not said again for so long is not counted: it may be gone for good. (While it is connected to a leader it answers every heartbeat.)
const HEARD: Duration = Duration::from_secs(3);

/// What is known of the room on a disk, and on those of the other members.
pub(super) struct Space {
    /// With less than this free it is short.
    reserve: u64,
    /// With less than this free it is nearly full.
    kept: u64,
    free: AtomicU64,
    /// Bytes that what is applied and not flushed will take.
    unflushed: AtomicU64,
    said: Mutex<Said>,
    peers: Mutex<BTreeMap<NodeId, (u64, Instant)>>,
}

/// A member's disk that is nearly full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FullDisk {
    /// The member.
    pub node: NodeId,
    /// Bytes that are free.
    pub free: u64,
}

/// What is to be said now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Say {
    Nothing,
    Short,
    Over,
}

/// When a short disk is spoken of.
#[derive(Debug, Default)]
struct Said(Again);

impl Said {
    /// There is room again only an eighth above the reserve: else each write might cross it.
    fn look(&mut self, free: u64, reserve: u64, at: Instant) -> Say {
        match self.0.was_said() {
            false if free >= reserve => Say::Nothing,
            true if free >= reserve + reserve / 8 => {
                self.0.over();
                Say::Over
            }
            _ if self.0.is_due(at) => Say::Short,
            _ => Say::Nothing,
        }
    }
}

impl Space {
    /// Nothing is known yet: the disk is taken for an empty one.
    pub(super) fn new(reserve: u64, kept: u64) -> Space {
        Space {
            reserve,
            kept,
            free: AtomicU64::new(u64::MAX),
            unflushed: AtomicU64::new(0),
            said: Mutex::default(),
            peers: Mutex::default(),
        }
    }

    /// Bytes that were free lately.
    pub(super) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// So many bytes are applied and not flushed.
    pub(super) fn unflushed(&self, bytes: usize) {
        let cost = STATE_COST * bytes as u64;
        self.unflushed.store(cost, Ordering::Relaxed);
    }

    /// Bytes that will be free when everything that is applied is flushed.
    pub(super) fn left(&self) -> u64 {
        let unflushed = self.unflushed.load(Ordering::Relaxed);
        self.free().saturating_sub(unflushed)
    }

    /// True when less is free than is meant to stay so.
    pub(super) fn is_short(&self) -> bool {
        self.free() < self.reserve
    }

    /// How little is free, for the state's file: of what is kept to the last, less than twice as much is
    /// nearly nothing.
    pub(super) fn shortage(&self) -> Shortage {
        match self.free() {
            free if free >= self.reserve => Shortage::None,
            free if free >= 2 * self.kept => Shortage::Short,
            _ => Shortage::NearlyFull,
        }
    }

    /// A limit in bytes: `usual`, and less on a short disk, so that the state is flushed and the log
    /// behind it removed before they fill it.
    pub(super) fn within(&self, usual: usize) -> usize {
        let free = self.free();
        if free >= self.reserve {
            return usual;
        }
        let limit = (free / SHARE).max(self.kept / LEAST_SHARE).max(1);
        usual.min(usize::try_from(limit).unwrap_or(usual))
    }

    /// What a member says of its disk: the bytes that will be left, when it is short.
    pub(super) fn heard(&self, node: NodeId, short: Option<u64>) {
        let mut peers = super::shared::lock(&self.peers);
        match short {
            Some(free) => {
                peers.insert(node, (free, now()));
            }
            None => {
                peers.remove(&node);
            }
        }
    }

    /// A member whose disk is nearly full by what it said lately, with so many bytes of commands on
    /// their way.
    pub(super) fn full_peer(&self, on_the_way: usize, now: Instant) -> Option<FullDisk> {
        let peers = super::shared::lock(&self.peers);
        let full = peers.iter().find(|(_, (free, at))| {
            now.saturating_duration_since(*at) < HEARD && self.leaves_too_little(*free, on_the_way)
        });
        full.map(|(node, (free, _))| {
            world::mark!("space: another member's disk is nearly full");
            FullDisk {
                node: *node,
                free: *free,
            }
        })
    }

    /// True when commands that make the state grow are to be refused, with so many bytes of commands on
    /// their way to the log and then to the state: what is left is kept.
    pub(super) fn is_full(&self, on_the_way: usize) -> bool {
        self.leaves_too_little(self.left(), on_the_way)
    }

    fn leaves_too_little(&self, left: u64, on_the_way: usize) -> bool {
        let taken = (1 + STATE_COST) * on_the_way as u64;
        left.saturating_sub(taken) < self.kept
    }

    /// So many bytes were free just now.
    fn note(&self, free: u64) -> Say {
        self.free.store(free, Ordering::Relaxed);
        let mut said = super::shared::lock(&self.said);
        said.look(free, self.reserve, now())
    }
}

/// Takes in how much is free, and says so when that is little.
pub(super) fn note(shared: &Shared, free: u64) {
    let site = shared.site;
    let (path, reserve) = (shared.disk.path(""), shared.options.log.reserve_bytes);
    let path = path.display();
    match shared.space.note(free) {
        Say::Nothing => {}
        Say::Short => {
            tracing::warn!(
                group = site.group,
                node = site.node,
                "the disk of {path} runs short: {free} bytes are free, and {reserve} are meant to stay free; \
                 the server goes on with a short log, and below {} it refuses what makes the state grow: \
                 give it room",
                shared.options.store.reserve_bytes
            );
        }
        Say::Over => tracing::info!(
            group = site.group,
            node = site.node,
            "the disk of {path} has room again: {free} bytes are free"
        ),
    }
}

/// Looks at the disk for as long as the replica lives: it may fill, or be given room, while nothing
/// is written here. (A disk that cannot be looked at ends the server with the next write.)
pub(super) async fn watch(shared: Arc<Shared>) {
    loop {
        let disk = shared.disk.clone();
        if let Ok(free) = shared.disk.job(move || disk.free()).await {
            note(&shared, free);
        }
        sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESERVE: u64 = 64 << 20;
    const KEPT: u64 = 8 << 20;

    /// Once when it begins, then at growing distances, and once when it is over.
    #[test]
    fn a_short_disk_is_spoken_of_at_growing_distances() {
        let (mut said, begin) = (Said::default(), now());
        let mut at = |minutes: u64, free: u64| {
            let at = begin + Duration::from_secs(60 * minutes);
            said.look(free, RESERVE, at)
        };
        assert_eq!(at(0, RESERVE), Say::Nothing);
        let minutes = (0..=24 * 60).filter(|m| at(*m, RESERVE - 1) == Say::Short);
        let minutes: Vec<u64> = minutes.collect();
        assert_eq!(minutes, [0, 10, 30, 70, 150, 310, 630, 1270]);
        assert_eq!(at(1441, RESERVE), Say::Nothing, "hardly more than that");
        assert_eq!(at(1442, RESERVE + RESERVE / 8), Say::Over);
        assert_eq!(at(1443, RESERVE), Say::Nothing);
        assert_eq!(at(1444, RESERVE - 1), Say::Short, "anew");
    }

    /// Who is gone for good keeps nobody from writing.
    #[test]
    fn a_member_with_a_full_disk_counts_for_as_long_as_it_says_so() {
        let space = Space::new(RESERVE, KEPT);
        let full = |node, free| Some(FullDisk { node, free });
        assert_eq!(space.full_peer(0, now()), None);
        space.heard(2, Some(KEPT - 1));
        space.heard(3, None);
        assert_eq!(space.full_peer(0, now()), full(2, KEPT - 1));
        assert_eq!(space.full_peer(0, now() + HEARD), None);
        space.heard(3, Some(KEPT + 10));
        space.heard(2, None);
        // What is on its way is written to the log, and then to the state, into pages.
        assert_eq!(space.full_peer(3, now()), None);
        assert_eq!(space.full_peer(4, now()), full(3, KEPT + 10));
        space.heard(3, None);
        assert_eq!(space.full_peer(4, now()), None);
    }

    #[test]
    fn what_is_not_flushed_yet_counts_as_taken() {
        let space = Space::new(RESERVE, KEPT);
        space.note(KEPT + 10);
        assert!(!space.is_full(3));
        assert!(space.is_full(4));
        space.unflushed(5);
        assert!(!space.is_full(0));
        assert!(space.is_full(1));
        assert_eq!(space.left(), KEPT);
    }

    #[test]
    fn limits_follow_the_room_only_on_a_short_disk() {
        let space = Space::new(RESERVE, KEPT);
        assert_eq!(space.within(48 << 20), 48 << 20, "nothing is known");
        for (free, limit) in [
            (RESERVE, 48 << 20),
            (RESERVE - 8, (8 << 20) - 1),
            (24 << 20, 3 << 20),
            (0, 1 << 20),
        ] {
            let _ = space.note(free);
            assert_eq!(space.is_short(), free < RESERVE);
            assert_eq!(space.within(48 << 20), limit, "{free}");
        }
        assert_eq!(space.within(1000), 1000, "never more than usual");
    }

    #[test]
    fn the_last_bytes_are_kept_from_what_makes_the_state_grow() {
        let space = Space::new(RESERVE, KEPT);
        assert!(!space.is_full(usize::MAX / 4), "nothing is known");
        let full = |free, on_the_way| {
            let _ = space.note(free);
            space.is_full(on_the_way)
        };
        assert!(!full(8 << 20, 0));
        assert!(full((8 << 20) - 1, 0));
        // Each byte is written to the log, and then to the state, into pages.
        assert!(!full(11 << 20, 1 << 20));
        assert!(full(11 << 20, (1 << 20) + 1));
    }
}
