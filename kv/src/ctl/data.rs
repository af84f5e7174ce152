//! get, mget, put, append, delete, cas, batch.

use super::args::{Batch, Cas, Get, Key, KeyValue, Mget};
use super::{Failure, Io};
use crate::api::{Op, Outcome};
use crate::client::Client;
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Map, Value};
use std::ffi::OsStr;
use std::io::Read;

/// The argument that stands for standard input.
const STDIN: &str = "-";
/// Keys that `mget` asks for at a time.
const MGET_AT_ONCE: usize = 64;
/// Longest batch that is read from standard input, bytes: operations as long as they may be, with
/// what JSON adds to them.
const MAX_BATCH_TEXT: u64 = 64 << 20;

/// Replaces `-` by what standard input has. Nothing is read when no value is `-`; two of them
/// are refused, since it can be read only once. At most one byte more than a value may have is
/// read, so that the limit's own message is met.
pub fn read_stdin(
    values: &mut [&mut std::ffi::OsString],
    stdin: &mut dyn Read,
) -> Result<(), Failure> {
    let mut wanted = values.iter_mut().filter(|value| **value == STDIN);
    let Some(value) = wanted.next() else {
        return Ok(());
    };
    if wanted.next().is_some() {
        return Err(Failure {
            message: "only one value can be read from standard input".into(),
            code: 2,
        });
    }
    let mut bytes = Vec::new();
    stdin
        .take(crate::api::MAX_VALUE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::no(format!("cannot read standard input: {error}")))?;
    **value = from_bytes(bytes);
    Ok(())
}

/// Reads a batch from standard input.
pub fn read_batch(stdin: &mut dyn Read) -> Result<Vec<Op>, Failure> {
    let mut text = Vec::new();
    let read = stdin.take(MAX_BATCH_TEXT + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::no(format!("cannot read standard input: {error}")))?;
    match text.len() as u64 {
        0..=MAX_BATCH_TEXT => parse_batch(&text).map_err(|message| usage(&message)),
        _ => Err(Failure::no(format!(
            "the batch has more than {MAX_BATCH_TEXT} bytes of text"
        ))),
    }
}

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> std::ffi::OsString {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// Bytes as they are printed: what is no text, and what would steer a terminal, is escaped.
pub(super) fn shown(key: &OsStr) -> String {
    shown_bytes(key.as_encoded_bytes())
}

pub(super) fn shown_bytes(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

fn bytes(value: &OsStr) -> &[u8] {
    value.as_encoded_bytes()
}

/// Puts bytes into a JSON object: as text under `name`, or what is no text in hexadecimal under
/// `name_hex`.
pub(super) fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(name.into(), text.into()),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            object.insert(format!("{name}_hex"), hex.into())
        }
    };
}

/// A JSON object that begins with its key.
fn of_key(key: &OsStr) -> Map<String, Value> {
    let mut object = Map::new();
    put_bytes(&mut object, "key", bytes(key));
    object
}

fn absent(key: &OsStr) -> Failure {
    Failure::no(format!("{}: no such key", shown(key)))
}

pub(super) async fn get(client: &Client, args: &Get, io: &mut Io<'_>) -> Result<(), Failure> {
    let value = client.get(bytes(&args.key)).await?;
    if args.json.json && !args.raw {
        let mut object = of_key(&args.key);
        object.insert("found".into(), value.is_some().into());
        if let Some(value) = &value {
            put_bytes(&mut object, "value", value);
        }
        io.json(&Value::Object(object))?;
        return value.map(|_| ()).ok_or(Failure::no(""));
    }
    let value = value.ok_or_else(|| absent(&args.key))?;
    io.out.write_all(&value)?;
    if !args.raw {
        io.out.write_all(b"\n")?;
    }
    io.out.flush()?;
    Ok(())
}

pub(super) async fn mget(client: &Client, args: &Mget, io: &mut Io<'_>) -> Result<(), Failure> {
    let asked = args.keys.iter().map(|key| client.get(bytes(key)));
    let mut answers = futures_util::stream::iter(asked).buffered(MGET_AT_ONCE);
    let (mut list, mut missing) = (Vec::new(), Vec::new());
    for key in &args.keys {
        let Some(value) = answers.next().await.transpose()? else {
            break;
        };
        if value.is_none() {
            missing.push(shown(key));
        }
        if args.json.json {
            let mut object = of_key(key);
            object.insert("found".into(), value.is_some().into());
            if let Some(value) = &value {
                put_bytes(&mut object, "value", value);
            }
            list.push(Value::Object(object));
        } else if let Some(value) = value {
            writeln!(io.out, "{}\t{}", shown(key), shown_bytes(&value))?;
        }
    }
    if args.json.json {
        io.json(&Value::Array(list))?;
    }
    match missing.is_empty() {
        true => Ok(()),
        false if args.json.json => Err(Failure::no("")),
        false => Err(Failure::no(format!("{}: no such key", missing.join(", ")))),
    }
}

