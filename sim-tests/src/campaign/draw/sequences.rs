//! Sequences of events, each for one kind of mistake that independent faults seldom meet: a leader that
//! clients cannot reach, a member that is behind when everything heals, controllers that stand still
//! while others decide, a process that dies before its power does, a vote that is needed of a damaged
//! member, or that shares a sync.

use super::Drawing;
use super::templates::leader;
use crate::campaign::fault::{DiskOp, Down, Fault, Member, Moment, Scope, Who};

impl Drawing {
    /// Adds one of them in seven of ten seeds.
    pub(super) fn sequences(&mut self) {
        if self.options.over_budget || !self.draw.chance(70) {
            return;
        }
        let at = self.draw.from(0, self.options.load_ms / 2);
        match self.draw.from(0, 12) {
            // On a full disk a shard does not move, and there is no room for who is far behind.
            _ if self.options.hoard > 0 => self.leader_out_of_reach(at),
            0 | 1 => self.leader_out_of_reach(at),
            2 => self.behind_at_the_end(),
            7 | 8 => self.an_hour_without_answers(at),
            9 | 10 => self.damage_before_an_election(at),
            11 | 12 => self.votes_on_slow_disks(at),
            3 => self.controllers_stand_still(at),
            _ => self.killed_then_powerless(at),
        }
    }

    /// Clients do not reach the leader of a group, its followers do; and sometimes it goes down while it
    /// is brought what clients wrote.
    fn leader_out_of_reach(&mut self, at: u64) {
        let group = self.kv_group();
        for n in 0..3 {
            let at = at + n * 6000;
            let who = leader(group);
            let hears = self.draw.chance(30);
            self.add(at, 5500, Fault::CutFromClients { who, hears });
            if self.draw.chance(40) {
                self.reads_over_a_restart(group, at);
            }
            for _ in 0..2 {
                let at = at + self.draw.from(1500, 5000);
                match self.draw.from(0, 2) {
                    0 => self.add(at, self.options.load_ms / 20, Fault::Pause(who)),
                    1 => {
                        let how = Down::Process;
                        self.add(at, 800, Fault::Down { who, how });
                    }
                    _ => {}
                }
            }
        }
    }

    /// Followers, who are asked to read, ask their leader and start again before it has answered; its answers
    /// are late, and come twice.
    fn reads_over_a_restart(&mut self, group: u64, at: u64) {
        let late = Fault::Messages {
            scope: Scope::Members,
            drop_ppm: 0,
            duplicate_ppm: 300_000,
            delay_ppm: 300_000,
            latest_ms: 2500,
            reset_ppm: 0,
            flip_ppm: 0,
        };
        self.add(at, 5500, late);
        for n in 0..4 {
            let member = Member::Follower(n % 2);
            let who = Who { group, member };
            let how = Down::Process;
            self.add(at + 800 + n * 1100, 100, Fault::Down { who, how });
        }
    }

    /// A member comes back on a damaged disk, and then the leader goes down: the others need its vote.
    fn damage_before_an_election(&mut self, at: u64) {
        let group = self.group();
        if !self.spoil(group) {
            return;
        }
        let member = Member::Node(self.draw.from(1, self.members(group)));
        let fault = self.damage_to(Who { group, member });
        self.add(at, 2000, fault);
        for n in 0..2 {
            let at = at + 2000 + n * 4000 + self.draw.from(50, 600);
            let who = leader(group);
            let how = Down::Process;
            self.add(at, 3000, Fault::Down { who, how });
        }
    }

    /// Elections while every disk of a group is slow, so that a vote shares a sync with what was written
    /// before it; and the power of who gives one fails at once.
    fn votes_on_slow_disks(&mut self, at: u64) {
        let group = self.group();
        for node in 1..=self.members(group) {
            let member = Member::Node(node);
            let who = Who { group, member };
            self.add(at, 20_000, Fault::DiskStall { who, percent: 90 });
        }
        for n in 0..6 {
            let at = at + n * 3300;
            let (who, how) = (leader(group), Down::Process);
            self.add(at, 1500, Fault::Down { who, how });
            let fault = Fault::PowerOffWhen {
                group,
                moment: Moment::Votes,
                skip: self.draw.of(&[0, 0, 1, 2]),
            };
            self.add(at + 10, 3000, fault);
        }
    }

    /// Clients' writes are carried out and not answered, and an hour passes before they are asked for again:
    /// their sessions are gone.
    fn an_hour_without_answers(&mut self, at: u64) {
        let group = self.kv_group();
        for n in 0..3 {
            let at = at + n * 7000;
            for node in 1..=self.options.replicas {
                let member = Member::Node(node);
                let who = Who { group, member };
                let hears = true;
                self.add(at, 2000, Fault::CutFromClients { who, hears });
                let by_ms = 4_000_000;
                self.add(at + 1900, 0, Fault::ClockJump { who, by_ms });
            }
        }
    }

    /// One member of each group is down for the last third of the load, and the log is kept for it: it
    /// catches up from the leader's disk while nothing is written any more.
    fn behind_at_the_end(&mut self) {
        let options = &mut self.options;
        (options.small_limits, options.core_only) = (true, false);
        (options.patience_ms, options.kept_kib) = (60_000, 256);
        let at = options.load_ms * 2 / 3;
        let long = options.load_ms - at;
        for group in 1..=self.options.groups {
            let member = Member::Follower(0);
            let how = Down::Process;
            let who = Who { group, member };
            self.add(at, long, Fault::Down { who, how });
        }
    }

    /// The controllers' leader stands still, again and again, and the others make configurations.
    fn controllers_stand_still(&mut self, at: u64) {
        for n in 0..6 {
            let at = at + n * 5000;
            let still = self.draw.from(2500, 4000);
            self.add(at, still, Fault::Pause(leader(0)));
            for _ in 0..4 {
                let (shard, group) = (self.shard(), self.kv_group());
                let at = at + self.draw.from(0, still);
                self.add(at, 0, Fault::Move { shard, group });
            }
        }
    }

    /// A member's process dies between a write and its sync, or in a failed sync, and its power fails
    /// soon after it has started again, or inside its recovery.
    fn killed_then_powerless(&mut self, at: u64) {
        let group = self.group();
        let member = Member::Node(self.draw.from(1, self.members(group)));
        let who = Who { group, member };
        self.add(at, 25_000, Fault::DiskStall { who, percent: 90 });
        for n in 0..8 {
            let at = at + n * 3000 + self.draw.from(0, 1500);
            let fault = match self.draw.chance(60) {
                true => Fault::Down {
                    who,
                    how: Down::Process,
                },
                false => Fault::DiskError {
                    who,
                    op: DiskOp::Sync,
                    nth: self.draw.from(1, 3),
                },
            };
            self.add(at, 200, fault);
            let fault = match self.draw.chance(50) {
                true => Fault::PowerOffWhen {
                    group,
                    moment: Moment::Starts,
                    skip: 0,
                },
                false => Fault::PowerOffInside {
                    who,
                    nth: self.draw.from(1, 16),
                },
            };
            self.add(at + 50, 1200, fault);
        }
    }
}
