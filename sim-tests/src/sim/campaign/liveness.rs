//! The liveness phase: after healing, in bounded simulated time, everything is as it should be.

use super::machines::Machines;
use super::network::{self, Cut, Vanish};
use super::view;
use crate::campaign::fault::{Member, Who};
use crate::campaign::plan::{Broken, Options};
use crate::sim::nodes::Key;
use crate::sim::workload::Book;
use ctrler::config::{Config, GroupId, Record, ShardId};
use kv::api::{KvStatus, ShardState};
use raft::protocol::Role;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::sleep;
use world::disk::SimDiskOptions;

/// After healing, all of it within this.
const LIMIT: Duration = Duration::from_secs(90);
/// A log under small limits at rest, bytes, without its two newest segments.
const LOG_AT_REST: u64 = 1 << 20;
/// Each of those two, bytes. The newest one stays whatever it holds, and the one before it where the
/// end of the log that is kept begins there; each is as long as what a member took in one turn (the log
/// task gathers 4 MiB), and after a silence that may be all that it missed.
const SEGMENT_AT_REST: u64 = 6 << 20;
/// Longer than any run.
const FOR_EVER: Duration = Duration::from_secs(100_000);
/// For an operation at rest.
const AT_REST: Duration = Duration::from_secs(15);
/// For one question.
const SHORT: Duration = Duration::from_secs(2);

/// Who is broken for ever in the liveness phase when only a core is to live: f of each group of
/// 2f + 1; those whose disk was damaged first, then perhaps the leader, then by the seed.
pub fn broken(machines: &Machines, options: &Options, seed: u64) -> BTreeSet<Key> {
    let mut broken = BTreeSet::new();
    if !options.core_only {
        return broken;
    }
    let spoiled = machines.spoiled();
    // A group that no fault touches stays whole.
    let is_spared = |group: &GroupId| options.spared != 0 && *group == options.spared;
    for group in (0..=options.groups).filter(|group| !is_spared(group)) {
        let members = machines.cluster.group(group);
        let count = members.len();
        let leader = view::node(
            Who {
                group,
                member: Member::Leader,
            },
            count as u64,
        );
        let leader = options
            .broken_leader
            .then(|| machines.cluster.key(group, leader));
        let mut order = members.clone();
        order.rotate_left((seed.wrapping_add(group) % count as u64) as usize);
        // A stable sort: the seed decides among equals.
        order.sort_by_key(|key| (!spoiled.contains(key), Some(*key) != leader));
        broken.extend(&order[..(count - 1) / 2]);
    }
    broken
}

/// Breaks them for ever.
pub fn break_for_ever(machines: &Machines, broken: &BTreeSet<Key>, how: Broken) {
    let nodes = &machines.cluster.nodes;
    for (n, key) in broken.iter().enumerate() {
        // (No event has so high a number.)
        let vanish = |which| {
            let what = (machines.site(*key), which);
            network::black_hole(usize::MAX - n, Some(what));
        };
        match how {
            Broken::Down => continue,
            Broken::CutOff => {
                let cuts = [Cut::Hearing(*key), Cut::Speech(*key)];
                cuts.into_iter().for_each(|cut| network::cut(nodes, cut));
            }
            Broken::Deaf => vanish(Vanish::Heard),
            Broken::Mute => vanish(Vanish::Said),
            Broken::Still => machines.pause(*key),
            Broken::Hung => {
                let disk = nodes.disk(*key);
                disk.set_options(SimDiskOptions {
                    stall: 1.0,
                    stalled: (FOR_EVER, FOR_EVER),
                    ..disk.options()
                });
            }
        }
        machines.give_up(*key);
    }
}

/// What is violated by whatever is not as it should be after healing.
pub fn id(options: &Options) -> &'static str {
    if options.core_only { "I18" } else { "I17" }
}

