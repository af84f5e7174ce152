//! The log task: one write in flight; what arrives meanwhile is the next batch (group commit). The
//! log's chores run beside the writes, one at a time.

use super::error::Fatal;
use super::shared::{Apply, Internal, Shared};
use super::space;
use crate::log::{Batch, Finished, Log, LogError};
use raft_protocol::{SnapshotMeta, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use world::clock::sleep;
use world::net::BoxFuture;

/// After this long without a write one empty batch proves the last data at rest.
const IDLE: Duration = Duration::from_secs(1);
/// Entries of one batch, bytes; a single larger write is a batch of its own.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// In the order given. Bounded by what the core lets be in flight: a leader's uncommitted bytes,
/// a follower's append window.
pub(super) enum LogOp {
    Write(Write),
    Purge(SnapshotMeta),
}

pub(super) async fn run(
    shared: Arc<Shared>,
    mut log: Log,
    mut ops: mpsc::UnboundedReceiver<LogOp>,
) -> Result<(), Fatal> {
    let mut pending: Option<LogOp> = None;
    // What the last life wrote last is perhaps not proved yet; the log knows.
    let mut sealed = false;
    // Part of this task: who drops the task drops the chore with it.
    let mut chore: Option<BoxFuture<Result<Finished, LogError>>> = None;
    loop {
        if chore.is_none()
            && let Some(due) = log.chore()
        {
            let disk = shared.disk.clone();
            chore = Some(Box::pin(async move { disk.job(move || due.run()).await }));
        }
        let op = tokio::select! {
            biased;
            finished = running(&mut chore) => {
                chore = None;
                log.finished(finished)?;
                continue;
            }
            op = next(&mut pending, &mut ops) => op,
            () = sleep(IDLE), if !sealed => {
                log = job(&shared, log, Log::seal).await?;
                sealed = true;
                continue;
            }
        };
        match op {
            None => {
                if let Some(chore) = chore {
                    chore.await?;
                }
                return Ok(());
            }
            Some(LogOp::Purge(base)) => {
                log = job(&shared, log, move |log| log.purge(&base)).await?;
            }
            Some(LogOp::Write(write)) if write.reset.is_some() => {
                log = reset(&shared, log, write).await?;
                sealed = false;
            }
            Some(LogOp::Write(first)) => {
                let mut number = first.number;
                let mut bytes = size(&first);
                let mut batch = Batch {
                    hard_state: first.hard_state,
                    commit: first.commit,
                    runs: Vec::new(),
                };
                push(&mut batch, first);
                while bytes < MAX_BATCH_BYTES {
                    match ops.try_recv() {
                        Ok(LogOp::Write(write)) if write.reset.is_none() => {
                            world::mark!("log: several writes share a sync");
                            number = write.number;
                            bytes += size(&write);
                            batch.hard_state = write.hard_state;
                            batch.commit = write.commit;
                            push(&mut batch, write);
                        }
                        Ok(other) => {
                            pending = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                log = job(&shared, log, move |log| log.append(&batch)).await?;
                shared.tell(Internal::Persisted(number));
                if log.prepare_due() && pending.is_none() && ops.is_empty() {
                    log = job(&shared, log, Log::prepare).await?;
                }
                sealed = false;
            }
        }
    }
}

/// What comes next, in the order given; `None` when nothing will any more. Cancellation-safe.
async fn next(
    pending: &mut Option<LogOp>,
    ops: &mut mpsc::UnboundedReceiver<LogOp>,
) -> Option<LogOp> {
    match pending.take() {
        Some(op) => Some(op),
        None => ops.recv().await,
    }
}

/// The chore's end; pending for ever when there is none.
async fn running(
    chore: &mut Option<BoxFuture<Result<Finished, LogError>>>,
) -> Result<Finished, LogError> {
    match chore {
        Some(chore) => chore.await,
        None => std::future::pending().await,
    }
}

fn size(write: &Write) -> usize {
    write.entries.iter().map(|e| e.size()).sum()
}

fn push(batch: &mut Batch, write: Write) {
    if write.entries.is_empty() {
        return;
    }
    match batch.runs.last_mut() {
        Some(run) if run.last().map(|e| e.index + 1) == write.entries.first().map(|e| e.index) => {
            run.extend(write.entries);
        }
        _ => batch.runs.push(write.entries),
    }
}

/// All earlier writes are durable by now. First `CURRENT` names the new state, then the log starts
/// afresh behind it; a crash between the two is put right when the log is opened.
async fn reset(shared: &Arc<Shared>, log: Log, write: Write) -> Result<Log, Fatal> {
    let Some(meta) = write.reset else {
        return Ok(log);
    };
    let (reply, switched) = oneshot::channel();
    let _ = shared.apply.send(Apply::Switch {
        meta: meta.clone(),
        reply,
    });
    if switched.await.is_err() {
        // The apply task ended: its own error says why, and ends this task. Later writes must not
        // reach a log that was not reset.
        return std::future::pending().await;
    }
    let (hard_state, entries) = (write.hard_state, write.entries);
    let log = job(shared, log, move |log| {
        log.reset(hard_state, &meta, &entries)
    })
    .await?;
    shared.tell(Internal::Persisted(write.number));
    Ok(log)
}

async fn job(
    shared: &Arc<Shared>,
    mut log: Log,
    work: impl FnOnce(&mut Log) -> Result<(), LogError> + Send + 'static,
) -> Result<Log, Fatal> {
    let log = shared
        .disk
        .job(move || {
            work(&mut log)?;
            Ok::<Log, LogError>(log)
        })
        .await?;
    shared.log_bytes.store(log.bytes(), Ordering::Relaxed);
    space::note(shared, log.free());
    Ok(log)
}

#[cfg(test)]
#[path = "log_task_tests.rs"]
mod tests;
