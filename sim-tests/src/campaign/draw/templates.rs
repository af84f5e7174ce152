//! Orders of events that chance rarely lines up, each for one kind of mistake, and damage beyond
//! what a group can stand.

mod consensus;
mod disks;
mod moves;

use super::Drawing;
use crate::campaign::fault::{Fault, Member, Part, Scope, Who};

/// Adds the events of one order, from this moment on (ms), to this group. One that concerns the
/// moves of shards draws groups of its own.
type Template = fn(&mut Drawing, u64, u64);

/// All of them; what stands twice is drawn twice as often.
const TEMPLATES: &[Template] = &[
    Drawing::figure_8,
    Drawing::figure_8,
    Drawing::returns_after_its_successor,
    Drawing::restart_around_a_vote,
    Drawing::reads_after_an_election,
    Drawing::late_votes,
    Drawing::late_acknowledgements,
    Drawing::newer_log_and_higher_term,
    Drawing::long_tail,
    Drawing::snapshot_behind_the_log,
    Drawing::overtaken_transfers,
    Drawing::snapshot_over_a_bad_network,
    Drawing::torn_tails,
    Drawing::full_log,
    Drawing::replaced_under_way,
    Drawing::power_after_cuts,
    Drawing::back_and_forth,
    Drawing::all_leave,
    Drawing::deposed_movers,
    Drawing::an_hour_at_once,
];

/// Clients that have several operations under way at a time; more are too concurrent to be judged.
pub(super) const MOST_PIPELINED: u64 = 3;

pub(super) fn leader(group: u64) -> Who {
    let member = Member::Leader;
    Who { group, member }
}

fn follower(group: u64) -> Who {
    let member = Member::Follower(0);
    Who { group, member }
}

/// A network that loses, repeats, delays and breaks.
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

impl Drawing {
    /// One of them, in six of ten seeds.
    pub(super) fn templates(&mut self) {
        if !self.draw.chance(60) {
            return;
        }
        let (at, group) = (self.at(), self.group());
        let template = self.draw.of(TEMPLATES);
        template(self, at, group);
    }

    /// One member of the group, always the same.
    fn one_of(&mut self, group: u64) -> Who {
        let member = Member::Node(self.draw.from(1, self.members(group)));
        Who { group, member }
    }

    /// Clients with several operations under way, and few of them, or no checker keeps up.
    fn pipelined(&mut self) {
        let options = &mut self.options;
        options.clients = options.clients.min(MOST_PIPELINED);
        let least = if options.load_ms > 60_000 { 100 } else { 40 };
        (options.depth, options.pause_ms) = (3, least.max(options.padding as u64 / 600));
    }

    /// Damage to a majority of one group.
    pub(super) fn beyond(&mut self) {
        let group = self.group();
        for node in 1..=self.members(group) {
            let at_ms = self.at();
            let member = Member::Node(node);
            let who = Who { group, member };
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
