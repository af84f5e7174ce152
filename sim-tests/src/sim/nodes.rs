//! Machines of a simulation: each has an address, a disk that outlives its process, and a program.

use madsim::net::NetSim;
use madsim::runtime::{Handle, NodeHandle};
use madsim::task::NodeId as SimNode;
use raft::replica::Fatal;
use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use world::clock::inject;
use world::disk::{Disk, SimDisk, SimDiskOptions};

/// A machine of [`Nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub usize);

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
/// What a machine runs: given its disk and a future that asks it to shut down cleanly.
pub type Program = Arc<dyn Fn(Disk, BoxFuture<()>) -> BoxFuture<Result<(), Fatal>> + Send + Sync>;

struct Machine {
    name: String,
    sim: SimNode,
    disk: SimDisk,
    program: Program,
    shutdown: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
    up: bool,
}

/// All machines. Cheap to clone.
#[derive(Clone)]
pub struct Nodes {
    machines: Arc<Mutex<Vec<Machine>>>,
    fatal: Arc<Mutex<Vec<(Key, String)>>>,
    clients: Arc<Mutex<u32>>,
    desk: Arc<Mutex<Option<NodeHandle>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Default for Nodes {
    fn default() -> Self {
        Nodes::new()
    }
}

impl Nodes {
    /// No machines yet.
    pub fn new() -> Nodes {
        super::trace::start();
        Nodes {
            machines: Arc::default(),
            fatal: Arc::default(),
            clients: Arc::default(),
            desk: Arc::default(),
        }
    }

    /// Adds a machine with an empty disk; it is started by [`Nodes::start`].
    pub fn add(&self, name: &str, ip: Ipv4Addr, options: SimDiskOptions, program: Program) -> Key {
        let handle = Handle::current();
        let node = handle.create_node().name(name).ip(IpAddr::V4(ip)).build();
        let mut machines = lock(&self.machines);
        let key = Key(machines.len());
        let seed = handle
            .seed()
            .wrapping_mul(0x9e37_79b9_7f4a_7c15)
            .wrapping_add(key.0 as u64);
        machines.push(Machine {
            name: name.into(),
            sim: node.id(),
            disk: SimDisk::new(name, seed, options),
            program,
            shutdown: None,
            running: None,
            up: false,
        });
        key
    }

    /// A machine for a client; it has an address and nothing else.
    pub fn client_node(&self) -> NodeHandle {
        let mut clients = lock(&self.clients);
        *clients += 1;
        let ip = Ipv4Addr::new(10, 99, (*clients >> 8) as u8, *clients as u8);
        let name = format!("client-{clients}");
        Handle::current()
            .create_node()
            .name(name)
            .ip(IpAddr::V4(ip))
            .build()
    }

    /// Runs what asks the servers a question on a machine kept for that.
    pub async fn at_desk<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let desk = {
            let mut desk = lock(&self.desk);
            desk.get_or_insert_with(|| self.client_node()).clone()
        };
        desk.spawn(task).await.expect("a question panicked")
    }

