//! Where a shard may be when the newest configuration does not lead to it: with the group a
//! refusal named, where a group is reached now, or with the shard's former owner.

use super::{REFRESH_DEADLINE, Router};
use ctrler::config::{Config, ConfigNum, GroupId, ShardId};
use std::sync::Arc;
use std::time::Duration;

/// Least time between two questions about the same group, or the same shard.
const LOOK_UP_SPACING: Duration = Duration::from_millis(250);
/// How many configurations back a shard's former owner is looked for; so many are remembered.
const LOOK_BACK: usize = 64;

impl Router {
    pub(super) fn hint(self: &Arc<Self>, shard: ShardId, group: GroupId) {
        let known = {
            let mut state = self.state();
            state.hints.insert(shard, group);
            state.groups.contains_key(&group)
        };
        // It may have left before this client came, and still have the shard.
        if !known {
            self.look_up(group);
        }
    }

    pub(super) fn unhint(&self, shard: ShardId) {
        self.state().hints.remove(&shard);
    }

    /// `group` was asked for a shard in vain: the next attempt goes to who had the shard before it
    /// (an old owner serves until the new one fetches), or, where there is none, to the owner.
    /// True when it is worth waiting for `changed`: that is being found out.
    pub(super) fn fall_back(self: &Arc<Self>, shard: ShardId, group: GroupId) -> bool {
        let former = self.state().former.get(&(shard, group)).copied();
        if let Some(Some(former)) = former {
            self.hint(shard, former);
        } else {
            self.unhint(shard);
        }
        former.is_none() && self.look_back(shard, group)
    }

    /// Finds out who had a shard before `group`; false when that is being done already.
    fn look_back(self: &Arc<Self>, shard: ShardId, group: GroupId) -> bool {
        let Some(newest) = self.config() else {
            return false;
        };
        if !self.state().looking_back.insert(shard) {
            return false;
        }
        let router = self.clone();
        tokio::spawn(async move {
            let found = router.former_owner(&newest, shard, group).await;
            if let Some(former) = found {
                // Of use only if nothing newer is known by now.
                let current = router.config().is_some_and(|c| c.num == newest.num);
                if current {
                    router.state().former.insert((shard, group), former);
                    if let Some(former) = former {
                        router.hint(shard, former);
                    }
                }
                router.changed.notify_waiters();
            }
            world::clock::sleep(LOOK_UP_SPACING).await;
            router.state().looking_back.remove(&shard);
        });
        true
    }

    /// By history, which is immutable, so that any controller may tell it. `None`: it could not be
    /// asked.
    async fn former_owner(
        &self,
        newest: &Config,
        shard: ShardId,
        group: GroupId,
    ) -> Option<Option<GroupId>> {
        let owner = |config: &Config| config.shards.get(shard as usize).copied().flatten();
        // A group that was only named by a refusal may not be in it yet, or not any more.
        let mut seen = owner(newest) == Some(group);
        for num in (1..newest.num).rev().take(LOOK_BACK) {
            let config = self.past(num).await?;
            match owner(&config) {
                Some(other) if other != group && seen => return Some(Some(other)),
                Some(other) => seen |= other == group,
                // Nobody's: whoever held it then was named before.
                None => {}
            }
        }
        Some(None)
    }

    /// An old configuration, asked for once for all shards: in an outage they all look back.
    async fn past(&self, num: ConfigNum) -> Option<Arc<Config>> {
        if let Some(known) = self.state().past.get(&num) {
            return Some(known.clone());
        }
        let config = self.ctrlers.query(Some(num), REFRESH_DEADLINE).await;
        let config = Arc::new(config.ok()?);
        let mut state = self.state();
        state.past.insert(num, config.clone());
        if state.past.len() > LOOK_BACK {
            state.past.pop_first();
        }
        Some(config)
    }

    /// Asks the controllers where a group is reached now, unless that is being done already. A
    /// configuration says where it was when it joined, and nothing of one that left.
    pub(super) fn look_up(self: &Arc<Self>, group: GroupId) {
        if !self.state().looking_up.insert(group) {
            return;
        }
        let router = self.clone();
        tokio::spawn(async move {
            if let Ok(Some(record)) = router.ctrlers.record(group, REFRESH_DEADLINE).await {
                let servers = &record.group.servers;
                let mut state = router.state();
                state.groups.entry(group).or_default().reached_at(servers);
                drop(state);
                router.changed.notify_waiters();
            }
            world::clock::sleep(LOOK_UP_SPACING).await;
            router.state().looking_up.remove(&group);
        });
    }
}
