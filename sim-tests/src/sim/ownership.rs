//! Who may serve a shard, judged at log positions: a member that applies late is no violation.

use super::trace;
use std::collections::BTreeMap;
use world::observe::Event;

/// Installs the check for the trace of this run: no shard is ever accepted by two groups, and no
/// write is executed by a group that does not accept its shard.
///
/// Only the first application of an entry counts, by whichever member: the new owner accepts a
/// shard after some member of the old one has applied its freeze.
pub fn install() {
    // (shard, group) → (index of the last change, accepts).
    let mut known: BTreeMap<(u64, u64), (u64, bool)> = BTreeMap::new();
    trace::check(move |_, event| {
        let group = event.site.group;
        match event.kind {
            "ownership" => {
                let (shard, index) = (field(event, "shard"), field(event, "index"));
                let before = known.get(&(shard, group)).map_or(0, |(at, _)| *at);
                if index <= before {
                    return;
                }
                let accepts = field(event, "accepts") == 1;
                known.insert((shard, group), (index, accepts));
                if accepts {
                    let mut owners = known.range((shard, 0)..=(shard, u64::MAX));
                    let second = owners.find(|((_, g), (_, accepts))| *g != group && *accepts);
                    if let Some(((_, other), _)) = second {
                        panic!("shard {shard} is accepted by group {other} and group {group}");
                    }
                }
            }
            "serve" => {
                let (shard, index) = (field(event, "shard"), field(event, "index"));
                let (since, accepts) = known.get(&(shard, group)).copied().unwrap_or((0, false));
                assert!(
                    accepts || index <= since,
                    "group {group} serves shard {shard} at index {index}, and has not accepted it \
                     since {since}"
                );
            }
            _ => {}
        }
    });
}

fn field(event: &Event, name: &str) -> u64 {
    let found = event.fields.iter().find(|(n, _)| *n == name);
    found.map_or_else(
        || panic!("event {} has no field {name}", event.kind),
        |(_, value)| *value,
    )
}
