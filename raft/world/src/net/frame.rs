//! The bytes of a frame. See the drawing in the module's documentation.

use bytes::{Buf, Bytes, BytesMut};

/// First byte of every frame: a mark in the high half, the format version in the low one.
pub const MARK: u8 = 0xf2;

/// Bytes in front of a body.
pub const HEADER: usize = 28;

/// Bytes of the header that its checksum covers.
const COVERED: usize = 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Who the sender is; the first frame in each direction.
    Hello = 1,
    /// The answer to a hello that is not accepted: text saying why.
    Refused = 2,
    /// A request that expects a reply under the same id.
    Request = 3,
    /// The reply to a request.
    Reply = 4,
    /// One-way mail.
    Mail = 5,
    /// Asks for a pong.
    Ping = 6,
    /// Proof of life; also sent unasked.
    Pong = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Refused,
            3 => Kind::Request,
            4 => Kind::Reply,
            5 => Kind::Mail,
            6 => Kind::Ping,
            7 => Kind::Pong,
            _ => return None,
        })
    }
}

/// Everything in a frame but the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What it is.
    pub kind: Kind,
    /// Which protocol on this port it belongs to.
    pub channel: u8,
    /// Names a request and its reply; 0 otherwise.
    pub id: u64,
    /// Of a request: what remains of the caller's time, in milliseconds; 0 otherwise.
    pub deadline_ms: u32,
}

impl Head {
    /// A head with neither id nor deadline.
    pub fn plain(kind: Kind, channel: u8) -> Head {
        Head {
            kind,
            channel,
            id: 0,
            deadline_ms: 0,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it says of itself.
    pub head: Head,
    /// Its body: a slice of the connection's read buffer, not a copy.
    pub body: Bytes,
}

/// Why bytes are not a frame. Nothing after them can be trusted: the connection is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not our protocol, or another format of it.
    #[error("expected a frame that starts with {MARK:#04x}, found {found:#04x}")]
    Mark {
        /// The byte found.
        found: u8,
    },
    /// An unknown kind.
    #[error("expected a frame of kind 1 to 7, found kind {found}")]
    Kind {
        /// The kind found.
        found: u8,
    },
    /// A flag this build does not know.
    #[error("expected no flags, found {found:#04x}")]
    Flags {
        /// The flags found.
        found: u8,
    },
    /// Over-long.
    #[error("expected a frame of at most {limit} bytes, found one of {length}")]
    TooLong {
        /// The length found.
        length: usize,
        /// The largest accepted.
        limit: usize,
    },
    /// Damaged on the way, or written by something that is not us.
    #[error("expected a frame with checksum {computed:#010x}, found {found:#010x}")]
    Checksum {
        /// What the frame says.
        found: u32,
        /// What its bytes give.
        computed: u32,
    },
    /// A sound frame where it has no place.
    #[error("expected {expected}, found a frame of kind {found:?}")]
    Unexpected {
        /// What may come here.
        expected: &'static str,
        /// What came.
        found: Kind,
    },
    /// A hello that cannot be read.
    #[error("expected a readable hello of at most {limit} bytes, found {length} bytes")]
    Hello {
        /// Length of what came.
        length: usize,
        /// Largest accepted.
        limit: usize,
    },
}

/// The header of a frame with this head and body.
///
/// The body's length must fit into 32 bits: callers keep it below `Limits::max_frame`.
pub fn header(head: Head, body: &[u8]) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0] = MARK;
    bytes[1] = head.kind as u8;
    bytes[2] = head.channel;
    bytes[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&head.id.to_le_bytes());
    bytes[16..20].copy_from_slice(&head.deadline_ms.to_le_bytes());
    let own = crc32fast::hash(&bytes[..COVERED]);
    bytes[20..24].copy_from_slice(&own.to_le_bytes());
    bytes[24..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
    bytes
}

/// Takes one frame off the front of `input`; `None` when it is not complete yet.
pub fn take(input: &mut BytesMut, limit: usize) -> Result<Option<Frame>, FrameError> {
    let Some(&mark) = input.first() else {
        return Ok(None);
    };
    if mark != MARK {
        return Err(FrameError::Mark { found: mark });
    }
    let Some(header) = input.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let kind = Kind::from_byte(header[1]).ok_or(FrameError::Kind { found: header[1] })?;
    if header[3] != 0 {
        return Err(FrameError::Flags { found: header[3] });
    }
    let mut fields = &header[8..];
    let head = Head {
        kind,
        channel: header[2],
        id: fields.get_u64_le(),
        deadline_ms: fields.get_u32_le(),
    };
    // Before the length is believed: a damaged one would swallow the frames that follow.
    check(fields.get_u32_le(), &header[..COVERED])?;
    let length = body_length(header);
    if length > limit {
        return Err(FrameError::TooLong { length, limit });
    }
    if input.len() < HEADER + length {
        return Ok(None);
    }
    check(fields.get_u32_le(), &input[HEADER..HEADER + length])?;
    input.advance(HEADER);
    let body = if length == 0 {
        Bytes::new()
    } else {
        input.split_to(length).freeze()
    };
    Ok(Some(Frame { head, body }))
}

/// Bytes still missing from the frame at the front of `input`, as far as can be told.
pub fn missing(input: &[u8]) -> usize {
    match input.first_chunk::<HEADER>() {
        Some(header) => (HEADER + body_length(header)).saturating_sub(input.len()),
        None => HEADER - input.len(),
    }
}

fn body_length(header: &[u8; HEADER]) -> usize {
    u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize
}

fn check(found: u32, bytes: &[u8]) -> Result<(), FrameError> {
    let computed = crc32fast::hash(bytes);
    match found == computed {
        true => Ok(()),
        false => Err(FrameError::Checksum { found, computed }),
    }
}
