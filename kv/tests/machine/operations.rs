//! What clients' operations do.

use bytes::Bytes;
use kv::api::{MAX_BATCH, MAX_FOUND_BYTES, MAX_KEY, MAX_VALUE, Op, Outcome, Response, ShardState};
use kv::machine::KvMachine;
use kv::machine::command::{Ack, Command, Enter, LEVEL};
use kv::machine::keys::{LAYOUT, META};
use kv::machine::notice::Notice;
use kv::machine::query::{Page, Query};
use kv::machine::state::{Meta, Row, Run};
use kv::machine::write::check_limits;
use proptest::prelude::*;
use raft::session::{Refusal, Seq};
use raft::store::{Rows, StoreError};
use raft::{At, Machine};
use std::sync::Arc;

pub struct One {
    machine: KvMachine,
    pub rows: Rows,
    index: u64,
    /// Log time passed without a command, milliseconds.
    pub idle_ms: u64,
}

impl One {
    fn unborn() -> One {
        let machine = KvMachine::new(1, 1, Arc::new(Notice::default()));
        One {
            machine,
            rows: Rows::in_memory(),
            index: 0,
            idle_ms: 0,
        }
    }

    /// A group that owns the only shard.
    pub fn new() -> One {
        let mut one = One::unborn();
        one.apply(&Command::Birth { id: 7 }.to_bytes());
        let owners = vec![Run {
            shards: 1,
            owner: Some(1),
        }];
        let enter = Command::Enter(Enter {
            num: 1,
            owners,
            births: vec![(1, 7)],
        });
        assert_eq!(Ack::from_bytes(&one.apply(&enter.to_bytes())), Ack::Done);
        one
    }

    pub fn apply(&mut self, command: &[u8]) -> Bytes {
        self.index += 1;
        let at = At {
            index: self.index,
            term: 1,
            time_ms: self.index + self.idle_ms,
        };
        self.machine
            .apply(&mut self.rows, at, command)
            .expect("rows in memory")
    }

    fn client(&mut self, command: &Command) -> Response {
        postcard::from_bytes(&self.apply(&command.to_bytes())).expect("a response")
    }

    pub fn open(&mut self) -> u64 {
        match self.client(&Command::Open { shard: 0 }) {
            Response::Session(id) => id,
            other => panic!("{other:?}"),
        }
    }

    pub fn write(&mut self, session: u64, seq: u64, ops: Vec<Op>) -> Response {
        let seq = Seq {
            session,
            seq,
            acked: seq - 1,
        };
        self.client(&Command::Write { shard: 0, seq, ops })
    }

    fn query(&self, query: &Query) -> Bytes {
        self.machine
            .read(&self.rows, &query.to_bytes())
            .expect("rows in memory")
    }

    pub fn get(&self, key: &'static str) -> Option<Bytes> {
        let query = Query::Get {
            shard: 0,
            key: key.into(),
        };
        match postcard::from_bytes(&self.query(&query)).expect("a response") {
            Response::Value(value) => value,
            other => panic!("{other:?}"),
        }
    }

    pub fn page(&self) -> Page {
        postcard::from_bytes(&self.query(&Query::Page)).expect("a page")
    }
}

pub fn put(key: &'static str, value: &'static str) -> Op {
    Op::Put {
        key: key.into(),
        value: value.into(),
    }
}

pub fn append(key: &'static str, value: &'static str) -> Op {
    Op::Append {
        key: key.into(),
        value: value.into(),
    }
}

pub fn cas(key: &'static str, expected: Option<&'static str>, value: Option<&'static str>) -> Op {
    Op::CompareAndSet {
        key: key.into(),
        expected: expected.map(Bytes::from),
        value: value.map(Bytes::from),
    }
}

pub fn delete(key: &'static str) -> Op {
    Op::Delete { key: key.into() }
}

