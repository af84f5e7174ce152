//! Concurrent clients that append unique tokens, and what must be there afterwards.

use kv::client::{Client, ClientError, ClientOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tokens appended to one key; then the next key's turn.
const TOKENS_PER_KEY: u64 = 100;
/// Clients, among which the workers are spread.
const CLIENTS: usize = 4;
/// Pause of a worker between two writes: a load, not a measurement of speed.
const PACE: Duration = Duration::from_millis(3);

/// What became of one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Acknowledged,
    /// It may be there or not.
    Unknown,
    /// Certainly without effect.
    Without,
}

/// What one worker did, in order.
pub struct Worker {
    name: String,
    /// The shard all its keys are on.
    pub shard: u32,
    fates: Vec<Fate>,
    /// When writes were acknowledged, and the ends of its time.
    times: Vec<Instant>,
    pub errors: Vec<String>,
}

impl Worker {
    fn key(&self, n: u64) -> String {
        format!("{{{}}}-{}", self.name, n / TOKENS_PER_KEY)
    }

    fn token(&self, n: u64) -> String {
        format!("{}.{n};", self.name)
    }

    /// The longest time without an acknowledgement.
    pub fn longest_gap(&self) -> Duration {
        let gaps = self.times.windows(2).map(|w| w[1] - w[0]);
        gaps.max().unwrap_or_default()
    }
}

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Worker>>,
    noise: JoinHandle<Duration>,
}

/// What a load did.
pub struct Done {
    pub workers: Vec<Worker>,
    /// The longest time by which this machine overslept: what a gap may owe to it.
    pub noise: Duration,
}

impl Load {
    /// `per_shard` workers on each of `shards` shards. A worker ends at its first error.
    pub fn start(ctrlers: &str, shards: u32, per_shard: u32, deadline: Duration) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let options = ClientOptions {
            ctrlers: ctrlers.split(',').map(String::from).collect(),
            deadline,
        };
        let (stopped, count) = (stop.clone(), acknowledged.clone());
        let thread = std::thread::spawn(move || {
            world::testing::block_on_test(run(options, shards, per_shard, stopped, count))
        });
        let stopped = stop.clone();
        let noise = std::thread::spawn(move || {
            let nap = Duration::from_millis(5);
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let since = Instant::now();
                std::thread::sleep(nap);
                longest = longest.max(since.elapsed().saturating_sub(nap));
            }
            longest
        });
        Load {
            stop,
            acknowledged,
            thread,
            noise,
        }
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for so many more acknowledgements.
    pub fn goes_on(&self, more: u64) {
        let goal = self.acknowledged() + more;
        super::until("the load goes on", Duration::from_secs(30), || {
            (self.acknowledged() >= goal).then_some(())
        });
    }

    pub fn stop(self) -> Done {
        self.stop.store(true, Ordering::Relaxed);
        let workers = self.thread.join().expect("the load ends");
        let noise = self.noise.join().expect("the noise was measured");
        Done { workers, noise }
    }
}

