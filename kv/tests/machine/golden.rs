//! The bytes of commands, rows and messages. These lines are added to, and never changed: logs,
//! state files and other builds hold them.

use super::operations::{append, cas, delete, put};
use kv::api::{Outcome, Request, Response};
use kv::machine::chunk::{Chunk, Piece};
use kv::machine::command::{Ack, Command, Enter, Skip};
use kv::machine::state::{Counters, Cursor, Dead, Layout, Meta, Row, Run, ShardRow};
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
    let cursor = Cursor {
        key: "kx".into(),
        offset: 5,
    };
    let piece = Piece {
        key: "kx".into(),
        offset: 5,
        value: "v".into(),
    };
    let chunk = Chunk {
        pieces: vec![piece],
        next: Some(Cursor {
            key: "ky".into(),
            offset: 0,
        }),
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
            "0709 04 026b78 05 01 026b78 05 0176 01 026b79 00",
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
    row.cursor = Cursor {
        key: "kx".into(),
        offset: 5,
    };
    check(row, "00010400000102 00 026b7805".replace(' ', "").as_str());
    assert!(Meta::from_row(&[9]).is_err());
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
        "0205010604 00090000".replace(' ', "")
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
                pieces: vec![],
                next: None,
            }),
            "000000",
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
