//! Shards on their way.

use super::{Drawing, leader};
use crate::campaign::fault::{Down, Fault, Moment, Scope};

impl Drawing {
    /// Two groups, and a shard that goes back and forth between them for so long (ms).
    fn restless(&mut self, at: u64, long: u64) -> (u64, u64) {
        let (a, b) = (self.kv_group(), self.kv_group());
        let (shard, every_ms) = (self.shard(), self.draw.from(20, 600));
        let restless = Fault::BackAndForth {
            shard,
            a,
            b,
            every_ms,
        };
        self.add(at, long, restless);
        (a, b)
    }

    /// A shard goes back and forth while its old and new owners lose their leaders.
    pub(super) fn back_and_forth(&mut self, at: u64, _group: u64) {
        let (a, b) = self.restless(at, 5000);
        for (group, most) in [(a, 3), (b, 4)] {
            let off = Fault::PowerOffWhen {
                group,
                moment: Moment::Shard,
                skip: self.draw.from(0, most),
            };
            self.add(at, 5000, off);
        }
        let late = Fault::Messages {
            scope: Scope::Groups,
            drop_ppm: 100_000,
            duplicate_ppm: 200_000,
            delay_ppm: 300_000,
            latest_ms: 3000,
            reset_ppm: 0,
            flip_ppm: 0,
        };
        self.add(at, 8000, late);
    }

    /// Commands of movers that were deposed are in the logs when their successors begin, and not
    /// committed for a while: members hear each other late, other groups in time.
    pub(super) fn deposed_movers(&mut self, at: u64, _group: u64) {
        let long = 15_000;
        let (a, b) = self.restless(at, long);
        for group in [a, b] {
            let by_ms = self.draw.from(50, 250);
            for (a, b) in [(1, 2), (2, 3), (1, 3)] {
                self.add(at, long, Fault::SlowLink { group, a, b, by_ms });
            }
        }
        for n in 0..6 {
            let who = leader(self.draw.of(&[a, b]));
            let how = Down::Process;
            self.add(at + n * 2500, 300, Fault::Down { who, how });
        }
    }

    /// Everybody leaves, and all come back at once, with a power cut between.
    pub(super) fn all_leave(&mut self, at: u64, _group: u64) {
        let groups: Vec<u64> = (1..=self.options.groups).collect();
        let shutdown = false;
        self.add(at + 3000, 0, Fault::Join(groups.clone()));
        self.add(at, 0, Fault::Leave { groups, shutdown });
        self.add(at + 1500, 500, Fault::PowerCut);
    }

    /// An hour passes at once, while clients have writes under way.
    pub(super) fn an_hour_at_once(&mut self, at: u64, _group: u64) {
        self.pipelined();
        for n in 0..3 {
            let who = leader(self.kv_group());
            let by_ms = 4_000_000;
            self.add(at + n * 3000, 0, Fault::ClockJump { who, by_ms });
        }
    }
}
