//! Golden transcripts: what happens in a script, and what each node did and why.
//!
//! A file in `tests/transcripts` holds comments (`#`), commands (`>`) and, below each command,
//! what came of it. `UPDATE_GOLDEN=1 cargo test -p raft-protocol --test transcripts` writes
//! the files anew; read the difference before accepting it.
//!
//! Commands: `cluster N [seed=S]`, `node ID [log=1,1,4] [term=T] [vote=V] [applied=I]
//! [abstain=T,R] [unborn] [lost]`, `tick ID [N]`, `campaign ID`, `elect ID`, `propose ID TEXT…`,
//! `read ID NUMBER`, `write ID [N]`, `report ID`, `persist ID…`, `deliver [A->B…]`,
//! `drop [A->B…]`, `repeat [A->B…]`, `settle`, `crash ID`, `restart ID`, `compact ID INDEX`,
//! `damage ID KEEP`, `lose ID`, `term ID T`, `append A->B TERM PREV,TERM COMMIT TERMS` (as if
//! A had sent it), `born ID`, `status`, `logs`. Mails are delivered in the order in which
//! they were sent; `deliver` delivers what is under way, not what comes of it.

#![allow(clippy::disallowed_methods)] // a test of real files and real time, outside the simulation

mod support;

use raft_protocol::*;
use std::fmt::Write as _;
use std::path::Path;
use support::{Cluster, Disk, Parcel, configuration, log, settings, show};

fn id(word: &str) -> NodeId {
    word.parse()
        .unwrap_or_else(|_| panic!("not a number: {word}"))
}

/// The mails under way that a command names; all when it names none.
fn selected(words: &[&str], from: NodeId, to: NodeId) -> bool {
    let pair = |word: &str| {
        let (a, b) = word
            .split_once("->")
            .unwrap_or_else(|| panic!("not A->B: {word}"));
        (a == "*" || id(a) == from) && (b == "*" || id(b) == to)
    };
    words.is_empty() || words.iter().any(|w| pair(w))
}

fn place(cluster: &mut Cluster, words: &[&str]) {
    let node = id(words[0]);
    let mut disk = Disk {
        base: cluster.node(node).disk.base.clone(),
        born: true,
        ..Disk::default()
    };
    for word in &words[1..] {
        let (key, value) = word.split_once('=').unwrap_or((word, ""));
        let numbers: Vec<u64> = value.split(',').filter(|v| !v.is_empty()).map(id).collect();
        match key {
            "log" => disk.entries = log(&numbers),
            "term" => disk.hard.term = numbers[0],
            "vote" => disk.hard.vote = Some(numbers[0]),
            "applied" => disk.applied = numbers[0],
            "abstain" => {
                disk.hard.abstain = Some(Abstain {
                    term: numbers[0],
                    index: numbers[1],
                })
            }
            "unborn" => disk.born = false,
            "lost" => disk.state_lost = true,
            _ => panic!("unknown word {word}"),
        }
    }
    cluster.place(node, disk);
}

