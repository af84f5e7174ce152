//! A cluster of real processes under `kvctl up`: killed members, everything killed, clean stops.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes live on the real clock"
)]

mod process;

use process::cluster::{Up, kvctl};
use process::load::{Done, Load};
use process::{KVCTL, Ports, Running, TempDir, bare, ended_within, runs, say, signal, turn, until};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

const SHARDS: u32 = 10;
/// Time for one operation of a client that must see no error.
const PATIENT: Duration = Duration::from_secs(20);
/// Writes resume within this time after a kill.
const RESUMED: Duration = Duration::from_secs(3);
/// A server stops within this time after SIGTERM.
const STOPPED: Duration = Duration::from_secs(2);

/// Kills these processes under the load; they must be said dead and run again; the writes of no
/// shard may pause for long.
fn kill_under_load(up: &Up, names: &[String]) -> Done {
    let load = Load::start(&up.ctrlers, SHARDS, 2, PATIENT);
    load.goes_on(200);
    let pids = up.pids();
    let dead: Vec<u32> = names.iter().map(|name| pids[name]).collect();
    signal("KILL", &dead);
    load.goes_on(200);
    until("killed servers run again", PATIENT, || {
        let (said, now) = (up.said(), up.pids());
        let back = |(name, pid): (&String, &u32)| {
            said.contains(&format!("{name} (pid {pid}) ended: signal: 9"))
                && now[name] != *pid
                && runs(now[name])
        };
        names.iter().zip(&dead).all(back).then_some(())
    });
    load.goes_on(200);
    let done = load.stop();
    let (gap, shard) = done.longest_gap(|_| true);
    let noise = done.noise;
    eprintln!("{names:?}: longest pause {gap:?} (shard {shard}); the machine overslept {noise:?}");
    assert!(
        gap <= RESUMED + noise,
        "after SIGKILL of {names:?} shard {shard} acknowledged nothing for {gap:?} \
         (this machine overslept by up to {noise:?})"
    );
    done.assert_no_errors();
    done
}

#[test]
fn killed_members_cost_neither_data_nor_much_time() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(2, 3, 3);
    // The worst case first: every leader at once.
    let leaders: Vec<String> = [0, 1, 2].map(|group| up.leader(group)).to_vec();
    let first = kill_under_load(&up, &leaders);
    let followers: Vec<String> = [0, 1, 2].map(|group| up.follower(group)).to_vec();
    let second = kill_under_load(&up, &followers);
    for done in [first, second] {
        assert!(done.acknowledged() >= 600);
        done.assert_all_there(&up.ctrlers);
    }
}

#[test]
fn everything_killed_at_once_keeps_what_was_acknowledged() {
    let Some(_turn) = turn() else { return };
    let mut up = Up::start(2, 3, 3);
    let mut before = Vec::new();
    for _ in 0..2 {
        let load = Load::start(&up.ctrlers, SHARDS, 2, Duration::from_secs(2));
        load.goes_on(500);
        up.kill_all();
        let done = load.stop();
        assert!(done.acknowledged() >= 500);
        before.push(done);
        up.again();
        for done in &before {
            done.assert_all_there(&up.ctrlers);
        }
    }
    let load = Load::start(&up.ctrlers, SHARDS, 1, PATIENT);
    load.goes_on(200);
    let done = load.stop();
    done.assert_no_errors();
    done.assert_all_there(&up.ctrlers);
}

#[test]
fn up_stops_cleanly_and_goes_on_with_its_data() {
    let Some(_turn) = turn() else { return };
    let mut up = Up::start(1, 3, 1);
    up.kvctl(&["put", "stays", "here"]).ok();
    for name in ["INT", "TERM"] {
        let children: Vec<u32> = up.pids().into_values().collect();
        assert_eq!(children.len(), 4);
        let since = Instant::now();
        signal(name, &[up.pid()]);
        let status = up.ended_within(PATIENT).expect("`up` ends");
        let took = since.elapsed();
        assert!(status.success(), "SIG{name}: {status}\n{}", up.said());
        assert!(took < STOPPED, "SIG{name}: stopped after {took:?}");
        assert!(up.said().contains("stopped; the data are in"));
        assert!(!up.said().contains("killed"), "{}", up.said());
        assert!(!children.iter().any(|pid| runs(*pid)));
        for server in ["ctrler-1", "kv-1-1", "kv-1-2", "kv-1-3"] {
            let log = up.data().join(format!("{server}.log"));
            let log = process::text_of(&log);
            assert!(log.contains("stopping"), "{log}");
            assert!(!log.contains("panicked") && !log.contains("ERROR"), "{log}");
        }
        up.again();
        assert_eq!(up.kvctl(&["get", "stays"]).ok(), "here\n");
    }
}

