//! Segment files: names, making one and putting it into use, reading one.

use super::format::{
    self, DATA_START, HEADER_COPY, HeaderCopy, RecordHeader, SECTOR, SegmentHeader,
};
use super::{LogError, LogOwner};
use std::io;
use world::disk::{Disk, File, Open};

/// The log's directory.
pub(super) const DIR: &str = "log";
/// A segment being made.
const NEW: &str = "log/new.tmp";
/// A zero-filled file waiting to become the next segment.
const SPARE: &str = "log/spare.tmp";
/// What one read takes, and what is zeroed at once.
pub(super) const WINDOW: usize = 1 << 20;

/// The path of a segment on its disk.
pub(super) fn name(number: u64) -> String {
    format!("{DIR}/{number:016}.seg")
}

/// The number in a segment's file name.
pub(super) fn number(file: &str) -> Option<u64> {
    let digits = file.strip_suffix(".seg")?;
    (digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit()))
        .then(|| digits.parse().ok())?
}

/// The segment that is written to.
pub(super) struct Active {
    pub number: u64,
    pub id: u128,
    pub file: File,
    /// Bytes of the file.
    pub length: u64,
    /// Where the next record goes.
    pub end: u64,
    /// Zeros are written and synced up to here (>= end).
    pub filled: u64,
}

/// A file that waits to become a segment.
pub(super) struct Spare {
    file: File,
    pub length: u64,
    filled: u64,
}

/// Writes `len` zeros at `from`.
pub(super) fn zero(file: &File, mut from: u64, mut len: u64) -> io::Result<()> {
    let zeros = vec![0; (len as usize).min(WINDOW)];
    while len > 0 {
        let n = len.min(WINDOW as u64);
        file.write_all_at(&zeros[..n as usize], from)?;
        from += n;
        len -= n;
    }
    Ok(())
}

impl Spare {
    /// Makes one of `length` bytes, nothing of it filled.
    pub(super) fn create(disk: &Disk, length: u64) -> io::Result<Spare> {
        let file = disk.open(SPARE, Open::Create)?;
        file.set_len(0)?;
        file.set_len(length)?;
        Ok(Spare {
            file,
            length,
            filled: 0,
        })
    }

    /// Fills up to `step` bytes more with zeros, and syncs them.
    pub(super) fn fill(&mut self, step: u64) -> io::Result<()> {
        let n = step.min(self.length - self.filled);
        zero(&self.file, self.filled, n)?;
        self.file.sync_data()?;
        self.filled += n;
        Ok(())
    }

    /// Removes the file, if there is one.
    pub(super) fn remove(disk: &Disk) -> io::Result<()> {
        match disk.exists(SPARE)? {
            true => disk.remove(SPARE),
            false => Ok(()),
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.length
    }
}

/// A segment with its header, under a temporary name.
pub(super) struct Unpublished {
    active: Active,
    from: &'static str,
}

/// Begins a segment; `header.length` is filled in from the spare, if one is given.
pub(super) fn begin(
    disk: &Disk,
    mut header: SegmentHeader,
    spare: Option<Spare>,
) -> io::Result<Unpublished> {
    let id = world::entropy::random_u128();
    let (file, from, filled) = match spare {
        Some(spare) => {
            header.length = spare.length;
            (spare.file, SPARE, spare.filled)
        }
        None => {
            let file = disk.open(NEW, Open::Create)?;
            file.set_len(0)?;
            file.set_len(header.length)?;
            (file, NEW, DATA_START)
        }
    };
    let copy = format::encode_segment(id, &header).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{}: the membership does not fit into a segment header",
                disk.path(from).display()
            ),
        )
    })?;
    let both = [copy.as_slice(), copy.as_slice()].concat();
    file.write_all_at(&both, 0)?;
    Ok(Unpublished {
        active: Active {
            number: header.number,
            id,
            file,
            length: header.length,
            end: DATA_START,
            filled: filled.max(DATA_START),
        },
        from,
    })
}

impl Unpublished {
    /// For records that belong to the segment from its birth.
    pub fn active(&mut self) -> &mut Active {
        &mut self.active
    }

    /// Syncs the file, gives it its name, and syncs the name: from here on it is part of the log.
    pub fn publish(self, disk: &Disk) -> io::Result<Active> {
        self.active.file.sync_data()?;
        disk.rename(self.from, &name(self.active.number))?;
        disk.sync_dir(DIR)?;
        Ok(self.active)
    }
}

const ZEROS: [u8; SECTOR as usize] = [0; SECTOR as usize];

