//! status: what every member of every group says of itself.

use super::args::Status;
use super::table::{Table, count, ranges, size};
use super::{Failure, Io, ask, query};
use crate::api::{KvStatus, Request, Response, ShardState, ShardStatus};
use crate::client::Client;
use ctrler::config::{Config, GroupId, Record};
use raft::replica::ReplicaStatus;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Time for one member to answer.
const MEMBER_DEADLINE: Duration = Duration::from_secs(2);

/// What a member says, or why it says nothing.
type Said<T> = (String, Result<T, String>);

struct Picture {
    ctrlers: Vec<Said<ReplicaStatus>>,
    /// The latest configuration, or why it is not known.
    config: Result<Config, String>,
    records: BTreeMap<GroupId, Record>,
    groups: BTreeMap<GroupId, Vec<Said<KvStatus>>>,
}

pub(super) async fn status(
    client: &Client,
    deadline: Duration,
    args: &Status,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let picture = look(client, deadline).await;
    if args.json {
        writeln!(io.out, "{:#}", to_json(&picture))?;
    } else {
        print(&picture, io)?;
    }
    match &picture.config {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = format!("the configuration is not known: {error}");
            Err(Failure {
                message,
                code: super::exit::UNAVAILABLE,
            })
        }
    }
}

async fn look(client: &Client, deadline: Duration) -> Picture {
    let short = MEMBER_DEADLINE.min(deadline);
    let (ctrlers, config, records) = tokio::join!(
        client.ctrlers().status(short),
        client.ctrlers().query(None, deadline),
        client.ctrlers().records(deadline),
    );
    let config = config.map_err(|error| error.to_string());
    let records = records.unwrap_or_default();
    let mut asked: BTreeMap<GroupId, Vec<String>> = BTreeMap::new();
    if let Ok(config) = &config {
        for (group, info) in &config.groups {
            asked.insert(*group, info.servers.clone());
        }
        // A group that left is of interest until it may be shut down.
        for (group, record) in &records {
            if record.left.is_some() && !super::groups::complete(record) {
                asked
                    .entry(*group)
                    .or_insert_with(|| record.group.servers.clone());
            }
        }
    }
    // All at once: an unreachable member costs its deadline only once.
    let mut questions = Vec::new();
    for (group, servers) in asked {
        for server in servers {
            let question = tokio::spawn(async move {
                match ask(&server, &Request::Status, None, short).await {
                    Ok(Response::Status(status)) => (server, Ok(*status)),
                    Ok(other) => (server, Err(format!("unexpected answer {other:?}"))),
                    Err(error) => (server, Err(error)),
                }
            });
            questions.push((group, question));
        }
    }
    let mut groups: BTreeMap<GroupId, Vec<Said<KvStatus>>> = BTreeMap::new();
    for (group, question) in questions {
        if let Ok(said) = question.await {
            groups.entry(group).or_default().push(said);
        }
    }
    Picture {
        ctrlers,
        config,
        records,
        groups,
    }
}

/// The page that speaks for a group: its leader's, else that of the member that applied most.
fn spokesman(members: &[Said<KvStatus>]) -> Option<&KvStatus> {
    let pages = || members.iter().filter_map(|(_, page)| page.as_ref().ok());
    let leads = |page: &&KvStatus| page.replica.leader == Some(page.replica.node);
    pages()
        .filter(leads)
        .max_by_key(|p| p.replica.term)
        .or(pages().max_by_key(|p| p.replica.applied))
}

fn print(picture: &Picture, io: &mut Io<'_>) -> std::io::Result<()> {
    if let Ok(config) = &picture.config {
        let groups = count(config.groups.len(), "group");
        writeln!(
            io.out,
            "configuration {}: {}, {groups}",
            config.num,
            count(config.shards.len(), "shard")
        )?;
        let nobody: Vec<u32> = query::owned(config, None).collect();
        if !nobody.is_empty() {
            writeln!(io.out, "  shards without an owner: {}", ranges(nobody))?;
        }
    }
    writeln!(io.out, "\ncontrollers")?;
    let pages: Vec<Said<&ReplicaStatus>> = picture
        .ctrlers
        .iter()
        .map(|(at, page)| (at.clone(), page.as_ref().map_err(Clone::clone)))
        .collect();
    print_members(&pages, io)?;
    for (group, members) in &picture.groups {
        print_group(*group, members, picture, io)?;
    }
    Ok(())
}

fn print_group(
    group: GroupId,
    members: &[Said<KvStatus>],
    picture: &Picture,
    io: &mut Io<'_>,
) -> std::io::Result<()> {
    write!(io.out, "\ngroup {group}")?;
    let spokesman = spokesman(members);
    if let Some(page) = spokesman {
        write!(io.out, "  in configuration {}", page.config)?;
    }
    if let Some(record) = picture.records.get(&group) {
        write!(io.out, ", settled through {}", record.settled)?;
        if let Some(left) = record.left {
            write!(io.out, ", left in {left} and not done yet")?;
        }
    }
    writeln!(io.out)?;
    let pages: Vec<Said<&ReplicaStatus>> = members
        .iter()
        .map(|(at, page)| {
            (
                at.clone(),
                page.as_ref().map(|p| &p.replica).map_err(Clone::clone),
            )
        })
        .collect();
    print_members(&pages, io)?;
    let Some(page) = spokesman else {
        return writeln!(io.out, "  no member answers: its shards are not served");
    };
    // Shards in the same state are one line.
    let mut states: BTreeMap<String, Vec<&ShardStatus>> = BTreeMap::new();
    for shard in page.shards.iter().filter(|s| s.state != ShardState::Absent) {
        states.entry(describe(shard)).or_default().push(shard);
    }
    for (state, shards) in states {
        let keys: u64 = shards.iter().map(|s| s.keys).sum();
        let bytes: u64 = shards.iter().map(|s| s.bytes).sum();
        let list = ranges(shards.iter().map(|s| s.shard));
        let s = if shards.len() == 1 { "" } else { "s" };
        writeln!(
            io.out,
            "  shard{s} {list}: {state}, {keys} keys, {}",
            size(bytes)
        )?;
    }
    if page.sweeping > 0 {
        writeln!(
            io.out,
            "  {} of shards given away still to be swept",
            size(page.sweeping)
        )?;
    }
    Ok(())
}

