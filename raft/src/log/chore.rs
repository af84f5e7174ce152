//! Upkeep of a log's files that may run beside its appends: it touches only files that are no
//! part of the log yet, or no longer.
//!
//! On a journalled file system filling a file with zeros and removing one both wait for the
//! journal, and the journal for whatever a flush of the state is writing: tens of milliseconds
//! that no acknowledgement should wait for.

use super::restart::remove;
use super::room::is_full;
use super::segment::Spare;
use super::{Log, LogError, LogOptions};
use world::disk::Disk;

/// One piece of upkeep: see [`Log::chore`]. Dropped, it is as if it had failed.
pub struct Chore {
    disk: Disk,
    work: Work,
}

enum Work {
    /// Removes segments that a purge has left behind.
    Remove(Vec<u64>),
    /// Makes the spare, or fills it up by another step, if the reserve allows it.
    Fill {
        spare: Option<Spare>,
        options: LogOptions,
    },
    /// Removes the spare: the disk has become short.
    Discard(Spare),
}

/// What a chore has made, for [`Log::finished`].
pub struct Finished {
    spare: Option<Spare>,
    /// There was no room for a spare.
    no_spare: bool,
}

impl Chore {
    /// Does it. Blocking.
    pub fn run(self) -> Result<Finished, LogError> {
        let spare = match self.work {
            Work::Remove(numbers) => {
                remove(&self.disk, &numbers)?;
                return Ok(Finished {
                    spare: None,
                    no_spare: false,
                });
            }
            Work::Fill { spare, options } => match fill(&self.disk, spare, &options) {
                // Nothing rests on a spare.
                Err(error) if is_full(&error) => None,
                filled => filled?,
            },
            Work::Discard(spare) => {
                drop(spare);
                None
            }
        };
        if spare.is_none() {
            world::mark!("log: no spare segment on a disk without room");
            Spare::remove(&self.disk)?;
        }
        let no_spare = spare.is_none();
        Ok(Finished { spare, no_spare })
    }
}

/// Makes the spare or another step of it; `None` when that would take of the reserve.
fn fill(disk: &Disk, spare: Option<Spare>, options: &LogOptions) -> std::io::Result<Option<Spare>> {
    let missing = match &spare {
        Some(_) => 0,
        None => options.segment_bytes,
    };
    if options.is_short(disk.free()?.saturating_sub(missing)) {
        return Ok(None);
    }
    let mut spare = match spare {
        Some(spare) => spare,
        None => Spare::create(disk, options.segment_bytes)?,
    };
    spare.fill(options.fill_bytes)?;
    Ok(Some(spare))
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
        } else if self.options.is_short(self.free)
            && let Some(spare) = self.spare.take()
        {
            Work::Discard(spare)
        } else if self.spare_due() {
            Work::Fill {
                spare: self.spare.take(),
                options: self.options.clone(),
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
            let Finished { spare, no_spare } = ended?;
            log.busy = false;
            log.no_spare = no_spare;
            if spare.is_some() {
                log.spare = spare;
            }
            Ok(())
        })
    }

    /// The file in use is half full, and the next one is not ready.
    fn spare_due(&self) -> bool {
        let left = self.active.length - self.active.end;
        !self.no_spare
            && left < self.options.segment_bytes / 2
            && self.spare.as_ref().is_none_or(|s| !s.is_full())
    }
}
