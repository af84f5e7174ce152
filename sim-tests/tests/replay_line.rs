//! What a newcomer types to repeat a run: paths, names, lines.
#![cfg(not(madsim))]

use sim_tests::runner::{is_unknown, replay_line, resolve};
use std::fs;
use std::path::{Path, PathBuf};

/// A workspace, made in the directory for this target's files.
fn workspace(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&root);
    for directory in ["sim-tests/regressions", "elsewhere"] {
        fs::create_dir_all(root.join(directory)).expect("a directory");
    }
    root
}

#[test]
fn a_plan_is_found_from_wherever_the_line_is_typed() {
    let root = workspace("replay-paths");
    let plan = root.join("sim-tests/regressions/a.json");
    fs::write(&plan, "{}").expect("a file");
    let find = |path: &str, shell: Option<&Path>| resolve(path.as_ref(), true, shell, &root);
    let package = root.join("sim-tests");
    // In the workspace, as the README has it; in the package, where the test runs; from elsewhere.
    for (path, shell) in [
        ("sim-tests/regressions/a.json", Some(root.as_path())),
        ("sim-tests/regressions/a.json", None),
        ("sim-tests/regressions/a.json", Some(&package)),
        ("regressions/a.json", Some(&package)),
        ("regressions/a.json", Some(&root)),
        ("a.json", Some(&package.join("regressions"))),
        ("sim-tests/regressions/a.json", Some(Path::new("/"))),
    ] {
        let found = find(path, shell).expect(path);
        assert_eq!(
            fs::canonicalize(found).ok(),
            fs::canonicalize(&plan).ok(),
            "{path}"
        );
    }
    let absolute = plan.display().to_string();
    assert_eq!(find(&absolute, Some(&root)), Ok(plan.clone()));
    // None: said with the places, and without a backtrace.
    let why = find("nowhere.json", Some(&root)).expect_err("none");
    assert!(why.starts_with("no such file: looked for "), "{why}");
    assert!(why.contains("sim-tests/nowhere.json"), "{why}");
    // What is written goes where the shell stands.
    let elsewhere = root.join("elsewhere");
    let written = resolve("run.json".as_ref(), false, Some(&elsewhere), &root);
    assert_eq!(written, Ok(elsewhere.join("run.json")));
    let _ = fs::remove_dir_all(root);
}

#[test]
fn the_replay_line_has_the_plan_and_nothing_that_is_only_written() {
    let files = [
        ("HOLDFAST_PLAN", "/x/a.json"),
        ("HOLDFAST_RECORD", "/x/run.json"),
    ];
    let files = files.map(|(name, value)| (name.to_string(), value.to_string()));
    let line = "MADSIM_TEST_SEED=7 cargo test -p sim-tests --test simulation -- --exact";
    assert_eq!(
        replay_line("campaign", "campaign", 7, &files),
        format!("HOLDFAST_PLAN=/x/a.json {line} campaign::campaign")
    );
    assert_eq!(
        replay_line("kv_one_group", "basic", 7, &files),
        format!("{line} kv_one_group::basic")
    );
    assert_eq!(
        replay_line("campaign", "campaign", 7, &[]),
        format!("{line} campaign::campaign")
    );
}

#[test]
fn a_name_that_no_test_has_is_unknown() {
    let tests = ["campaign::campaign", "kv_one_group::basic"];
    assert!(is_unknown("nosuch::test", tests.into_iter()));
    assert!(
        is_unknown("campaign", tests.into_iter()),
        "a part of a name"
    );
    assert!(!is_unknown("kv_one_group::basic", tests.into_iter()));
}
