//! Controllers and groups that follow a script.

use bytes::Bytes;
use ctrler::config::{Config, Group, Record};
use kv::api::{Op, Outcome, Request, Response};
use kv::client::{Client, ClientOptions};
use raft::session::{Refusal, Seq};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use world::net::{BoxFuture, Hello, Limits, Server, Service};

/// What a group does with the next write that reaches its leader, instead of just executing it.
#[derive(Clone, Debug)]
pub enum Twist {
    /// Execute it, and never answer.
    LoseAnswer,
    /// Drop it, and never answer.
    LoseRequest,
    /// Execute it, and answer this.
    ExecuteBut(Response),
    /// Answer this, and do nothing.
    Answer(Response),
    /// Execute and answer after a while.
    After(Duration),
}

#[derive(Default)]
pub struct State {
    pub rows: BTreeMap<Bytes, Vec<u8>>,
    /// Session -> stored replies, in order.
    pub sessions: BTreeMap<u64, Vec<Vec<Outcome>>>,
    pub opened: u64,
    pub leader: u64,
    pub twists: VecDeque<Twist>,
    /// Every write that reached the leader.
    pub seen: Vec<Seq>,
    /// Where the shard is instead of here.
    pub gone: Option<Response>,
    pub members: BTreeMap<u64, String>,
    /// The cluster that its members say they belong to.
    pub cluster: u128,
}

impl State {
    fn write(&mut self, seq: Seq, ops: Vec<Op>) -> Response {
        let Some(replies) = self.sessions.get_mut(&seq.session) else {
            return Response::Refused(Refusal::SessionExpired);
        };
        let last = replies.len() as u64;
        if seq.acked >= seq.seq {
            return Response::Refused(Refusal::Malformed);
        }
        if seq.seq <= last {
            return Response::Written(replies[seq.seq as usize - 1].clone());
        }
        if seq.seq > last + 1 {
            return Response::Refused(Refusal::Gap(last));
        }
        let outcomes: Vec<Outcome> = ops
            .into_iter()
            .map(|op| match op {
                Op::Append { key, value } => {
                    let row = self.rows.entry(key).or_default();
                    row.extend_from_slice(&value);
                    Outcome::Written {
                        len: row.len() as u64,
                    }
                }
                Op::Put { key, value } => {
                    self.rows.insert(key, value.to_vec());
                    Outcome::Written {
                        len: value.len() as u64,
                    }
                }
                other => panic!("not in the script: {other:?}"),
            })
            .collect();
        replies.push(outcomes.clone());
        Response::Written(outcomes)
    }
}

/// One member of the fake group 1 (or of a group it moved to).
struct Member {
    group: u64,
    node: u64,
    state: Arc<Mutex<State>>,
}

/// The cluster that the controllers belong to.
pub const CLUSTER: u128 = 7;

pub fn hello(cluster: u128, group: u64, node: u64) -> Hello {
    Hello {
        protocol: world::net::PROTOCOL,
        cluster: Some(cluster),
        group: Some(group),
        node,
        disk: 1,
        boot: 1,
        nonce: 1,
        to: None,
        before: Vec::new(),
        level: 1,
    }
}

fn answer(response: Response) -> BoxFuture<Bytes> {
    let bytes = Bytes::from(postcard::to_stdvec(&response).expect("plain data"));
    Box::pin(async move { bytes })
}

impl Service for Member {
    fn welcome(&self, _peer: &Hello) -> Result<Hello, String> {
        let cluster = self.state.lock().expect("no panic holds it").cluster;
        Ok(hello(cluster, self.group, self.node))
    }
    fn mail(&self, _peer: &Hello, _channel: u8, _body: Bytes) {}
    fn call(
        &self,
        _peer: &Hello,
        _channel: u8,
        _deadline: Duration,
        body: Bytes,
    ) -> BoxFuture<Bytes> {
        let request: Request = postcard::from_bytes(&body).expect("a request");
        let mut state = self.state.lock().expect("no panic holds it");
        if let Some(gone) = &state.gone {
            return answer(gone.clone());
        }
        if state.leader != self.node {
            let leader = state
                .members
                .get(&state.leader)
                .map(|at| (state.leader, at.clone()));
            return answer(Response::NotLeader(leader));
        }
        match request {
            Request::Open { .. } => {
                state.opened += 1;
                let id = state.opened;
                state.sessions.insert(id, Vec::new());
                answer(Response::Session(id))
            }
            Request::Close { session, .. } => {
                state.sessions.remove(&session);
                answer(Response::Closed)
            }
            Request::Get { key, .. } => answer(Response::Value(
                state.rows.get(&key).map(|row| row.clone().into()),
            )),
            Request::Write { seq, ops, .. } => {
                state.seen.push(seq);
                match state.twists.pop_front() {
                    None => answer(state.write(seq, ops)),
                    Some(Twist::LoseAnswer) => {
                        state.write(seq, ops);
                        Box::pin(std::future::pending())
                    }
                    Some(Twist::LoseRequest) => Box::pin(std::future::pending()),
                    Some(Twist::ExecuteBut(response)) => {
                        state.write(seq, ops);
                        answer(response)
                    }
                    Some(Twist::Answer(response)) => answer(response),
                    Some(Twist::After(pause)) => {
                        let reply = state.write(seq, ops);
                        let bytes = Bytes::from(postcard::to_stdvec(&reply).expect("plain data"));
                        Box::pin(async move {
                            tokio::time::sleep(pause).await;
                            bytes
                        })
                    }
                }
            }
            other => panic!("not in the script: {other:?}"),
        }
    }
}

