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
use world::clock::sleep;
use world::net::{Hello, Link};

/// Between two rounds of asking peers that have not answered.
const RETRY: Duration = Duration::from_millis(200);
/// The same when only a start is told.
const AGAIN: Duration = Duration::from_secs(1);
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

/// Has a peer put this start of this disk on record; the peer's disk. Errors say why it did not.
async fn ask(link: &Link, node: NodeId, disk: DiskId) -> Result<DiskId, String> {
    let body = encode(&Call::Meet { disk });
    let body = link.call(CHANNEL, body, DEADLINE).await;
    match decode::<Answer>(&body.map_err(|error| error.to_string())?) {
        Ok(Answer::Met { disk }) => Ok(disk),
        Ok(Answer::Refused(reason)) => Err(format!("node {node}: {reason}")),
        Ok(other) => Err(format!("node {node} answered {other:?}")),
        Err(reason) => Err(format!("node {node}: {reason}")),
    }
}

/// Has every peer put this start on record, as soon as it can be reached, whether or not there is
/// mail for it: an older image of this disk is recognised only by those who met a later start.
/// A task per peer, each to be ended with the replica.
pub(super) fn announce(shared: &Arc<Shared>) -> Vec<JoinHandle<()>> {
    let disk = lock(&shared.identity).disk;
    let announced = |(node, link): (NodeId, Link)| async move {
        while let Err(why) = ask(&link, node, disk).await {
            tracing::debug!(node, why, "this start is not on record there");
            sleep(AGAIN).await;
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
                Err(why) => why,
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
