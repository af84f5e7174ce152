//! What clients asked and were told, with the moments of call and return.

use bytes::Bytes;
use std::collections::BTreeMap;

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

/// The same of its debug form.
pub fn short(value: &impl std::fmt::Debug) -> String {
    clip(format!("{value:?}"))
}
