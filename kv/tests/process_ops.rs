//! What an operator asks of the programs: health, readiness, a status that is true, a client that
//! does not wait in silence, logs that are kept.

mod process;

use process::cluster::{Members, Up, kv_args, kvctl, peers};
use process::{
    KV, KVCTL, Ports, Said, Server, TempDir, bare, runs, say, signal, text_of, turn, until,
};
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

fn run(program: &str, args: &[&str]) -> Said {
    let mut command = bare(program);
    command.args(args);
    say(command, b"")
}

#[test]
fn nobody_at_the_controllers_ports_is_told_before_the_deadline() {
    let Some(_turn) = turn() else { return };
    let ports = Ports::find();
    let ctrlers = format!("127.0.0.1:{},127.0.0.1:{}", ports.base, ports.base + 1);
    for args in [&["get", "k"][..], &["put", "k", "v"], &["status"]] {
        let said = kvctl(&ctrlers, args, b"");
        said.fails(3, "`kvctl up` runs one on this machine");
        // Each address once.
        assert_eq!(said.err.matches(&ctrlers[..15]).count(), 1, "{said:?}");
        assert!(said.took < Duration::from_secs(8), "{args:?}: {said:?}");
    }
}

#[test]
fn results_can_be_had_as_json_and_writes_in_batches() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(2, 1, 1);
    let json = |args: &[&str]| -> (Option<i32>, Value) {
        let said = up.kvctl(&[&args[..1], &["--json"], &args[1..]].concat());
        (
            said.code,
            serde_json::from_slice(&said.out).unwrap_or_else(|e| panic!("{e}: {said:?}")),
        )
    };
    for (args, code, answer) in [
        (&["put", "k", "v"][..], 0, json!({"key": "k", "length": 1})),
        (
            &["get", "k"],
            0,
            json!({"key": "k", "found": true, "value": "v"}),
        ),
        (&["get", "x"], 1, json!({"key": "x", "found": false})),
        (&["append", "k", "w"], 0, json!({"key": "k", "length": 2})),
        (
            &["cas", "k", "a", "b"],
            1,
            json!({"key": "k", "changed": false, "exists": true, "value": "vw"}),
        ),
        (
            &["cas", "k", "vw", "b"],
            0,
            json!({"key": "k", "changed": true}),
        ),
        (&["delete", "k"], 0, json!({"key": "k", "deleted": true})),
        (&["delete", "k"], 1, json!({"key": "k", "deleted": false})),
        (
            &["move", "3", "2"],
            0,
            json!({"shard": 3, "group": 2, "config": 2}),
        ),
    ] {
        assert_eq!(json(args), (Some(code), answer), "{args:?}");
    }
    // A value that is no text.
    let put = kvctl(&up.ctrlers, &["put", "bytes", "-"], b"\xff\x00");
    put.ok();
    let (_, answer) = json(&["get", "bytes"]);
    assert_eq!(answer["value_hex"], "ff00");
    assert_eq!(
        up.kvctl(&["get", "--raw", "bytes", "--json"]).out,
        b"\xff\0"
    );
    // Pins are told of.
    let pinned = "pinned to group 2 by move: shard 3\n";
    assert!(up.kvctl(&["query"]).ok().contains(pinned));
    assert!(up.kvctl(&["status"]).ok().contains(pinned));

    let batch = |text: &str| kvctl(&up.ctrlers, &["batch"], text.as_bytes());
    let said = batch("put {b}1 x\nappend {b}1 yz\n[\"put\",\"{b}2\",\"two words\"]\n").ok();
    assert_eq!(said, "{b}1: 1 bytes\n{b}1: 3 bytes\n{b}2: 9 bytes\n");
    let said = up.kvctl(&["mget", "{b}1", "{b}2"]).ok();
    assert_eq!(said, "{b}1\txyz\n{b}2\ttwo words\n");
    up.kvctl(&["mget", "{b}1", "nowhere"])
        .fails(1, "nowhere: no such key");
    // All or nothing.
    let said = batch("put {b}1 changed\ncas {b}2 other new\n");
    said.fails(1, "nothing was changed");
    assert_eq!(up.kvctl(&["get", "{b}1"]).ok(), "xyz\n");
    batch("put a 1\nput\n").fails(2, "line 2");
    up.kvctl(&["cas", "{b}1", "a", "b"])
        .fails(1, "error: {b}1: not changed: the value is xyz");
    up.kvctl(&["cas", "--absent", "{b}1", "b"])
        .fails(1, "error: {b}1: not changed: the value is xyz");
}

