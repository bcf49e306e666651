//! The file of one object version in the disk cache.
//!
//! Owns: its layout, reading and writing cells, and their checksums. Does not own: which files there are (`mod`).
//!
//! Layout: the object's bytes at their own offsets, with holes for what is not there; then, at the next multiple of 4,096, for each
//! cell the CRC32C of its bytes, little-endian, or 0 for a cell that is not there (a sum of 0 is stored as 1). A cell is written
//! before its sum, and nothing is synced: what a crash or a broken disk leaves is found out by the sum when a cell is first used.

use super::super::budget::Buffer;
use super::super::unit::{self, CELL};
use crate::types::ByteRange;
use crc_fast::{CrcAlgorithm, checksum};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Objects above are not kept: their sums alone would take more than 16 MiB of memory.
pub(super) const OBJECT_MAX: u64 = 256 << 30;
/// Alignment of the sums.
const PAGE: u64 = 4096;
/// Bytes of one sum.
const SUM: u64 = 4;

/// An open file.
#[derive(Debug)]
pub(in crate::read) struct CacheFile {
    file: File,
    /// The same past the page cache, where the file system has that: the kernel keeps what was read in the mount already, and to
    /// copy it a second time would take half of the processor time of reading it.
    direct: Option<File>,
    size: u64,
    sums: Mutex<Sums>,
}

#[derive(Debug)]
struct Sums {
    of: Vec<u32>,
    /// Cells whose bytes were compared with their sum since the start.
    checked: Vec<bool>,
}

