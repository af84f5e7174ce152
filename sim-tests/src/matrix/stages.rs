//! Which tests are run against a mutant, in which order.

use super::tree::{self, LIB, LIB_REAL, Target};
use crate::mutants::Mutant;
use std::path::Path;

/// The test of the campaign, and its target.
pub(super) const CAMPAIGN: &str = "campaign";
/// Seeds of a named scenario before anything else is tried.
const NAMED_SEEDS: u64 = 3;
/// Part of the limit after which scenarios give way to the campaign.
const SCENARIOS_SHARE: f64 = 0.5;

/// A group of tests that are built together.
#[derive(Clone, Debug)]
pub(super) struct Stage {
    /// For people.
    pub(super) name: &'static str,
    /// What is built.
    pub(super) targets: Vec<Target>,
    /// Beginnings of the names of the tests run; empty: all.
    pub(super) tests: Vec<String>,
    /// Seeds: each test is run under the first, then each under the second, and so on.
    pub(super) seeds: std::ops::RangeInclusive<u64>,
    /// Part of the limit after which this stage is left.
    pub(super) share: f64,
}

fn target(package: &str, target: &str) -> Target {
    (package.into(), target.into())
}

/// The tests that a mutant names.
pub(super) fn named(mutant: &Mutant) -> Vec<Stage> {
    let parsed = mutant.tests.iter().filter_map(|test| {
        let (place, name) = test.split_once("::")?;
        let (package, of) = place.split_once('/')?;
        Some((package, of, name))
    });
    parsed
        .map(|(package, of, name)| Stage {
            name: "named",
            targets: match of == LIB {
                true => vec![target(package, LIB), target(package, LIB_REAL)],
                false => vec![target(package, of)],
            },
            tests: vec![name.into()],
            seeds: 1..=if package == "sim-tests" {
                NAMED_SEEDS
            } else {
                1
            },
            share: SCENARIOS_SHARE,
        })
        .collect()
}

/// Which crates a mutant is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Crate {
    Protocol,
    Replica,
    World,
    Controller,
    Kv,
}

fn crates(mutant: &Mutant) -> Vec<Crate> {
    let of = |file: &str| match file.split('/').next() {
        Some("kv") => Crate::Kv,
        Some("ctrler") => Crate::Controller,
        _ if file.starts_with("raft/protocol/") => Crate::Protocol,
        _ if file.starts_with("raft/world/") => Crate::World,
        _ => Crate::Replica,
    };
    let mut all: Vec<Crate> = mutant.edits.iter().map(|e| of(e.file)).collect();
    all.sort();
    all.dedup();
    all
}

/// Tests of a package that are none of its models: measurements, texts about texts, real processes.
const OTHERS: &[&str] = &[
    "speed",
    "purity",
    "disk_real",
    "files",
    "files_real",
    "process",
];

/// Unit tests, models and exhaustive searches of the crates that are changed.
pub(super) fn models(root: &Path, mutant: &Mutant) -> Result<Vec<Stage>, String> {
    let mut stages = Vec::new();
    let all = |package: &str| -> Result<Vec<Target>, String> {
        let tests = tree::tests(root, package)?.into_iter();
        let models = tests.filter(|test| !OTHERS.iter().any(|other| test.starts_with(other)));
        Ok(models.map(|test| target(package, &test)).collect())
    };
    for of in crates(mutant) {
        let package = match of {
            Crate::Protocol => "raft-protocol",
            Crate::Replica => "raft",
            Crate::World => "world",
            Crate::Controller => "ctrler",
            Crate::Kv => "kv",
        };
        let mut targets = all(package)?;
        if matches!(of, Crate::Replica | Crate::World) {
            targets.extend([target(package, LIB), target(package, LIB_REAL)]);
        }
        stages.push(targets);
        match of {
            Crate::Protocol => stages.push(vec![target("sim-tests", "explore_raft")]),
            Crate::Kv => stages.push(vec![target("sim-tests", "explore_shards")]),
            // What it serves.
            Crate::World => stages.push([all("raft")?, vec![target("raft", LIB)]].concat()),
            Crate::Replica | Crate::Controller => {}
        }
    }
    let stage = |targets| Stage {
        name: "models",
        targets,
        tests: Vec::new(),
        seeds: 1..=1,
        share: SCENARIOS_SHARE,
    };
    Ok(stages.into_iter().map(stage).collect())
}

/// Scenarios of whole systems, those nearest to the change first; then the campaign.
pub(super) fn simulation(root: &Path, mutant: &Mutant) -> Result<Vec<Stage>, String> {
    let here = tree::tests(root, "sim-tests")?;
    let near: &[&[&str]] = match crates(mutant)[..] {
        [Crate::Protocol | Crate::Replica | Crate::World, ..] => &[
            &["raft_scenarios"],
            &["kv_one_group", "kv_power", "kv_disks"],
        ],
        [Crate::Controller, ..] => &[&["ctrler_scenarios"], &["kv_many_groups"]],
        _ => &[
            &["kv_moves", "kv_many_groups", "kv_challenges"],
            &["kv_one_group", "kv_power", "kv_disks"],
        ],
    };
    let all = |names: &[&str]| -> Vec<Target> {
        let present = names.iter().filter(|n| here.iter().any(|h| h == *n));
        present.map(|n| target("sim-tests", n)).collect()
    };
    let scenarios = |names: &[&str], seeds| Stage {
        name: "scenarios",
        targets: all(names),
        tests: Vec::new(),
        seeds,
        share: SCENARIOS_SHARE,
    };
    let mut stages: Vec<Stage> = near.iter().map(|names| scenarios(names, 1..=1)).collect();
    stages.push(scenarios(&near.concat(), 2..=u64::MAX));
    stages.retain(|stage| !stage.targets.is_empty());
    stages.push(campaign(u64::MAX));
    Ok(stages)
}

/// The campaign under its first seeds.
pub(super) fn campaign(seeds: u64) -> Stage {
    Stage {
        name: CAMPAIGN,
        targets: vec![target("sim-tests", CAMPAIGN)],
        tests: vec![CAMPAIGN.into()],
        seeds: 1..=seeds,
        share: 1.0,
    }
}
