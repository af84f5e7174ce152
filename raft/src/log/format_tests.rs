use super::*;
use raft_protocol::{Body, Configuration};
use std::collections::BTreeMap;

const ID: u128 = 0x00112233_44556677_8899aabb_ccddeeff;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn configuration() -> Configuration {
    Configuration {
        voters: BTreeMap::from([(1, 11), (2, 300)]),
        ..Configuration::default()
    }
}

fn hard_state() -> HardState {
    HardState {
        term: 5,
        vote: Some(2),
        abstain: Some(Abstain { term: 4, index: 9 }),
    }
}

/// The bytes of format 1: a change of any of them makes a new format.
#[test]
fn golden_segment_header() {
    let header = SegmentHeader {
        owner: LogOwner {
            group: 1,
            node: 2,
            disk: 300,
        },
        number: 7,
        kind: Kind::Reset,
        length: 1 << 20,
        hard_state: hard_state(),
        base: SnapshotMeta {
            index: 128,
            term: 4,
            configuration: configuration(),
        },
        batch: 1000,
        last: (130, 5),
    };
    let bytes = encode_segment(ID, &header).expect("it fits");
    assert_eq!(bytes.len() as u64, HEADER_COPY);
    let used = bytes.iter().rposition(|b| *b != 0).expect("not empty") + 1;
    assert_eq!(
        hex(&bytes[..used]),
        "484f4c44464c4f470100000020000000ffeeddccbbaa9988776655443322110049209626000102ac02070180804005010201040980010402010b02ac020000e807820105"
    );
    match decode_segment(&bytes) {
        HeaderCopy::Valid(id, decoded) => assert_eq!((id, *decoded), (ID, header)),
        _ => panic!("not valid"),
    }
}

#[test]
fn golden_record() {
    let runs = [
        vec![
            Entry {
                term: 3,
                index: 129,
                body: Body::Noop,
            },
            Entry {
                term: 3,
                index: 130,
                body: Body::Command(b"put".into()),
            },
        ],
        vec![Entry {
            term: 5,
            index: 130,
            body: Body::Configuration(configuration()),
        }],
    ];
    let base = SnapshotMeta {
        index: 128,
        term: 3,
        configuration: configuration(),
    };
    let header = RecordHeader {
        body_len: 0,
        body_crc: 0,
        number: 1001,
        hard_state: hard_state(),
        commit: 0,
        last: (130, 5),
    };
    let mut bytes = Vec::new();
    let slices: Vec<&[Entry]> = runs.iter().map(Vec::as_slice).collect();
    assert!(encode_record(
        &mut bytes,
        ID,
        8192,
        header.clone(),
        Some(&base),
        &slices
    ));
    assert_eq!(bytes.len() as u64 % SECTOR, 0);
    let used = bytes.iter().rposition(|b| *b != 0).expect("not empty") + 1;
    assert_eq!(
        hex(&bytes[..used]),
        "4254434839ed9ba1280000007881181fe903000000000000050000000000000002000000000000000100000000000000040000000000000009000000000000008200000000000000050000000000000000200000000000000000000000000000000180010302010b02ac0200000202038101000382010103707574010582010202010b02ac02"
    );

    let decoded = RecordHeader::decode(ID, 8192, &bytes).expect("valid");
    let body = &bytes[RECORD_HEADER..RECORD_HEADER + decoded.body_len as usize];
    assert!(body_is_valid(ID, &decoded, body));
    let contents = decode_body(body).expect("decodes");
    assert_eq!(contents.base, Some(base));
    assert_eq!(contents.runs, runs);
    assert_eq!(
        (decoded.number, decoded.hard_state, decoded.last),
        (1001, hard_state(), (130, 5))
    );
    assert!(
        RecordHeader::decode(ID + 1, 8192, &bytes).is_none(),
        "the key is part of the checksum"
    );
    assert!(
        RecordHeader::decode(ID, 8704, &bytes).is_none(),
        "a record elsewhere is none"
    );
}

#[test]
fn an_unknown_format_is_told_from_damage() {
    let header = SegmentHeader {
        owner: LogOwner {
            group: 1,
            node: 1,
            disk: 1,
        },
        number: 1,
        kind: Kind::Normal,
        length: 1,
        hard_state: HardState::default(),
        base: SnapshotMeta::default(),
        batch: 0,
        last: (0, 0),
    };
    let mut bytes = encode_segment(ID, &header).expect("it fits");
    bytes[8] = 9;
    assert!(matches!(decode_segment(&bytes), HeaderCopy::Bad));
    let body_len = u32_at(&bytes, 12) as usize;
    let crc = keyed(ID, &[&bytes[..32], &bytes[36..36 + body_len]]);
    bytes[32..36].copy_from_slice(&crc.to_le_bytes());
    assert!(matches!(
        decode_segment(&bytes),
        HeaderCopy::UnknownVersion(9)
    ));
}

#[test]
fn a_membership_too_large_for_a_header_is_refused() {
    let mut header = SegmentHeader {
        owner: LogOwner {
            group: 1,
            node: 1,
            disk: 1,
        },
        number: 1,
        kind: Kind::Normal,
        length: 1,
        hard_state: HardState::default(),
        base: SnapshotMeta::default(),
        batch: 0,
        last: (0, 0),
    };
    header.base.configuration.voters = (1..500).map(|n| (n, u128::MAX)).collect();
    assert!(encode_segment(ID, &header).is_none());
}
