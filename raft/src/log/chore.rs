//! Upkeep of a log's files that may run beside its appends: it touches only files that are no
//! part of the log yet, or no longer.
//!
//! On a journalled file system filling a file with zeros and removing one both wait for the
//! journal, and the journal for whatever a flush of the state is writing: tens of milliseconds
//! that no acknowledgement should wait for.

use super::restart::remove;
use super::segment::Spare;
use super::{Log, LogError};
use world::disk::Disk;

/// One piece of upkeep: see [`Log::chore`]. Dropped, it is as if it had failed.
pub struct Chore {
    disk: Disk,
    work: Work,
}

enum Work {
    /// Removes segments that a purge has left behind.
    Remove(Vec<u64>),
    /// Makes the spare, or fills it up by another step, in bytes.
    Fill {
        spare: Option<Spare>,
        length: u64,
        step: u64,
    },
}

/// What a chore has made, for [`Log::finished`].
pub struct Finished(Option<Spare>);

impl Chore {
    /// Does it. Blocking.
    pub fn run(self) -> Result<Finished, LogError> {
        Ok(Finished(match self.work {
            Work::Remove(numbers) => {
                remove(&self.disk, &numbers)?;
                None
            }
            Work::Fill {
                spare,
                length,
                step,
            } => {
                let mut spare = match spare {
                    Some(spare) => spare,
                    None => Spare::create(&self.disk, length)?,
                };
                spare.fill(step)?;
                Some(spare)
            }
        }))
    }
}

impl Log {
    /// What is to be done beside the appends, one piece at a time: none while one is under way.
    /// It runs without the log, at any time after; then [`Log::finished`] takes in what it made.
    pub fn chore(&mut self) -> Option<Chore> {
        if self.busy || self.failed.is_some() {
            return None;
        }
        let work = if !self.obsolete.is_empty() {
            Work::Remove(std::mem::take(&mut self.obsolete))
        } else if self.spare_due() {
            Work::Fill {
                spare: self.spare.take(),
                length: self.options.segment_bytes,
                step: self.options.fill_bytes,
            }
        } else {
            return None;
        };
        self.busy = true;
        Some(Chore {
            disk: self.disk.clone(),
            work,
        })
    }

    /// Takes in what a chore has made. After its error the log is not used any more.
    pub fn finished(&mut self, ended: Result<Finished, LogError>) -> Result<(), LogError> {
        self.guarded(|log| {
            let Finished(spare) = ended?;
            log.busy = false;
            if spare.is_some() {
                log.spare = spare;
            }
            Ok(())
        })
    }

    /// The file in use is half full, and the next one is not ready.
    fn spare_due(&self) -> bool {
        let left = self.active.length - self.active.end;
        left < self.options.segment_bytes / 2 && self.spare.as_ref().is_none_or(|s| !s.is_full())
    }
}
