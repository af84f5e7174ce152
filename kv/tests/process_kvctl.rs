//! kvctl against a cluster of real processes: exit codes, messages, standard input, any bytes.

mod process;

use process::cluster::{Members, Up, kvctl};
use process::{KV, KVCTL, Ports, Running, bare, say, say_into, turn};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const MAX_VALUE: usize = 8 << 20;

#[test]
fn answers_and_exit_codes() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 1, 1);
    let with = |args: &[&str], stdin: &[u8]| kvctl(&up.ctrlers, args, stdin);
    let run = |args: &[&str]| with(args, b"");

    run(&["get", "k"]).fails(1, "k: no such key");
    run(&["delete", "k"]).fails(1, "k: no such key");
    run(&["cas", "k", "a", "b"]).fails(1, "k: not changed: the key is absent");
    assert_eq!(run(&["put", "k", "a"]).ok(), "");
    assert_eq!(run(&["get", "k"]).ok(), "a\n");
    assert_eq!(run(&["get", "--raw", "k"]).ok(), "a");
    assert_eq!(run(&["append", "k", "bc"]).ok(), "3\n");
    run(&["cas", "k", "x", "y"]).fails(1, "k: not changed: the value is abc");
    run(&["cas", "--absent", "k", "y"]).fails(1, "not changed");
    assert_eq!(run(&["cas", "k", "abc", "y"]).ok(), "");
    assert_eq!(run(&["get", "k"]).ok(), "y\n");
    assert_eq!(run(&["delete", "k"]).ok(), "");
    assert_eq!(run(&["cas", "--absent", "k", "z"]).ok(), "");
    // A value may look like a flag, and be empty.
    assert_eq!(run(&["put", "k", "--flag"]).ok(), "");
    assert_eq!(run(&["get", "k"]).ok(), "--flag\n");
    assert_eq!(run(&["put", "k", ""]).ok(), "");
    assert_eq!(run(&["get", "--raw", "k"]).ok(), "");

    assert_eq!(run(&["put", "k", "--", "--help"]).ok(), "");
    assert_eq!(run(&["get", "k"]).ok(), "--help\n");
    run(&["put", "k", "--help"]).fails(2, "kvctl put KEY -- --help");
    assert_eq!(run(&["get", "k"]).ok(), "--help\n");
    run(&["get", "\u{1b}[2Jk"]).fails(1, "\\u{1b}[2Jk: no such key");
    // Switches in the environment, and variables that are left blank.
    for (set, printed) in [
        ("1", "--help"),
        ("true", "--help"),
        ("", "--help\n"),
        ("0", "--help\n"),
    ] {
        let mut command = bare(KVCTL);
        command.env("KV_CTRLERS", &up.ctrlers).env("KV_RAW", set);
        command.env("KV_TIMEOUT", "").args(["get", "k"]);
        assert_eq!(say(command, b"").ok(), printed, "KV_RAW={set}");
    }

    // Any bytes, from standard input and as arguments.
    let bytes: Vec<u8> = (0..=255).cycle().take(1000).collect();
    with(&["put", "bytes", "-"], &bytes).ok();
    assert_eq!(run(&["get", "--raw", "bytes"]).out, bytes);
    with(&["cas", "bytes", "-", "short"], &bytes).ok();
    with(&["append", "bytes", "-"], b"\0\xff\n").ok();
    assert_eq!(run(&["get", "--raw", "bytes"]).out, b"short\0\xff\n");
    with(&["cas", "bytes", "-", "-"], b"").fails(2, "only one value");
    let mut command = bare(KVCTL);
    command.env("KV_CTRLERS", &up.ctrlers);
    let (key, value) = (OsStr::from_bytes(b"\xff\xfe"), OsStr::from_bytes(b"\x80"));
    command.arg("put").arg(key).arg(value);
    say(command, b"").ok();
    let mut command = bare(KVCTL);
    command.env("KV_CTRLERS", &up.ctrlers);
    command.args(["get", "--raw"]).arg(key);
    assert_eq!(say(command, b"").out, b"\x80");

    // The longest value, and one byte more.
    let long: Vec<u8> = (0..=255).cycle().take(MAX_VALUE + 1).collect();
    with(&["put", "long", "-"], &long[1..]).ok();
    assert!(
        run(&["get", "--raw", "long"]).out == long[1..],
        "8 MiB come back"
    );
    with(&["put", "longer", "-"], &long).fails(1, "more than 8388608");
    run(&["get", "longer"]).fails(1, "no such key");
    run(&["append", "long", "x"]).fails(1, "8388608");
    assert!(
        run(&["get", "--raw", "long"]).out == long[1..],
        "nothing changed"
    );
    let key = "k".repeat((64 << 10) + 1);
    run(&["put", &key, "v"]).fails(1, "more than 65536");
    run(&["put", &key[1..], "v"]).ok();
    assert_eq!(run(&["get", &key[1..]]).ok(), "v\n");

    // What the controllers refuse.
    run(&["move", "10", "1"]).fails(1, "10");
    run(&["move", "0", "7"]).fails(1, "7");
    run(&["unpin", "10"]).fails(1, "expected one from 0 to 9");
    run(&["leave", "7"]).fails(1, "7");
    run(&["query", "1000"]).fails(1, "1000");
    let own = format!("1=127.0.0.1:{}", up.ports.base + 11);
    run(&["join", &own]).fails(1, "group 1 is a member already");
    let elsewhere = format!("1=127.0.0.1:{}", up.ports.base + 40);
    let said = run(&["join", &elsewhere]);
    said.fails(1, "group 1 is a member already");
    assert!(said.took < Duration::from_secs(5), "waited for nobody");
    run(&["join", "--if-absent", &own]).ok();
    let another = format!("2=127.0.0.1:{}", up.ports.base + 11);
    run(&["join", &another]).fails(1, "is a member of group 1, not of group 2");
    let nobody = format!("2=127.0.0.1:{}", up.ports.base + 40);
    let said = run(&["join", "--timeout", "1", &nobody]);
    said.fails(3, "group 2 does not answer, so it cannot join");

    // The controllers' port is not a group's, nor the other way round.
    run(&["join", "--timeout", "1", &format!("2={}", up.ctrlers)])
        .fails(3, "a controller, not a member");
    let wrong = format!("127.0.0.1:{}", up.ports.base + 11);
    let said = kvctl(&wrong, &["put", "k", "v"], b"");
    said.fails(3, "this is a server of group 1, expected a controller");
    assert!(said.took < Duration::from_secs(5), "{said:?}");

    let text = run(&["status"]).ok();
    assert!(
        text.contains("configuration 1: 10 shards, 1 group"),
        "{text}"
    );
    assert!(
        text.contains("shards 0-9: serving since configuration 1"),
        "{text}"
    );
    let text = run(&[
        "bench",
        "--secs",
        "1",
        "--keys",
        "100",
        "--clients",
        "4",
        "--json",
    ])
    .ok();
    let bench: serde_json::Value = serde_json::from_str(&text).expect("bench prints JSON");
    assert!(bench.is_object(), "{text}");
}

