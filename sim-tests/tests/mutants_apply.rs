//! The known bugs can still be put back: what they replace occurs exactly once in today's tree.
#![cfg(not(madsim))]

use sim_tests::mutants;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

#[test]
fn every_replacement_applies_to_the_present_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file));
    let stale: Vec<String> = mutants::all().filter_map(|m| m.apply(read).err()).collect();
    assert!(stale.is_empty(), "stale:\n{}", stale.join("\n"));
}

#[test]
fn every_mutant_has_a_name_of_its_own_and_names_tests_in_full() {
    let mut ids = BTreeSet::new();
    for mutant in mutants::all() {
        assert!(ids.insert(mutant.id), "{} occurs twice", mutant.id);
        assert!(!mutant.edits.is_empty(), "{} replaces nothing", mutant.id);
        for test in mutant.tests {
            let named = test.split_once("::").is_some_and(|(t, _)| t.contains('/'));
            assert!(named, "{}: {test} is not package/target::name", mutant.id);
        }
    }
    for wound in 1..=12 {
        let id = format!("W{wound:02}");
        assert!(ids.contains(id.as_str()), "{id} is missing");
    }
}

#[test]
fn every_test_that_a_mutant_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for mutant in mutants::all() {
        for test in mutant.tests {
            let (place, name) = test.split_once("::").expect("checked above");
            let (package, target) = place.split_once('/').expect("checked above");
            let package = match package {
                "raft-protocol" => "raft/protocol",
                "world" => "raft/world",
                other => other,
            };
            let files = match target {
                "lib" => sources(&root.join(package).join("src")),
                target => [
                    sources(&root.join(package).join("tests").join(target)),
                    vec![root.join(package).join(format!("tests/{target}.rs"))],
                ]
                .concat(),
            };
            // A test, or a module of them.
            let last = name.rsplit("::").next().unwrap_or_default();
            let (test_fn, module) = (format!("fn {last}"), format!("mod {last}"));
            let mut texts = files.iter().filter_map(|f| std::fs::read_to_string(f).ok());
            let found = texts.any(|text| text.contains(&test_fn) || text.contains(&module));
            assert!(found, "{}: there is no test {test}", mutant.id);
        }
    }
}

/// The source files below a directory.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let below = |path: PathBuf| match path.is_dir() {
        true => sources(&path),
        false => vec![path],
    };
    paths.flat_map(below).collect()
}
