//! Independent faults: of each family that is on, so many in so many seconds, each on its own.

use super::Drawing;
use crate::campaign::fault::{DiskOp, Down, FAMILIES, Fault, Member, Moment, Part, Scope, Who};

impl Drawing {
    fn on(&self, family: &str) -> bool {
        self.options.families.iter().any(|f| f == family)
    }

    fn who(&mut self) -> Who {
        let group = self.group();
        let member = match self.draw.from(0, 3) {
            0 | 1 => Member::Leader,
            2 => Member::Follower(self.draw.from(0, 1)),
            _ => Member::Node(self.draw.from(1, self.members(group))),
        };
        Who { group, member }
    }

    /// Events of each family that is on, each on its own.
    pub(super) fn independent(&mut self) {
        for family in FAMILIES {
            if !self.on(family) {
                continue;
            }
            // One event per so many seconds.
            let every = self.draw.from(2, 10);
            let count = (self.options.load_ms / 1000 / every).max(1);
            for _ in 0..count {
                let (for_ms, fault) = match *family {
                    "partition" => self.partition(),
                    "messages" => self.messages(),
                    "process" => self.process(),
                    "moment" => self.moment(),
                    "damage" => match self.damage() {
                        Some(drawn) => drawn,
                        None => continue,
                    },
                    "disk" => self.disk(),
                    "clock" => self.clock(),
                    _ => self.shards(),
                };
                let at_ms = self.at();
                self.add(at_ms, for_ms, fault);
            }
        }
    }

    fn partition(&mut self) -> (u64, Fault) {
        let long = self.draw.of(&[300, 1000, 3000, 8000]);
        let for_ms = self.draw.from(long / 3, long);
        let group = self.group();
        let count = self.members(group);
        let a = self.draw.from(1, count);
        let b = 1 + a % count;
        let all = self.options.ctrlers + self.options.groups * self.options.replicas;
        let fault = match self.draw.from(0, 9) {
            0 | 1 => Fault::Isolate(self.who()),
            2 | 3 => Fault::OneWay {
                who: self.who(),
                hears: self.draw.chance(50),
            },
            4 => Fault::Split {
                group,
                side: self.draw.from(1, (1 << count) - 2),
            },
            5 => Fault::SplitAll {
                side: self.draw.from(1, (1 << all) - 2),
            },
            6 => Fault::Bridge { group, a, b },
            7 => Fault::Ring { group },
            8 => Fault::Flap {
                who: self.who(),
                every_ms: self.draw.from(200, 1200),
            },
            _ => Fault::Swizzle {
                group,
                every_ms: self.draw.from(50, 800),
            },
        };
        (for_ms, fault)
    }

    fn messages(&mut self) -> (u64, Fault) {
        let for_ms = self.draw.from(500, 15_000);
        let group = self.group();
        let count = self.members(group);
        let a = self.draw.from(1, count);
        let fault = match self.draw.from(0, 7) {
            0..=3 => Fault::Messages {
                scope: self
                    .draw
                    .of(&[Scope::All, Scope::Members, Scope::Groups, Scope::Clients]),
                drop_ppm: self.draw.of(&[0, 10_000, 100_000, 300_000]),
                duplicate_ppm: self.draw.of(&[0, 50_000, 200_000]),
                delay_ppm: self.draw.of(&[0, 100_000, 300_000]),
                latest_ms: self.draw.of(&[20, 300, 2500, 6000]),
                reset_ppm: self.draw.of(&[0, 2000, 20_000]),
                flip_ppm: self.draw.of(&[0, 0, 1000]),
            },
            4 => Fault::SlowLink {
                group,
                a,
                b: 1 + a % count,
                by_ms: self.draw.from(50, 700),
            },
            5 => Fault::Latency {
                most_ms: self.draw.from(20, 400),
            },
            _ => Fault::HalfOpen(self.who()),
        };
        (for_ms, fault)
    }

    fn down(&mut self) -> Down {
        self.draw
            .of(&[Down::Power, Down::Power, Down::Process, Down::Graceful])
    }

    fn process(&mut self) -> (u64, Fault) {
        let for_ms = self.draw.from(100, 6000);
        let fault = match self.draw.from(0, 10) {
            10 => Fault::Stutter {
                who: self.who(),
                still_ms: self.draw.from(10, 250),
                goes_ms: self.draw.from(1, 60),
            },
            0..=3 => Fault::Down {
                who: self.who(),
                how: self.down(),
            },
            4 => Fault::PowerCut,
            5 | 6 => Fault::Pause(self.who()),
            7 => Fault::CrashLoop {
                who: self.who(),
                times: self.draw.from(2, 6),
            },
            _ => Fault::Rolling {
                group: self.group(),
            },
        };
        (for_ms, fault)
    }

