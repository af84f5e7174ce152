//! What real servers do with damaged files, foreign directories, full disks and strangers.
#![allow(
    clippy::disallowed_methods,
    reason = "real processes live on the real clock"
)]

mod process;

use process::cluster::{Members, Up, kv_args, kvctl, page, peers};
use process::{KV, Ports, Server, TempDir, bare, say, turn, until};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);

/// One controller and a group of three, all but the controller by hand.
struct Small {
    members: Members,
    up: Up,
}

impl Small {
    fn start() -> Small {
        // `up` cannot do without a group: it gets one, which owns nothing in the end.
        let up = Up::start(1, 1, 1);
        let mut members = Members::new(up.dir.path(), 2, up.ports.base + 40, &up.ctrlers);
        for server in &mut members.servers {
            server.start();
        }
        up.kvctl(&["join", &members.spec()]).ok();
        up.kvctl(&["leave", "1"]).ok();
        Small { members, up }
    }

    fn put(&self, key: &str, value: &str) {
        self.up.kvctl(&["put", key, value]).ok();
    }

    fn has(&self, key: &str, value: &str) {
        assert_eq!(self.up.kvctl(&["get", key]).ok(), format!("{value}\n"));
    }

    /// Waits until this member has applied all that the group has committed.
    fn caught_up(&mut self, member: usize, what: &str) {
        until(&format!("{what}: the member catches up"), PATIENCE, || {
            let pages: Vec<_> = (0..3).filter_map(|m| self.members.page(m)).collect();
            let newest = pages.iter().map(|p| p.replica.commit).max()?;
            let own = self.members.page(member)?;
            (own.replica.applied >= newest && own.replica.leader.is_some()).then_some(())
        });
    }
}

fn one_file(dir: &Path, is: impl Fn(&str) -> bool) -> PathBuf {
    let entries = fs::read_dir(dir).expect("a data directory");
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.sort();
    let named = |p: &&PathBuf| p.file_name().and_then(|n| n.to_str()).is_some_and(&is);
    let path = paths.iter().rev().find(named);
    path.unwrap_or_else(|| panic!("not in {paths:?}")).clone()
}

/// The newest segment of a log.
fn segment(data: &Path) -> PathBuf {
    one_file(&data.join("log"), |name| name.ends_with(".seg"))
}

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 1;
}

/// Where the records of a segment end: behind it are zeros.
fn end_of(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1)
}