fn describe(shard: &ShardStatus) -> String {
    let peer = shard
        .peer
        .map_or("another group".into(), |peer| format!("group {peer}"));
    let since = shard.incarnation;
    match shard.state {
        ShardState::Absent => "absent".into(),
        ShardState::Serving => format!("serving since configuration {since}"),
        ShardState::Arriving => format!("arriving from {peer} for configuration {since}"),
        ShardState::Leaving if shard.frozen => format!("leaving to {peer}, no longer served here"),
        ShardState::Leaving => format!("leaving to {peer}, still served here"),
        ShardState::Held => "held until it has an owner".into(),
    }
}

fn print_members(members: &[Said<&ReplicaStatus>], io: &mut Io<'_>) -> std::io::Result<()> {
    let newest = members
        .iter()
        .filter_map(|(_, page)| page.as_ref().ok())
        .map(|p| p.commit)
        .max();
    let newest = newest.unwrap_or(0);
    let mut table = Table::new(&[
        "NODE", "ADDRESS", "ROLE", "TERM", "LOG", "COMMIT", "APPLIED", "LAG", "DISK",
    ]);
    // Reasons are sentences: below the table, which they would pull apart.
    let mut reasons = Vec::new();
    for (at, page) in members {
        table.row(match page {
            Err(error) => {
                reasons.push(match error.contains(at.as_str()) {
                    true => error.clone(),
                    false => format!("{at}: {error}"),
                });
                vec!["?".into(), at.clone(), "no answer".into()]
            }
            Ok(p) => {
                if let Some(why) = &p.not_voting {
                    reasons.push(format!("node {} does not vote: {why}", p.node));
                }
                let role = match &p.not_voting {
                    Some(_) => format!("{}, no vote", role(p)),
                    None => role(p),
                };
                let numbers = [
                    p.term,
                    p.last,
                    p.commit,
                    p.applied,
                    newest.saturating_sub(p.applied),
                ];
                let mut row = vec![p.node.to_string(), at.clone(), role];
                row.extend(numbers.map(|n| n.to_string()));
                row.push(size(p.disk_bytes));
                row
            }
        });
    }
    table.print(io.out, "  ")?;
    for reason in reasons {
        writeln!(io.out, "  {reason}")?;
    }
    Ok(())
}

fn role(page: &ReplicaStatus) -> String {
    format!("{:?}", page.role).to_lowercase()
}

fn to_json(picture: &Picture) -> Value {
    let groups: Vec<Value> = picture
        .groups
        .iter()
        .map(|(group, members)| {
            let record = picture.records.get(group);
            let spokesman = spokesman(members);
            json!({
                "group": group,
                "config": spokesman.map(|page| page.config),
                "settled": record.map(|r| r.settled),
                "left": record.and_then(|r| r.left),
                "leader": spokesman.and_then(|page| page.replica.leader),
                "members": members.iter().map(|(at, page)| {
                    member_json(at, page.as_ref().map(|p| &p.replica))
                }).collect::<Vec<_>>(),
                "shards": spokesman.map(|page| page.shards.iter().map(shard_json).collect::<Vec<_>>()),
                "sweeping_bytes": spokesman.map(|page| page.sweeping),
            })
        })
        .collect();
    let ctrlers = picture
        .ctrlers
        .iter()
        .map(|(at, page)| member_json(at, page.as_ref()));
    json!({
        "config": match &picture.config {
            Ok(config) => query::to_json(config),
            Err(error) => json!({ "error": error }),
        },
        "ctrlers": ctrlers.collect::<Vec<_>>(),
        "groups": groups,
    })
}

fn member_json(at: &str, page: Result<&ReplicaStatus, &String>) -> Value {
    match page {
        Err(error) => json!({ "address": at, "error": error }),
        Ok(p) => json!({
            "address": at,
            "node": p.node,
            "role": role(p),
            "term": p.term,
            "leader": p.leader,
            "last": p.last,
            "commit": p.commit,
            "applied": p.applied,
            "durable": p.durable,
            "base": p.base,
            "disk_bytes": p.disk_bytes,
            "not_voting": p.not_voting,
            "digest": format!("{:016x}", p.digest),
            "matched": p.matched.iter().map(|(n, i)| (n.to_string(), json!(i)))
                .collect::<serde_json::Map<_, _>>(),
        }),
    }
}

fn shard_json(shard: &ShardStatus) -> Value {
    json!({
        "shard": shard.shard,
        "state": format!("{:?}", shard.state).to_lowercase(),
        "since_config": shard.incarnation,
        "frozen": shard.frozen,
        "peer": shard.peer,
        "keys": shard.keys,
        "bytes": shard.bytes,
    })
}