/// Waits until it is quiet: I17 (and I18, when only a core lives).
///
/// # Panics
/// When it does not become so; the message says what is missing and that the core was healthy.
pub async fn quiet(machines: &Machines, options: &Options, book: &Book) {
    if options.core_only && options.broken == Broken::Hung {
        stir(machines).await;
    }
    let since = world::clock::now();
    let id = id(options);
    loop {
        let missing = missing(machines, options).await;
        if missing.is_empty() {
            break;
        }
        assert!(
            since.elapsed() < LIMIT,
            "{id}: not within {LIMIT:?} after healing: {missing:#?}\n{}\nlast words of servers: {:#?}",
            health(machines).await,
            machines.last_words()
        );
        sleep(Duration::from_millis(100)).await;
    }
    fresh(machines, options, book, id).await;
}

/// Makes a configuration, which every member group enters: a leader whose disk hangs is deposed when
/// something new is asked of it, and not before.
async fn stir(machines: &Machines) {
    let controller = machines.cluster.controller();
    let since = world::clock::now();
    while since.elapsed() < LIMIT {
        sleep(Duration::from_millis(100)).await;
        let Ok(config) = controller.query(None, SHORT).await else {
            continue;
        };
        // A pin is news, if there was none; another owner is.
        let groups = config.groups.keys();
        let pins = (0..).zip(&config.shards).map(|(s, owner)| (s, *owner));
        let moves = groups.map(|group| (0, Some(*group)));
        for (shard, group) in pins.chain(moves) {
            let Some(group) = group else { continue };
            let made = controller.move_shard(shard, group, LIMIT).await;
            if made.is_ok_and(|num| num > config.num) {
                return;
            }
        }
        if config.groups.len() < 2 {
            return;
        }
    }
}

/// What is not yet as it should be.
async fn missing(machines: &Machines, options: &Options) -> Vec<String> {
    let cluster = &machines.cluster;
    let (mut missing, mut unfit) = (Vec::new(), BTreeSet::new());
    for group in 0..=options.groups {
        match agree(machines, options, group).await {
            Ok(may_lag) => unfit.extend(may_lag),
            Err(what) => missing.push(format!("group {group}: {what}")),
        }
    }
    if !missing.is_empty() {
        return missing;
    }
    let controller = cluster.controller();
    let Ok(config) = controller.query(None, SHORT).await else {
        return vec!["the controllers do not answer".into()];
    };
    let Ok(records) = controller.records(SHORT).await else {
        return vec!["the controllers do not answer".into()];
    };
    for group in config.groups.keys() {
        let settled = records.get(group).map_or(0, |r| r.settled);
        if settled < config.num {
            missing.push(format!(
                "group {group} has settled {settled}, the newest is {}",
                config.num
            ));
        }
    }
    missing.extend(owners(machines, options, &config, &records).await);
    missing.extend(leftovers(machines, options, &unfit));
    missing
}

/// I20: at rest a disk holds one state, a short log when limits are small, and nothing that some
/// transfer, rewrite or crash left behind. Not asked of the `unfit`.
fn leftovers(machines: &Machines, options: &Options, unfit: &BTreeSet<Key>) -> Vec<String> {
    const KNOWN: &[&str] = &["CURRENT", "IDENTITY", "log/spare.tmp"];
    let mut found = Vec::new();
    let here = |key: &Key| machines.is_well(*key) && machines.is_tidy(*key) && !unfit.contains(key);
    for key in machines.all().into_iter().filter(here) {
        let (mut states, mut spools) = (0, 0);
        let (mut log, mut unknown) = (BTreeMap::new(), Vec::new());
        let files = machines.cluster.nodes.disk(key).files();
        for (name, bytes) in &files {
            match name.as_str() {
                name if name.starts_with("state-") && name.ends_with(".redb") => states += 1,
                name if name.starts_with("log/") && name.ends_with(".seg") => {
                    log.insert(name, *bytes);
                }
                name if name.starts_with("spool-") => spools += 1,
                name if KNOWN.contains(&name) => {}
                _ => unknown.push(name),
            }
        }
        let long = options.small_limits && is_long(log.into_values());
        // A snapshot may wait for ever for each follower that is broken for ever: of a group, as many
        // as are no majority.
        let members = match machines.site(key).0 {
            0 => options.ctrlers,
            _ => options.replicas,
        };
        let waiting = match options.core_only {
            true => (members - 1) / 2,
            false => 0,
        };
        if states > 1 || long || spools > waiting || !unknown.is_empty() {
            let name = machines.cluster.nodes.name(key);
            found.push(format!("I20: {name} keeps {files:?}"));
        }
    }
    found
}