#[test]
fn children_end_with_a_killed_parent_and_a_second_up_is_refused() {
    let Some(_turn) = turn() else { return };
    let mut up = Up::start(1, 3, 1);
    let data = up.data().display().to_string();
    let second = up.kvctl(&["up", "--data", &data]);
    second.fails(1, "in use by another `kvctl up`");
    let other = up.dir.path().join("other").display().to_string();
    let port = format!("--port={}", up.ports.base);
    let second = up.kvctl(&["up", "--data", &other, &port]);
    second.fails(1, "choose other ports with --port");
    assert!(
        !Path::new(&other).exists(),
        "a refused first run left something"
    );

    let children: Vec<u32> = up.pids().into_values().collect();
    let since = Instant::now();
    signal("KILL", &[up.pid()]);
    up.ended_within(PATIENT).expect("it was killed");
    until("children end with their parent", STOPPED, || {
        (!children.iter().any(|pid| runs(*pid))).then_some(())
    });
    eprintln!("children ended {:?} after their parent", since.elapsed());
    up.again();
}

#[test]
fn a_first_run_that_is_refused_leaves_nothing_behind() {
    let Some(_turn) = turn() else { return };
    let (ports, dir) = (Ports::find(), TempDir::new());
    let data = format!("--data={}", dir.path().join("a/data").display());
    let run = |port: u16| {
        let mut command = bare(KVCTL);
        command.args([
            "up",
            "--groups=1",
            "--ctrlers=1",
            &data,
            &format!("--port={port}"),
        ]);
        command
    };
    let taken = TcpListener::bind(("127.0.0.1", ports.base + 13)).expect("a free port");
    say(run(ports.base), b"").fails(1, &format!("127.0.0.1:{} for kv-1-3", ports.base + 13));
    say(run(65_530), b"").fails(2, "the last server would need port 65543");
    let left = fs::read_dir(dir.path()).expect("a directory").count();
    assert_eq!(left, 0, "a refused first run left something");
    // A directory without a plan stays as it is as well.
    let made = dir.path().join("a/data");
    fs::create_dir_all(&made).expect("a directory");
    say(run(ports.base), b"").fails(1, "cannot listen on");
    assert_eq!(fs::read_dir(&made).expect("a directory").count(), 0);
    // So another port is as good as at first, and from then on it is the directory's.
    let mut up = Running::start(run(ports.base + 20));
    up.prints("\nready\n");
    drop(up);
    drop(taken);
    say(run(ports.base), b"").fails(1, "was made with --port");
}

#[test]
fn a_cluster_goes_on_when_nobody_reads_what_it_says() {
    let Some(_turn) = turn() else { return };
    let (ports, dir) = (Ports::find(), TempDir::new());
    let ctrler = format!("127.0.0.1:{}", ports.base);
    let mut command = bare(KVCTL);
    command.args(["up", "--groups=1", "--replicas=1", "--ctrlers=1"]);
    command.arg(format!("--data={}", dir.path().join("data").display()));
    command.arg(format!("--port={}", ports.base));
    let (reader, pipe) = std::io::pipe().expect("a pipe");
    // As `kvctl up | head -1` does.
    let mut up = command
        .stdin(Stdio::null())
        .stdout(pipe)
        .spawn()
        .expect("kvctl starts");
    drop(command);
    let mut line = String::new();
    let mut reader = BufReader::new(reader);
    let read = reader.read_line(&mut line);
    drop(reader);
    let put = kvctl(&ctrler, &["put", "k", "v", "--timeout=30"], b"");
    let got = kvctl(&ctrler, &["get", "k"], b"");
    signal("TERM", &[up.id()]);
    let status = ended_within(&mut up, PATIENT);
    let _ = up.kill();
    assert!(read.is_ok() && line.starts_with("SERVER"), "{line}");
    put.ok();
    assert_eq!(got.ok(), "v\n");
    assert!(status.is_some_and(|s| s.success()), "{status:?}");
    for name in ["ctrler-1", "kv-1-1"] {
        let log = process::text_of(&dir.path().join(format!("data/{name}.log")));
        assert!(
            log.contains("stopping"),
            "{name} was not stopped cleanly: {log}"
        );
    }
}

/// Kills a server and waits until `up` says `part`.
fn kill_and_hear(up: &Up, name: &str, part: &str) {
    signal("KILL", &[up.pids()[name]]);
    until(part, PATIENT, || up.said().contains(part).then_some(()));
}

