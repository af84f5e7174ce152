//! What is on disks must stay readable: these bytes change only with a new variant.

use super::*;
use raft_protocol::Configuration;

fn stamp() -> Stamp {
    let configuration = Configuration {
        voters: [(1, 5), (2, 6)].into(),
        ..Configuration::default()
    };
    Stamp {
        index: 300,
        term: 7,
        time_ms: 1000,
        configuration,
        digest: 9,
        rows: 2,
    }
}

#[test]
fn current_keeps_its_bytes() {
    let current = Current::V1 {
        generation: 3,
        index: 300,
    };
    let golden = [0, 3, 0xac, 2, 0x8c, 0xf3, 0xbe, 0xcf];
    assert_eq!(current.encode(), golden);
    assert_eq!(Current::decode(&golden), Some(current));
    for at in 0..golden.len() {
        let mut damaged = golden;
        damaged[at] ^= 4;
        assert_eq!(Current::decode(&damaged), None);
    }
    assert_eq!(Current::decode(&golden[..3]), None);
}

#[test]
fn the_stamp_keeps_its_bytes() {
    let totals = Totals {
        digest: 9,
        rows: 2,
        bytes: 130,
    };
    let meta = Meta::new(stamp(), totals);
    let golden = [0, 0xac, 2, 7, 0xe8, 7, 2, 1, 5, 2, 6, 0, 0, 9, 2, 0x82, 1];
    assert_eq!(postcard::to_stdvec(&meta).unwrap(), golden);
    assert_eq!(meta.split(), (stamp(), totals));
}

#[test]
fn the_digest_keeps_its_definition() {
    let mut totals = Totals::default();
    totals.add(b"key", b"value");
    totals.add(b"", b"");
    assert_eq!(totals.digest, 6_126_099_300_240_480_628);
}
