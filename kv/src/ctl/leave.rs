//! leave, and the wait until a group that left may be shut down.

use super::args::Leave;
use super::groups::{MEMBER_DEADLINE, POLL, complete, leader_status, named};
use super::table::ranges;
use super::{Failure, Io};
use crate::api::ShardState;
use crate::client::Client;
use ctrler::config::{GroupId, Record};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use world::clock::now;

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
            }) => told(
                args,
                io,
                format_args!("group {group} has left in configuration {left}"),
            ),
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
        told(args, io, format_args!("left in configuration {num}"));
    }
    if args.no_wait {
        if args.json.json {
            for group in &groups {
                let record = ctrlers.record(*group, deadline).await?;
                let left = record.as_ref().and_then(|record| record.left);
                let complete = record.as_ref().is_some_and(complete);
                io.done(json!({ "group": group, "left": left, "complete": complete }));
            }
        }
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
                    told(
                        args,
                        io,
                        format_args!("group {group} holds nothing any more and may be shut down"),
                    );
                    if let (true, Some(left)) = (args.json.json, record.left) {
                        io.done(json!({ "group": group, "left": left, "complete": true }));
                    }
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

/// A line of a leave that goes on: with --json, whose results come when a group is done, progress.
fn told(args: &Leave, io: &mut Io<'_>, line: std::fmt::Arguments<'_>) {
    match args.json.json {
        true => io.note(line),
        false => io.done(line),
    }
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
