//! Hash slots against the Redis Cluster specification.

use kv::slot::{SLOTS, crc16, hashed, shard, slot, slots};
use proptest::prelude::*;

#[test]
fn the_checksum_is_the_specifications() {
    assert_eq!(crc16(b"123456789"), 0x31C3);
    assert_eq!(crc16(b""), 0);
    assert_eq!(slot(b"123456789"), 0x31C3 % SLOTS);
    // As CLUSTER KEYSLOT answers.
    assert_eq!(slot(b"somekey"), 11058);
    assert_eq!(slot(b"foo{hash_tag}"), 2515);
    assert_eq!(slot(b"foo"), 12182);
}

#[test]
fn tags_are_the_specifications() {
    // "The two keys {user1000}.following and {user1000}.followers will hash to the same slot".
    assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
    assert_eq!(hashed(b"{user1000}.following"), b"user1000");
    // "For the key foo{}{bar} the whole key will be hashed".
    assert_eq!(hashed(b"foo{}{bar}"), b"foo{}{bar}");
    // "For the key foo{{bar}}zap the substring {bar will be hashed".
    assert_eq!(hashed(b"foo{{bar}}zap"), b"{bar");
    // "For the key foo{bar}{zap} the substring bar will be hashed".
    assert_eq!(hashed(b"foo{bar}{zap}"), b"bar");
    assert_eq!(hashed(b"foo{bar"), b"foo{bar");
    assert_eq!(hashed(b"foo}bar{"), b"foo}bar{");
}

#[test]
fn every_number_of_shards_cuts_the_slots_completely() {
    for shards in [1u32, 2, 3, 10, 1000, 1024, 16_383, 16_384] {
        let mut next = 0;
        for s in 0..shards {
            let (first, last) = slots(s, shards);
            assert_eq!(first, next);
            assert!(last >= first, "shard {s} of {shards} has no slot");
            next = last + 1;
        }
        assert_eq!(next, SLOTS);
    }
}

proptest! {
    #[test]
    fn a_key_lies_in_the_slots_of_its_shard(key in prop::collection::vec(any::<u8>(), 0..40), shards in 1u32..=16_384) {
        let s = shard(&key, shards);
        prop_assert!(s < shards);
        let (first, last) = slots(s, shards);
        prop_assert!((first..=last).contains(&slot(&key)));
    }
}
