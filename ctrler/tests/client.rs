//! The client against a scripted controller: what it takes for an answer, and what for a doubt.

mod common;
use bytes::Bytes;
use common::{group, join};
use ctrler::api::{CHANNEL, Change, Request, Response};
use ctrler::client::{Client, ClientError};
use ctrler::config::Config;
use ctrler::program::client_hello;
use raft::session::{Refusal, Seq};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::net::{BoxFuture, Hello, Limits, Server, Service};

const SOON: Duration = Duration::from_millis(400);
const LONG: Duration = Duration::from_secs(20);

/// Answers by a script; `None`: never.
type Script = Box<dyn FnMut(&Request) -> Option<Response> + Send>;

struct Fake {
    script: Mutex<Script>,
    group: u64,
}

impl Service for Fake {
    fn welcome(&self, _: &Hello) -> Result<Hello, String> {
        Ok(Hello {
            group: Some(self.group),
            node: 1,
            ..client_hello()
        })
    }

    fn mail(&self, _: &Hello, _: u8, _: Bytes) {}

    fn call(&self, _: &Hello, channel: u8, _: Duration, body: Bytes) -> BoxFuture<Bytes> {
        assert_eq!(channel, CHANNEL);
        let request: Request = postcard::from_bytes(&body).unwrap();
        let answer = (self.script.lock().unwrap())(&request);
        Box::pin(async move {
            match answer {
                Some(answer) => postcard::to_stdvec(&answer).unwrap().into(),
                None => std::future::pending().await,
            }
        })
    }
}

async fn fake(
    group: u64,
    script: impl FnMut(&Request) -> Option<Response> + Send + 'static,
) -> String {
    let server = Server::bind("127.0.0.1:0", Limits::default())
        .await
        .unwrap();
    let address = server.local_addr().to_string();
    let service = Fake {
        script: Mutex::new(Box::new(script)),
        group,
    };
    tokio::spawn(server.serve(Arc::new(service)));
    address
}

fn client(servers: &[&str]) -> Client {
    Client::new(
        servers.iter().map(|s| s.to_string()).collect(),
        Arc::new(client_hello),
    )
}

fn run(body: impl Future<Output = ()> + 'static) {
    world::testing::block_on_test(body)
}

/// What was asked, in order.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Request>>>);

impl Heard {
    fn note(&self, request: &Request) -> usize {
        let mut heard = self.0.lock().unwrap();
        heard.push(request.clone());
        heard
            .iter()
            .filter(|r| std::mem::discriminant(*r) == std::mem::discriminant(request))
            .count()
    }

    fn writes(&self) -> Vec<(Seq, Change)> {
        let heard = self.0.lock().unwrap();
        let write = |r: &Request| match r {
            Request::Write(seq, change) => Some((*seq, change.clone())),
            _ => None,
        };
        heard.iter().filter_map(write).collect()
    }
}

fn seq(session: u64, seq: u64) -> Seq {
    Seq {
        session,
        seq,
        acked: seq - 1,
    }
}

/// Wound: a timeout reported as success.
#[test]
fn a_timeout_is_never_a_success() {
    run(async {
        // Sent and never answered.
        let server = fake(0, |request| match request {
            Request::Open => Some(Response::Session(1)),
            _ => None,
        })
        .await;
        let outcome = client(&[&server]).move_shard(1, 1, SOON).await;
        assert!(
            matches!(outcome, Err(ClientError::Unknown(_))),
            "{outcome:?}"
        );
        // The server says itself that it does not know.
        let server = fake(0, |request| match request {
            Request::Open => Some(Response::Session(1)),
            _ => Some(Response::Unknown),
        })
        .await;
        let outcome = client(&[&server]).move_shard(1, 1, SOON).await;
        assert!(
            matches!(outcome, Err(ClientError::Unknown(_))),
            "{outcome:?}"
        );
        // Certainly without effect: there is no session, no leader, no server at all.
        for answer in [None, Some(Response::Busy), Some(Response::NotLeader(None))] {
            let server = fake(0, move |_| answer.clone()).await;
            let outcome = client(&[&server]).move_shard(1, 1, SOON).await;
            assert!(
                matches!(outcome, Err(ClientError::Unavailable(_))),
                "{outcome:?}"
            );
            let outcome = client(&[&server]).query(None, SOON).await;
            assert!(
                matches!(outcome, Err(ClientError::Unavailable(_))),
                "{outcome:?}"
            );
        }
        for servers in [&["127.0.0.1:6999"][..], &[]] {
            let outcome = client(servers).move_shard(1, 1, SOON).await;
            assert!(
                matches!(outcome, Err(ClientError::Unavailable(_))),
                "{outcome:?}"
            );
        }
    });
}

#[test]
fn a_doubtful_change_is_asked_again_under_its_number() {
    run(async {
        let heard = Heard::default();
        let ear = heard.clone();
        let server = fake(0, move |request| match (request, ear.note(request)) {
            (Request::Open, _) => Some(Response::Session(7)),
            (Request::Write(..), 1) => Some(Response::Unknown),
            (Request::Write(..), 2) => None,
            (Request::Write(..), 3) => Some(Response::NotLeader(None)),
            (Request::Write(..), 5) => Some(Response::Invalid("no".into())),
            _ => Some(Response::Done(4)),
        })
        .await;
        let client = client(&[&server]);
        assert_eq!(client.move_shard(1, 1, LONG).await, Ok(4));
        assert_eq!(
            client.leave(vec![1], LONG).await,
            Err(ClientError::Invalid("no".into()))
        );
        assert_eq!(client.leave(vec![2], LONG).await, Ok(4));
        let first = (seq(7, 1), Change::Move(1, 1));
        let writes = heard.writes();
        assert_eq!(
            writes[..4],
            [first.clone(), first.clone(), first.clone(), first]
        );
        assert_eq!(
            writes[4..],
            [
                (seq(7, 2), Change::Leave(vec![1])),
                (seq(7, 3), Change::Leave(vec![2]))
            ]
        );
    });
}

