//! Carries a client's write to the leader, for a client that cannot reach it.

use crate::api::{CHANNEL, Response};
use bytes::Bytes;
use ctrler::config::GroupId;
use raft::protocol::NodeId;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use world::net::{CallError, CheckHello, Hello, Limits, Link, SayHello};

/// Links to the other members, made at the first use.
pub(super) struct Carrier {
    links: BTreeMap<NodeId, Link>,
}

impl Carrier {
    pub(super) fn new(
        group: GroupId,
        node: NodeId,
        members: &BTreeMap<NodeId, String>,
        limits: &Limits,
        hello: &SayHello,
    ) -> Carrier {
        let others = members.iter().filter(|(member, _)| **member != node);
        let links = others.map(|(member, address)| {
            let expected = (Some(group), *member);
            let check: CheckHello =
                Arc::new(
                    move |peer: &Hello| match (peer.group, peer.node) == expected {
                        true => Ok(()),
                        false => Err("another server is there".to_owned()),
                    },
                );
            let link = Link::new(address, limits.clone(), hello.clone(), check);
            (*member, link)
        });
        Carrier {
            links: links.collect(),
        }
    }

    /// Sends a write to the leader and returns its answer. What certainly did not leave is answered as
    /// by a member that knows no leader; what left and has no answer is unknown, at once when `deposed`
    /// resolves: it may be cut off, and its successor answers sooner.
    pub(super) async fn carry(
        &self,
        leader: NodeId,
        body: Bytes,
        deadline: Duration,
        deposed: impl Future<Output = ()>,
    ) -> Result<Bytes, Response> {
        let Some(link) = self.links.get(&leader) else {
            return Err(Response::NotLeader(None));
        };
        world::mark!("door: a follower carries a write to the leader");
        let answer = tokio::select! {
            biased;
            answer = link.call(CHANNEL, body, deadline) => answer,
            () = deposed => return Err(Response::Unknown),
        };
        match answer {
            Ok(answer) => Ok(answer),
            Err(CallError::NoAnswer { .. }) => Err(Response::Unknown),
            Err(
                CallError::NotSent { .. } | CallError::Refused { .. } | CallError::TooLarge { .. },
            ) => Err(Response::NotLeader(None)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ctrler::program::client_hello;
    use std::future::pending;
    use std::sync::Mutex;
    use world::net::{BoxFuture, Server, Service};
    use world::testing::block_on_test;

    /// A member that says what channel it was asked on, or nothing at all.
    struct Leader {
        answers: bool,
        asked: Arc<Mutex<Vec<u8>>>,
    }

    impl Service for Leader {
        fn welcome(&self, _: &Hello) -> Result<Hello, String> {
            Ok(Hello {
                group: Some(1),
                node: 2,
                ..client_hello()
            })
        }
        fn mail(&self, _: &Hello, _: u8, _: Bytes) {}
        fn call(&self, _: &Hello, channel: u8, _: Duration, body: Bytes) -> BoxFuture<Bytes> {
            self.asked.lock().expect("no panic holds it").push(channel);
            match self.answers {
                true => Box::pin(async move { body }),
                false => Box::pin(pending()),
            }
        }
    }

    const LISTEN: &str = if cfg!(madsim) {
        "127.0.0.1:7000"
    } else {
        "127.0.0.1:0"
    };
    const WAIT: Duration = Duration::from_millis(300);

    fn carrier(address: String) -> Carrier {
        let members = BTreeMap::from([(1, "127.0.0.1:1".to_owned()), (2, address)]);
        let hello: SayHello = Arc::new(client_hello);
        Carrier::new(1, 1, &members, &Limits::default(), &hello)
    }

    async fn with_leader(
        answers: bool,
        wait: Duration,
        deposed: impl Future<Output = ()>,
    ) -> (Result<Bytes, Response>, Vec<u8>) {
        let server = Server::bind(LISTEN, Limits::default())
            .await
            .expect("bound");
        let carrier = carrier(server.local_addr().to_string());
        let asked = Arc::<Mutex<Vec<u8>>>::default();
        let leader = Leader {
            answers,
            asked: asked.clone(),
        };
        let serving = tokio::spawn(server.serve(Arc::new(leader)));
        let write = Bytes::from_static(b"write");
        let answer = carrier.carry(2, write, wait, deposed).await;
        serving.abort();
        let asked = asked.lock().expect("no panic holds it").clone();
        (answer, asked)
    }

    /// One that took itself for the leader's follower too would send it on, and so for ever.
    #[test]
    fn what_is_carried_is_carried_once() {
        block_on_test(async {
            let (answer, asked) = with_leader(true, WAIT, pending()).await;
            assert_eq!(answer, Ok(Bytes::from_static(b"write")));
            assert_eq!(asked, [CHANNEL]);
        });
    }

    /// Law 8: what left and has no answer may have been done; what did not leave was not.
    #[test]
    fn what_has_no_answer_is_unknown_and_what_did_not_leave_had_no_effect() {
        block_on_test(async {
            let (answer, asked) = with_leader(false, WAIT, pending()).await;
            assert_eq!((answer, asked.len()), (Err(Response::Unknown), 1));
        });
        // Another one leads, long before the time is over.
        block_on_test(async {
            let (day, deposed) = (Duration::from_secs(86_400), world::clock::sleep(WAIT));
            let (answer, asked) = with_leader(false, day, deposed).await;
            assert_eq!((answer, asked.len()), (Err(Response::Unknown), 1));
        });
        block_on_test(async {
            let nobody = carrier("127.0.0.1:2".to_owned());
            let write = Bytes::from_static(b"write");
            let answer = nobody.carry(2, write.clone(), WAIT, pending()).await;
            assert_eq!(answer, Err(Response::NotLeader(None)));
            let answer = nobody.carry(3, write, WAIT, pending()).await;
            assert_eq!(answer, Err(Response::NotLeader(None)), "no such member");
        });
    }
}
