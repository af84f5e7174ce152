//! What a log does at feature level 1. Members of different builds apply the same log, so every
//! answer and every row that follows from it stays as it is, limits included. A change of one belongs
//! to a new level (`kv::machine::command::LEVEL`): the machine then does both, and its `Meta::level`
//! says which. These digests are added to, and never changed.

use super::operations::One;
use bytes::Bytes;
use kv::api::{Op, Response};
use kv::machine::command::{Command, LEVEL};
use raft::session::Seq;
use raft::store::Rows;

/// A machine, and the sum over all that it answered.
struct Run {
    one: One,
    answers: Rows,
    number: u64,
    /// Those that were opened, in order.
    sessions: Vec<u64>,
}

impl Run {
    fn new() -> Run {
        Run {
            one: One::new(),
            answers: Rows::in_memory(),
            number: 0,
            sessions: Vec::new(),
        }
    }

    fn apply(&mut self, command: &Command) -> Response {
        let answer = self.one.apply(&command.to_bytes());
        self.number += 1;
        let key = self.number.to_be_bytes();
        self.answers.put(&key, &answer).expect("rows in memory");
        postcard::from_bytes(&answer).expect("a response")
    }

    /// In the n-th session, from 1 on.
    fn write(&mut self, nth: usize, seq: u64, acked: u64, ops: Vec<Op>) -> Response {
        let session = self.sessions[nth - 1];
        let seq = Seq {
            session,
            seq,
            acked,
        };
        self.apply(&Command::Write { shard: 0, seq, ops })
    }

    fn open(&mut self) -> Response {
        let answer = self.apply(&Command::Open { shard: 0 });
        if let Response::Session(id) = answer {
            self.sessions.push(id);
        }
        answer
    }

    /// Digests of the rows and of the answers.
    fn digests(&self) -> (u64, u64) {
        (self.one.rows.digest(), self.answers.digest())
    }
}

fn bytes(len: usize) -> Bytes {
    (0..len).map(|n| (n / 7) as u8 ^ (n >> 9) as u8).collect()
}

fn put(key: Bytes, len: usize) -> Op {
    let value = bytes(len);
    Op::Put { key, value }
}

fn append(key: &'static str, len: usize) -> Op {
    let (key, value) = (key.into(), bytes(len));
    Op::Append { key, value }
}

fn compare(key: &'static str, expected: Option<usize>, len: Option<usize>) -> Op {
    Op::CompareAndSet {
        key: key.into(),
        expected: expected.map(bytes),
        value: len.map(bytes),
    }
}

/// Operations of all kinds on few keys, short values and long ones.
fn drawn() -> Run {
    let mut run = Run::new();
    run.open();
    let mut state = 7u64;
    let mut draw = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    const KEYS: [&str; 5] = ["", "a", "b", "bb", "c"];
    const LENGTHS: [usize; 7] = [0, 1, 200, 4_096, 16_384, 16_385, 40_000];
    for seq in 1..=2_000 {
        let ops = (0..draw(4)).map(|_| {
            let (key, len) = (KEYS[draw(KEYS.len())], LENGTHS[draw(LENGTHS.len())]);
            let other = LENGTHS[draw(LENGTHS.len())];
            match draw(5) {
                0 => put(key.into(), len),
                1 | 2 => append(key, len),
                3 => Op::Delete { key: key.into() },
                _ => {
                    let some = |len| Some(len).filter(|_| draw(3) > 0);
                    let (expected, value) = ([len, other]).map(some).into();
                    compare(key, expected, value)
                }
            }
        });
        let ops = ops.collect();
        // Now and then one is repeated, or comes too early.
        let seq = seq as u64;
        run.write(1, seq, seq - 1, ops);
        let again = draw(20);
        if again < 2 {
            run.write(1, seq + 2 * again as u64, seq - 1, vec![]);
        }
    }
    run
}

