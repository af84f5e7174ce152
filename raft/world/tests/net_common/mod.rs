//! A server and links for the tests of the network room, on loopback in both worlds.
#![allow(dead_code)]

use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use world::clock::now;
use world::net::{
    BoxFuture, HEADER, Head, Hello, Kind, Limits, Link, PROTOCOL, Server, Service, header,
};

pub const SECOND: Duration = Duration::from_secs(1);
/// Any free port; the simulation's first free one could also be a client's.
pub const ANY: &str = if cfg!(madsim) {
    "127.0.0.1:7000"
} else {
    "127.0.0.1:0"
};
pub const MS: Duration = Duration::from_millis(1);

/// Answers with the body.
pub const ECHO: u8 = 0;
/// Answers after as many milliseconds as the body says.
pub const SLOW: u8 = 1;
/// Answers with the deadline that arrived, in milliseconds.
pub const DEADLINE: u8 = 2;
/// Answers with as many bytes as the body says.
pub const LARGE: u8 = 3;
/// Never answers.
pub const NEVER: u8 = 4;
/// Answers with the body, but not at the first poll.
pub const YIELD: u8 = 5;
/// Answers with as many bytes as the body says, and counts when nobody holds them any more.
pub const COUNTED: u8 = 6;

pub fn hello(node: u64) -> Hello {
    Hello {
        protocol: PROTOCOL,
        cluster: None,
        group: Some(1),
        node,
        disk: 7,
        boot: 1,
        nonce: 2,
        to: None,
        before: Vec::new(),
        level: 1,
    }
}

/// The hello of a client.
pub fn client() -> Hello {
    Hello {
        group: None,
        disk: 0,
        ..hello(0)
    }
}

#[derive(Default)]
pub struct Seen {
    pub mail: Vec<Bytes>,
    pub calls: Vec<Bytes>,
    pub running: usize,
    pub most_running: usize,
    pub dropped: usize,
    pub released: usize,
}

struct Counted(Vec<u8>, Arc<Mutex<Seen>>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.1.lock().unwrap().released += 1;
    }
}

/// What the server of a test does, and what it saw.
#[derive(Clone, Default)]
pub struct Room {
    pub seen: Arc<Mutex<Seen>>,
    pub refuse: Option<String>,
}

struct Leaving(Arc<Mutex<Seen>>, bool);

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut seen = self.0.lock().unwrap();
        seen.running -= 1;
        seen.dropped += usize::from(!self.1);
    }
}

pub fn number(body: &[u8]) -> u64 {
    u64::from_le_bytes(body.try_into().unwrap())
}

pub fn bytes(number: u64) -> Bytes {
    Bytes::copy_from_slice(&number.to_le_bytes())
}

impl Service for Room {
    fn welcome(&self, _: &Hello) -> Result<Hello, String> {
        match &self.refuse {
            None => Ok(hello(100)),
            Some(reason) => Err(reason.clone()),
        }
    }
    fn mail(&self, _: &Hello, _: u8, body: Bytes) {
        self.seen.lock().unwrap().mail.push(body);
    }
    fn call(&self, _: &Hello, channel: u8, deadline: Duration, body: Bytes) -> BoxFuture<Bytes> {
        let seen = self.seen.clone();
        {
            let mut seen = seen.lock().unwrap();
            seen.calls.push(body.clone());
            seen.running += 1;
            seen.most_running = seen.most_running.max(seen.running);
        }
        let leaving = Leaving(seen, false);
        Box::pin(async move {
            let mut leaving = leaving;
            let answer = match channel {
                SLOW => {
                    sleep(MS * number(&body) as u32).await;
                    body
                }
                DEADLINE => bytes(deadline.as_millis() as u64),
                COUNTED => {
                    let seen = leaving.0.clone();
                    Bytes::from_owner(Counted(vec![7; number(&body) as usize], seen))
                }
                LARGE => Bytes::from(vec![7; number(&body) as usize]),
                YIELD => {
                    tokio::task::yield_now().await;
                    body
                }
                NEVER => std::future::pending().await,
                _ => body,
            };
            leaving.1 = true;
            answer
        })
    }
}

/// A running server; ended when dropped.
pub struct Running {
    pub addr: SocketAddr,
    pub room: Room,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub async fn serve_at(addr: &str, limits: Limits, room: Room) -> Running {
    // The address of a server just ended is free as soon as its tasks have been dropped.
    let started = now();
    let server = loop {
        match Server::bind(addr, limits.clone()).await {
            Ok(server) => break server,
            Err(e) if started.elapsed() < 10 * SECOND => drop(e),
            Err(e) => panic!("{e}"),
        }
        sleep(MS).await;
    };
    let addr = server.local_addr();
    let task = tokio::spawn(server.serve(Arc::new(room.clone())));
    Running { addr, room, task }
}

pub async fn serve(limits: Limits) -> Running {
    serve_at(ANY, limits, Room::default()).await
}

pub fn link_to(addr: SocketAddr, limits: Limits) -> Link {
    Link::new(
        addr.to_string(),
        limits,
        Arc::new(|| hello(1)),
        Arc::new(|_| Ok(())),
    )
}

/// Waits until `done`, at most ten seconds.
pub async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = now();
    while !done() {
        assert!(
            started.elapsed() < 10 * SECOND,
            "waited in vain until {what}"
        );
        sleep(MS).await;
    }
}

/// Waits for the end of a stream; false when it is still open after `time`.
pub async fn ends_within(stream: &mut TcpStream, time: Duration) -> bool {
    let mut rest = Vec::new();
    // An error, such as a reset, is an end too.
    tokio::time::timeout(time, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

/// Connects and says hello by hand, as node 1.
pub async fn raw(addr: SocketAddr) -> TcpStream {
    raw_as(addr, &hello(1)).await.expect("a hello")
}

/// Connects and says this hello by hand; `Err` with what a refusal says, or with nothing when there
/// was none.
pub async fn raw_as(addr: SocketAddr, own: &Hello) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(addr).await.map_err(|_| String::new())?;
    greet(stream, own).await
}

/// Says this hello by hand.
pub async fn greet(mut stream: TcpStream, own: &Hello) -> Result<TcpStream, String> {
    let none = |_| String::new();
    send_raw(&mut stream, &frame(Kind::Hello, &own.to_bytes())).await;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header).await.map_err(none)?;
    let mut body = vec![0; header[4] as usize];
    stream.read_exact(&mut body).await.map_err(none)?;
    if header[1] == Kind::Refused as u8 {
        return Err(String::from_utf8(body).unwrap());
    }
    assert_eq!(header[1], Kind::Hello as u8);
    assert_eq!(Hello::from_bytes(&body).unwrap(), hello(100));
    Ok(stream)
}

/// A request made by hand.
pub fn request(channel: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let head = Head {
        kind: Kind::Request,
        channel,
        id,
        deadline_ms: 60_000,
    };
    [&header(head, body)[..], body].concat()
}

pub fn frame(kind: Kind, body: &[u8]) -> Vec<u8> {
    [&header(Head::plain(kind, 0), body)[..], body].concat()
}

/// The peer may close at the first wrong byte, so the sending itself may fail.
pub async fn send_raw(stream: &mut TcpStream, bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
}