#[test]
fn operations_do_what_they_say() {
    let mut one = One::new();
    let s = one.open();
    let mut seq = 0;
    let mut run = |one: &mut One, op| {
        seq += 1;
        match one.write(s, seq, vec![op]) {
            Response::Written(mut outcomes) if outcomes.len() == 1 => outcomes.remove(0),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        run(&mut one, append("k", "ab")),
        Outcome::Written { len: 2 }
    );
    assert_eq!(run(&mut one, append("k", "c")), Outcome::Written { len: 3 });
    assert_eq!(one.get("k"), Some("abc".into()));
    assert_eq!(run(&mut one, put("k", "x")), Outcome::Written { len: 1 });
    assert_eq!(
        run(&mut one, cas("k", Some("x"), Some("y"))),
        Outcome::Swapped
    );
    let mismatch = Outcome::Mismatch {
        exists: true,
        actual: Some("y".into()),
    };
    assert_eq!(run(&mut one, cas("k", Some("x"), Some("z"))), mismatch);
    assert_eq!(run(&mut one, cas("k", None, Some("z"))), mismatch);
    assert_eq!(run(&mut one, cas("k", Some("y"), None)), Outcome::Swapped);
    assert_eq!(one.get("k"), None);
    let absent = Outcome::Mismatch {
        exists: false,
        actual: None,
    };
    assert_eq!(run(&mut one, cas("k", Some(""), Some("z"))), absent);
    assert_eq!(run(&mut one, cas("k", None, Some(""))), Outcome::Swapped);
    assert_eq!(one.get("k"), Some("".into()));
    assert_eq!(
        run(&mut one, delete("k")),
        Outcome::Deleted { existed: true }
    );
    assert_eq!(
        run(&mut one, delete("k")),
        Outcome::Deleted { existed: false }
    );
    assert_eq!(one.get("k"), None);
    let shard = &one.page().shards[0];
    assert_eq!(
        (shard.keys, shard.bytes, shard.state),
        (0, 0, ShardState::Serving)
    );
}

#[test]
fn a_batch_is_all_or_nothing_and_sees_itself() {
    let mut one = One::new();
    let s = one.open();
    let done = one.write(
        s,
        1,
        vec![
            put("a", "1"),
            append("a", "2"),
            cas("a", Some("12"), Some("3")),
            delete("b"),
            put("b", ""),
        ],
    );
    let expected = vec![
        Outcome::Written { len: 1 },
        Outcome::Written { len: 2 },
        Outcome::Swapped,
        Outcome::Deleted { existed: false },
        Outcome::Written { len: 0 },
    ];
    assert_eq!(done, Response::Written(expected));
    let failed = one.write(s, 2, vec![put("a", "x"), cas("b", None, None), delete("a")]);
    let mismatch = Outcome::Mismatch {
        exists: true,
        actual: Some("".into()),
    };
    assert_eq!(
        failed,
        Response::Written(vec![Outcome::Aborted, mismatch, Outcome::Aborted])
    );
    assert_eq!(
        (one.get("a"), one.get("b")),
        (Some("3".into()), Some("".into()))
    );
    let shard = &one.page().shards[0];
    assert_eq!((shard.keys, shard.bytes), (2, 3));
}

#[test]
fn limits_are_refused_with_a_reason() {
    let key = |len: usize| Bytes::from(vec![b'k'; len]);
    let put = |k: usize, v: usize| Op::Put {
        key: key(k),
        value: Bytes::from(vec![0; v]),
    };
    assert!(check_limits(&[put(MAX_KEY, MAX_VALUE)]).is_ok());
    assert!(check_limits(&[put(MAX_KEY + 1, 0)]).is_err());
    assert!(check_limits(&[put(1, MAX_VALUE + 1)]).is_err());
    assert!(check_limits(&[put(1, MAX_VALUE), put(1, MAX_VALUE)]).is_err());
    assert!(check_limits(&vec![put(1, 0); MAX_BATCH]).is_ok());
    assert!(check_limits(&vec![put(1, 0); MAX_BATCH + 1]).is_err());

    let mut one = One::new();
    let s = one.open();
    let refused = one.write(s, 1, vec![put(MAX_KEY + 1, 0)]);
    assert!(matches!(refused, Response::Invalid(_)), "{refused:?}");
    // It consumed nothing.
    let half = Bytes::from(vec![b'v'; MAX_VALUE / 2 + 1]);
    let append = Op::Append {
        key: "k".into(),
        value: half,
    };
    let len = MAX_VALUE as u64 / 2 + 1;
    assert_eq!(
        one.write(s, 1, vec![append.clone()]),
        Response::Written(vec![Outcome::Written { len }])
    );
    let large = one.write(s, 2, vec![delete("other"), append]);
    let Response::Written(outcomes) = large else {
        panic!("{large:?}")
    };
    assert_eq!(outcomes[0], Outcome::Aborted);
    assert!(matches!(outcomes[1], Outcome::TooLarge(_)));
    assert_eq!(one.get("k").map(|v| v.len() as u64), Some(len));
}

/// Every member reads and changes what a write concerns in one go, and a few bytes may concern much.
#[test]
fn a_short_write_to_many_long_values_is_refused() {
    let mut one = One::new();
    let s = one.open();
    let most = MAX_FOUND_BYTES / MAX_VALUE;
    let key = |n: usize| n.to_string();
    for n in 0..=most {
        let put = Op::Put {
            key: key(n).into(),
            value: Bytes::from(vec![0; MAX_VALUE - 1]),
        };
        one.write(s, n as u64 + 1, vec![put]);
    }
    let delete = |n: usize| Op::Delete { key: key(n).into() };
    let deletes = |keys: usize| (0..keys).map(delete).collect();
    let seq = most as u64 + 2;
    let Response::Written(outcomes) = one.write(s, seq, deletes(most + 1)) else {
        panic!("not written")
    };
    assert!(matches!(outcomes[most], Outcome::TooLarge(_)));
    assert_eq!(outcomes[..most], vec![Outcome::Aborted; most]);
    let unchanged = one.get("0").map(|v| v.len());
    assert_eq!(unchanged, Some(MAX_VALUE - 1));
    // Of values that are appended to only their ends are concerned.
    let append = |n: usize| Op::Append {
        key: key(n).into(),
        value: "b".into(),
    };
    let all = one.write(s, seq + 1, (0..=most).map(append).collect());
    let len = MAX_VALUE as u64;
    assert_eq!(
        all,
        Response::Written(vec![Outcome::Written { len }; most + 1])
    );
    let existed = Outcome::Deleted { existed: true };
    let gone = one.write(s, seq + 2, deletes(most));
    assert_eq!(gone, Response::Written(vec![existed; most]));
}

#[test]
fn a_repeated_write_gets_its_reply_and_does_nothing() {
    let mut one = One::new();
    let s = one.open();
    let first = one.write(s, 1, vec![append("k", "a")]);
    let digest = one.get("k");
    assert_eq!(one.write(s, 1, vec![append("k", "a")]), first);
    assert_eq!(one.get("k"), digest);
    assert_eq!(
        one.write(s, 3, vec![append("k", "c")]),
        Response::Refused(Refusal::Gap(1))
    );
    assert_eq!(
        one.write(99, 1, vec![append("k", "c")]),
        Response::Refused(Refusal::SessionExpired)
    );
    // A compare that failed is not tried again, whatever the value is by now.
    let failed = one.write(s, 2, vec![cas("k", Some("zz"), Some("y"))]);
    let other = one.open();
    one.write(other, 1, vec![put("k", "zz")]);
    assert_eq!(
        one.write(s, 2, vec![cas("k", Some("zz"), Some("y"))]),
        failed
    );
    assert_eq!(one.get("k"), Some("zz".into()));
    assert_eq!(
        one.write(s, 1, vec![append("k", "a")]),
        Response::Refused(Refusal::Stale)
    );
}

#[test]
fn nothing_is_served_before_birth_nor_before_the_first_configuration() {
    let mut one = One::unborn();
    assert_eq!(one.client(&Command::Open { shard: 0 }), Response::Busy);
    let enter = Command::Enter(Enter {
        num: 1,
        owners: vec![Run {
            shards: 1,
            owner: Some(1),
        }],
        births: vec![(1, 7)],
    });
    assert!(matches!(
        Ack::from_bytes(&one.apply(&enter.to_bytes())),
        Ack::Refused(_)
    ));
    assert_eq!(
        Ack::from_bytes(&one.apply(&Command::Birth { id: 7 }.to_bytes())),
        Ack::Done
    );
    // The birth id is drawn once.
    let again = one.apply(&Command::Birth { id: 8 }.to_bytes());
    assert!(matches!(Ack::from_bytes(&again), Ack::Refused(_)));
    assert_eq!(one.page().birth, Some(7));
    let refused = Response::WrongGroup {
        config: 0,
        owner: None,
    };
    assert_eq!(one.client(&Command::Open { shard: 0 }), refused);
}

/// What an older build does when the others have moved on: it ends, and leaves the state as it is.
#[test]
fn a_level_above_this_builds_ends_it_and_is_refused_at_the_next_start() {
    let mut one = One::new();
    let level = |level| Command::Level { level }.to_bytes();
    // A group is born at the level of its birth, whatever its members could do.
    let meta = Meta::from_row(&one.rows.get(META).unwrap().unwrap()).unwrap();
    assert_eq!(meta.level, 1);
    let same = Ack::from_bytes(&one.apply(&level(LEVEL)));
    assert!(matches!(same, Ack::Refused(_)), "it is there already");
    let at = At {
        index: one.index + 1,
        term: 1,
        time_ms: 0,
    };
    let refused = one
        .machine
        .apply(&mut one.rows, at, &level(LEVEL + 1))
        .expect_err("unknown here");
    assert!(
        matches!(refused, StoreError::Newer { level, known } if (level, known) == (LEVEL + 1, LEVEL)),
        "{refused}"
    );
    let unchanged = one.rows.get(META).unwrap().unwrap();
    assert_eq!(Meta::from_row(&unchanged).unwrap(), meta);
    // A state at that level, with rows that this build might not read.
    let newer = Meta {
        level: LEVEL + 1,
        ..meta
    };
    one.rows.put(META, &newer.to_row()).unwrap();
    one.rows.put(LAYOUT, b"of a newer version").unwrap();
    let mut older = KvMachine::new(1, 1, Arc::new(Notice::default()));
    let refused = older.load(&one.rows).expect_err("unknown here");
    assert!(matches!(refused, StoreError::Newer { .. }), "{refused}");
}

/// Bytes behind a command make it another one: a newer build may have put a meaning there.
#[test]
fn a_command_with_bytes_behind_it_is_none() {
    let open = Command::Open { shard: 0 }.to_bytes();
    let longer = [&open[..], &[0]].concat();
    assert_eq!(Command::from_bytes(&longer), None);
    let mut one = One::new();
    let said: Response = postcard::from_bytes(&one.apply(&longer)).expect("a response");
    assert!(matches!(said, Response::Malformed(_)), "{said:?}");
}

#[test]
fn keys_of_other_shards_are_refused() {
    let mut one = One::unborn();
    one.apply(&Command::Birth { id: 7 }.to_bytes());
    let owners = vec![Run {
        shards: 2,
        owner: Some(1),
    }];
    one.apply(
        &Command::Enter(Enter {
            num: 1,
            owners,
            births: vec![(1, 7)],
        })
        .to_bytes(),
    );
    let of = |key: &str| kv::slot::shard(key.as_bytes(), 2);
    let (here, there): (Vec<&str>, Vec<&str>) =
        ["a", "b", "c", "d"].iter().partition(|k| of(k) == 0);
    let s = one.open();
    assert!(matches!(
        one.write(s, 1, vec![put(here[0], ""), put(there[0], "")]),
        Response::Invalid(_)
    ));
    assert!(matches!(
        one.write(s, 1, vec![put(here[0], "")]),
        Response::Written(_)
    ));
    let query = Query::Get {
        shard: 0,
        key: there[0].into(),
    };
    let response: Response = postcard::from_bytes(&one.query(&query)).expect("a response");
    assert!(matches!(response, Response::Invalid(_)));
    // A shard that does not exist is nobody's.
    let refused = Response::WrongGroup {
        config: 1,
        owner: None,
    };
    assert_eq!(one.client(&Command::Open { shard: 5 }), refused);
}

proptest! {
    /// Whatever stands in the log, applying it ends with a reply (a level above this build's, see above,
    /// with the build's end).
    #[test]
    fn any_bytes_are_a_command_or_malformed(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let command = Command::from_bytes(&bytes);
        prop_assume!(!matches!(command, Some(Command::Level { level }) if level > LEVEL));
        let mut one = One::new();
        one.apply(&bytes);
        let _ = one.machine.read(&one.rows, &bytes).expect("rows in memory");
        let mut unborn = One::unborn();
        unborn.apply(&bytes);
    }
}

/// A client uses up a number whose caller gave up, before anything left, with a write that does
/// nothing: were it refused, the session would end, and with it the writes behind it.
#[test]
fn a_write_without_operations_takes_its_number_and_does_nothing() {
    let mut one = One::new();
    let s = one.open();
    assert_eq!(one.write(s, 1, Vec::new()), Response::Written(Vec::new()));
    assert_eq!(
        one.write(s, 2, vec![put("a", "1")]),
        Response::Written(vec![Outcome::Written { len: 1 }])
    );
    let late = one.write(s, 1, vec![put("a", "2")]);
    assert_eq!(late, Response::Refused(Refusal::Stale));
    assert_eq!(one.get("a"), Some("1".into()));
}
