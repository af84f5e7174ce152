//! What one run of the campaign leaves behind: enough to draw it, and to compare it with another.

use super::plan::{Event, Plan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A whole run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Which test this is a run of.
    pub test: String,
    /// Its plan: seed, drawn options, faults.
    pub plan: Plan,
    /// The servers, in the order of their lanes.
    pub servers: Vec<Server>,
    /// What the faults came to: whom they hit.
    pub bands: Vec<Band>,
    /// What the servers told, in the order of time.
    pub points: Vec<Point>,
    /// What the clients did.
    pub operations: Vec<Operation>,
    /// When faults ended and recovery began (µs of simulated time).
    pub healed_us: Option<u64>,
    /// When the run ended (µs of simulated time).
    pub end_us: u64,
    /// What was violated; `None`: the run held.
    pub violation: Option<Violation>,
    /// Figures of the run.
    pub summary: Summary,
}

/// A server.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Server {
    /// Replica group; 0 is the controllers'.
    pub group: u64,
    /// Member of the group.
    pub node: u64,
    /// For people.
    pub name: String,
}

/// A fault as it was carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Band {
    /// From (µs).
    pub from_us: u64,
    /// To (µs); equal to `from_us` for what happens at one moment.
    pub to_us: u64,
    /// The family: see [`super::fault::Fault::family`].
    pub family: String,
    /// Whom it hit: (group, node); empty: everybody.
    pub servers: Vec<(u64, u64)>,
    /// For people.
    pub text: String,
    /// Its place in the plan's list of events.
    pub event: usize,
    /// It came to something: there was a server to hit, the moment came, the disk failed.
    #[serde(default)]
    pub effective: bool,
}

/// Something a server told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// When (µs).
    pub at_us: u64,
    /// Replica group.
    pub group: u64,
    /// Member.
    pub node: u64,
    /// What: "role", "commit", "apply", "start", "ownership", …
    pub kind: String,
    /// Named numbers.
    pub fields: Vec<(String, u64)>,
}

/// A client's operation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Which client.
    pub client: u64,
    /// On which key.
    pub key: String,
    /// Its shard.
    pub shard: u64,
    /// For people: "put v1".
    pub call: String,
    /// When it was called (µs).
    pub called_us: u64,
    /// When it was answered (µs); `None`: never, its outcome is unknown.
    pub returned_us: Option<u64>,
    /// For people.
    pub answer: String,
    /// Part of the violation.
    pub violating: bool,
}

/// What did not hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When it was noticed (µs).
    pub at_us: u64,
    /// Which invariant, "I8"; "?" when the message does not say.
    pub invariant: String,
    /// The message.
    pub message: String,
}

/// Figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Simulated seconds.
    pub simulated_seconds: f64,
    /// Client operations called.
    pub operations: u64,
    /// Of them answered.
    pub answered: u64,
    /// Events the servers told of.
    pub events: u64,
    /// Digest of all of them: the same seed gives the same.
    pub digest: u64,
    /// How often each family of faults was carried out.
    pub faults: BTreeMap<String, u64>,
    /// How often of these it came to something.
    #[serde(default)]
    pub effective: BTreeMap<String, u64>,
    /// How often each coverage mark was hit.
    pub marks: BTreeMap<String, u64>,
}

impl Record {
    /// The event of the plan that a band carried out.
    pub fn event(&self, band: &Band) -> Option<&Event> {
        self.plan.events.get(band.event)
    }
}
