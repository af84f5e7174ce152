//! The log behind the base: its newest entries, the terms of those that are on disk alone, and
//! through where it is synced.
//!
//! An index is durable when the *last* write that touched it is. (Index, term) would not do as
//! the name of a write: (2, t1) is in flight; a leader of t2 overwrites index 2; a leader of t3
//! sends (2, t1) again; the first write's completion would be taken for the third's.

use crate::input::SnapshotMeta;
use crate::on_disk::OnDisk;
use crate::types::{Body, Configuration, Entry, Index, Term};
use std::collections::VecDeque;

/// Spare room in the entries' buffer that is given back at a compaction.
const SHRINK_ABOVE: usize = 4096;

/// A write under way and the indices of which it is the last write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Pending {
    number: u64,
    first: Index,
    last: Index,
}

/// The log of one node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Log {
    base: SnapshotMeta,
    /// Entries through here, if above the base, are on disk alone. They are committed and synced, so
    /// none of them is ever replaced.
    evicted: Index,
    on_disk: OnDisk,
    /// Consecutive; the first has index `evicted + 1`.
    entries: Vec<Entry>,
    bytes: usize,
    synced: Index,
    pending: VecDeque<Pending>,
    /// Memberships behind the base, in order (§6: the newest in the log is in force).
    configurations: Vec<(Index, Configuration)>,
}

impl Log {
    /// A log that is durable as given. Entries at or below the base are dropped; so is
    /// everything from the first gap on.
    pub(crate) fn new(base: SnapshotMeta, entries: Vec<Entry>) -> Log {
        let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
        for entry in entries {
            if entry.index <= base.index {
                continue;
            }
            if entry.index != base.index + 1 + kept.len() as u64 {
                break;
            }
            kept.push(entry);
        }
        let mut log = Log {
            synced: base.index + kept.len() as u64,
            evicted: base.index,
            on_disk: OnDisk::default(),
            base,
            bytes: kept.iter().map(Entry::size).sum(),
            entries: kept,
            pending: VecDeque::new(),
            configurations: Vec::new(),
        };
        log.configurations = configurations_in(&log.entries);
        log
    }

    pub(crate) fn base(&self) -> &SnapshotMeta {
        &self.base
    }

    /// Bytes of the entries in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the entries on disk alone; somewhat more when the base lies inside a run.
    pub(crate) fn on_disk_bytes(&self) -> usize {
        self.on_disk.bytes()
    }

    /// Entries through here have left the memory; at least the base's index.
    pub(crate) fn evicted(&self) -> Index {
        self.evicted
    }

    /// Through where the log is synced.
    pub(crate) fn synced(&self) -> Index {
        self.synced
    }

    pub(crate) fn last_index(&self) -> Index {
        self.evicted + self.entries.len() as u64
    }

    pub(crate) fn last_term(&self) -> Term {
        let before = self.evicted_term();
        self.entries.last().map_or(before, |e| e.term)
    }

