//! What the log and the state have on disk when the power fails, or the disk does.

use super::{Drawing, leader};
use crate::campaign::fault::{Down, Fault, Moment, Part};

impl Drawing {
    /// Torn tails one upon the other: power fails inside one write of the log after another, in the
    /// same machine, and each restart appends behind what the last one left.
    pub(super) fn torn_tails(&mut self, at: u64, group: u64) {
        self.options.garbage_percent = 50;
        let who = self.one_of(group);
        for n in 0..12 {
            let nth = self.draw.from(1, 3);
            self.add(at + n * 1500, 1400, Fault::PowerOffInside { who, nth });
        }
    }

    /// The disk is full in the middle of an append, and the power fails.
    pub(super) fn full_log(&mut self, at: u64, group: u64) {
        // Nothing but the log grows.
        self.options.small_limits = false;
        self.options.padding = self.options.padding.clamp(500, 4000);
        self.options.pause_ms = 40;
        let who = self.one_of(group);
        for n in 0..5 {
            let from = at + n * 3000;
            let left = self.draw.from(0, 6000);
            self.add(from, 1500, Fault::DiskFull { who, left });
            let off = from + self.draw.from(500, 1400);
            let how = self.draw.of(&[Down::Power, Down::Process]);
            self.add(off, 300, Fault::Down { who, how });
        }
    }

    /// A leader that nobody hears hears its successor while its own entries still wait for a slow
    /// disk: what is replaced and what replaces it reach the log in one batch. Then the power fails.
    /// (Many clients with long pauses: it is asked for something new until its successor speaks.)
    pub(super) fn replaced_under_way(&mut self, at: u64, group: u64) {
        self.options.clients = 10;
        (self.options.depth, self.options.pause_ms) = (1, 1500);
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
            let off = Fault::PowerOffWhen {
                group,
                moment: Moment::Compacts,
                skip: self.draw.from(0, 3),
            };
            self.add(at + n * 3000, 2900, off);
        }
        let how = self.draw.of(&[Down::Power, Down::Process]);
        let who = leader(group);
        self.add(at + 9000, 500, Fault::Down { who, how });
    }

    /// A member loses its state and keeps a log that begins behind it: the snapshot it gets is older
    /// than its log's end.
    pub(super) fn snapshot_behind_the_log(&mut self, at: u64, group: u64) {
        if !self.spoil(group) {
            return;
        }
        self.options.small_limits = true;
        let lost = Fault::LostFile {
            who: self.one_of(group),
            part: Part::State,
            at: self.draw.next(),
            empty: self.draw.chance(50),
        };
        self.add(at, 200, lost);
    }
}
