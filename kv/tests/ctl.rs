//! kvctl without a cluster: its arguments, its plan of a cluster, its joins, its histogram.

use bytes::Bytes;
use clap::{CommandFactory, FromArgMatches, Parser};
use ctrler::config::{Group, GroupId, Record};
use ctrler::program::client_hello;
use kv::ctl::args::{Command, Common, DEFAULT_CTRLERS, GroupSpec};
use kv::ctl::data::read_stdin;
use kv::ctl::histogram::Histogram;
use kv::ctl::plan::{Plan, Up};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::net::{BoxFuture, Hello, Limits, Server, Service};

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
fn a_time_is_seconds_or_has_a_unit() {
    let timeout = |text: &str| {
        let cli = parse(&["get", "k", "--timeout", text]).expect("well-formed");
        cli.command.common(&cli.common).deadline().as_millis()
    };
    for (text, ms) in [
        ("10", 10_000),
        ("0.5", 500),
        ("1s", 1_000),
        ("1.5s", 1_500),
        ("500ms", 500),
        ("2m", 120_000),
        ("24h", 86_400_000),
    ] {
        assert_eq!(timeout(text), ms, "{text}");
    }
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
        (&["--timeout", "0", "get", "k"], "from 1ms to 86400"),
        (&["--timeout", "x", "get", "k"], "from 1ms to 86400"),
        (&["get", "k", "--timeout", "1.5d"], "such as 500ms"),
        (&["get", "k", "--timeout", "25h"], "from 1ms to 86400"),
        (&["get", "k", "--timeout=-1"], "from 1ms to 86400"),
        (&["get", "k", "--timeout", "nan"], "from 1ms to 86400"),
        (&["mget"], "<KEY>"),
        (&["join", "nonsense"], "GID=HOST:PORT"),
        (&["join", "0=a:1"], "a number from 1"),
        (&["join", "1=a:99999"], "HOST:PORT"),
        (&["leave"], "<GID>"),
        (&["leave", "x"], "a number from 1"),
        (&["leave", "1", "--wait", "0"], "from 1 to 31536000"),
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
fn values_may_look_like_flags_and_help_is_none_of_them() {
    let values = |args: &[&str]| {
        let mut command = parse(args).expect("well-formed").command;
        let values = command.values();
        values.into_iter().map(|v| v.clone()).collect::<Vec<_>>()
    };
    assert_eq!(values(&["put", "k", "-1"]), ["-1"]);
    assert_eq!(values(&["cas", "k", "-1", "--2"]), ["-1", "--2"]);
    assert_eq!(values(&["cas", "--absent", "k", "-x"]), ["-x"]);
    assert_eq!(values(&["put", "k", "--", "--help"]), ["--help"]);
    // Clap prints the help for these, whatever stands before it, and calls that a success.
    for (args, for_value) in [
        (&["kvctl", "put", "k", "--help"][..], true),
        (&["kvctl", "put", "k", "-h"], true),
        (&["kvctl", "--timeout", "3", "cas", "k", "a", "-h"], true),
        (&["kvctl", "put", "--help"], false),
        (&["kvctl", "append", "-h"], false),
        (&["kvctl", "--help"], false),
        (&["kvctl", "get", "k", "--help"], false),
    ] {
        assert_eq!(Command::is_help_for_value(args), for_value, "{args:?}");
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

/// A controller that makes joins, and says of those of its first session that it cannot know.
struct Doubtful {
    records: Mutex<Records>,
    /// The groups that it was asked to join, by session.
    asked: Mutex<BTreeMap<u64, Vec<GroupId>>>,
    lose: Lose,
}

type Records = BTreeMap<GroupId, Record>;

#[derive(Clone, Copy, PartialEq)]
enum Lose {
    Nothing,
    /// The answers of the first session.
    Answers,
    /// Those, and its join is made just before the next one arrives.
    AnswersOfLateJoins,
}

fn member(id: GroupId, servers: &[&str]) -> (GroupId, Record) {
    let group = Group {
        servers: servers.iter().map(|s| s.to_string()).collect(),
        birth: u128::from(id),
    };
    let record = Record {
        group,
        settled: 0,
        holds: false,
        left: None,
    };
    (id, record)
}

impl Doubtful {
    fn join(&self, session: u64, groups: BTreeMap<GroupId, Group>) -> ctrler::api::Response {
        use ctrler::api::Response;
        let (mut records, mut asked) = (self.records.lock().unwrap(), self.asked.lock().unwrap());
        let ids: Vec<GroupId> = groups.keys().copied().collect();
        let new = ids.iter().map(|id| member(*id, &["a:1"]));
        let is_first = asked.insert(session, ids.clone()).is_none();
        match (session, self.lose) {
            (1, Lose::Answers) if is_first => records.extend(new.clone()),
            (2, Lose::AnswersOfLateJoins) => records.extend(new.clone()),
            _ => {}
        }
        if session == 1 && self.lose != Lose::Nothing {
            return Response::Unknown;
        }
        if let Some(group) = ids.iter().find(|group| records.contains_key(group)) {
            return Response::Invalid(format!("group {group} is a member already"));
        }
        if groups.values().any(|group| group.servers.is_empty()) {
            return Response::Invalid("a group without servers".into());
        }
        records.extend(new);
        Response::Done(1)
    }
}

impl Service for Doubtful {
    fn welcome(&self, _: &Hello) -> Result<Hello, String> {
        Ok(Hello {
            group: Some(0),
            node: 1,
            ..client_hello()
        })
    }

    fn mail(&self, _: &Hello, _: u8, _: Bytes) {}

    fn call(&self, _: &Hello, _: u8, _: Duration, body: Bytes) -> BoxFuture<Bytes> {
        use ctrler::api::{Change, Request, Response};
        let answer = match postcard::from_bytes(&body).expect("a request") {
            Request::Open => Response::Session(self.asked.lock().unwrap().len() as u64 + 1),
            Request::Write(seq, Change::Join(groups)) => self.join(seq.session, groups),
            Request::Records => Response::Records(self.records.lock().unwrap().clone()),
            other => panic!("{other:?}"),
        };
        let answer = postcard::to_stdvec(&answer).expect("an answer");
        Box::pin(async move { answer.into() })
    }
}

/// Asks for groups 1 and 2 where `known` have joined. The outcome, and what was asked by session.
async fn join_surely(
    known: &[GroupId],
    lose: Lose,
    servers: &[&str],
) -> (Result<(), String>, Vec<Vec<GroupId>>) {
    let server = Server::bind("127.0.0.1:0", Limits::default()).await;
    let server = server.expect("a port");
    let address = server.local_addr().to_string();
    let service = Arc::new(Doubtful {
        records: Mutex::new(known.iter().map(|id| member(*id, servers)).collect()),
        asked: Mutex::default(),
        lose,
    });
    tokio::spawn(server.serve(service.clone()));
    let client = ctrler::client::Client::new(vec![address], Arc::new(client_hello));
    let groups = [1, 2].map(|id| (id, member(id, servers).1.group));
    let question = Duration::from_millis(300);
    let outcome = kv::ctl::groups::join_surely(&client, groups.into(), question, |_| {}).await;
    let asked = service.asked.lock().unwrap().values().cloned().collect();
    (outcome.map_err(|failure| failure.message), asked)
}

#[test]
fn a_join_whose_answer_was_lost_is_not_refused() {
    world::testing::block_on_test(async {
        let both = vec![1, 2];
        let (outcome, asked) = join_surely(&[], Lose::Nothing, &["a:1"]).await;
        assert_eq!((outcome, asked), (Ok(()), vec![both.clone()]));
        // It was made: nothing is left to ask for.
        let (outcome, asked) = join_surely(&[], Lose::Answers, &["a:1"]).await;
        assert_eq!((outcome, asked), (Ok(()), vec![both.clone()]));
        // It was not made yet when that was looked at, and the next one was refused.
        let (outcome, asked) = join_surely(&[], Lose::AnswersOfLateJoins, &["a:1"]).await;
        assert_eq!((outcome, asked), (Ok(()), vec![both.clone(), both.clone()]));
        // Somebody else has joined one of them meanwhile: the other one is left.
        let (outcome, asked) = join_surely(&[1], Lose::Nothing, &["a:1"]).await;
        assert_eq!(
            (outcome, asked),
            (Ok(()), vec![vec![2]]),
            "the last of one session"
        );
        // What is refused for another reason is refused.
        let (outcome, asked) = join_surely(&[], Lose::Nothing, &[]).await;
        assert!(outcome.is_err_and(|why| why.contains("without servers")));
        assert_eq!(asked, vec![both]);
    });
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
                groups: Some(3),
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
    // More groups are added to those that are there, whose servers stay as they are.
    let more = Up {
        groups: Some(6),
        ..up()
    };
    let grown = Plan::make(&more, Some(made.clone())).expect("two more");
    assert_eq!((grown.groups, grown.shards), (6, 7));
    assert_eq!(
        made.servers(),
        grown.servers()[..3 + 4 * 3],
        "the old ones first"
    );
    assert!(Plan::parse(b"{}").is_err());
    let text = String::from_utf8(text).expect("text");
    let newer = text.replace("\"version\":1", "\"version\":9");
    assert!(Plan::parse(newer.as_bytes()).is_err_and(|why| why.contains('9')));
    // Somebody edited it: numbers whose ports would collide, or that nothing could be made of.
    for (from, to, says) in [
        ("\"groups\":4", "\"groups\":0", "groups 0"),
        ("\"groups\":4", "\"groups\":101", "groups 101"),
        ("\"replicas\":3", "\"replicas\":12", "replicas 12"),
        ("\"ctrlers\":3", "\"ctrlers\":0", "ctrlers 0"),
        ("\"shards\":7", "\"shards\":0", "shards 0"),
        ("\"port\":7000", "\"port\":65530", "65530"),
    ] {
        let edited = text.replace(from, to);
        assert!(edited != text, "{from}");
        let refused = Plan::parse(edited.as_bytes()).expect_err(to);
        assert!(refused.contains(says), "{refused}");
    }
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
