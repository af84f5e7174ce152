//! What must be true in every state, and where the end is.

use super::group::{Copy, all};
use super::model::{Core, Model};
use super::scenario::{id, letter};
use kv::api::ShardState;

impl Model {
    /// I9, I11, I12 and I13 in one state.
    pub fn check(&self, core: &Core) -> Result<(), String> {
        for group in all() {
            let facts = self.groups.facts(core.groups[group]);
            if facts.stray > 0 {
                return Err(format!(
                    "I14: {} rows in {} of no shard that is there or to be swept",
                    facts.stray,
                    letter(group)
                ));
            }
        }
        for shard in 0..self.groups.sessions().len() {
            self.check_shard(core, shard)
                .map_err(|reason| format!("shard {shard}: {reason}"))?;
        }
        Ok(())
    }

    fn check_shard(&self, core: &Core, shard: usize) -> Result<(), String> {
        // Whoever may still have all of it; the newest of these has it.
        let mut newest: Option<(usize, &Copy)> = None;
        let mut accepting = Vec::new();
        for group in all().filter(|g| self.up(core, *g)) {
            let facts = self.groups.facts(core.groups[group]);
            let Some(copy) = &facts.copies[shard] else {
                continue;
            };
            let served = match copy.state {
                ShardState::Serving => true,
                ShardState::Leaving => !copy.frozen,
                _ => false,
            };
            if served && !copy.accepts {
                return Err(format!("I21: not served in {}", letter(group)));
            }
            if copy.accepts {
                accepting.push((group, copy));
            }
            let whole = !matches!(copy.state, ShardState::Arriving | ShardState::Absent);
            if whole && newest.is_none_or(|(_, n)| n.incarnation < copy.incarnation) {
                newest = Some((group, copy));
            }
        }
        if let [(one, _), (other, _), ..] = accepting[..] {
            return Err(format!(
                "I11: served by {} and {}",
                letter(one),
                letter(other)
            ));
        }
        let Some((group, copy)) = newest else {
            return Err("I9: no copy of it anywhere".to_owned());
        };
        let accepting = accepting.into_iter().map(|(g, c)| (g, c, "is served"));
        for (group, copy, what) in accepting.chain([(group, copy, "is")]) {
            let executed = core.executed[shard];
            match &copy.found {
                Ok(found) if *found == executed => {}
                Ok(found) => {
                    return Err(format!(
                        "I9: it {what} in {} with {found} writes, {executed} took effect",
                        letter(group)
                    ));
                }
                Err(wrong) => {
                    return Err(format!("I9: it {what} in {} with {wrong}", letter(group)));
                }
            }
        }
        Ok(())
    }

    /// The newest configuration everywhere, nothing owed, all of it reported, moved bytes swept,
    /// every leave that can be complete complete, and every write acknowledged whose shard somebody
    /// owns.
    pub fn at_end(&self, core: &Core) -> bool {
        let last = self.script.last();
        let groups = all().filter(|g| self.up(core, *g)).all(|group| {
            let agenda = &self.groups.facts(core.groups[group]).agenda;
            let record = self.record(core, group);
            agenda.config == u64::from(last)
                && agenda.settled
                && agenda.dead.is_empty()
                && record.settled == u64::from(last)
                && record.holds == agenda.holds
                && (record.left.is_none() || agenda.holds || record.has_left())
        });
        let sessions = self.groups.sessions().iter().enumerate();
        let mut sessions = sessions.map(|(shard, session)| {
            let owner = self.script.configs[usize::from(last)].shards[shard];
            let served = owner.is_none_or(|owner| {
                let copies = all().filter(|g| id(*g) == owner);
                copies.into_iter().all(|g| {
                    let copy = &self.groups.facts(core.groups[g]).copies[shard];
                    copy.as_ref().is_some_and(|c| c.accepts && !core.down[g])
                })
            });
            served && (owner.is_none() || core.acked[shard] == session.writes)
        });
        core.newest == last && groups && sessions.all(|done| done)
    }
}
