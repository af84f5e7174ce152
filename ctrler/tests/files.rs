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
    let mut lines = Vec::new();
    for line in log.lines().map_while(Result::ok) {
        let started = line.contains("controller started");
        lines.push(line);
        if started {
            break;
        }
    }
    server.kill().expect("it runs");
    server.wait().expect("it ends");
    let _ = std::fs::remove_dir_all(data);
    assert!(
        lines.last().is_some_and(|line| line.contains("started")),
        "{lines:#?}"
    );
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
    assert!(
        few.iter().any(|line| line.contains("connections=108")),
        "{few:#?}"
    );
    // A low limit that may be raised is.
    let raised = log_with("ulimit -S -n 300");
    assert_eq!(said(&raised), 0, "{raised:#?}");
}