#[test]
fn an_expired_session_leaves_no_false_answer() {
    run(async {
        // Nothing was in doubt: a new session, and the change is made there.
        let heard = Heard::default();
        let ear = heard.clone();
        let server = fake(0, move |request| match (request, ear.note(request)) {
            (Request::Open, n) => Some(Response::Session(n as u64)),
            (Request::Write(..), 1) => Some(Response::Refused(Refusal::SessionExpired)),
            _ => Some(Response::Done(1)),
        })
        .await;
        assert_eq!(client(&[&server]).leave(vec![1], LONG).await, Ok(1));
        assert_eq!(
            heard.writes().iter().map(|w| w.0).collect::<Vec<_>>(),
            [seq(1, 1), seq(2, 1)]
        );

        // An attempt was in doubt: it may have been done before the session went.
        let heard = Heard::default();
        let ear = heard.clone();
        let server = fake(0, move |request| match (request, ear.note(request)) {
            (Request::Open, n) => Some(Response::Session(n as u64)),
            (Request::Write(..), 1) => Some(Response::Unknown),
            (Request::Write(..), 2) => Some(Response::Refused(Refusal::SessionExpired)),
            _ => Some(Response::Done(1)),
        })
        .await;
        let client = client(&[&server]);
        let outcome = client.leave(vec![1], LONG).await;
        assert!(
            matches!(outcome, Err(ClientError::Unknown(_))),
            "{outcome:?}"
        );
        // The next change has a session of its own.
        assert_eq!(client.leave(vec![2], LONG).await, Ok(1));
        let (last, change) = heard.writes().pop().unwrap();
        assert_eq!((last, change), (seq(2, 1), Change::Leave(vec![2])));
    });
}

#[test]
fn a_dropped_change_does_not_harm_the_next() {
    run(async {
        let heard = Heard::default();
        let ear = heard.clone();
        let server = fake(0, move |request| match (request, ear.note(request)) {
            (Request::Open, _) => Some(Response::Session(7)),
            // The first attempt of the first change is lost.
            (Request::Write(..), 1) => None,
            (Request::Write(seq, _), _) => Some(Response::Done(seq.seq)),
            _ => None,
        })
        .await;
        let client = client(&[&server]);
        let dropped = tokio::time::timeout(SOON, client.join([(1, group(1))].into(), LONG));
        assert!(dropped.await.is_err(), "it waits for the lost answer");
        // Dropped before its turn came: never sent.
        let never = tokio::time::timeout(Duration::from_millis(20), client.leave(vec![9], LONG));
        assert!(never.await.is_err());
        assert_eq!(client.leave(vec![2], LONG).await, Ok(2));
        let join = (seq(7, 1), join(&[1]));
        assert_eq!(
            heard.writes(),
            [join.clone(), join, (seq(7, 2), Change::Leave(vec![2]))]
        );
    });
}

#[test]
fn hints_are_followed_and_remembered() {
    run(async {
        let leads = Heard::default();
        let ear = leads.clone();
        let leader = fake(0, move |request| {
            ear.note(request);
            Some(Response::Cluster {
                cluster: 1,
                shards: 2,
                latest: 3,
            })
        })
        .await;
        let follows = Heard::default();
        let (ear, hint) = (follows.clone(), leader.clone());
        let follower = fake(0, move |request| {
            ear.note(request);
            Some(Response::NotLeader(Some((2, hint.clone()))))
        })
        .await;
        // The leader is known by the hint alone.
        let client = client(&[&follower]);
        for _ in 0..5 {
            assert_eq!(client.cluster(LONG).await, Ok((1, 2, 3)));
        }
        assert_eq!(follows.0.lock().unwrap().len(), 1);
        assert_eq!(leads.0.lock().unwrap().len(), 5);
    });
}

#[test]
fn a_server_of_another_group_or_cluster_is_refused() {
    run(async {
        let server = fake(3, |_| Some(Response::Busy)).await;
        match client(&[&server]).query(None, SOON).await {
            Err(ClientError::Unavailable(reason)) => {
                assert!(
                    reason.contains("group 3") && reason.contains("expected a controller"),
                    "{reason}"
                );
            }
            other => panic!("{other:?}"),
        }
        let pages = client(&[&server, "127.0.0.1:1"]).status(SOON).await;
        assert_eq!(pages.len(), 2);
        assert!(pages.iter().all(|(_, page)| page.is_err()));
    });
}

/// Controllers of a build that does not know how far a group may go are asked for the configuration
/// behind its own, at once.
#[test]
fn older_controllers_are_asked_for_the_next_configuration() {
    run(async {
        let heard = Heard::default();
        let heard_there = heard.clone();
        let server = fake(0, move |request| {
            heard_there.note(request);
            Some(match request {
                Request::Query(Some(num)) => Response::Config(Config {
                    num: *num,
                    ..Config::default()
                }),
                _ => Response::Malformed("a request that this version does not know".into()),
            })
        })
        .await;
        let next = client(&[&server]).next(3, 5, SOON).await;
        assert_eq!(next.map(|config| config.num), Ok(6));
        let asked = heard.0.lock().unwrap().clone();
        let next = Request::Next { group: 3, after: 5 };
        assert_eq!(asked, [next, Request::Query(Some(6))]);
    });
}
