//! join, leave, move.

use super::args::{GroupSpec, Join, Leave, Move};
use super::table::{count, ranges};
use super::{Failure, Io, ask};
use crate::api::{KvStatus, Request, Response, ShardState};
use crate::client::Client;
use ctrler::config::{Group, GroupId, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use world::clock::now;

/// How often an unfinished leave or join is looked at again.
const POLL: Duration = Duration::from_millis(500);
/// Time for one member to answer while others may be asked.
const MEMBER_DEADLINE: Duration = Duration::from_secs(2);

pub(super) async fn join(
    client: &Client,
    deadline: Duration,
    args: &Join,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let mut wanted = args.groups.clone();
    let records = client.ctrlers().records(deadline).await?;
    if args.if_absent {
        wanted.retain(|spec| !records.contains_key(&spec.group));
        let known = args
            .groups
            .iter()
            .filter_map(|spec| records.get_key_value(&spec.group));
        for (group, record) in known {
            match record.left {
                None => io.done(format_args!("group {group} has joined already")),
                // Somebody wanted it gone.
                Some(left) => io.done(format_args!(
                    "group {group} left in configuration {left} and is not brought back (without \
                     --if-absent it is)"
                )),
            }
        }
        if wanted.is_empty() {
            return Ok(());
        }
    }
    let mut groups = BTreeMap::new();
    let (cluster, ..) = client.ctrlers().cluster(deadline).await?;
    for spec in &wanted {
        let group = spec.group;
        // The controllers say so too; but first its members would be waited for.
        if records.get(&group).is_some_and(|r| r.left.is_none()) {
            return Err(Failure::no(format!("group {group} is a member already")));
        }
        let found = find(spec, Some(cluster), deadline).await?;
        found.check(spec, io)?;
        let joins = Group {
            servers: spec.servers.clone(),
            birth: found.birth,
        };
        if groups.insert(group, joins).is_some() {
            return Err(Failure::no(format!("group {group} is given twice")));
        }
    }
    let joined: Vec<GroupId> = groups.keys().copied().collect();
    let num = client.ctrlers().join(groups, deadline).await?;
    io.done(format_args!(
        "{} joined in configuration {num}",
        named(&joined)
    ));
    Ok(())
}

/// Joins groups, asking again until they have joined. The answer of a join that was made may be lost,
/// and the next one is refused then: whatever the controllers have a record of by that time is done
/// (also when it left since). `question` is the time for one question; `say` hears why it takes longer.
///
/// Fails with [`exit::NO`](super::exit::NO) when the controllers refuse groups that never joined.
pub async fn join_surely(
    ctrlers: &ctrler::client::Client,
    mut groups: BTreeMap<GroupId, Group>,
    question: Duration,
    say: impl Fn(&str),
) -> Result<(), Failure> {
    while !groups.is_empty() {
        let Err(error) = ctrlers.join(groups.clone(), question).await else {
            break;
        };
        let records = loop {
            match ctrlers.records(question).await {
                Ok(records) => break records,
                Err(error) => say(&format!("waiting for the controllers: {error}")),
            }
        };
        let wanted = groups.len();
        groups.retain(|group, _| !records.contains_key(group));
        match error {
            ctrler::client::ClientError::Invalid(why) if groups.len() == wanted => {
                return Err(Failure::no(why));
            }
            ctrler::client::ClientError::Invalid(_) => {}
            error => say(&format!("waiting for the controllers: {error}")),
        }
    }
    Ok(())
}

/// What a group says of itself.
pub struct Found {
    /// Its birth id, which every member knows once the group's first entry is committed.
    pub birth: u128,
    /// Its members' addresses, as they reach each other.
    members: Vec<String>,
    /// The addresses that were given and did not answer, with the reason.
    silent: Vec<String>,
}

/// Asks the servers that are said to be a group's, all at once and again until one of them knows the
/// group's birth, or until the deadline. Any other group's among them is an error; with `cluster`,
/// servers that belong to another one are none of the group's.
pub async fn find(
    spec: &GroupSpec,
    cluster: Option<u128>,
    deadline: Duration,
) -> Result<Found, Failure> {
    let short = MEMBER_DEADLINE.min(deadline);
    let end = now() + deadline;
    loop {
        let mut questions = Vec::new();
        for server in spec.servers.clone() {
            questions.push(tokio::spawn(async move {
                let said = ask(&server, &Request::Identify, cluster, short).await;
                (server, said)
            }));
        }
        let (mut known, mut silent) = (None, Vec::new());
        for question in questions {
            let Ok((server, said)) = question.await else {
                continue;
            };
            match said {
                Ok(Response::Identity { group, .. }) if group != spec.group => {
                    return Err(Failure::no(format!(
                        "{server} is a member of group {group}, not of group {}",
                        spec.group
                    )));
                }
                Ok(Response::Identity {
                    birth: Some(birth),
                    servers,
                    ..
                }) => match &known {
                    Some((other, _)) if *other != birth => {
                        return Err(Failure::no(format!(
                            "{server} is a member of another group that has the number {}: \
                             expected the members of one",
                            spec.group
                        )));
                    }
                    _ => known = Some((birth, servers)),
                },
                Ok(Response::Identity { birth: None, .. }) => {
                    silent.push(format!(
                        "{server}: the group has not committed its first entry yet"
                    ));
                }
                Ok(other) => silent.push(format!("{server}: unexpected answer {other:?}")),
                Err(error) => silent.push(error),
            }
        }
        if let Some((birth, members)) = known {
            return Ok(Found {
                birth,
                members,
                silent,
            });
        }
        if now() >= end {
            let message = format!(
                "group {} does not answer, so it cannot join:\n  {}",
                spec.group,
                silent.join("\n  ")
            );
            return Err(Failure {
                message,
                code: super::exit::UNAVAILABLE,
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

impl Found {
    /// Whether the addresses lead to all its members. Clients and other groups learn these only: with
    /// one of three, the shards are out of reach as soon as that one is down.
    fn check(&self, spec: &GroupSpec, io: &mut Io<'_>) -> Result<(), Failure> {
        let (group, given) = (spec.group, spec.servers.len());
        let members = self.members.join(",");
        if given != self.members.len() {
            return Err(Failure::no(format!(
                "group {group} has {}, and {given} {} given: expected all of them, as in \
                 {group}={members}",
                count(self.members.len(), "member"),
                if given == 1 { "is" } else { "are" },
            )));
        }
        // Clients may reach them under other names than they reach each other.
        if spec.servers.iter().any(|at| !self.members.contains(at)) {
            io.note(format_args!(
                "warning: the members of group {group} know each other as {members}; clients are \
                 sent to {}",
                spec.servers.join(",")
            ));
        }
        for why in &self.silent {
            io.note(format_args!("warning: nothing heard from {why}"));
        }
        Ok(())
    }
}

pub(super) async fn move_shard(
    client: &Client,
    deadline: Duration,
    args: &Move,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let num = client
        .ctrlers()
        .move_shard(args.shard, args.group, deadline)
        .await?;
    io.done(format_args!(
        "shard {} belongs to group {} in configuration {num}",
        args.shard, args.group
    ));
    Ok(())
}

pub(super) async fn leave(
    client: &Client,
    deadline: Duration,
    args: &Leave,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let ctrlers = client.ctrlers();
    let groups: BTreeSet<GroupId> = args.groups.iter().copied().collect();
    // A leave that was broken off, or whose answer was lost: what is left to do is to wait.
    let mut members = Vec::new();
    for group in &groups {
        match ctrlers.record(*group, deadline).await? {
            Some(Record {
                left: Some(left), ..
            }) => io.done(format_args!(
                "group {group} has left in configuration {left}"
            )),
            Some(_) => members.push(*group),
            // The controllers keep the record of every group that ever joined.
            None => return Err(Failure::no(format!("group {group} is not a member"))),
        }
    }
    if !members.is_empty() {
        let before = ctrlers.query(None, deadline).await?;
        if !before.groups.is_empty() && before.groups.keys().all(|g| members.contains(g)) {
            if !args.last {
                return Err(Failure::no(format!(
                    "no group would remain after {}, and no shard would be served: expected --last \
                     with it, if that is meant, or a join of another group before",
                    named(&members)
                )));
            }
            io.note(
                "warning: no group remains. Nothing is lost: the shards stay where they are and \
                 are served by nobody, until another group joins and takes them. Until then this \
                 leave cannot complete, and the groups must not be shut down for good.",
            );
        }
        let num = ctrlers.leave(members, deadline).await?;
        io.done(format_args!("left in configuration {num}"));
    }
    if args.no_wait {
        io.note("not waiting: `kvctl status` shows when the groups hold nothing any more");
        return Ok(());
    }
    let end = args.wait.map(|secs| now() + Duration::from_secs(secs));
    let mut waiting: Vec<GroupId> = groups.into_iter().collect();
    let mut said = BTreeMap::new();
    while !waiting.is_empty() {
        let mut still = Vec::new();
        for group in waiting {
            let why = match ctrlers.record(group, deadline).await {
                Ok(Some(record)) if complete(&record) => {
                    io.done(format_args!(
                        "group {group} holds nothing any more and may be shut down"
                    ));
                    continue;
                }
                Ok(Some(Record { left: None, .. })) => {
                    return Err(Failure::no(format!(
                        "group {group} has joined again meanwhile: it is a member, and must not \
                         be shut down"
                    )));
                }
                Ok(Some(record)) => owes(group, &record).await,
                Ok(None) => return Err(Failure::no(format!("group {group} is not a member"))),
                Err(error) => error.to_string(),
            };
            if said.get(&group) != Some(&why) {
                io.note(format_args!("waiting for group {group}: {why}"));
                said.insert(group, why);
            }
            still.push(group);
        }
        waiting = still;
        if waiting.is_empty() {
            break;
        }
        if end.is_some_and(|end| now() >= end) {
            return Err(Failure::no(format!(
                "{} left and must not be shut down yet; the same command waits on",
                named(&waiting)
            )));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// "group 2", "groups 2, 5".
fn named(groups: &[GroupId]) -> String {
    let names: Vec<String> = groups.iter().map(GroupId::to_string).collect();
    let s = if names.len() == 1 { "" } else { "s" };
    format!("group{s} {}", names.join(", "))
}

/// A group that left may be shut down when the controllers have committed that it settled the
/// configuration in which it left, or a later one, and that it held no shard then.
pub fn complete(record: &Record) -> bool {
    record.left.is_some_and(|left| record.settled >= left) && !record.holds
}

/// What a group that leaves still has to do, as far as it says.
async fn owes(group: GroupId, record: &Record) -> String {
    let Some(status) = leader_status(&record.group.servers, MEMBER_DEADLINE).await else {
        return format!(
            "no member answers ({}); it goes on when a majority of them runs again",
            record.group.servers.join(", ")
        );
    };
    let left = record.left.unwrap_or(record.settled);
    let mut parts = Vec::new();
    if status.config < left {
        parts.push(format!(
            "it is in configuration {} of {left}",
            status.config
        ));
    }
    let mut by_fate: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for shard in &status.shards {
        let peer = shard
            .peer
            .map_or("another group".into(), |peer| format!("group {peer}"));
        let fate = match shard.state {
            ShardState::Absent => continue,
            ShardState::Serving => "served here still".into(),
            ShardState::Arriving => format!("arriving from {peer}"),
            ShardState::Leaving if shard.frozen => format!("being copied to {peer}"),
            ShardState::Leaving => format!("waiting for {peer} to fetch"),
            ShardState::Held => "held until another group joins and takes them".into(),
        };
        by_fate.entry(fate).or_default().push(shard.shard);
    }
    for (fate, shards) in by_fate {
        let s = if shards.len() == 1 { "" } else { "s" };
        parts.push(format!("shard{s} {} {fate}", ranges(shards)));
    }
    if parts.is_empty() {
        parts.push(format!(
            "the controllers have yet to hear from group {group} that it is done"
        ));
    }
    parts.join("; ")
}

/// The status page of the group's leader, or of any member that answers.
pub async fn leader_status(servers: &[String], deadline: Duration) -> Option<KvStatus> {
    let mut best: Option<KvStatus> = None;
    for server in servers {
        if let Ok(Response::Status(status)) = ask(server, &Request::Status, None, deadline).await {
            if status.replica.leader == Some(status.replica.node) {
                return Some(*status);
            }
            if best
                .as_ref()
                .is_none_or(|b| b.replica.applied < status.replica.applied)
            {
                best = Some(*status);
            }
        }
    }
    best
}
