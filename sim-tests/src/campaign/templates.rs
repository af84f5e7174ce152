//! Orders of events that chance rarely lines up, and damage beyond what a group can stand.

use super::draw::{Drawing, MOST_PIPELINED};
use super::fault::{Down, Fault, Member, Moment, Part, Scope, Who};

impl Drawing {
    /// Rare orders.
    pub(super) fn templates(&mut self) {
        if !self.draw.chance(60) {
            return;
        }
        let at = self.at();
        let group = self.group();
        let leader = Who {
            group,
            member: Member::Leader,
        };
        match self.draw.from(0, 18) {
            // Figure 8: leaders die one after the other, each with an entry that few have, on a
            // network so slow that its own disk is faster than any follower.
            0 | 1 => {
                self.options.latency_ms = (5, 60);
                self.options.disk_us = (50, 500);
                self.options.append_bytes = 64;
                let long = self.draw.from(10_000, 20_000);
                for group in [group, self.group()] {
                    let back_ms = self.draw.from(100, 2500);
                    self.add(at, long, Fault::LeaderChain { group, back_ms });
                }
            }
            // A leader is cut off while it has un-replicated entries, and comes back after its
            // successor was elected and died in turn.
            2 => {
                self.add(at, 4000, Fault::Isolate(leader));
                self.add(
                    at + 2500,
                    3000,
                    Fault::Down {
                        who: leader,
                        how: Down::Power,
                    },
                );
                self.add(
                    at + 3800,
                    1000,
                    Fault::PowerOffWhen {
                        group,
                        moment: Moment::Leads,
                        skip: 0,
                    },
                );
            }
            // A restart between a vote and its reply, twice.
            3 => {
                self.add(at, 300, Fault::Pause(leader));
                self.add(
                    at,
                    5000,
                    Fault::Down {
                        who: leader,
                        how: Down::Process,
                    },
                );
                self.add(
                    at,
                    5000,
                    Fault::PowerOffWhen {
                        group,
                        moment: Moment::Votes,
                        skip: 0,
                    },
                );
                self.add(
                    at + 10,
                    5000,
                    Fault::PowerOffWhen {
                        group,
                        moment: Moment::Stands,
                        skip: 0,
                    },
                );
            }
            // Reads in the first moments after an election, while the old leader still thinks it leads.
            4 => {
                self.add(
                    at,
                    3000,
                    Fault::OneWay {
                        who: leader,
                        hears: true,
                    },
                );
                self.add(
                    at + 1500,
                    3000,
                    Fault::OneWay {
                        who: leader,
                        hears: false,
                    },
                );
            }
            // A shard goes back and forth while its old and new owners lose their leaders.
            5 => {
                let (a, b) = (self.kv_group(), self.kv_group());
                let (shard, every_ms) = (self.shard(), self.draw.from(20, 600));
                let (skip_a, skip_b) = (self.draw.from(0, 3), self.draw.from(0, 4));
                self.add(
                    at,
                    5000,
                    Fault::BackAndForth {
                        shard,
                        a,
                        b,
                        every_ms,
                    },
                );
                self.add(
                    at,
                    5000,
                    Fault::PowerOffWhen {
                        group: a,
                        moment: Moment::Shard,
                        skip: skip_a,
                    },
                );
                self.add(
                    at,
                    5000,
                    Fault::PowerOffWhen {
                        group: b,
                        moment: Moment::Shard,
                        skip: skip_b,
                    },
                );
                self.add(at, 8000, late_between_groups());
            }
            // Everybody leaves, and all come back at once, with a power cut between.
            6 => {
                let all: Vec<u64> = (1..=self.options.groups).collect();
                self.add(
                    at,
                    0,
                    Fault::Leave {
                        groups: all.clone(),
                        shutdown: false,
                    },
                );
                self.add(at + 1500, 500, Fault::PowerCut);
                self.add(at + 3000, 0, Fault::Join(all));
            }
            // A leader is cut off with a long tail that nobody else has, while the others commit a few
            // entries and cut their logs: the snapshot it gets ends inside its own log.
            7 => {
                self.options.small_limits = true;
                self.options.padding = self.options.padding.max(4000);
                self.pipelined();
                for n in 0..4 {
                    let long = self.draw.from(1300, 3000);
                    self.add(at + n * 6000, long, Fault::Isolate(leader));
                }
            }
            // A member loses its state and keeps a log that begins behind it: the snapshot it gets is
            // older than its log's end.
            8 if self.spoil(group) => {
                self.options.small_limits = true;
                let who = Who {
                    group,
                    member: Member::Node(self.draw.from(1, self.members(group))),
                };
                let lost = Fault::LostFile {
                    who,
                    part: Part::State,
                    at: self.draw.next(),
                    empty: self.draw.chance(50),
                };
                self.add(at, 200, lost);
            }
            // The same follower sleeps and wakes again and again: transfers are overtaken, replaced,
            // resumed.
            9 => {
                self.options.small_limits = true;
                let who = Who {
                    group,
                    member: Member::Follower(0),
                };
                let (mut from, end) = (at, at + 15_000);
                while from < end {
                    let long = self.draw.from(300, 3000);
                    self.add(from, long, Fault::Isolate(who));
                    from += long + self.draw.from(50, 1500);
                }
                self.add(at, 15_000, rough(Scope::Members));
            }
            // Commands of movers that were deposed are in the logs when their successors begin, and
            // not committed for a while: members hear each other late, other groups in time.
            10 => {
                let (a, b) = (self.kv_group(), self.kv_group());
                let (shard, every_ms) = (self.shard(), self.draw.from(20, 600));
                let long = 15_000;
                for group in [a, b] {
                    let by_ms = self.draw.from(50, 250);
                    for (a, b) in [(1, 2), (2, 3), (1, 3)] {
                        self.add(at, long, Fault::SlowLink { group, a, b, by_ms });
                    }
                }
                self.add(
                    at,
                    long,
                    Fault::BackAndForth {
                        shard,
                        a,
                        b,
                        every_ms,
                    },
                );
                for n in 0..6 {
                    let who = Who {
                        group: self.draw.of(&[a, b]),
                        member: Member::Leader,
                    };
                    let how = Down::Process;
                    self.add(at + n * 2500, 300, Fault::Down { who, how });
                }
            }
            // An hour passes at once, while clients have writes under way.
            11 => {
                self.pipelined();
                for n in 0..3 {
                    let who = Who {
                        group: self.kv_group(),
                        member: Member::Leader,
                    };
                    let by_ms = 4_000_000;
                    self.add(at + n * 3000, 0, Fault::ClockJump { who, by_ms });
                }
            }
            14 => self.late_votes(at, group),
            15 => self.late_acknowledgements(at, group),
            16 => self.torn_tails(at, group),
            17 => self.replaced_under_way(at, group),
            18 => self.power_after_cuts(at, group),
            // A follower sleeps until the log it needs is cut, and gets a snapshot over a bad network.
            _ => {
                let who = Who {
                    group,
                    member: Member::Follower(0),
                };
                self.add(
                    at,
                    8000,
                    Fault::Down {
                        who,
                        how: Down::Power,
                    },
                );
                self.add(at + 8000, 6000, rough(Scope::Members));
                let nth = self.draw.from(1, 20);
                self.add(
                    at + 8000,
                    6000,
                    Fault::PowerOffInsideWhen {
                        group,
                        moment: Moment::Resets,
                        skip: 0,
                        nth,
                    },
                );
            }
        }
    }

