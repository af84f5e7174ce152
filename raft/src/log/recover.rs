//! Recovery: what the files hold, which of it counts, and making it so.

use super::format::{DATA_START, Kind};
use super::replay::{Chain, End, Replayed, last_known, replay};
use super::restart::{Restart, remove};
use super::segment::{self, Active, DIR, Found};
use super::twice::{self, Place};
use super::{Log, LogError, LogOptions, LogOwner, Recovered};
use raft_protocol::{Abstain, Body, HardState, Index, SnapshotMeta, Term};
use std::ops::Range;
use world::disk::Disk;

/// Why some damage ends the node. With a term that is too low it could acknowledge entries to a
/// deposed leader, whose acknowledgements count: abstaining from votes does not prevent that.
const TERM_UNKNOWN: &str = "the last term and vote of this node cannot be known any more, so it \
                            must not take part; remove its directory and admit it as a new member";

/// Abstention after damage, when the newest header says `known` and the log was known to reach
/// through `index`.
fn abstain(known: &HardState, term: Term, index: Index) -> Abstain {
    match known.abstain {
        // Both losses are to be made good: the further index counts, and in a later term than
        // that of an abstention still in force only an entry of a term later still proves it.
        Some(before) if before.term == term => Abstain {
            term,
            index: before.index.max(index),
        },
        Some(_) => Abstain {
            term,
            index: Index::MAX,
        },
        None => Abstain { term, index },
    }
}

/// The term is at least that of everything the node is known to have; a raised term has no vote.
fn raise(hard_state: &mut HardState, term: Term) {
    if term > hard_state.term {
        hard_state.term = term;
        hard_state.vote = None;
    }
}

struct Files {
    /// The segments that count, in order.
    segments: Vec<Found>,
    /// To be removed.
    stale: Vec<u64>,
    /// The newest number in use.
    newest: u64,
    /// An unused newest segment with an unreadable header.
    torn: Option<String>,
    /// Some of them were left unread: the state holds what they do.
    skipped: bool,
    /// The file with the last record, left by a recovery that was broken off, is unreadable.
    rotten: bool,
}

/// Opens the segment files and chooses the ones that count.
fn find(disk: &Disk, owner: LogOwner, stamp: Index, keep: u64) -> Result<Option<Files>, LogError> {
    disk.create_dir(DIR)?;
    let (mut segments, mut unread) = (Vec::new(), Vec::new());
    for file in disk.list(DIR)? {
        if file.ends_with(".tmp") {
            disk.remove(&format!("{DIR}/{file}"))?;
        } else if let Some(number) = segment::number(&file) {
            segments.push(Found::open(disk, number, owner)?);
            set_aside(&mut segments, &mut unread, stamp, keep);
        } else if file != twice::FILE {
            tracing::warn!(path = %disk.path(DIR).join(&file).display(), "not a part of the log");
        }
    }
    // A process that was killed may have left names that are not durable yet.
    disk.sync_dir(DIR)?;
    disk.sync_dir("")?;
    let Some(newest) = segments.last().map(|s| s.number) else {
        return Ok(None);
    };
    let rotten = !twice::restore(disk, &mut segments)?;
    if rotten {
        tracing::warn!(path = %disk.path(DIR).join(twice::FILE).display(), "unreadable, and not used");
    }
    let mut files = Files {
        segments,
        skipped: !unread.is_empty(),
        stale: unread,
        newest,
        torn: None,
        rotten,
    };
    let count = files.segments.len();
    if let Some(last) = files.segments.last_mut().filter(|s| s.header.is_none()) {
        let path = disk.path(&segment::name(newest));
        let unused = last.reader.len > DATA_START && last.reader.last_used(DATA_START)?.is_none();
        if !unused || count == 1 {
            return Err(LogError::Damaged {
                path,
                reason: format!("the header of the newest segment is unreadable: {TERM_UNKNOWN}"),
            });
        }
        world::mark!("log: the newest segment is unused, its header torn");
        files.stale.push(newest);
        files.segments.pop();
        files.torn = Some(format!("{}: no valid header and no data", path.display()));
    }
    if let Some(last) = files.segments.last().filter(|s| s.truncated()) {
        return Err(LogError::Damaged {
            path: disk.path(&segment::name(last.number)),
            reason: format!(
                "the newest segment was truncated to {} bytes: {TERM_UNKNOWN}",
                last.reader.len
            ),
        });
    }
    let is_reset = |s: &Found| s.header.as_ref().is_some_and(|h| h.1.kind == Kind::Reset);
    if let Some(reset) = files.segments.iter().rposition(is_reset) {
        if reset > 0 {
            world::mark!("log: a reset hides older segments");
        }
        let hidden = files.segments.drain(..reset).map(|s| s.number);
        files.stale.extend(hidden.collect::<Vec<_>>());
    }
    if files.segments.iter().all(|s| s.header.is_none()) {
        return Err(LogError::Damaged {
            path: disk.path(DIR),
            reason: "no segment has a readable header".into(),
        });
    }
    Ok(Some(files))
}

