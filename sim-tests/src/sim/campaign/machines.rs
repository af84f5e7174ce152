//! Servers of a run: who is meant to be down, who may end by itself, and the supervisor that starts
//! a process again as a container engine would.

use crate::campaign::fault::Down;
use crate::sim::kv_cluster::KvCluster;
use crate::sim::nodes::Key;
use ctrler::config::GroupId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::sleep;

/// A process that ended by itself is started again after so long,
const AGAIN: Duration = Duration::from_millis(500);
/// at most so often in a row.
const TRIES: u32 = 6;
/// Between two looks at the servers.
const LOOK: Duration = Duration::from_millis(50);
/// What failed under a server is noticed within so many looks at it, once its disk works again: 5 s.
const NOTICED: u32 = 100;
/// A server that was asked to shut down has done so within so many looks at it, while its disk works
/// and it is not paused: 10 s.
const SHUT_DOWN: u32 = 200;

#[derive(Default)]
struct State {
    /// How many faults hold a machine down.
    held: BTreeMap<Key, u32>,
    paused: BTreeSet<Key>,
    /// How many faults make a disk fail now: its server may end with an error.
    failing: BTreeMap<Key, u32>,
    /// Machines whose disk failed in this life of their server, which may not have noticed yet, and
    /// how often it was seen going on since then.
    shaken: BTreeMap<Key, u32>,
    /// How many faults make a disk late.
    late: BTreeMap<Key, u32>,
    /// Servers that were asked to shut down, and how often they were seen at it since then.
    leaving: BTreeMap<Key, u32>,
    /// Machines whose disk lost what it had acknowledged.
    spoiled: BTreeSet<Key>,
    /// Those of them whose disk is an older image of what it was.
    older: BTreeSet<Key>,
    /// Machines whose disk may have failed to remove a file: it goes at the next start.
    untidy: BTreeSet<Key>,
    /// Machines that are up and of no use to anybody, for ever.
    useless: BTreeSet<Key>,
    /// Machines whose server ended by itself, until they are looked after.
    fallen: Vec<Key>,
    tries: BTreeMap<Key, u32>,
    /// Machines whose server ended too often to be started again before the end of the faults.
    given_up: BTreeSet<Key>,
    /// The last words of servers that ended by themselves.
    words: BTreeMap<(Key, String), u32>,
}

impl State {
    /// The server may end with an error: its disk fails, or did a moment ago, or it was damaged, or is
    /// broken for ever.
    fn is_excused(&self, key: Key) -> bool {
        self.failing.contains_key(&key)
            || self.shaken.contains_key(&key)
            || self.spoiled.contains(&key)
            || self.useless.contains(&key)
    }

    /// Time passes for the servers that go on.
    fn look(&mut self) {
        let paused = &self.paused;
        self.shaken.retain(|key, seen| {
            *seen += u32::from(!paused.contains(key));
            *seen <= NOTICED
        });
    }

    /// A new life on a disk that works has nothing of its failures.
    fn starts(&mut self, key: Key) {
        if !self.failing.contains_key(&key) {
            self.shaken.remove(&key);
            self.untidy.remove(&key);
        }
    }
}

fn one_less(counts: &mut BTreeMap<Key, u32>, key: Key) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

/// The servers of a run. Cheap to clone.
#[derive(Clone)]
pub struct Machines {
    /// The cluster they form.
    pub cluster: KvCluster,
    sites: Arc<BTreeMap<Key, (GroupId, u64)>>,
    state: Arc<Mutex<State>>,
}