#[test]
fn a_join_if_absent_brings_no_group_back() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(2, 1, 1);
    let group = |n: u16| format!("{n}=127.0.0.1:{}", up.ports.base + 10 * n + 1);
    let (first, second) = (group(1), group(2));
    let again = ["join", "--if-absent", &first, &second];
    let said = up.kvctl(&again).ok();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(said.matches("has joined already").count(), 2, "{said}");

    up.kvctl(&["leave", "2"]).ok();
    let config = up.kvctl(&["query", "--json"]).ok();
    let said = up.kvctl(&again).ok();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("group 1 has joined already\n"), "{said}");
    assert!(
        said.contains("group 2 left in configuration 2 and is not brought back"),
        "{said}"
    );
    assert_eq!(
        up.kvctl(&["query", "--json"]).ok(),
        config,
        "nothing changed"
    );

    up.kvctl(&["join", &second]).ok();
    let said = up.kvctl(&again).ok();
    assert_eq!(said.matches("has joined already").count(), 2, "{said}");
}

#[test]
fn a_leave_waits_on_when_asked_again_and_ends_when_the_group_joins_again() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(2, 1, 1);
    let group = |n: u16| format!("{n}=127.0.0.1:{}", up.ports.base + 10 * n + 1);
    let start = |args: &[&str]| {
        let mut command = bare(KVCTL);
        command.env("KV_CTRLERS", &up.ctrlers).args(args);
        Running::start(command)
    };
    up.kvctl(&["put", "k", "v"]).ok();
    let config = up.kvctl(&["query", "--json"]).ok();
    up.kvctl(&["leave", "1", "2"])
        .fails(1, "no group would remain after groups 1, 2");
    assert_eq!(
        up.kvctl(&["query", "--json"]).ok(),
        config,
        "nothing changed"
    );
    // Nobody is there to take what the groups hold: this leave waits until it is killed.
    let mut leave = start(&["leave", "1", "2", "--last"]);
    leave.says("waiting for group 1: ");
    leave.says("waiting for group 2: ");
    drop(leave);
    let config = up.kvctl(&["query", "--json"]).ok();
    let mut both = start(&["leave", "1", "2", "--last"]);
    both.says("waiting for group 1: ");
    both.says("waiting for group 2: ");
    let said = up.kvctl(&["leave", "2", "--no-wait"]).ok();
    assert_eq!(said, "group 2 has left in configuration 2\n");
    assert_eq!(
        up.kvctl(&["query", "--json"]).ok(),
        config,
        "nothing changed"
    );
    up.kvctl(&["leave", "2", "2", "--wait", "1"])
        .fails(1, "group 2 left and must not be shut down yet");
    let mut second = start(&["leave", "2"]);
    second.says("waiting for group 2: ");

    // Group 1 takes everything: group 2 is done, and whoever waits for group 1 waits in vain.
    up.kvctl(&["join", &group(1)]).ok();
    both.ends().fails(1, "group 1 has joined again meanwhile");
    let done = "group 2 holds nothing any more and may be shut down\n";
    assert!(second.ends().ok().ends_with(done));
    assert_eq!(up.kvctl(&["get", "k"]).ok(), "v\n");
    // The answer may be asked for afterwards too; and beside a group that does leave.
    let again = up.kvctl(&["leave", "2"]).ok();
    assert_eq!(
        again,
        format!("group 2 has left in configuration 2\n{done}")
    );
    let mut last = start(&["leave", "--last", "2", "1"]);
    last.says("warning: no group remains");
    last.says("waiting for group 1: ");
    up.kvctl(&["join", &group(2)]).ok();
    let said = last.ends().ok();
    assert!(said.contains("left in configuration 4\n"), "{said}");
    assert!(said.contains("group 1 holds nothing"), "{said}");
    // A group that never joined is refused, and so is the whole.
    up.kvctl(&["leave", "2", "7"])
        .fails(1, "group 7 is not a member");
    assert!(up.kvctl(&["query"]).ok().contains("group 2  10 shards"));
}

