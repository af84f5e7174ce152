//! The shard machine in every state within small bounds; deeper ones with
//! `cargo run --release -p sim-tests --bin explore -- shards …`.
#![cfg(not(madsim))]

use sim_tests::explore::search::Limits;
use sim_tests::explore::shards::{Scenario, explore, histories};
use std::collections::BTreeMap;
use std::time::Duration;

/// Far above what any of these takes: none may be cut.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(600),
    states: 5_000_000,
};

/// Explores all of these whole, and comes to steps of all these kinds.
fn whole(scenarios: impl IntoIterator<Item = Scenario>, kinds: &[&str]) {
    let mut marks: BTreeMap<&str, u64> = BTreeMap::new();
    let mut states = 0;
    for scenario in scenarios {
        let summary = explore(&scenario, LIMITS, |_| {}).expect("a scenario");
        println!("{summary}");
        assert!(summary.broken.is_none(), "{summary}");
        assert!(summary.report.exhausted, "{summary}");
        assert!(summary.cores.is_some(), "{summary}");
        states += summary.report.states;
        for (kind, count) in summary.marks {
            *marks.entry(kind).or_default() += count;
        }
    }
    println!("{states} states in all; {marks:?}");
    for kind in kinds {
        assert!(marks.contains_key(kind), "no {kind}: {marks:?}");
    }
}

const MOVES: &[&str] = &[
    "enter", "freeze", "install", "release", "sweep", "write", "ack",
];

#[test]
fn one_shard_in_every_history_of_four_configurations() {
    let all = histories(1, 4);
    assert!(all.iter().any(|h| h == "A B A B") && all.iter().any(|h| h == "A . B C"));
    let all = all.iter().map(|history| Scenario::new(history, &[2]));
    whole(all, &[MOVES, &["shut down", "skip"]].concat());
}

#[test]
fn three_writes_in_flight_there_and_back_and_there() {
    whole([Scenario::new("A B A B", &[3])], MOVES);
}

#[test]
fn two_shards_in_every_history_of_three_configurations() {
    let all = histories(2, 3);
    let all = all.iter().map(|history| Scenario::new(history, &[1, 0]));
    whole(all, &[MOVES, &["shut down", "skip"]].concat());
}

#[test]
fn controllers_that_hear_late_of_groups_that_leave_and_come_again() {
    let mut all = histories(1, 3);
    all.extend(["A . B A", "A B . A"].map(str::to_owned));
    let all = all
        .iter()
        .map(|history| Scenario::new(history, &[1]).controllers_too());
    whole(
        all,
        &[MOVES, &["shut down", "report", "configure"]].concat(),
    );
}

#[test]
fn a_shard_of_two_chunks_there_and_back() {
    whole([Scenario::new("A B A", &[2]).large()], MOVES);
}
