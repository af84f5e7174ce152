//! Who is at an end of a connection.

use super::frame::FrameError;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Protocol versions this build speaks, lowest and highest.
pub const PROTOCOL: (u16, u16) = (1, 1);

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
}

/// A hello on the wire. Old builds must be able to read (and then refuse) the hello of newer
/// ones, so this variant stays for ever; new fields are appended and old readers ignore the rest.
#[derive(Serialize, Deserialize)]
enum Wire {
    V1(Hello),
}

impl Hello {
    /// The body of a hello frame.
    pub fn to_bytes(&self) -> Bytes {
        // Writing to memory fails only for types postcard cannot express; this is not one.
        let bytes = postcard::to_stdvec(&Wire::V1(self.clone())).expect("a hello is plain data");
        Bytes::from(bytes)
    }

    /// Reads the body of a hello frame.
    pub fn from_bytes(body: &[u8]) -> Result<Hello, FrameError> {
        let error = FrameError::Hello {
            length: body.len(),
            limit: MAX_HELLO,
        };
        match postcard::take_from_bytes::<Wire>(body) {
            Ok((Wire::V1(hello), _)) => Ok(hello),
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