/// Limits of keys, values and batches: at each and one above.
fn limits() -> Run {
    const MIB: usize = 1 << 20;
    let mut run = Run::new();
    run.open();
    let key = |len: usize| Bytes::from(vec![b'k'; len]);
    let many = |len: usize| (0..len).map(|_| append("many", 1)).collect();
    let writes = vec![
        vec![put(key(64 << 10), 1)],
        vec![put(key((64 << 10) + 1), 1)],
        vec![put("long".into(), 8 * MIB)],
        vec![put("long".into(), 8 * MIB + 1)],
        vec![append("long", 1)],
        vec![put("long".into(), 8 * MIB - 1), append("long", 1)],
        many(1024),
        many(1025),
        vec![put("b".into(), 8 * MIB), put("c".into(), (64 << 10) - 2)],
        vec![put("b".into(), 8 * MIB), put("c".into(), (64 << 10) - 1)],
        // How much of a present value is told.
        vec![put("d".into(), 4_096)],
        vec![compare("d", None, None)],
        vec![append("d", 1)],
        vec![compare("d", None, None)],
    ];
    let mut done = 0;
    let mut write = |run: &mut Run, ops| {
        // What is refused as invalid does not use up its number.
        let answer = run.write(1, done + 1, done, ops);
        done += u64::from(!matches!(answer, Response::Invalid(_)));
    };
    for ops in writes {
        write(&mut run, ops);
    }
    // How much of present values a write may read or drop.
    const LONG: [&str; 9] = ["0", "1", "2", "3", "4", "5", "6", "7", "8"];
    for key in LONG {
        write(&mut run, vec![put(key.into(), 8 * MIB - (64 << 10))]);
    }
    for keys in [9, 8] {
        let delete = |key: &&'static str| Op::Delete { key: (*key).into() };
        write(&mut run, LONG[..keys].iter().map(delete).collect());
    }
    run
}

/// Limits of sessions: of one, of all, and of their age.
fn sessions() -> Run {
    let mut run = Run::new();
    // One more than there may be, then one that has been idle for long enough makes room.
    for _ in 0..4_097 {
        run.open();
    }
    run.one.idle_ms = 50_000;
    run.open();
    for seq in 1..=258 {
        run.write(4_000, seq, 0, vec![append("a", 1)]);
    }
    // Replies of a thousand lengths until the window is full by their bytes.
    run.write(4_001, 1, 0, vec![put("e".into(), 3 << 20)]);
    for seq in 2..=256 {
        let ops = (0..1_024).map(|_| append("e", 0)).collect();
        run.write(4_001, seq, 0, ops);
    }
    let (shard, session) = (0, run.sessions[17]);
    run.apply(&Command::Close { shard, session });
    run.one.idle_ms = 70_000;
    run.open();
    run.open();
    // After an hour they go, a few at a time: who writes before is kept.
    run.one.idle_ms += 3_540_000;
    for seq in 1..=512 {
        run.write(4_003, seq, seq - 1, vec![]);
    }
    run.one.idle_ms += 10_000;
    for seq in 513..=1_024 {
        run.write(4_003, seq, seq - 1, vec![]);
        run.write(seq as usize - 512, 1, 0, vec![]);
    }
    run.open();
    run
}

/// So many stored replies of all sessions that there is no room until one has been idle for long
/// enough.
fn full_table() -> Run {
    let mut run = Run::new();
    run.open();
    run.write(1, 1, 0, vec![put("d".into(), 4_096)]);
    for _ in 0..67 {
        run.open();
        let newest = run.sessions.len();
        for seq in 1..=255 {
            run.write(newest, seq, 0, vec![compare("d", None, None)]);
        }
    }
    run.one.idle_ms = 45_000;
    run.open();
    run.write(60, 256, 255, vec![]);
    run.one.idle_ms = 60_000;
    run.open();
    run
}

#[test]
fn a_log_does_at_level_1_what_it_always_did() {
    assert_eq!(LEVEL, 1, "a new level adds its own digests here");
    let digests = [drawn(), limits(), sessions(), full_table()].map(|run| run.digests());
    assert_eq!(
        digests,
        [
            (0x7591d0a12b7ebbec, 0x8ce824f71a55a95f),
            (0xe4412b71a4845b98, 0x0956f7f5f9bfa4d5),
            (0xfb862603985cc250, 0xa722f9a57d870e56),
            (0x48fa233deedae49e, 0xeb452c532d7f0340),
        ]
    );
}