    /// Runs a test's body on a machine of its own (the main task of a simulation has no address).
    pub async fn run<T: Send + 'static>(
        &self,
        body: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let node = self.client_node();
        let result = node.spawn(body).await;
        result.expect("the body of the test panicked")
    }

    /// Starts the machine's program on its disk.
    pub fn start(&self, key: Key) {
        let mut machines = lock(&self.machines);
        let machine = &mut machines[key.0];
        assert!(!machine.up, "{} is up already", machine.name);
        let handle = Handle::current();
        handle.restart(machine.sim);
        let (shutdown, asked) = oneshot::channel();
        let program = (machine.program)(
            machine.disk.disk(),
            Box::pin(async move {
                let _ = asked.await;
            }),
        );
        let fatal = self.fatal.clone();
        let node = handle
            .get_node(machine.sim)
            .expect("the machine was made by this simulation");
        machine.running = Some(node.spawn(async move {
            if let Err(error) = program.await {
                lock(&fatal).push((key, error.to_string()));
            }
        }));
        machine.shutdown = Some(shutdown);
        machine.up = true;
    }

    fn down(&self, key: Key, fail: impl FnOnce(&SimDisk)) {
        let mut machines = lock(&self.machines);
        let machine = &mut machines[key.0];
        // The disk goes first: what the process still does on its way out does not reach it.
        fail(&machine.disk);
        Handle::current().kill(machine.sim);
        machine.up = false;
        machine.shutdown = None;
        machine.running = None;
    }

    /// Power failure: un-synced data may be lost.
    pub fn kill(&self, key: Key) {
        self.down(key, SimDisk::power_fail);
    }

    /// The process dies (`kill -9`), the machine stays: written data survive.
    pub fn crash(&self, key: Key) {
        self.down(key, SimDisk::process_kill);
    }

    /// Asks the program to shut down cleanly and waits until it has, however long that takes: who
    /// runs the machines judges that, by [`Nodes::is_leaving`].
    pub async fn stop(&self, key: Key) {
        let (shutdown, running) = {
            let mut machines = lock(&self.machines);
            let machine = &mut machines[key.0];
            (machine.shutdown.take(), machine.running.take())
        };
        drop(shutdown);
        if let Some(running) = running {
            let _ = running.await;
        }
        self.down(key, SimDisk::process_kill);
    }

    /// Kills and starts again.
    pub fn restart(&self, key: Key) {
        if self.is_up(key) {
            self.kill(key);
        }
        self.start(key);
    }

    /// True between start and kill.
    pub fn is_up(&self, key: Key) -> bool {
        lock(&self.machines)[key.0].up
    }

    /// True when it is up and was asked to stop: see [`Nodes::stop`], which may have been given up.
    pub fn is_leaving(&self, key: Key) -> bool {
        let machines = lock(&self.machines);
        machines[key.0].up && machines[key.0].shutdown.is_none()
    }

    /// The machine's name.
    pub fn name(&self, key: Key) -> String {
        lock(&self.machines)[key.0].name.clone()
    }

    /// The machine's disk.
    pub fn disk(&self, key: Key) -> SimDisk {
        lock(&self.machines)[key.0].disk.clone()
    }

    pub(super) fn sim(&self, key: Key) -> SimNode {
        lock(&self.machines)[key.0].sim
    }

    /// From now on the machine's clock is fast (or slow, below 0) by so many millionths.
    pub fn clock_rate(&self, key: Key, ppm: i64) {
        inject::set_rate_ppm(self.sim(key), ppm);
    }

    /// The machine's clock jumps ahead.
    pub fn clock_jump(&self, key: Key, by: Duration) {
        inject::jump(self.sim(key), by);
    }

    /// Stops the process where it stands; it goes on with [`Nodes::resume`].
    pub fn pause(&self, key: Key) {
        Handle::current().pause(self.sim(key));
    }

    /// See [`Nodes::pause`].
    pub fn resume(&self, key: Key) {
        Handle::current().resume(self.sim(key));
    }

    /// Cuts the machine off from everybody.
    pub fn isolate(&self, key: Key) {
        NetSim::current().clog_node(self.sim(key));
    }

    /// Undoes [`Nodes::isolate`].
    pub fn rejoin(&self, key: Key) {
        NetSim::current().unclog_node(self.sim(key));
    }

    /// Cuts one direction.
    pub fn cut(&self, from: Key, to: Key) {
        NetSim::current().clog_link(self.sim(from), self.sim(to));
    }

    /// Cuts a client's machine and a server's off from each other.
    pub fn cut_client(&self, client: &NodeHandle, from: Key) {
        let (client, server) = (client.id(), self.sim(from));
        NetSim::current().clog_link(client, server);
        NetSim::current().clog_link(server, client);
    }

    /// Undoes [`Nodes::cut`].
    pub fn mend(&self, from: Key, to: Key) {
        NetSim::current().unclog_link(self.sim(from), self.sim(to));
    }

    /// Splits the named machines into sides that do not hear each other; machines not named,
    /// clients among them, hear everybody.
    pub fn partition(&self, sides: &[&[Key]]) {
        let all: Vec<Key> = sides.iter().flat_map(|side| side.iter().copied()).collect();
        let side = |key: &Key| sides.iter().position(|side| side.contains(key));
        for from in &all {
            for to in all.iter().filter(|to| *to != from) {
                if side(from) == side(to) {
                    self.mend(*from, *to)
                } else {
                    self.cut(*from, *to)
                }
            }
        }
    }

    /// Everybody hears everybody again.
    pub fn heal(&self) {
        let count = lock(&self.machines).len();
        for from in (0..count).map(Key) {
            self.rejoin(from);
            for to in (0..count).map(Key).filter(|to| *to != from) {
                self.mend(from, to);
            }
        }
    }

    /// Loss (0 to 1) and latency of every link from now on. Streams are only delayed by loss.
    pub fn network(&self, loss: f64, latency: std::ops::Range<Duration>) {
        NetSim::current().update_config(|config| {
            config.packet_loss_rate = loss;
            config.send_latency = latency;
        });
    }

    /// Servers that ended with an error so far, and forgets them.
    pub fn take_fatal(&self) -> Vec<(Key, String)> {
        std::mem::take(&mut *lock(&self.fatal))
    }

    /// Fails the test when a server ended with an error.
    pub fn assert_no_fatal(&self) {
        let fatal = self.take_fatal();
        let named: Vec<_> = fatal
            .iter()
            .map(|(k, e)| format!("{}: {e}", self.name(*k)))
            .collect();
        assert!(named.is_empty(), "servers ended with an error: {named:#?}");
    }

    /// End of a test: every machine down (tasks left alive are never dropped).
    pub async fn finish(&self) {
        self.assert_no_fatal();
        let keys: Vec<Key> = (0..lock(&self.machines).len()).map(Key).collect();
        for key in keys {
            if self.is_up(key) {
                self.kill(key);
            }
        }
        madsim::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until `condition` holds, looking every 20 ms of simulated time.
///
/// # Panics
/// When it does not within `limit`: `what` says what was waited for.
pub async fn eventually<F: Future<Output = bool>>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> F,
) {
    let since = world::clock::now();
    while !condition().await {
        assert!(since.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