#[test]
fn a_join_names_every_member_of_the_group_or_is_refused() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 1, 1);
    let mut members = Members::new(up.dir.path(), 2, up.ports.base + 40, &up.ctrlers);
    for server in &mut members.servers {
        server.start();
    }
    let all = members.spec();
    let config = up.kvctl(&["query"]).ok();
    let [one, two] = [1, 2].map(|n| format!("2={}", members.addresses[..n].join(",")));
    for spec in [one, two] {
        let said = up.kvctl(&["join", &spec]);
        said.fails(1, "group 2 has 3 members");
        assert!(said.err.contains(&all), "{said:?}");
    }
    // A stranger in the list.
    let own = members.addresses[..2].join(",");
    let stranger = format!("2={own},127.0.0.1:{}", up.ports.base + 11);
    up.kvctl(&["join", &stranger])
        .fails(1, "is a member of group 1, not of group 2");
    assert_eq!(up.kvctl(&["query"]).ok(), config, "nothing changed");
    // Other names for the same members are the operator's to give; and one may be down.
    let port = members.addresses[0].rsplit(':').next().expect("a port");
    let other_name = all.replace(&members.addresses[0], &format!("localhost:{port}"));
    members.servers[2].stop();
    let said = up.kvctl(&["join", &other_name]);
    assert!(said.err.contains("know each other as"), "{said:?}");
    let silent = format!("nothing heard from {}", members.addresses[2]);
    assert!(said.err.contains(&silent), "{said:?}");
    said.ok();
    up.kvctl(&["put", "k", "v"]).ok();
    assert_eq!(up.kvctl(&["get", "k"]).ok(), "v\n");
}

