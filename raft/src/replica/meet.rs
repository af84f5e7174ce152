//! Who is who: hellos between members, and the birth of a group.
//!
//! A new initial member votes only after every initial peer has answered, and synced its answer,
//! that it never met this node under another disk. Otherwise a member that acknowledged an entry,
//! lost its volume and came back empty under the same flags could vote that entry away. Until then
//! it acknowledges nothing either: its log may still get lost alone, and `born` is what tells an
//! unused directory from one whose log is missing.

use super::CHANNEL;
use super::error::Fatal;
use super::peers::link;
use super::shared::{Apply, Internal, Shared, lock};
use super::wire::{Answer, Call, decode, encode};
use crate::identity::{self, Identity, IdentityError, Meeting};
use raft_protocol::{Configuration, DiskId, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use world::again::Again;
use world::clock::{now, sleep};
use world::net::{CallError, Hello, Link};

/// Between two rounds of asking peers that have not answered.
const RETRY: Duration = Duration::from_millis(200);
/// The same when only a start is told.
const AGAIN: Duration = Duration::from_secs(1);
/// Between two questions to a peer that has this start on record, whether it still has.
const STILL: Duration = Duration::from_secs(5);
/// Refusals in a row that are nothing to speak of.
const PATIENCE: u32 = 2;
/// Why a member that has not met all others is no voter.
const UNBORN: &str = "not a voter yet: every initial member must be met once before the first vote";
/// For one answer.
const DEADLINE: Duration = Duration::from_secs(2);

pub(super) fn hello(shared: &Shared, to: Option<(u64, u64)>) -> Hello {
    let identity = lock(&shared.identity);
    Hello {
        protocol: shared.options.protocol,
        cluster: identity.cluster,
        group: Some(identity.group),
        node: identity.node,
        disk: identity.disk,
        boot: identity.boot,
        nonce: identity.nonce,
        to,
        before: identity.before.clone(),
        level: shared.options.level,
    }
}

fn same_cluster(own: &Identity, peer: &Hello) -> Result<(), String> {
    match (own.cluster, peer.cluster) {
        (Some(ours), Some(theirs)) if ours != theirs => Err(format!(
            "this server belongs to cluster {ours:032x}, the caller to cluster {theirs:032x}"
        )),
        _ => Ok(()),
    }
}

/// Judges the answer on a link to member `node`. Only judges: who is heard is put on record by
/// [`welcome`]. But an older image of a disk is not asked for anything either.
pub(super) fn check(shared: &Shared, node: NodeId, peer: &Hello) -> Result<(), String> {
    let own = lock(&shared.identity);
    same_cluster(&own, peer)?;
    if (peer.group, peer.node) != (Some(own.group), node) {
        return Err(format!(
            "expected node {node} of group {}, found node {} of group {:?} there",
            own.group, peer.node, peer.group
        ));
    }
    let judged = own
        .clone()
        .meet(node, peer.disk, peer.boot, peer.nonce, &peer.before);
    match judged {
        Meeting::Refused(reason) => Err(reason),
        Meeting::Known | Meeting::Updated => Ok(()),
    }
}

fn emptied(node: NodeId, known: DiskId, shown: DiskId) -> String {
    format!(
        "node {node} was met with disk {known:032x} and shows up with disk {shown:032x}: \
         a member whose directory was emptied does not come back under its old number"
    )
}

/// Whether a later start of the caller's disk is on record.
fn is_past(own: &Identity, peer: &Hello) -> bool {
    let known = own.boots.get(&peer.disk);
    known.is_some_and(|(boot, _)| *boot > peer.boot)
}

fn shut_out(peer: &Hello) -> String {
    format!(
        "node {} was met in a later start of its disk than its boot {}: a copy of its directory was started, \
         or this is one",
        peer.node, peer.boot
    )
}

/// Judges the hello of a connection to this server; our own is the answer.
pub(super) fn welcome(shared: &Arc<Shared>, peer: &Hello) -> Result<Hello, String> {
    let own_group = shared.options.group;
    let own_node = shared.options.node;
    same_cluster(&lock(&shared.identity), peer)?;
    if let Some((group, node)) = peer.to
        && (group, node) != (own_group, own_node)
    {
        return Err(format!(
            "the caller looks for node {node} of group {group}; this is node {own_node} of \
             group {own_group}"
        ));
    }
    // A member of our own group: its disk and boot are recorded, durably, before it is heard
    // (see `on_record`).
    if peer.group == Some(own_group) && peer.node != 0 {
        if !shared.options.peers.contains_key(&peer.node) || peer.node == own_node {
            return Err(format!(
                "node {} is not another member of group {own_group}",
                peer.node
            ));
        }
        // Judged on a copy: what is not durable yet is not remembered.
        let mut judged = lock(&shared.identity).clone();
        match judged.meet(peer.node, peer.disk, peer.boot, peer.nonce, &peer.before) {
            Meeting::Known => {}
            Meeting::Refused(reason) => return Err(reason),
            Meeting::Updated => {
                if lock(&shared.identity).boots.contains_key(&peer.disk) {
                    tracing::info!(
                        group = own_group,
                        node = own_node,
                        boot = peer.boot,
                        "node {} has started again, or a copy of its directory has",
                        peer.node
                    );
                }
                let (shared, peer) = (shared.clone(), peer.clone());
                tokio::spawn(async move {
                    let saved = update(&shared, |own| {
                        own.meet(peer.node, peer.disk, peer.boot, peer.nonce, &peer.before);
                    });
                    if let Err(error) = saved.await {
                        tracing::error!(%error, "cannot record a peer");
                    }
                });
            }
        }
    }
    Ok(hello(shared, None))
}

/// True when this start of this member's disk is on record, durably: only then is it heard.
pub(super) fn on_record(shared: &Shared, peer: &Hello) -> bool {
    let own = lock(&shared.identity);
    peer.group == Some(own.group)
        && own.met.get(&peer.node) == Some(&peer.disk)
        && own.boots.get(&peer.disk) == Some(&(peer.boot, peer.nonce))
}

/// Changes the identity: durable first, then in force. A disk that fails here ends the replica.
pub(super) async fn update(
    shared: &Arc<Shared>,
    change: impl FnOnce(&mut Identity),
) -> Result<(), IdentityError> {
    let _turn = shared.saving.lock().await;
    let mut next = lock(&shared.identity).clone();
    change(&mut next);
    let disk = shared.disk.clone();
    let saved = next.clone();
    shared
        .disk
        .job(move || identity::save(&disk, &saved))
        .await
        .inspect_err(|error| shared.fail(Fatal::Other(error.to_string())))?;
    *lock(&shared.identity) = next;
    Ok(())
}

/// Answers [`Call::Meet`]: yes once this very start of the caller's disk is on record, durably. (Its
/// disk may be known from an earlier start; who takes that for an answer stops asking too early.)
pub(super) fn met(shared: &Shared, peer: &Hello, disk: DiskId) -> Answer {
    let recorded = on_record(shared, peer);
    let own = lock(&shared.identity);
    match own.met.get(&peer.node) {
        Some(known) if *known != disk => Answer::Refused(emptied(peer.node, *known, disk)),
        // Its connection is older than a later start.
        Some(_) if is_past(&own, peer) => Answer::Refused(shut_out(peer)),
        Some(_) if recorded => Answer::Met { disk: own.disk },
        _ => Answer::Refused("not recorded yet: call again".into()),
    }
}

/// Membership at birth: every initial member with the disk it was met with.
pub(super) fn initial_configuration(own: &Identity) -> Configuration {
    Configuration {
        voters: own.initial.clone(),
        ..Configuration::default()
    }
}

/// A link to every other member.
fn links(shared: &Arc<Shared>) -> impl Iterator<Item = (NodeId, Link)> {
    let own = shared.options.node;
    let others = shared.options.peers.iter();
    let others = others.filter(move |(node, _)| **node != own);
    others.map(|(node, address)| (*node, link(shared, *node, address)))
}

/// Why a peer has not put this start on record.
struct NotMet {
    why: String,
    /// It was reached, and says so.
    refused: bool,
}

/// Has a peer put this start of this disk on record; the peer's disk.
async fn ask(link: &Link, node: NodeId, disk: DiskId) -> Result<DiskId, NotMet> {
    let body = encode(&Call::Meet { disk });
    let body = match link.call(CHANNEL, body, DEADLINE).await {
        Ok(body) => body,
        Err(error) => {
            return Err(NotMet {
                refused: matches!(error, CallError::Refused { .. }),
                why: error.to_string(),
            });
        }
    };
    let (why, refused) = match decode::<Answer>(&body) {
        Ok(Answer::Met { disk }) => return Ok(disk),
        Ok(Answer::Refused(reason)) => (reason, true),
        Ok(other) => (format!("it answered {other:?}"), false),
        Err(reason) => (reason, false),
    };
    let why = format!("node {node}: {why}");
    Err(NotMet { why, refused })
}

/// Has every peer put this start on record, as soon as it can be reached, whether or not there is
/// mail for it: an older image of this disk is recognised only by those who met a later start. Asks
/// again now and then: a copy of this disk that is started elsewhere shuts this one out, and then it
/// says so. A task per peer, each to be ended with the replica.
pub(super) fn announce(shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let disk = lock(&shared.identity).disk;
    let announced = |(node, link): (NodeId, Link)| {
        let (shared, mut said) = (shared.clone(), Again::default());
        async move {
            // Until then its birth asks.
            while !lock(&shared.identity).born {
                sleep(AGAIN).await;
            }
            let mut attempts = 0u32;
            loop {
                match ask(&link, node, disk).await {
                    Ok(_) => {
                        lock(&shared.refusals).remove(&node);
                        said.over();
                        attempts = 0;
                        sleep(STILL).await;
                    }
                    Err(NotMet { why, refused }) => {
                        // Who cannot be reached says nothing, of this start either.
                        if !refused {
                            lock(&shared.refusals).remove(&node);
                            attempts = 0;
                        }
                        attempts += 1;
                        // The first answer may be that it is about to be recorded.
                        if refused && attempts > PATIENCE {
                            if said.is_due(now()) {
                                tracing::warn!(
                                    group = shared.options.group,
                                    node = shared.options.node,
                                    "a peer refuses this server: {why}"
                                );
                            }
                            lock(&shared.refusals).insert(node, why);
                        } else {
                            tracing::debug!(node, why, "this start is not on record there");
                        }
                        sleep(AGAIN).await;
                    }
                }
            }
        }
    };
    links(shared).map(announced).map(tokio::spawn).collect()
}

/// Meets every initial peer, then gives this node its vote.
pub(super) fn birth(
    shared: Arc<Shared>,
) -> impl Future<Output = Result<(), IdentityError>> + Send + 'static {
    *lock(&shared.hindrance) = Some(UNBORN.to_owned());
    meet_all(shared)
}

