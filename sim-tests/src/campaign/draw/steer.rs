//! Towards what drawn faults seldom meet: disks that clients fill, callers that give up, a group that
//! needs nothing of a dead one, controllers on two sides, notices that are late by several moves.

use super::Drawing;
use super::templates::leader;
use crate::campaign::fault::{Down, Fault, Member, Scope, Who};

/// Longest value whose cluster fits on a small disk, bytes of padding.
const SMALL: usize = 500;

impl Drawing {
    /// Changes options, and adds the events of one order in six of ten seeds.
    pub(super) fn steer(&mut self) {
        self.options.hasty = self.draw.of(&[0, 0, 1, 4]);
        self.options.uncommitted_kib = self.draw.of(&[0, 0, 0, 8, 64]);
        let plain = self.options.spared == 0 && !self.options.over_budget;
        if self.options.padding <= SMALL && plain && self.draw.chance(35) {
            self.fill_disks();
        } else if self.options.groups > 1 && self.options.spared == 0 && self.draw.chance(15) {
            let spared = self.draw.from(1, self.options.joined);
            let shards = u64::from(self.options.shards).max(self.options.joined);
            (self.options.spared, self.options.shards) = (spared, shards as u32);
        }
        if !self.draw.chance(60) {
            return;
        }
        let at = self.draw.from(0, self.options.load_ms / 2);
        let moves = self.options.hoard == 0;
        match self.draw.from(0, 5) {
            _ if !moves => self.dead_follower(at),
            0 | 1 => self.dead_group(at),
            2 => self.controllers_on_two_sides(at),
            3 | 4 => self.late_notices(at),
            _ => self.dead_follower(at),
        }
    }

    /// A client fills the disks, and servers restart meanwhile.
    fn fill_disks(&mut self) {
        let options = &mut self.options;
        // Who is far behind is sent the whole state, and on a full disk there is no room for a copy of it:
        // the others have to be there, and able to do without that one. And of a shard that is to move
        // where there is no room for all of it nothing can be deleted.
        options.core_only = false;
        let apart = ["damage", "shards"];
        self.events.retain(|e| !apart.contains(&e.fault.family()));
        options.hoard = self.draw.of(&[600, 4000, 16_000]);
        options.uneven_disks = self.draw.chance(40);
        options.disk_kib = match options.uneven_disks {
            true => 9 << 10,
            false => self.draw.of(&[6 << 10, 9 << 10]),
        };
        if self.draw.chance(50) {
            let every = self.draw.from(2000, 8000);
            for n in 1..options.load_ms / every {
                let group = self.draw.from(0, self.options.groups);
                let fault = match self.draw.chance(50) {
                    true => Fault::PowerCut,
                    false => Fault::Rolling { group },
                };
                self.add(n * every, 600, fault);
            }
        }
    }

    /// All members of a group are down, and its shards are given to another one, which goes on serving
    /// its own.
    fn dead_group(&mut self, at: u64) {
        let group = self.kv_group();
        let to = match self.options.spared {
            0 => self.kv_group(),
            spared => spared,
        };
        let long = self.draw.from(6000, 15_000);
        for node in 1..=self.options.replicas {
            let member = Member::Node(node);
            let who = Who { group, member };
            let how = Down::Process;
            self.add(at, long, Fault::Down { who, how });
        }
        for shard in 0..self.options.shards {
            let at = at + 300 + 400 * u64::from(shard);
            self.add(at, 0, Fault::Move { shard, group: to });
        }
    }

    /// Each controller in turn does not hear the others, while clients hear all of them and
    /// configurations are made.
    fn controllers_on_two_sides(&mut self, at: u64) {
        let each = 5000;
        for node in 0..self.options.ctrlers {
            let side = 1 << node;
            self.add(
                at + node * each,
                each - 500,
                Fault::Split { group: 0, side },
            );
        }
        for n in 0..20 {
            let (shard, group) = (self.shard(), self.kv_group());
            let at = at + n * self.options.ctrlers * each / 20;
            self.add(at, 0, Fault::Move { shard, group });
        }
    }

    /// One shard is given on again and again, and what the groups tell each other of it is lost,
    /// repeated, and late by several moves.
    fn late_notices(&mut self, at: u64) {
        let long = 20_000;
        let (a, b, shard) = (self.kv_group(), self.kv_group(), self.shard());
        let every_ms = self.draw.of(&[300, 800, 2000]);
        let restless = Fault::BackAndForth {
            shard,
            a,
            b,
            every_ms,
        };
        self.add(at, long, restless);
        let late = Fault::Messages {
            scope: Scope::Groups,
            drop_ppm: self.draw.of(&[0, 100_000]),
            duplicate_ppm: 400_000,
            delay_ppm: 300_000,
            latest_ms: self.draw.of(&[1000, 3000, 6000]),
            reset_ppm: 0,
            flip_ppm: 0,
        };
        self.add(at, long, late);
        for n in 0..4 {
            let who = leader(self.draw.of(&[a, b]));
            let from = at + n * 5000 + self.draw.from(0, 3000);
            self.add(
                from,
                200,
                Fault::Down {
                    who,
                    how: Down::Process,
                },
            );
        }
    }

    /// One member is down for good, another acknowledges a part of what the leader has and dies with
    /// it: the entries that are left have to be committed by leaders of later terms.
    fn dead_follower(&mut self, at: u64) {
        self.options.append_bytes = 64;
        let group = self.group();
        let node = self.draw.from(1, self.members(group));
        let who = Who {
            group,
            member: Member::Node(node),
        };
        let long = self.options.load_ms.saturating_sub(at);
        let how = Down::Process;
        self.add(at, long, Fault::Down { who, how });
        for n in 0..6 {
            let by_ms = self.draw.from(100, 600);
            let (a, b) = (node % 3 + 1, (node + 1) % 3 + 1);
            let from = at + 500 + n * 2500;
            self.add(from, 800, Fault::SlowLink { group, a, b, by_ms });
            let who = leader(group);
            let from = from + self.draw.from(300, 900);
            self.add(from, 900, Fault::Down { who, how });
        }
    }
}
