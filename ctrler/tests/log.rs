//! Sessions, replicas that agree, and bytes that must not change.

mod common;
use common::{House, decode, join, leave, settled};
use ctrler::api::{Change, Request, Response};
use ctrler::machine::{Birth, Command, CommandV1, Controller, LEVEL};
use raft::machine::Machine;
use raft::session::{Refusal, Seq};
use raft::store::{Rows, StoreError};

#[test]
fn a_repeated_change_is_applied_once() {
    let mut house = House::new(10);
    let session = house.open();
    let seq = |seq, acked| Seq {
        session,
        seq,
        acked,
    };
    let first = CommandV1::Write(seq(1, 0), join(&[1]));
    assert_eq!(house.apply(first.clone()), Response::Done(1));
    assert_eq!(
        house.apply(first.clone()),
        Response::Done(1),
        "the stored reply, not \"a member already\""
    );
    let pin = CommandV1::Write(seq(2, 0), Change::Move(3, 1));
    assert_eq!(house.apply(pin.clone()), Response::Done(2));
    assert_eq!(
        house.apply(pin.clone()),
        Response::Done(2),
        "no second configuration"
    );
    assert_eq!(house.apply(first.clone()), Response::Done(1));
    house.reload();
    assert_eq!(
        house.apply(pin),
        Response::Done(2),
        "sessions survive a restart"
    );
    // A refusal by the state is an answer like any other: it stands although the state moved on.
    let bad = CommandV1::Write(seq(3, 1), leave(&[2]));
    assert!(matches!(house.apply(bad.clone()), Response::Invalid(_)));
    house.done(join(&[2]));
    assert!(matches!(house.apply(bad), Response::Invalid(_)));
    assert_eq!(house.config(None).num, 3);

    assert_eq!(house.apply(first), Response::Refused(Refusal::Stale));
    let gap = CommandV1::Write(seq(9, 0), leave(&[1]));
    assert_eq!(house.apply(gap), Response::Refused(Refusal::Gap(3)));
    let unknown = Seq {
        session: 999,
        seq: 1,
        acked: 0,
    };
    let expired = Response::Refused(Refusal::SessionExpired);
    assert_eq!(house.apply(CommandV1::Write(unknown, leave(&[1]))), expired);
    assert_eq!(house.config(None).num, 3);
}

/// A log with everything in it, garbage included.
fn log(seed: u64) -> Vec<Vec<u8>> {
    let mut state = seed;
    let mut draw = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut log = vec![
        Command::encode(CommandV1::Birth(Birth {
            cluster: 7,
            shards: 100,
        }))
        .to_vec(),
    ];
    log.extend((0..3).map(|_| Command::encode(CommandV1::Open).to_vec()));
    let mut next = [1u64; 4];
    for _ in 0..600 {
        let session = 1 + draw(4);
        let seq = &mut next[session as usize - 1];
        let header = Seq {
            session,
            seq: *seq,
            acked: *seq - 1 - draw(2).min(*seq - 1),
        };
        *seq += u64::from(draw(5) != 0);
        let change = match draw(5) {
            0 | 1 => join(&[1 + draw(20), 1 + draw(20)]),
            2 => leave(&[1 + draw(20)]),
            3 => Change::Move(draw(105) as u32, 1 + draw(20)),
            _ => settled(1 + draw(20), draw(30), draw(2) == 0),
        };
        log.push(Command::encode(CommandV1::Write(header, change)).to_vec());
        if draw(20) == 0 {
            log.push((0..draw(40)).map(|_| draw(256) as u8).collect());
        }
    }
    log
}

#[test]
fn two_replicas_agree_on_every_reply_and_row() {
    for seed in 0..8 {
        let (mut one, mut two) = (House::unborn(), House::unborn());
        for (place, command) in log(seed).iter().enumerate() {
            // One of them is restarted now and then.
            if place % 97 == 0 {
                two.reload();
            }
            assert_eq!(
                one.apply_raw(command),
                two.apply_raw(command),
                "seed {seed}, place {place}"
            );
            assert_eq!(
                one.rows.digest(),
                two.rows.digest(),
                "seed {seed}, place {place}"
            );
        }
        assert_eq!(one.all_rows(), two.all_rows());
        assert_eq!(one.config(None), two.config(None));
        assert!(one.config(None).num > 50);
    }
}

/// Controllers of different builds apply the same log, so every answer and every row that follows
/// from it stays as it is at level 1, assignments and limits included. A change of one belongs to a
/// new level; these digests are added to, and never changed.
#[test]
fn a_log_does_at_level_1_what_it_always_did() {
    assert_eq!(LEVEL, 1, "a new level adds its own digests here");
    let (mut house, mut answers) = (House::unborn(), Rows::in_memory());
    for (place, command) in log(1).iter().enumerate() {
        let answer = house.apply_raw(command);
        answers.put(&place.to_be_bytes(), &answer).unwrap();
    }
    let digests = (house.rows.digest(), answers.digest());
    assert_eq!(digests, (0x8ea5069adaa6a4b7, 0xc981fa7d5af55cca));
}

