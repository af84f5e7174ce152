//! A random walk over a log on a simulated disk: appends that overwrite, purges, resets, power
//! failures between and inside disk operations, killed processes, failing operations. After every
//! recovery nothing acknowledged is lost, what was not acknowledged is there wholly or not at
//! all, and term and vote have not gone back.

mod log_support;

use log_support::{Model, Rng, entry, hard_state, meta, open};
use raft::log::{Batch, Chore, Log, LogError};
use raft_protocol::{Entry, Fetch, SnapshotMeta};
use std::io::ErrorKind;
use world::disk::{DiskOp, SimDisk, SimDiskOptions};
use world::testing::block_on_test;

struct Walk {
    rng: Rng,
    disk: SimDisk,
    log: Log,
    /// Begun and not done.
    chore: Option<Chore>,
    /// What was acknowledged.
    acked: Model,
    /// What the state covers, durably.
    stamp: SnapshotMeta,
    /// Never overwritten through here.
    commit: u64,
    /// And the log was told so.
    said: u64,
    story: Vec<String>,
    /// Entries read back.
    read: usize,
}

impl Walk {
    fn start(seed: u64) -> Walk {
        let mut rng = Rng(seed);
        let options = SimDiskOptions {
            torn_overwrites: [0.0, 0.3][(seed % 2) as usize],
            ..SimDiskOptions::default()
        };
        let disk = SimDisk::new("walk", rng.next(), options);
        let stamp = meta(0, 0);
        let mut story = Vec::new();
        let log = loop {
            if rng.one_in(3) {
                disk.crash_at(rng.between(1, 12));
            }
            match open(&disk.disk(), &stamp) {
                Ok((log, found)) => {
                    assert!(
                        found.damage.is_none() && found.entries.is_empty(),
                        "{found:?}"
                    );
                    break log;
                }
                Err(error) => story.push(format!("first open: {error}")),
            }
        };
        disk.clear_faults();
        Walk {
            rng,
            disk,
            log,
            chore: None,
            acked: Model::default(),
            stamp,
            commit: 0,
            said: 0,
            story,
            read: 0,
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        match self.rng.below(20) {
            0 => vec![7; 20 << 10], // longer than a segment
            1 => {
                // What a client might know of our files: real records.
                let files = self.disk.files();
                let at = self.rng.below(files.len() as u64) as usize;
                let bytes = self.disk.read(&files[at].0).unwrap_or_default();
                bytes.into_iter().skip(8192).take(2048).collect()
            }
            2 | 3 => vec![8; self.rng.between(400, 3000) as usize],
            _ => vec![self.rng.next() as u8; self.rng.below(60) as usize],
        }
    }

    fn batch(&mut self) -> Batch {
        let mut hard = self.acked.hard_state;
        if self.rng.one_in(4) || hard.term == 0 {
            hard = hard_state(hard.term + 1, None);
        }
        let mut last = self.acked.last;
        let mut runs = Vec::new();
        for _ in 0..self.rng.below(4) {
            let lowest = self.commit + 1;
            let first = match self.rng.one_in(3) {
                true => self.rng.between(lowest, last + 1),
                false => last + 1,
            };
            if first <= last {
                // No leader replaces its own: index and term name an entry and all before it (§5.3).
                hard = hard_state(hard.term + 1, None);
            }
            let n = self.rng.between(1, 4);
            let run = (first..first + n).map(|i| entry(i, hard.term, &self.payload()));
            runs.push(run.collect());
            last = first + n - 1;
        }
        if hard.vote.is_none() && self.rng.one_in(3) {
            hard.vote = Some(self.rng.between(1, 3));
        }
        Batch {
            commit: self.commit,
            hard_state: hard,
            runs,
        }
    }

    /// One operation; `Err` means that it was not acknowledged. `next` is what holds if it was.
    fn operate(&mut self, next: &mut Model) -> Result<(), LogError> {
        match self.rng.below(16) {
            0..8 => {
                let batch = self.batch();
                next.append(&batch);
                let done = self.log.append(&batch);
                if done.is_ok() {
                    self.said = batch.commit;
                }
                done
            }
            8 => self.log.seal(),
            9..12 => {
                if self.log.prepare_due() {
                    self.log.prepare()?;
                }
                self.chore()
            }
            12 | 13 => {
                self.commit = self.rng.between(self.commit, self.acked.last);
                let index = self.rng.between(self.stamp.index, self.commit);
                if let Some(term) = self.acked.term_at(index) {
                    self.stamp = meta(index, term);
                }
                Ok(())
            }
            14 => {
                next.base = next.base.max(self.stamp.index);
                self.log.purge(&self.stamp.clone())
            }
            _ => self.reset(next),
        }
    }

    /// What is committed is read back as it was written, whatever was overwritten before; what was
    /// removed is not there.
    fn read_back(&mut self) {
        let (after, through) = (self.acked.base, self.commit);
        if after >= through {
            return;
        }
        let after = self.rng.between(after, through - 1);
        let terms = self.acked.entries.range(after + 1..=through);
        let terms: Vec<(u64, u64)> = terms.map(|(i, e)| (*i, e.term)).collect();
        let (reader, mut place, mut at) = (self.log.reader(), None, after);
        while at < through {
            let fetch = Fetch {
                to: 1,
                after: at,
                terms: terms.clone(),
                max_bytes: self.rng.between(1, 8000) as usize,
            };
            if self.rng.one_in(4) {
                place = None;
            }
            let (entries, reached) = reader.read(&fetch, place).expect("readable");
            let whole = entries.iter().map(Entry::size).sum::<usize>();
            let fits = entries.len() == 1 || whole <= fetch.max_bytes;
            assert!(!entries.is_empty() && fits, "{}", self.story.join("\n"));
            for entry in &entries {
                at += 1;
                let held = self.acked.entries.get(&at);
                assert_eq!(Some(entry), held, "\n{}", self.story.join("\n"));
            }
            place = reached;
            self.read += entries.len();
        }
    }

    /// Begins a chore, or does the one that was begun some operations ago.
    fn chore(&mut self) -> Result<(), LogError> {
        match self.chore.take() {
            Some(chore) => {
                let ended = chore.run();
                self.log.finished(ended)
            }
            None => {
                self.chore = self.log.chore();
                Ok(())
            }
        }
    }

    fn reset(&mut self, next: &mut Model) -> Result<(), LogError> {
        let mut hard = self.acked.hard_state;
        let index = self
            .rng
            .between(self.commit.max(self.stamp.index) + 1, self.acked.last + 3);
        let term = match self.acked.term_at(index).filter(|_| self.rng.one_in(2)) {
            Some(term) => term,
            None => {
                hard = hard_state(hard.term + 1, None);
                hard.term
            }
        };
        // The state has switched to the snapshot before the log hears of it.
        self.stamp = meta(index, term);
        self.commit = index;
        let suffix = next.reset(hard, &self.stamp);
        self.log.reset(hard, &self.stamp.clone(), &suffix)
    }

    fn recover(&mut self, candidates: &[Model]) {
        self.chore = None;
        self.leave(u64::MAX);
        let found = loop {
            self.disk.clear_faults();
            if self.rng.one_in(4) {
                self.disk.crash_at(self.rng.between(1, 18));
            }
            match open(&self.disk.disk(), &self.stamp) {
                Ok((log, found)) => {
                    self.log = log;
                    break found;
                }
                Err(error) => self.story.push(format!("open: {error}")),
            }
            assert!(self.disk.crashed(), "{}", self.story.join("\n"));
            if self.rng.one_in(2) {
                self.disk.process_kill();
            } else {
                self.disk.power_fail();
            }
            self.disk.clear_faults();
        };
        self.disk.clear_faults();
        assert!(
            !found.fresh,
            "the log was forgotten\n{}",
            self.story.join("\n")
        );
        assert_eq!(found.damage, None, "\n{}", self.story.join("\n"));
        self.story.push(format!(
            "recovered {} to {:?}, {:?}, torn {:?}",
            found.base.index,
            found.entries.last().map(|e| (e.index, e.term)),
            found.hard_state,
            found.torn
        ));
        // What was said with the last batch that was acknowledged, and never more than is true.
        let said = self
            .said
            .min(found.entries.last().map_or(found.base.index, |e| e.index));
        let found_commit = found.commit.max(self.stamp.index);
        let known = (said..=self.commit).contains(&found_commit);
        assert!(
            known,
            "{} is committed, and {said} was said: {}",
            self.commit, found.commit
        );
        let behind = |m: &Model| m.behind(&self.stamp).without_covered(&self.stamp, &found);
        let candidates: Vec<Model> = candidates.iter().map(behind).collect();
        let reasons: Vec<_> = candidates
            .iter()
            .filter_map(|m| m.differs(&found))
            .collect();
        match candidates.into_iter().find(|m| m.differs(&found).is_none()) {
            Some(model) => self.acked = model,
            None => panic!("{reasons:#?}\n{}", self.story.join("\n")),
        }
    }

    /// So much room is left on the disk, until it is given more.
    fn leave(&mut self, bytes: u64) {
        let mut options = self.disk.options();
        options.capacity = self.disk.used().saturating_add(bytes);
        self.disk.set_options(options);
    }

    fn step(&mut self) {
        let fault = self.rng.below(12);
        match fault {
            0 => self.disk.crash_at(self.rng.between(1, 8)),
            1 => {
                let op = [DiskOp::Write, DiskOp::Sync, DiskOp::Name][self.rng.below(3) as usize];
                let kind = match self.rng.one_in(2) {
                    true => ErrorKind::StorageFull,
                    false => ErrorKind::Other,
                };
                self.disk.fail_nth(op, self.rng.between(1, 3), kind);
            }
            2 => {
                let bytes = self.rng.below(150 << 10);
                self.leave(bytes);
            }
            3 => self.leave(u64::MAX),
            _ => {}
        }
        let mut next = self.acked.clone();
        let done = self.operate(&mut next);
        self.story.push(format!(
            "fault {fault}: to {} {:?}, stamp {}: {done:?}",
            next.last, next.hard_state, self.stamp.index
        ));
        match done {
            Ok(()) => self.acked = next,
            Err(_) => {
                // Nothing after an error may be acknowledged, whatever the disk says now.
                self.disk.clear_faults();
                let empty = Batch {
                    commit: 0,
                    hard_state: self.acked.hard_state,
                    runs: Vec::new(),
                };
                assert!(self.log.append(&empty).is_err(), "used after an error");
                if self.rng.one_in(2) {
                    self.disk.power_fail();
                } else {
                    self.disk.process_kill();
                }
                let before = self.acked.clone();
                self.recover(&[before, next]);
                return;
            }
        }
        if self.disk.crashed() || self.rng.one_in(12) {
            match self.rng.one_in(3) {
                true => self.disk.process_kill(),
                false => self.disk.power_fail(),
            }
            self.disk.clear_faults();
            let acked = self.acked.clone();
            self.recover(&[acked]);
        }
        self.disk.clear_faults();
        if self.rng.one_in(6) {
            self.read_back();
        }
    }
}

#[test]
fn nothing_acknowledged_is_lost() {
    block_on_test(async {
        let mut read = 0;
        for seed in 0..400 {
            let mut walk = Walk::start(seed);
            walk.story.push(format!("seed {seed}"));
            for _ in 0..120 {
                walk.step();
            }
            read += walk.read;
        }
        assert!(read > 10_000, "{read} entries were read back");
    });
}
