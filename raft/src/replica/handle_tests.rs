//! The door of a replica whose Raft task does not get on.

use super::*;
use crate::replica::parts::{Nothing, disk, options, shared};
use crate::replica::shared::{Ends, INBOX_MAIL_BYTES};
use crate::store::Stamp;
use raft_protocol::{Body, Entry};
use std::collections::BTreeMap;
use world::net::PROTOCOL;
use world::testing::block_on_test;

fn peer() -> Hello {
    Hello {
        protocol: PROTOCOL,
        cluster: None,
        group: Some(1),
        node: 2,
        disk: 2,
        boot: 1,
        nonce: 1,
        to: None,
        before: Vec::new(),
    }
}

/// A replica without tasks: what is handed in stays where it is.
fn replica() -> (Replica<Nothing>, Ends) {
    let peers = BTreeMap::from([(1, "a:1".to_owned()), (2, "b:1".to_owned())]);
    let (shared, ends) = shared(&disk("door"), options(peers), &Stamp::default());
    (Replica::new(shared), ends)
}

fn append(entries: impl IntoIterator<Item = Body>) -> Bytes {
    let entries = (1..).zip(entries).map(|(index, body)| Entry {
        term: 1,
        index,
        body,
    });
    encode(&Mail::V1(vec![Message::Append {
        term: 1,
        prev_index: 0,
        prev_term: 0,
        commit: 0,
        entries: entries.collect(),
    }]))
}

/// Hands in mail until none is taken any more; how much was.
fn fill(replica: &Replica<Nothing>, ends: &Ends, body: &Bytes) -> usize {
    loop {
        let before = ends.inbox.len();
        replica.mail(&peer(), body.clone());
        if ends.inbox.len() == before {
            return before;
        }
    }
}

/// A leader sends large appends, and the Raft task stands still: far fewer of them wait than the
/// inbox has places, and there is room again as they are taken.
#[test]
fn mail_that_waits_is_bounded_in_bytes() {
    let (replica, mut ends) = replica();
    let body = append([Body::Command(vec![7; 1 << 20].into())]);
    let taken = fill(&replica, &ends, &body);
    assert!(taken * body.len() <= INBOX_MAIL_BYTES, "{taken} of them");
    assert!(
        (taken + 2) * body.len() > INBOX_MAIL_BYTES,
        "{taken} of them"
    );
    drop(ends.inbox.try_recv().expect("they are there"));
    replica.mail(&peer(), body.clone());
    assert_eq!(ends.inbox.len(), taken);
    // Where nothing large fits, a heartbeat does.
    replica.mail(&peer(), append([]));
    assert_eq!(ends.inbox.len(), taken + 1);
}

/// What is tiny on the wire and large in memory counts as what it is in memory.
#[test]
fn mail_that_swells_counts_as_swollen() {
    let (replica, ends) = replica();
    let body = append((0..100_000).map(|_| Body::Noop));
    let taken = fill(&replica, &ends, &body);
    assert!(taken * 100_000 * 32 <= INBOX_MAIL_BYTES, "{taken} of them");
    assert!(taken > 10);
}

/// The number of waiting mails is bounded as well.
#[test]
fn mail_that_waits_is_bounded_in_number() {
    let (replica, ends) = replica();
    assert_eq!(
        fill(&replica, &ends, &append([])),
        crate::replica::shared::INBOX
    );
}

/// A start is announced until it is on record: that its disk was met in an earlier start is no
/// answer. Otherwise a power failure of the peer at that moment leaves nobody who knows of it.
#[test]
fn a_start_that_is_not_on_record_is_not_called_met() {
    block_on_test(async {
        let (replica, _ends) = replica();
        let meet = |hello: Hello| {
            let body = encode(&Call::Meet { disk: hello.disk });
            let answer = replica.call(&hello, Duration::from_secs(1), body);
            async move { decode::<Answer>(&answer.await).expect("an answer") }
        };
        assert!(matches!(meet(peer()).await, Answer::Met { disk: 1 }));
        let (boot, nonce) = (2, 9);
        let later = Hello {
            boot,
            nonce,
            ..peer()
        };
        assert!(matches!(meet(later.clone()).await, Answer::Refused(_)));
        lock(&replica.shared.identity)
            .boots
            .insert(2, (boot, nonce));
        assert!(matches!(meet(later).await, Answer::Met { disk: 1 }));
        assert!(matches!(meet(peer()).await, Answer::Refused(_)));
    });
}