/// Whether a log is longer than it may be at rest, by the lengths of its segments, oldest first.
fn is_long(segments: impl DoubleEndedIterator<Item = u64>) -> bool {
    let mut newest_first = segments.rev();
    let newest = newest_first.by_ref().take(2);
    newest.max().unwrap_or(0) > SEGMENT_AT_REST || newest_first.sum::<u64>() > LOG_AT_REST
}

/// One leader, and all that live have applied the same. (A leader whose disk hangs leads on while
/// nothing new is asked of it, and sends nobody a snapshot: of such a group no more is asked.) Returns
/// who is unfit: its disk was damaged, and it refuses to go on with it or says that it does not vote, or
/// the others refuse it.
async fn agree(
    machines: &Machines,
    options: &Options,
    group: GroupId,
) -> Result<BTreeSet<Key>, String> {
    let cluster = &machines.cluster;
    let (spoiled, older) = (machines.spoiled(), machines.older());
    let (mut leaders, mut hung) = (Vec::new(), false);
    let (mut states, mut unfit) = (BTreeMap::new(), BTreeSet::new());
    for node in cluster.members(group) {
        let key = cluster.key(group, node);
        if !machines.is_well(key) {
            if options.broken == Broken::Hung
                && let Some(status) = cluster.replica(group, node).await
                && status.role == Role::Leader
            {
                leaders.push((node, status.term));
                hung = true;
            }
            continue;
        }
        let damaged = spoiled.contains(&key);
        let Some(status) = cluster.replica(group, node).await else {
            if damaged {
                unfit.insert(key);
                continue;
            }
            return Err(format!("node {node} does not answer"));
        };
        if status.role == Role::Leader {
            leaders.push((node, status.term));
        }
        // Whoever met a later start of an older disk refuses it for ever: it hears of no leader.
        let refused = older.contains(&key) && status.leader.is_none();
        if damaged && (status.not_voting.is_some() || refused) {
            unfit.insert(key);
            continue;
        }
        states.insert(node, (status.applied, status.digest));
    }
    if leaders.len() != 1 {
        return Err(format!("leaders (node, term): {leaders:?}"));
    }
    if hung {
        return Ok(unfit);
    }
    let mut distinct = states.values();
    let first = distinct.next();
    match distinct.all(|state| Some(state) == first) {
        true => Ok(unfit),
        false => Err(format!("(applied, digest) differ: {states:?}")),
    }
}

/// I12: each shard is with its owner alone, who serves it, and what has none is in one group at the
/// most; I14: no copy is left to be swept. (A leader whose disk hangs sweeps nothing.)
async fn owners(
    machines: &Machines,
    options: &Options,
    config: &Config,
    records: &BTreeMap<GroupId, Record>,
) -> Vec<String> {
    let mut missing = Vec::new();
    let mut held: BTreeMap<ShardId, Vec<(GroupId, ShardState)>> = BTreeMap::new();
    for group in 1..=options.groups {
        let Some((key, page)) = leading(machines, group).await else {
            missing.push(format!("I12: no leader of group {group} says what it has"));
            continue;
        };
        if machines.is_well(key) && (page.dead > 0 || page.sweeping > 0) {
            missing.push(format!(
                "I14: group {group} has still to delete {} copies of {} bytes",
                page.dead, page.sweeping
            ));
        }
        // What a group that left says rests on this, when it may be shut down.
        if let Some(record) = records.get(&group)
            && record.settled == config.num
            && record.holds == page.shards.is_empty()
        {
            missing.push(format!(
                "I12: group {group} has {} shards, and its record says that it holds some: {}",
                page.shards.len(),
                record.holds
            ));
        }
        for shard in page.shards {
            let holders = held.entry(shard.shard).or_default();
            holders.push((group, shard.state));
        }
    }
    for (shard, owner) in (0..).zip(&config.shards) {
        let holders = held.remove(&shard).unwrap_or_default();
        let right = match owner {
            Some(owner) => holders == [(*owner, ShardState::Serving)],
            None => holders.len() <= 1,
        };
        if !right {
            missing.push(format!(
                "I12: the owner of shard {shard} is {owner:?}, and it is in {holders:?}"
            ));
        }
    }
    missing
}