impl CacheFile {
    /// Makes the file of an object of `size` bytes, or opens the one that is there.
    pub(super) fn create(path: &Path, size: u64) -> io::Result<CacheFile> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.len() != len_of(size) {
            file.set_len(0)?;
            file.set_len(len_of(size))?;
        }
        CacheFile::load(file, size)
    }

    /// Opens the file of an object of `size` bytes.
    pub(super) fn open(path: &Path, size: u64) -> io::Result<CacheFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        if file.metadata()?.len() != len_of(size) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has another length than what it is of"));
        }
        CacheFile::load(file, size)
    }

    fn load(file: File, size: u64) -> io::Result<CacheFile> {
        let count = usize::try_from(size.div_ceil(CELL)).map_err(io::Error::other)?;
        let mut bytes = vec![0; count * SUM as usize];
        file.read_exact_at(&mut bytes, sums_at(size))?;
        let of = bytes.chunks_exact(SUM as usize).map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]));
        let sums = Sums { of: of.collect(), checked: vec![false; count] };
        // By its descriptor: there may be another file of that name by now.
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(same).ok();
        Ok(CacheFile { file, direct, size, sums: Mutex::new(sums) })
    }

    /// Where the cells that are there from `at` on end, `end` at most. `None` if that of `at` is not there.
    pub(in crate::read) fn until(&self, at: u64, end: u64) -> Option<u64> {
        let sums = self.sums();
        let first = index(at / CELL);
        let last = index(end.div_ceil(CELL)).clamp(first, sums.of.len());
        let there = sums.of.get(first..last)?.iter().take_while(|sum| **sum != 0).count() as u64;
        (there > 0).then(|| end.min((at / CELL + there) * CELL))
    }

    /// Reads at least `range`, whose cells are there, into `buffer`, and answers what it has then. `None` if the bytes are not
    /// what was written: then these cells are not there any more.
    pub(super) fn read(&self, range: ByteRange, buffer: &mut Buffer) -> io::Result<Option<ByteRange>> {
        let around = unit::cells_around(range, self.size);
        let cells = index(around.start() / CELL)..index(around.end().div_ceil(CELL));
        let is_checked = self.sums().checked[cells.clone()].iter().all(|checked| *checked);
        if is_checked && range.len() < CELL {
            self.file.read_exact_at(buffer.zeroed(range.len()), range.start())?;
            return Ok(Some(range));
        }
        let bytes = buffer.zeroed(around.len());
        self.read_bytes(bytes, around.start())?;
        Ok((is_checked || self.check(bytes, cells)?).then_some(around))
    }

    /// Whole pages come past the page cache, as they went.
    fn read_bytes(&self, bytes: &mut [u8], start: u64) -> io::Result<()> {
        let is_aligned = bytes.as_ptr().align_offset(PAGE as usize) == 0;
        let pages = bytes.len() / PAGE as usize * PAGE as usize;
        if let Some(file) = self.direct.as_ref().filter(|_| is_aligned)
            && file.read_exact_at(&mut bytes[..pages], start).is_ok()
        {
            return self.file.read_exact_at(&mut bytes[pages..], start + pages as u64);
        }
        self.file.read_exact_at(bytes, start)
    }

    /// Compares cells, which `bytes` are, with their sums.
    fn check(&self, bytes: &[u8], cells: std::ops::Range<usize>) -> io::Result<bool> {
        let mut all_right = true;
        for (cell, bytes) in cells.zip(bytes.chunks(CELL as usize)) {
            let sum = sum_of(bytes);
            let is_right = {
                let mut sums = self.sums();
                let is_right = sums.of[cell] == sum;
                sums.checked[cell] = is_right;
                if !is_right {
                    sums.of[cell] = 0;
                }
                is_right
            };
            if !is_right {
                self.file.write_all_at(&[0; SUM as usize], sums_at(self.size) + cell as u64 * SUM)?;
                all_right = false;
            }
        }
        Ok(all_right)
    }

    /// Writes those whole cells of `bytes`, which are those of `range`, that are not there. Answers how many bytes these are.
    pub(super) fn write(&self, range: ByteRange, bytes: &[u8]) -> io::Result<u64> {
        let cells = unit::cells_within(range, self.size);
        let (mut at, mut written) = (index(cells.start), 0);
        while at < index(cells.end) {
            let run = {
                let sums = self.sums();
                let count = sums.of[at..index(cells.end)].iter().take_while(|sum| **sum == 0).count();
                at..at + count
            };
            if !run.is_empty() {
                written += self.write_run(run.clone(), range, bytes)?;
            }
            // Past the run, and the cell that ended it.
            at = run.end + 1;
        }
        Ok(written)
    }

    /// Cells that follow each other are written at once, and then their sums.
    fn write_run(&self, run: std::ops::Range<usize>, range: ByteRange, bytes: &[u8]) -> io::Result<u64> {
        let start = run.start as u64 * CELL;
        let end = self.size.min(run.end as u64 * CELL);
        let bytes = &bytes[index(start - range.start())..index(end - range.start())];
        let new: Vec<u32> = bytes.chunks(CELL as usize).map(sum_of).collect();
        self.write_bytes(bytes, start)?;
        let raw: Vec<u8> = new.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        self.file.write_all_at(&raw, sums_at(self.size) + run.start as u64 * SUM)?;
        let mut sums = self.sums();
        sums.of[run.clone()].copy_from_slice(&new);
        sums.checked[run].fill(true);
        Ok(end - start)
    }

    /// Whole pages go past the page cache, the rest through it.
    fn write_bytes(&self, bytes: &[u8], start: u64) -> io::Result<()> {
        let is_aligned = bytes.as_ptr().align_offset(PAGE as usize) == 0;
        let (pages, rest) = bytes.split_at(bytes.len() / PAGE as usize * PAGE as usize);
        let direct = self.direct.as_ref().filter(|_| is_aligned);
        match direct.map(|file| file.write_all_at(pages, start)) {
            Some(Ok(())) => self.file.write_all_at(rest, start + pages.len() as u64),
            // Not offered by this file system after all (open(2), O_DIRECT).
            Some(Err(e)) if e.raw_os_error() != Some(libc::EINVAL) => Err(e),
            _ => self.file.write_all_at(bytes, start),
        }
    }

    /// The file was used.
    pub(super) fn touch(&self) -> io::Result<()> {
        self.file.set_modified(std::time::SystemTime::now())
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 0 is kept for cells that are not there.
fn sum_of(bytes: &[u8]) -> u32 {
    // CRC32C, as iSCSI has it (RFC 3720, section 12.1); a 32-bit sum fits.
    u32::try_from(checksum(CrcAlgorithm::Crc32Iscsi, bytes)).unwrap_or(1).max(1)
}

fn sums_at(size: u64) -> u64 {
    size.div_ceil(PAGE) * PAGE
}

fn len_of(size: u64) -> u64 {
    sums_at(size) + size.div_ceil(CELL) * SUM
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::budget::Budget;
    use super::*;
    use futures::FutureExt;

    const SIZE: u64 = 5 * CELL + 100;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    fn body() -> Vec<u8> {
        let mut bytes = vec![0; SIZE as usize];
        fastrand::Rng::with_seed(3).fill(&mut bytes);
        bytes
    }

    fn read(file: &CacheFile, range: ByteRange) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = Budget::new(0).reserve(0).now_or_never().unwrap().buffer(range.len() + 2 * CELL);
        let Some(has) = file.read(range, &mut buffer)? else { return Ok(None) };
        let at = (range.start() - has.start()) as usize;
        Ok(Some(buffer.as_ref()[at..at + range.len() as usize].to_vec()))
    }

    #[test]
    fn whole_cells_are_kept_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, body) = (dir.path().join("a"), body());
        let file = CacheFile::create(&path, SIZE).unwrap();
        let part = range(CELL + 1, SIZE);
        assert_eq!(file.write(part, &body[CELL as usize + 1..]).unwrap(), 3 * CELL + 100);
        assert_eq!(file.write(part, &body[CELL as usize + 1..]).unwrap(), 0, "they are there");
        for file in [file, CacheFile::open(&path, SIZE).unwrap()] {
            assert_eq!((file.until(CELL, SIZE), file.until(2 * CELL + 5, SIZE)), (None, Some(SIZE)));
            assert_eq!(file.until(3 * CELL, 4 * CELL - 1), Some(4 * CELL - 1));
            let part = range(2 * CELL + 9, SIZE);
            assert_eq!(read(&file, part).unwrap().unwrap(), body[part.start() as usize..]);
        }
        assert!(CacheFile::open(&path, SIZE + 5000).is_err());
    }

    /// Whatever happens to a file, what is read of it is right or nothing.
    #[test]
    fn damaged_files_never_answer_wrong_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, body) = (dir.path().join("a"), body());
        let mut dice = fastrand::Rng::with_seed(11);
        let (mut right, mut gone) = (0, 0);
        for _ in 0..1000 {
            let file = CacheFile::create(&path, SIZE).unwrap();
            file.write(range(0, SIZE), &body).unwrap();
            drop(file);
            let raw = OpenOptions::new().write(true).open(&path).unwrap();
            let len = raw.metadata().unwrap().len();
            match dice.u8(0..4) {
                0 => raw.set_len(dice.u64(0..len)).unwrap(),
                1 => raw.write_all_at(&vec![0; dice.usize(1..200_000)], dice.u64(0..len)).unwrap(),
                _ => raw.write_all_at(&dice.u64(..).to_le_bytes(), dice.u64(0..len)).unwrap(),
            }
            let Ok(file) = CacheFile::open(&path, SIZE) else {
                gone += 1;
                continue;
            };
            for start in (0..SIZE).step_by(CELL as usize) {
                let part = range(start, (start + CELL).min(SIZE));
                match file.until(start, part.end()).map(|_| read(&file, part)) {
                    Some(Ok(Some(bytes))) => {
                        assert_eq!(bytes, body[part.start() as usize..part.end() as usize]);
                        right += 1;
                    }
                    _ => gone += 1,
                }
            }
        }
        assert!(right > 2000 && gone > 500, "{right} right, {gone} gone");
    }
}
