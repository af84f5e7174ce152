//! What clients asked and were told, with the moments of call and return.

use bytes::Bytes;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Characters of a key or value that are shown.
const SHOWN: usize = 120;

/// What a client asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Read.
    Get,
    /// Set.
    Put(Bytes),
    /// Append.
    Append(Bytes),
    /// Remove.
    Delete,
    /// Compare and set: expected, new value.
    Cas(Option<Bytes>, Option<Bytes>),
}

/// What it was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To Get.
    Value(Option<Bytes>),
    /// A Put was done.
    Written,
    /// An Append was done; the length then.
    Length(u64),
    /// A Delete was done; whether the key was there.
    Deleted(bool),
    /// A Cas swapped, or did not.
    Swapped(bool),
}

/// One operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The client; its operations follow one another.
    pub client: u64,
    /// The call.
    pub call: Call,
    /// When it was made (any unit).
    pub called: u64,
    /// When it was answered and how; `None`: its outcome is unknown. It may take effect at any later
    /// moment, or never.
    pub returned: Option<(u64, Answer)>,
}

/// All operations, by key.
#[derive(Clone, Debug, Default)]
pub struct History {
    keys: BTreeMap<Bytes, Vec<Operation>>,
}

impl History {
    /// Adds an operation. One that certainly had no effect is not to be added.
    pub fn add(&mut self, key: &[u8], operation: Operation) {
        self.keys
            .entry(Bytes::copy_from_slice(key))
            .or_default()
            .push(operation);
    }

    /// Operations per key.
    pub fn keys(&self) -> impl Iterator<Item = (&Bytes, &Vec<Operation>)> {
        self.keys.iter()
    }

    /// Number of operations.
    pub fn len(&self) -> usize {
        self.keys.values().map(Vec::len).sum()
    }

    /// True when nothing was recorded.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// What is shown of a value that may be very long.
pub fn clip(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
        None => text,
    }
}

/// The same of bytes, which are text as a rule.
pub fn clip_bytes(bytes: &[u8]) -> String {
    // (A character has at most four.)
    let beginning = &bytes[..bytes.len().min(4 * SHOWN + 4)];
    let text = String::from_utf8_lossy(beginning);
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], bytes.len()),
        None => text.into_owned(),
    }
}

/// The same of its debug form, of which no more is made than is shown.
pub fn short(value: &impl std::fmt::Debug) -> String {
    let mut beginning = Beginning {
        text: String::new(),
        room: SHOWN,
    };
    match write!(beginning, "{value:?}") {
        Ok(()) => beginning.text,
        Err(_) => beginning.text + "…",
    }
}

/// As many characters of a text as are shown; then it takes no more.
struct Beginning {
    text: String,
    room: usize,
}

impl Write for Beginning {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        for c in s.chars() {
            self.room = self.room.checked_sub(1).ok_or(std::fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_are_shown_by_their_beginning() {
        assert_eq!(short(&"ab"), "\"ab\"");
        let long = short(&vec![7u8; 300_000]);
        assert_eq!(long.chars().count(), SHOWN + 1);
        assert!(long.starts_with("[7, 7, ") && long.ends_with('…'), "{long}");
        let whole = "é".repeat(SHOWN);
        assert_eq!(clip_bytes(whole.as_bytes()), whole);
        let long = "é".repeat(100_000);
        let shown = format!("{whole}… (200000 bytes)");
        assert_eq!(clip_bytes(long.as_bytes()), shown);
        assert_eq!(short(&"é".repeat(SHOWN - 2)).chars().count(), SHOWN);
    }
}