/// Outputs that take nothing: a full disk, and a pipe that nobody reads.
fn deaf() -> [Stdio; 2] {
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let (reader, pipe) = std::io::pipe().expect("a pipe");
    drop(reader);
    [full.expect("a full device").into(), pipe.into()]
}

#[test]
fn a_change_is_done_whether_or_not_it_can_be_printed() {
    let Some(_turn) = turn() else { return };
    if !Path::new("/dev/full").exists() {
        return;
    }
    let up = Up::start(2, 1, 1);
    let run = |args: &[&str], out: Stdio| {
        let mut command = bare(KVCTL);
        command.env("KV_CTRLERS", &up.ctrlers).args(args);
        say_into(command, b"", Some(out))
    };
    let second = format!("2=127.0.0.1:{}", up.ports.base + 21);
    let mut value = String::new();
    for out in deaf() {
        value.push('x');
        let said = run(&["append", "k", "x"], out);
        assert_eq!(said.code, Some(0), "{said:?}");
        let line = format!("): {}\n", value.len());
        assert!(
            said.err.contains("warning") && said.err.ends_with(&line),
            "{said:?}"
        );
        assert_eq!(up.kvctl(&["get", "k"]).ok(), format!("{value}\n"));
    }
    for (args, line) in [
        (&["move", "0", "1"][..], "shard 0 belongs to group 1"),
        (&["unpin", "0"], "shard 0 is not pinned"),
        (&["leave", "2"], "group 2 holds nothing any more"),
        (&["join", &second], "group 2 joined in configuration"),
        (&["join", "--if-absent", &second], "has joined"),
    ] {
        for (out, again) in deaf().into_iter().zip([false, true]) {
            if again && args[0] == "leave" {
                up.kvctl(&["join", &second]).ok();
            }
            if again && args == ["join", &second] {
                up.kvctl(&["leave", "2"]).ok();
            }
            let said = run(args, out);
            assert_eq!(said.code, Some(0), "{args:?}: {said:?}");
            assert!(
                said.err.contains("warning") && said.err.contains(line),
                "{said:?}"
            );
        }
    }
    // What is read and cannot be printed is neither found nor missing.
    for args in [
        &["get", "k"][..],
        &["get", "--raw", "k"],
        &["query"],
        &["query", "--json"],
        &["status"],
    ] {
        let [full, gone] = deaf();
        run(args, full).fails(5, "cannot print the answer");
        // Whoever read it has seen enough.
        let said = run(args, gone);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{args:?}");
    }
    for out in deaf() {
        run(&["get", "absent"], out).fails(1, "no such key");
    }
    // Standard error may be gone as well: the exit code is the same.
    for (args, code) in [(&["get", "absent"][..], 1), (&["cas", "k", "a", "b"], 1)] {
        let mut command = bare(KVCTL);
        command.env("KV_CTRLERS", &up.ctrlers).args(args);
        let [full, _] = deaf();
        let status = command.stdin(Stdio::null()).stderr(full).status();
        assert_eq!(status.expect("it starts").code(), Some(code), "{args:?}");
    }
}

