//! Where a shard is: the newest configuration seen, presumed leaders, and a link per server.

#[path = "elsewhere.rs"]
mod elsewhere;

use super::answer::Trouble;
use crate::api::{CARRY_CHANNEL, CHANNEL, Request};
use bytes::Bytes;
use ctrler::client::ClientError;
use ctrler::config::{Config, ConfigNum, GroupId, ShardId};
pub use ctrler::program::client_hello;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use world::clock::{Instant, now};
use world::net::{CallError, Hello, Limits, Link};

/// Longest wait for a shard's history.
const LOOK_BACK_PATIENCE: Duration = Duration::from_millis(500);
/// Links kept; beyond, those of servers outside the newest configuration are dropped.
const MAX_LINKS: usize = 1024;
/// Time for one question to the controllers.
const REFRESH_DEADLINE: Duration = Duration::from_secs(2);
/// Least time between two questions.
const REFRESH_SPACING: Duration = Duration::from_millis(10);
/// First and longest pause before an attempt is repeated.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(128));
/// While a shard moves, or a group elects its leader, the pause grows no further than after so many
/// failures (32 ms).
const MOVING: u32 = 4;
/// So many failures in a row are those of an election (two seconds or so).
const ELECTION: u32 = 64;
/// A server that could not be reached is passed over for so long, where the group has others.
const AVOID: Duration = Duration::from_millis(500);
/// A member that reaches a leader whom we do not carries writes for so long; then the leader is tried
/// again.
const CARRY: Duration = Duration::from_secs(10);
/// After so many failures in a row none is asked to carry without a pause.
const CARRY_FAILURES: u32 = 8;
/// First and longest time for one attempt; doubled with each one in a row that fails. A server
/// that is frozen or cut off is given up after it; one that died is noticed at once.
const ATTEMPT: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));
/// A large request gets a second more per so many bytes.
const ATTEMPT_BYTES_PER_SEC: usize = 1 << 20;
/// Repairs with a fresh hint that are tried without a pause.
const QUICK_FAILURES: u32 = 2;
/// After so many failures in a row at a busy server another one is asked; at a group without a
/// leader, the shard's former owner.
const PATIENCE: u32 = 8;
/// After so many failures in a row the shard's former owner is asked, where nobody is reached or
/// nobody answers in time.
const UNREACHED: u32 = 4;
const UNANSWERED: u32 = 2;

/// Where one attempt goes.
#[derive(Clone)]
pub struct Route {
    /// The group.
    pub group: GroupId,
    /// The configuration that said so.
    pub config: u64,
    /// The server.
    pub link: Link,
    /// It is asked to carry writes to the leader, which cannot be reached from here.
    pub carried: bool,
}

/// The routing cache.
pub struct Router {
    ctrlers: ctrler::client::Client,
    limits: Limits,
    hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    /// The controllers' cluster, learnt before the first configuration. Session ids count from 1 in
    /// every cluster: a write that reached another one, at the same addresses, would be taken for
    /// somebody else's.
    cluster: Arc<OnceLock<u128>>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    config: Option<Arc<Config>>,
    /// Servers of every group seen, also of those that have left: they may still hold a shard
    /// on its way. The presumed leader is first asked.
    groups: BTreeMap<GroupId, Group>,
    /// A refusal named another group for a shard, or history did; forgotten with the next
    /// configuration that gives the shard to somebody else.
    hints: BTreeMap<ShardId, GroupId>,
    /// Who had a shard before a group got it, by history; forgotten likewise.
    former: BTreeMap<(ShardId, GroupId), Option<GroupId>>,
    /// Shards whose history is being asked for.
    looking_back: BTreeSet<ShardId>,
    /// Old configurations that were asked for.
    past: BTreeMap<ConfigNum, Arc<Config>>,
    links: BTreeMap<(GroupId, String), Link>,
    refreshing: bool,
    /// Groups that are being looked up.
    looking_up: BTreeSet<GroupId>,
    /// Why the last question to the controllers failed.
    trouble: Option<String>,
}

#[derive(Default)]
struct Group {
    /// As it joined, by the newest configuration.
    joined: Vec<String>,
    /// Where it is reached: as it joined, or by its record where that was asked for since.
    servers: Vec<String>,
    leader: String,
    /// Servers that could not be reached, and when they may be asked again.
    avoided: BTreeMap<String, Instant>,
    /// A member that carries writes to a leader that cannot be reached, and until when it is asked to.
    carrier: Option<(String, Instant)>,
}

