//! Walking all blocks slowly, to find damage before it is asked for.

use super::{BLOCK, PER_GROUP, Paged, layout, lock};
use std::io;

/// Blocks that a scrub reads at once.
const STEP: u64 = 64;

/// What a scrub found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scrubbed {
    /// Blocks that were verified, unwritten ones included.
    pub checked: u64,
    /// Blocks that matched earlier since the file was opened and do not now. This is damage, and has
    /// been reported as such.
    pub damaged: Vec<u64>,
    /// Blocks that do not match and never did since the file was opened: damage, or what a crash
    /// left of a block that was never synced, which nobody refers to. A read tells.
    pub suspect: Vec<u64>,
    /// Where to go on; None at the end of the file.
    pub next: Option<u64>,
}

impl Paged {
    /// Verifies `count` blocks from block `start`. Reads and writes may go on meanwhile.
    pub fn scrub(&self, start: u64, count: u64) -> io::Result<Scrubbed> {
        let mut found = Scrubbed::default();
        let mut at = start;
        loop {
            let blocks = self.blocks()?;
            let end = start.saturating_add(count).min(blocks);
            if at >= end {
                found.next = (end < blocks).then_some(end);
                return Ok(found);
            }
            let step_end = (at + STEP).min(end).min((at / PER_GROUP + 1) * PER_GROUP);
            // Without the lock first, so that a healthy file's writer never waits for the scrub.
            for block in self.mismatches(at, step_end)? {
                let failed = lock(&self.0.changing);
                if failed.is_some() {
                    // What is on disk after a failed change is nobody's to know: not damage.
                    found.next = None;
                    return Ok(found);
                }
                if block < self.blocks()? && !self.mismatches(block, block + 1)?.is_empty() {
                    self.note(block, &mut found)?;
                }
            }
            found.checked += step_end - at;
            at = step_end;
        }
    }

    /// The blocks in [start, end), all of one group, that do not match; the others are noted as good.
    fn mismatches(&self, start: u64, end: u64) -> io::Result<Vec<u64>> {
        let mut content = vec![0; (end - start) as usize * BLOCK];
        match self
            .0
            .file
            .read_exact_at(&mut content, layout::block_offset(start))
        {
            // The file was cut meanwhile.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(Vec::new()),
            read => read?,
        }
        let sums = self.0.sums(start, (end - start) as usize)?;
        let blocks = (start..end).zip(content.chunks_exact(BLOCK)).zip(sums);
        let bad: Vec<u64> = blocks
            .filter(|((block, content), sum)| self.0.mismatch(*block, content, *sum).is_some())
            .map(|((block, _), _)| block)
            .collect();
        self.0.with_group(start / PER_GROUP, |group| {
            for block in (start..end).filter(|block| !bad.contains(block)) {
                group.good[(block % PER_GROUP) as usize] = true;
            }
        })?;
        Ok(bad)
    }

    fn note(&self, block: u64, found: &mut Scrubbed) -> io::Result<()> {
        let was_good = self.0.with_group(block / PER_GROUP, |group| {
            group.good[(block % PER_GROUP) as usize]
        })?;
        if was_good {
            found.damaged.push(block);
            self.0.damage.report(&format!(
                "{}: block {block} is damaged",
                self.0.path.display()
            ));
        } else {
            found.suspect.push(block);
        }
        Ok(())
    }
}