impl Machines {
    /// All servers are up.
    pub fn new(cluster: KvCluster, groups: u64) -> Machines {
        let sites = (0..=groups)
            .flat_map(|g| cluster.members(g).into_iter().map(move |n| (g, n)))
            .map(|(g, n)| (cluster.key(g, n), (g, n)))
            .collect();
        Machines {
            cluster,
            sites: Arc::new(sites),
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Group and node of a machine.
    pub fn site(&self, key: Key) -> (GroupId, u64) {
        self.sites[&key]
    }

    /// All machines.
    pub fn all(&self) -> Vec<Key> {
        self.sites.keys().copied().collect()
    }

    /// The server may end with an error from now on: its disk fails, until [`Machines::disk_works`].
    pub fn disk_fails(&self, key: Key) {
        *self.state().failing.entry(key).or_default() += 1;
    }

    /// The disk is so late that a shutdown may take long, until [`Machines::disk_hurries`].
    pub fn disk_is_late(&self, key: Key) {
        *self.state().late.entry(key).or_default() += 1;
    }

    /// See [`Machines::disk_is_late`].
    pub fn disk_hurries(&self, key: Key) {
        one_less(&mut self.state().late, key);
    }

    /// The disk works again. A server that lived through it is excused until it starts again, or has
    /// had the time to notice.
    pub fn disk_works(&self, key: Key) {
        let mut state = self.state();
        one_less(&mut state.failing, key);
        state.shaken.insert(key, 0);
    }

    /// Its disk may fail to remove a file.
    pub fn may_be_untidy(&self, key: Key) {
        self.state().untidy.insert(key);
    }

    /// True when every file that the server removed is gone.
    pub fn is_tidy(&self, key: Key) -> bool {
        !self.state().untidy.contains(&key)
    }

    /// The disk is another one (`whole`) or was damaged: neither its server nor the group can count on
    /// it.
    pub fn spoil(&self, key: Key, whole: bool) {
        let (group, node) = self.site(key);
        match whole {
            true => crate::sim::ledger::replaced(group, node),
            false => crate::sim::ledger::damaged(group, node),
        }
        self.state().spoiled.insert(key);
    }

    /// The disk is an older image of what it was.
    pub fn age(&self, key: Key) {
        self.spoil(key, true);
        self.state().older.insert(key);
    }

    fn start(&self, key: Key) {
        if !self.cluster.nodes.is_up(key) {
            // How the last life ended is judged by what its disk did then.
            self.judge();
            self.state().starts(key);
            self.cluster.nodes.start(key);
        }
    }

    /// Machines whose disk was damaged.
    pub fn spoiled(&self) -> BTreeSet<Key> {
        self.state().spoiled.clone()
    }

    /// Machines whose disk is an older image of what it was.
    pub fn older(&self) -> BTreeSet<Key> {
        self.state().older.clone()
    }

    /// Takes a server down; it stays so until as many [`Machines::release`]s.
    pub async fn hold(&self, key: Key, how: Down) {
        let first = {
            let mut state = self.state();
            let held = state.held.entry(key).or_default();
            *held += 1;
            *held == 1
        };
        if first {
            self.take_down(key, how).await;
        }
    }

    async fn take_down(&self, key: Key, how: Down) {
        let nodes = &self.cluster.nodes;
        let paused = self.unpause(key);
        if !nodes.is_up(key) {
            return;
        }
        match how {
            Down::Power => nodes.kill(key),
            Down::Process => nodes.crash(key),
            Down::Graceful if paused => nodes.crash(key),
            Down::Graceful => nodes.stop(key).await,
        }
        self.tell_down(key);
    }

    /// For the timeline: the server itself cannot say that it is gone.
    fn tell_down(&self, key: Key) {
        let (group, node) = self.site(key);
        world::observe(world::Site { group, node }, "down", &[]);
    }

    /// See [`Machines::hold`]; starts the server when nothing else holds it down.
    pub fn release(&self, key: Key) {
        {
            let mut state = self.state();
            let Some(held) = state.held.get_mut(&key) else {
                return;
            };
            *held -= 1;
            if *held > 0 {
                return;
            }
            state.held.remove(&key);
            state.tries.remove(&key);
        }
        self.start(key);
    }

    /// Power fails now; back after a while, unless something else holds it down.
    pub async fn blink(&self, key: Key, down: Duration) {
        self.hold(key, Down::Power).await;
        sleep(down).await;
        self.release(key);
    }

    /// True when the machine is neither down nor paused nor broken for ever.
    pub fn is_well(&self, key: Key) -> bool {
        let state = self.state();
        let here = !state.paused.contains(&key) && !state.useless.contains(&key);
        here && self.cluster.nodes.is_up(key)
    }

    /// True when its server runs, too: it has not ended by itself, to be started again or, after so
    /// many tries, no more until everything is healed.
    pub fn serves(&self, key: Key) -> bool {
        let ended = {
            let state = self.state();
            state.fallen.contains(&key) || state.given_up.contains(&key)
        };
        !ended && self.is_well(key)
    }

    /// It is up, and of no use to anybody from now on.
    pub fn give_up(&self, key: Key) {
        self.state().useless.insert(key);
    }

    /// Stops the process where it stands.
    pub fn pause(&self, key: Key) {
        if self.is_well(key) {
            self.cluster.nodes.pause(key);
            self.state().paused.insert(key);
        }
    }

    /// Lets it go on; true when it had been paused.
    pub fn unpause(&self, key: Key) -> bool {
        let was = self.state().paused.remove(&key);
        if was {
            self.cluster.nodes.resume(key);
        }
        was
    }

    /// Starts again, after a moment, what ended by itself. Runs for ever.
    ///
    /// # Panics
    /// When a server ended whose disk did nothing wrong, or one that was asked to does not (I20).
    pub async fn supervise(self) {
        loop {
            sleep(LOOK).await;
            self.look_after();
            self.state().look();
            self.look_at_leaving();
        }
    }

    /// # Panics
    /// When a server was asked to shut down and does not (I20).
    fn look_at_leaving(&self) {
        let nodes = &self.cluster.nodes;
        let mut state = self.state();
        let state = &mut *state;
        for key in self.all() {
            if !nodes.is_leaving(key) {
                state.leaving.remove(&key);
                continue;
            }
            let hindered = state.paused.contains(&key)
                || state.late.contains_key(&key)
                || state.failing.contains_key(&key)
                || state.useless.contains(&key);
            let seen = state.leaving.entry(key).or_default();
            *seen += u32::from(!hindered);
            assert!(
                *seen <= SHUT_DOWN,
                "I20: {} was asked to shut down, and has not within {:?} in which nothing hindered it",
                nodes.name(key),
                LOOK * SHUT_DOWN
            );
        }
    }

    /// Judges the servers that ended by themselves since the last time.
    ///
    /// # Panics
    /// When a disk did nothing wrong (I20).
    pub fn judge(&self) {
        let ended = self.cluster.nodes.take_fatal();
        let mut state = self.state();
        for (key, why) in ended {
            let disk = self.cluster.nodes.disk(key);
            assert!(
                state.is_excused(key),
                "I20: {} ended, and its disk did nothing wrong: {why}; {} of {} bytes are used, by {:?}",
                self.cluster.nodes.name(key),
                disk.used(),
                disk.options().capacity,
                disk.files()
            );
            *state.words.entry((key, why)).or_default() += 1;
            state.fallen.push(key);
        }
    }

    fn look_after(&self) {
        self.judge();
        let fallen = std::mem::take(&mut self.state().fallen);
        for key in fallen {
            let mut state = self.state();
            let tries = state.tries.entry(key).or_default();
            *tries += 1;
            if *tries > TRIES {
                state.given_up.insert(key);
                continue;
            }
            drop(state);
            let machines = self.clone();
            tokio::spawn(async move {
                machines.hold(key, Down::Process).await;
                sleep(AGAIN).await;
                let kept = machines.state().tries.get(&key).copied();
                machines.release(key);
                if let Some(kept) = kept {
                    machines.state().tries.insert(key, kept);
                }
            });
        }
    }

    /// Lets everybody go on and starts everybody, but those in `broken`, who go down for ever. Every
    /// disk works from now on.
    pub fn recover(&self, broken: &BTreeSet<Key>) {
        self.look_after();
        self.look_at_leaving();
        for key in self.all() {
            self.unpause(key);
        }
        let given_up;
        {
            let mut state = self.state();
            state.held.clear();
            state.tries.clear();
            state.late.clear();
            for key in std::mem::take(&mut state.failing).into_keys() {
                state.shaken.insert(key, 0);
            }
            given_up = std::mem::take(&mut state.given_up);
            // For good: so often nothing releases them any more. (What hit somebody else's leader may
            // still come, and hold and release one of them.)
            state
                .held
                .extend(broken.iter().map(|key| (*key, u32::MAX / 2)));
        }
        let nodes = &self.cluster.nodes;
        for key in self.all() {
            let disk = nodes.disk(key);
            disk.clear_faults();
            let crashed = disk.crashed() || given_up.contains(&key) || nodes.is_leaving(key);
            match (broken.contains(&key), nodes.is_up(key)) {
                (true, true) => {
                    nodes.kill(key);
                    self.tell_down(key);
                }
                (false, true) if crashed => {
                    nodes.kill(key);
                    self.start(key);
                }
                (false, false) => self.start(key),
                _ => {}
            }
        }
    }

    /// What servers said that ended by themselves.
    pub fn last_words(&self) -> Vec<String> {
        let shown = |((key, why), times): (&(Key, String), &u32)| {
            format!("{}, {times} times: {why}", self.cluster.nodes.name(*key))
        };
        self.state().words.iter().map(shown).collect()
    }
}
