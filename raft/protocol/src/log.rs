//! The log in memory: what lies behind the base, and through where it is synced.
//!
//! An index is durable when the *last* write that touched it is. (Index, term) would not do as
//! the name of a write: (2, t1) is in flight; a leader of t2 overwrites index 2; a leader of t3
//! sends (2, t1) again; the first write's completion would be taken for the third's.

use crate::input::SnapshotMeta;
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
    /// Consecutive; the first has index `base.index + 1`.
    entries: Vec<Entry>,
    bytes: usize,
    synced: Index,
    pending: VecDeque<Pending>,
    /// Memberships in `entries`, in order (§6: the newest in the log is in force).
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

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Through where the log is synced.
    pub(crate) fn synced(&self) -> Index {
        self.synced
    }

    pub(crate) fn last_index(&self) -> Index {
        self.base.index + self.entries.len() as u64
    }

    pub(crate) fn last_term(&self) -> Term {
        self.entries.last().map_or(self.base.term, |e| e.term)
    }

    /// The term at an index; `None` below the base and behind the end.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.get(index).map(|e| e.term)
    }

    fn get(&self, index: Index) -> Option<&Entry> {
        let offset = index.checked_sub(self.base.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }

    fn offset(&self, index: Index) -> usize {
        (index - self.base.index - 1) as usize
    }

    /// Entries from `from` through `through`, at most `max_bytes` of them but at least one.
    pub(crate) fn slice(&self, from: Index, through: Index, max_bytes: usize) -> &[Entry] {
        let through = through.min(self.last_index());
        if from <= self.base.index || from > through {
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

    /// Bytes of the entries in (`after`, `through`].
    pub(crate) fn bytes_between(&self, after: Index, through: Index) -> usize {
        let after = after.max(self.base.index);
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
        let all = &self.entries[..=self.offset(through)];
        match all.partition_point(|e| e.term <= term) {
            0 => (self.base.index, self.base.term),
            n => (all[n - 1].index, all[n - 1].term),
        }
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
            first > self.base.index && first <= self.last_index() + 1,
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
        let dropped = self.offset(index) + 1;
        self.bytes -= self.entries[..dropped]
            .iter()
            .map(Entry::size)
            .sum::<usize>();
        self.entries.drain(..dropped);
        if self.entries.capacity() > 4 * self.entries.len() + SHRINK_ABOVE {
            self.entries.shrink_to(2 * self.entries.len());
        }
        let gone = self.configurations.partition_point(|(i, _)| *i <= index);
        if let Some((_, c)) = self.configurations.drain(..gone).next_back() {
            self.base.configuration = c;
        }
        self.base.index = index;
        self.base.term = term;
    }

    /// Starts afresh behind a snapshot, as part of write `number`. The suffix is kept if this
    /// log's term at the snapshot's index is the snapshot's, dropped otherwise; says which.
    pub(crate) fn reset(&mut self, number: u64, meta: SnapshotMeta) -> bool {
        let keep = self.term(meta.index) == Some(meta.term);
        let dropped = if keep {
            (meta.index - self.base.index) as usize
        } else {
            self.entries.len()
        };
        self.entries.drain(..dropped);
        self.bytes = self.entries.iter().map(Entry::size).sum();
        self.configurations = configurations_in(&self.entries);
        // The write touches all there is: nothing above what was synced before is durable, and
        // not even that counts behind the new base.
        self.synced = self.synced.min(meta.index);
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
            self.base.term
        } else {
            self.entries[start - 1].term
        };
        for (i, entry) in self.entries.iter().enumerate().skip(start) {
            if entry.index != self.base.index + 1 + i as u64 {
                return Err(format!(
                    "entry {} at place {i} behind base {}",
                    entry.index, self.base.index
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
        }
        if self.synced > self.last_index() {
            return Err(format!(
                "synced {} > last {}",
                self.synced,
                self.last_index()
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
