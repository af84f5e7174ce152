//! One errand each, repeated until it is done.

use super::Mover;
use super::peers::bounded;
use super::plan::{self, Errand};
use super::wire::{Answer, Party, What};
use crate::machine::chunk::CHUNK_BYTES;
use crate::machine::command::{Ack, Command};
use crate::machine::state::Cursor;
use ctrler::client::ClientError;
use ctrler::config::{ConfigNum, GroupId, ShardId};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tracing::{debug, info, warn};
use world::clock::sleep;

/// Time for one command of the mover.
const PROPOSE: Duration = Duration::from_secs(5);
/// Time for one answer of the controllers.
const CONTROL: Duration = Duration::from_secs(5);
/// The controllers are asked for a next configuration this often.
const NEXT: Duration = Duration::from_millis(100);
/// First and longest pause between attempts at anything else.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// A group that owes something for so long says where it is reached.
const UNSETTLED: Duration = Duration::from_secs(1);
/// Pause after something only a person can put right.
const HOPELESS: Duration = Duration::from_secs(5);

/// A growing pause.
struct Pause(Duration);

impl Pause {
    fn new() -> Pause {
        Pause(PAUSE.0)
    }
    async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(PAUSE.1);
    }
}

/// An errand's task.
pub(super) struct Work {
    pub(super) mover: Arc<Mover>,
    pub(super) birth: Option<u128>,
}

impl Work {
    pub(super) async fn run(self, errand: Errand) {
        debug!(group = self.mover.group, ?errand, "errand");
        match errand {
            Errand::Birth => self.birth().await,
            Errand::Next { after } => self.next(after).await,
            Errand::Report { through, holds } => self.report(through, holds).await,
            Errand::Pull { shard, num, from } => self.pull(shard, num, from).await,
            Errand::Confirm { to, num } => self.confirm(to, num).await,
            Errand::Sweep { shard, incarnation } => self.sweep(shard, incarnation).await,
        }
    }

    fn me(&self) -> Party {
        Party {
            group: self.mover.group,
            birth: self.birth.unwrap_or_default(),
        }
    }

