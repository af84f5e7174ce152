//! Values in pieces: what is stored, what a change of one costs, and that nothing is left behind.

use super::operations::One;
use bytes::Bytes;
use kv::api::{MAX_VALUE, Op, Outcome, Response};
use kv::machine::keys;
use kv::machine::value::{self, Head, PIECE_BYTES, Stored, pieces};
use proptest::prelude::*;
use raft::store::Rows;
use std::collections::BTreeMap;

fn put(key: &str, value: Bytes) -> Op {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Op::Put { key, value }
}

fn append(key: &str, value: Bytes) -> Op {
    let key = Bytes::copy_from_slice(key.as_bytes());
    Op::Append { key, value }
}

fn bytes(len: usize, seed: u8) -> Bytes {
    (0..len)
        .map(|n| (n / 7) as u8 ^ (n >> 9) as u8 ^ seed)
        .collect()
}

/// The rows of keys and of pieces.
fn stored(one: &One) -> BTreeMap<Bytes, Bytes> {
    let (from, to) = (keys::copy(0, 1), keys::sessions(0, 1));
    let found = one.rows.range(&from, &to, usize::MAX, usize::MAX);
    found.expect("rows in memory").into_iter().collect()
}

fn head(one: &One, key: &str) -> Head {
    let row = one.rows.get(&keys::data(0, 1, key.as_bytes())).unwrap();
    Head::from_row(&row.expect("the key is there")).unwrap()
}

/// The sum over the rows, computed anew.
fn digest(rows: &Rows) -> u64 {
    let mut copy = Rows::in_memory();
    for (key, value) in rows.range(&[], &[], usize::MAX, usize::MAX).unwrap() {
        copy.put(&key, &value).unwrap();
    }
    copy.digest()
}

/// An append to the longest value costs a piece, its own length and the session's rows; not the
/// value.
#[test]
fn an_append_costs_its_own_length_whatever_the_value_is() {
    let mut one = One::new();
    let s = one.open();
    one.write(s, 1, vec![put("k", bytes(MAX_VALUE - 5000, 1))]);
    let mut seq = 1;
    for appended in [1, 4000] {
        seq += 1;
        let before = one.rows.work();
        one.write(s, seq, vec![append("k", bytes(appended, 2))]);
        let cost = (one.rows.work() - before) as usize;
        assert!(
            cost <= 2 * PIECE_BYTES + 2 * appended + 2000,
            "an append of {appended} bytes hashed {cost}"
        );
    }
    let whole = [bytes(MAX_VALUE - 5000, 1), bytes(1, 2), bytes(4000, 2)].concat();
    assert!(one.get("k") == Some(whole.into()));
    // Nor does a compare that cannot fit read it, or write anything but the session's rows.
    let before = one.rows.work();
    let failed = Op::CompareAndSet {
        key: "k".into(),
        expected: Some("short".into()),
        value: None,
    };
    let Response::Written(outcomes) = one.write(s, seq + 1, vec![failed]) else {
        panic!("not written")
    };
    let (exists, actual) = (true, None);
    assert_eq!(outcomes, vec![Outcome::Mismatch { exists, actual }]);
    assert!(one.rows.work() - before < 2000);
}

/// Of two values of equal length that differ in one byte, wherever it is, only the one that is there
/// is swapped.
#[test]
fn a_compare_sees_every_byte_of_a_long_value() {
    let mut one = One::new();
    let s = one.open();
    let value = bytes(3 * PIECE_BYTES + 100, 3);
    one.write(s, 1, vec![put("k", value.clone())]);
    let cas = |expected: Bytes, value| Op::CompareAndSet {
        key: "k".into(),
        expected: Some(expected),
        value,
    };
    let mut seq = 1;
    for at in [
        0,
        PIECE_BYTES - 1,
        PIECE_BYTES,
        3 * PIECE_BYTES,
        3 * PIECE_BYTES + 99,
    ] {
        let mut other = value.to_vec();
        other[at] ^= 1;
        seq += 1;
        let (exists, actual) = (true, None);
        assert_eq!(
            one.write(s, seq, vec![cas(other.into(), None)]),
            Response::Written(vec![Outcome::Mismatch { exists, actual }]),
            "byte {at}"
        );
    }
    // In a batch it sees what was appended before.
    let longer = [&value[..], b"xy"].concat();
    let batch = vec![
        append("k", "xy".into()),
        cas(longer.into(), Some("z".into())),
    ];
    assert_eq!(
        one.write(s, seq + 1, batch),
        Response::Written(vec![
            Outcome::Written {
                len: value.len() as u64 + 2
            },
            Outcome::Swapped
        ])
    );
    assert_eq!(one.get("k"), Some("z".into()));
    assert_eq!(stored(&one).len(), 1);
}

/// A value of which a part is missing is damage, not a shorter value.
#[test]
fn a_piece_that_is_missing_is_damage() {
    let mut one = One::new();
    let s = one.open();
    one.write(s, 1, vec![put("k", bytes(2 * PIECE_BYTES + 1, 1))]);
    for (number, with) in [(2, None), (2, Some("")), (1, None)] {
        let row = keys::piece(0, 1, b"k", number);
        match with {
            Some(with) => one.rows.put(&row, with.as_bytes()).unwrap(),
            None => assert!(one.rows.delete(&row).unwrap()),
        }
        let damaged = value::get(&one.rows, 0, 1, b"k").expect_err("a part is missing");
        let found = damaged.to_string();
        assert!(
            found.contains(&format!("piece {number} of a value")),
            "{found}"
        );
    }
}

