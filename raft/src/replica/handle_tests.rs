//! The door of a replica whose Raft task does not get on.

use super::*;
use crate::replica::parts::{Nothing, disk, options, shared};
use crate::replica::shared::{COMMAND_BYTES, Ends, INBOX, INBOX_MAIL_BYTES};
use crate::replica::wire::{encode_mail, unwrap};
use crate::store::Stamp;
use raft_protocol::{Body, Entry, Payload};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
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
    encode_mail(&[append], None, PROTOCOL.1)
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
            let mut asked: Vec<_> = (0..512).map(|n| Box::pin(ask(n))).collect();
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
            let room = INBOX.min(standing + 512);
            assert_eq!(ends.inbox.len(), room, "no budget keeps them out");
            let (mut came, mut waiters) = (Vec::new(), Vec::new());
            while came.len() < 512 {
                for _ in 0..4 {
                    match ends.inbox.try_recv() {
                        Ok(Event::Propose { command, waiter }) => {
                            came.push(Bytes::copy_from_slice(inside(&command)));
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
            let order: Vec<_> = (0..512).map(|n: u64| Bytes::from(n.to_string())).collect();
            assert_eq!(came, order);
        });
    }
}

type Proposal = Pin<Box<dyn Future<Output = Result<Bytes, ProposeError>>>>;

/// A proposal, polled once.
async fn proposed(replica: &Replica<Nothing>, command: Vec<u8>, own: bool) -> Proposal {
    let (replica, time) = (replica.clone(), Duration::from_secs(60));
    let mut proposal: Proposal = Box::pin(async move {
        match own {
            true => replica.propose_own(command.into(), time).await,
            false => replica.propose(command.into(), time).await,
        }
    });
    poll_fn(|cx| Poll::Ready(proposal.as_mut().poll(cx).is_pending())).await;
    proposal
}

/// Polls all of them in order; those that end are gone.
async fn poll_all(proposals: &mut Vec<Proposal>) {
    poll_fn(|cx| {
        proposals.retain_mut(|proposal| proposal.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
}

/// A command without its envelope.
fn inside(command: &Payload) -> &[u8] {
    unwrap(&command.0).expect("it is wrapped").1
}

/// Lengths of the commands that have come; their clients still wait.
fn came(ends: &mut Ends, waiters: &mut Vec<Waiter>) -> Vec<usize> {
    let mut lengths = Vec::new();
    while let Ok(event) = ends.inbox.try_recv() {
        if let Event::Propose { command, waiter } = event {
            lengths.push(inside(&command).len());
            waiters.push(waiter);
        }
    }
    lengths
}

/// Short commands are work as well: no more than some thousands of them wait to be applied.
#[test]
fn short_commands_that_wait_are_bounded_in_number() {
    block_on_test(async {
        let (replica, mut ends) = replica();
        let most = replica.shared.options.max_uncommitted_bytes / (COMMAND_BYTES + 1);
        assert!(most < INBOX, "the inbox is no limit here");
        let mut waiting = Vec::new();
        for _ in 0..most + 100 {
            waiting.push(proposed(&replica, vec![7], false).await);
        }
        assert_eq!(ends.inbox.len(), most);
        // The next one enters when one has its answer.
        let mut waiters = Vec::new();
        came(&mut ends, &mut waiters);
        waiters.truncate(most - 1);
        poll_all(&mut waiting).await;
        assert_eq!(ends.inbox.len(), 1);
    });
}

/// One after another, in the order they came: short commands do not overtake a long one for which
/// there is no room yet.
#[test]
fn a_long_command_is_not_overtaken_for_ever() {
    block_on_test(async {
        let (replica, mut ends) = replica();
        let (short, long) = (1 << 20, 8 << 20);
        let mut proposals = Vec::new();
        for _ in 0..31 {
            proposals.push(proposed(&replica, vec![7; short], false).await);
        }
        let mut waiters = Vec::new();
        assert_eq!(came(&mut ends, &mut waiters), [short; 31]);
        proposals.push(proposed(&replica, vec![7; long], false).await);
        proposals.push(proposed(&replica, vec![7; 100], false).await);
        // Room for short ones comes and goes.
        for _ in 0..8 {
            assert_eq!(came(&mut ends, &mut waiters), []);
            waiters.remove(0);
            poll_all(&mut proposals).await;
        }
        assert_eq!(came(&mut ends, &mut waiters), [long, 100]);
    });
}

/// What the server itself has to say does not wait for clients.
#[test]
fn own_commands_have_room_of_their_own() {
    block_on_test(async {
        let (replica, mut ends) = replica();
        let mut waiters = Vec::new();
        let _flood: Vec<Proposal> = {
            let mut flood = Vec::new();
            for _ in 0..40 {
                flood.push(proposed(&replica, vec![7; 1 << 20], false).await);
            }
            flood
        };
        let full = came(&mut ends, &mut waiters);
        assert!(full.len() < 40, "the rest waits");
        let _own = proposed(&replica, vec![7; 240 << 10], true).await;
        assert_eq!(came(&mut ends, &mut waiters), [240 << 10]);
    });
}

/// Without room until the deadline a command has certainly not been appended.
#[test]
fn a_command_without_room_is_busy_at_its_deadline() {
    block_on_test(async {
        let (replica, mut ends) = replica();
        let mut waiters = Vec::new();
        let mut flood = Vec::new();
        for _ in 0..32 {
            flood.push(proposed(&replica, vec![7; 1 << 20], false).await);
        }
        came(&mut ends, &mut waiters);
        let wait = Duration::from_millis(20);
        // Behind the one that waits already.
        let refused = replica.propose(Bytes::from_static(b"x"), wait).await;
        assert!(matches!(refused, Err(ProposeError::Busy)), "{refused:?}");
        assert_eq!(came(&mut ends, &mut waiters), []);
        // One that is in and has no answer may take effect.
        drop((flood, waiters));
        let unknown = replica.propose(Bytes::from_static(b"x"), wait).await;
        assert!(
            matches!(unknown, Err(ProposeError::Unknown(_))),
            "{unknown:?}"
        );
    });
}

/// One peer that refuses a start leaves it a majority of three.
#[test]
fn a_start_is_not_heard_when_no_majority_is_left_for_it() {
    let heard = |refusing: &[u64], members| {
        let said = refusing.iter().map(|node| (*node, format!("by {node}")));
        refused(&Mutex::new(said.collect()), members)
    };
    assert_eq!(heard(&[], 1), None);
    assert_eq!(heard(&[2], 3), None);
    assert_eq!(heard(&[2, 3], 5), None);
    assert_eq!(heard(&[2, 3], 3).unwrap(), "it is not heard: by 2; by 3");
    assert!(heard(&[1, 2, 4], 5).is_some() && heard(&[2], 2).is_some());
}