pub(super) async fn put(client: &Client, args: &KeyValue, io: &mut Io<'_>) -> Result<(), Failure> {
    client.put(bytes(&args.key), bytes(&args.value)).await?;
    if args.json.json {
        let mut object = of_key(&args.key);
        object.insert("length".into(), bytes(&args.value).len().into());
        io.done(Value::Object(object));
    }
    Ok(())
}

pub(super) async fn append(
    client: &Client,
    args: &KeyValue,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let len = client.append(bytes(&args.key), bytes(&args.value)).await?;
    if args.json.json {
        let mut object = of_key(&args.key);
        object.insert("length".into(), len.into());
        io.done(Value::Object(object));
    } else {
        io.done(len);
    }
    Ok(())
}

pub(super) async fn delete(client: &Client, args: &Key, io: &mut Io<'_>) -> Result<(), Failure> {
    let existed = client.delete(bytes(&args.key)).await?;
    if args.json.json {
        let mut object = of_key(&args.key);
        object.insert("deleted".into(), existed.into());
        io.done(Value::Object(object));
        return existed.then_some(()).ok_or(Failure::no(""));
    }
    existed.then_some(()).ok_or_else(|| absent(&args.key))
}

/// What a `cas` expects and sets.
pub(super) fn old_and_new(args: &Cas) -> Result<(Option<&[u8]>, &[u8]), Failure> {
    match (args.absent, args.values.as_slice()) {
        (true, [new]) => Ok((None, bytes(new))),
        (false, [old, new]) => Ok((Some(bytes(old)), bytes(new))),
        (true, _) => Err(usage("with --absent: expected KEY NEW")),
        (false, _) => Err(usage("expected KEY OLD NEW, or --absent KEY NEW")),
    }
}

pub(super) async fn cas(client: &Client, args: &Cas, io: &mut Io<'_>) -> Result<(), Failure> {
    let (expected, value) = old_and_new(args)?;
    let outcome = client
        .compare_and_set(bytes(&args.key), expected, Some(value))
        .await?;
    let changed = outcome == Outcome::Swapped;
    if args.json.json {
        let mut object = of_key(&args.key);
        describe(&outcome, &mut object);
        io.done(Value::Object(object));
        return changed.then_some(()).ok_or(Failure::no(""));
    }
    match changed {
        true => Ok(()),
        false => Err(Failure::no(format!(
            "{}: not changed: {}",
            shown(&args.key),
            found(&outcome)
        ))),
    }
}

/// What a failed cas found, in one style.
fn found(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Mismatch { exists: false, .. } => "the key is absent".into(),
        Outcome::Mismatch {
            actual: Some(actual),
            ..
        } => format!("the value is {}", shown_bytes(actual)),
        Outcome::Mismatch { .. } => "the value is another (too long to be shown)".into(),
        other => format!("unexpected outcome: {other:?}"),
    }
}

/// An outcome as the fields of a JSON object.
fn describe(outcome: &Outcome, object: &mut Map<String, Value>) {
    let mut set = |name: &str, value: Value| object.insert(name.into(), value);
    match outcome {
        Outcome::Written { len } => {
            set("length", (*len).into());
        }
        Outcome::Deleted { existed } => {
            set("deleted", (*existed).into());
        }
        Outcome::Swapped => {
            set("changed", true.into());
        }
        Outcome::Mismatch { exists, actual } => {
            set("changed", false.into());
            set("exists", (*exists).into());
            if let Some(actual) = actual {
                put_bytes(object, "value", actual);
            }
        }
        Outcome::TooLarge(reason) => {
            set("changed", false.into());
            set("error", reason.as_str().into());
        }
        Outcome::Aborted => {
            set("changed", false.into());
        }
    }
}

