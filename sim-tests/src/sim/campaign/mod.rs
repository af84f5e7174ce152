//! Runs a plan: a cluster, clients, faults; then healing and what must hold afterwards.

mod aim;
pub mod damage;
pub mod hoard;
pub mod liveness;
pub mod machines;
pub mod nemesis;
pub mod network;
pub mod newest;
mod orders;
mod rows;
pub mod view;
pub mod work;

use super::kv_cluster::{KvCluster, KvOptions, small};
use super::nodes::Key;
use super::trace;
use super::workload::Book;
use crate::campaign::plan::{Broken, Plan};
use crate::campaign::record::{Band, Operation, Point, Record, Server, Summary, Violation};
use crate::configs;
use crate::history::{Call, History, clip_bytes, short};
use ctrler::config::{GroupId, ShardId};
use hoard::Hoard;
use machines::Machines;
use nemesis::{Nemesis, lock};
use newest::Newest;
use orders::Orders;
use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::sleep;
use work::Clients;
use world::disk::SimDiskOptions;

/// What is known of a run while it goes on, and after it was broken off.
#[derive(Clone, Default)]
struct Told {
    book: Book,
    bands: Arc<Mutex<Vec<Band>>>,
    servers: Arc<Mutex<Vec<Server>>>,
    healed_us: Arc<Mutex<Option<u64>>>,
    end_us: Arc<Mutex<u64>>,
}

/// Who asks the controllers again and again.
const ASKERS: u64 = 2;
/// For a question while nothing is broken.
const LONG: Duration = Duration::from_secs(30);

fn get<T: Clone>(mutex: &Mutex<T>) -> T {
    mutex.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn put<T>(mutex: &Mutex<T>, value: T) {
    *mutex.lock().unwrap_or_else(PoisonError::into_inner) = value;
}

fn now_us() -> u64 {
    let elapsed = madsim::time::TimeHandle::try_current().map(|t| t.elapsed());
    elapsed.map_or(0, |e| u64::try_from(e.as_micros()).unwrap_or(u64::MAX))
}

/// Runs a plan in a simulation of its own and says what came of it. `whole`: with everything the
/// servers told; otherwise with the last of it.
pub fn run(test: &str, plan: &Plan, whole: bool) -> Record {
    let (test, plan) = (test.to_owned(), plan.clone());
    // A thread of its own: what thread-locals a run leaves must not reach the next.
    #[expect(clippy::disallowed_methods, reason = "a simulation of its own")]
    let thread = std::thread::spawn(move || run_here(&test, &plan, whole));
    thread.join().expect("the run's own failures are caught")
}

fn run_here(test: &str, plan: &Plan, whole: bool) -> Record {
    let told = Told::default();
    let body = body(Arc::new(plan.clone()), told.clone(), whole);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let runtime =
            madsim::runtime::Runtime::with_seed_and_config(plan.run_seed(), Default::default());
        runtime.block_on(body)
    }));
    let violation = ended.err().map(|panic| violation(&*panic));
    record(test, plan, &told, violation)
}

fn violation(panic: &(dyn Any + Send)) -> Violation {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
    let message = text.unwrap_or_else(|| "a panic without words".into());
    let id = message.split(':').next().unwrap_or_default();
    let known = id.len() <= 3 && id.starts_with('I') && id[1..].parse::<u32>().is_ok();
    Violation {
        at_us: trace::last_us(),
        invariant: if known { id } else { "I20" }.to_owned(),
        message,
    }
}