    /// Clients with several operations under way, and few of them, or no checker keeps up.
    fn pipelined(&mut self) {
        self.options.clients = self.options.clients.min(MOST_PIPELINED);
        (self.options.depth, self.options.pause_ms) = (3, 40);
    }

    /// Damage to a majority of one group.
    pub(super) fn beyond(&mut self) {
        let group = self.group();
        for node in 1..=self.members(group) {
            let at_ms = self.at();
            let who = Who {
                group,
                member: Member::Node(node),
            };
            let fault = match self.draw.chance(50) {
                true => Fault::EmptyDisk(who),
                false => Fault::Rot {
                    who,
                    part: Part::Log,
                    at: self.draw.next(),
                },
            };
            let for_ms = self.draw.from(100, 2000);
            self.add(at_ms, for_ms, fault);
        }
    }
}

fn late_between_groups() -> Fault {
    Fault::Messages {
        scope: Scope::Groups,
        drop_ppm: 100_000,
        duplicate_ppm: 200_000,
        delay_ppm: 300_000,
        latest_ms: 3000,
        reset_ppm: 0,
        flip_ppm: 0,
    }
}

fn rough(scope: Scope) -> Fault {
    Fault::Messages {
        scope,
        drop_ppm: 100_000,
        duplicate_ppm: 100_000,
        delay_ppm: 200_000,
        latest_ms: 400,
        reset_ppm: 5000,
        flip_ppm: 500,
    }
}