    fn moment(&mut self) -> (u64, Fault) {
        const MOMENTS: &[Moment] = &[
            Moment::Leads,
            Moment::Stands,
            Moment::Votes,
            Moment::Writes,
            Moment::Synced,
            Moment::Acknowledges,
            Moment::Commits,
            Moment::Shard,
            Moment::Shard,
            Moment::Installs,
            Moment::Compacts,
            Moment::Starts,
        ];
        let fault = match self.draw.from(0, 7) {
            0..=2 => Fault::PowerOffWhen {
                group: self.group(),
                moment: self.draw.of(MOMENTS),
                skip: self.draw.of(&[0, 0, 1, 2, 5]),
            },
            3 | 4 => Fault::PauseWhen {
                group: self.group(),
                moment: self.draw.of(MOMENTS),
                skip: self.draw.of(&[0, 0, 1, 2, 5]),
                still_ms: self.draw.of(&[100, 900, 2500, 5000]),
            },
            5 => Fault::PowerOffInside {
                who: self.who(),
                nth: self.draw.from(1, 40),
            },
            6 => Fault::PowerOffInsideWhen {
                group: self.group(),
                moment: self.draw.of(&[
                    Moment::Resets,
                    Moment::Resets,
                    Moment::Installs,
                    Moment::Compacts,
                    Moment::Starts,
                    Moment::Votes,
                    Moment::Writes,
                ]),
                skip: self.draw.of(&[0, 0, 1, 2, 5]),
                nth: self.draw.from(1, 20),
            },
            _ => Fault::LeaderChain {
                group: self.group(),
                back_ms: self.draw.from(200, 4000),
            },
        };
        (self.draw.from(2000, 8000), fault)
    }

    /// Damage to one member of a group, once in a run.
    fn damage(&mut self) -> Option<(u64, Fault)> {
        let mut who = self.who();
        // A fixed member: "the leader" could be another one by then.
        who.member = Member::Node(self.draw.from(1, self.members(who.group)));
        let fault = self.damage_to(who);
        let for_ms = self.draw.from(100, 5000);
        self.spoil(who.group).then_some((for_ms, fault))
    }

    pub(super) fn damage_to(&mut self, who: Who) -> Fault {
        let (part, at) = (
            self.draw
                .of(&[Part::Log, Part::Log, Part::State, Part::Any]),
            self.draw.next(),
        );
        match self.draw.from(0, 7) {
            0 => Fault::EmptyDisk(who),
            1 => Fault::OldDisk(who),
            2..=4 => Fault::Rot { who, part, at },
            5 => Fault::LostFile {
                who,
                part,
                at,
                empty: self.draw.chance(50),
            },
            _ => Fault::WrongBlock {
                who,
                part,
                at,
                stale: self.draw.chance(50),
            },
        }
    }

    fn disk(&mut self) -> (u64, Fault) {
        let who = self.who();
        let fault = match self.draw.from(0, 5) {
            0..=2 => Fault::DiskError {
                who,
                op: self.draw.of(&[
                    DiskOp::Read,
                    DiskOp::Write,
                    DiskOp::Sync,
                    DiskOp::Sync,
                    DiskOp::Name,
                ]),
                nth: self.draw.from(1, 30),
            },
            3 => Fault::DiskFull {
                who,
                left: self.draw.from(0, 64 << 10),
            },
            _ => Fault::DiskStall {
                who,
                percent: self.draw.of(&[5, 30, 90]),
            },
        };
        (self.draw.from(500, 6000), fault)
    }

    fn clock(&mut self) -> (u64, Fault) {
        let who = self.who();
        if self.draw.chance(30) {
            let by_ms = self.draw.of(&[200, 5000, 100_000, 4_000_000]);
            return (0, Fault::ClockJump { who, by_ms });
        }
        let ppm = self.draw.of(&[-300_000, -50_000, 50_000, 300_000]);
        (self.draw.from(3000, 30_000), Fault::ClockRate { who, ppm })
    }

    fn shards(&mut self) -> (u64, Fault) {
        let (a, b) = (self.kv_group(), self.kv_group());
        let fault = match self.draw.from(0, 9) {
            0..=3 => Fault::Move {
                shard: self.shard(),
                group: a,
            },
            4 | 5 => Fault::Join(self.some_groups()),
            6 | 7 => Fault::Leave {
                groups: self.some_groups(),
                shutdown: self.draw.chance(30),
            },
            _ => {
                let (shard, every_ms) = (self.shard(), self.draw.from(20, 1500));
                return (
                    self.draw.from(1000, 6000),
                    Fault::BackAndForth {
                        shard,
                        a,
                        b,
                        every_ms,
                    },
                );
            }
        };
        (0, fault)
    }

    fn some_groups(&mut self) -> Vec<u64> {
        let set = self.draw.from(1, (1 << self.options.groups) - 1);
        (1..=self.options.groups)
            .filter(|g| set >> (g - 1) & 1 == 1)
            .collect()
    }
}