async fn body(plan: Arc<Plan>, told: Told, whole: bool) {
    let options = &plan.options;
    let cluster = KvCluster::new(cluster_options(&plan));
    if whole {
        trace::keep_whole();
    }
    // Servers that find damage where nobody did any have lost what they synced.
    crate::sim::ledger::strict();
    view::install();
    network::install();
    world::clock::inject::clear();
    let machines = Machines::new(cluster.clone(), options.groups);
    let servers = machines.all().into_iter().map(|key| {
        let (group, node) = machines.site(key);
        let name = cluster.nodes.name(key);
        Server { group, node, name }
    });
    put(&told.servers, servers.collect());
    let (least, most) = options.latency_ms;
    let latency = Duration::from_millis(least)..Duration::from_millis(most);
    cluster.nodes.network(0.0, latency);
    let joined: Vec<u64> = (1..=options.joined).collect();
    cluster.join(&joined).await;
    // All members must be up once, at birth.
    for group in 0..=options.groups {
        cluster.agreed(group).await;
    }
    let supervisor = machines.clone();
    let desk = cluster.nodes.client_node();
    let supervisor = desk.spawn(supervisor.supervise());
    plain_disks(&machines, &plan);
    let clients = Clients::start(&cluster, options, told.book.clone());
    let hoard = Hoard::new(cluster.clone(), options, told.book.clone());
    let hoarding = hoard.clone().run(clients.stop.clone());
    let hoarding = cluster.nodes.client_node().spawn(hoarding);
    let newest = Newest::default();
    let ask = |_| {
        let asking = newest.clone().ask(cluster.clone(), clients.stop.clone());
        cluster.nodes.client_node().spawn(asking)
    };
    let asking: Vec<_> = (0..ASKERS).map(ask).collect();
    let spared = spared(&cluster, options.spared).await;
    let (ready, acquainted) = oneshot::channel();
    let untouched = work::untouched(
        cluster.clone(),
        spared.iter().copied().collect(),
        told.book.clone(),
        clients.stop.clone(),
        ready,
    );
    let untouched = cluster.nodes.client_node().spawn(untouched);
    let _ = acquainted.await;
    let bands = told.bands.clone();
    let nemesis = Nemesis::new(machines.clone(), plan.clone(), bands, spared, newest);
    let orders = nemesis.orders.clone();
    let events: Vec<_> = (0..plan.events.len())
        .map(|n| desk.spawn(nemesis.clone().event(n)))
        .collect();
    sleep(Duration::from_millis(options.load_ms)).await;
    events.iter().for_each(|event| event.abort());
    supervisor.abort();
    // What was aborted is dropped at its next turn.
    sleep(Duration::from_millis(1)).await;
    let for_ever = heal(&machines, &plan);
    lock(&told.bands).extend(for_ever);
    put(&told.healed_us, Some(now_us()));
    let supervisor = desk.spawn(machines.clone().supervise());
    let resting = clients.stop().await;
    untouched
        .await
        .expect("the client of what no fault touches panicked");
    hoarding.await.expect("the hoarder panicked");
    for asker in asking {
        asker.await.expect("who asks the controllers panicked");
    }
    if !options.over_budget && !options.safety_only {
        let (machines, plan, book) = (machines.clone(), plan.clone(), told.book.clone());
        let quiet = async move {
            // An order whose sender has gone may still be on its way to the controllers.
            sleep(Duration::from_secs(12)).await;
            ensure_joined(&machines.cluster).await;
            let id = liveness::id(&plan.options);
            hoard.end(&machines, id).await;
            liveness::quiet(&machines, &plan.options, &book).await;
            resting.write_once_more(id).await;
            configurations(&machines.cluster, &orders).await;
        };
        desk.spawn(quiet)
            .await
            .expect("the liveness phase panicked");
    }
    supervisor.abort();
    told.book.judge();
    put(&told.end_us, now_us());
    machines.judge();
    cluster.nodes.finish().await;
    if !options.over_budget {
        rows::are_those_of_their_stamps(&machines).await;
    }
}

/// The shards of the group that no fault touches.
async fn spared(cluster: &KvCluster, group: GroupId) -> BTreeSet<ShardId> {
    if group == 0 {
        return BTreeSet::new();
    }
    let asker = cluster.clone();
    let asked = async move { asker.controller().query(None, LONG).await };
    let config = cluster.nodes.at_desk(asked).await;
    let config = config.expect("nothing is broken yet");
    let shards = (0..).zip(&config.shards);
    let its = shards.filter(|(_, owner)| **owner == Some(group));
    let its: BTreeSet<ShardId> = its.map(|(shard, _)| shard).collect();
    assert!(
        !its.is_empty(),
        "the group that no fault touches owns no shard"
    );
    its
}

/// Every disk is as the plan has it.
fn plain_disks(machines: &Machines, plan: &Plan) {
    for key in machines.all() {
        let disk = machines.cluster.nodes.disk(key);
        disk.set_options(SimDiskOptions {
            capacity: capacity(plan, machines.site(key)),
            ..disk_options(plan)
        });
    }
}