/// The index behind the last gap (a missing segment or one without a header).
fn behind_gaps(segments: &[Found]) -> usize {
    let broken = |n: usize| {
        segments[n].header.is_none() || (n > 0 && segments[n - 1].number + 1 != segments[n].number)
    };
    match (0..segments.len()).rev().find(|n| broken(*n)) {
        Some(n) if segments[n].header.is_none() => n + 1,
        Some(n) => n,
        None => 0,
    }
}

/// Closes the oldest segments that need not be read: all that they hold is in the state, and behind them
/// are others of that kind with `keep` bytes, which are left for followers that lag. There may be more of
/// them than a process may have files open.
fn set_aside(segments: &mut Vec<Found>, unread: &mut Vec<u64>, stamp: Index, keep: u64) {
    let begins = |s: &Found| s.header.as_ref().map_or(Index::MAX, |(_, h)| h.last.0);
    while let Some(covered) = segments.iter().rposition(|s| begins(s) <= stamp) {
        let behind = segments[..covered].iter().skip(1).map(|s| s.reader.len);
        if covered == 0 || behind.sum::<u64>() < keep {
            return;
        }
        unread.push(segments.remove(0).number);
    }
}

/// The base of a chain that was not read from its beginning: where the reading began, if the membership
/// there is known, or else where the state ends. Nothing changes when the state does not reach into it:
/// then either the log restarts behind the state, or a segment is missing.
fn set_base_of_rest(chain: &mut Chain, stamp: &SnapshotMeta) -> Result<(), String> {
    if chain.complete() || chain.term_at(stamp.index) != Some(stamp.term) {
        return Ok(());
    }
    let below = chain.entries.iter().take_while(|e| e.index <= stamp.index);
    let mut below = below.map(|e| &e.body);
    let (index, term) = chain.start;
    if term == 0 || below.any(|body| matches!(body, Body::Configuration(_))) {
        return chain.set_base(stamp.clone());
    }
    chain.base = SnapshotMeta {
        index,
        term,
        configuration: stamp.configuration.clone(),
    };
    Ok(())
}

/// Length of the first unbroken chain.
fn before_gaps(segments: &[Found]) -> usize {
    let mut n = 0;
    while n < segments.len()
        && segments[n].header.is_some()
        && (n == 0 || segments[n - 1].number + 1 == segments[n].number)
    {
        n += 1;
    }
    n
}

