//! Small bounds of the consensus core, seen whole: a dozen seconds in all. Deeper ones:
//! `cargo run --release -p sim-tests --bin explore -- raft --help`.

#![cfg(not(madsim))]

use sim_tests::explore::raft::{Bound, Raft};
use sim_tests::explore::search::{Limits, Model, Spent, breadth_first};
use world::clock::Duration;

/// Explores all of `bound`, and says what was seen.
fn every_state(bound: Bound, at_least: usize) {
    let limits = Limits {
        time: Duration::MAX,
        states: 20_000_000,
    };
    let report = breadth_first(&mut Raft::new(bound), limits, |_| {});
    println!("{bound:?}\n  {report}");
    if let Some((way, what)) = &report.broken {
        panic!("{what}\n{bound:?}\n{}", Raft::transcript(bound, way));
    }
    assert!(report.exhausted, "not all was seen: {report}");
    assert!(report.states >= at_least, "little was seen: {report}");
}

#[test]
fn elections_with_a_crash_and_a_slow_disk() {
    let bound = Bound {
        terms: 2,
        crashes: 1,
        lags: 1,
        ..Bound::default()
    };
    every_state(bound, 300_000);
}

#[test]
fn three_terms() {
    let bound = Bound {
        terms: 3,
        ..Bound::default()
    };
    every_state(bound, 1_000_000);
}

#[test]
fn pre_votes_and_two_leaders() {
    let bound = Bound {
        terms: 2,
        pre_votes: true,
        ..Bound::default()
    };
    every_state(bound, 400_000);
}

#[test]
fn a_command_and_two_leaders() {
    let bound = Bound {
        terms: 2,
        entries: 1,
        ..Bound::default()
    };
    every_state(bound, 200_000);
}

#[test]
fn a_read_and_two_leaders() {
    let bound = Bound {
        terms: 2,
        reads: 1,
        ..Bound::default()
    };
    every_state(bound, 500_000);
}

/// A line on which 6 is missing; one jump is allowed, over it or elsewhere.
struct Line {
    wanted: u8,
}

#[derive(Clone)]
struct At(u8, Spent);

impl std::hash::Hash for At {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.0.hash(hasher);
    }
}

impl Model for Line {
    type State = At;

    fn start(&mut self) -> At {
        At(0, [0; 8])
    }

    fn spent(&self, state: &At) -> Spent {
        state.1
    }

    fn next(&mut self, &At(at, spent): &At, into: &mut Vec<Result<At, String>>) {
        let jump = spent[0] == 0;
        let steps = [(true, 1, 0), (jump, 2, 1)];
        for (possible, far, cost) in steps {
            let next = At(at + far, [spent[0] + cost, 0, 0, 0, 0, 0, 0, 0]);
            if possible && next.0 != 6 && next.0 <= 9 {
                into.push(if next.0 == self.wanted {
                    Err("found".to_owned())
                } else {
                    Ok(next)
                });
            }
        }
    }
}

const ALL: Limits = Limits {
    time: Duration::MAX,
    states: 1000,
};

#[test]
fn a_state_that_was_met_is_met_again_when_less_was_spent_on_it() {
    // 5 is met first by a way that has jumped already.
    let report = breadth_first(&mut Line { wanted: 9 }, ALL, |_| {});
    let (way, _) = report.broken.expect("the jump leads over the gap");
    assert_eq!(way, [0; 8]);
}

#[test]
fn a_search_that_finds_nothing_says_whether_it_saw_everything() {
    let report = breadth_first(&mut Line { wanted: 99 }, ALL, |_| {});
    assert!(report.exhausted && report.broken.is_none(), "{report}");
    let few = Limits { states: 3, ..ALL };
    let report = breadth_first(&mut Line { wanted: 99 }, few, |_| {});
    assert!(!report.exhausted, "{report}");
}
