//! kvctl without a cluster: its arguments, its plan of a cluster, its histogram.

use clap::{CommandFactory, FromArgMatches, Parser};
use kv::ctl::args::{Command, Common, DEFAULT_CTRLERS, GroupSpec};
use kv::ctl::data::read_stdin;
use kv::ctl::histogram::Histogram;
use kv::ctl::plan::{Plan, Up};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Parser)]
#[command(name = "kvctl")]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

fn parse(args: &[&str]) -> Result<Cli, String> {
    // Variables of the machine that runs the test must not matter.
    let command = Cli::command().mut_args(|arg| arg.env(None::<&str>));
    let matches = command
        .try_get_matches_from([&["kvctl"], args].concat())
        .map_err(|error| error.to_string())?;
    Cli::from_arg_matches(&matches).map_err(|error| error.to_string())
}

#[test]
fn every_argument_is_well_formed() {
    Cli::command().debug_assert();
}

#[test]
fn controllers_may_stand_before_and_after_the_command() {
    let ctrlers = |args: &[&str]| {
        let cli = parse(args).expect("well-formed");
        cli.command.common(&cli.common).ctrlers.0.join(",")
    };
    assert_eq!(ctrlers(&["get", "k"]), DEFAULT_CTRLERS);
    assert_eq!(ctrlers(&["--ctrlers", "a:1,b:2", "get", "k"]), "a:1,b:2");
    assert_eq!(ctrlers(&["get", "k", "--ctrlers", "c:3"]), "c:3");
}

#[test]
fn bad_arguments_are_refused_with_what_was_expected() {
    for (args, says) in [
        (&["get"][..], "<KEY>"),
        (&["get", "k", "--nonsense"], "--nonsense"),
        (&["--ctrlers", "nonsense", "get", "k"], "HOST:PORT"),
        (&["--timeout", "0", "get", "k"], "from 1 to 86400"),
        (&["--timeout", "x", "get", "k"], "from 1 to 86400"),
        (&["get", "k", "--timeout", "1.5"], "from 1 to 86400"),
        (&["join", "nonsense"], "GID=HOST:PORT"),
        (&["join", "0=a:1"], "a number from 1"),
        (&["join", "1=a:99999"], "HOST:PORT"),
        (&["leave"], "<GID>"),
        (&["leave", "x"], "a number from 1"),
        (&["move", "-1", "1"], "-1"),
        (&["move", "x", "1"], "from 0 to 16383"),
        (&["move", "16384", "1"], "from 0 to 16383"),
        (&["query", "-2"], "-2"),
        (&["query", "abc"], "a whole number from 0"),
        (&["bench", "--reads", "1.5"], "from 0 to 1"),
        (&["bench", "--clients", "0"], "from 1 to 65536"),
        (&["bench", "--depth", "deep"], "from 1 to 1024"),
        (&["bench", "--keys", ""], "a whole number from 1"),
        (&["bench", "--secs", "x"], "from 1 to 86400"),
        (&["bench", "--connections", "x"], "from 1 to 256"),
        (&["bench", "--value", "99999999"], "8388608"),
        (&["frobnicate"], "frobnicate"),
    ] {
        let refused = parse(args)
            .err()
            .unwrap_or_else(|| panic!("{args:?} was accepted"));
        assert!(refused.contains(says), "{args:?}: {refused}");
    }
    // What is in the ranges is taken, ends included.
    for args in [
        &["move", "0", "1"][..],
        &["move", "16383", "1"],
        &["query", "18446744073709551615"],
        &["get", "k", "--timeout", "86400"],
    ] {
        assert!(parse(args).is_ok(), "{args:?}");
    }
}

#[test]
fn a_group_is_its_number_and_its_addresses() {
    let spec: GroupSpec = "3=a:1,b:2,[::1]:3".parse().expect("well-formed");
    assert_eq!((spec.group, spec.servers.len()), (3, 3));
    assert!(
        "3=a:1,a:1".parse::<GroupSpec>().is_err(),
        "an address given twice"
    );
}

