//! Looking at single servers of a cluster, without the clients' routing and retries.

use super::kv_cluster::{KvCluster, address, hello};
use super::nodes::eventually;
use bytes::Bytes;
use ctrler::config::GroupId;
use kv::api;
use kv::mover::wire::{Answer, Ask};
use raft::protocol::Role;
use raft::replica::ReplicaStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use world::net::{Hello, Limits, Link};

/// For a question about the state.
const SHORT: Duration = Duration::from_secs(1);
/// For something that must come about.
const LONG: Duration = Duration::from_secs(60);

impl KvCluster {
    async fn call(
        &self,
        group: GroupId,
        node: u64,
        channel: u8,
        body: Vec<u8>,
        limit: Duration,
    ) -> Option<Bytes> {
        let (_, target) = address(group, node);
        let task = async move {
            let link = Link::new(
                target,
                Limits::default(),
                Arc::new(hello),
                Arc::new(|_: &Hello| Ok(())),
            );
            link.call(channel, body.into(), limit).await.ok()
        };
        self.nodes.at_desk(task).await
    }

    /// Asks one kv server, once; `None`: no answer in time.
    pub async fn ask(
        &self,
        group: GroupId,
        node: u64,
        request: &api::Request,
        limit: Duration,
    ) -> Option<api::Response> {
        let body = postcard::to_allocvec(request).expect("encodes");
        let reply = self.call(group, node, api::CHANNEL, body, limit).await?;
        Some(postcard::from_bytes(&reply).expect("a kv server answers in its own language"))
    }

    /// Asks one kv server what groups ask each other, once, as anybody can; `None`: no answer in time.
    pub async fn ask_as_a_group(&self, group: GroupId, node: u64, ask: &Ask) -> Option<Answer> {
        let body = ask.to_bytes().to_vec();
        let reply = self
            .call(group, node, api::GROUP_CHANNEL, body, SHORT)
            .await?;
        Some(Answer::from_bytes(&reply))
    }

    /// Asks one controller, once; `None`: no answer in time.
    pub async fn ask_controller(
        &self,
        node: u64,
        request: &ctrler::api::Request,
        limit: Duration,
    ) -> Option<ctrler::api::Response> {
        let body = postcard::to_allocvec(request).expect("encodes");
        let reply = self
            .call(0, node, ctrler::api::CHANNEL, body, limit)
            .await?;
        Some(postcard::from_bytes(&reply).expect("a controller answers in its own language"))
    }

    /// Status page of one kv server, if it answers.
    pub async fn status(&self, group: GroupId, node: u64) -> Option<api::KvStatus> {
        match self.ask(group, node, &api::Request::Status, SHORT).await {
            Some(api::Response::Status(status)) => Some(*status),
            _ => None,
        }
    }

    /// The replica of one server, a controller's too, if it answers.
    pub async fn replica(&self, group: GroupId, node: u64) -> Option<ReplicaStatus> {
        if group > 0 {
            return self.status(group, node).await.map(|page| page.replica);
        }
        match self
            .ask_controller(node, &ctrler::api::Request::Status, SHORT)
            .await
        {
            Some(ctrler::api::Response::Status(status)) => Some(status),
            _ => None,
        }
    }

    /// The node that leads a group (0: the controllers), as its members tell: the one of the
    /// highest term, when several say so.
    pub async fn leader(&self, group: GroupId) -> u64 {
        let since = world::clock::now();
        loop {
            let mut found = None;
            for node in self.members(group) {
                if self.nodes.is_up(self.key(group, node))
                    && let Some(status) = self.replica(group, node).await
                    && status.role == Role::Leader
                {
                    found = found.max(Some((status.term, node)));
                }
            }
            if let Some((_, node)) = found {
                return node;
            }
            assert!(since.elapsed() < LONG, "group {group} has no leader");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until all members of a group have applied the same and have the same state.
    pub async fn agreed(&self, group: GroupId) {
        eventually("the members agree", LONG, || async move {
            let mut states = Vec::new();
            for node in self.members(group) {
                states.push(
                    self.replica(group, node)
                        .await
                        .map(|r| (r.applied, r.digest)),
                );
            }
            states[0].is_some() && states.iter().all(|state| *state == states[0])
        })
        .await;
    }

    /// Waits until no group has anything left of shards that moved away.
    pub async fn swept(&self, groups: &[GroupId]) {
        for group in groups {
            eventually("moved shards are swept", LONG, || async move {
                for node in self.members(*group) {
                    match self.status(*group, node).await {
                        Some(page) if page.sweeping == 0 => {}
                        _ => return false,
                    }
                }
                true
            })
            .await;
        }
    }
}
