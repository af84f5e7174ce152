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
        before: vec![8, 300],
    };
    let bytes = encode(&identity).expect("encodes");
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(
        hex,
        "48464944454e5459010000001c0000005742050e01820201070302ac020901020105028202010105010504060208ac02"
    );
    assert_eq!(decode(&bytes), Ok(identity.clone()));
    let first =
        "48464944454e54590100000018000000a896467f00820201070302ac02090102010502820201010501050406";
    let digit = |at| u8::from_str_radix(&first[at..at + 2], 16).expect("hex");
    let first: Vec<u8> = (0..first.len()).step_by(2).map(digit).collect();
    let expected = Identity {
        before: Vec::new(),
        ..identity
    };
    assert_eq!(decode(&first), Ok(expected));
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
        before: Vec::new(),
    }
}

#[test]
fn peers_are_remembered_by_disk_and_boot() {
    let mut own = sample();
    assert_eq!(own.meet(2, 20, 5, 55, &[]), Meeting::Updated);
    assert_eq!(own.meet(2, 20, 5, 55, &[]), Meeting::Known);
    assert_eq!(own.meet(2, 20, 6, 66, &[55]), Meeting::Updated);
    let after = own.clone();
    let refused = |own: &mut Identity, node, disk, boot, nonce, why: &str| match own.meet(
        node,
        disk,
        boot,
        nonce,
        &[],
    ) {
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
    assert_eq!(own.meet(1, 10, 3, 33, &[]), Meeting::Known, "itself");
}

/// A disk is put back as it was before start 6, which was met, and started several times: its number
/// is higher then, and its past is another.
#[test]
fn an_older_image_is_recognised_however_often_it_was_started() {
    let mut own = sample();
    assert_eq!(own.meet(2, 20, 6, 66, &[55, 44]), Meeting::Updated);
    for (boot, past) in [(7, &[60, 55][..]), (8, &[70, 60, 55][..])] {
        match own.meet(2, 20, boot, 1000 + boot, past) {
            Meeting::Refused(reason) => assert!(reason.contains("older image"), "{reason}"),
            other => panic!("boot {boot}: {other:?}"),
        }
    }
    assert_eq!(own.meet(2, 20, 8, 88, &[77, 66, 55]), Meeting::Updated);
    // So far back nothing is told any more.
    assert_eq!(own.meet(2, 20, 100, 1, &[2; 32]), Meeting::Updated);
}