#[test]
fn garbage_is_an_answer() {
    let mut house = House::new(10);
    for garbage in [&[][..], &[0], &[1], &[0, 9], &[255; 40], &[0, 0, 1]] {
        let reply = decode(&house.apply_raw(garbage));
        assert!(
            matches!(reply, Response::Malformed(_)),
            "{garbage:?}: {reply:?}"
        );
    }
    // Bytes behind a command are not a command of this version.
    let mut long = Command::encode(CommandV1::Open).to_vec();
    long.push(0);
    assert!(matches!(
        decode(&house.apply_raw(&long)),
        Response::Malformed(_)
    ));
}

/// What an older build does when the others have moved on: it ends, and leaves the state as it is.
#[test]
fn a_level_above_this_builds_ends_it_and_is_refused_at_the_next_start() {
    let mut house = House::new(10);
    assert!(matches!(
        house.apply(CommandV1::Level(LEVEL)),
        Response::Invalid(_)
    ));
    let before = house.all_rows();
    let newer = Command::encode(CommandV1::Level(LEVEL + 1));
    let refused = house.machine.apply(&mut house.rows, house.at, &newer);
    assert!(matches!(
        refused,
        Err(StoreError::Newer { level, known }) if (level, known) == (LEVEL + 1, LEVEL)
    ));
    assert_eq!(house.all_rows(), before);
    // A state at that level, with rows that this build might not read.
    house.rows.put(b"l", &[0, (LEVEL + 1) as u8]).unwrap();
    house.rows.put(b"b", b"of a newer version").unwrap();
    let refused = Controller::default().load(&house.rows);
    assert!(matches!(refused, Err(StoreError::Newer { .. })));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// These bytes are in logs and on the wire: a change of any of them needs a new version.
#[test]
fn golden_bytes() {
    let info = ctrler::config::Group {
        servers: vec!["a:1".into()],
        birth: 3,
    };
    let write = |change| {
        Command::encode(CommandV1::Write(
            Seq {
                session: 4,
                seq: 300,
                acked: 2,
            },
            change,
        ))
    };
    let group_map = [(5, info.clone())].into();
    let report = Change::Settled {
        group: 5,
        info,
        through: 6,
        holds: true,
    };
    let commands = [
        (
            Command::encode(CommandV1::Birth(Birth {
                cluster: 1,
                shards: 10,
            })),
            "0000010a",
        ),
        (Command::encode(CommandV1::Open), "0001"),
        (Command::encode(CommandV1::Close(9)), "000209"),
        (
            write(Change::Join(group_map)),
            "000304ac02020001050103613a3103",
        ),
        (write(Change::Leave(vec![5, 6])), "000304ac020201020506"),
        (write(Change::Move(7, 5)), "000304ac0202020705"),
        (write(report), "000304ac020203050103613a31030601"),
        (Command::encode(CommandV1::Level(2)), "000402"),
    ];
    for (bytes, golden) in commands {
        assert_eq!(hex(&bytes), golden);
    }
    let requests = [
        (Request::Query(None), "0000"),
        (Request::Query(Some(3)), "000103"),
        (Request::Open, "01"),
        (Request::Record(3), "0303"),
        (Request::Records, "04"),
        (Request::Cluster, "05"),
        (Request::Status, "06"),
        (Request::Close(1), "0701"),
    ];
    for (request, golden) in requests {
        assert_eq!(hex(&postcard::to_stdvec(&request).unwrap()), golden);
    }
    let responses = [
        (
            Response::Config(ctrler::config::Config::default()),
            "000000000000",
        ),
        (Response::Session(1), "0101"),
        (Response::Done(300), "02ac02"),
        (Response::Invalid("x".into()), "030178"),
        (Response::Refused(Refusal::Gap(2)), "040202"),
        (Response::Record(None), "0500"),
        (Response::Records([].into()), "0600"),
        (
            Response::Cluster {
                cluster: 1,
                shards: 2,
                latest: 3,
            },
            "07010203",
        ),
        (Response::NotLeader(Some((1, "x".into()))), "0901010178"),
        (Response::Busy, "0a"),
        (Response::Unknown, "0b"),
        (Response::Malformed("x".into()), "0c0178"),
    ];
    for (response, golden) in responses {
        assert_eq!(hex(&postcard::to_stdvec(&response).unwrap()), golden);
    }
}

/// What is on disk after one join, byte by byte.
#[test]
fn golden_rows() {
    let mut house = House::new(10);
    house.done(Change::Join(
        [(
            5,
            ctrler::config::Group {
                servers: vec!["a:1".into()],
                birth: 3,
            },
        )]
        .into(),
    ));
    house.done(Change::Move(2, 5));
    let rows: Vec<String> = house
        .all_rows()
        .iter()
        .filter(|(key, _)| key[0] != b's')
        .map(|(key, value)| format!("{}{} {}", key[0] as char, hex(&key[1..]), hex(value)))
        .collect();
    let golden = [
        "b 004d0a",
        "c0000000000000000 0000010a0000010a000000",
        "c0000000000000001 0101000a0105010a010105000000",
        "c0000000000000002 01000000000001020100",
        "j00000000000000050000000000000001 000103613a3103",
        "n 0002",
        "r0000000000000005 000103613a3103000000",
    ];
    assert_eq!(rows, golden);
}
