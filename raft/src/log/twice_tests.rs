use super::*;

const PLACE: Place = Place {
    segment: 7,
    id: 8,
    offset: 8192,
};

fn record() -> Vec<u8> {
    let header = RecordHeader {
        body_len: 0,
        body_crc: 0,
        number: 1,
        hard_state: Default::default(),
        commit: 0,
        last: (0, 0),
    };
    let mut bytes = Vec::new();
    let runs = &[];
    assert!(format::encode_record(
        &mut bytes,
        PLACE.id,
        PLACE.offset,
        header,
        None,
        runs
    ));
    bytes
}

#[test]
fn what_is_kept_is_read_back() {
    let record = record();
    let bytes = encode(PLACE, &record).expect("encoded");
    assert_eq!(decode(&bytes), Contents::Record(PLACE, &record));
}

#[test]
fn no_other_bytes_are_taken_for_it() {
    let bytes = encode(PLACE, &record()).expect("encoded");
    for at in 0..bytes.len() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        assert_eq!(decode(&bytes), Contents::Bad, "byte {at}");
        assert_eq!(decode(&bytes[..at]), Contents::Bad, "{at} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    assert_eq!(decode(&longer), Contents::Bad);
}

/// A good checksum is not enough: what is written over a segment is a record of that very place.
#[test]
fn only_a_record_of_its_place_is_written() {
    let record = record();
    let elsewhere = [
        Place { id: 9, ..PLACE },
        Place {
            offset: 8704,
            ..PLACE
        },
    ];
    for place in elsewhere {
        let bytes = encode(place, &record).expect("encoded");
        assert_eq!(decode(&bytes), Contents::Bad, "{place:?}");
    }
    let longer = [&record[..], &[0; 512]].concat();
    for record in [&record[..100], &longer, b""] {
        let bytes = encode(PLACE, record).expect("encoded");
        assert_eq!(decode(&bytes), Contents::Bad, "{} bytes", record.len());
    }
}

#[test]
fn a_format_not_known_is_said_to_be_so() {
    let mut bytes = encode(PLACE, &record()).expect("encoded");
    bytes[8] = 2;
    assert_eq!(decode(&bytes), Contents::Bad);
    let crc = checksum(&bytes[..16], &bytes[PREFIX..]);
    bytes[16..PREFIX].copy_from_slice(&crc);
    assert_eq!(decode(&bytes), Contents::UnknownVersion(2));
}
