//! status: what every member of every group says of itself.

use super::args::{Common, Status};
use super::served::{headline, not_served};
use super::table::{Table, count, ranges, size};
use super::{Failure, Io, ask, query};
use crate::api::{KvStatus, Request, Response, ShardState, ShardStatus};
use crate::client::Client;
use ctrler::config::{Config, GroupId, Record, ShardId};
use raft::replica::ReplicaStatus;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::IsTerminal;
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
    common: &Common,
    args: &Status,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let Some(pause) = args.watch else {
        return once(client, common.deadline(), args, io).await;
    };
    let is_terminal = std::io::stdout().is_terminal();
    loop {
        let mut page = Vec::new();
        let shown = {
            let (out, err) = (&mut page, &mut *io.err);
            let mut io = Io { out, err };
            once(client, common.deadline(), args, &mut io).await
        };
        if is_terminal {
            // To the corner, and what is left of the page before goes.
            io.out.write_all(b"\x1b[H\x1b[2J")?;
        }
        io.out.write_all(&page)?;
        if let Err(failure) = shown
            && !failure.message.is_empty()
        {
            writeln!(io.out, "error: {}", failure.message)?;
        }
        io.out.flush()?;
        world::clock::sleep(pause).await;
    }
}

async fn once(
    client: &Client,
    deadline: Duration,
    args: &Status,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let picture = look(client, deadline).await;
    let printed = match args.json.json {
        true => io.json(&to_json(&picture)),
        false => print(&picture, io),
    };
    if let Err(error) = printed
        && error.kind() != std::io::ErrorKind::BrokenPipe
    {
        return Err(error.into());
    }
    match &picture.config {
        Ok(_) if picture.not_served().is_empty() => Ok(()),
        // The first line has said so.
        Ok(_) => Err(Failure::no("")),
        Err(error) => {
            let message = format!("the configuration is not known: {error}");
            Err(Failure {
                message,
                code: super::exit::UNAVAILABLE,
            })
        }
    }
}

impl Picture {
    fn not_served(&self) -> BTreeMap<String, Vec<ShardId>> {
        let Ok(config) = &self.config else {
            return BTreeMap::new();
        };
        let leaders = self.groups.iter().filter_map(|(group, members)| {
            let page = spokesman(members)?;
            leads(page).then_some((*group, page.shards.as_slice()))
        });
        not_served(config, &leaders.collect())
    }
}

fn leads(page: &KvStatus) -> bool {
    page.replica.leader == Some(page.replica.node)
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
    for group in config.iter().flat_map(|config| config.groups.keys()) {
        // Its members may have moved since it joined: the newest record says where to.
        let info = match records.get(group) {
            Some(record) => Some(&record.group),
            None => config.as_ref().ok().and_then(|c| c.groups.get(group)),
        };
        let servers = info.map(|info| info.servers.clone());
        asked.insert(*group, servers.unwrap_or_default());
    }
    // A group that left is of interest until it may be shut down.
    for (group, record) in &records {
        if record.left.is_some() && !super::groups::complete(record) {
            asked
                .entry(*group)
                .or_insert_with(|| record.group.servers.clone());
        }
    }
    let mut groups = ask_all(asked, short).await;
    // Where nobody answers there, they may be where they joined.
    let mut elsewhere: BTreeMap<GroupId, Vec<String>> = BTreeMap::new();
    for (group, info) in config.iter().flat_map(|config| &config.groups) {
        let said = groups.get(group).map(Vec::as_slice).unwrap_or_default();
        let new = |at: &&String| said.iter().all(|(asked, _)| asked != *at);
        let others: Vec<String> = info.servers.iter().filter(new).cloned().collect();
        if said.iter().all(|(_, page)| page.is_err()) && !others.is_empty() {
            elsewhere.insert(*group, others);
        }
    }
    for (group, said) in ask_all(elsewhere, short).await {
        if said.iter().any(|(_, page)| page.is_ok()) {
            groups.entry(group).or_default().extend(said);
        }
    }
    Picture {
        ctrlers,
        config,
        records,
        groups,
    }
}

/// Asks servers of groups for their pages, all at once: an unreachable member costs its deadline only
/// once.
async fn ask_all(
    asked: BTreeMap<GroupId, Vec<String>>,
    deadline: Duration,
) -> BTreeMap<GroupId, Vec<Said<KvStatus>>> {
    let mut questions = Vec::new();
    for (group, servers) in asked {
        for server in servers {
            let question = tokio::spawn(async move {
                match ask(&server, &Request::Status, None, deadline).await {
                    Ok(Response::Status(status)) if status.replica.group != group => {
                        let error = format!("a member of group {}", status.replica.group);
                        (server, Err(error))
                    }
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
    groups
}

/// The page that speaks for a group: its leader's, else that of the member that applied most.
fn spokesman(members: &[Said<KvStatus>]) -> Option<&KvStatus> {
    let pages = || members.iter().filter_map(|(_, page)| page.as_ref().ok());
    pages()
        .filter(|page| leads(page))
        .max_by_key(|p| p.replica.term)
        .or(pages().max_by_key(|p| p.replica.applied))
}

fn print(picture: &Picture, io: &mut Io<'_>) -> std::io::Result<()> {
    if let Some(line) = headline(&picture.not_served()) {
        writeln!(io.out, "{line}\n")?;
    }
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
        query::print_pins(config, io)?;
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
    if !leads(page) {
        writeln!(
            io.out,
            "  no leader answers: its shards are not served until a majority of its members agrees on one"
        )?;
    }
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
        "NODE", "ADDRESS", "ROLE", "TERM", "LOG", "COMMIT", "APPLIED", "LAG", "DISK", "FREE",
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
                if p.disk_short {
                    reasons.push(format!(
                        "the disk of node {} runs short: {} are free; give it room, or delete keys, before \
                         writes are refused",
                        p.node,
                        size(p.free_bytes)
                    ));
                }
                if let Some(why) = &p.writes_limited {
                    reasons.push(format!("writes are {why}"));
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
                row.push(match p.free_bytes {
                    u64::MAX => "?".into(),
                    free => size(free),
                });
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
        "not_served": picture.not_served().iter()
            .map(|(why, shards)| json!({ "why": why, "shards": shards }))
            .collect::<Vec<_>>(),
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
            "disk_free_bytes": (p.free_bytes < u64::MAX).then_some(p.free_bytes),
            "disk_short": p.disk_short,
            "not_voting": p.not_voting,
            "writes_limited": p.writes_limited,
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