#[test]
fn usage_errors_exit_2_and_say_what_was_expected() {
    let Some(_turn) = turn() else { return };
    let run = |program: &str, args: &[&str]| {
        let mut command = bare(program);
        command.args(args);
        say(command, b"")
    };
    for (args, expected) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["get"], "KEY"),
        (&["get", "--nonsense", "k"], "--nonsense"),
        (&["nonsense"], "nonsense"),
        (&["put", "k"], "VALUE"),
        (&["move", "x", "1"], "expected a whole number from 0"),
        (&["unpin", "x"], "expected a whole number from 0"),
        (&["move", "0", "0"], "expected a number from 1"),
        (&["join", "1"], "expected GID=HOST:PORT"),
        (&["join", "1=host"], "host"),
        (&["join", "1=host:99999"], "99999"),
        (&["get", "k", "--ctrlers", "nowhere"], "nowhere"),
        (&["get", "k", "--ctrlers", "a:1,a:1"], "given twice"),
        (&["get", "k", "--timeout", "0"], "--timeout"),
        (&["cas", "k", "only-one"], "expected KEY OLD NEW"),
        (&["bench", "--reads", "2"], "from 0 to 1"),
        (&["up", "--groups", "0"], "from 1 to 100"),
        (&["up", "--replicas", "x"], "from 1 to 9"),
        (&["up", "--shards", "x"], "from 1 to 16384"),
        (&["up", "--port", "70000"], "from 1 to 65535"),
        (
            &["up", "--port", "65530"],
            "the last server would need port",
        ),
    ] {
        run(KVCTL, args).fails(2, expected);
    }
    let good = [
        "--group=1",
        "--id=1",
        "--peers=1=127.0.0.1:1",
        "--ctrlers=127.0.0.1:2",
        "--data=/",
    ];
    for (bad, expected) in [
        ("--nonsense", "--nonsense"),
        ("--group=0", "expected a number from 1"),
        ("--id=x", "expected a number from 1"),
        ("--peers=127.0.0.1:1", "expected ID=HOST:PORT"),
        ("--peers=1=127.0.0.1", "127.0.0.1"),
        ("--peers=1=127.0.0.1:0", "127.0.0.1:0"),
        ("--peers=1=a:1,1=b:1", "peer 1 is given twice"),
        ("--peers=1=a:1,2=a:1", "a:1 is given twice"),
        ("--ctrlers=", "HOST:PORT"),
        ("--listen=here", "here"),
    ] {
        let flag = bad.split('=').next().unwrap_or(bad);
        let mut args: Vec<&str> = good.to_vec();
        args.retain(|arg| !arg.starts_with(&format!("{flag}=")));
        args.push(bad);
        run(KV, &args).fails(2, expected);
    }
    let mut args: Vec<&str> = good.to_vec();
    args[1] = "--id=2";
    run(KV, &args).fails(1, "--id 2 is not among --peers");
    for program in [KVCTL, KV] {
        let said = run(program, &["--version"]).ok();
        assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
        assert!(run(program, &["--help"]).ok().contains("Usage"));
    }
    let mut command = bare(KV);
    command.args(good).env("RUST_LOG", "kv=loudest");
    say(command, b"").fails(1, "RUST_LOG=\"kv=loudest\"");
}

#[test]
fn without_a_cluster_it_says_so_in_time() {
    let Some(_turn) = turn() else { return };
    let ports = Ports::find();
    let ctrlers = format!("127.0.0.1:{}", ports.base);
    for args in [
        &["get", "k"][..],
        &["put", "k", "v"],
        &["status"],
        &["query"],
        &["move", "0", "1"],
    ] {
        let mut args = args.to_vec();
        args.extend(["--timeout", "1"]);
        let said = kvctl(&ctrlers, &args, b"");
        said.fails(3, &ctrlers);
        assert!(said.took < Duration::from_secs(3), "{args:?}: {said:?}");
    }
}