#[test]
fn what_other_stores_call_a_command_is_suggested_and_shells_can_complete() {
    let Some(_turn) = turn() else { return };
    for (wrong, right) in [("set", "put"), ("del", "delete"), ("gett", "get")] {
        let said = run(KVCTL, &[wrong, "k"]);
        said.fails(2, &format!("'{right}'"));
        assert!(said.err.contains("similar"), "{said:?}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = run(KVCTL, &["completions", shell]).ok();
        assert!(script.contains("mget"), "{shell}: {script}");
    }
    for command in ["put", "cas", "join", "batch", "status"] {
        assert!(
            run(KVCTL, &[command, "--help"]).ok().contains("Example"),
            "{command}"
        );
    }
}

#[test]
fn a_bench_leaves_nothing_behind_unless_it_is_told_to() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 1, 1);
    let keys = || -> u64 {
        let status = up.status();
        let shards = status["groups"][0]["shards"].as_array().expect("shards");
        shards.iter().filter_map(|s| s["keys"].as_u64()).sum()
    };
    let bench = |more: &[&str]| {
        let args = ["bench", "--secs", "1", "--clients", "2", "--reads", "0"];
        up.kvctl(&[&args[..], more].concat())
    };
    up.kvctl(&["put", "bench", "mine"]).ok();
    // A long value takes none of the second.
    let said = bench(&["--keys", "4", "--value", "1000000", "--json"]);
    let text = said.ok();
    let result: Value = serde_json::from_str(&text).expect("JSON");
    assert!(result["writes"]["count"].as_u64() > Some(0), "{text}");
    assert_eq!(keys(), 1, "its own are gone");
    bench(&["--keys", "300", "--preload", "--keep"]).ok();
    assert_eq!(keys(), 301);
    bench(&["--keys", "300", "--preload"]).ok();
    assert_eq!(keys(), 1);
}

#[test]
fn a_member_without_a_leader_is_alive_and_not_ready_and_status_says_what_is_not_served() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 1, 1);
    let mut members = Members::new(up.dir.path(), 2, up.ports.base + 40, &up.ctrlers);
    for server in &mut members.servers {
        server.start();
    }
    let ask = |server: &Server, flag: &str| {
        let mut command = server.command();
        command.arg(flag);
        say(command, b"")
    };
    // Before it joins: it was born, and enters nothing.
    until("it is ready", Duration::from_secs(20), || {
        (ask(&members.servers[0], "--ready").code == Some(0)).then_some(())
    });
    up.kvctl(&["join", &members.spec()]).ok();
    // Until its five shards have arrived, their old owner serves them.
    up.settled();
    up.kvctl(&["status"]).ok();
    let status = up.status();
    let member = &status["groups"][0]["members"][0];
    assert!(member["disk_free_bytes"].as_u64() > Some(0), "{member}");
    assert!(member["disk_short"].is_boolean(), "{member}");
    assert_eq!(member.get("writes_limited"), Some(&Value::Null), "{member}");
    until("it is ready again", Duration::from_secs(20), || {
        (ask(&members.servers[0], "--ready").code == Some(0)).then_some(())
    });
    members.servers[1].kill();
    members.servers[2].kill();
    // A busy machine may give it another reason before.
    until("it has no leader", Duration::from_secs(20), || {
        let said = ask(&members.servers[0], "--ready");
        (said.code == Some(1) && said.err.contains("no leader is known")).then_some(())
    });
    ask(&members.servers[0], "--health").ok();
    let said = up.kvctl(&["status"]);
    assert_eq!(said.code, Some(1), "{said:?}");
    let text = String::from_utf8_lossy(&said.out).into_owned();
    let first = text.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("NOT SERVED: shards ")
            && first.ends_with(" (group 2 has no leader that answers)"),
        "{text}"
    );
    assert_eq!(said.err, "", "said once");
    assert_eq!(
        up.status()["not_served"][0]["shards"]
            .as_array()
            .map(Vec::len),
        Some(5)
    );
    for program in [KV, env!("CARGO_BIN_EXE_kvctl")] {
        let help = run(program, &["--help"]).ok();
        assert!(
            program == KVCTL || help.contains("--ready") && help.contains("--health"),
            "{help}"
        );
    }
}

