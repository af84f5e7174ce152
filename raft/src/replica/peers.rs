//! Connections to the other members: one for consensus mail, one for bulk.

use super::CHANNEL;
use super::meet;
use super::shared::Shared;
use super::told;
use super::wire::encode_mail;
use raft_protocol::{Envelope, Message, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use world::net::{Hello, Link, PROTOCOL, common_protocol};
use world::observe;

/// Messages to one peer are put into one mail up to about this many bytes.
const MAIL_BYTES: usize = 1 << 20;

pub(super) struct Peers {
    shared: Arc<Shared>,
    peers: BTreeMap<NodeId, Peer>,
}

struct Peer {
    mail: Link,
    bulk: Link,
    outbox: Vec<Message>,
    outbox_bytes: usize,
}

/// A link to another member of the group.
pub(super) fn link(shared: &Arc<Shared>, to: NodeId, address: &str) -> Link {
    let group = shared.options.group;
    let introduce = shared.clone();
    let judge = shared.clone();
    Link::new(
        address,
        shared.options.limits.clone(),
        Arc::new(move || meet::hello(&introduce, Some((group, to)))),
        Arc::new(move |hello: &Hello| meet::check(&judge, to, hello)),
    )
}

impl Peers {
    pub(super) fn new(shared: Arc<Shared>) -> Peers {
        let own = shared.options.node;
        let peers = shared
            .options
            .peers
            .iter()
            .filter(|(node, _)| **node != own);
        let peers = peers
            .map(|(node, address)| {
                let mail = link(&shared, *node, address);
                // Followers have nothing to say to each other until their leader is dead. What they
                // say then must not get lost, so every pair of members keeps a connection.
                mail.keep();
                let peer = Peer {
                    mail,
                    bulk: link(&shared, *node, address),
                    outbox: Vec::new(),
                    outbox_bytes: 0,
                };
                (*node, peer)
            })
            .collect();
        Peers { shared, peers }
    }

    pub(super) fn bulk(&self, to: NodeId) -> Option<Link> {
        self.peers.get(&to).map(|peer| peer.bulk.clone())
    }

    /// Gathers a message; it leaves with [`Peers::flush`].
    pub(super) fn push(&mut self, envelope: Envelope) {
        let Some(peer) = self.peers.get_mut(&envelope.to) else {
            return;
        };
        told::promise(self.shared.site, envelope.to, &envelope.message);
        let bytes = envelope.message.size();
        if peer.outbox_bytes > 0 && peer.outbox_bytes + bytes > MAIL_BYTES {
            send(&self.shared, envelope.to, peer);
        }
        peer.outbox_bytes += bytes;
        peer.outbox.push(envelope.message);
    }

    /// Sends what was gathered: one mail per peer.
    pub(super) fn flush(&mut self) {
        for (to, peer) in &mut self.peers {
            if !peer.outbox.is_empty() {
                send(&self.shared, *to, peer);
            }
        }
    }
}

/// Mail that does not fit the connection's queue is dropped: consensus repeats what matters.
fn send(shared: &Shared, to: NodeId, peer: &mut Peer) {
    peer.outbox_bytes = 0;
    let messages = std::mem::take(&mut peer.outbox);
    let count = messages.len() as u64;
    // Whoever has not introduced itself gets nothing anyway.
    let theirs = peer.mail.peer_protocol().unwrap_or(PROTOCOL);
    let spoken = common_protocol(shared.options.protocol, theirs).unwrap_or(PROTOCOL.0);
    let room = shared.room();
    let queued = peer
        .mail
        .mail(CHANNEL, encode_mail(&messages, room, spoken));
    observe(
        shared.site,
        "send",
        &[("to", to), ("messages", count), ("queued", queued.into())],
    );
}
