//! Other groups: where they are, and calls to them.

use super::wire::{Answer, Ask, MAX_SHARDS, Party, What};
use crate::api::GROUP_CHANNEL;
use ctrler::client::Client;
use ctrler::config::{ConfigNum, GroupId, Record};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use world::clock::{Instant, now};
use world::net::{Hello, Limits, Link};

/// A record is looked up again when it is older.
const FRESH: Duration = Duration::from_secs(2);
/// Time for one answer of the controllers.
const LOOKUP: Duration = Duration::from_secs(3);
/// Time for one answer of another group's member.
const CALL: Duration = Duration::from_secs(2);
/// Links kept; at the limit the one goes that was not used for longest, and is made again on demand.
/// [`world::net::OTHER_FILES`] has room for as many.
const MAX_LINKS: usize = 64;

/// What a call is about: rows travel on connections of their own, so that they delay nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Questions and notices.
    Talk,
    /// Rows.
    Bulk,
}

/// The other groups.
pub struct Peers {
    ctrlers: Client,
    limits: Limits,
    hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// When it was looked up last; `None`: to be looked up again.
    records: BTreeMap<GroupId, (Option<Instant>, Record)>,
    /// Each with the number of its last use.
    links: BTreeMap<(GroupId, String, Lane), (u64, Link)>,
    uses: u64,
    /// Who answered last.
    good: BTreeMap<GroupId, String>,
}

impl Peers {
    /// Groups looked up at these controllers.
    pub fn new(
        ctrlers: Client,
        limits: Limits,
        hello: Arc<dyn Fn() -> Hello + Send + Sync>,
    ) -> Peers {
        Peers {
            ctrlers,
            limits,
            hello,
            known: Mutex::new(Known::default()),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The controllers' newest record of a group (`fresh`: as of now).
    pub async fn record(&self, group: GroupId, fresh: bool) -> Result<Record, String> {
        if !fresh
            && let Some((Some(at), record)) = self.known().records.get(&group)
            && at.elapsed() < FRESH
        {
            return Ok(record.clone());
        }
        match self.ctrlers.record(group, LOOKUP).await {
            Ok(Some(record)) => {
                let known = (Some(now()), record.clone());
                self.known().records.insert(group, known);
                Ok(record)
            }
            Ok(None) => Err(format!("group {group} is not known to the controllers")),
            // A shard under way is not held up by controllers that are down: the old addresses
            // are tried, for a while without asking again.
            Err(error) => match self.known().records.get_mut(&group) {
                Some((at, record)) if !fresh => {
                    *at = Some(now());
                    Ok(record.clone())
                }
                _ => Err(error.to_string()),
            },
        }
    }

    fn link(&self, group: GroupId, server: &str, lane: Lane) -> Link {
        let mut known = self.known();
        let key = (group, server.to_owned(), lane);
        if known.links.len() >= MAX_LINKS && !known.links.contains_key(&key) {
            let oldest = known.links.iter().min_by_key(|(_, (used, _))| *used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                known.links.remove(&oldest);
            }
        }
        known.uses += 1;
        let uses = known.uses;
        let (used, link) = known.links.entry(key).or_insert_with(|| {
            let check = move |peer: &Hello| match peer.group {
                Some(there) if there == group => Ok(()),
                there => Err(format!(
                    "expected a member of group {group}, found {there:?}"
                )),
            };
            let (limits, hello) = (self.limits.clone(), self.hello.clone());
            let link = Link::new(server, limits, hello, Arc::new(check));
            (uses, link)
        });
        *used = uses;
        link.clone()
    }

    /// Asks a group: its members in turn, the one that answered last first, following hints to
    /// its leader. Bound to the birth id that the controllers have of it.
    pub async fn ask(
        &self,
        from: Party,
        group: GroupId,
        num: ConfigNum,
        what: What,
    ) -> Result<Answer, String> {
        let lane = if matches!(what, What::Pull { .. }) {
            Lane::Bulk
        } else {
            Lane::Talk
        };
        let record = self.record(group, false).await?;
        let to = Party {
            group,
            birth: record.group.birth,
        };
        let body = Ask {
            from,
            to,
            num,
            what,
        }
        .to_bytes();
        let mut servers = record.group.servers;
        let good = self.known().good.get(&group).cloned();
        if let Some(place) = servers.iter().position(|s| Some(s) == good.as_ref()) {
            servers.rotate_left(place);
        }
        let mut asked = 0;
        let mut reason = format!("group {group} has no servers");
        let mut next = 0;
        // A hint is followed at once, but never more often than there are members twice over.
        while asked < 2 * servers.len() && next < servers.len() {
            let server = servers[next].clone();
            asked += 1;
            let link = self.link(group, &server, lane);
            let answer = link.call(GROUP_CHANNEL, body.clone(), CALL).await;
            match answer.map(|bytes| Answer::from_bytes(&bytes)) {
                Ok(Answer::NotLeader(hint)) => {
                    reason = format!("{server} does not lead group {group}");
                    let hinted = hint
                        .and_then(|hint| servers.iter().skip(next + 1).position(|s| *s == hint));
                    // Bring the hinted one forward; without a hint the next one is asked.
                    if let Some(place) = hinted {
                        servers.swap(next + 1, next + 1 + place);
                    }
                }
                Ok(answer) => {
                    self.known().good.insert(group, server);
                    return Ok(answer);
                }
                Err(error) => reason = error.to_string(),
            }
            next += 1;
        }
        let mut known = self.known();
        // Where it is may be news to us. Kept all the same: the controllers may be down.
        if let Some((at, _)) = known.records.get_mut(&group) {
            *at = None;
        }
        known.good.remove(&group);
        Err(reason)
    }
}

/// The first shards of a list, as many as one question names.
pub fn bounded(mut shards: Vec<u32>) -> Vec<u32> {
    shards.truncate(MAX_SHARDS);
    shards
}