async fn run(
    options: ClientOptions,
    shards: u32,
    per_shard: u32,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Vec<Worker> {
    let clients: Vec<Client> = (0..CLIENTS).map(|_| Client::new(options.clone())).collect();
    // No load's keys are another's.
    let tag = world::entropy::random_u64();
    let mut tasks = Vec::new();
    for shard in 0..shards {
        for _ in 0..per_shard {
            let number = tasks.len();
            let name = (0..)
                .map(|n| format!("{tag:x}.{number}.{n}"))
                .find(|name| kv::slot::shard(format!("{{{name}}}").as_bytes(), shards) == shard)
                .expect("some name is on the shard");
            let worker = Worker {
                name,
                shard,
                fates: Vec::new(),
                times: Vec::new(),
                errors: Vec::new(),
            };
            let client = clients[number % CLIENTS].clone();
            tasks.push(tokio::spawn(work(
                worker,
                client,
                stop.clone(),
                count.clone(),
            )));
        }
    }
    let mut workers = Vec::new();
    for task in tasks {
        workers.push(task.await.expect("a worker ends"));
    }
    for client in clients {
        client.close(Duration::from_millis(300)).await;
    }
    workers
}

async fn work(
    mut me: Worker,
    client: Client,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Worker {
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let (key, token) = (me.key(n), me.token(n));
        let fate = match client.append(key.as_bytes(), token.as_bytes()).await {
            Ok(_) => Fate::Acknowledged,
            Err(error) => {
                me.errors.push(format!("append {token}: {error}"));
                match error {
                    ClientError::Unknown(_) => Fate::Unknown,
                    _ => Fate::Without,
                }
            }
        };
        me.fates.push(fate);
        if fate != Fate::Acknowledged {
            break;
        }
        me.times.push(Instant::now());
        count.fetch_add(1, Ordering::Relaxed);
        // What was acknowledged is seen by whoever asks from then on.
        if n % 8 == 7 {
            match client.get(key.as_bytes()).await {
                Ok(Some(value)) if value.ends_with(token.as_bytes()) => {}
                Ok(value) => me
                    .errors
                    .push(format!("after {token}: get gives {value:?}")),
                Err(error) => me.errors.push(format!("get: {error}")),
            }
        }
        tokio::time::sleep(PACE).await;
    }
    me.times.push(Instant::now());
    me
}

impl Done {
    /// No worker was told of an error.
    pub fn assert_no_errors(&self) {
        let errors: Vec<&String> = self.workers.iter().flat_map(|w| &w.errors).collect();
        assert!(errors.is_empty(), "clients saw errors: {errors:#?}");
    }

    pub fn acknowledged(&self) -> usize {
        let fates = self.workers.iter().flat_map(|w| &w.fates);
        fates.filter(|f| **f == Fate::Acknowledged).count()
    }

    /// The longest time a shard out of `shards` gave a worker no acknowledgement, and which.
    pub fn longest_gap(&self, shards: impl Fn(u32) -> bool) -> (Duration, u32) {
        let workers = self.workers.iter().filter(|w| shards(w.shard));
        let gaps = workers.map(|w| (w.longest_gap(), w.shard));
        gaps.max().unwrap_or_default()
    }

    /// Every acknowledged token is there once, unknown ones at most once, and nothing else.
    pub fn assert_all_there(&self, ctrlers: &str) {
        let options = ClientOptions {
            ctrlers: ctrlers.split(',').map(String::from).collect(),
            deadline: Duration::from_secs(20),
        };
        let mut keys: Vec<(String, Vec<(String, Fate)>)> = Vec::new();
        for worker in &self.workers {
            for (n, fate) in (0u64..).zip(&worker.fates) {
                let key = worker.key(n);
                if keys.last().is_none_or(|(last, _)| *last != key) {
                    keys.push((key, Vec::new()));
                }
                if let Some((_, tokens)) = keys.last_mut() {
                    tokens.push((worker.token(n), *fate));
                }
            }
        }
        let wrong = world::testing::block_on_test(async move {
            let client = Client::new(options);
            let mut wrong = Vec::new();
            for (key, tokens) in keys {
                match client.get(key.as_bytes()).await {
                    Err(error) => wrong.push(format!("{key}: {error}")),
                    Ok(value) => {
                        let value = value.unwrap_or_default();
                        let text = String::from_utf8_lossy(&value).into_owned();
                        if let Err(why) = judge(&text, &tokens) {
                            wrong.push(format!("{key}: {why}"));
                        }
                    }
                }
            }
            wrong
        });
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

/// A worker writes one token after the other, so they stand in this order.
fn judge(text: &str, tokens: &[(String, Fate)]) -> Result<(), String> {
    let mut rest = text;
    for (token, fate) in tokens {
        match (rest.strip_prefix(token.as_str()), fate) {
            (Some(_), Fate::Without) => return Err(format!("{token} was refused and is there")),
            (Some(after), _) => rest = after,
            (None, Fate::Acknowledged) => {
                let found: String = rest.chars().take(80).collect();
                return Err(format!("{token} was acknowledged; found {found:?}"));
            }
            (None, _) => {}
        }
    }
    match rest {
        "" => Ok(()),
        more => Err(format!("more than was written: {more:?}")),
    }
}