/// See [`Log::open`].
pub(super) fn open(
    disk: &Disk,
    owner: LogOwner,
    options: LogOptions,
    stamp: &SnapshotMeta,
) -> Result<(Log, Recovered), LogError> {
    let Some(mut files) = find(disk, owner, stamp.index, options.recover_bytes)? else {
        return create(disk, owner, options, stamp);
    };
    let from = behind_gaps(&files.segments);
    if from == files.segments.len() {
        // The newest is unused and unreadable, and so is the one before it.
        return Err(LogError::Damaged {
            path: disk.path(DIR),
            reason: "the two newest segments have no readable header".into(),
        });
    }
    let skipped = files.skipped;
    let read = |segments: &mut [Found]| -> Result<Replayed, LogError> {
        let mut found = replay(disk, segments)?;
        if skipped {
            let done = set_base_of_rest(&mut found.chain, stamp);
            done.map_err(|reason| LogError::Damaged {
                path: disk.path(DIR),
                reason,
            })?;
        }
        Ok(found)
    };
    let mut found = read(&mut files.segments[from..])?;
    if files.skipped {
        world::mark!("log: segments that the state covers are left unread");
    }
    let mut damage = None;
    if let End::Damage(what) = &found.end {
        damage = Some(what.clone());
    }
    // A state that contradicts what was read, or is past its end: the log restarts behind it.
    let restarts = files.skipped && stamp.index >= found.chain.start.0;
    if found.chain.complete() || restarts {
        // What lies before is below the base: leftovers of a purge, or covered by the state.
        let old = files.segments.drain(..from).map(|s| s.number);
        files.stale.extend(old.collect::<Vec<_>>());
    } else {
        world::mark!("log: a segment is missing in the middle");
        let first = files.segments[from].number;
        damage = Some(format!(
            "{}: missing or unreadable, though the next segment is there",
            disk.path(&segment::name(first.saturating_sub(1))).display()
        ));
        let whole = before_gaps(&files.segments[..from]);
        let kept = if whole > 0 {
            Some(read(&mut files.segments[..whole])?)
        } else {
            None
        };
        match kept.filter(|k| k.chain.complete()) {
            Some(kept) => found = kept,
            None => {
                found.chain.entries.clear();
                found.chain.start = (stamp.index, stamp.term);
                found.chain.base = stamp.clone();
            }
        }
    }
    finish(disk, owner, options, stamp, files, found, damage)
}

/// Makes a log where there was none.
fn create(
    disk: &Disk,
    owner: LogOwner,
    options: LogOptions,
    stamp: &SnapshotMeta,
) -> Result<(Log, Recovered), LogError> {
    if stamp.index > 0 {
        return Err(LogError::Damaged {
            path: disk.path(DIR),
            reason: format!(
                "the log is gone, though the state reaches through index {}: {TERM_UNKNOWN}",
                stamp.index
            ),
        });
    }
    let hard_state = HardState::default();
    let recovered = Recovered {
        hard_state,
        commit: 0,
        base: stamp.clone(),
        entries: Vec::new(),
        fresh: true,
        torn: None,
        damage: None,
    };
    let log = restart(disk, owner, options, &recovered, 0, 0)?;
    twice::remove(disk)?;
    Ok((log, recovered))
}

/// Begins a new chain with what was recovered.
fn restart(
    disk: &Disk,
    owner: LogOwner,
    options: LogOptions,
    recovered: &Recovered,
    newest: u64,
    batch: u64,
) -> Result<Log, LogError> {
    let (active, batch) = Restart {
        number: newest + 1,
        batch,
        hard_state: recovered.hard_state,
        commit: recovered.commit,
        base: &recovered.base,
        suffix: &recovered.entries,
    }
    .write(disk, owner, &options)?;
    Ok(assemble(disk, owner, options, recovered, active, batch))
}

fn assemble(
    disk: &Disk,
    owner: LogOwner,
    options: LogOptions,
    recovered: &Recovered,
    active: Active,
    batch: u64,
) -> Log {
    let base = (recovered.base.index, recovered.base.term);
    Log {
        disk: disk.clone(),
        owner,
        closed: Default::default(),
        active,
        extents: Default::default(),
        spare: None,
        obsolete: Vec::new(),
        busy: false,
        free: u64::MAX,
        no_spare: false,
        hard_state: recovered.hard_state,
        commit: recovered.commit,
        base: recovered.base.clone(),
        last: recovered.entries.last().map_or(base, |e| (e.index, e.term)),
        batch,
        sealed: recovered.fresh,
        failed: None,
        buffer: Vec::new(),
        options,
    }
}

