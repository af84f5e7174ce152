//! Draws a plan from a seed.
//!
//! Swarm testing (Groce et al., ISSTA 2012): every seed turns each family of faults on or off and
//! draws its rates, since faults drawn all at once hide each other. Beside independent faults
//! stand templates: orders of events that chance rarely lines up.

mod families;
mod options;
mod sequences;
mod steer;
mod templates;

use super::dice::Draw;
use super::fault::{Fault, Member};
use super::plan::{Event, Options, Plan};
use std::collections::BTreeSet;

/// What is being drawn.
struct Drawing {
    draw: Draw,
    options: Options,
    events: Vec<Event>,
    /// Groups in which a member's disk was damaged already: the budget is one each.
    spoiled: Vec<u64>,
}

/// The plan of a seed.
pub fn plan(seed: u64) -> Plan {
    let mut draw = Draw::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x484f_4c44);
    let options = options::draw(&mut draw);
    let mut drawing = Drawing {
        draw,
        options,
        events: Vec::new(),
        spoiled: Vec::new(),
    };
    drawing.independent();
    drawing.templates();
    if drawing.options.over_budget {
        drawing.beyond();
    }
    // Of numbers of its own: a seed's other faults stay what they were before there was this.
    drawing.draw = Draw::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5354_4545);
    drawing.steer();
    drawing.draw = Draw::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5345_5155);
    drawing.sequences();
    let spared = drawing.options.spared;
    drawing
        .events
        .retain(|e| spared == 0 || !e.fault.touches(spared));
    drawing.leave_one();
    drawing.events.sort_by_key(|e| e.at_ms);
    Plan {
        seed,
        other_seed: None,
        options: drawing.options,
        events: drawing.events,
    }
}

impl Drawing {
    fn add(&mut self, at_ms: u64, for_ms: u64, fault: Fault) {
        self.events.push(Event {
            at_ms,
            for_ms,
            fault,
        });
    }

    /// A moment of the safety phase; the last tenth is left for what began before.
    fn at(&mut self) -> u64 {
        self.draw.from(0, self.options.load_ms * 9 / 10)
    }

    fn group(&mut self) -> u64 {
        self.draw.from(0, self.options.groups)
    }

    fn kv_group(&mut self) -> u64 {
        self.draw.from(1, self.options.groups)
    }

    fn members(&self, group: u64) -> u64 {
        match group {
            0 => self.options.ctrlers,
            _ => self.options.replicas,
        }
    }

    fn shard(&mut self) -> u32 {
        (self.draw.next() % u64::from(self.options.shards)) as u32
    }

    /// A group of which every member was emptied is a new group: nobody is left who knows better.
    fn leave_one(&mut self) {
        let (ctrlers, replicas) = (self.options.ctrlers, self.options.replicas);
        let mut emptied = BTreeSet::new();
        self.events.retain(|event| {
            let Fault::EmptyDisk(who) = event.fault else {
                return true;
            };
            let Member::Node(node) = who.member else {
                return true;
            };
            let members = if who.group == 0 { ctrlers } else { replicas };
            let before = emptied.range((who.group, 0)..=(who.group, u64::MAX));
            let others = before.filter(|(_, n)| *n != node).count() as u64;
            others + 1 < members && {
                emptied.insert((who.group, node));
                true
            }
        });
    }

    /// Whether a disk of this group may be damaged: the budget is one.
    fn spoil(&mut self, group: u64) -> bool {
        let first = !self.spoiled.contains(&group);
        if first {
            self.spoiled.push(group);
        }
        first
    }
}
