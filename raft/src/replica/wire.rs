//! What replicas of one group say to each other on [`super::CHANNEL`]. Versioned enums: new kinds
//! go at the end, and the order of variants and fields is the format (postcard).

use crate::store::Stamp;
use bytes::Bytes;
use raft_protocol::{DiskId, Index, Message, Payload, Term};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// First byte of a mail, as the variants of an enum in postcard.
///
/// ```text
/// 0: the messages, as postcard has them
/// 1: of each message: length u32, little endian; the message
/// ```
///
/// A message of a kind that is not known ends the first form where it stands; in the second it is
/// left out. So the second may begin with what is no message of the core's, and older builds do not
/// know: that the sender's disk is short ([`SHORT`]) or nearly full ([`FULL`], which builds that do not
/// know the other count as no room at all), and the bytes that are free.
const MAIL_V1: u8 = 0;
const MAIL_V2: u8 = 1;
/// In the place of a message's kind; the core's are counted from 0 and never come so far.
const FULL: u8 = 127;
const SHORT: u8 = 126;
/// The protocol version in which mail has the second form.
const LENGTHS: u16 = 2;

/// What a mail says.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Mail {
    /// Consensus messages, in order.
    pub(super) messages: Vec<Message>,
    /// The sender's disk is short: the bytes that are free.
    pub(super) short: Option<u64>,
}

/// What is left of a disk that is short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Bytes that are free.
    pub(super) free: u64,
    /// It is nearly full: the last bytes are kept.
    pub(super) full: bool,
}

/// Consensus messages, in order, for a peer with which this protocol version is spoken. `room`: of
/// the sender's disk, when it is short; older versions cannot say it.
pub(super) fn encode_mail(messages: &[Message], room: Option<Room>, protocol: u16) -> Bytes {
    if protocol < LENGTHS {
        let body = postcard::to_extend(messages, vec![MAIL_V1]);
        return body.expect("messages are plain data").into();
    }
    let mut body = vec![MAIL_V2];
    if let Some(Room { free, full }) = room {
        let kind = if full { FULL } else { SHORT };
        with_length(&mut body, &(kind, free));
    }
    for message in messages {
        with_length(&mut body, message);
    }
    body.into()
}