/// A key deleted and set again has changed; a write that changes nothing has no number.
#[test]
fn the_change_number_rises_with_every_change_of_a_key() {
    let mut one = One::new();
    let s = one.open();
    let mut last = 0;
    let delete = || Op::Delete { key: "k".into() };
    let changes = [
        vec![put("k", "a".into())],
        vec![put("k", "a".into())],
        vec![append("k", bytes(PIECE_BYTES, 1))],
        vec![append("k", "".into())],
        vec![delete(), put("k", "a".into())],
    ];
    let mut seq = 0;
    for ops in changes {
        seq += 1;
        one.write(s, seq, ops);
        let change = head(&one, "k").change;
        assert!(change > last, "{change} after {last}");
        last = change;
    }
    one.write(s, seq + 1, vec![delete()]);
    one.write(s, seq + 2, vec![put("k", "a".into())]);
    assert!(head(&one, "k").change > last);
    last = head(&one, "k").change;
    let fails = Op::CompareAndSet {
        key: "k".into(),
        expected: None,
        value: None,
    };
    one.write(s, seq + 3, vec![fails.clone()]);
    one.write(s, seq + 4, vec![put("k", "b".into()), fails]);
    one.write(s, seq + 5, vec![put("other", "b".into())]);
    assert_eq!(head(&one, "k").change, last);
}

#[derive(Clone, Debug)]
enum Do {
    Put(usize),
    Append(usize),
    Delete,
    /// Compares with what is there, but for this byte.
    Swap(Option<usize>, Option<usize>),
}

/// Lengths about those of one, two and three pieces, and others.
fn len() -> impl Strategy<Value = usize> {
    let near = (0usize..4, 0usize..3);
    prop_oneof![
        0usize..40,
        near.prop_map(|(pieces, more)| (pieces * PIECE_BYTES + more).saturating_sub(1)),
        0usize..3 * PIECE_BYTES,
    ]
}

fn step() -> impl Strategy<Value = (u8, Do)> {
    let what = prop_oneof![
        3 => len().prop_map(Do::Put),
        5 => len().prop_map(Do::Append),
        1 => Just(Do::Delete),
        3 => (prop::option::weighted(0.4, 0..90_000usize), prop::option::of(len()))
            .prop_map(|(but, to)| Do::Swap(but, to)),
    ];
    // One key is the beginning of the other, and the rest of it looks like a number of a piece.
    (0u8..2, what)
}

const KEYS: [&str; 2] = ["k", "k\0\0\0\0"];

/// The operation, and what the model says.
fn model(
    map: &mut BTreeMap<&'static str, Vec<u8>>,
    key: &'static str,
    what: &Do,
    seed: u8,
) -> (Op, bool) {
    match what {
        Do::Put(len) => {
            let value = bytes(*len, seed);
            map.insert(key, value.to_vec());
            (put(key, value), true)
        }
        Do::Append(len) => {
            let value = bytes(*len, seed);
            map.entry(key).or_default().extend_from_slice(&value);
            (append(key, value), true)
        }
        Do::Delete => {
            map.remove(key);
            (Op::Delete { key: key.into() }, true)
        }
        Do::Swap(but, to) => {
            let mut expected = map.get(key).cloned();
            let but = but.filter(|_| expected.as_ref().is_some_and(|e| !e.is_empty()));
            if let (Some(but), Some(expected)) = (but, &mut expected) {
                let at = but % expected.len();
                expected[at] ^= 1;
            }
            let value = to.map(|len| bytes(len, seed));
            if but.is_none() {
                match &value {
                    Some(value) => map.insert(key, value.to_vec()),
                    None => map.remove(key),
                };
            }
            let op = Op::CompareAndSet {
                key: key.into(),
                expected: expected.map(Bytes::from),
                value,
            };
            (op, but.is_none())
        }
    }
}

fn check(one: &One, map: &BTreeMap<&'static str, Vec<u8>>) {
    let mut rows = 0;
    for key in KEYS {
        assert!(
            one.get(key).as_deref() == map.get(key).map(Vec::as_slice),
            "{key:?}"
        );
        if let Some(value) = map.get(key) {
            let whole = value.len() <= PIECE_BYTES;
            let (is, count) = match head(one, key).value {
                Stored::Whole(_) => (true, 0),
                Stored::Pieces(len) => (false, pieces(len) as usize),
            };
            assert_eq!(is, whole);
            rows += 1 + count;
        }
    }
    assert_eq!(stored(one).len(), rows, "a piece was left behind");
    assert_eq!(
        one.rows.digest(),
        digest(&one.rows),
        "the digest is not that of the rows"
    );
    let shard = &one.page().shards[0];
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    assert_eq!((shard.keys, shard.bytes), (map.len() as u64, bytes as u64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Batches of whatever operations, against a map.
    #[test]
    fn values_in_pieces_are_values(batches in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..12)) {
        let mut one = One::new();
        let s = one.open();
        let mut map = BTreeMap::new();
        for (n, batch) in batches.iter().enumerate() {
            let mut after = map.clone();
            let (mut ops, mut good) = (Vec::new(), true);
            for (at, (key, what)) in batch.iter().enumerate() {
                let (op, done) = model(&mut after, KEYS[*key as usize], what, (4 * n + at) as u8);
                ops.push(op);
                good &= done;
            }
            let Response::Written(outcomes) = one.write(s, n as u64 + 1, ops) else {
                panic!("not written")
            };
            let failed = outcomes.iter().any(|o| matches!(o, Outcome::Mismatch { .. }));
            prop_assert_eq!(failed, !good, "{:?}", outcomes);
            if good {
                map = after;
            }
            check(&one, &map);
        }
    }
}