/// What must follow damage.
enum Then {
    /// The member says this, starts and catches up.
    Recovers(&'static str),
    /// It stops and names this file; put back as it was, it starts.
    Stops,
}

#[test]
fn damaged_files_are_recovered_from_or_named() {
    let Some(_turn) = turn() else { return };
    let mut small = Small::start();
    for n in 0..20 {
        small.put(&format!("key-{n}"), &"x".repeat(2000));
    }
    type Damage = fn(&mut Vec<u8>);
    type Find = fn(&Path) -> PathBuf;
    let identity: Find = |data| data.join("IDENTITY");
    let current: Find = |data| data.join("CURRENT");
    let cases: [(&str, Find, Damage, Then); 10] = [
        (
            "a log with a bit flipped in the middle",
            segment,
            |b| {
                let values = b.windows(64).position(|w| w == [b'x'; 64]);
                flip(b, values.expect("a value"))
            },
            Then::Recovers("damaged log, cut there; this node abstains"),
        ),
        (
            "a log with its end zeroed",
            segment,
            |b| {
                let end = end_of(b);
                b[end - 20..end].fill(0)
            },
            Then::Recovers("cut an unfinished write off the log"),
        ),
        (
            "a log with a bit flipped in one header",
            segment,
            |b| flip(b, 40),
            Then::Recovers(""),
        ),
        (
            "a log without readable headers",
            segment,
            |b| b[..8192].fill(0),
            Then::Stops,
        ),
        (
            "a truncated log",
            segment,
            |b| b.truncate(9000),
            Then::Stops,
        ),
        ("an empty log file", segment, Vec::clear, Then::Stops),
        (
            "a truncated identity",
            identity,
            |b| b.truncate(30),
            Then::Stops,
        ),
        (
            "an identity with a flipped bit",
            identity,
            |b| flip(b, 25),
            Then::Stops,
        ),
        (
            "a CURRENT of garbage",
            current,
            |b| b.fill(b'?'),
            Then::Recovers("state lost: to be rebuilt from"),
        ),
        (
            "a log that is noise",
            segment,
            |b| (0..).zip(b).for_each(|(n, b)| *b = (n * 7) as u8),
            Then::Stops,
        ),
    ];
    for (what, find, damage, then) in cases {
        let member = small.members.servers.last_mut().expect("three members");
        // Killed: after a clean stop its state holds everything, and the log is not needed.
        member.kill();
        let path = find(&member.data);
        let sound = fs::read(&path).expect("a file");
        let mut bytes = sound.clone();
        damage(&mut bytes);
        assert!(bytes != sound, "{what}: nothing damaged");
        fs::write(&path, bytes).expect("damage");
        let before = member.said().len();
        member.start();
        let news = |member: &Server| member.said()[before..].to_string();
        match then {
            Then::Recovers(words) => {
                small.caught_up(2, what);
                let said = news(&small.members.servers[2]);
                assert!(said.contains(words), "{what}: {said}");
            }
            Then::Stops => {
                let ended = member.ended_within(PATIENCE);
                let said = news(member);
                assert_eq!(ended.and_then(|s| s.code()), Some(1), "{what}: {said}");
                assert!(said.contains(&path.display().to_string()), "{what}: {said}");
                fs::write(&path, &sound).expect("put back");
                member.start();
                small.caught_up(2, what);
            }
        }
        let said = news(small.members.servers.last().expect("three members"));
        assert!(!said.contains("panicked"), "{what}: {said}");
        small.put("after", what);
        small.has("after", what);
    }
    for n in 0..20 {
        small.has(&format!("key-{n}"), &"x".repeat(2000));
    }
}

#[test]
fn an_emptied_member_does_not_vote_and_says_why() {
    let Some(_turn) = turn() else { return };
    let mut small = Small::start();
    small.put("k", "v");
    small.members.servers[2].stop();
    fs::remove_dir_all(&small.members.servers[2].data).expect("emptied");
    small.members.servers[2].start();
    let why = until("it says that it does not vote", PATIENCE, || {
        let why = small.members.page(2)?.replica.not_voting?;
        why.contains("emptied").then_some(why)
    });
    assert!(
        why.contains("does not come back under its old number"),
        "{why}"
    );
    // It may have led: the two others agree on a leader first.
    small.put("k", "w");
    let status = small.up.kvctl(&["status"]).ok();
    assert!(status.contains("does not vote: "), "{status}");
    // With one real member left there is no majority, whatever the empty one might say.
    small.members.servers[0].stop();
    let said = small.up.kvctl(&["put", "k", "lost", "--timeout", "3"]);
    assert!(matches!(said.code, Some(3 | 4)), "{said:?}");
    small.members.servers[0].start();
    until("a majority serves again", PATIENCE, || {
        let said = small.up.kvctl(&["get", "k", "--timeout", "2"]);
        (said.code == Some(0)).then_some(())
    });
    assert!(
        small
            .members
            .page(2)
            .is_some_and(|p| p.replica.not_voting.is_some())
    );
}

/// It shuts the original out, which is safe; and both sides say so, the original in its status too.
#[test]
fn a_copy_of_a_live_members_directory_is_told_of() {
    let Some(_turn) = turn() else { return };
    let small = Small::start();
    small.put("k", "v");
    let (original, ctrlers) = (&small.members.servers[2], small.up.ctrlers.clone());
    copy(&original.data, &small.up.dir.path().join("copied"));
    let port = Ports::find().base;
    let listen = format!("127.0.0.1:{port}");
    let args = kv_args(2, 3, &peers(&small.members.addresses), &ctrlers, &listen);
    let mut copy = Server::new(small.up.dir.path(), "copied", KV, args);
    copy.start();
    let why = until("the original says that it is not heard", PATIENCE, || {
        small.members.page(2)?.replica.not_voting
    });
    assert!(why.contains("a copy of its directory was started"), "{why}");
    let said = small.members.servers[2].said();
    assert!(said.contains("a peer refuses this server"), "{said}");
    assert!(
        small.members.servers[..2]
            .iter()
            .all(|peer| peer.said().contains("node 3 has started again")),
        "the peers tell of the new start"
    );
    // The group goes on.
    small.put("k", "w");
    copy.stop();
    small.has("k", "w");
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("its data") {
        let entry = entry.expect("its data");
        let to = to.join(entry.file_name());
        match entry.file_type().expect("its data").is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).expect("a copy")),
        }
    }
}

