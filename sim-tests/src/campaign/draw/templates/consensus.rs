//! Elections, votes and acknowledgements.

use super::{Drawing, follower, leader, rough};
use crate::campaign::fault::{Down, Fault, Moment, Scope};

impl Drawing {
    /// Leaders die one after the other, each with an entry that few have, on a network so slow that
    /// a leader's own disk is faster than any follower (figure 8 of the paper).
    pub(super) fn figure_8(&mut self, at: u64, group: u64) {
        self.options.latency_ms = (5, 60);
        self.options.disk_us = (50, 500);
        self.options.append_bytes = 64;
        let long = self.draw.from(10_000, 20_000);
        for group in [group, self.group()] {
            let back_ms = self.draw.from(100, 2500);
            self.add(at, long, Fault::LeaderChain { group, back_ms });
        }
    }

    /// A leader is cut off while it has un-replicated entries, and comes back after its successor
    /// was elected and died in turn.
    pub(super) fn returns_after_its_successor(&mut self, at: u64, group: u64) {
        let who = leader(group);
        self.add(at, 4000, Fault::Isolate(who));
        let how = Down::Power;
        self.add(at + 2500, 3000, Fault::Down { who, how });
        self.add(at + 3800, 1000, power_off_when(group, Moment::Leads));
    }

    /// A restart between a vote and its reply, twice.
    pub(super) fn restart_around_a_vote(&mut self, at: u64, group: u64) {
        let who = leader(group);
        self.add(at, 300, Fault::Pause(who));
        let how = Down::Process;
        self.add(at, 5000, Fault::Down { who, how });
        self.add(at, 5000, power_off_when(group, Moment::Votes));
        self.add(at + 10, 5000, power_off_when(group, Moment::Stands));
    }

    /// Reads in the first moments after an election, while the old leader still thinks it leads.
    pub(super) fn reads_after_an_election(&mut self, at: u64, group: u64) {
        let who = leader(group);
        self.add(at, 3000, Fault::OneWay { who, hears: true });
        self.add(at + 1500, 3000, Fault::OneWay { who, hears: false });
    }

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

    /// One member has the newer log, another the higher term, and a third stays away for ever: a
    /// leader is cut off with entries of its own, and the others stand in term after term, since
    /// most of what they say to each other is lost (etcd #8501).
    pub(super) fn newer_log_and_higher_term(&mut self, _at: u64, group: u64) {
        self.pipelined();
        (self.options.core_only, self.options.broken_leader) = (true, false);
        let (long, who) = (9000, leader(group));
        let at = self.options.load_ms - long;
        self.add(at, 200, Fault::OneWay { who, hears: true });
        self.add(at + 150, long - 150, Fault::Isolate(who));
        let lossy = Fault::Messages {
            scope: Scope::Members,
            drop_ppm: 650_000,
            duplicate_ppm: 0,
            delay_ppm: 0,
            latest_ms: 0,
            reset_ppm: 0,
            flip_ppm: 0,
        };
        self.add(at + 500, long - 500, lossy);
    }

    /// A leader is cut off with a long tail that nobody else has, while the others commit a few
    /// entries and cut their logs: the snapshot it gets ends inside its own log.
    pub(super) fn long_tail(&mut self, at: u64, group: u64) {
        self.options.small_limits = true;
        self.options.padding = self.options.padding.max(4000);
        self.pipelined();
        for n in 0..4 {
            let long = self.draw.from(1300, 3000);
            self.add(at + n * 6000, long, Fault::Isolate(leader(group)));
        }
    }

    /// The same follower sleeps and wakes again and again: transfers are overtaken, replaced,
    /// resumed.
    pub(super) fn overtaken_transfers(&mut self, at: u64, group: u64) {
        self.options.small_limits = true;
        let (mut from, end) = (at, at + 15_000);
        while from < end {
            let long = self.draw.from(300, 3000);
            self.add(from, long, Fault::Isolate(follower(group)));
            from += long + self.draw.from(50, 1500);
        }
        self.add(at, 15_000, rough(Scope::Members));
    }

    /// A follower sleeps until the log it needs is cut, and gets a snapshot over a bad network.
    pub(super) fn snapshot_over_a_bad_network(&mut self, at: u64, group: u64) {
        let (who, how) = (follower(group), Down::Power);
        self.add(at, 8000, Fault::Down { who, how });
        self.add(at + 8000, 6000, rough(Scope::Members));
        let power = Fault::PowerOffInsideWhen {
            group,
            moment: Moment::Resets,
            skip: 0,
            nth: self.draw.from(1, 20),
        };
        self.add(at + 8000, 6000, power);
    }
}

fn power_off_when(group: u64, moment: Moment) -> Fault {
    let skip = 0;
    Fault::PowerOffWhen {
        group,
        moment,
        skip,
    }
}