fn command(cluster: &mut Cluster, line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (verb, rest) = (words[0], &words[1..]);
    let count = |at: usize| rest.get(at).map(|w| id(w));
    match verb {
        "cluster" => {
            let seed = rest
                .get(1)
                .and_then(|w| w.strip_prefix("seed="))
                .map_or(1, id);
            *cluster = Cluster::new(id(rest[0]), settings(), seed);
        }
        "node" => place(cluster, rest),
        "tick" => cluster.tick(id(rest[0]), count(1).unwrap_or(1) as u32),
        "campaign" => cluster.campaign(id(rest[0])),
        "elect" => cluster.elect(id(rest[0])),
        "propose" => {
            let payloads = rest[1..].iter().map(Payload::from).collect();
            cluster.step(id(rest[0]), Input::Propose(payloads));
        }
        "read" => {
            cluster.checker.read_asked(id(rest[0]), id(rest[1]));
            cluster.step(id(rest[0]), Input::Read(id(rest[1])));
        }
        "write" => cluster.write(id(rest[0]), count(1).unwrap_or(u64::MAX) as usize),
        "report" => cluster.report(id(rest[0])),
        "persist" => rest.iter().for_each(|w| cluster.persist(id(w))),
        "deliver" | "drop" | "repeat" => {
            for mail in std::mem::take(&mut cluster.mail) {
                if !selected(rest, mail.from, mail.to) || verb == "repeat" {
                    cluster.mail.push(mail.clone());
                }
                if selected(rest, mail.from, mail.to) {
                    hand_over(cluster, verb, mail);
                }
            }
        }
        "settle" => cluster.settle(),
        "crash" => cluster.crash(id(rest[0])),
        "restart" => cluster.restart(id(rest[0])),
        "compact" => {
            let (node, index) = (id(rest[0]), id(rest[1]));
            let disk = &mut cluster.nodes.get_mut(&node).expect("node exists").disk;
            let term = disk.term(index).expect("index is on disk");
            disk.entries.drain(..(index - disk.base.index) as usize);
            disk.applied = disk.applied.max(index);
            (disk.base.index, disk.base.term) = (index, term);
            cluster.step(node, Input::Compact(index));
        }
        "evict" => {
            cluster.step(id(rest[0]), Input::Evict(id(rest[1])));
        }
        "damage" => {
            let disk = &mut cluster
                .nodes
                .get_mut(&id(rest[0]))
                .expect("node exists")
                .disk;
            disk.hard.abstain = Some(Abstain {
                term: disk.hard.term,
                index: disk.last(),
            });
            disk.entries
                .truncate((id(rest[1]) - disk.base.index) as usize);
        }
        "lose" => {
            let disk = &mut cluster
                .nodes
                .get_mut(&id(rest[0]))
                .expect("node exists")
                .disk;
            (disk.state_lost, disk.applied) = (true, disk.base.index);
        }
        "term" => {
            let disk = &mut cluster
                .nodes
                .get_mut(&id(rest[0]))
                .expect("node exists")
                .disk;
            disk.hard = HardState {
                term: id(rest[1]),
                vote: None,
                abstain: None,
            };
        }
        "append" => {
            let (from, to) = rest[0].split_once("->").expect("A->B");
            let list = |at: usize| rest[at].split(',').map(id).collect::<Vec<u64>>();
            let (prev, terms) = (list(2), list(4));
            let message = Message::Append {
                term: id(rest[1]),
                prev_index: prev[0],
                prev_term: prev[1],
                commit: id(rest[3]),
                entries: terms
                    .iter()
                    .zip(prev[0] + 1..)
                    .map(|(t, i)| support::entry(*t, i))
                    .collect(),
            };
            cluster.step(
                id(to),
                Input::Receive {
                    from: id(from),
                    message,
                },
            );
        }
        "born" => {
            let nodes = cluster.nodes.len() as u64;
            let node = id(rest[0]);
            cluster.nodes.get_mut(&node).expect("node exists").disk.born = true;
            cluster.step(node, Input::Born(configuration(nodes)));
        }
        "status" => {
            for node in cluster.up() {
                let line = show::status(node, &cluster.core(node).status());
                cluster.note(line);
            }
        }
        "logs" => {
            for node in cluster.up() {
                let core = cluster.core(node);
                let first = core.status().evicted_index + 1;
                let entries = core.entries(first, Index::MAX, usize::MAX);
                let line = format!("{node} holds {}", show::entries(entries));
                cluster.note(line);
            }
        }
        _ => panic!("unknown command {verb}"),
    }
    cluster.checker.log_matching(&cluster.nodes);
}

fn hand_over(cluster: &mut Cluster, verb: &str, mail: support::Mail) {
    let what = match &mail.parcel {
        Parcel::Message(m) => show::message(m),
        Parcel::Offer { meta, .. } => format!("snapshot offer ({}, t{})", meta.index, meta.term),
        Parcel::Ready { meta } => format!("snapshot chunks ({}, t{})", meta.index, meta.term),
        Parcel::Sent { installed } => format!("snapshot installed: {installed:?}"),
        Parcel::Fetch(f) => format!("from its disk what {} needs behind {}", f.to, f.after),
    };
    let verb = if verb == "drop" { "lost" } else { "gets" };
    let line = format!("  {} {verb} from {}: {what}", mail.to, mail.from);
    cluster.note(line);
    if verb == "gets" {
        cluster.deliver(mail);
    }
}

fn run(script: &str) -> String {
    let mut cluster = Cluster::new(3, settings(), 1);
    let mut golden = String::new();
    for line in script.lines() {
        if let Some(words) = line.strip_prefix("> ") {
            command(&mut cluster, words);
            let _ = writeln!(golden, "{line}\n{}", std::mem::take(&mut cluster.trace));
        } else if line.starts_with('#') {
            let _ = writeln!(golden, "{line}");
        }
    }
    golden
}

fn check(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/transcripts")
        .join(name);
    let script =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let golden = run(&script);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        return std::fs::write(&path, golden).expect("golden file is writable");
    }
    let differs = script
        .lines()
        .zip(golden.lines())
        .enumerate()
        .find(|(_, (a, b))| a != b);
    if let Some((n, (was, is))) = differs {
        panic!(
            "{name}:{}:\nexpected: {was}\nhappened: {is}\n\n{golden}",
            n + 1
        );
    }
    assert_eq!(
        script.len(),
        golden.len(),
        "{name}: one is longer:\n{golden}"
    );
}

macro_rules! transcripts {
    ($($name:ident)*) => {
        $(#[test] fn $name() { check(concat!(stringify!($name), ".txt")); })*

        #[test]
        fn every_file_is_run() {
            let known = [$(concat!(stringify!($name), ".txt")),*];
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
            for file in std::fs::read_dir(dir).expect("transcripts exist") {
                let name = file.expect("readable").file_name();
                assert!(known.iter().any(|k| **k == *name), "{name:?} is not run");
            }
        }
    };
}

transcripts! {
    abstain
    check_quorum
    conflict
    damage_noticed
    election
    figure_7
    figure_8
    from_disk
    lost_requests
    pre_vote
    pre_vote_lower_term
    read_deposed
    read_follower
    read_leader
    replication
    single
    snapshot
    split_vote
    state_lost
    torn_restart
    unborn
    write_overtake
}
