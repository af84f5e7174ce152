//! The bytes of every message kind, as they are on the wire (postcard). A difference here means
//! that nodes of two versions do not understand each other.

mod support;

use raft_protocol::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn kinds() -> Vec<(Message, &'static str)> {
    let configuration = Configuration {
        voters: [(1, 10)].into(),
        outgoing: [(2, 300)].into(),
        learners: [(3, 1)].into(),
    };
    let entries = vec![
        Entry {
            term: 2,
            index: 5,
            body: Body::Noop,
        },
        Entry {
            term: 2,
            index: 6,
            body: Body::Command(Payload::from("ab")),
        },
        Entry {
            term: 300,
            index: 7,
            body: Body::Configuration(configuration),
        },
    ];
    let conflict = AppendVerdict::Conflict {
        prev_index: 9,
        hint_index: 8,
        hint_term: 2,
    };
    let matched = HeartbeatVerdict::Matched {
        received: 5,
        synced: 4,
    };
    let lost = HeartbeatVerdict::Lost {
        hint_index: 5,
        hint_term: 4,
    };
    let append_reply = |verdict| Message::AppendReply { term: 7, verdict };
    let heartbeat_reply = |verdict| Message::HeartbeatReply {
        term: 7,
        round: 300,
        verdict,
    };
    vec![
        (
            Message::PreVote {
                term: 7,
                last_index: 300,
                last_term: 6,
            },
            "0007ac0206",
        ),
        (
            Message::PreVoteReply {
                term: 7,
                granted: true,
            },
            "010701",
        ),
        (
            Message::Vote {
                term: 7,
                last_index: 300,
                last_term: 6,
                transfer: true,
            },
            "0207ac020601",
        ),
        (
            Message::VoteReply {
                term: 7,
                granted: false,
            },
            "030700",
        ),
        (
            Message::Append {
                term: 300,
                prev_index: 4,
                prev_term: 1,
                commit: 3,
                entries,
            },
            "04ac0204010303020500020601026162ac02070201010a0102ac02010301",
        ),
        (
            append_reply(AppendVerdict::Matched { index: 6 }),
            "05070006",
        ),
        (append_reply(conflict), "050701090802"),
        (append_reply(AppendVerdict::NeedSnapshot), "050702"),
        (append_reply(AppendVerdict::Stale), "050703"),
        (
            Message::Heartbeat {
                term: 7,
                round: 300,
                prev_index: 5,
                prev_term: 6,
                commit: 4,
            },
            "0607ac02050604",
        ),
        (heartbeat_reply(matched), "0707ac02000504"),
        (heartbeat_reply(lost), "0707ac02010504"),
        (
            heartbeat_reply(HeartbeatVerdict::NeedSnapshot),
            "0707ac0202",
        ),
        (
            Message::ReadIndex {
                term: 7,
                life: 9,
                id: 8,
            },
            "08070908",
        ),
        (
            Message::ReadIndexReply {
                term: 7,
                life: 9,
                id: 8,
                index: Some(5),
            },
            "090709080105",
        ),
        (
            Message::ReadIndexReply {
                term: 7,
                life: 9,
                id: 8,
                index: None,
            },
            "0907090800",
        ),
    ]
}

#[test]
fn golden_bytes_of_every_message() {
    for (message, golden) in kinds() {
        let bytes = postcard::to_stdvec(&message).expect("messages serialize");
        assert_eq!(hex(&bytes), golden, "{message:?}");
        let back: Message = postcard::from_bytes(&bytes).expect("and deserialize");
        assert_eq!(back, message);
    }
}

#[test]
fn every_kind_has_golden_bytes() {
    // A new kind makes this match incomplete: give it golden bytes above.
    let kind = |m: &Message| match m {
        Message::PreVote { .. } => 0,
        Message::PreVoteReply { .. } => 1,
        Message::Vote { .. } => 2,
        Message::VoteReply { .. } => 3,
        Message::Append { .. } => 4,
        Message::AppendReply { .. } => 5,
        Message::Heartbeat { .. } => 6,
        Message::HeartbeatReply { .. } => 7,
        Message::ReadIndex { .. } => 8,
        Message::ReadIndexReply { .. } => 9,
    };
    let seen: std::collections::BTreeSet<i32> = kinds().iter().map(|(m, _)| kind(m)).collect();
    assert_eq!(seen.len(), 10);
}

#[test]
fn golden_bytes_of_what_is_persisted() {
    let hard = HardState {
        term: 300,
        vote: Some(2),
        abstain: Some(Abstain { term: 4, index: 9 }),
    };
    assert_eq!(
        hex(&postcard::to_stdvec(&hard).expect("serializes")),
        "ac0201020104 09".replace(' ', "")
    );
    let meta = SnapshotMeta {
        index: 9,
        term: 4,
        configuration: support::configuration(1),
    };
    assert_eq!(
        hex(&postcard::to_stdvec(&meta).expect("serializes")),
        "0904 010101 0000".replace(' ', "")
    );
}

#[test]
fn random_bytes_are_refused_not_believed() {
    for length in 0..64u8 {
        let bytes: Vec<u8> = (0..length)
            .map(|i| i.wrapping_mul(97).wrapping_add(length))
            .collect();
        let _ = postcard::from_bytes::<Message>(&bytes);
    }
    assert!(postcard::from_bytes::<Message>(&[200, 1]).is_err());
}