/// Bytes of a member's disk.
fn capacity(plan: &Plan, (group, node): (GroupId, u64)) -> u64 {
    let options = &plan.options;
    let less = options.uneven_disks && group > 0 && node == 1 + plan.seed % options.replicas;
    match (options.disk_kib << 10, less) {
        (0, _) => u64::MAX,
        (bytes, false) => bytes,
        (bytes, true) => bytes / 3 * 2,
    }
}

/// No event of the plan.
const FOR_EVER: usize = usize::MAX;

/// Ends every fault but what is broken for ever: for the timeline.
fn heal(machines: &Machines, plan: &Plan) -> Option<Band> {
    let nodes = &machines.cluster.nodes;
    network::heal(nodes);
    let (least, most) = plan.options.latency_ms;
    nodes.network(
        0.0,
        Duration::from_millis(least)..Duration::from_millis(most),
    );
    let broken = liveness::broken(machines, &plan.options, plan.seed);
    plain_disks(machines, plan);
    for key in machines.all() {
        nodes.disk(key).on_crash(None);
        // What a clock jumped stays: it never goes back.
        world::clock::inject::set_rate_ppm(nodes.sim(key), 0);
    }
    let how = plan.options.broken;
    let down = match how {
        Broken::Down => &broken,
        _ => &BTreeSet::new(),
    };
    machines.recover(down);
    liveness::break_for_ever(machines, &broken, how);
    let site = |key: &Key| machines.site(*key);
    let now = now_us();
    let band = Band {
        from_us: now,
        to_us: now,
        family: "process".into(),
        servers: broken.iter().map(site).collect(),
        text: format!("{how:?} for ever"),
        event: FOR_EVER,
        effective: true,
    };
    (!broken.is_empty()).then_some(band)
}

/// I28, of all configurations that were made, and I9, of what the controllers were told to do.
///
/// # Panics
/// When one is not what the one before and a change of it make; the message says how.
async fn configurations(cluster: &KvCluster, orders: &Orders) {
    let controller = cluster.controller();
    let newest = controller.query(None, LONG).await;
    let newest = newest.expect("I17: the controllers answer when it is quiet");
    let mut all = Vec::new();
    for num in 0..newest.num {
        let config = controller.query(Some(num), LONG).await;
        all.push(config.expect("I28: every configuration is kept"));
    }
    all.push(newest);
    if let Err(why) = configs::check_history(&all) {
        panic!("I28: {why}");
    }
    orders.are_in(&all);
}

/// Somebody must own the shards, or nothing can be asked.
async fn ensure_joined(cluster: &KvCluster) {
    let controller = cluster.controller();
    let patience = Duration::from_secs(60);
    let config = controller.query(None, patience).await;
    if config
        .expect("I17: the controllers answer within 60 s after healing")
        .groups
        .is_empty()
    {
        let group = (1, cluster.identify(1).await);
        let joined = controller.join([group].into(), patience).await;
        joined.expect("I17: a join is accepted within 60 s after healing");
    }
}

fn disk_options(plan: &Plan) -> SimDiskOptions {
    let options = &plan.options;
    let (least, most) = options.disk_us;
    SimDiskOptions {
        latency: (Duration::from_micros(least), Duration::from_micros(most)),
        stall: options.stall_ppm as f64 / 1e6,
        garbage: options.garbage_percent as f64 / 100.0,
        keep_stale: options.families.iter().any(|f| f == "damage"),
        sparse: options.disk_kib > 0,
        ..SimDiskOptions::default()
    }
}

fn cluster_options(plan: &Plan) -> KvOptions {
    let options = &plan.options;
    let (limits, append_bytes, padding) =
        (options.small_limits, options.append_bytes, options.padding);
    let disk = options.disk_kib << 10;
    let patience = Duration::from_millis(options.patience_ms);
    let kept = options.kept_kib << 10;
    let hoards = options.hoard > 0;
    let uncommitted = (options.uncommitted_kib << 10) as usize;
    KvOptions {
        ctrlers: options.ctrlers,
        groups: options.groups,
        replicas: options.replicas,
        shards: options.shards,
        disk: disk_options(plan),
        adjust: Arc::new(move |replica| {
            if limits {
                small(replica);
                // Who sleeps for a second or two needs a snapshot, in several chunks; some hundreds
                // at the most, since each costs a round trip.
                replica.keep_log_bytes = 1 << 10;
                replica.flush_log_bytes = 3 << 10;
                replica.patience = patience;
                replica.max_kept_log_bytes = kept;
                // (A client that hoards fills half a disk.)
                let hoarded = if hoards { disk as usize / 256 } else { 0 };
                replica.store.chunk_bytes = (padding / 4).max(hoarded).max(512);
            }
            if disk > 0 {
                replica.log.reserve_bytes = disk / 2;
                // (Of what moves and of a client that hoards more is on its way at a time.)
                replica.store.reserve_bytes = disk / if hoards { 4 } else { 8 };
                replica.log.segment_bytes = replica.log.segment_bytes.min(disk / 8);
            }
            replica.max_append_bytes = append_bytes;
            if uncommitted > 0 {
                replica.max_uncommitted_bytes = uncommitted;
            }
        }),
        deadline: Duration::from_secs(60),
    }
}