fn with_length<T: Serialize>(body: &mut Vec<u8>, item: &T) {
    let start = body.len();
    body.extend_from_slice(&[0; 4]);
    *body = postcard::to_extend(item, std::mem::take(body)).expect("messages are plain data");
    let length = (body.len() - start - 4) as u32;
    body[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// What this build knows of a mail; the reason says why none can be read, or none
/// behind a place. `protocol`: the highest version that this end speaks.
pub(super) fn decode_mail(body: &[u8], protocol: u16) -> Result<Mail, String> {
    match body.split_first() {
        Some((&MAIL_V1, rest)) => Ok(Mail {
            messages: decode(rest)?,
            short: None,
        }),
        Some((&MAIL_V2, mut rest)) if protocol >= LENGTHS => {
            let mut mail = Mail::default();
            while !rest.is_empty() {
                let (length, behind) = rest.split_first_chunk().ok_or("it ends in a length")?;
                let length = u32::from_le_bytes(*length) as usize;
                let message = behind.split_at_checked(length);
                let (message, behind) = message.ok_or("it ends in a message")?;
                match decode(message) {
                    Ok(message) => mail.messages.push(message),
                    Err(_) if matches!(message.first(), Some(&(FULL | SHORT))) => {
                        mail.short = decode::<(u8, u64)>(message).ok().map(|(_, free)| free);
                    }
                    Err(_) => world::mark!("mail: a message of an unknown kind is left out"),
                }
                rest = behind;
            }
            Ok(mail)
        }
        Some((form, _)) => Err(format!(
            "its form is {form}, which is none of protocol {protocol}"
        )),
        None => Err("it is empty".to_owned()),
    }
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

/// Its length: the format and the log time.
const ENVELOPE: usize = 9;

/// Wraps a command. Its log time is 0 until its leader [`stamp`]s it.
pub(super) fn wrap(command: &[u8]) -> Payload {
    // One allocation, which the command has from here to the log.
    let mut payload: Arc<[u8]> = std::iter::repeat_n(0, ENVELOPE + command.len()).collect();
    let bytes = Arc::make_mut(&mut payload);
    bytes[0] = COMMAND_V1;
    bytes[ENVELOPE..].copy_from_slice(command);
    Payload(payload)
}

/// Stamps a wrapped command with its log time.
pub(super) fn stamp(payload: &mut Payload, time_ms: u64) {
    Arc::make_mut(&mut payload.0)[1..ENVELOPE].copy_from_slice(&time_ms.to_le_bytes());
}

/// Log time and command of a payload.
pub(super) fn unwrap(payload: &[u8]) -> Option<(u64, &[u8])> {
    let (&[COMMAND_V1, ref time @ ..], command) = payload.split_first_chunk::<ENVELOPE>()? else {
        return None;
    };
    Some((u64::from_le_bytes(*time), command))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn votes() -> Vec<Message> {
        let reply = |term| Message::VoteReply {
            term,
            granted: true,
        };
        vec![reply(300), reply(5)]
    }

    fn said(messages: Vec<Message>) -> Mail {
        Mail {
            messages,
            short: None,
        }
    }

    /// A build that does not know what is said of the disk takes it for a message of an unknown kind.
    #[test]
    fn a_short_disk_is_told_in_front_of_the_messages() {
        for (full, kind) in [(true, 127), (false, 126)] {
            let room = Some(Room { free: 300, full });
            let mail = encode_mail(&votes(), room, 2);
            let front = [1, 3, 0, 0, 0, kind, 0xac, 2];
            assert_eq!(mail[..8], front);
            assert!(decode::<Message>(&front[5..]).is_err());
            let short = Mail {
                messages: votes(),
                short: Some(300),
            };
            assert_eq!(decode_mail(&mail, 2), Ok(short));
            assert_eq!(
                encode_mail(&votes(), room, 1),
                encode_mail(&votes(), None, 1)
            );
        }
    }

    /// What builds of each protocol version have sent is read.
    #[test]
    fn golden_mail() {
        let first = [0, 2, 3, 0xac, 2, 1, 3, 5, 1];
        let second = [1, 4, 0, 0, 0, 3, 0xac, 2, 1, 3, 0, 0, 0, 3, 5, 1];
        assert_eq!(encode_mail(&votes(), None, 1)[..], first);
        assert_eq!(encode_mail(&votes(), None, 2)[..], second);
        assert_eq!(decode_mail(&first, 2), Ok(said(votes())));
        assert_eq!(decode_mail(&second, 2), Ok(said(votes())));
        assert_eq!(decode_mail(&first, 1), Ok(said(votes())));
        assert!(decode_mail(&second, 1).is_err(), "an older build cannot");
    }

    /// A newer build may say what this one does not know: the rest is heard.
    #[test]
    fn one_unknown_message_leaves_the_others() {
        let mixed = [
            &encode_mail(&votes()[..1], None, 2)[..],
            &[3, 0, 0, 0, 200, 1, 7],
            &encode_mail(&votes()[1..], None, 2)[1..],
        ];
        assert_eq!(decode_mail(&mixed.concat(), 2), Ok(said(votes())));
    }

    #[test]
    fn bad_mail_is_refused_with_a_reason() {
        let bad = [
            &[][..],
            &[2, 0],
            &[1, 5, 0, 0],
            &[1, 5, 0, 0, 0, 3, 1],
            &[0, 9],
        ];
        for body in bad {
            assert!(decode_mail(body, 2).is_err(), "{body:?}");
        }
        let all = encode_mail(&votes(), None, 2);
        let whole = [1, 9, all.len()];
        for cut in 0..all.len() {
            assert_eq!(
                decode_mail(&all[..cut], 2).is_ok(),
                whole.contains(&cut),
                "{cut}"
            );
        }
    }

    #[test]
    fn golden_bytes() {
        assert_eq!(&encode(&Call::Meet { disk: 5 })[..], [0, 5]);
        assert_eq!(&encode(&Answer::Want(3))[..], [2, 3]);
        assert_eq!(&encode(&Answer::Malformed)[..], [4]);
        let mut payload = wrap(b"x");
        stamp(&mut payload, 0x0102);
        assert_eq!(payload.0[..], [1, 2, 1, 0, 0, 0, 0, 0, 0, b'x']);
    }

    #[test]
    fn commands_come_back_as_wrapped() {
        let mut payload = wrap(b"abc");
        assert_eq!(unwrap(&payload.0), Some((0, &b"abc"[..])));
        stamp(&mut payload, 77);
        assert_eq!(unwrap(&payload.0), Some((77, &b"abc"[..])));
        assert_eq!(unwrap(b"short"), None);
        assert_eq!(
            unwrap(&[9; 12]),
            None,
            "an unknown format is not guessed at"
        );
    }
}
