//! The program `ctrler` where few files may be open.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use world::testing::SIMULATED;

/// The lines of a controller's log until it has started; its limits of open files are set by a shell.
#[cfg(unix)]
fn log_with(limits: &str) -> Vec<String> {
    let program = env!("CARGO_BIN_EXE_ctrler");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
    let port = port.expect("a free port").port();
    let data = std::env::temp_dir().join(format!("ctrler-files-{}-{port}", std::process::id()));
    let script = format!("{limits}; exec {program} --id 1 --peers 1=127.0.0.1:{port}");
    let mut server = Command::new("sh")
        .args(["-c", &script])
        .env("CTRLER_DATA", &data)
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .expect("a shell");
    let log = BufReader::new(server.stderr.take().expect("piped"));
    let mut lines: Vec<String> = Vec::new();
    for line in log.lines().map_while(Result::ok) {
        let started = line.contains("controller started");
        lines.push(line);
        if started {
            break;
        }
    }
    // It may have ended by itself.
    let _ = server.kill();
    server.wait().expect("it ends");
    let _ = std::fs::remove_dir_all(data);
    lines
}

#[cfg(unix)]
#[test]
fn connections_leave_files_to_the_disk_and_the_log_says_so() {
    if SIMULATED {
        return;
    }
    let said = |lines: &[String]| {
        lines
            .iter()
            .filter(|line| line.contains("fewer clients"))
            .count()
    };
    let few = log_with("ulimit -n 300");
    assert_eq!(said(&few), 1, "{few:#?}");
    let has = |lines: &[String], text| lines.iter().any(|line| line.contains(text));
    assert!(has(&few, "connections=44"), "{few:#?}");
    assert!(has(&few, "controller started"), "{few:#?}");
    // One that could serve next to nobody does not start, and says what it needs.
    let none = log_with("ulimit -n 200");
    assert!(!has(&none, "controller started"), "{none:#?}");
    assert!(has(&none, "may have 200 files open"), "{none:#?}");
    assert!(has(&none, "needs 272"), "{none:#?}");
    // A low limit that may be raised is.
    let raised = log_with("ulimit -S -n 300");
    assert_eq!(said(&raised), 0, "{raised:#?}");
    assert!(has(&raised, "controller started"), "{raised:#?}");
}