impl Group {
    fn reached_at(&mut self, servers: &[String]) {
        self.servers = servers.to_vec();
        if !self.servers.contains(&self.leader) {
            self.leader = self.servers.first().cloned().unwrap_or_default();
        }
        self.avoided.retain(|server, _| servers.contains(server));
    }

    /// Who carries writes now.
    fn carrier(&self) -> Option<&String> {
        let (server, until) = self.carrier.as_ref()?;
        (now() < *until && self.servers.contains(server)).then_some(server)
    }

    fn is_avoided(&self, server: &str) -> bool {
        self.avoided.get(server).is_some_and(|until| now() < *until)
    }

    /// The next in the row that is not avoided; the next one where all are.
    fn behind(&self, server: &str) -> Option<&String> {
        let count = self.servers.len();
        let at = self.servers.iter().position(|s| s == server);
        let from = at.map_or(0, |at| at + 1);
        let row = (0..count).map(|n| &self.servers[(from + n) % count]);
        let mut others = row.filter(|s| *s != server);
        let next = others.clone().next();
        others.find(|s| !self.is_avoided(s)).or(next)
    }
}

impl Router {
    /// A cache that asks these controllers.
    pub fn new(ctrlers: Vec<String>, limits: Limits) -> Arc<Router> {
        let cluster = Arc::<OnceLock<u128>>::default();
        let known = cluster.clone();
        let hello: Arc<dyn Fn() -> Hello + Send + Sync> = Arc::new(move || Hello {
            cluster: known.get().copied(),
            ..client_hello()
        });
        Arc::new(Router {
            ctrlers: ctrler::client::Client::new(ctrlers, hello.clone()),
            limits,
            hello,
            cluster,
            state: Mutex::default(),
            changed: Notify::new(),
        })
    }

