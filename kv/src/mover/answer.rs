//! Answers to other groups' questions.

use super::plan::{self, Step};
use super::wire::{Answer, Ask, Party, What};
use crate::machine::KvMachine;
use crate::machine::command::Command;
use crate::machine::notice::Notice;
use crate::machine::query::{Agenda, Pulled, Query};
use ctrler::config::{GroupId, ShardId};
use raft::Replica;
use raft::protocol::NodeId;
use raft::replica::ProposeError;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest time for a command that a question makes necessary.
const PROPOSE: Duration = Duration::from_secs(2);

/// A member of a group, asked by another group.
pub struct Asked<'a> {
    /// This group.
    pub group: GroupId,
    /// The replica.
    pub replica: &'a Replica<KvMachine>,
    /// Rung when somebody is ahead of us.
    pub notice: &'a Notice,
    /// Addresses of this group's members.
    pub members: &'a BTreeMap<NodeId, String>,
}

impl Asked<'_> {
    /// The answer to a question.
    pub async fn answer(&self, body: &[u8]) -> Answer {
        let Some(ask) = Ask::from_bytes(body) else {
            return Answer::Malformed;
        };
        let answer = self.serve(&ask).await.unwrap_or_else(|answer| answer);
        // What a follower knows is true, but what it does not know yet means nothing.
        let known = match (&answer, &ask.what) {
            (Answer::Rows(_), _) => true,
            (Answer::Installed(found), What::Installed { shards }) => found.len() == shards.len(),
            _ => false,
        };
        let leads = self.replica.is_leader();
        if known && !leads {
            world::mark!("mover: a member that does not lead answers");
        }
        if known || leads {
            return answer;
        }
        self.leader(self.replica.leader().0)
    }

    fn leader(&self, leader: Option<NodeId>) -> Answer {
        Answer::NotLeader(leader.and_then(|node| self.members.get(&node).cloned()))
    }

    async fn query<T: DeserializeOwned>(&self, query: &Query) -> Result<T, Answer> {
        let reply = self
            .replica
            .inspect(query.to_bytes())
            .await
            .map_err(|_| Answer::Busy)?;
        postcard::from_bytes(&reply).map_err(|_| Answer::Busy)
    }

    /// `Err` is an answer too: one given early.
    async fn serve(&self, ask: &Ask) -> Result<Answer, Answer> {
        let agenda: Agenda = self.query(&Query::Agenda).await?;
        let me = agenda.birth.map(|birth| Party {
            group: self.group,
            birth,
        });
        if ask.num > agenda.config {
            world::mark!("mover: asked by a group that is ahead");
            self.notice.newer();
        }
        let query = match plan::judge(ask, me) {
            Step::Answer(answer) => return Ok(answer),
            Step::Query(query) => query,
        };
        match &ask.what {
            What::Installed { .. } => Ok(Answer::Installed(self.query(&query).await?)),
            What::Pull { shard, .. } => {
                let reply: Pulled = self.query(&query).await?;
                let freeze = match plan::pulled(reply, *shard, ask.num) {
                    Ok(answer) => return Ok(answer),
                    Err(freeze) => freeze,
                };
                self.propose(freeze).await?;
                let reply: Pulled = self.query(&query).await?;
                plan::pulled(reply, *shard, ask.num).map_err(|_| Answer::Busy)
            }
            What::Arrived { .. } => {
                // Anybody may say so. The new owner is asked where the controllers know it to be.
                let leaving: Vec<ShardId> = self.query(&query).await?;
                if !leaving.is_empty() {
                    self.notice.arrived();
                }
                Ok(Answer::Noted)
            }
        }
    }

    /// A refused command is as good as a done one: the state says what is true.
    async fn propose(&self, command: Command) -> Result<(), Answer> {
        match self.replica.propose_own(command.to_bytes(), PROPOSE).await {
            Ok(_) => Ok(()),
            Err(ProposeError::NotLeader { leader }) => Err(self.leader(leader)),
            Err(_) => Err(Answer::Busy),
        }
    }
}
