//! Hostile clients against a real server: what it then holds in memory, and how long another client
//! waits: it writes 200 bytes and reads them, again and again, in a shard that the attack does not use.

use super::server::{Cluster, Target, client};
use super::witness::Witness;
use kv::api::{CHANNEL, GROUP_CHANNEL, Request};
use kv::client::Client;
use kv::slot;
use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use world::clock::{sleep, timeout};
use world::net::{HEADER, Head, Kind, header};

/// A little less than the longest value, bytes.
const LONG: usize = 7_900_000;
/// Time after an attack, for what it leaves.
const REST: Duration = Duration::from_secs(10);
/// Key of the attacks.
const TARGET: &[u8] = b"target";

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// None: what the witness waits by itself
    Calm,
    /// One connection asks millions of meaningless questions and reads a little every four seconds
    SlowReader,
    /// Forty such connections that read nothing
    Unread,
    /// Two hundred connections, one request of 9 MiB each, and then silence
    Retain,
    /// A hundred and twenty requests of 10 MiB but for the last KiB
    HalfFrames,
    /// The same, with a byte more every second, and anew as soon as they are closed
    Drip,
    /// A hundred connections ask for long values, 64 times each, and read nothing
    UnreadValues,
    /// A byte appended to a long value, 1 020 times at once
    LongAppends,
    /// Eight writers, each with eight writes of 1 MiB under way; here the witness writes 8 MB
    Starve,
}

struct Report {
    attack: Attack,
    start: u64,
    most: u64,
    after: u64,
    put: Duration,
    get: Duration,
    done: u64,
    failed: u64,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(self.attack);
        let ms = |wait: Duration| format!("{:.1} ms", wait.as_secs_f64() * 1e3);
        write!(
            f,
            "{name:<16} {:>5} MiB {:>5} MiB {:>5} MiB {:>11} {:>11} {:>8}",
            self.start,
            self.most,
            self.after,
            ms(self.put),
            ms(self.get),
            self.done,
        )?;
        match self.failed {
            0 => Ok(()),
            n => write!(f, "  ({n} failed)"),
        }
    }
}

/// Runs these attacks (all when there are none) and prints a line for each.
pub async fn run_all(
    attacks: Vec<Attack>,
    time: Duration,
    connection_memory: Option<usize>,
) -> Result<(), String> {
    let attacks = match attacks.is_empty() {
        true => <Attack as clap::ValueEnum>::value_variants().to_vec(),
        false => attacks,
    };
    println!(
        "{:<16} {:>9} {:>9} {:>9} {:>11} {:>11} {:>8}",
        "ATTACK", "AT START", "MOST", "AFTER", "PUT WAITED", "GET WAITED", "SERVED"
    );
    for attack in attacks {
        println!("{}", run(attack, time, connection_memory).await?);
    }
    Ok(())
}

async fn run(
    attack: Attack,
    time: Duration,
    connection_memory: Option<usize>,
) -> Result<Report, String> {
    let cluster = Cluster::start(1, connection_memory).await?;
    let client = cluster.client();
    let shards = {
        let (_, shards, _) = client
            .ctrlers()
            .cluster(time)
            .await
            .map_err(|e| e.to_string())?;
        shards
    };
    let elsewhere =
        |key: &String| slot::shard(key.as_bytes(), shards) != slot::shard(TARGET, shards);
    let key = (0..).map(|number| format!("witness-{number}"));
    let key = key
        .into_iter()
        .find(elsewhere)
        .ok_or("there is one shard")?;
    if matches!(attack, Attack::UnreadValues | Attack::LongAppends) {
        let put = client.put(TARGET, &vec![7; LONG]).await;
        put.map_err(|e| e.to_string())?;
    }
    let start = cluster.resident()?;
    let value = match attack {
        Attack::Starve => LONG,
        _ => 200,
    };
    let witness = Witness::start(key.into(), client, cluster.client(), value);
    let attacker = cluster.attack(&name(attack), shards)?;
    let most = cluster.most_resident(time).await?;
    let (put, get, done, failed) = witness.report();
    drop(witness);
    // The idle ones stay connected.
    let after = match attack {
        Attack::Retain => {
            sleep(REST).await;
            let after = cluster.resident()?;
            drop(attacker);
            after
        }
        _ => {
            drop(attacker);
            sleep(REST).await;
            cluster.resident()?
        }
    };
    Ok(Report {
        attack,
        start,
        most,
        after,
        put,
        get,
        done,
        failed,
    })
}

fn name(attack: Attack) -> String {
    let name = clap::ValueEnum::to_possible_value(&attack);
    name.map_or(String::new(), |name| name.get_name().to_owned())
}

