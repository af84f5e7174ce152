//! The bytes of commands, rows and messages. These lines are added to, and never changed: logs,
//! state files and other builds hold them.

use super::operations::{append, cas, delete, put};
use kv::api::{MAX_VALUE, Outcome, Request, Response};
use kv::machine::chunk::{Chunk, CopiedRow};
use kv::machine::command::{Ack, Command, Enter, Skip};
use kv::machine::keys;
use kv::machine::state::{Counters, Cursor, Dead, Layout, Meta, Row, Run, ShardRow};
use kv::machine::value::{Head, PIECE_BYTES, Stored};
use kv::mover::wire::{Answer, Ask, Party, What};
use raft::session::{Refusal, Seq};

fn hex<T: serde::Serialize>(value: &T) -> String {
    postcard::to_stdvec(value)
        .expect("plain data")
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

/// Bytes in logs: these lines are added to, and never changed.
#[test]
fn golden_commands() {
    let seq = Seq {
        session: 3,
        seq: 300,
        acked: 299,
    };
    let ops = vec![
        put("k", "v"),
        append("k", "v"),
        delete("k"),
        cas("k", None, Some("v")),
    ];
    let cursor = Cursor { key: "kx".into() };
    let row = CopiedRow {
        key: "kx".into(),
        value: "v".into(),
    };
    let chunk = Chunk {
        rows: vec![row],
        changes: 300,
        next: Some(Cursor { key: "ky".into() }),
    };
    let owners = vec![
        Run {
            shards: 10,
            owner: Some(1),
        },
        Run {
            shards: 2,
            owner: None,
        },
    ];
    let run = |shards, owner| Run { shards, owner };
    let commands = [
        (Command::Birth { id: 258 }, "008202"),
        (Command::Level { level: 2 }, "0102"),
        (Command::Open { shard: 9 }, "0209"),
        (
            Command::Close {
                shard: 9,
                session: 3,
            },
            "030903",
        ),
        (
            Command::Write { shard: 9, seq, ops },
            "040903ac02ab020400016b017601016b017602016b03016b00010176",
        ),
        (
            Command::Enter(Enter {
                num: 4,
                owners,
                births: vec![(1, 258)],
            }),
            "0504020a01010200010182 02",
        ),
        (Command::Freeze { shard: 9, num: 4 }, "060904"),
        (
            Command::Install {
                shard: 9,
                num: 4,
                from: cursor,
                chunk,
            },
            "0709 04 026b78 01 026b78 0176 ac02 01 026b79",
        ),
        (Command::Release { shard: 9, num: 4 }, "080904"),
        (
            Command::Sweep {
                shard: 9,
                incarnation: 4,
            },
            "090904",
        ),
        (
            Command::Skip(Skip {
                from: 4,
                to: 300,
                owners: vec![run(2, None)],
                holders: vec![run(1, Some(1)), run(1, None)],
            }),
            "0a 04 ac02 01 0200 02 01 01 01 01 00",
        ),
    ];
    for (command, golden) in commands {
        assert_eq!(hex(&command), golden.replace(' ', ""), "{command:?}");
        assert_eq!(Command::from_bytes(&command.to_bytes()), Some(command));
    }
    assert_eq!(hex(&Ack::Done), "00");
    assert_eq!(hex(&Ack::Refused("x".into())), "010178");
}

/// Bytes in state files.
#[test]
fn golden_rows() {
    fn check<T: Row + PartialEq + std::fmt::Debug>(row: T, golden: &str) {
        let bytes = row.to_row();
        let found: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(found, golden, "{row:?}");
        assert_eq!(T::from_row(&bytes).expect("its own bytes"), row);
    }
    check(
        Meta {
            birth: Some(258),
            level: 1,
            config: 300,
        },
        "0001820201ac02",
    );
    check(
        Counters {
            keys: 2,
            bytes: 300,
        },
        "0002ac02",
    );
    check(
        Dead {
            bytes: 300,
            swept: "kx".into(),
        },
        "00ac02026b78",
    );
    check(
        Layout {
            owners: vec![Some(1), Some(1), None],
            holders: vec![Some(1), Some(1), Some(2)],
        },
        "000202010101000202010101 0102".replace(' ', "").as_str(),
    );
    let mut row = ShardRow::arriving(4, 2);
    row.cursor = Cursor { key: "kx".into() };
    row.changes = 300;
    check(
        row,
        "00010400000102 00 026b78 ac02".replace(' ', "").as_str(),
    );
    assert!(Meta::from_row(&[9]).is_err());
}

/// The rows of keys, in state files and between groups.
#[test]
fn golden_rows_of_keys() {
    let golden: [(Stored, &[u8]); 3] = [
        (
            Stored::Whole("hi".into()),
            &[1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 44, b'h', b'i'],
        ),
        (
            Stored::Whole("".into()),
            &[1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 44],
        ),
        (
            Stored::Pieces(PIECE_BYTES + 1),
            &[1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 44, 0, 0, 64, 1],
        ),
    ];
    for (value, golden) in golden {
        let head = Head { change: 300, value };
        assert_eq!(head.to_row(), golden, "{head:?}");
        assert_eq!(Head::from_row(&golden.to_vec().into()), Ok(head));
    }
    assert_eq!(keys::data(9, 4, b"k")[13..], *b"kk");
    assert_eq!(keys::piece(9, 4, b"k", 258)[13..], *b"pk\0\0\x01\x02");
    assert_eq!(PIECE_BYTES, 16_384, "part of the version");
}

/// Rows of keys that a newer build may have written are not taken for something else.
#[test]
fn a_row_of_a_key_that_is_not_known_is_refused() {
    let good = [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 44, b'h', b'i'];
    let with = |at: usize, byte: u8| {
        let mut row = good;
        row[at] = byte;
        row.to_vec()
    };
    let long = |len: u32| [&[1, 1, 1][..], &[0; 8], &len.to_be_bytes()].concat();
    let unknown = [
        ("version", with(0, 2)),
        ("kind", with(1, 2)),
        ("a deadline", with(2, 2)),
        ("flags", with(2, 128)),
        ("cut", good[..10].to_vec()),
        ("nothing", Vec::new()),
        ("too short for pieces", long(PIECE_BYTES as u32)),
        ("longer than a value", long(MAX_VALUE as u32 + 1)),
        ("a length that is cut", long(70_000)[..14].to_vec()),
        (
            "too long for a row",
            [&good[..], &[0; PIECE_BYTES]].concat(),
        ),
    ];
    for (what, row) in unknown {
        let refused = Head::from_row(&row.into()).expect_err(what);
        assert!(
            refused.contains("or of a newer version"),
            "{what}: {refused}"
        );
    }
}

/// Bytes between groups, and between clients and servers.
#[test]
fn golden_messages() {
    let (from, to) = (Party { group: 2, birth: 5 }, Party { group: 1, birth: 6 });
    let ask = |what| Ask {
        from,
        to,
        num: 4,
        what,
    };
    assert_eq!(
        hex(&ask(What::Pull {
            shard: 9,
            from: Cursor::default()
        })),
        "0205010604 000900".replace(' ', "")
    );
    assert_eq!(
        hex(&ask(What::Installed { shards: vec![9] })),
        "0205010604010109"
    );
    assert_eq!(
        hex(&ask(What::Arrived { shards: vec![9] })),
        "0205010604020109"
    );
    let answers = [
        (
            Answer::Rows(Chunk {
                rows: vec![],
                changes: 3,
                next: None,
            }),
            "00000300",
        ),
        (Answer::NotYet, "01"),
        (Answer::Gone, "02"),
        (Answer::Installed(vec![9]), "030109"),
        (Answer::Noted, "04"),
        (Answer::NotLeader(Some("a:1".into())), "050103613a31"),
        (Answer::Refused("x".into()), "060178"),
        (Answer::Busy, "07"),
        (Answer::Malformed, "08"),
    ];
    for (answer, golden) in answers {
        assert_eq!(hex(&answer), golden, "{answer:?}");
        assert_eq!(Answer::from_bytes(&answer.to_bytes()), answer);
    }
    assert_eq!(Answer::from_bytes(&[200]), Answer::Malformed);
    let requests = [
        (
            Request::Get {
                shard: 9,
                key: "k".into(),
            },
            "0009016b",
        ),
        (Request::Open { shard: 9 }, "0109"),
        (
            Request::Close {
                shard: 9,
                session: 3,
            },
            "020903",
        ),
        (
            Request::Write {
                shard: 9,
                seq: Seq {
                    session: 3,
                    seq: 2,
                    acked: 1,
                },
                ops: vec![put("k", "v")],
            },
            "03090302010100016b0176",
        ),
        (Request::Identify, "04"),
        (Request::Status, "05"),
    ];
    for (request, golden) in requests {
        assert_eq!(hex(&request), golden, "{request:?}");
    }
    let responses = [
        (Response::Value(Some("v".into())), "00010176"),
        (Response::Session(3), "0103"),
        (Response::Closed, "02"),
        (
            Response::Written(vec![Outcome::Swapped, Outcome::Aborted]),
            "03020205",
        ),
        (
            Response::WrongGroup {
                config: 4,
                owner: Some(2),
            },
            "04040102",
        ),
        (Response::Refused(Refusal::Gap(2)), "050202"),
        (Response::Invalid("x".into()), "060178"),
        (Response::NotLeader(None), "0700"),
        (Response::Busy, "08"),
        (Response::Unknown, "09"),
    ];
    for (response, golden) in responses {
        assert_eq!(hex(&response), golden, "{response:?}");
    }
}
