//! Who is at an end of a connection.

use super::frame::FrameError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Protocol versions this build speaks, lowest and highest. Both ends of a connection speak the
/// highest one in both ranges ([`common_protocol`]).
///
/// | version | since then |
/// |---|---|
/// | 1 | hello, mail, calls |
/// | 2 | every message of a mail has its own length, so one that is not known leaves the others |
pub const PROTOCOL: (u16, u16) = (1, 2);

/// Largest body of a hello or a refusal, in bytes: a stranger cannot make us gather more.
pub const MAX_HELLO: usize = 4096;

/// Earlier starts that a hello tells of.
pub const STARTS: usize = 32;

/// Who is at an end of a connection; the first frame in each direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Lowest and highest protocol version spoken.
    pub protocol: (u16, u16),
    /// The cluster, when known; unset matches any.
    pub cluster: Option<u128>,
    /// The sender's replica group (0: controllers), `None` for a client.
    pub group: Option<u64>,
    /// The sender's node id in the group; 0 for a client.
    pub node: u64,
    /// The sender's disk id; 0 for a client.
    pub disk: u128,
    /// How often the sender's disk was started, and a random number of that start.
    pub boot: u64,
    /// See `boot`.
    pub nonce: u64,
    /// The group and node the sender believes it is talking to; `None`: any.
    pub to: Option<(u64, u64)>,
    /// Random numbers of the disk's earlier starts, the newest first, at most [`STARTS`]: who met
    /// one of them knows whether it is this disk's past.
    pub before: Vec<u64>,
    /// Highest feature level that the sender reads in its log and state; 1 when it does not say.
    #[serde(skip)]
    pub level: u32,
}

/// A hello on the wire, which builds of every age must be able to read, if only to refuse it. So this
/// variant stays forever, and its fields with it; what was added later ([`Added`]) stands behind it.
#[derive(Serialize, Deserialize)]
enum Wire {
    V1(Hello),
}

/// What is added to a hello, each field behind the one before: an old reader ignores all of them, and
/// of an old sender's hello, which ends before, they have the values of [`Added::default`].
struct Added {
    level: u32,
}

impl Default for Added {
    fn default() -> Added {
        Added { level: 1 }
    }
}

impl Added {
    /// Reads them in order, as far as the hello goes.
    fn read(bytes: &[u8]) -> Result<Added, postcard::Error> {
        let mut added = Added::default();
        if bytes.is_empty() {
            return Ok(added);
        }
        (added.level, _) = postcard::take_from_bytes(bytes)?;
        Ok(added)
    }
}

impl Hello {
    /// The body of a hello frame.
    pub fn to_bytes(&self) -> Bytes {
        // Writing to memory fails only for types postcard cannot express; this is not one.
        let first = postcard::to_stdvec(&Wire::V1(self.clone())).expect("a hello is plain data");
        let bytes = postcard::to_extend(&self.level, first).expect("a number is plain data");
        Bytes::from(bytes)
    }

    /// Reads the body of a hello frame.
    pub fn from_bytes(body: &[u8]) -> Result<Hello, FrameError> {
        let error = FrameError::Hello {
            length: body.len(),
            limit: MAX_HELLO,
        };
        match postcard::take_from_bytes::<Wire>(body) {
            Ok((Wire::V1(hello), rest)) => match Added::read(rest) {
                Ok(Added { level }) => Ok(Hello { level, ..hello }),
                Err(_) => Err(error),
            },
            Err(_) => Err(error),
        }
    }
}

/// The highest protocol version in both ranges, or a refusal that says both.
pub fn common_protocol(ours: (u16, u16), theirs: (u16, u16)) -> Result<u16, String> {
    let highest = ours.1.min(theirs.1);
    if highest >= ours.0.max(theirs.0) {
        return Ok(highest);
    }
    Err(format!(
        "no common protocol version: this end speaks {} to {}, the other end {} to {}",
        ours.0, ours.1, theirs.0, theirs.1
    ))
}