    /// The term at an index; `None` below the base and behind the end.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if index > self.base.index && index <= self.evicted {
            return self.on_disk.term(index);
        }
        self.get(index).map(|e| e.term)
    }

    /// The term of the last entry that is not in memory.
    fn evicted_term(&self) -> Term {
        self.on_disk.last_term().unwrap_or(self.base.term)
    }

    fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.evicted + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    fn offset(&self, index: Index) -> usize {
        (index - self.evicted - 1) as usize
    }

    /// Entries from `from` through `through`, at most `max_bytes` of them but at least one; none when
    /// the first is not in memory.
    pub(crate) fn slice(&self, from: Index, through: Index, max_bytes: usize) -> &[Entry] {
        let through = through.min(self.last_index());
        if from <= self.evicted || from > through {
            return &[];
        }
        let all = &self.entries[self.offset(from)..=self.offset(through)];
        let mut bytes = 0usize;
        let fit = all.iter().take_while(|e| {
            bytes = bytes.saturating_add(e.size());
            bytes <= max_bytes
        });
        &all[..fit.count().max(1)]
    }

    /// Terms of the entries behind `after` that are on disk alone, about `max_bytes` of them: each with
    /// the last index that it reaches to.
    pub(crate) fn terms_on_disk(&self, after: Index, max_bytes: usize) -> Vec<(Index, Term)> {
        self.on_disk.terms(after, max_bytes)
    }

    /// The least index at or below `through` behind which the log through `through` has no more than
    /// `keep` bytes. Of what is on disk alone whole runs count.
    pub(crate) fn within(&self, through: Index, keep: usize) -> Index {
        let through = through.min(self.last_index());
        let in_memory = self.slice(self.evicted + 1, through, usize::MAX);
        let mut kept = 0usize;
        let fits = in_memory.iter().rev().take_while(|e| {
            kept = kept.saturating_add(e.size());
            kept <= keep
        });
        let count = fits.count();
        if count < in_memory.len() {
            return through - count as Index;
        }
        let (base, least) = (self.base.index, through.min(self.evicted));
        let left = keep.saturating_sub(kept);
        self.on_disk.within(base, least, left).min(through)
    }

    /// Bytes of the entries in (`after`, `through`] that are in memory.
    pub(crate) fn bytes_between(&self, after: Index, through: Index) -> usize {
        let after = after.max(self.evicted);
        self.slice(after + 1, through, usize::MAX)
            .iter()
            .map(Entry::size)
            .sum()
    }

    /// The last entry at or before `index` whose term is not above `term`: where a log that
    /// ends in (`index`, `term`) may agree with this one. Terms never fall along a log, so it
    /// is found by bisection; the base bounds it from below, being committed.
    pub(crate) fn hint(&self, index: Index, term: Term) -> (Index, Term) {
        let through = index.min(self.last_index());
        if through <= self.base.index {
            return (
                through,
                if through == self.base.index {
                    self.base.term
                } else {
                    0
                },
            );
        }
        if through > self.evicted {
            let all = &self.entries[..=self.offset(through)];
            if let Some(n) = all.partition_point(|e| e.term <= term).checked_sub(1) {
                return (all[n].index, all[n].term);
            }
        }
        let on_disk = self.on_disk.hint(through.min(self.evicted), term);
        on_disk.unwrap_or((self.base.index, self.base.term))
    }

    /// The newest membership in the log, or the base's.
    pub(crate) fn configuration(&self) -> &Configuration {
        self.configurations
            .last()
            .map_or(&self.base.configuration, |(_, c)| c)
    }

    /// The membership of a log that has none.
    pub(crate) fn set_base_configuration(&mut self, configuration: Configuration) {
        self.base.configuration = configuration;
    }

    /// Appends consecutive entries as part of write `number`, replacing everything at and
    /// behind the first one's index.
    pub(crate) fn append(&mut self, number: u64, entries: impl IntoIterator<Item = Entry>) {
        let mut entries = entries.into_iter().peekable();
        let Some(first) = entries.peek().map(|e| e.index) else {
            return;
        };
        assert!(
            first > self.evicted && first <= self.last_index() + 1,
            "entries follow the log without a gap"
        );
        self.truncate(first);
        for entry in entries {
            debug_assert_eq!(entry.index, self.last_index() + 1);
            self.bytes += entry.size();
            if let Body::Configuration(c) = &entry.body {
                self.configurations.push((entry.index, c.clone()));
            }
            self.entries.push(entry);
        }
        let last = self.last_index();
        match self.pending.back_mut() {
            Some(p) if p.number == number && p.last + 1 == first => p.last = last,
            _ => self.pending.push_back(Pending {
                number,
                first,
                last,
            }),
        }
    }

    /// Forgets `from` and what follows, and that older writes ever touched it.
    fn truncate(&mut self, from: Index) {
        if from > self.last_index() {
            return;
        }
        let keep = self.offset(from);
        self.bytes -= self.entries[keep..].iter().map(Entry::size).sum::<usize>();
        self.entries.truncate(keep);
        self.configurations.retain(|(index, _)| *index < from);
        self.synced = self.synced.min(from - 1);
        while self.pending.back().is_some_and(|p| p.first >= from) {
            self.pending.pop_back();
        }
        if let Some(p) = self.pending.back_mut() {
            p.last = p.last.min(from - 1);
        }
    }

    /// Every write up to `number` is durable.
    pub(crate) fn persisted(&mut self, number: u64) {
        while let Some(p) = self.pending.front().filter(|p| p.number <= number) {
            self.synced = self.synced.max(p.last);
            self.pending.pop_front();
        }
    }

    /// Every write's number is lower by `shift` from now on.
    pub(crate) fn renumber(&mut self, shift: u64) {
        self.pending.iter_mut().for_each(|p| p.number -= shift);
    }

    /// The write on which the durability of the log through `index` rests; 0 when it is durable.
    pub(crate) fn write_of(&self, index: Index) -> u64 {
        let n = self.pending.partition_point(|p| p.first <= index);
        if n == 0 {
            0
        } else {
            self.pending[n - 1].number
        }
    }

    /// Forgets the entries through `index`, which is synced.
    pub(crate) fn compact(&mut self, index: Index) {
        let Some(term) = self.term(index).filter(|_| index > self.base.index) else {
            return;
        };
        if index > self.evicted {
            self.let_go(index);
        }
        self.on_disk.forget(index);
        let gone = self.configurations.partition_point(|(i, _)| *i <= index);
        if let Some((_, c)) = self.configurations.drain(..gone).next_back() {
            self.base.configuration = c;
        }
        self.base.index = index;
        self.base.term = term;
    }

    /// Of the entries through `index`, which are committed and synced, the oldest leave the memory: so
    /// many that the log has `keep` bytes there. Not for a few: those behind them have to be moved.
    pub(crate) fn evict(&mut self, index: Index, keep: usize) {
        if self.bytes <= keep.saturating_add(keep / 4) {
            return;
        }
        let mut bytes = self.bytes;
        let mut through = self.evicted;
        for entry in self.entries.iter().take_while(|e| e.index <= index) {
            if bytes <= keep {
                break;
            }
            bytes -= entry.size();
            through = entry.index;
        }
        if through > self.evicted {
            self.let_go(through);
        }
    }

    /// The entries in memory through `index` leave it.
    fn let_go(&mut self, index: Index) {
        let gone = self.offset(index) + 1;
        for entry in self.entries.drain(..gone) {
            self.bytes -= entry.size();
            self.on_disk.push(&entry);
        }
        self.evicted = index;
        if self.entries.capacity() > 4 * self.entries.len() + SHRINK_ABOVE {
            self.entries.shrink_to(2 * self.entries.len());
        }
    }

    /// Starts afresh behind a snapshot, as part of write `number`. The suffix is kept if this
    /// log's term at the snapshot's index is the snapshot's, dropped otherwise; says which.
    pub(crate) fn reset(&mut self, number: u64, meta: SnapshotMeta) -> bool {
        // What has left the memory is applied, and so below every snapshot that is of use.
        let keep = meta.index >= self.evicted && self.term(meta.index) == Some(meta.term);
        let dropped = if keep {
            (meta.index - self.evicted) as usize
        } else {
            self.entries.len()
        };
        self.entries.drain(..dropped);
        self.bytes = self.entries.iter().map(Entry::size).sum();
        self.configurations = configurations_in(&self.entries);
        // The write touches all there is: nothing above what was synced before is durable, and
        // not even that counts behind the new base.
        self.synced = self.synced.min(meta.index);
        self.evicted = meta.index;
        self.on_disk = OnDisk::default();
        self.base = meta;
        self.pending.clear();
        self.pending.push_back(Pending {
            number,
            first: 0,
            last: self.last_index(),
        });
        keep
    }

    /// Consecutive indices, terms that never fall, sums that are right. Looks at the last
    /// `window` entries only.
    pub(crate) fn check(&self, window: usize) -> Result<(), String> {
        let start = self.entries.len().saturating_sub(window);
        let mut term = if start == 0 {
            self.evicted_term()
        } else {
            self.entries[start - 1].term
        };
        for (i, entry) in self.entries.iter().enumerate().skip(start) {
            if entry.index != self.evicted + 1 + i as u64 {
                return Err(format!(
                    "entry {} at place {i} behind {}",
                    entry.index, self.evicted
                ));
            }
            if entry.term < term {
                return Err(format!(
                    "entry {} has term {} behind term {term}",
                    entry.index, entry.term
                ));
            }
            term = entry.term;
        }
        if start == 0 {
            let bytes: usize = self.entries.iter().map(Entry::size).sum();
            if bytes != self.bytes {
                return Err(format!("{bytes} bytes held, {} counted", self.bytes));
            }
            let base = (self.base.index, self.base.term);
            self.on_disk.check(base, self.evicted)?;
        }
        if self.synced > self.last_index() {
            return Err(format!(
                "synced {} > last {}",
                self.synced,
                self.last_index()
            ));
        }
        if self.evicted > self.synced.max(self.base.index) {
            return Err(format!(
                "{} is evicted, {} is synced",
                self.evicted, self.synced
            ));
        }
        Ok(())
    }
}

fn configurations_in(entries: &[Entry]) -> Vec<(Index, Configuration)> {
    let of = |e: &Entry| match &e.body {
        Body::Configuration(c) => Some((e.index, c.clone())),
        _ => None,
    };
    entries.iter().filter_map(of).collect()
}