/// Decides what is kept, and makes it durable.
fn finish(
    disk: &Disk,
    owner: LogOwner,
    options: LogOptions,
    stamp: &SnapshotMeta,
    mut files: Files,
    found: Replayed,
    mut damage: Option<String>,
) -> Result<(Log, Recovered), LogError> {
    let Replayed {
        chain,
        closed,
        last_record,
        end,
    } = found;
    let mut torn = files.torn.take();
    if let End::Torn { what, .. } = &end {
        torn = Some(what.clone());
        // The state never passes the synced log, and a snapshot is installed only after all
        // earlier writes are synced: what is torn here was synced once.
        if damage.is_none() && chain.last().0 < stamp.index {
            damage = Some(format!(
                "{what}, though the state reaches through {}",
                stamp.index
            ));
        } else if damage.is_none() && files.rotten {
            // What is torn may be the record that was being written once more.
            damage = Some(format!("{what}, and {DIR}/{} is unreadable", twice::FILE));
        }
    }
    // A crash between installing a snapshot and the reset of the log, whose decision is repeated.
    let behind = stamp.index >= chain.base.index && chain.term_at(stamp.index) != Some(stamp.term);
    if behind && stamp.index == chain.base.index {
        return Err(LogError::Damaged {
            path: disk.path(DIR),
            reason: format!(
                "the log begins behind index {} of term {}, and the state says its term is {}",
                stamp.index, chain.base.term, stamp.term
            ),
        });
    }
    let last_term = chain.last().1;
    let mut recovered = Recovered {
        hard_state: chain.hard_state,
        commit: chain.commit,
        base: chain.base,
        entries: chain.entries,
        fresh: false,
        torn,
        damage,
    };
    let kept_last = recovered
        .entries
        .last()
        .map_or(recovered.base.index, |e| e.index);
    recovered.commit = recovered.commit.min(kept_last);
    if behind {
        world::mark!("log: it lies behind the state, and restarts there");
        recovered.base = stamp.clone();
        recovered.entries.clear();
    }
    let mut batch = chain.batch;
    if recovered.damage.is_some() {
        world::mark!("log: damage is found, the node abstains");
        let (number, known, index) = last_known(&mut files.segments)?;
        batch = batch.max(number);
        recovered.hard_state = known;
        raise(&mut recovered.hard_state, stamp.term.max(last_term));
        let index = index.max(kept_last).max(stamp.index);
        recovered.hard_state.abstain = Some(abstain(&known, recovered.hard_state.term, index));
        recovered.torn = None;
    }
    raise(&mut recovered.hard_state, stamp.term.max(last_term));
    let log = if recovered.damage.is_some() || behind {
        let log = restart(disk, owner, options, &recovered, files.newest, batch)?;
        let mut old = files.stale;
        old.extend(files.segments.iter().map(|s| s.number));
        old.sort_unstable();
        remove(disk, &old)?;
        log
    } else {
        let active = adopt(disk, files.segments.pop(), last_record, end)?;
        let mut log = assemble(disk, owner, options, &recovered, active, batch);
        log.closed = closed.into();
        if files.skipped {
            // Durable before the first one goes: what begins behind its base has lost something.
            log.write(recovered.hard_state, Some(&recovered.base), &[])?;
        }
        files.stale.sort_unstable();
        remove(disk, &files.stale)?;
        log
    };
    twice::remove(disk)?;
    Ok((log, recovered))
}

/// Cuts a torn tail off the newest segment, makes what is kept durable, and goes on in it.
///
/// The last record was perhaps never synced: the process was killed before, or the sync failed. After
/// a failed sync the kernel may show bytes that it neither wrote nor will write, since it holds them
/// for clean: another sync alone does nothing (Rebello et al., USENIX ATC 2020). So they are written
/// once more, and kept elsewhere meanwhile: see [`twice`]. (Only the last: no record is written before
/// the one in front of it was synced, and none is the first of a segment before the segment was.)
fn adopt(
    disk: &Disk,
    newest: Option<Found>,
    last_record: Range<u64>,
    end: End,
) -> Result<Active, LogError> {
    let newest = newest.expect("the chain that was read has a newest segment");
    let (id, header) = newest.header.expect("and its header is valid");
    let mut reader = newest.reader;
    let length = (last_record.end - last_record.start) as usize;
    if length > 0
        && let Some(record) = reader.bytes(last_record.start, length)?
    {
        let record = record.to_vec();
        let place = Place {
            segment: newest.number,
            id,
            offset: last_record.start,
        };
        twice::keep(disk, place, &record)?;
        reader.file.write_all_at(&record, last_record.start)?;
    }
    let file = reader.file;
    let end = match end {
        End::Clean { at } => at,
        End::Torn { at, to, .. } => {
            world::mark!("log: a torn tail is cut");
            segment::zero(&file, at, to - at)?;
            at
        }
        End::Damage(_) => unreachable!("damage starts a new chain"),
    };
    file.sync_data()?;
    Ok(Active {
        number: newest.number,
        id,
        file,
        length: header.length,
        end,
        filled: end,
    })
}
