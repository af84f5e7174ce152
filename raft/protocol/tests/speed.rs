//! What a core costs: `cargo test --release -p raft-protocol --test speed -- --ignored --nocapture`.

#![allow(clippy::disallowed_methods)] // a test of real files and real time, outside the simulation

mod support;

use raft_protocol::*;
use support::solo::*;

/// A leader of three with 64 proposals under way, its followers' answers included.
#[test]
#[ignore = "a measurement; run in release"]
fn proposals_per_second() {
    const ROUNDS: u64 = 20_000;
    const BATCH: u64 = 16;
    let mut roomy = start(3, &[], 0);
    roomy.settings = Settings {
        max_append_bytes: 1 << 20,
        max_inflight: 256,
        max_inflight_bytes: 8 << 20,
        max_uncommitted_bytes: 64 << 20,
        cache_bytes: 8 << 20,
        explain: false,
        ..support::settings()
    };
    let mut follower = roomy.clone();
    follower.id = 2;
    let (mut leader, mut follower) = (Solo::from(roomy), Solo::from(follower));
    leader.campaign();
    leader.receive(
        2,
        Message::PreVoteReply {
            term: 1,
            granted: true,
        },
    );
    leader.persist();
    let mut appends = leader
        .receive(
            2,
            Message::VoteReply {
                term: 1,
                granted: true,
            },
        )
        .messages;
    let payload = Payload::from(vec![7u8; 256]);
    let began = std::time::Instant::now();
    for round in 0..ROUNDS {
        for _ in 0..BATCH {
            let out = leader.step(Input::Propose(vec![payload.clone()]));
            assert!(matches!(out.proposed, Some(Proposed::Accepted { .. })));
            appends.extend(out.messages);
        }
        leader.persist();
        for Envelope { to, message } in appends.drain(..) {
            if to == 2 {
                follower.receive(1, message);
            }
        }
        for Envelope { message, .. } in follower.persist().messages {
            appends.extend(leader.receive(2, message).messages);
        }
        if round % 64 == 63 {
            for node in [&mut leader, &mut follower] {
                let commit = node.status().commit.min(node.status().synced_index);
                node.step(Input::Compact(commit));
            }
        }
    }
    let proposals = ROUNDS * BATCH;
    assert!(
        leader.status().commit > proposals - 2 * BATCH,
        "{:?}",
        leader.status()
    );
    let rate = proposals as f64 / began.elapsed().as_secs_f64();
    println!("{rate:.0} proposals per second, leader and one follower on one core");
}
