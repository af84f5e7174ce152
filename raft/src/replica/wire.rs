//! What replicas of one group say to each other on [`super::CHANNEL`]. Versioned enums: new kinds
//! go at the end, and the order of variants and fields is the format (postcard).

use crate::store::Stamp;
use bytes::Bytes;
use raft_protocol::{DiskId, Index, Message, Term};
use serde::{Deserialize, Serialize};

/// One-way.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Mail {
    /// Consensus messages, in order.
    V1(Vec<Message>),
}

/// A request.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Call {
    /// "I am this node with this disk. Did you ever meet me under another?" The answer is synced
    /// before it is given.
    Meet {
        /// The caller's disk.
        disk: DiskId,
    },
    /// A leader offers a snapshot.
    Offer {
        /// The leader's term.
        term: Term,
        /// What the snapshot covers.
        stamp: Stamp,
        /// Name of the spool on the sender's disk.
        spool: u128,
        /// Number of chunks.
        chunks: u64,
    },
    /// One chunk of an accepted offer; chunks come in order.
    Chunk {
        /// The spool.
        spool: u128,
        /// Its number, from 0.
        number: u64,
        /// The encoded rows.
        data: Bytes,
    },
}

/// Its answer.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To Meet: never under another disk; synced.
    Met {
        /// The disk of the one who answers.
        disk: DiskId,
    },
    /// Refused, with the reason.
    Refused(String),
    /// The receiver wants this chunk next (a transfer resumes where it broke).
    Want(u64),
    /// The snapshot is installed through this index, or the receiver is already past it.
    Installed(Index),
    /// The request could not be read.
    Malformed,
}

/// Encodes; these types cannot fail to.
pub(super) fn encode<T: Serialize>(value: &T) -> Bytes {
    postcard::to_allocvec(value)
        .map(Bytes::from)
        .unwrap_or_default()
}

/// Decodes, or says why not.
pub(super) fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T, String> {
    postcard::from_bytes(bytes).map_err(|e| e.to_string())
}

/// First byte of a command's payload: the format of the envelope around it.
const COMMAND_V1: u8 = 1;

/// Wraps a command with the log time its leader stamps on it.
pub(super) fn wrap(time_ms: u64, command: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(9 + command.len());
    payload.push(COMMAND_V1);
    payload.extend_from_slice(&time_ms.to_le_bytes());
    payload.extend_from_slice(command);
    payload
}

/// Log time and command of a payload.
pub(super) fn unwrap(payload: &[u8]) -> Option<(u64, &[u8])> {
    let (&[COMMAND_V1, ref time @ ..], command) = payload.split_first_chunk::<9>()? else {
        return None;
    };
    Some((u64::from_le_bytes(*time), command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        assert_eq!(&encode(&Call::Meet { disk: 5 })[..], [0, 5]);
        assert_eq!(&encode(&Answer::Want(3))[..], [2, 3]);
        assert_eq!(&encode(&Answer::Malformed)[..], [4]);
        assert_eq!(wrap(0x0102, b"x"), [1, 2, 1, 0, 0, 0, 0, 0, 0, b'x']);
    }

    #[test]
    fn commands_come_back_as_wrapped() {
        assert_eq!(unwrap(&wrap(77, b"abc")), Some((77, &b"abc"[..])));
        assert_eq!(unwrap(b"short"), None);
        assert_eq!(
            unwrap(&[9; 12]),
            None,
            "an unknown format is not guessed at"
        );
    }
}