/// What the controller does besides answering queries.
#[derive(Default)]
pub struct Control {
    /// It answers nothing but "not now".
    pub down: bool,
    /// Where groups are now; for others, the configuration says it.
    pub moved: BTreeMap<u64, Group>,
    /// Who had all shards through a configuration.
    pub former: Option<(u64, u64)>,
    /// How often old configurations were asked for.
    pub asked: BTreeMap<u64, usize>,
}

/// A controller that answers queries.
struct Ctrler(Arc<Mutex<Config>>, Arc<Mutex<Control>>);

impl Ctrler {
    fn record(&self, group: u64) -> Option<Record> {
        let control = self.1.lock().expect("no panic holds it");
        let config = self.0.lock().expect("no panic holds it");
        let info = control.moved.get(&group).or(config.groups.get(&group))?;
        Some(Record {
            group: info.clone(),
            settled: 1,
            holds: true,
            left: None,
        })
    }

    fn config(&self, num: Option<u64>) -> Config {
        let mut control = self.1.lock().expect("no panic holds it");
        let mut config = self.0.lock().expect("no panic holds it").clone();
        if let Some(num) = num.filter(|num| *num < config.num) {
            *control.asked.entry(num).or_default() += 1;
            config.num = num;
            if let Some((through, owner)) = control.former
                && num <= through
            {
                config.shards.fill(Some(owner));
            }
        }
        config
    }
}

impl Service for Ctrler {
    fn welcome(&self, _peer: &Hello) -> Result<Hello, String> {
        Ok(hello(CLUSTER, 0, 1))
    }
    fn mail(&self, _peer: &Hello, _channel: u8, _body: Bytes) {}
    fn call(
        &self,
        _peer: &Hello,
        _channel: u8,
        _deadline: Duration,
        body: Bytes,
    ) -> BoxFuture<Bytes> {
        use ctrler::api::{Request, Response};
        let response = match postcard::from_bytes::<Request>(&body).expect("a request") {
            _ if self.1.lock().expect("no panic holds it").down => Response::Busy,
            Request::Query(num) => Response::Config(self.config(num)),
            Request::Cluster => Response::Cluster {
                cluster: CLUSTER,
                shards: 1,
                latest: 1,
            },
            Request::Record(group) => Response::Record(self.record(group)),
            other => panic!("not in the script: {other:?}"),
        };
        let bytes = Bytes::from(postcard::to_stdvec(&response).expect("plain data"));
        Box::pin(async move { bytes })
    }
}

/// Two groups of two members, one shard, owned by group 1.
pub struct World {
    pub config: Arc<Mutex<Config>>,
    pub control: Arc<Mutex<Control>>,
    pub groups: BTreeMap<u64, Arc<Mutex<State>>>,
    pub client: Client,
}

/// A server on the next free port, in both worlds.
async fn bind() -> Server {
    static NEXT: AtomicU16 = AtomicU16::new(21_000);
    for _ in 0..1000 {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        if let Ok(server) = Server::bind(&format!("127.0.0.1:{port}"), Limits::default()).await {
            return server;
        }
    }
    panic!("no free port");
}

pub async fn start(deadline: Duration) -> World {
    let mut groups = BTreeMap::new();
    let mut config = Config {
        num: 1,
        shards: vec![Some(1)],
        holders: vec![Some(1)],
        ..Config::default()
    };
    for group in [1, 2] {
        let state = Arc::new(Mutex::new(State {
            leader: 1,
            cluster: CLUSTER,
            ..State::default()
        }));
        for node in [1, 2] {
            let server = bind().await;
            let at = server.local_addr().to_string();
            state.lock().expect("new").members.insert(node, at);
            let service = Arc::new(Member {
                group,
                node,
                state: state.clone(),
            });
            tokio::spawn(server.serve(service));
        }
        let servers = state
            .lock()
            .expect("new")
            .members
            .values()
            .cloned()
            .collect();
        config.groups.insert(
            group,
            Group {
                servers,
                birth: u128::from(group),
            },
        );
        groups.insert(group, state);
    }
    let config = Arc::new(Mutex::new(config));
    let server = bind().await;
    let ctrlers = vec![server.local_addr().to_string()];
    let control = Arc::new(Mutex::new(Control::default()));
    let service = Arc::new(Ctrler(config.clone(), control.clone()));
    tokio::spawn(server.serve(service));
    let client = Client::new(ClientOptions { ctrlers, deadline });
    World {
        config,
        control,
        groups,
        client,
    }
}

impl World {
    pub fn config(&self) -> std::sync::MutexGuard<'_, Config> {
        self.config.lock().expect("no panic holds it")
    }
    pub fn control(&self) -> std::sync::MutexGuard<'_, Control> {
        self.control.lock().expect("no panic holds it")
    }
    pub fn group(&self, group: u64) -> std::sync::MutexGuard<'_, State> {
        self.groups[&group].lock().expect("no panic holds it")
    }
    pub fn twist(&self, twists: impl IntoIterator<Item = Twist>) {
        self.group(1).twists.extend(twists);
    }
    pub fn row(&self, key: &str) -> String {
        let state = self.group(1);
        let row = state.rows.get(key.as_bytes()).cloned().unwrap_or_default();
        String::from_utf8(row).expect("text")
    }
}