#[test]
fn a_foreign_directory_is_refused() {
    let Some(_turn) = turn() else { return };
    let mut small = Small::start();
    let ctrlers = small.up.ctrlers.clone();
    let server = &mut small.members.servers[2];
    until("the cluster's id is stamped", PATIENCE, || {
        server.said().contains("cluster known").then_some(())
    });
    server.stop();
    let (data, at) = (server.data.clone(), small.members.addresses[2].clone());
    let identity = data.join("IDENTITY").display().to_string();
    let refused = |group, id, expected: &str| {
        let peers = format!("{id}={at}");
        let mut command = bare(KV);
        command
            .args(kv_args(group, id, &peers, &ctrlers, &at))
            .arg("--data")
            .arg(&data);
        let said = say(command, b"");
        said.fails(1, expected);
        assert!(said.err.contains(&identity), "{said:?}");
    };
    refused(
        2,
        1,
        "belongs to node 3 of group 2, not to node 1 of group 2",
    );
    refused(
        5,
        3,
        "belongs to node 3 of group 2, not to node 3 of group 5",
    );

    // Members are those of the birth: one missing, one too many, another number.
    let addresses = &small.members.addresses;
    let stranger = "127.0.0.1:1".to_owned();
    let named = |ids: &[usize]| {
        let peer = |id: &usize| format!("{id}={}", addresses.get(id - 1).unwrap_or(&stranger));
        ids.iter().map(peer).collect::<Vec<_>>().join(",")
    };
    for ids in [&[1, 3][..], &[1, 2, 3, 4], &[1, 4, 3]] {
        let mut command = bare(KV);
        command
            .args(kv_args(2, 3, &named(ids), &ctrlers, &at))
            .arg("--data")
            .arg(&data);
        let said = say(command, b"");
        said.fails(1, "the group was born with the members 1, 2, 3");
        let mut sorted = ids.to_vec();
        sorted.sort();
        let list: Vec<String> = sorted.iter().map(usize::to_string).collect();
        let list = format!("--peers names {}", list.join(", "));
        assert!(
            said.err.contains(&list) && said.err.contains(&identity),
            "{said:?}"
        );
    }

    // Another cluster: its controllers do not know this group by this birth.
    let other = Up::start(1, 1, 1);
    let peers = small.members.addresses.clone();
    let peers = process::cluster::peers(&peers);
    let mut command = bare(KV);
    command
        .args(kv_args(2, 3, &peers, &other.ctrlers, &at))
        .arg("--data")
        .arg(&data);
    let server = &mut small.members.servers[2];
    let before = server.said().len();
    server.start_as(command);
    let ended = server.ended_within(PATIENCE);
    let said = server.said()[before..].to_string();
    assert_eq!(ended.and_then(|s| s.code()), Some(1), "{said}");
    assert!(
        said.contains("error: the data directory belongs to cluster"),
        "{said}"
    );
    // The same directory still serves where it belongs.
    small.members.servers[2].start();
    small.caught_up(2, "back at home");
}

#[test]
fn a_directory_that_cannot_be_used_ends_the_server_with_its_path() {
    let Some(_turn) = turn() else { return };
    let dir = TempDir::new();
    let ports = process::Ports::find();
    let at = format!("127.0.0.1:{}", ports.base);
    let file = dir.path().join("file");
    fs::write(&file, "not a directory").expect("a file");
    for data in [
        file.join("below"),
        file.clone(),
        PathBuf::from("/proc/no-such"),
    ] {
        let mut command = bare(KV);
        command
            .args(kv_args(1, 1, &format!("1={at}"), &at, &at))
            .arg("--data")
            .arg(&data);
        say(command, b"").fails(1, &data.display().to_string());
        let mut command = bare(process::KVCTL);
        command
            .args(["up", "--data"])
            .arg(&data)
            .arg(format!("--port={}", ports.base));
        say(command, b"").fails(1, &data.display().to_string());
    }
    let mut command = bare(KV);
    let data = dir.path().join("data");
    let taken = format!("127.0.0.1:{}", ports.base + 59); // our own claim on the range
    command
        .args(kv_args(1, 1, &format!("1={taken}"), &at, &taken))
        .arg("--data")
        .arg(&data);
    say(command, b"").fails(1, &taken);
    assert!(
        !data.join("IDENTITY").exists(),
        "touched before its port was its own"
    );
}

