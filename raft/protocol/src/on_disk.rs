//! What is remembered of entries that have left the memory: their terms and how long they are.

use crate::types::{Entry, Index, Term};
use std::collections::VecDeque;

/// Entries are remembered in runs of one term and about this many bytes.
const RUN_BYTES: usize = 32 << 10;

/// Consecutive entries of one term, behind those of the run before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Run {
    last: Index,
    term: Term,
    bytes: usize,
}

/// Entries between the log's base and the first one in memory. Some 32 bytes for every 32 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct OnDisk {
    runs: VecDeque<Run>,
    bytes: usize,
}

impl OnDisk {
    /// Somewhat more than there are when the base lies inside a run.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn last_term(&self) -> Option<Term> {
        self.runs.back().map(|run| run.term)
    }

    /// The next one has left the memory.
    pub(crate) fn push(&mut self, entry: &Entry) {
        let bytes = entry.size();
        self.bytes += bytes;
        match self.runs.back_mut() {
            Some(run) if run.term == entry.term && run.bytes < RUN_BYTES => {
                run.last = entry.index;
                run.bytes += bytes;
            }
            _ => self.runs.push_back(Run {
                last: entry.index,
                term: entry.term,
                bytes,
            }),
        }
    }

    /// The base is here now.
    pub(crate) fn forget(&mut self, base: Index) {
        while let Some(run) = self.runs.front().filter(|run| run.last <= base) {
            self.bytes -= run.bytes;
            self.runs.pop_front();
        }
    }

    /// The place of the run with this index, which is above the base.
    fn place(&self, index: Index) -> usize {
        self.runs.partition_point(|run| run.last < index)
    }

    /// The term of an index above the base.
    pub(crate) fn term(&self, index: Index) -> Option<Term> {
        self.runs.get(self.place(index)).map(|run| run.term)
    }

    /// Terms of the entries behind `after`, of `max_bytes` of them or some more, each with the last
    /// index that it reaches to.
    pub(crate) fn terms(&self, after: Index, max_bytes: usize) -> Vec<(Index, Term)> {
        let mut bytes = 0usize;
        let runs = self.runs.iter().skip(self.place(after + 1)).enumerate();
        let fit = runs.take_while(|(n, run)| {
            let fits = bytes <= max_bytes;
            // The first may be asked for from its end on.
            bytes = bytes.saturating_add(if *n == 0 { 1 } else { run.bytes });
            fits
        });
        fit.map(|(_, run)| run)
            .map(|run| (run.last, run.term))
            .collect()
    }

    /// The last entry at or before `index` whose term is not above `term`, if one is behind the base.
    pub(crate) fn hint(&self, index: Index, term: Term) -> Option<(Index, Term)> {
        let n = self.runs.partition_point(|run| run.term <= term);
        let run = &self.runs[n.checked_sub(1)?.min(self.place(index))];
        Some((run.last.min(index), run.term))
    }

    /// The least index between `base` and `through` behind which the entries through `through` have no
    /// more than `keep` bytes. Whole runs count.
    pub(crate) fn within(&self, base: Index, through: Index, keep: usize) -> Index {
        let (mut least, mut kept) = (through, 0usize);
        for place in (0..self.runs.len().min(self.place(through) + 1)).rev() {
            kept = kept.saturating_add(self.runs[place].bytes);
            if kept > keep {
                break;
            }
            let before = place.checked_sub(1).map(|place| self.runs[place].last);
            least = before.map_or(base, |last| last.max(base));
        }
        least
    }

    /// Runs that follow one another from the base through `last`.
    pub(crate) fn check(&self, base: (Index, Term), last: Index) -> Result<(), String> {
        let ((mut index, mut term), mut bytes) = (base, 0);
        for run in &self.runs {
            if run.last <= index || run.term < term {
                return Err(format!("{run:?} behind ({index}, t{term})"));
            }
            (index, term) = (run.last, run.term);
            bytes += run.bytes;
        }
        if (index, bytes) != (last, self.bytes) {
            return Err(format!(
                "{bytes} bytes on disk alone through {index}, and {} through {last} are counted",
                self.bytes
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Body, Payload};

    /// Entries 11 and following, of these terms, of a quarter of a run each.
    fn on_disk(terms: &[Term]) -> OnDisk {
        let mut on_disk = OnDisk::default();
        for (term, index) in terms.iter().zip(11..) {
            let body = Body::Command(Payload::from(vec![0; RUN_BYTES / 4]));
            let entry = Entry {
                term: *term,
                index,
                body,
            };
            on_disk.push(&entry);
        }
        on_disk
    }

    #[test]
    fn terms_and_hints_are_those_of_the_entries() {
        let terms = [1, 1, 1, 1, 1, 3, 3, 4];
        let mut entries = on_disk(&terms);
        assert_eq!(entries.runs.len(), 4, "two of term 1");
        for forgotten in 10..19 {
            entries.forget(forgotten);
            let first = forgotten + 1;
            for index in first..=18 {
                assert_eq!(entries.term(index), Some(terms[index as usize - 11]));
                for term in 0..6 {
                    let at_most = |i: &Index| terms[*i as usize - 11] <= term;
                    let hint = (11..=index).rev().find(at_most);
                    let hint = hint.filter(|i| *i >= first);
                    let hint = hint.map(|i| (i, terms[i as usize - 11]));
                    let found = entries.hint(index, term);
                    let found = found.filter(|(index, _)| *index >= first);
                    assert_eq!(found, hint, "{index}, t{term} behind {forgotten}");
                }
            }
            entries.check((forgotten, 0), 18).unwrap();
        }
        assert_eq!(entries, OnDisk::default());
        assert_eq!(entries.hint(18, 9), None);
    }

    #[test]
    fn what_is_kept_is_counted_in_whole_runs() {
        let entries = on_disk(&[1, 1, 1, 1, 1, 3, 3, 4]); // runs through 14, 15, 17, 18
        let quarter = RUN_BYTES / 4 + 64;
        let within = |through, quarters| entries.within(10, through, quarters * quarter);
        let least: Vec<Index> = (0..10).map(|quarters| within(18, quarters)).collect();
        assert_eq!(least, [18, 17, 17, 15, 14, 14, 14, 14, 10, 10]);
        assert_eq!((within(15, 0), within(15, 1), within(13, 4)), (15, 14, 10));
        assert_eq!(entries.within(12, 18, usize::MAX), 12);
        assert_eq!(OnDisk::default().within(12, 12, usize::MAX), 12);
    }

    #[test]
    fn terms_are_given_for_what_was_asked_for() {
        let entries = on_disk(&[1, 1, 1, 1, 1, 3, 3, 4]);
        let all = vec![(14, 1), (15, 1), (17, 3), (18, 4)];
        assert_eq!(entries.terms(10, usize::MAX), all);
        assert_eq!(entries.terms(14, usize::MAX), all[1..]);
        assert_eq!(entries.terms(16, usize::MAX), all[2..]);
        assert_eq!(entries.terms(10, 1), all[..2]);
        assert_eq!(entries.terms(18, usize::MAX), []);
    }
}
