//! Keys of the rows. Numbers are big-endian, so that byte order is their order.
//!
//! ```text
//!  key                                        value
//!  ┌────┐
//!  │ 00 │                                     Meta: birth id, feature level, configuration number
//!  └────┘
//!  ┌────┐
//!  │ 01 │                                     Layout: owner and holder of every shard there
//!  └────┘
//!  ┌────┬───────────┐
//!  │ 02 │ shard u32 │                         ShardRow: state, incarnation, frozen, peer, cursor
//!  └────┴───────────┘
//!  ┌────┬───────────┐
//!  │ 03 │ shard u32 │                         Counters: keys and bytes of the live copy
//!  └────┴───────────┘
//!  ┌────┬───────────┬─────────────────┐
//!  │ 04 │ shard u32 │ incarnation u64 │       Dead: a copy given away whose bytes are to be swept
//!  └────┴───────────┴─────────────────┘
//!  ┌────┬───────────┬─────────────────┬────┬──────┐
//!  │ 10 │ shard u32 │ incarnation u64 │ 6b │ key  │   a key: change number and value (see `value`)
//!  └────┴───────────┴─────────────────┴────┴──────┘
//!  ┌────┬───────────┬─────────────────┬────┬─────┬────────────┐
//!  │ 10 │ shard u32 │ incarnation u64 │ 70 │ key │ number u32 │   a piece of a long value
//!  └────┴───────────┴─────────────────┴────┴─────┴────────────┘
//!  ┌────┬───────────┬─────────────────┬────┬──────┐
//!  │ 10 │ shard u32 │ incarnation u64 │ 73 │ ...  │   sessions of the shard (raft::session)
//!  └────┴───────────┴─────────────────┴────┴──────┘
//! ```
//!
//! Everything of one copy of a shard, its sessions too, stands under one prefix. A move copies that
//! prefix; giving a shard up turns its row 02 into a row 04, and the bytes below go in bounded
//! steps. The incarnation is the number of the configuration at which the copy came, so a shard that
//! comes back while an older copy is still being swept meets none of its rows.

use ctrler::config::{ConfigNum, ShardId};

/// Key of the group's own row.
pub const META: &[u8] = &[0x00];
/// Key of the configuration's row.
pub const LAYOUT: &[u8] = &[0x01];
const SHARD: u8 = 0x02;
const COUNTERS: u8 = 0x03;
const DEAD: u8 = 0x04;
const COPY: u8 = 0x10;
/// First byte, behind a copy's prefix, of the rows of keys.
pub const DATA: u8 = b'k';
/// First byte, behind a copy's prefix, of the rows of pieces of long values.
pub const PIECES: u8 = b'p';
/// First byte, behind a copy's prefix, of the rows of sessions.
pub const SESSIONS: u8 = b's';
/// Length of a copy's prefix.
pub const COPY_LEN: usize = 13;

fn tagged(tag: u8, shard: ShardId) -> [u8; 5] {
    let mut key = [tag, 0, 0, 0, 0];
    key[1..].copy_from_slice(&shard.to_be_bytes());
    key
}

fn copied(tag: u8, shard: ShardId, incarnation: ConfigNum) -> [u8; COPY_LEN] {
    let mut key = [tag; COPY_LEN];
    key[1..5].copy_from_slice(&shard.to_be_bytes());
    key[5..].copy_from_slice(&incarnation.to_be_bytes());
    key
}

/// Key of a shard's row.
pub fn shard(shard: ShardId) -> [u8; 5] {
    tagged(SHARD, shard)
}

/// All rows of shards: from, to.
pub fn all_shards() -> ([u8; 1], [u8; 1]) {
    ([SHARD], [SHARD + 1])
}

/// Key of a shard's counters.
pub fn counters(shard: ShardId) -> [u8; 5] {
    tagged(COUNTERS, shard)
}

/// Key of the row of a copy given away.
pub fn dead(shard: ShardId, incarnation: ConfigNum) -> [u8; COPY_LEN] {
    copied(DEAD, shard, incarnation)
}

/// All rows of copies given away: from, to.
pub fn all_dead() -> ([u8; 1], [u8; 1]) {
    ([DEAD], [DEAD + 1])
}

/// Prefix of a copy's rows.
pub fn copy(shard: ShardId, incarnation: ConfigNum) -> [u8; COPY_LEN] {
    copied(COPY, shard, incarnation)
}

/// The first key behind all rows of a copy: its prefix as a number, plus one.
pub fn copy_end(shard: ShardId, incarnation: ConfigNum) -> [u8; COPY_LEN] {
    let mut end = copy(shard, incarnation);
    for byte in end.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    end
}

/// Key of the row of a key.
pub fn data(shard: ShardId, incarnation: ConfigNum, key: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(COPY_LEN + 1 + key.len());
    row.extend_from_slice(&copy(shard, incarnation));
    row.push(DATA);
    row.extend_from_slice(key);
    row
}

/// Key of the row of a piece of a key's value. The number has a fixed length, so no piece of one
/// key is one of another.
pub fn piece(shard: ShardId, incarnation: ConfigNum, key: &[u8], number: u32) -> Vec<u8> {
    let mut row = Vec::with_capacity(COPY_LEN + 5 + key.len());
    row.extend_from_slice(&copy(shard, incarnation));
    row.push(PIECES);
    row.extend_from_slice(key);
    row.extend_from_slice(&number.to_be_bytes());
    row
}

/// Prefix of the session rows of a copy.
pub fn sessions(shard: ShardId, incarnation: ConfigNum) -> Vec<u8> {
    let mut row = copy(shard, incarnation).to_vec();
    row.push(SESSIONS);
    row
}

/// The shard in a key made by [`shard`].
pub fn shard_of(key: &[u8]) -> Option<ShardId> {
    Some(ShardId::from_be_bytes(key.get(1..5)?.try_into().ok()?))
}

/// Shard and incarnation in a key made by [`dead`].
pub fn copy_of(key: &[u8]) -> Option<(ShardId, ConfigNum)> {
    Some((
        shard_of(key)?,
        ConfigNum::from_be_bytes(key.get(5..13)?.try_into().ok()?),
    ))
}
