//! Which shard a key belongs to: Redis Cluster's hash slot, slots cut into contiguous ranges.

use ctrler::config::ShardId;

/// Hash slots, as in the Redis Cluster specification.
pub const SLOTS: u32 = 16_384;

/// The key's hash slot: CRC16 (XMODEM) of the key, or of what stands between the first `{` and the next
/// `}` when that is not empty, modulo 16384.
pub fn slot(key: &[u8]) -> u32 {
    let _ = key;
    todo!()
}

/// The shard of a key among `shards` contiguous ranges of slots.
pub fn shard(key: &[u8], shards: u32) -> ShardId {
    let _ = (key, shards);
    todo!()
}