/// A file reader with one window.
pub(super) struct Reader {
    pub file: File,
    pub len: u64,
    window: Vec<u8>,
    at: u64,
}

impl Reader {
    pub fn new(file: File) -> io::Result<Reader> {
        let len = file.len()?;
        Ok(Reader {
            file,
            len,
            window: Vec::new(),
            at: 0,
        })
    }

    /// `n` bytes at `offset`, and nothing more is read; `None` when they reach beyond the end.
    pub fn just(&self, offset: u64, n: usize) -> io::Result<Option<Vec<u8>>> {
        if offset + n as u64 > self.len {
            return Ok(None);
        }
        let mut bytes = vec![0; n];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(Some(bytes))
    }

    /// `n` bytes at `offset`; `None` when they reach beyond the end.
    pub fn bytes(&mut self, offset: u64, n: usize) -> io::Result<Option<&[u8]>> {
        if offset
            .checked_add(n as u64)
            .is_none_or(|end| end > self.len)
        {
            return Ok(None);
        }
        let inside = offset >= self.at && offset + n as u64 <= self.at + self.window.len() as u64;
        if !inside {
            let want = n.max(WINDOW).min((self.len - offset) as usize);
            self.window.resize(want, 0);
            self.window.shrink_to(WINDOW.max(want));
            self.at = offset;
            self.file.read_exact_at(&mut self.window, offset)?;
        }
        let from = (offset - self.at) as usize;
        Ok(Some(&self.window[from..from + n]))
    }

    /// The end of the last sector at or behind `from` that is not all zeros; `None` when all are.
    pub fn last_used(&mut self, from: u64) -> io::Result<Option<u64>> {
        let (mut offset, mut used) = (from, None);
        while offset < self.len {
            let n = (self.len - offset).min(SECTOR);
            if let Some(sector) = self.bytes(offset, n as usize)?
                && *sector != ZEROS[..sector.len()]
            {
                used = Some(offset + n);
            }
            offset += n;
        }
        Ok(used)
    }

    /// Valid record headers at or behind `from`, in order of place.
    pub fn headers(&mut self, id: u128, from: u64) -> io::Result<Vec<(u64, RecordHeader)>> {
        let mut found = Vec::new();
        let mut offset = from;
        while let Some(sector) = self.bytes(offset, SECTOR as usize)? {
            if let Some(header) = RecordHeader::decode(id, offset, sector) {
                found.push((offset, header));
            }
            offset += SECTOR;
        }
        Ok(found)
    }
}

/// A segment file as it was found.
pub(super) struct Found {
    pub number: u64,
    /// Id and header, if a copy is intact.
    pub header: Option<(u128, SegmentHeader)>,
    pub reader: Reader,
}

impl Found {
    /// Opens a segment file and reads its header. A lost copy of two is written again.
    pub fn open(disk: &Disk, number: u64, owner: LogOwner) -> Result<Found, LogError> {
        let file_name = name(number);
        let mut reader = Reader::new(disk.open(&file_name, Open::Write)?)?;
        let mut good: Option<(u128, SegmentHeader)> = None;
        let mut bad = None;
        for at in [0, HEADER_COPY] {
            let copy = match reader.just(at, HEADER_COPY as usize)? {
                Some(copy) => format::decode_segment(&copy),
                None => HeaderCopy::Bad,
            };
            match copy {
                // A file under another's name is none.
                HeaderCopy::Valid(id, header) if header.number == number => {
                    good.get_or_insert((id, *header));
                }
                HeaderCopy::UnknownVersion(version) => {
                    return Err(LogError::Damaged {
                        path: disk.path(&file_name),
                        reason: format!("log format {version} is not known to this program"),
                    });
                }
                HeaderCopy::Valid(..) | HeaderCopy::Bad => bad = Some(at),
            }
        }
        if let Some((id, header)) = &good {
            if header.owner != owner {
                return Err(LogError::Foreign {
                    path: disk.path(&file_name),
                    found: header.owner,
                    expected: owner,
                });
            }
            if let (Some(at), Some(copy)) = (bad, format::encode_segment(*id, header)) {
                tracing::warn!(path = %disk.path(&file_name).display(), "one copy of the segment header was unreadable and is written again");
                reader.file.write_all_at(&copy, at)?;
                reader.file.sync_data()?;
                reader = Reader::new(reader.file)?;
            }
        }
        Ok(Found {
            number,
            header: good,
            reader,
        })
    }

    /// True when the file is shorter than it was when it was put into use.
    pub fn truncated(&self) -> bool {
        self.header
            .as_ref()
            .is_some_and(|(_, h)| self.reader.len < h.length)
    }
}