#[test]
fn a_group_that_waits_for_its_birth_says_for_whom() {
    let Some(_turn) = turn() else { return };
    let (ports, dir) = (Ports::find(), TempDir::new());
    let ctrlers = format!("127.0.0.1:{}", ports.base);
    let mut members = Members::new(dir.path(), 1, ports.base + 10, &ctrlers);
    members.servers[0].start();
    members.servers[1].start();
    until("it says so", Duration::from_secs(20), || {
        members.servers[0]
            .said()
            .contains("waits_for=[3]")
            .then_some(())
    });
    let said = members.servers[0].said();
    assert!(
        said.contains("not born yet") && said.contains(&members.addresses[2]),
        "{said}"
    );
    // Not with every round, of which there are five in a second.
    assert!(said.matches("not born yet").count() < 6, "{said}");
    let mut ready = members.servers[0].command();
    ready.arg("--ready");
    say(ready, b"").fails(1, &members.addresses[2]);
    members.servers[2].start();
    until("it is born", Duration::from_secs(20), || {
        members.servers[0].said().contains("may vote").then_some(())
    });
}

#[test]
fn a_group_whose_members_changed_address_is_found_and_can_be_named_anew() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 1, 1);
    let port = |n: u16| format!("127.0.0.1:{}", up.ports.base + n);
    let args = |at: &str| kv_args(2, 1, &peers(&[at.to_string()]), &up.ctrlers, at);
    let mut member = Server::new(up.dir.path(), "kv-2-1", KV, args(&port(41)));
    member.start();
    up.kvctl(&["join", &format!("2={}", port(41))]).ok();
    up.kvctl(&["put", "k", "v"]).ok();
    let served = |what: &str| {
        until(what, Duration::from_secs(20), || {
            (up.kvctl(&["status"]).code == Some(0)).then_some(())
        });
    };
    served("both groups serve");
    // It has told the controllers all that it has to tell: reports have its own addresses.
    until("it has settled the newest", Duration::from_secs(20), || {
        let status = up.status();
        let groups = status["groups"].as_array()?;
        let group = groups.iter().find(|group| group["group"] == 2)?;
        (group["settled"] == status["config"]["num"]).then_some(())
    });
    // Moved: the configuration knows the old address, and the newest record gets the new one.
    member.stop();
    member.args = args(&port(42));
    member.start();
    until("its new address is taken", Duration::from_secs(20), || {
        let said = up.kvctl(&["join", &format!("2={}", port(42))]);
        let known = said.err == "error: group 2 is a member already\n";
        (said.code == Some(0) || known).then_some(())
    });
    served("it is found at its new address");
    let text = up.kvctl(&["status"]).ok();
    assert!(
        text.contains(&port(42)) && !text.contains(&port(41)),
        "{text}"
    );
    // A join with another name for the same group refreshes its addresses, and makes no configuration.
    let config = up.status()["config"]["num"].clone();
    let by_name = format!("localhost:{}", up.ports.base + 42);
    let said = up.kvctl(&["join", &format!("2={by_name}")]).ok();
    assert!(said.contains("it is now reached at"), "{said}");
    let text = up.kvctl(&["status"]).ok();
    assert!(text.contains(&by_name), "{text}");
    assert_eq!(up.status()["config"]["num"], config);
    // The group itself, just started, may report its addresses once more in between.
    until("a join says nothing new", Duration::from_secs(20), || {
        let said = up.kvctl(&["join", &format!("2={by_name}")]);
        said.err
            .contains("group 2 is a member already")
            .then(|| said.fails(1, "group 2 is a member already"))
    });
    // The members of another group are none of its addresses.
    up.kvctl(&["join", &format!("2={}", port(11))])
        .fails(1, "is a member of group 1, not of group 2");
    assert!(up.kvctl(&["status"]).ok().contains(&by_name));
}

