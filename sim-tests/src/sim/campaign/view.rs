//! What the nemesis sees: who leads, and the moments it waits for, from what the servers tell.

use crate::campaign::fault::{Member, Moment, Who};
use crate::sim::invariants::field;
use crate::sim::trace;
use std::cell::RefCell;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use world::observe::Event;

/// Roles as they appear in "role" events.
const LEADER: u64 = raft::protocol::Role::Leader as u64;

/// Somebody who waits for a moment in a group.
struct Waiting {
    group: u64,
    moment: Moment,
    tell: mpsc::UnboundedSender<u64>,
}

#[derive(Default)]
struct View {
    /// Group → (term, node) of the newest leader seen.
    leaders: BTreeMap<u64, (u64, u64)>,
    waiting: Vec<Waiting>,
}

thread_local! {
    static VIEW: RefCell<View> = RefCell::default();
}

/// Follows the trace of this run.
pub fn install() {
    VIEW.with(|v| *v.borrow_mut() = View::default());
    trace::check(|_, event| VIEW.with(|v| v.borrow_mut().event(event)));
}

fn moment(event: &Event) -> Option<Moment> {
    Some(match event.kind {
        "role" if field(event, "role") == LEADER => Moment::Leads,
        "stand" => Moment::Stands,
        "vote" => Moment::Votes,
        "write" => Moment::Writes,
        "sync" => Moment::Synced,
        "ack" => Moment::Acknowledges,
        "commit" => Moment::Commits,
        "ownership" => Moment::Shard,
        "install" => Moment::Installs,
        "reset" => Moment::Resets,
        "compact" => Moment::Compacts,
        "start" => Moment::Starts,
        _ => return None,
    })
}

impl View {
    fn event(&mut self, event: &Event) {
        let Some(moment) = moment(event) else { return };
        let (group, node) = (event.site.group, event.site.node);
        if moment == Moment::Leads {
            let leader = (field(event, "term"), node);
            let newest = self.leaders.entry(group).or_insert(leader);
            *newest = leader.max(*newest);
        }
        self.waiting.retain(|waiting| {
            let hit = waiting.group == group && waiting.moment == moment;
            // Gone with whoever waited.
            !waiting.tell.is_closed() && (!hit || waiting.tell.send(node).is_ok())
        });
    }
}

/// The node that is meant, now, in a group of `members`.
pub fn node(who: Who, members: u64) -> u64 {
    let leader = VIEW.with(|v| v.borrow().leaders.get(&who.group).map_or(1, |(_, n)| *n));
    match who.member {
        Member::Node(node) => node,
        Member::Leader => leader,
        Member::Follower(n) => 1 + (leader + n % (members - 1)) % members,
    }
}

/// Nodes of a group as they come to this moment, from now on.
pub fn moments(group: u64, moment: Moment) -> mpsc::UnboundedReceiver<u64> {
    let (tell, told) = mpsc::unbounded_channel();
    VIEW.with(|v| {
        v.borrow_mut().waiting.push(Waiting {
            group,
            moment,
            tell,
        });
    });
    told
}
