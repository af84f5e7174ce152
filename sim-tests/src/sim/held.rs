//! What a log is known to hold, as runs of terms: a log of any length is as small as the number of
//! its terms, so that logs are copied and compared at every step.

/// Terms of a log behind its base, and the hard state beside it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) term: u64,
    pub(super) vote: u64,
    /// Index and term of what lies before the log.
    pub(super) base: (u64, u64),
    /// (first index, term) of each run, in order; the last one ends at `last`.
    runs: Vec<(u64, u64)>,
    last: u64,
}

impl Held {
    /// An empty log.
    pub(super) fn new(term: u64, vote: u64, base: (u64, u64)) -> Held {
        Held {
            term,
            vote,
            base,
            runs: Vec::new(),
            last: base.0,
        }
    }

    /// Starts afresh behind a base.
    pub(super) fn reset(&mut self, base: (u64, u64)) {
        self.base = base;
        self.runs.clear();
        self.last = base.0;
    }

    /// The last index.
    pub(super) fn last(&self) -> u64 {
        self.last.max(self.base.0)
    }

    /// Entries of one term, replacing everything at and behind the first. True when something was
    /// replaced.
    pub(super) fn append(&mut self, term: u64, first: u64, last: u64) -> bool {
        assert!(
            first > self.base.0 && first <= self.last() + 1 && last >= first,
            "I2: entries {first}..={last} do not continue a log of {}..={}",
            self.base.0,
            self.last()
        );
        let replaced = first <= self.last();
        while self.runs.last().is_some_and(|(start, _)| *start >= first) {
            self.runs.pop();
        }
        if self.runs.last().is_none_or(|(_, t)| *t != term) {
            self.runs.push((first, term));
        }
        self.last = last;
        replaced
    }

    /// The term at an index, from the base on.
    pub(super) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        if index < self.base.0 || index > self.last() {
            return None;
        }
        let run = self.runs.partition_point(|(first, _)| *first <= index);
        run.checked_sub(1).map(|run| self.runs[run].1)
    }

    /// True when the entry is here, or lies below the base.
    pub(super) fn holds(&self, index: u64, term: u64) -> bool {
        index < self.base.0 || self.term_at(index) == Some(term)
    }

    /// (first, last, term) of each run that reaches into `from..=to`, cut to it.
    pub(super) fn between(&self, from: u64, to: u64) -> impl Iterator<Item = (u64, u64, u64)> {
        let start = self.runs.partition_point(|(first, _)| *first <= from);
        let start = start.saturating_sub(1);
        let end = self.last();
        (start..self.runs.len()).map_while(move |n| {
            let (first, term) = self.runs[n];
            let last = self.runs.get(n + 1).map_or(end, |(next, _)| next - 1);
            let (first, last) = (first.max(from), last.min(to));
            (first <= last).then_some((first, last, term))
        })
    }

    /// The same entries behind both bases.
    pub(super) fn same_behind_bases(&self, other: &Held) -> bool {
        let from = self.base.0.max(other.base.0) + 1;
        self.last() == other.last()
            && self
                .between(from, u64::MAX)
                .eq(other.between(from, u64::MAX))
    }

    /// Log matching (§5.3): where two logs have an entry of the same index and term, everything
    /// before it is the same. The first index (from the end) that contradicts it.
    pub(super) fn contradiction(&self, other: &Held) -> Option<u64> {
        let from = self.base.0.max(other.base.0);
        let mut at = self.last().min(other.last());
        let mut matched = false;
        while at >= from && at > 0 {
            let (ours, theirs) = (self.term_at(at)?, other.term_at(at)?);
            match (matched, ours == theirs) {
                (true, false) => return Some(at),
                (_, same) => matched = same,
            }
            // To the start of the shorter of the two runs.
            let start = self.run_start(at).max(other.run_start(at)).max(from);
            if start <= from {
                return None;
            }
            at = start - 1;
        }
        None
    }

    fn run_start(&self, index: u64) -> u64 {
        let run = self.runs.partition_point(|(first, _)| *first <= index);
        run.checked_sub(1).map_or(0, |run| self.runs[run].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(base: (u64, u64), runs: &[(u64, u64, u64)]) -> Held {
        let mut held = Held::default();
        held.reset(base);
        for (term, first, last) in runs {
            held.append(*term, *first, *last);
        }
        held
    }

    #[test]
    fn runs_are_joined_cut_and_found() {
        let mut held = log((0, 0), &[(1, 1, 3), (1, 4, 5), (3, 6, 9)]);
        assert_eq!(held.runs, [(1, 1), (6, 3)]);
        assert!(held.append(4, 5, 5));
        assert_eq!(
            (held.last(), held.term_at(4), held.term_at(5)),
            (5, Some(1), Some(4))
        );
        assert_eq!(held.term_at(6), None);
        assert_eq!(
            held.between(2, 5).collect::<Vec<_>>(),
            [(2, 4, 1), (5, 5, 4)]
        );
        assert!(held.holds(4, 1) && !held.holds(4, 2));
        held.reset((7, 4));
        assert!(held.holds(6, 9) && held.term_at(7) == Some(4) && held.last() == 7);
    }

    #[test]
    fn matching_logs_and_such_that_do_not() {
        let a = log((0, 0), &[(1, 1, 3), (3, 4, 6)]);
        assert_eq!(
            a.contradiction(&log((0, 0), &[(1, 1, 3), (3, 4, 5), (4, 6, 9)])),
            None
        );
        assert_eq!(a.contradiction(&log((0, 0), &[(1, 1, 2), (2, 3, 5)])), None);
        assert_eq!(
            a.contradiction(&log((0, 0), &[(1, 1, 2), (2, 3, 3), (3, 4, 5)])),
            Some(3)
        );
        assert_eq!(a.contradiction(&log((3, 2), &[(3, 4, 5)])), Some(3));
        assert_eq!(a.contradiction(&log((3, 1), &[(3, 4, 5)])), None);
        assert_eq!(a.contradiction(&log((9, 3), &[])), None);
    }
}