async fn meet_all(shared: Arc<Shared>) -> Result<(), IdentityError> {
    let own = lock(&shared.identity).clone();
    let mut members = BTreeMap::from([(own.node, own.disk)]);
    let links: BTreeMap<NodeId, _> = links(&shared).collect();
    // Said when somebody else is waited for, and again after twice as many rounds each time.
    let (mut round, mut again, mut told) = (0u64, 0u64, Vec::new());
    loop {
        round += 1;
        let mut missing = String::new();
        for (node, link) in &links {
            if members.contains_key(node) {
                continue;
            }
            let why = match ask(link, *node, own.disk).await {
                Ok(disk) => {
                    members.insert(*node, disk);
                    continue;
                }
                Err(NotMet { why, .. }) => why,
            };
            if !missing.is_empty() {
                missing.push_str("; ");
            }
            missing.push_str(&why);
        }
        if missing.is_empty() {
            break;
        }
        let news = format!("{UNBORN} ({missing})");
        let waits = links.keys().filter(|node| !members.contains_key(node));
        let waits: Vec<NodeId> = waits.copied().collect();
        // All start at about the same time: the first round says little.
        if round > 1 && (waits != told || round >= again) {
            tracing::info!(
                group = own.group,
                node = own.node,
                waits_for = ?waits,
                "not born yet: {missing}"
            );
            (told, again) = (waits, round * 2);
        }
        world::mark!("birth: it waits for a member");
        *lock(&shared.hindrance) = Some(news);
        sleep(RETRY).await;
    }
    update(&shared, |identity| {
        for (node, disk) in &members {
            if *node != identity.node {
                identity.met.insert(*node, *disk);
            }
        }
        identity.initial = members;
        identity.born = true;
    })
    .await?;
    *lock(&shared.hindrance) = None;
    tracing::info!(
        group = own.group,
        node = own.node,
        "met all initial members: may vote"
    );
    let configuration = initial_configuration(&lock(&shared.identity));
    let _ = shared
        .apply
        .send(Apply::Configuration(configuration.clone()));
    shared.tell(Internal::Born(configuration));
    Ok(())
}
