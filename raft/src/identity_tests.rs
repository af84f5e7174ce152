use super::*;

/// The bytes a released version wrote stay readable; a new field means a new version.
#[test]
fn golden_bytes() {
    let identity = Identity {
        disk: 0x0102,
        cluster: Some(7),
        group: 3,
        node: 2,
        boot: 300,
        nonce: 9,
        born: true,
        initial: BTreeMap::from([(1, 5), (2, 0x0102)]),
        met: BTreeMap::from([(1, 5)]),
        boots: BTreeMap::from([(5, (4, 6))]),
    };
    let bytes = encode(&identity).expect("encodes");
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "48464944454e54590100000018000000a896467f00820201070302ac02090102010502820201010501050406"
    );
    assert_eq!(decode(&bytes), Ok(identity));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let (mut identity, none) = (sample(), BTreeMap::new());
    identity.met = none;
    let bytes = encode(&identity).expect("encodes");
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bad).is_err(), "bit {bit}");
    }
    for len in 0..bytes.len() {
        assert!(decode(&bytes[..len]).is_err(), "cut to {len}");
    }
}

fn sample() -> Identity {
    Identity {
        disk: 10,
        cluster: None,
        group: 1,
        node: 1,
        boot: 3,
        nonce: 33,
        born: false,
        initial: BTreeMap::new(),
        met: BTreeMap::new(),
        boots: BTreeMap::new(),
    }
}

#[test]
fn peers_are_remembered_by_disk_and_boot() {
    let mut own = sample();
    assert_eq!(own.meet(2, 20, 5, 55), Meeting::Updated);
    assert_eq!(own.meet(2, 20, 5, 55), Meeting::Known);
    assert_eq!(own.meet(2, 20, 6, 66), Meeting::Updated);
    let after = own.clone();
    let refused = |own: &mut Identity, node, disk, boot, nonce, why: &str| match own
        .meet(node, disk, boot, nonce)
    {
        Meeting::Refused(reason) => assert!(reason.contains(why), "{reason}"),
        other => panic!("{other:?} instead of a refusal with {why:?}"),
    };
    refused(&mut own, 2, 20, 5, 55, "older image");
    refused(&mut own, 2, 20, 6, 67, "older image");
    refused(&mut own, 2, 21, 1, 1, "emptied");
    refused(&mut own, 3, 20, 6, 66, "copied directory");
    refused(&mut own, 1, 99, 1, 1, "copy of this node");
    refused(&mut own, 2, 10, 9, 9, "copy of this node");
    assert_eq!(own, after, "a refusal records nothing");
    assert_eq!(own.meet(1, 10, 3, 33), Meeting::Known, "itself");
}
