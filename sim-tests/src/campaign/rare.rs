//! More orders that chance rarely lines up, each for one kind of mistake.

use super::draw::{Drawing, MOST_PIPELINED};
use super::fault::{Down, Fault, Member, Moment, Scope, Who};

fn leader(group: u64) -> Who {
    Who {
        group,
        member: Member::Leader,
    }
}

impl Drawing {
    /// Votes that reach their candidate when it stands in a later term: a voter sleeps between its
    /// vote and the reply, while the old leader is cut off again and again.
    pub(super) fn late_votes(&mut self, at: u64, group: u64) {
        for n in 0..8 {
            let from = at + n * 2500;
            let away = self.draw.from(900, 2000);
            self.add(from, away, Fault::Isolate(leader(group)));
            let still_ms = self.draw.from(400, 2000);
            let sleeps = Fault::PauseWhen {
                group,
                moment: Moment::Votes,
                skip: self.draw.of(&[0, 0, 1]),
                still_ms,
            };
            self.add(from, 2400, sleeps);
        }
    }

    /// Acknowledgements that arrive when their receiver leads again, in a later term, and the sender
    /// no longer has what they speak of.
    pub(super) fn late_acknowledgements(&mut self, at: u64, group: u64) {
        self.options.pause_ms = 40;
        let late = Fault::Messages {
            scope: Scope::Members,
            drop_ppm: 0,
            duplicate_ppm: 300_000,
            delay_ppm: 300_000,
            latest_ms: 6000,
            reset_ppm: 0,
            flip_ppm: 0,
        };
        self.add(at, 20_000, late);
        for n in 0..8 {
            let from = at + n * 2500;
            let away = self.draw.from(900, 2000);
            match self.draw.chance(50) {
                true => self.add(from, away, Fault::Isolate(leader(group))),
                false => {
                    let side = self.draw.from(1, (1 << self.members(group)) - 2);
                    self.add(from, away, Fault::Split { group, side });
                }
            }
        }
    }

    /// Torn tails one upon the other: power fails inside one write of the log after another, in the
    /// same machine, and each restart appends behind what the last one left.
    pub(super) fn torn_tails(&mut self, at: u64, group: u64) {
        self.options.garbage_percent = 50;
        let who = Who {
            group,
            member: Member::Node(self.draw.from(1, self.members(group))),
        };
        for n in 0..12 {
            let nth = self.draw.from(1, 3);
            self.add(at + n * 1500, 1400, Fault::PowerOffInside { who, nth });
        }
    }

    /// A leader that nobody hears hears its successor while its own entries still wait for a slow
    /// disk: what is replaced and what replaces it reach the log in one batch. Then the power fails.
    pub(super) fn replaced_under_way(&mut self, at: u64, group: u64) {
        self.options.clients = self.options.clients.min(MOST_PIPELINED);
        (self.options.depth, self.options.pause_ms) = (3, 40);
        for n in 0..4 {
            let from = at + n * 5000;
            let who = leader(group);
            self.add(from, 2500, Fault::OneWay { who, hears: true });
            self.add(from, 3000, Fault::DiskStall { who, percent: 90 });
            let cut = from + self.draw.from(1500, 3000);
            self.add(cut, 300, Fault::PowerCut);
        }
    }

    /// A busy group is flushed, cuts its log and loses its power, over and over: what a restart
    /// finds is the state of the last flush and the log behind it.
    pub(super) fn power_after_cuts(&mut self, at: u64, group: u64) {
        self.options.small_limits = true;
        self.options.padding = self.options.padding.max(500);
        self.options.pause_ms = 40;
        for n in 0..6 {
            let skip = self.draw.from(0, 3);
            let moment = Moment::Compacts;
            let off = Fault::PowerOffWhen {
                group,
                moment,
                skip,
            };
            self.add(at + n * 3000, 2900, off);
        }
        let how = self.draw.of(&[Down::Power, Down::Process]);
        let who = leader(group);
        self.add(at + 9000, 500, Fault::Down { who, how });
    }
}