    async fn propose(&self, command: Command) -> Result<Ack, String> {
        match self
            .mover
            .replica
            .propose_own(command.to_bytes(), PROPOSE)
            .await
        {
            Ok(reply) => Ok(Ack::from_bytes(&reply)),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn birth(&self) {
        let mut pause = Pause::new();
        let id = world::entropy::random_u128();
        while self.propose(Command::Birth { id }).await.is_err() {
            pause.wait().await;
        }
    }

    /// History is entered only by the group that the controllers recorded: a number used again on
    /// empty disks would replay it as the first owner of everything.
    async fn recorded(&self) -> bool {
        if self.mover.recorded.load(Ordering::Relaxed) {
            return true;
        }
        let group = self.mover.group;
        match self.mover.ctrlers.record(group, CONTROL).await {
            Ok(Some(record)) if Some(record.group.birth) == self.birth => {
                self.mover.recorded.store(true, Ordering::Relaxed);
                true
            }
            Ok(Some(record)) => {
                warn!(
                    group,
                    recorded = format_args!("{:032x}", record.group.birth),
                    here = format_args!("{:032x}", self.birth.unwrap_or_default()),
                    "the controllers know this group number with another birth id: it stays out of \
                     the cluster; start it with a number never used before"
                );
                sleep(HOPELESS).await;
                false
            }
            Ok(None) | Err(_) => false,
        }
    }

    async fn next(&self, after: ConfigNum) {
        loop {
            if self.recorded().await {
                let group = self.mover.group;
                // An error is "no such configuration yet" among others.
                if let Ok(config) = self.mover.ctrlers.next(group, after, CONTROL).await
                    && let Some(command) = plan::entering(after, &config)
                {
                    match self.propose(command).await {
                        Ok(Ack::Done) => {
                            info!(group, after, config = config.num, "entered");
                            return;
                        }
                        // Entered by an earlier attempt; the agenda says what is next.
                        Ok(Ack::Refused(reason)) => {
                            warn!(group, config = config.num, reason, "not entered");
                            sleep(PAUSE.1).await;
                        }
                        Err(_) => {}
                    }
                }
            }
            tokio::select! {
                biased;
                () = self.mover.notice.heard_of_newer() => {}
                () = sleep(NEXT) => {}
            }
        }
    }

    async fn report(&self, through: ConfigNum, holds: bool) {
        let mut pause = Pause::new();
        let agenda = self.mover.agenda().await;
        if agenda.is_some_and(|agenda| agenda.config > through) {
            // Only the addresses are news, and only when the present configuration takes long.
            sleep(UNSETTLED).await;
        }
        let group = self.mover.group;
        let info = self.mover.info(self.birth.unwrap_or_default());
        loop {
            match self
                .mover
                .ctrlers
                .settled(group, info.clone(), through, holds, CONTROL)
                .await
            {
                Ok(()) => return,
                Err(ClientError::Invalid(reason)) => {
                    warn!(group, through, reason, "report refused");
                    sleep(HOPELESS).await;
                }
                Err(error) => {
                    debug!(group, through, %error, "report");
                    pause.wait().await;
                }
            }
        }
    }

    /// The command that installs the rows from a cursor on, and where those behind them begin.
    async fn fetch(
        &self,
        shard: ShardId,
        num: ConfigNum,
        from: GroupId,
        cursor: Cursor,
    ) -> Result<(Command, Option<Cursor>), String> {
        let asked = What::Pull {
            shard,
            from: cursor,
        };
        let what = asked.clone();
        let answer = self.mover.peers.ask(self.me(), from, num, what).await?;
        let (next, said) = match &answer {
            Answer::Rows(chunk) => (chunk.next.clone(), String::new()),
            other => (None, format!("{other:?}")),
        };
        match plan::answered(&asked, num, answer).pop() {
            Some(install) => Ok((install, next)),
            None => Err(said),
        }
    }

    /// Chunk after chunk; the next one is fetched while one is being committed.
    async fn pull(self, shard: ShardId, num: ConfigNum, from: GroupId) {
        let work = Arc::new(self);
        let mut pause = Pause::new();
        loop {
            let Some(agenda) = work.mover.agenda().await else {
                return;
            };
            let Some(cursor) = plan::cursor(&agenda, shard, num) else {
                return;
            };
            match work.pull_from(shard, num, from, cursor).await {
                Ok(()) => {
                    info!(group = work.mover.group, shard, num, from, "arrived");
                    return;
                }
                Err(reason) => {
                    debug!(group = work.mover.group, shard, num, from, reason, "pull");
                    pause.wait().await;
                }
            }
        }
    }

    /// What arrives is not taken onto a disk that is nearly full; the old owner keeps it. Errors: it is.
    fn has_room(&self, shard: ShardId) -> Result<(), String> {
        let Some(disk) = self.mover.replica.full_disk(CHUNK_BYTES) else {
            return Ok(());
        };
        world::mark!("mover: a shard waits, the disk is nearly full");
        Err(format!(
            "the disk of node {} is nearly full ({} bytes are free): shard {shard} waits where it was",
            disk.node, disk.free
        ))
    }

    async fn pull_from(
        self: &Arc<Work>,
        shard: ShardId,
        num: ConfigNum,
        from: GroupId,
        cursor: Cursor,
    ) -> Result<(), String> {
        self.has_room(shard)?;
        let (mut command, mut next) = self.fetch(shard, num, from, cursor).await?;
        loop {
            let notice = plan::notice(&command);
            let work = self.clone();
            // A task of its own: with the last rows the errand is over, and this one with it.
            let installing = tokio::spawn(async move {
                let ack = work.propose(command).await?;
                if let Some(what) = notice.filter(|_| ack == Ack::Done) {
                    let _ = work.mover.peers.ask(work.me(), from, num, what).await;
                }
                Ok::<Ack, String>(ack)
            });
            let fetched = match (next, self.has_room(shard)) {
                (None, _) => None,
                (Some(_), Err(full)) => Some(Err(full)),
                (Some(next), Ok(())) => Some(self.fetch(shard, num, from, next).await),
            };
            match installing.await.map_err(|error| error.to_string())?? {
                Ack::Done => {}
                // The pull begins anew.
                Ack::Refused(reason) => return Err(reason),
            }
            match fetched {
                Some(fetched) => (command, next) = fetched?,
                None => return Ok(()),
            }
        }
    }

    /// Asks the new owner, where the controllers know it to be, whether what was given to it has arrived;
    /// and the controllers' record of it only where it does not answer: it may have settled the
    /// configuration, left and been shut down before we heard.
    async fn confirm(&self, to: GroupId, num: ConfigNum) {
        let mut pause = Pause::new();
        loop {
            let said = self.mover.notice.heard_of_arrival();
            let Some(agenda) = self.mover.agenda().await else {
                return;
            };
            let Some(given) = plan::given(&agenda, to, num) else {
                return;
            };
            let mut releases = Vec::new();
            if !given.is_empty() {
                let asked = What::Installed {
                    shards: bounded(given.clone()),
                };
                let what = asked.clone();
                releases = match self.mover.peers.ask(self.me(), to, num, what).await {
                    Ok(answer @ Answer::Installed(_)) => plan::answered(&asked, num, answer),
                    Ok(_) | Err(_) => match self.mover.peers.record(to, true).await {
                        Ok(record) if plan::recorded(&record, num) => {
                            world::mark!(
                                "mover: the controllers' record says that a shard has arrived"
                            );
                            plan::releases(given, num)
                        }
                        Ok(_) | Err(_) => Vec::new(),
                    },
                };
            }
            for command in releases {
                pause = Pause::new();
                let _ = self.propose(command).await;
            }
            // However often it is said.
            sleep(PAUSE.0).await;
            tokio::select! {
                biased;
                () = said => pause = Pause::new(),
                () = pause.wait() => {}
            }
        }
    }

    async fn sweep(&self, shard: ShardId, incarnation: ConfigNum) {
        let mut pause = Pause::new();
        loop {
            match self.propose(Command::Sweep { shard, incarnation }).await {
                Ok(Ack::Done) => {}
                Ok(Ack::Refused(_)) => return,
                Err(_) => pause.wait().await,
            }
        }
    }
}
