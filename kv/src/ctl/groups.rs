//! join, move, and what is asked of groups.

use super::args::{GroupSpec, Join, Move, Unpin};
use super::table::count;
use super::{Failure, Io, ask};
use crate::api::{KvStatus, Request, Response};
use crate::client::Client;
use ctrler::config::{Group, GroupId, Record};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use world::clock::now;

/// How often an unfinished leave or join is looked at again.
pub(super) const POLL: Duration = Duration::from_millis(500);
/// Time for one member to answer while others may be asked.
pub(super) const MEMBER_DEADLINE: Duration = Duration::from_secs(2);

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
        if let Some(record) = records.get(&group).filter(|r| r.left.is_none()) {
            refresh(client, deadline, spec, record, cluster, io).await?;
            continue;
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
    if joined.is_empty() {
        return Ok(());
    }
    let num = client.ctrlers().join(groups, deadline).await?;
    match args.json.json {
        true => io.done(json!({ "joined": joined, "config": num })),
        false => io.done(format_args!(
            "{} joined in configuration {num}",
            named(&joined)
        )),
    }
    Ok(())
}

/// A member's addresses as given, where they lead to the same group (by its birth) and are not those
/// that the controllers have: its members were moved, all of them perhaps. No configuration is made.
async fn refresh(
    client: &Client,
    deadline: Duration,
    spec: &GroupSpec,
    record: &Record,
    cluster: u128,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let group = spec.group;
    let known: BTreeSet<&String> = record.group.servers.iter().collect();
    let given: BTreeSet<&String> = spec.servers.iter().collect();
    if known == given {
        return Err(Failure::no(format!("group {group} is a member already")));
    }
    // Who is no member of it is told so at once, and nobody is waited for.
    let found = match find(spec, Some(cluster), MEMBER_DEADLINE.min(deadline)).await {
        Err(Failure { code, message }) if code == super::exit::UNAVAILABLE => {
            return Err(Failure::no(format!(
                "group {group} is a member already, and what is given as its new addresses does not \
                 answer: {message}"
            )));
        }
        found => found?,
    };
    if found.birth != record.group.birth {
        return Err(Failure::no(format!(
            "group {group} is a member already, and {} belong to another group that has its number",
            spec.servers.join(",")
        )));
    }
    found.check(spec, io)?;
    let info = Group {
        servers: spec.servers.clone(),
        birth: found.birth,
    };
    // What the record says besides is repeated; where the group has reported more meanwhile, this
    // counts for nothing, and its report had its addresses.
    let report = client
        .ctrlers()
        .settled(group, info, record.settled, record.holds, deadline);
    report.await?;
    io.done(format_args!(
        "group {group} is a member already; it is now reached at {}",
        spec.servers.join(",")
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
    match args.json.json {
        true => io.done(json!({ "shard": args.shard, "group": args.group, "config": num })),
        false => io.done(format_args!(
            "shard {} belongs to group {} in configuration {num}, and stays there",
            args.shard, args.group
        )),
    }
    Ok(())
}

pub(super) async fn unpin(
    client: &Client,
    deadline: Duration,
    args: &Unpin,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let num = client.ctrlers().unpin(args.shard, deadline).await?;
    match args.json.json {
        true => io.done(json!({ "shard": args.shard, "config": num })),
        false => io.done(format_args!(
            "shard {} is not pinned in configuration {num}: joins and leaves may move it",
            args.shard
        )),
    }
    Ok(())
}

/// "group 2", "groups 2, 5".
pub(super) fn named(groups: &[GroupId]) -> String {
    let names: Vec<String> = groups.iter().map(GroupId::to_string).collect();
    let s = if names.len() == 1 { "" } else { "s" };
    format!("group{s} {}", names.join(", "))
}

/// A group that left may be shut down when the controllers have committed that it settled the
/// configuration in which it left, or a later one, and that it held no shard then.
pub fn complete(record: &Record) -> bool {
    record.left.is_some_and(|left| record.settled >= left) && !record.holds
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