#[test]
fn servers_start_again_after_the_program_was_replaced() {
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new();
    let program = dir.path().join("kvctl");
    fs::copy(KVCTL, &program).expect("a copy of the program");
    let mut up = Up::start_as(&program, 1, 3, 1);
    up.kvctl(&["put", "k", "v"]).ok();
    // As a build or a package does it: another file under the same name, and then none.
    fs::write(dir.path().join("new"), "not this program").expect("another program");
    fs::rename(dir.path().join("new"), &program).expect("it is replaced");
    kill_and_hear(&up, "kv-1-1", "kv-1-1 runs again");
    fs::remove_file(&program).expect("it is removed");
    kill_and_hear(&up, "kv-1-2", "kv-1-2 runs again");
    assert_eq!(up.kvctl(&["get", "k"]).ok(), "v\n");
    signal("TERM", &[up.pid()]);
    let status = up.ended_within(PATIENT).expect("`up` ends");
    assert!(status.success(), "{status}: {}", up.said());
}

#[test]
fn a_start_that_fails_is_tried_again_unless_it_is_the_first() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 3, 1);
    up.kvctl(&["put", "k", "v"]).ok();
    let log = up.data().join("kv-1-1.log");
    fs::remove_file(&log).expect("a log");
    fs::create_dir(&log).expect("a directory in its place");
    kill_and_hear(&up, "kv-1-1", "cannot start kv-1-1 again: ");
    until("a second attempt", PATIENT, || {
        (up.said().matches("cannot start kv-1-1 again: ").count() >= 2).then_some(())
    });
    assert_eq!(up.kvctl(&["get", "k"]).ok(), "v\n", "the others serve");
    fs::remove_dir(&log).expect("the directory goes");
    until("it runs again", PATIENT, || {
        up.said().contains("kv-1-1 runs again").then_some(())
    });

    let ports = Ports::find();
    let dir = TempDir::new();
    fs::create_dir(dir.path().join("ctrler-1.log")).expect("a directory in its place");
    let (data, port) = (dir.path().display(), ports.base);
    let first = up.kvctl(&["up", &format!("--data={data}"), &format!("--port={port}")]);
    first.fails(1, "cannot start ctrler-1: ");
}

#[test]
fn a_server_stops_promptly_at_sigterm_under_load() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 3, 1);
    let load = Load::start(&up.ctrlers, SHARDS, 2, PATIENT);
    for name in [up.leader(1), up.follower(1), "ctrler-1".to_string()] {
        load.goes_on(200);
        let pid = up.pids()[&name];
        let since = Instant::now();
        signal("TERM", &[pid]);
        until("the server ends", Duration::from_secs(10), || {
            (!runs(pid)).then_some(())
        });
        let took = since.elapsed();
        assert!(took < STOPPED, "{name} stopped after {took:?}");
        until("`up` says how it ended", PATIENT, || {
            let line = format!("{name} (pid {pid}) ended: exit status: 0");
            (up.said().contains(&line) && up.pids()[&name] != pid).then_some(())
        });
    }
    load.goes_on(200);
    let done = load.stop();
    done.assert_no_errors();
    done.assert_all_there(&up.ctrlers);
}

#[test]
fn up_tells_what_keeps_a_server_down_and_what_became_of_its_plan() {
    let Some(_turn) = turn() else { return };
    let mut up = Up::start(1, 3, 1);
    up.kvctl(&["put", "k", "v"]).ok();
    signal("TERM", &[up.pid()]);
    up.ended_within(PATIENT).expect("it stops");
    let run = || {
        let mut command = bare(KVCTL);
        command.args(["up", "--data"]).arg(up.data());
        command.arg(format!("--port={}", up.ports.base));
        say(command, b"")
    };
    let plan = up.data().join("up.json");
    let sound = fs::read_to_string(&plan).expect("a plan");
    fs::remove_file(&plan).expect("removed");
    run().fails(
        1,
        "has the data of ctrler-1, kv-1-1, kv-1-2, kv-1-3, and up.json",
    );
    assert!(!plan.exists(), "a plan was made for what another one made");
    fs::write(&plan, sound.replace("\"replicas\": 3", "\"replicas\": 12")).expect("edited");
    run().fails(1, "replicas 12: expected a number from 1 to 9");
    fs::write(&plan, &sound).expect("put back");

    // A member that cannot start: the others serve, and its reason is told once.
    let identity = up.data().join("kv-1-3/IDENTITY");
    let mut bytes = fs::read(&identity).expect("an identity");
    bytes[25] ^= 1;
    fs::write(&identity, &bytes).expect("damage");
    up.again();
    assert_eq!(up.kvctl(&["get", "k"]).ok(), "v\n");
    until("it is told again", PATIENT, || {
        up.said().contains(", for the same reason").then_some(())
    });
    let said = up.said();
    assert!(said.contains("not running (see above): kv-1-3\n"), "{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{said}");

    // What a server wrote in an earlier life is no reason for its end.
    let before = up.said().len();
    signal("KILL", &[up.pids()["kv-1-1"]]);
    until("its end is told", PATIENT, || {
        up.said()[before..]
            .contains("kv-1-1 runs again")
            .then_some(())
    });
    let said = up.said()[before..].to_string();
    assert!(!said.contains("stopping"), "{said}");
}
