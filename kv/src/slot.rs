//! Which shard a key belongs to: Redis Cluster's hash slot, slots cut into contiguous ranges.
//!
//! See "Key distribution model" and "Hash tags" in the Redis Cluster specification.

use ctrler::config::ShardId;

/// Hash slots, as in the Redis Cluster specification.
pub const SLOTS: u32 = 16_384;

/// CRC16 in its XMODEM variant (polynomial 0x1021, start 0, not reflected), one byte at a time.
const TABLE: [u16; 256] = table();

const fn table() -> [u16; 256] {
    let mut table = [0u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 {
                (crc << 1) ^ 0x1021
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// CRC16/XMODEM, as the Redis Cluster specification names it: "123456789" gives 0x31C3.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

/// What of a key is hashed: what stands between the first `{` and the first `}` behind it, when
/// there is something between them; otherwise the whole key.
pub fn hashed(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|b| *b == b'{') else {
        return key;
    };
    let rest = &key[open + 1..];
    match rest.iter().position(|b| *b == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// The key's hash slot: CRC16 (XMODEM) of the key, or of what stands between the first `{` and the next
/// `}` when that is not empty, modulo 16384.
pub fn slot(key: &[u8]) -> u32 {
    u32::from(crc16(hashed(key))) % SLOTS
}

/// The shard of a key among `shards` contiguous ranges of slots: slot × shards / 16384. `shards` is
/// between 1 and 16384; 0 is taken as 1.
pub fn shard(key: &[u8], shards: u32) -> ShardId {
    (u64::from(slot(key)) * u64::from(shards.max(1)) / u64::from(SLOTS)) as ShardId
}

/// The slots of a shard, first and last.
pub fn slots(shard: ShardId, shards: u32) -> (u32, u32) {
    let (shard, shards) = (u64::from(shard), u64::from(shards.max(1)));
    let first = |s: u64| (s * u64::from(SLOTS)).div_ceil(shards) as u32;
    (first(shard), first(shard + 1).saturating_sub(1))
}
