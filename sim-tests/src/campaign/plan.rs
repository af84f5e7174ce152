//! A plan: everything the environment does to the cluster in one run, written down before it begins.
//!
//! It is drawn from the seed (see [`super::draw`]), but by a generator of its own, so that removing
//! an event from the list changes nothing else that is drawn; and it can be kept in a file and run
//! again.

use super::fault::Fault;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What the environment does in one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The seed that drew it.
    pub seed: u64,
    /// The seed of the run, when it is another one: see [`crate::report::minimise`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_seed: Option<u64>,
    /// What the seed drew once for the whole run.
    pub options: Options,
    /// Faults and changes of configuration, by time.
    pub events: Vec<Event>,
}

/// What holds for a whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Options {
    /// Groups started: 1, 2, …
    pub groups: u64,
    /// Groups that have joined when the load begins: 1 to this.
    pub joined: u64,
    /// Members of each group.
    pub replicas: u64,
    /// A group that no fault touches, with its clients: it must go on serving what it has (I21).
    /// 0: none.
    pub spared: u64,
    /// Controllers.
    pub ctrlers: u64,
    /// Shards.
    pub shards: u32,
    /// Small limits: flushes, snapshots, rewrites and cut logs after some tens of KiB.
    pub small_limits: bool,
    /// Bytes of entries in one append message; small: mostly one entry.
    pub append_bytes: usize,
    /// Clients.
    pub clients: u64,
    /// Operations that each of them has under way at a time, all in one session per shard.
    pub depth: u64,
    /// Keys they share.
    pub keys: u64,
    /// The keys are chosen to hurt: empty, as long as allowed, beginnings of each other, zeros, 0xff,
    /// braces that are no hash tag.
    pub odd_keys: bool,
    /// Of 100 operations so many hit key 0.
    pub hot_percent: u64,
    /// What the clients do.
    pub work: Work,
    /// Longest pause of a client between two operations (ms).
    pub pause_ms: u64,
    /// Bytes added to what is put.
    pub padding: usize,
    /// Length of the safety phase (ms).
    pub load_ms: u64,
    /// Latency of every message, least and most (ms).
    pub latency_ms: (u64, u64),
    /// Latency of a disk's job, least and most (µs).
    pub disk_us: (u64, u64),
    /// Of a million disk jobs so many stall for 100 to 500 ms.
    pub stall_ppm: u64,
    /// Of 100 un-synced sectors behind the synced end so many hold garbage after a power failure.
    pub garbage_percent: u64,
    /// KiB of each disk, of which files take what was written of them; 0: without end.
    pub disk_kib: u64,
    /// A member that lags is waited for so long (ms), with small limits.
    pub patience_ms: u64,
    /// KiB that the log on disk may have for those that need it, with small limits.
    pub kept_kib: u64,
    /// Bytes of the values that one client stores under new keys until a disk is full; then it deletes
    /// most of them and begins anew. 0: none does.
    pub hoard: usize,
    /// The disk of one member of each group has a third less room than the others'.
    pub uneven_disks: bool,
    /// So many operations of each client are given up by their caller.
    pub hasty: u64,
    /// KiB of commands that a leader lets in at a time; 0: as many as by default.
    pub uncommitted_kib: u64,
    /// In the liveness phase only a quorum of each group is healed; the rest stays broken for ever.
    pub core_only: bool,
    /// How it is broken.
    pub broken: Broken,
    /// Who leads when the liveness phase begins is among the broken.
    pub broken_leader: bool,
    /// More is damaged than a group can stand: it must stop loudly and never lie. There is no
    /// liveness phase.
    pub over_budget: bool,
    /// The run ends with the safety phase (to find a smaller plan sooner).
    pub safety_only: bool,
    /// Families of faults that are on.
    pub families: Vec<String>,
}

/// How a member is broken for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Broken {
    /// It is down.
    #[default]
    Down,
    /// It is up, and cut off from everybody.
    CutOff,
    /// It hears nobody, and everybody hears it; connections stand.
    Deaf,
    /// Nobody hears it, and it hears everybody; connections stand.
    Mute,
    /// It stands still; its connections stay open.
    Still,
    /// Its disk stands still: what it asks of it never ends.
    Hung,
}

/// What the clients do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Reads, puts, appends, deletes, compare-and-sets.
    #[default]
    Mixed,
    /// Reads and appends of unique tokens.
    Appends,
    /// Counters, raised by compare-and-set.
    Counters,
    /// Batches that append to two keys at once.
    Batches,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            groups: 3,
            joined: 2,
            replicas: 3,
            spared: 0,
            ctrlers: 3,
            shards: 6,
            small_limits: true,
            append_bytes: 1 << 20,
            clients: 5,
            depth: 1,
            keys: 12,
            odd_keys: false,
            hot_percent: 0,
            work: Work::Mixed,
            pause_ms: 100,
            padding: 0,
            load_ms: 40_000,
            latency_ms: (1, 2),
            disk_us: (100, 4000),
            stall_ppm: 0,
            garbage_percent: 5,
            disk_kib: 0,
            patience_ms: 0,
            kept_kib: 256,
            hoard: 0,
            uneven_disks: false,
            hasty: 0,
            uncommitted_kib: 0,
            core_only: false,
            broken: Broken::Down,
            broken_leader: false,
            over_budget: false,
            safety_only: false,
            families: Vec::new(),
        }
    }
}

/// One removable event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it begins: milliseconds of simulated time after the load has begun.
    pub at_ms: u64,
    /// How long it lasts (0: a moment).
    pub for_ms: u64,
    /// What happens.
    pub fault: Fault,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, long) = (self.at_ms, self.for_ms);
        write!(
            f,
            "{:>3}.{:03} s  {:>6} ms  {:?}",
            at / 1000,
            at % 1000,
            long,
            self.fault
        )
    }
}

impl Plan {
    /// Reads a plan that was kept.
    pub fn from_json(text: &str) -> Result<Plan, String> {
        serde_json::from_str(text).map_err(|e| format!("not a plan: {e}"))
    }

    /// The seed of the run.
    pub fn run_seed(&self) -> u64 {
        self.other_seed.unwrap_or(self.seed)
    }

    /// To be kept.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan is plain data")
    }

    /// The header of a run: what was drawn, a line each.
    pub fn header(&self) -> Vec<String> {
        let options = serde_json::to_value(&self.options).unwrap_or_default();
        let mut lines = vec![format!("seed {}", self.run_seed())];
        if let Some(options) = options.as_object() {
            lines.extend(
                options
                    .iter()
                    .map(|(name, value)| format!("  {name}: {value}")),
            );
        }
        lines.extend(self.events.iter().map(|e| format!("  {e}")));
        lines
    }
}
