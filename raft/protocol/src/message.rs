//! What nodes say to each other. The order of variants and fields is the wire format
//! (postcard); new kinds go at the end.

use crate::types::{Entry, Index, NodeId, Term};
use serde::{Deserialize, Serialize};

/// A message and whom it is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Envelope {
    /// The receiver.
    pub to: NodeId,
    /// The message.
    pub message: Message,
}

/// A consensus message. `term` is the sender's term unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// Placeholder, to be replaced by the real kinds.
    Placeholder {
        /// The sender's term.
        term: Term,
        /// The last index.
        last: Index,
        /// Somebody.
        node: NodeId,
        /// Entries.
        entries: Vec<Entry>,
    },
}