pub(super) async fn batch(
    client: &Client,
    args: &Batch,
    ops: Vec<Op>,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let keys: Vec<Bytes> = ops.iter().map(|op| key_of(op).clone()).collect();
    let outcomes = client.batch(ops).await?;
    let done = |outcome: &Outcome| {
        use Outcome::*;
        matches!(outcome, Written { .. } | Deleted { .. } | Swapped)
    };
    let mut list = Vec::new();
    for (key, outcome) in keys.iter().zip(&outcomes) {
        if args.json.json {
            let mut object = Map::new();
            put_bytes(&mut object, "key", key);
            describe(outcome, &mut object);
            list.push(Value::Object(object));
            continue;
        }
        let text = match outcome {
            Outcome::Written { len } => format!("{len} bytes"),
            Outcome::Deleted { existed: true } => "deleted".into(),
            Outcome::Deleted { existed: false } => "absent".into(),
            Outcome::Swapped => "changed".into(),
            Outcome::TooLarge(reason) => reason.clone(),
            Outcome::Aborted => "not changed: another operation of the batch was not".into(),
            other => format!("not changed: {}", found(other)),
        };
        io.done(format_args!("{}: {text}", shown_bytes(key)));
    }
    if args.json.json {
        io.done(Value::Array(list));
    }
    match outcomes.iter().all(done) {
        true => Ok(()),
        false => Err(Failure::no("nothing was changed: see the operations")),
    }
}

fn key_of(op: &Op) -> &Bytes {
    match op {
        Op::Put { key, .. }
        | Op::Append { key, .. }
        | Op::Delete { key }
        | Op::CompareAndSet { key, .. } => key,
    }
}

/// The operations of a batch, one a line. The error names the line.
fn parse_batch(text: &[u8]) -> Result<Vec<Op>, String> {
    let text = std::str::from_utf8(text)
        .map_err(|_| "a batch is text: what is none can be written with \\u escapes in JSON")?;
    let mut ops = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(l, _)| !l.trim().is_empty()) {
        let words: Vec<String> = match line.trim_start().starts_with('[') {
            true => serde_json::from_str(line).map_err(|e| format!("line {number}: {e}"))?,
            false => line.split_whitespace().map(String::from).collect(),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let of = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        ops.push(match words[..] {
            ["put", key, value] => Op::Put {
                key: of(key),
                value: of(value),
            },
            ["append", key, value] => Op::Append {
                key: of(key),
                value: of(value),
            },
            ["delete", key] => Op::Delete { key: of(key) },
            ["cas", key, old, new] => Op::CompareAndSet {
                key: of(key),
                expected: Some(of(old)),
                value: Some(of(new)),
            },
            _ => {
                return Err(format!(
                    "line {number}: expected put KEY VALUE, append KEY VALUE, delete KEY or cas KEY OLD \
                     NEW; found {line:?}"
                ));
            }
        });
    }
    Ok(ops)
}

fn usage(message: &str) -> Failure {
    Failure {
        message: message.into(),
        code: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_printed_so_that_it_cannot_steer_a_terminal() {
        for (key, text) in [
            (&b"plain key"[..], "plain key"),
            ("über/ключ".as_bytes(), "über/ключ"),
            (b"\x1b[2J\n", "\\u{1b}[2J\\n"),
            (b"a\xff\\", "a\\xff\\\\"),
        ] {
            assert_eq!(shown(&from_bytes(key.to_vec())), text);
        }
    }

    #[test]
    fn a_batch_is_read_line_by_line() {
        let text = "put {a}1 x\n\n  append {a}1 y\ndelete {a}2\ncas {a}1 xy z\n[\"put\",\"{a} 3\",\"b c\"]\n";
        let of = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        let ops = parse_batch(text.as_bytes()).expect("well-formed");
        assert_eq!(ops.len(), 5);
        assert_eq!(
            ops[3],
            Op::CompareAndSet {
                key: of("{a}1"),
                expected: Some(of("xy")),
                value: Some(of("z")),
            }
        );
        assert_eq!(
            ops[4],
            Op::Put {
                key: of("{a} 3"),
                value: of("b c"),
            }
        );
        for (text, says) in [
            (&b"put a 1\nput b\n"[..], "line 2: expected put KEY VALUE"),
            (b"\n\nset a 1", "line 3"),
            (b"[\"put\", 1]", "line 1"),
            (b"put a \xff", "a batch is text"),
        ] {
            let refused = parse_batch(text).expect_err("refused");
            assert!(refused.contains(says), "{refused}");
        }
    }
}