    /// The controllers' client.
    pub fn ctrlers(&self) -> &ctrler::client::Client {
        &self.ctrlers
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock; its contents are a cache in any case.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest configuration seen.
    pub fn config(&self) -> Option<Arc<Config>> {
        self.state().config.clone()
    }

    /// Waits for a first configuration. Cancellation-safe.
    pub async fn first_config(self: &Arc<Self>) -> Arc<Config> {
        let mut failures = 0;
        loop {
            let changed = self.changed.notified();
            if let Some(config) = self.config() {
                return config;
            }
            self.refresh();
            failures += 1;
            let _ = world::clock::timeout(backoff(failures), changed).await;
        }
    }

    /// Why the controllers could not be asked, if so.
    pub fn trouble(&self) -> Option<String> {
        self.state().trouble.clone()
    }

    /// Where the next attempt for a shard goes.
    pub fn route(&self, shard: ShardId) -> Result<Route, Trouble> {
        let mut state = self.state();
        let config = state.config.clone().ok_or(Trouble::NoConfig)?;
        let owner = config.shards.get(shard as usize).copied().flatten();
        let hint = state
            .hints
            .get(&shard)
            .copied()
            .filter(|group| state.groups.contains_key(group));
        let nobody = Trouble::NoOwner {
            shard,
            config: config.num,
        };
        let group = hint.or(owner).ok_or(nobody.clone())?;
        let (server, carried) = match state.groups.get(&group) {
            Some(known) if known.carrier().is_some() => (known.carrier().cloned(), true),
            Some(known) if !known.leader.is_empty() => (Some(known.leader.clone()), false),
            _ => (None, false),
        };
        let link = self.link(&mut state, group, server.ok_or(nobody)?);
        Ok(Route {
            group,
            config: config.num,
            link,
            carried,
        })
    }

    fn link(&self, state: &mut State, group: GroupId, server: String) -> Link {
        if state.links.len() >= MAX_LINKS {
            let mut known = BTreeSet::new();
            for (group, members) in &state.groups {
                known.extend(
                    members
                        .servers
                        .iter()
                        .map(|server| (*group, server.clone())),
                );
            }
            state.links.retain(|key, _| known.contains(key));
        }
        let key = (group, server.clone());
        let made = || {
            let cluster = self.cluster.clone();
            let check = move |peer: &Hello| match (peer.group, cluster.get(), peer.cluster) {
                (_, Some(ours), Some(theirs)) if *ours != theirs => Err(format!(
                    "a server of cluster {ours:032x} was expected there, but it belongs to cluster \
                     {theirs:032x}"
                )),
                (Some(found), ..) if found == group => Ok(()),
                (found, ..) => Err(format!(
                    "a member of group {group} was expected there, but it says {}",
                    found.map_or("that it is a client".into(), |g| format!("group {g}")),
                )),
            };
            Link::new(
                server,
                self.limits.clone(),
                self.hello.clone(),
                Arc::new(check),
            )
        };
        state.links.entry(key).or_insert_with(made).clone()
    }

    /// Learns from a failed attempt and waits as long as the next one should. `at` is where it
    /// went, `failures` how many there have been in a row. Cancellation-safe.
    pub async fn recover(
        self: &Arc<Self>,
        shard: ShardId,
        at: Option<&Route>,
        trouble: &Trouble,
        failures: u32,
    ) {
        // Asked for before anything can change.
        let changed = self.changed.notified();
        let mut at_once = false;
        let mut looking = false;
        match (trouble, at) {
            (Trouble::NotLeader(Some((_, leader))), Some(at)) => {
                // It cannot be reached from here, but perhaps from there; or the members have not
                // noticed yet that their leader is dead.
                if self.is_avoided(at.group, leader) {
                    at_once = failures <= CARRY_FAILURES && self.ask_to_carry(at);
                    self.pass_over(at);
                } else {
                    at_once = failures <= QUICK_FAILURES && leader != at.link.target();
                    self.presume(at.group, leader);
                }
            }
            (Trouble::NotLeader(None), Some(at)) => {
                self.ask_no_more_to_carry(at);
                self.pass_over(at);
                if failures.is_multiple_of(PATIENCE) {
                    looking = self.fall_back(shard, at.group);
                }
            }
            (Trouble::Unreadable(_), Some(at)) => {
                self.ask_no_more_to_carry(at);
                self.pass_over(at);
            }
            (Trouble::Unreachable(_) | Trouble::Silent(_), Some(at)) => {
                self.ask_no_more_to_carry(at);
                self.avoid(at);
                self.pass_over(at);
                at_once = failures == 1;
                let patience = match trouble {
                    Trouble::Silent(_) => UNANSWERED,
                    _ => UNREACHED,
                };
                if failures >= patience {
                    // A hint may have named a group that handed the shard over and is gone; the
                    // addresses may have changed; or the shard was given to a group that is down,
                    // and is served where it was.
                    looking = self.fall_back(shard, at.group);
                    self.refresh();
                    self.look_up(at.group);
                }
            }
            (Trouble::WrongGroup { config, owner }, Some(at)) => {
                let newer = *config > self.config().map_or(0, |c| c.num);
                match owner {
                    // While a shard is on its way, each side may name the other. Followed also
                    // where it rests on a configuration not seen here: the controllers may be
                    // down, and one that is seen replaces it.
                    Some(owner) if *owner != at.group => {
                        self.hint(shard, *owner);
                        at_once = failures <= QUICK_FAILURES && !newer;
                    }
                    _ => self.unhint(shard),
                }
                self.refresh();
            }
            (Trouble::NoConfig | Trouble::NoOwner { .. }, _) => self.refresh(),
            // A server that cannot serve for long (cut off from its group, say) may still answer.
            (Trouble::Busy(_) | Trouble::Full(_) | Trouble::Unknown, Some(at))
                if failures.is_multiple_of(PATIENCE) || at.carried =>
            {
                self.ask_no_more_to_carry(at);
                self.pass_over(at);
            }
            (Trouble::Busy(_) | Trouble::Full(_) | Trouble::Unknown, _) | (_, None) => {}
        }
        if at_once {
            return;
        }
        let pause = match trouble {
            // A shard on its way arrives any moment.
            Trouble::WrongGroup { .. } => backoff(failures.min(MOVING)),
            // So does a leader.
            Trouble::NotLeader(_) | Trouble::Unreachable(_) | Trouble::Silent(_)
                if failures <= ELECTION =>
            {
                backoff(failures.min(MOVING))
            }
            _ => backoff(failures),
        };
        match trouble {
            _ if looking => {
                let _ = world::clock::timeout(pause.max(LOOK_BACK_PATIENCE), changed).await;
            }
            // A newer configuration ends the wait early.
            Trouble::WrongGroup { .. } | Trouble::NoConfig | Trouble::NoOwner { .. } => {
                let _ = world::clock::timeout(pause, changed).await;
            }
            _ => world::clock::sleep(pause).await,
        }
    }

    /// The group's leader is there.
    fn presume(&self, group: GroupId, leader: &str) {
        if let Some(known) = self.state().groups.get_mut(&group)
            && !leader.is_empty()
        {
            known.leader = leader.into();
        }
    }

    /// The next member is asked, unless another attempt has moved on already.
    fn pass_over(&self, at: &Route) {
        if let Some(known) = self.state().groups.get_mut(&at.group)
            && known.leader == at.link.target()
            && let Some(next) = known.behind(&known.leader)
        {
            known.leader = next.clone();
        }
    }

    /// From now on this member is asked to carry writes to the leader; false when it is already.
    fn ask_to_carry(&self, at: &Route) -> bool {
        match self.state().groups.get_mut(&at.group) {
            Some(known) if !at.carried => {
                world::mark!("client: a follower is asked to carry writes");
                known.carrier = Some((at.link.target().to_owned(), now() + CARRY));
                true
            }
            _ => false,
        }
    }

    /// That is over: the member cannot be reached, or does not reach a leader either.
    fn ask_no_more_to_carry(&self, at: &Route) {
        if at.carried
            && let Some(known) = self.state().groups.get_mut(&at.group)
        {
            known.carrier = None;
        }
    }

    /// For a while the group's other members are asked.
    fn avoid(&self, at: &Route) {
        if let Some(known) = self.state().groups.get_mut(&at.group) {
            let until = now() + AVOID;
            known.avoided.insert(at.link.target().to_owned(), until);
        }
    }

    fn is_avoided(&self, group: GroupId, server: &str) -> bool {
        let state = self.state();
        state
            .groups
            .get(&group)
            .is_some_and(|g| g.is_avoided(server))
    }

    /// Asks the controllers for the latest configuration, unless that is being done already.
    pub fn refresh(self: &Arc<Self>) {
        if std::mem::replace(&mut self.state().refreshing, true) {
            return;
        }
        let router = self.clone();
        tokio::spawn(async move {
            let changed = match router.newest().await {
                Ok(config) => router.adopt(config),
                Err(error) => {
                    router.state().trouble = Some(error.to_string());
                    false
                }
            };
            if changed {
                router.changed.notify_waiters();
            }
            world::clock::sleep(REFRESH_SPACING).await;
            router.state().refreshing = false;
        });
    }

    /// The newest configuration, and first of all whose it is.
    async fn newest(&self) -> Result<Config, ClientError> {
        if self.cluster.get().is_none() {
            let (cluster, ..) = self.ctrlers.cluster(REFRESH_DEADLINE).await?;
            self.cluster.get_or_init(|| cluster);
        }
        self.ctrlers.query(None, REFRESH_DEADLINE).await
    }

    /// Takes a configuration in; true when it is news.
    pub fn adopt(&self, config: Config) -> bool {
        let mut state = self.state();
        state.trouble = None;
        if state
            .config
            .as_ref()
            .is_some_and(|known| known.num >= config.num)
        {
            return false;
        }
        for (group, info) in &config.groups {
            let known = state.groups.entry(*group).or_default();
            if known.joined != info.servers {
                known.joined.clone_from(&info.servers);
                known.reached_at(&info.servers);
            }
        }
        let state = &mut *state;
        let before = state.config.take();
        let stays = |shard: ShardId| {
            let owner = |c: &Config| c.shards.get(shard as usize).copied().flatten();
            before.as_ref().is_some_and(|b| owner(b) == owner(&config))
        };
        state.hints.retain(|shard, _| stays(*shard));
        state.former.retain(|(shard, _), _| stays(*shard));
        state.config = Some(Arc::new(config));
        true
    }

    /// Sends a request; the caller sorts the answer. `failures` in a row lengthen the wait.
    pub async fn call(
        &self,
        route: &Route,
        body: Bytes,
        failures: u32,
    ) -> Result<Bytes, CallError> {
        let deadline = attempt_deadline(body.len(), failures);
        let channel = match route.carried {
            true => CARRY_CHANNEL,
            false => CHANNEL,
        };
        route.link.call(channel, body, deadline).await
    }
}

/// A request's frame body.
pub fn encode(request: &Request) -> Bytes {
    // Postcard writes plain data to memory; it has no way to fail on these types.
    Bytes::from(postcard::to_stdvec(request).expect("requests are plain data"))
}

/// Time for one attempt.
fn attempt_deadline(bytes: usize, failures: u32) -> Duration {
    let grown = ATTEMPT.0 * (1 << failures.min(3));
    grown.min(ATTEMPT.1) + Duration::from_secs((bytes / ATTEMPT_BYTES_PER_SEC) as u64)
}

/// The pause after so many failures in a row: doubled each time, of which a random half.
fn backoff(failures: u32) -> Duration {
    let full = (BACKOFF.0 * (1 << (failures.clamp(1, 6) - 1))).min(BACKOFF.1);
    let micros = full.as_micros() as u64;
    Duration::from_micros(micros / 2 + world::entropy::random_u64() % (micros / 2 + 1))
}
