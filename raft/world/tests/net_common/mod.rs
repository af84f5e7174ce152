//! A server and links for the tests of the network room, on loopback in both worlds.
#![allow(dead_code)]

use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use world::net::{BoxFuture, Hello, Limits, Link, PROTOCOL, Server, Service};

pub const SECOND: Duration = Duration::from_secs(1);
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
    }
}

#[derive(Default)]
pub struct Seen {
    pub mail: Vec<Bytes>,
    pub calls: Vec<Bytes>,
    pub running: usize,
    pub most_running: usize,
    pub dropped: usize,
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
                LARGE => Bytes::from(vec![7; number(&body) as usize]),
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
    let started = Instant::now();
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
    serve_at("127.0.0.1:0", limits, Room::default()).await
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
    let started = Instant::now();
    while !done() {
        assert!(
            started.elapsed() < 10 * SECOND,
            "waited in vain until {what}"
        );
        sleep(MS).await;
    }
}