#[test]
fn up_keeps_logs_that_are_moved_names_its_children_and_grows() {
    let Some(_turn) = turn() else { return };
    let mut up = Up::start(1, 1, 1);
    assert!(
        up.said().contains("no failure of one is survived"),
        "{}",
        up.said()
    );
    let pid = up.pids()["kv-1-1"];
    if fs::exists("/proc/self/comm").unwrap_or(false) {
        let comm = text_of(format!("/proc/{pid}/comm").as_ref());
        assert_eq!(comm, "kv\n");
        let line = text_of(format!("/proc/{pid}/cmdline").as_ref());
        assert!(line.starts_with("kv\0"), "{line}");
    }
    let log = up.data().join("kv-1-1.log");
    assert!(text_of(&log).contains("kv server started"));
    // Removed: what it says from then on is in a new file.
    fs::remove_file(&log).expect("the log");
    signal("TERM", &[pid]);
    until("it runs again", Duration::from_secs(20), || {
        (up.pids()["kv-1-1"] != pid).then_some(())
    });
    until("the new log has its start", Duration::from_secs(20), || {
        text_of(&log).contains("kv server started").then_some(())
    });
    assert!(text_of(&log).contains("stopping"), "{}", text_of(&log));
    // Nothing was wrong with that end, and nothing of its log is shown.
    let said = up.said();
    assert!(
        said.contains("ended: exit status: 0") && !said.contains("INFO"),
        "{said}"
    );
    // A server that cannot start is told of with its reason, also where its log was moved away.
    let identity = up.data().join("kv-1-1").join("IDENTITY");
    fs::rename(&log, up.data().join("elsewhere.log")).expect("moved");
    let pid = up.pids()["kv-1-1"];
    signal("KILL", &[pid]);
    // While it runs it may save its identity again; it is started a second after its end.
    until("it has ended", Duration::from_secs(20), || {
        (!runs(pid)).then_some(())
    });
    let kept = fs::read(&identity).expect("its identity");
    fs::write(&identity, b"nonsense").expect("damaged");
    until("it is told why", Duration::from_secs(20), || {
        up.said().contains("\n    error: ").then_some(())
    });
    fs::write(&identity, kept).expect("mended");
    // Stopped, and started again with one group more.
    signal("TERM", &[up.pid()]);
    let ended = up.ended_within(Duration::from_secs(20));
    assert!(
        ended.is_some_and(|status| status.success()),
        "{}",
        up.said()
    );
    up.set("--groups", 2);
    up.again();
    let status = up.status();
    assert_eq!(status["groups"].as_array().map(Vec::len), Some(2));
    until("the new one serves", Duration::from_secs(20), || {
        let text = up.kvctl(&["query"]).ok();
        text.contains("group 2  5 shards").then_some(())
    });
}

#[test]
fn a_clients_error_names_what_made_it_unknown_and_each_address_once() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 1, 1);
    up.kvctl(&["put", "k", "v"]).ok();
    let address = format!("127.0.0.1:{}", up.ports.base + 11);
    let pid = up.pids()["kv-1-1"];
    signal("STOP", &[pid]);
    let said = kvctl(&up.ctrlers, &["put", "k", "w", "--timeout", "1500ms"], b"");
    signal("CONT", &[pid]);
    assert!(matches!(said.code, Some(3 | 4)), "{said:?}");
    assert_eq!(said.err.matches(&address).count(), 1, "{said:?}");
    let _keeps = TempDir::new();
}