fn record(test: &str, plan: &Plan, told: &Told, violation: Option<Violation>) -> Record {
    let (events, digest) = trace::digest();
    let history = told.book.history();
    let end_us = match get(&told.end_us) {
        0 => trace::last_us(),
        end => end,
    };
    let mut bands = get(&told.bands);
    let healed_us = get(&told.healed_us);
    let mut faults: BTreeMap<String, u64> = BTreeMap::new();
    let mut effective: BTreeMap<String, u64> = BTreeMap::new();
    for band in &mut bands {
        if let Some(event) = plan.events.get(band.event) {
            *faults.entry(event.fault.name()).or_default() += 1;
            *effective.entry(event.fault.name()).or_default() += u64::from(band.effective);
            if event.for_ms > 0 && band.to_us == band.from_us {
                // It was broken off by the end of the phase.
                band.to_us = healed_us.unwrap_or(end_us);
            }
        } else {
            band.to_us = end_us;
        }
    }
    let summary = Summary {
        simulated_seconds: end_us as f64 / 1e6,
        operations: history.len() as u64,
        answered: told.book.answered() as u64,
        events,
        digest,
        faults,
        effective,
        marks: trace::marks()
            .into_iter()
            .map(|(name, hits)| (name.to_owned(), hits))
            .collect(),
    };
    let message = violation.as_ref().map_or("", |v| v.message.as_str());
    Record {
        test: test.into(),
        plan: plan.clone(),
        servers: get(&told.servers),
        bands,
        points: points(),
        operations: operations(&history, plan.options.shards, message),
        healed_us,
        end_us,
        violation,
        summary,
    }
}

fn points() -> Vec<Point> {
    let point = |(at_us, event): (u64, world::observe::Event)| Point {
        at_us,
        group: event.site.group,
        node: event.site.node,
        kind: event.kind.into(),
        fields: event
            .fields
            .iter()
            .map(|(n, v)| ((*n).to_owned(), *v))
            .collect(),
    };
    trace::events().into_iter().map(point).collect()
}

fn operations(history: &History, shards: u32, message: &str) -> Vec<Operation> {
    let mut operations = Vec::new();
    for (key, all) in history.keys() {
        let shard = u64::from(kv::slot::shard(key, shards));
        let shown = clip_bytes(key);
        // The checkers name the key in their messages, and some of them its operations.
        let blamed = message.contains(&short(key));
        let named = |o: &crate::history::Operation| {
            let (who, when) = (
                format!("client {}: ", o.client),
                format!(" at {} -> ", o.called),
            );
            let mut lines = message.lines();
            lines.any(|l| l.trim_start().starts_with(&who) && l.contains(&when))
        };
        let some = blamed && all.iter().any(named);
        for o in all {
            operations.push(Operation {
                client: o.client,
                key: shown.clone(),
                shard,
                call: call(&o.call),
                called_us: o.called,
                returned_us: o.returned.as_ref().map(|(at, _)| *at),
                answer: o.returned.as_ref().map_or(String::new(), |(_, a)| short(a)),
                violating: blamed && (!some || named(o)),
            });
        }
    }
    operations.sort_by_key(|o| (o.called_us, o.client));
    operations
}

fn call(call: &Call) -> String {
    let shown = |b: &bytes::Bytes| clip_bytes(b);
    let maybe = |b: &Option<bytes::Bytes>| b.as_ref().map_or("nothing".into(), shown);
    match call {
        Call::Get => "get".into(),
        Call::Put(value) => format!("put {}", shown(value)),
        Call::Append(value) => format!("append {}", shown(value)),
        Call::Delete => "delete".into(),
        Call::Cas(from, to) => format!("cas {} to {}", maybe(from), maybe(to)),
    }
}
