//! The vocabulary: terms, indices, entries, hard state, configuration.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A member of the group. 0 is not a node.
pub type NodeId = u64;
/// A Raft term; 0 before the first election.
pub type Term = u64;
/// A position in the log; the first entry has index 1.
pub type Index = u64;
/// A term or an index above this is none that a working member could have come to, counting by
/// ones: what states one is malformed, and is ignored. So what is counted on from a number that
/// came from outside does not overflow.
pub const MAX_NUMBER: u64 = u64::MAX / 2;
/// The random identity of a data directory ; membership is the pair of node and disk.
pub type DiskId = u128;

/// An opaque command. Cheap to clone; the core never looks inside.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payload(pub Arc<[u8]>);

impl Payload {
    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// True when there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}B", self.0.len())
    }
}

impl<T: AsRef<[u8]>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        Payload(Arc::from(bytes.as_ref()))
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl serde::de::Visitor<'_> for Bytes {
            type Value = Payload;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: serde::de::Error>(self, v: &[u8]) -> Result<Payload, E> {
                Ok(Payload::from(v))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// Who votes. Quorums are computed from it and nothing else; it travels as a value in the log
/// and in snapshots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Configuration {
    /// Voting members and the disk each was admitted with.
    pub voters: BTreeMap<NodeId, DiskId>,
    /// The outgoing voters while the configuration is joint (§6); empty otherwise.
    pub outgoing: BTreeMap<NodeId, DiskId>,
    /// Members that receive entries and do not count.
    pub learners: BTreeMap<NodeId, DiskId>,
}

impl Configuration {
    /// True when `nodes` hold a majority of the voters, and of the outgoing ones while joint.
    pub fn is_quorum(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let majority = |members: &BTreeMap<NodeId, DiskId>| {
            members.is_empty()
                || members.keys().filter(|n| nodes.contains(n)).count() > members.len() / 2
        };
        !self.voters.is_empty() && majority(&self.voters) && majority(&self.outgoing)
    }
}

/// What an entry carries.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Body {
    /// The first entry of a leader's term (§8; thesis §6.4).
    Noop,
    /// An opaque command of the state machine.
    Command(Payload),
    /// A membership in force from the moment it is in the log (§6).
    Configuration(Configuration),
}

/// One entry of the log.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// The term of the leader that made it.
    pub term: Term,
    /// Its position.
    pub index: Index,
    /// Its contents.
    pub body: Body,
}

impl Entry {
    /// Bytes that count against limits: the payload and a fixed 32 for the rest.
    pub fn size(&self) -> usize {
        32 + match &self.body {
            Body::Noop => 0,
            Body::Command(p) => p.len(),
            Body::Configuration(c) => 24 * (c.voters.len() + c.outgoing.len() + c.learners.len()),
        }
    }
}

/// A node that lost synced entries neither votes nor campaigns until its synced log matches a
/// leader of term T: T > `term` through an entry of term T, or T = `term` through `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Abstain {
    /// The last term this node is known to have had (T0).
    pub term: Term,
    /// The last index this node's log is known to have had (R).
    pub index: Index,
}

/// What must survive a crash besides the log (§5, figure 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// The latest term seen.
    pub term: Term,
    /// The candidate voted for in that term.
    pub vote: Option<NodeId>,
    /// Set while the node abstains after damage.
    pub abstain: Option<Abstain>,
}

/// What the node is at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Role {
    /// Follows a leader or waits for one.
    Follower,
    /// Asks whether an election could be won (thesis §9.6).
    PreCandidate,
    /// Stands for election.
    Candidate,
    /// Leads its term.
    Leader,
}