/// The member that leads a group, and its page, if it answers.
async fn leading(machines: &Machines, group: GroupId) -> Option<(Key, KvStatus)> {
    let cluster = &machines.cluster;
    for node in cluster.members(group) {
        if let Some(page) = cluster.status(group, node).await
            && page.replica.role == Role::Leader
        {
            return Some((cluster.key(group, node), page));
        }
    }
    None
}

/// A fresh write and read of every key, and a read of a key of every shard that has an owner.
async fn fresh(machines: &Machines, options: &Options, book: &Book, id: &str) {
    use crate::history::Call;
    let scribe = book.scribe(machines.cluster.client_within(AT_REST), 0);
    let seconds: &[bool] = match options.work {
        crate::campaign::plan::Work::Batches => &[false, true],
        _ => &[false],
    };
    for n in 0..options.keys {
        for second in seconds {
            let key = super::work::key(options, n, *second);
            assert!(
                scribe.perform(&key, Call::Get).await,
                "{id}: a read of {} was not answered within 15 s after healing; errors: {:#?}\n{}",
                String::from_utf8_lossy(&key),
                book.errors().last(),
                health(machines).await
            );
        }
        // One fresh write to its shard.
        let tag = format!("fresh-{{k{n}}}");
        assert!(
            scribe
                .perform(tag.as_bytes(), Call::Put("fresh".into()))
                .await,
            "{id}: a write of {tag} was not answered within 15 s after healing; errors: {:#?}\n{}",
            book.errors().last(),
            health(machines).await
        );
    }
    let config = machines.cluster.controller().query(None, AT_REST).await;
    let config = config.unwrap_or_else(|e| panic!("{id}: the controllers do not answer: {e:?}"));
    for (shard, _) in (0..).zip(&config.shards).filter(|(_, o)| o.is_some()) {
        let key = machines.cluster.key_of(shard, 0);
        assert!(
            scribe.perform(&key, Call::Get).await,
            "{id}: a read of shard {shard} was not answered within 15 s after healing; errors: {:#?}\n{}",
            book.errors().last(),
            health(machines).await
        );
    }
}

/// Proof that those who must do it are up and hear each other.
pub(super) async fn health(machines: &Machines) -> String {
    let cluster = &machines.cluster;
    let mut lines = Vec::new();
    for key in machines.all() {
        let (group, node) = machines.site(key);
        let status = cluster.replica(group, node).await;
        let up = cluster.nodes.is_up(key);
        let (spoiled, well) = (machines.spoiled().contains(&key), machines.is_well(key));
        let told = status.map_or("no answer".to_owned(), |s| {
            format!(
                "{:?} term {} leader {} last {} commit {} applied {} {}",
                s.role,
                s.term,
                s.leader.map_or("none".into(), |leader| leader.to_string()),
                s.last,
                s.commit,
                s.applied,
                s.not_voting.unwrap_or_default()
            )
        });
        let name = cluster.nodes.name(key);
        let disk = cluster.nodes.disk(key);
        let room = match disk.options().capacity {
            u64::MAX => String::new(),
            capacity => format!(
                "; {} of {capacity} bytes used by {:?}",
                disk.used(),
                disk.files()
            ),
        };
        lines.push(format!(
            "  {name}: up {up}, well {well}, damaged {spoiled}: {told}{room}"
        ));
    }
    lines.push(format!(
        "  nothing is lost or late; cut: {:?}",
        network::cuts()
    ));
    lines.join("\n")
}
