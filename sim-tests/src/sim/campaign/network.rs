//! The network of a run. Faults overlap: a link is mended when the last fault that cut it has ended.

use crate::campaign::fault::Scope;
use crate::sim::nodes::{Key, Nodes};
use crate::sim::wire::unit;
use madsim::net::NetSim;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use world::entropy::random_u64;
use world::net::inject::{Passing, Verdict, set_judge};
use world::net::{Hello, Kind};

/// What is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cut {
    /// Frames from one machine to another.
    Link(Key, Key),
    /// Everything a machine should hear.
    Hearing(Key),
    /// Everything a machine says.
    Speech(Key),
}

/// Frames mistreated, each on its own.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Which frames.
    pub scope: Scope,
    /// Vanish, come twice, come late, break their connection, lose a bit: in millionths.
    pub ppm: [u64; 5],
    /// Latest.
    pub latest: Duration,
}

/// Frames between two members that take longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slow {
    /// The group.
    pub group: u64,
    /// The two.
    pub pair: (u64, u64),
    /// By so much.
    pub by: Duration,
}

#[derive(Default)]
struct State {
    cuts: BTreeMap<Cut, u32>,
    rates: BTreeMap<usize, Rates>,
    slow: BTreeMap<usize, Slow>,
    /// (group, node) whose frames vanish while the connections stay open, and which of them.
    black: BTreeMap<usize, ((u64, u64), Vanish)>,
}

/// Which frames of a server vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vanish {
    /// Those to it, and those from it.
    Both,
    /// Those to it.
    Heard,
    /// Those from it.
    Said,
    /// Those to clients; with `true`, and those from them.
    Clients(bool),
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// A fair network.
pub fn install() {
    STATE.with(|s| *s.borrow_mut() = State::default());
    set_judge(Some(Box::new(judge)));
}

/// Cuts.
pub fn cut(nodes: &Nodes, cut: Cut) {
    let count = STATE.with(|s| {
        let count = &mut *s.borrow_mut();
        let count = count.cuts.entry(cut).or_default();
        *count += 1;
        *count
    });
    if count == 1 {
        set(nodes, cut, true);
    }
}

/// Ends one cut.
pub fn mend(nodes: &Nodes, cut: Cut) {
    let gone = STATE.with(|s| {
        let cuts = &mut s.borrow_mut().cuts;
        let Some(count) = cuts.get_mut(&cut) else {
            return false;
        };
        *count -= 1;
        let gone = *count == 0;
        if gone {
            cuts.remove(&cut);
        }
        gone
    });
    if gone {
        set(nodes, cut, false);
    }
}

fn set(nodes: &Nodes, cut: Cut, on: bool) {
    let net = NetSim::current();
    match (cut, on) {
        (Cut::Link(from, to), true) => net.clog_link(nodes.sim(from), nodes.sim(to)),
        (Cut::Link(from, to), false) => net.unclog_link(nodes.sim(from), nodes.sim(to)),
        (Cut::Hearing(key), true) => net.clog_node_in(nodes.sim(key)),
        (Cut::Hearing(key), false) => net.unclog_node_in(nodes.sim(key)),
        (Cut::Speech(key), true) => net.clog_node_out(nodes.sim(key)),
        (Cut::Speech(key), false) => net.unclog_node_out(nodes.sim(key)),
    }
}

/// Ends everything.
pub fn heal(nodes: &Nodes) {
    let state = STATE.with(|s| std::mem::take(&mut *s.borrow_mut()));
    for cut in state.cuts.into_keys() {
        set(nodes, cut, false);
    }
}

/// True when nothing is cut, lost or late.
pub fn calm() -> bool {
    STATE.with(|s| {
        let state = s.borrow();
        let quiet = state.rates.is_empty() && state.slow.is_empty();
        quiet && state.cuts.is_empty() && state.black.is_empty()
    })
}

/// What is cut.
pub fn cuts() -> Vec<Cut> {
    STATE.with(|s| s.borrow().cuts.keys().copied().collect())
}

/// Mistreats frames under this name, or ends it.
pub fn rates(name: usize, rates: Option<Rates>) {
    STATE.with(|s| match rates {
        Some(rates) => s.borrow_mut().rates.insert(name, rates),
        None => s.borrow_mut().rates.remove(&name),
    });
}

/// Slows frames under this name, or ends it.
pub fn slow(name: usize, slow: Option<Slow>) {
    STATE.with(|s| match slow {
        Some(slow) => s.borrow_mut().slow.insert(name, slow),
        None => s.borrow_mut().slow.remove(&name),
    });
}

/// What a server sends or is sent vanishes, while its connections stay open; or ends it.
pub fn black_hole(name: usize, what: Option<((u64, u64), Vanish)>) {
    STATE.with(|s| match what {
        Some(what) => s.borrow_mut().black.insert(name, what),
        None => s.borrow_mut().black.remove(&name),
    });
}

fn within(scope: Scope, from: &Hello, to: &Hello) -> bool {
    match scope {
        Scope::All => true,
        Scope::Members => from.group.is_some() && from.group == to.group,
        Scope::Groups => from.group.is_some() && to.group.is_some() && from.group != to.group,
        Scope::Clients => from.group.is_none() || to.group.is_none(),
    }
}

fn judge(passing: &Passing<'_>) -> Verdict {
    let (from, to) = (passing.from, passing.to);
    let (rates, slow, black) = STATE.with(|s| {
        let state = s.borrow();
        if state.rates.is_empty() && state.slow.is_empty() && state.black.is_empty() {
            return (None, None, false);
        }
        let is =
            |site: &(u64, u64), hello: &Hello| (hello.group, hello.node) == (Some(site.0), site.1);
        let black = state.black.values().any(|(site, which)| {
            let (said, heard) = (is(site, from), is(site, to));
            match which {
                Vanish::Both => said || heard,
                Vanish::Heard => heard,
                Vanish::Said => said,
                Vanish::Clients(both) => {
                    said && to.group.is_none() || *both && heard && from.group.is_none()
                }
            }
        });
        let mut rates = state.rates.values();
        let between = |slow: &&Slow| {
            let (a, b) = slow.pair;
            from.group == Some(slow.group)
                && to.group == Some(slow.group)
                && [(a, b), (b, a)].contains(&(from.node, to.node))
        };
        (
            rates.find(|r| within(r.scope, from, to)).copied(),
            state.slow.values().find(between).copied(),
            black,
        )
    });
    if black {
        return Verdict::Drop;
    }
    if let Some(rates) = rates {
        let mut drawn = unit() * 1e6;
        for (i, ppm) in rates.ppm.into_iter().enumerate() {
            if drawn < ppm as f64 {
                return match i {
                    // A lost call costs its caller the whole deadline; mostly the connection goes
                    // with it.
                    0 if passing.kind != Kind::Mail && unit() < 0.8 => Verdict::Reset,
                    0 => Verdict::Drop,
                    1 => Verdict::Duplicate,
                    2 => Verdict::Delay(rates.latest.mul_f64(unit())),
                    3 => Verdict::Reset,
                    _ => Verdict::Flip(random_u64()),
                };
            }
            drawn -= ppm as f64;
        }
    }
    match slow {
        Some(slow) => Verdict::Delay(slow.by),
        None => Verdict::Pass,
    }
}
