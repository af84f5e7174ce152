//! Where things are in the file, and the bytes of its own pages.
//!
//! ```text
//! page 0   1     2     3                1020  1021  1022
//! +------+-----+-----+------+-- … --+------+-----+-----+------+-- …
//! | head | S0a | S0b | B 0  |       |B 1017| S1a | S1b |B 1018|
//! +------+-----+-----+------+-- … --+------+-----+-----+------+-- …
//!          `----------- group 0 ----------'  `------- group 1 --- …
//!
//! head   "HFPAGED" version:u8  id:u64  crc:u32  (then zeros)
//! S      crc:u32  group:u32  id:u64  number:u64  sum of each block of the group: 1018 × u32
//! B      4096 bytes of the user's file, as they are
//! ```
//!
//! All pages are 4096 bytes, all numbers little-endian. Blocks are aligned to pages, so that
//! writing one block rewrites no byte of another, whatever the size of the drive's sectors.
//! A block's sum is a CRC-32 over (file id, block number, content): a block written to the wrong
//! place, or left over from another file, does not match. 0 means never written: reads as zeros.

use super::BLOCK;
use std::io;

const MAGIC: &[u8; 7] = b"HFPAGED";
const VERSION: u8 = 1;
/// Bytes of a page of sums before the sums.
const SUMS_HEAD: usize = 24;
/// Blocks in a group.
pub(super) const PER_GROUP: u64 = ((BLOCK - SUMS_HEAD) / 4) as u64;
/// Pages of a group: two of sums, and its blocks.
const GROUP_PAGES: u64 = PER_GROUP + 2;

pub(super) type Page = [u8; BLOCK];

/// Sum of each block of one group.
pub(super) type Sums = [u32; PER_GROUP as usize];

/// Offset of the page of sums of `group` that has number `number`: they take turns.
pub(super) fn sums_offset(group: u64, number: u64) -> u64 {
    (1 + group * GROUP_PAGES + number % 2) * BLOCK as u64
}

/// Offset of a block.
pub(super) fn block_offset(block: u64) -> u64 {
    (1 + block / PER_GROUP * GROUP_PAGES + 2 + block % PER_GROUP) * BLOCK as u64
}

/// Length of a file that holds `blocks` blocks.
pub(super) fn file_len(blocks: u64) -> u64 {
    match blocks.checked_sub(1) {
        None => BLOCK as u64,
        Some(last) => block_offset(last) + BLOCK as u64,
    }
}

/// Blocks in a file of that length; parts of pages do not count.
pub(super) fn blocks_in(file_len: u64) -> u64 {
    let pages = (file_len / BLOCK as u64).saturating_sub(1);
    pages / GROUP_PAGES * PER_GROUP + (pages % GROUP_PAGES).saturating_sub(2)
}

/// The sum of a block; never 0.
pub(super) fn sum(id: u64, block: u64, content: &[u8]) -> u32 {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&id.to_le_bytes());
    key[8..].copy_from_slice(&block.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&key);
    crc.update(content);
    crc.finalize().max(1)
}

fn u32_at(page: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

fn u64_at(page: &[u8], at: usize) -> u64 {
    u64::from(u32_at(page, at)) | u64::from(u32_at(page, at + 4)) << 32
}

/// The file's first page.
pub(super) fn encode_head(id: u64) -> Page {
    let mut page = [0; BLOCK];
    page[..7].copy_from_slice(MAGIC);
    page[7] = VERSION;
    page[8..16].copy_from_slice(&id.to_le_bytes());
    let crc = crc32fast::hash(&page[..16]);
    page[16..20].copy_from_slice(&crc.to_le_bytes());
    page
}

/// The file's id, from its first page.
pub(super) fn decode_head(page: &Page) -> io::Result<u64> {
    let refuse = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, why));
    if page[..7] != MAGIC[..] || crc32fast::hash(&page[..16]) != u32_at(page, 16) {
        return refuse("the first page is damaged".into());
    }
    if page[7] != VERSION {
        return refuse(format!(
            "format version {} is not known (this program knows {VERSION})",
            page[7]
        ));
    }
    Ok(u64_at(page, 8))
}

/// A page of sums.
pub(super) fn encode_sums(id: u64, group: u64, number: u64, sums: &Sums) -> Page {
    let mut page = [0; BLOCK];
    page[4..8].copy_from_slice(&(group as u32).to_le_bytes());
    page[8..16].copy_from_slice(&id.to_le_bytes());
    page[16..24].copy_from_slice(&number.to_le_bytes());
    for (bytes, sum) in page[SUMS_HEAD..].chunks_exact_mut(4).zip(sums) {
        bytes.copy_from_slice(&sum.to_le_bytes());
    }
    let crc = crc32fast::hash(&page[4..]);
    page[..4].copy_from_slice(&crc.to_le_bytes());
    page
}

/// Number and sums of a page of sums; None when it is not a whole page of this group and file.
pub(super) fn decode_sums(id: u64, group: u64, page: &[u8]) -> Option<(u64, Box<Sums>)> {
    let whole = crc32fast::hash(&page[4..]) == u32_at(page, 0);
    if !whole || u32_at(page, 4) != group as u32 || u64_at(page, 8) != id {
        return None;
    }
    let mut sums = Box::new([0; PER_GROUP as usize]);
    for (i, sum) in sums.iter_mut().enumerate() {
        *sum = u32_at(page, SUMS_HEAD + i * 4);
    }
    Some((u64_at(page, 16), sums))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_offsets_agree() {
        assert_eq!((PER_GROUP, file_len(0)), (1018, 4096));
        assert_eq!(block_offset(0), 3 * 4096);
        assert_eq!(block_offset(1018), (1 + 1020 + 2) * 4096);
        for blocks in [0, 1, 2, 1017, 1018, 1019, 2035, 2036, 2037, 1_000_000] {
            assert_eq!(blocks_in(file_len(blocks)), blocks);
            assert_eq!(blocks_in(file_len(blocks) + 4095), blocks);
        }
        assert_eq!([0, 4095, 4096, 8192, 3 * 4096].map(blocks_in), [0; 5]);
    }

    #[test]
    fn the_bytes_on_disk_are_these() {
        let head = encode_head(0x0102_0304_0506_0708);
        assert_eq!(
            head[..20],
            *b"HFPAGED\x01\x08\x07\x06\x05\x04\x03\x02\x01\xdb\x64\xe7\xbd"
        );
        assert_eq!(decode_head(&head).unwrap(), 0x0102_0304_0506_0708);
        let mut sums = [0; PER_GROUP as usize];
        sums[0] = 0x0a0b_0c0d;
        let page = encode_sums(7, 3, 9, &sums);
        assert_eq!(
            page[4..28],
            [
                3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0xd, 0xc, 0xb, 0xa
            ]
        );
        assert_eq!(decode_sums(7, 3, &page), Some((9, Box::new(sums))));
        assert_eq!(decode_sums(7, 4, &page), None);
        assert_eq!(decode_sums(8, 3, &page), None);
        assert_eq!(sum(1, 2, &[3; BLOCK]), 0xcaf9_9c5f);
    }
}