/// The process that attacks, until it is killed. `target`: as [`Target`] writes it.
pub async fn attack(target: Target) -> Result<(), String> {
    let attack = <Attack as clap::ValueEnum>::from_str(&target.attack, false)?;
    let mut tasks = JoinSet::new();
    let mut many = |number: usize, one: fn(String, u32) -> Boxed| {
        for _ in 0..number {
            tasks.spawn(one(target.server.clone(), target.shards));
        }
    };
    match attack {
        Attack::Calm => {}
        Attack::SlowReader => many(1, |at, _| Box::pin(garbage(at, true))),
        Attack::Unread => many(40, |at, _| Box::pin(garbage(at, false))),
        Attack::Retain => many(200, |at, _| Box::pin(retain(at))),
        Attack::HalfFrames => many(120, |at, _| Box::pin(half_frame(at, false))),
        Attack::Drip => many(120, |at, _| Box::pin(half_frame(at, true))),
        Attack::UnreadValues => many(100, |at, shards| Box::pin(unread_values(at, shards))),
        Attack::LongAppends => {
            for client in (0..4).map(|_| client(&target.ctrlers)) {
                for _ in 0..255 {
                    let client = client.clone();
                    tasks.spawn(async move { drop(client.append(TARGET, b"+").await) });
                }
            }
        }
        Attack::Starve => {
            for writer in 0..8 {
                let client = client(&target.ctrlers);
                for number in 0..8 {
                    let key = format!("{{target}}{writer}-{number}");
                    tasks.spawn(write_on(client.clone(), key));
                }
            }
        }
    }
    while tasks.join_next().await.is_some() {}
    std::future::pending().await
}

type Boxed = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// A connection that has said hello.
async fn connect(at: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(at).await?;
    let hello = ctrler::program::client_hello().to_bytes();
    let head = header(Head::plain(Kind::Hello, 0), &hello);
    stream.write_all(&[&head[..], &hello].concat()).await?;
    let mut head = [0; HEADER];
    stream.read_exact(&mut head).await?;
    let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok(stream)
}

fn request(channel: u8, id: u64, body: &[u8]) -> Vec<u8> {
    let head = Head {
        kind: Kind::Request,
        channel,
        id,
        deadline_ms: 60_000,
    };
    [&header(head, body)[..], body].concat()
}

async fn garbage(at: String, reads: bool) {
    let many = request(GROUP_CHANNEL, 1, b"\xff").repeat(1000);
    let Ok(stream) = connect(&at).await else {
        return;
    };
    let (mut from, mut to) = stream.into_split();
    let write = async { while to.write_all(&many).await.is_ok() {} };
    let read = async {
        let mut some = vec![0; 64 << 10];
        loop {
            sleep(Duration::from_secs(4)).await;
            if !reads {
                continue;
            }
            let _ = from.read(&mut some).await;
        }
    };
    tokio::select! {
        biased;
        () = write => {}
        () = read => {}
    }
    // The closed connection is left as it is.
    std::future::pending::<()>().await;
}

/// A request of so many MiB. They are all the same.
fn long_request(mib: usize) -> &'static [u8] {
    static REQUEST: OnceLock<Vec<u8>> = OnceLock::new();
    REQUEST.get_or_init(|| request(CHANNEL, 1, &vec![0xff; mib << 20]))
}

async fn retain(at: String) {
    let whole = long_request(9);
    let Ok(mut stream) = connect(&at).await else {
        return;
    };
    let _ = stream.write_all(whole).await;
    let mut rest = [0; 4096];
    // Answers pings of nobody: it is silent, and open.
    while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
    std::future::pending::<()>().await;
}

async fn half_frame(at: String, drips: bool) {
    let whole = long_request(10);
    loop {
        if let Ok(mut stream) = connect(&at).await {
            let most = &whole[..whole.len() - 1024];
            let sent = timeout(Duration::from_secs(5), stream.write_all(most)).await;
            while drips && sent.is_ok() && stream.write_all(b"\xff").await.is_ok() {
                sleep(Duration::from_secs(1)).await;
            }
            if !drips {
                let mut rest = [0; 64];
                let _ = stream.read(&mut rest).await;
                return std::future::pending().await;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn unread_values(at: String, shards: u32) {
    let get = Request::Get {
        shard: slot::shard(TARGET, shards),
        key: bytes::Bytes::from_static(TARGET),
    };
    let Ok(body) = postcard::to_stdvec(&get) else {
        return;
    };
    let Ok(mut stream) = connect(&at).await else {
        return;
    };
    for id in 0..64 {
        let _ = stream.write_all(&request(CHANNEL, id, &body)).await;
    }
    std::future::pending::<()>().await;
}

async fn write_on(client: Client, key: String) {
    let value = vec![b's'; 1 << 20];
    loop {
        let _ = client.put(key.as_bytes(), &value).await;
    }
}
