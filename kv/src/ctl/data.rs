//! get, put, append, delete, cas.

use super::args::{Cas, Get, Key, KeyValue};
use super::{Failure, Io};
use crate::api::Outcome;
use crate::client::Client;
use std::ffi::OsStr;
use std::io::Read;

/// The argument that stands for standard input.
const STDIN: &str = "-";

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

#[cfg(unix)]
fn from_bytes(bytes: Vec<u8>) -> std::ffi::OsString {
    std::os::unix::ffi::OsStringExt::from_vec(bytes)
}

#[cfg(not(unix))]
fn from_bytes(bytes: Vec<u8>) -> std::ffi::OsString {
    String::from_utf8_lossy(&bytes).into_owned().into()
}

/// A key as it is printed: what is no text, and what would steer a terminal, is escaped.
fn shown(key: &OsStr) -> String {
    let mut text = String::new();
    for chunk in key.as_encoded_bytes().utf8_chunks() {
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

pub(super) async fn get(client: &Client, args: &Get, io: &mut Io<'_>) -> Result<(), Failure> {
    let Some(value) = client.get(bytes(&args.key)).await? else {
        return Err(Failure::no(format!("{}: no such key", shown(&args.key))));
    };
    io.out.write_all(&value)?;
    if !args.raw {
        io.out.write_all(b"\n")?;
    }
    io.out.flush()?;
    Ok(())
}

pub(super) async fn put(client: &Client, args: &KeyValue) -> Result<(), Failure> {
    Ok(client.put(bytes(&args.key), bytes(&args.value)).await?)
}

pub(super) async fn append(
    client: &Client,
    args: &KeyValue,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let len = client.append(bytes(&args.key), bytes(&args.value)).await?;
    io.done(len);
    Ok(())
}

pub(super) async fn delete(client: &Client, args: &Key) -> Result<(), Failure> {
    match client.delete(bytes(&args.key)).await? {
        true => Ok(()),
        false => Err(Failure::no(format!("{}: no such key", shown(&args.key)))),
    }
}

pub(super) async fn cas(client: &Client, args: &Cas, io: &mut Io<'_>) -> Result<(), Failure> {
    let (expected, value) = match (args.absent, args.values.as_slice()) {
        (true, [new]) => (None, bytes(new)),
        (false, [old, new]) => (Some(bytes(old)), bytes(new)),
        (true, _) => return Err(usage("with --absent: expected KEY NEW")),
        (false, _) => return Err(usage("expected KEY OLD NEW, or --absent KEY NEW")),
    };
    match client
        .compare_and_set(bytes(&args.key), expected, Some(value))
        .await?
    {
        Outcome::Swapped => Ok(()),
        Outcome::Mismatch { exists: false, .. } => Err(Failure::no(format!(
            "{}: not changed: the key is absent",
            shown(&args.key)
        ))),
        Outcome::Mismatch {
            actual: Some(actual),
            ..
        } => {
            let mut line = format!("{}: not changed: the value is ", shown(&args.key)).into_bytes();
            line.extend_from_slice(&actual);
            line.push(b'\n');
            // The exit code says no, whoever hears this.
            let _ = io.err.write_all(&line);
            Err(Failure::no(""))
        }
        Outcome::Mismatch { .. } => Err(Failure::no(format!(
            "{}: not changed: the value is another (too long to be shown)",
            shown(&args.key)
        ))),
        other => Err(Failure::no(format!("unexpected outcome: {other:?}"))),
    }
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
}
