//! The list of coverage marks says what the sources say. A test of files, outside the simulation.
#![cfg(not(madsim))]

use sim_tests::campaign::marks::{ELSEWHERE, EXPECTED, RARE};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Where marks stand. Not in `raft/protocol`, which knows nothing of `world`.
const ROOMS: &[&str] = &[
    "raft/src",
    "raft/world/src",
    "ctrler/src",
    "kv/src",
    "sim-tests/src",
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory of sources") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The names in a source, comments left out; a long call stands on several lines.
fn marks_in(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect();
    let calls = code.split("mark!(").skip(1);
    calls
        .filter_map(|call| {
            let (name, _) = call.trim_start().strip_prefix('"')?.split_once('"')?;
            Some(name.to_owned())
        })
        .collect()
}

fn in_sources() -> BTreeMap<String, PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut files = Vec::new();
    for room in ROOMS {
        sources(&root.join(room), &mut files);
    }
    let mut all = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("sources are text");
        for mark in marks_in(&text) {
            if let Some(other) = all.insert(mark.clone(), file.clone()) {
                panic!("{mark:?} stands twice: {other:?} and {file:?}");
            }
        }
    }
    all
}

#[test]
fn every_mark_is_expected_and_every_expected_one_stands_somewhere() {
    let sources = in_sources();
    assert!(
        sources.len() >= 30,
        "only {} marks were found",
        sources.len()
    );
    for (mark, file) in &sources {
        let elsewhere = ELSEWHERE.iter().any(|(name, _)| name == mark);
        let known = EXPECTED.contains(&mark.as_str()) != elsewhere;
        assert!(known, "{mark:?} of {file:?} is not in one of the lists");
    }
    for mark in EXPECTED
        .iter()
        .chain(ELSEWHERE.iter().map(|(name, _)| name))
    {
        assert!(sources.contains_key(*mark), "{mark:?} stands in no source");
    }
}

#[test]
fn what_is_hit_elsewhere_names_its_test() {
    for (mark, place) in ELSEWHERE {
        let (file, test) = place.split_once("::").expect("a file and a test");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let function = format!("fn {test}(");
        assert!(text.contains(&function), "{mark:?}: there is no {place}");
    }
}

#[test]
fn the_lists_are_sorted_and_name_nothing_twice() {
    assert!(EXPECTED.is_sorted_by(|a, b| a < b), "EXPECTED");
    assert!(RARE.is_sorted_by(|a, b| a < b), "RARE");
    for mark in RARE {
        assert!(EXPECTED.contains(mark), "{mark:?} is rare and not expected");
    }
}

#[test]
fn names_are_found_on_one_line_and_on_several() {
    let text = "a::mark!(\"one\"); // mark!(\"no\")\nmark!(\n    \"two\"\n);\nmark!(not_literal)";
    assert_eq!(marks_in(text), ["one", "two"]);
}