/// The file size limit stands for a disk that takes no more: the write fails in the same place.
#[test]
fn a_disk_that_takes_no_more_ends_the_server_with_path_and_reason() {
    let Some(_turn) = turn() else { return };
    let mut small = Small::start();
    small.put("k", "v");
    let server = &mut small.members.servers[2];
    server.stop();
    let before = server.said().len();
    let with_limit = |server: &Server| {
        let plain = server.command();
        let mut limited = bare("sh");
        // Blocks of 512 bytes: the log's segment may not grow past 4 MiB.
        limited.args(["-c", "trap '' XFSZ; ulimit -f 8192 && exec \"$0\" \"$@\""]);
        limited.arg(plain.get_program()).args(plain.get_args());
        limited
    };
    let command = with_limit(server);
    server.start_as(command);
    let value = vec![b'x'; 1 << 20];
    let mut written = 0;
    let ended = until("the server ends", PATIENCE, || {
        let key = format!("big-{written}");
        kvctl(&small.up.ctrlers, &["put", &key, "-"], &value).ok();
        written += 1;
        small.members.servers[2].ended_within(Duration::ZERO)
    });
    let server = &mut small.members.servers[2];
    let said = server.said()[before..].to_string();
    assert_eq!(ended.code(), Some(1), "{said}");
    let error = said
        .lines()
        .rfind(|l| l.starts_with("error: "))
        .unwrap_or_default();
    eprintln!("{error}");
    assert!(error.contains(&server.data.display().to_string()), "{said}");
    assert!(error.contains("File too large"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    server.start();
    small.caught_up(2, "with room again");
    for n in 0..written {
        let key = format!("big-{n}");
        assert!(
            small.up.kvctl(&["get", "--raw", &key]).out == value,
            "{key}"
        );
    }
    small.has("k", "v");
}

/// True when the other end closes within the time.
fn closes(stream: &mut TcpStream, patience: Duration) -> bool {
    stream
        .set_read_timeout(Some(patience))
        .expect("a socket option");
    let mut scratch = [0; 4096];
    loop {
        match stream.read(&mut scratch) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

#[test]
fn strangers_at_the_port_do_no_harm() {
    let Some(_turn) = turn() else { return };
    let up = Up::start(1, 1, 1);
    up.kvctl(&["put", "k", "v"]).ok();
    let pids = up.pids();
    let (ctrler, kv) = (up.ports.base, up.ports.base + 11);
    let connect = |port| TcpStream::connect(("127.0.0.1", port)).expect("it listens");
    for port in [ctrler, kv] {
        // Silent, and half a hello: closed in the end; nobody waits for them meanwhile.
        let since = Instant::now();
        let mut silent = connect(port);
        let mut half = connect(port);
        half.write_all(&[world::net::MARK, 1, 0, 0, 9])
            .expect("sent");
        let mut noise = vec![0u8; 100_000];
        let mut x = 88_172_645_463_325_252u64;
        for byte in &mut noise {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            *byte = x as u8;
        }
        let mut long = world::net::header(world::net::Head::plain(world::net::Kind::Hello, 0), b"");
        long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
        for garbage in [
            &noise[..],
            b"GET / HTTP/1.1\r\n\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            &long[..],
            &[0],
        ] {
            let mut stream = connect(port);
            // It may be closed while this is still being sent.
            let _ = stream.write_all(garbage);
            assert!(
                closes(&mut stream, Duration::from_secs(2)),
                "{:?}",
                &garbage[..1]
            );
        }
        // More connections than are taken, all silent.
        let crowd: Vec<TcpStream> = (0..200).map(|_| connect(port)).collect();
        assert_eq!(up.kvctl(&["get", "k"]).ok(), "v\n");
        drop(crowd);
        assert!(closes(&mut silent, Duration::from_secs(10)));
        assert!(closes(&mut half, Duration::from_secs(10)));
        let took = since.elapsed();
        assert!(took > Duration::from_secs(2), "closed after {took:?}");
    }
    up.kvctl(&["put", "k", "w"]).ok();
    assert_eq!(up.kvctl(&["get", "k"]).ok(), "w\n");
    assert_eq!(up.pids(), pids, "{}", up.said());
    assert!(page(&format!("127.0.0.1:{kv}")).is_some());
    for name in pids.keys() {
        let log = process::text_of(&up.data().join(format!("{name}.log")));
        assert!(!log.contains("panicked"), "{log}");
    }
}
