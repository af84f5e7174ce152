//! query: one configuration, readable.

use super::args::Query;
use super::table::{count, ranges};
use super::{Failure, Io};
use crate::client::Client;
use ctrler::config::{Config, ShardId};
use std::time::Duration;

pub(super) async fn query(
    client: &Client,
    deadline: Duration,
    args: &Query,
    io: &mut Io<'_>,
) -> Result<(), Failure> {
    let config = client.ctrlers().query(args.num, deadline).await?;
    if args.json.json {
        io.json(&to_json(&config))?;
    } else {
        print(&config, io)?;
    }
    Ok(())
}

/// The shards of an owner.
pub(super) fn owned(config: &Config, owner: Option<u64>) -> impl Iterator<Item = ShardId> {
    let shards = config.shards.iter().zip(0..);
    shards
        .filter(move |(of, _)| **of == owner)
        .map(|(_, shard)| shard)
}

fn print(config: &Config, io: &mut Io<'_>) -> std::io::Result<()> {
    let (shards, groups) = (config.shards.len(), config.groups.len());
    writeln!(
        io.out,
        "configuration {}: {}, {}",
        config.num,
        count(shards, "shard"),
        count(groups, "group")
    )?;
    for (group, info) in &config.groups {
        let shards: Vec<ShardId> = owned(config, Some(*group)).collect();
        let number = count(shards.len(), "shard");
        let list = if shards.is_empty() {
            String::new()
        } else {
            format!(": {}", ranges(shards))
        };
        writeln!(io.out, "  group {group}  {number}{list}")?;
        writeln!(io.out, "           members {}", info.servers.join(", "))?;
    }
    let nobody: Vec<ShardId> = owned(config, None).collect();
    if !nobody.is_empty() {
        writeln!(
            io.out,
            "  nobody   {}: {}",
            count(nobody.len(), "shard"),
            ranges(nobody)
        )?;
    }
    for (holder, shard) in config.holders.iter().zip(0..) {
        if let (Some(group), Some(None)) = (holder, config.shards.get(shard)) {
            writeln!(
                io.out,
                "  shard {shard} is held by group {group} until it has an owner"
            )?;
        }
    }
    print_pins(config, io)
}

/// The shards that stay where a `move` has put them, a line for each group.
pub(super) fn print_pins(config: &Config, io: &mut Io<'_>) -> std::io::Result<()> {
    for group in config.groups.keys() {
        let pins = owned(config, Some(*group)).filter(|shard| config.pins.contains(shard));
        let pins: Vec<ShardId> = pins.collect();
        if !pins.is_empty() {
            let s = if pins.len() == 1 { "" } else { "s" };
            let list = ranges(pins);
            writeln!(io.out, "  pinned to group {group} by move: shard{s} {list}")?;
        }
    }
    Ok(())
}

/// A configuration as JSON; birth ids as hexadecimal text, since they do not fit JSON numbers.
pub(super) fn to_json(config: &Config) -> serde_json::Value {
    let groups: serde_json::Map<_, _> = config
        .groups
        .iter()
        .map(|(group, info)| {
            let birth = format!("{:032x}", info.birth);
            (
                group.to_string(),
                serde_json::json!({ "servers": info.servers, "birth": birth }),
            )
        })
        .collect();
    serde_json::json!({
        "num": config.num,
        "shards": config.shards,
        "holders": config.holders,
        "groups": groups,
        "pins": config.pins,
    })
}
