//! The door of a replica whose Raft task does not get on.

use super::*;
use crate::replica::parts::{Nothing, disk, options, shared};
use crate::replica::shared::{Ends, INBOX, INBOX_MAIL_BYTES};
use crate::replica::wire::encode_mail;
use crate::store::Stamp;
use raft_protocol::{Body, Entry};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::task::Poll;
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
        level: 1,
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
    let append = Message::Append {
        term: 1,
        prev_index: 0,
        prev_term: 0,
        commit: 0,
        entries: entries.collect(),
    };
    encode_mail(&[append], PROTOCOL.1)
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
    assert_eq!(fill(&replica, &ends, &append([])), INBOX);
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

/// What a client proposes in one go enters the inbox in that order, also when its connection's task
/// has used up its budget, and when the inbox is full; whatever order they are polled in afterwards.
#[test]
fn requests_enter_in_the_order_they_came() {
    for standing in [0, INBOX - 3] {
        block_on_test(async move {
            let (replica, mut ends) = replica();
            for _ in 0..standing {
                replica.mail(&peer(), append([]));
            }
            let ask = |n: u64| {
                let (replica, body) = (replica.clone(), Bytes::from(n.to_string()));
                async move {
                    let time = Duration::from_secs(60);
                    match n % 2 {
                        0 => drop(replica.propose(body, time).await),
                        _ => drop(replica.read(body, time).await),
                    }
                }
            };
            let mut asked: Vec<_> = (0..256).map(|n| Box::pin(ask(n))).collect();
            let mut poll = async |backwards: bool| {
                poll_fn(|cx| {
                    if backwards {
                        for request in asked.iter_mut().rev() {
                            assert!(request.as_mut().poll(cx).is_pending(), "nobody answers");
                        }
                    } else {
                        for request in &mut asked {
                            assert!(request.as_mut().poll(cx).is_pending(), "nobody answers");
                        }
                    }
                    Poll::Ready(())
                })
                .await;
                tokio::task::yield_now().await;
            };
            poll(false).await;
            let room = INBOX.min(standing + 256);
            assert_eq!(ends.inbox.len(), room, "no budget keeps them out");
            let (mut came, mut waiters) = (Vec::new(), Vec::new());
            while came.len() < 256 {
                for _ in 0..4 {
                    match ends.inbox.try_recv() {
                        Ok(Event::Propose { command, waiter }) => {
                            came.push(command);
                            waiters.push(waiter.reply);
                        }
                        Ok(Event::Read(query)) => {
                            came.push(query.query);
                            std::mem::forget(query.reply);
                        }
                        _ => {}
                    }
                }
                poll(true).await;
            }
            let order: Vec<_> = (0..256).map(|n: u64| Bytes::from(n.to_string())).collect();
            assert_eq!(came, order);
        });
    }
}

/// Short commands are work as well: no more than some thousands of them wait to be applied.
#[test]
fn short_commands_that_wait_are_bounded_in_number() {
    block_on_test(async {
        let (replica, _ends) = replica();
        let most = replica.shared.options.max_uncommitted_bytes / COMMAND_BYTES;
        let mut waiting = Vec::new();
        let refused = loop {
            let replica = replica.clone();
            let mut proposal = Box::pin(async move {
                let command = Bytes::from_static(b"x");
                replica.propose(command, Duration::from_secs(60)).await
            });
            let polled = poll_fn(|cx| Poll::Ready(proposal.as_mut().poll(cx))).await;
            match polled {
                Poll::Pending => waiting.push(proposal),
                Poll::Ready(answer) => break answer,
            }
            assert!(waiting.len() <= most, "{} of them wait", waiting.len());
        };
        assert!(matches!(refused, Err(ProposeError::Busy)), "{refused:?}");
        assert!(waiting.len() > most / 2 && most < 10_000, "{most}");
    });
}