#[test]
fn a_dash_reads_standard_input_once() {
    let mut put = parse(&["put", "k", "-"]).expect("well-formed").command;
    read_stdin(&mut put.values(), &mut &b"a\x00\xffb"[..]).expect("readable");
    assert_eq!(put.values()[0].as_encoded_bytes(), b"a\x00\xffb");
    let mut cas = parse(&["cas", "k", "-", "-"]).expect("well-formed").command;
    let refused = read_stdin(&mut cas.values(), &mut &b""[..]).expect_err("two of them");
    assert_eq!(refused.code, 2);
    // A value that is no dash is left alone, and nothing is read.
    let mut put = parse(&["put", "k", "--v"]).expect("well-formed").command;
    read_stdin(&mut put.values(), &mut &b"x"[..]).expect("nothing to read");
    assert_eq!(*put.values()[0], "--v");
}

fn up() -> Up {
    Up {
        data: PathBuf::from("dir"),
        ..Up::default()
    }
}

#[test]
fn a_plan_has_every_server_once() {
    let plan = Plan::make(&up(), None).expect("the defaults");
    let servers = plan.servers();
    assert_eq!(servers.len(), 3 + 2 * 3);
    let mut addresses: Vec<&str> = servers.iter().map(|s| s.address.as_str()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), servers.len());
    assert_eq!(plan.ctrlers().join(","), DEFAULT_CTRLERS);
    let member = &servers[3];
    assert_eq!((member.name.as_str(), member.group), ("kv-1-1", 1));
    let line = member.args.join(" ");
    assert!(
        line.contains("--peers 1=127.0.0.1:7011,2=127.0.0.1:7012,3=127.0.0.1:7013"),
        "{line}"
    );
    assert!(
        line.contains(&format!("--ctrlers {DEFAULT_CTRLERS}")),
        "{line}"
    );
    assert!(
        line.contains("--listen 127.0.0.1:7011 --exit-with-stdin"),
        "{line}"
    );
}

#[test]
fn a_directory_keeps_what_it_was_made_with() {
    let made = Plan::make(
        &Up {
            groups: Some(4),
            shards: Some(7),
            ..up()
        },
        None,
    )
    .expect("new");
    let text = serde_json::to_vec(&made).expect("plain data");
    assert_eq!(Plan::parse(&text), Ok(made.clone()));
    assert_eq!(Plan::make(&up(), Some(made.clone())), Ok(made.clone()));
    let same = Up {
        groups: Some(4),
        ..up()
    };
    assert_eq!(Plan::make(&same, Some(made.clone())), Ok(made.clone()));
    for (other, flag) in [
        (
            Up {
                groups: Some(2),
                ..up()
            },
            "--groups",
        ),
        (
            Up {
                shards: Some(10),
                ..up()
            },
            "--shards",
        ),
        (
            Up {
                replicas: Some(1),
                ..up()
            },
            "--replicas",
        ),
        (
            Up {
                ctrlers: Some(1),
                ..up()
            },
            "--ctrlers",
        ),
        (
            Up {
                port: Some(8000),
                ..up()
            },
            "--port",
        ),
    ] {
        let refused = Plan::make(&other, Some(made.clone())).expect_err("another cluster");
        assert_eq!(refused.matches(flag).count(), 2, "says both: {refused}");
    }
    assert!(Plan::parse(b"{}").is_err());
    let newer = String::from_utf8(text)
        .expect("text")
        .replace("\"version\":1", "\"version\":9");
    assert!(Plan::parse(newer.as_bytes()).is_err_and(|why| why.contains('9')));
    let high = Plan::make(
        &Up {
            port: Some(65_530),
            ..up()
        },
        None,
    );
    assert!(high.is_err_and(|why| why.contains("65530")));
}

#[test]
fn quantiles_are_within_two_percent() {
    let mut histogram = Histogram::default();
    assert_eq!(histogram.quantile(0.5), Duration::ZERO);
    for us in 1..=10_000 {
        histogram.add(Duration::from_micros(us));
    }
    for (q, us) in [(0.5, 5_000.0), (0.99, 9_900.0), (0.999, 9_990.0)] {
        let found = histogram.quantile(q).as_secs_f64() * 1e6;
        assert!(
            (found / us - 1.0).abs() < 0.02,
            "{q}: {found} instead of {us}"
        );
    }
    assert_eq!(histogram.max(), Duration::from_millis(10));
    // Longer than it tells apart: counted in the last bucket, and the maximum is exact.
    histogram.add(Duration::from_secs(1 << 20));
    assert_eq!(
        histogram.quantile(1.0),
        histogram.max().min(Duration::from_nanos((1 << 40) - 1))
    );
}
