//! The core touches nothing: no clock, file, socket, thread, environment, entropy, and nothing
//! whose order differs from run to run.

#![allow(clippy::disallowed_methods)] // a test of real files and real time, outside the simulation

use std::path::Path;

const FORBIDDEN: &[&str] = &[
    "std::time",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "std::io",
    "std::os",
    "std::sync::Mutex",
    "std::sync::atomic",
    "std::sync::mpsc",
    "async",
    "await",
    "rand::",
    "getrandom",
    "HashMap",
    "HashSet",
    "RandomState",
    "Instant",
    "SystemTime",
    "println!",
    "eprintln!",
    "dbg!",
    "unsafe",
    "static mut",
    "thread_local",
    "extern ",
    "include!",
    "include_str!",
    "env!(",
    "option_env!",
    "tokio",
    "madsim",
    "tracing",
];

#[test]
fn sources_name_nothing_of_the_outside() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    for file in std::fs::read_dir(dir).expect("sources exist") {
        let path = file.expect("readable").path();
        let text = std::fs::read_to_string(&path).expect("sources are text");
        files += 1;
        for (n, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in FORBIDDEN {
                assert!(
                    !code.contains(word),
                    "{}:{}: {word}: {line}",
                    path.display(),
                    n + 1
                );
            }
            // `use std::{time, fs}` would get past the list above.
            assert!(
                !code.contains("std::{"),
                "{}:{}: name std's modules one by one",
                path.display(),
                n + 1
            );
        }
        assert!(
            text.lines().count() <= 450,
            "{}: two subjects?",
            path.display()
        );
    }
    assert!(files > 10, "the scan found the sources");
}

#[test]
fn serde_is_the_only_dependency() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = std::fs::read_to_string(path).expect("a manifest");
    let section = |name: &str| -> Vec<String> {
        let body = manifest
            .split(&format!("[{name}]\n"))
            .nth(1)
            .unwrap_or_default();
        let lines = body.lines().take_while(|l| !l.starts_with('['));
        lines
            .filter_map(|l| l.split_once('='))
            .map(|(key, _)| key.trim().to_owned())
            .collect()
    };
    assert_eq!(section("dependencies"), ["serde"]);
    for other in ["build-dependencies", "target."] {
        assert!(
            !manifest.contains(&format!("[{other}")),
            "{other} in the manifest"
        );
    }
}
