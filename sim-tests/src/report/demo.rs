//! A record made by hand, for the tests of what is made of records: 12 servers, 60 s, faults,
//! moves, 5 clients, a stale read.

use crate::campaign::fault::{Fault, Member, Who};
use crate::campaign::plan::{Event, Plan};
use crate::campaign::record::{Band, Operation, Point, Record, Server, Summary, Violation};

const SECOND: u64 = 1_000_000;
const END: u64 = 60 * SECOND;

struct Demo {
    record: Record,
    state: u64,
}

impl Demo {
    /// Below `n`: xorshift64*.
    fn below(&mut self, n: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    fn point(&mut self, at_us: u64, (group, node): (u64, u64), kind: &str, fields: &[(&str, u64)]) {
        let fields = fields.iter().map(|(n, v)| (n.to_string(), *v)).collect();
        self.record.points.push(Point {
            at_us,
            group,
            node,
            kind: kind.into(),
            fields,
        });
    }

    fn fault(&mut self, at_ms: u64, for_ms: u64, fault: Fault, servers: &[(u64, u64)], text: &str) {
        self.record.bands.push(Band {
            from_us: 1000 * (3000 + at_ms),
            to_us: 1000 * (3000 + at_ms + for_ms),
            family: fault.family().into(),
            servers: servers.to_vec(),
            text: text.into(),
            event: self.record.plan.events.len(),
            effective: true,
        });
        self.record.plan.events.push(Event {
            at_ms,
            for_ms,
            fault,
        });
    }

    fn faults(&mut self) {
        let who = |group, node| Who {
            group,
            member: Member::Node(node),
        };
        for i in 0..14 {
            let (group, node) = (self.below(4), 1 + self.below(3));
            let (at, long) = (i * 2800 + self.below(2500), 300 + self.below(5000));
            let fault = match i % 4 {
                0 => Fault::Isolate(who(group, node)),
                1 => Fault::Pause(who(group, node)),
                2 => Fault::DiskStall {
                    who: who(group, node),
                    percent: 20,
                },
                _ => Fault::ClockJump {
                    who: who(group, node),
                    by_ms: 700,
                },
            };
            let text = format!("{} {group}.{node}", fault.name());
            self.fault(at, long, fault, &[(group, node)], &text);
        }
        self.fault(20_000, 3000, Fault::PowerCut, &[], "power fails everywhere");
        let text = "shard 3 moves to group 2";
        let fault = Fault::Move { shard: 3, group: 2 };
        self.fault(12_000, 0, fault, &[(0, 1), (1, 1), (2, 1)], text);
    }

    /// Elections, crashes and indexes of a group.
    fn group(&mut self, group: u64) {
        let mut index = 0;
        let mut term = 0;
        let mut leader = 1;
        for node in 1..=3 {
            self.point(200 * node, (group, node), "start", &[("term", 0)]);
        }
        let mut next_election = 300_000 + self.below(200_000);
        let mut cut = false;
        let mut at = 0;
        while at < END {
            at += 8000 + self.below(30_000);
            let dark = (23 * SECOND..26 * SECOND).contains(&at);
            if dark && !std::mem::replace(&mut cut, true) {
                for node in 1..=3 {
                    self.point(23 * SECOND, (group, node), "down", &[]);
                    self.point(26 * SECOND, (group, node), "start", &[("term", term)]);
                }
                next_election = 26 * SECOND + 400_000;
            }
            if at > next_election {
                term += 1;
                leader = 1 + self.below(3);
                let role = |role, leader| [("role", role), ("term", term), ("leader", leader)];
                self.point(at, (group, leader), "role", &role(1, 0));
                self.point(at + 9000, (group, leader), "role", &role(2, 0));
                self.point(at + 9000, (group, leader), "stand", &[("term", term)]);
                self.point(at + 15_000, (group, leader), "role", &role(3, leader));
                for node in (1..=3).filter(|n| *n != leader) {
                    self.point(
                        at + 14_000,
                        (group, node),
                        "vote",
                        &[("to", leader), ("term", term)],
                    );
                    self.point(at + 17_000, (group, node), "role", &role(0, leader));
                }
                next_election = at + SECOND + self.below(16 * SECOND);
            } else if term > 0 && !dark {
                index += 1 + self.below(6);
                for node in 1..=3 {
                    let late = if node == leader { 0 } else { 3000 };
                    let fields = [("index", index), ("term", term)];
                    self.point(at + late, (group, node), "commit", &fields);
                    self.point(at + late + 1500, (group, node), "apply", &fields);
                    self.point(at + late, (group, node), "sync", &[("write", index)]);
                }
            }
        }
    }

    fn shards(&mut self) {
        let mut index = 100;
        let mut tell = |demo: &mut Demo, at, group, shard, state: u64, accepts: u64, config| {
            index += 1;
            for node in 1..=3 {
                let fields = [
                    ("shard", shard),
                    ("state", state),
                    ("accepts", accepts),
                    ("config", config),
                    ("index", index),
                ];
                demo.point(at + node * 1000, (group, node), "ownership", &fields);
            }
        };
        for shard in 0..6 {
            let group = 1 + shard % 2;
            tell(self, SECOND, group, shard, 2, 1, 1);
        }
        for (at, shard, from, to, config) in [
            (15 * SECOND, 3, 2, 3, 2),
            (31 * SECOND, 0, 1, 3, 3),
            (31 * SECOND + 4000, 1, 2, 3, 3),
            (40 * SECOND, 0, 3, 1, 4),
        ] {
            tell(self, at, from, shard, 3, 1, config);
            tell(self, at + 20_000, to, shard, 1, 0, config);
            tell(self, at + 400_000, from, shard, 3, 0, config);
            tell(self, at + 900_000, to, shard, 2, 1, config);
            tell(self, at + 1_300_000, from, shard, 0, 0, config);
        }
    }

    fn clients(&mut self) {
        for client in 1..=5 {
            let mut at = 3 * SECOND;
            let mut number = 0;
            while at < 58 * SECOND {
                number += 1;
                let key = self.below(12);
                let long = match self.below(60) {
                    0 => 900_000,
                    _ => 2000 + self.below(40_000),
                };
                let lost = self.below(150) == 0;
                let call = match self.below(3) {
                    0 => "get".to_owned(),
                    1 => format!("put v{client}-{number}"),
                    _ => format!("append {client}.{number};"),
                };
                self.record.operations.push(Operation {
                    client,
                    key: format!("k{key}"),
                    shard: key % 6,
                    call,
                    called_us: at,
                    returned_us: (!lost).then_some(at + long),
                    answer: if lost { String::new() } else { "ok".into() },
                    violating: false,
                });
                at += if lost {
                    2 * SECOND
                } else {
                    long + self.below(30_000)
                };
            }
        }
    }
}

/// The record.
pub(crate) fn record() -> Record {
    let server = |group, node| Server {
        group,
        node,
        name: match group {
            0 => format!("controller {node}"),
            _ => format!("server {group}.{node}"),
        },
    };
    let servers = (0..4).flat_map(|g| (1..=3).map(move |n| server(g, n)));
    let mut demo = Demo {
        state: 0x9e37_79b9_7f4a_7c15,
        record: Record {
            test: "campaign::campaign".into(),
            plan: Plan {
                seed: 7,
                other_seed: None,
                ..Plan::default()
            },
            servers: servers.collect(),
            healed_us: Some(46 * SECOND),
            end_us: END,
            ..Record::default()
        },
    };
    demo.faults();
    (0..4).for_each(|group| demo.group(group));
    demo.shards();
    demo.clients();
    let mut record = demo.record;
    record.points.sort_by_key(|p| p.at_us);
    let bad = |client, at: u64, call: &str, answer: &str| Operation {
        client,
        key: "k3".into(),
        shard: 3,
        call: call.into(),
        called_us: at,
        returned_us: Some(at + 30_000),
        answer: answer.into(),
        violating: true,
    };
    record.operations.extend([
        bad(2, 47 * SECOND, "put v2-900", "ok"),
        bad(4, 47 * SECOND + 60_000, "get", "v1-411 </script><b>"),
    ]);
    record.operations.sort_by_key(|o| o.called_us);
    record.violation = Some(Violation {
        at_us: 48 * SECOND,
        invariant: "I8".into(),
        message:
            "not linearizable: key k3\n  client 2 put v2-900, answered at 47.030 s\n  client 4 \
                  get, called at 47.060 s, was told v1-411 </script><script>alert(1)</script>"
                .into(),
    });
    record.summary = Summary {
        simulated_seconds: 60.0,
        operations: record.operations.len() as u64,
        faults: [("process".into(), 5), ("partition".into(), 4)].into(),
        ..Summary::default()
    };
    record
}
