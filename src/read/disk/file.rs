//! The file of one object version in the disk cache.
//!
//! Owns: its layout, reading and writing cells, and their checksums. Does not own: which files there are (`mod`).
//!
//! Layout: the object's bytes at their own offsets, with holes for what is not there; then, at the next multiple of 4,096, for each
//! cell the CRC32C of its bytes, little-endian, or 0 for a cell that is not there (a sum of 0 is stored as 1); then for each cell a
//! byte, 1 if it was looked into and not only read through; then the object's size, 8 bytes, little-endian. A cell is written
//! before its sum, and nothing is synced: what a crash or a broken disk leaves is found out by the sum when a cell is first used.

use super::super::budget::Buffer;
use super::super::unit::{self, CELL};
use super::KeepFor;
use crate::types::ByteRange;
use crc_fast::{CrcAlgorithm, checksum};
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

/// Objects above are not kept: their sums alone would take more than 16 MiB of memory.
pub(super) const OBJECT_MAX: u64 = 256 << 30;
/// Alignment of the sums.
const PAGE: u64 = 4096;
/// Bytes of one sum.
const SUM: u64 = 4;
/// Cells in a row that are worth a request.
const MANY: usize = 4;
/// Looked into, for certain.
const LOOK: u32 = 1;
/// What numbers of those who look begin with.
const NUMBERS: u32 = 2;
/// Bytes of the size at the end.
const SIZE: u64 = 8;

/// An open file.
#[derive(Debug)]
pub(in crate::read) struct CacheFile {
    file: File,
    /// The same past the page cache, where the file system has that: the kernel keeps what was read in the mount already, and to
    /// copy it a second time would take half of the processor time of reading it.
    direct: Option<File>,
    size: u64,
    sums: Mutex<Sums>,
    /// Held by whoever reads cells, and alone by whoever takes cells away.
    cells: RwLock<()>,
}

#[derive(Debug)]
struct Sums {
    of: Vec<u32>,
    /// Cells whose bytes were compared with their sum since the start.
    checked: Vec<bool>,
    /// Cells that were looked into: 0, [`LOOK`], or the number of who did, with [`NUMBERS`] added.
    looked: Vec<u32>,
}

impl CacheFile {
    /// Makes the file of an object of `size` bytes, or opens the one that is there.
    pub(super) fn create(path: &Path, size: u64) -> io::Result<CacheFile> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if file.metadata()?.len() != len_of(size) {
            file.set_len(0)?;
            file.set_len(len_of(size))?;
            file.write_all_at(&size.to_le_bytes(), len_of(size) - SIZE)?;
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

    /// Opens the file of whatever object it says that it is of.
    pub(super) fn open_any(path: &Path) -> io::Result<CacheFile> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let (len, mut size) = (file.metadata()?.len(), [0; SIZE as usize]);
        file.read_exact_at(&mut size, len.saturating_sub(SIZE))?;
        let size = u64::from_le_bytes(size);
        if size > OBJECT_MAX || len != len_of(size) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it has another length than its size says"));
        }
        CacheFile::load(file, size)
    }

    fn load(file: File, size: u64) -> io::Result<CacheFile> {
        let count = usize::try_from(size.div_ceil(CELL)).map_err(io::Error::other)?;
        let mut bytes = vec![0; count * (SUM as usize + 1)];
        file.read_exact_at(&mut bytes, sums_at(size))?;
        let (sums, looked) = bytes.split_at(count * SUM as usize);
        let of = sums.chunks_exact(SUM as usize).map(|sum| u32::from_le_bytes([sum[0], sum[1], sum[2], sum[3]]));
        let looked = looked.iter().map(|byte| u32::from(*byte == 1)).collect();
        let sums = Sums { of: of.collect(), checked: vec![false; count], looked };
        // By its descriptor: there may be another file of that name by now.
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        let direct = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(same).ok();
        Ok(CacheFile { file, direct, size, sums: Mutex::new(sums), cells: RwLock::new(()) })
    }

    /// Where the cells that are there from `at` on end, `end` at most. `None` if that of `at` is not there.
    pub(in crate::read) fn until(&self, at: u64, end: u64) -> Option<u64> {
        let sums = self.sums();
        let first = index(at / CELL);
        let last = index(end.div_ceil(CELL)).clamp(first, sums.of.len());
        let there = sums.of.get(first..last)?.iter().take_while(|sum| **sum != 0).count() as u64;
        (there > 0).then(|| end.min((at / CELL + there) * CELL))
    }

    /// Where the cells that are not there from `at` on end, `end` at most. Few that are there in between do not count: to leave
    /// them out would take a request more.
    pub(in crate::read) fn gap_end(&self, at: u64, end: u64) -> u64 {
        let sums = self.sums();
        let last = index(end.div_ceil(CELL)).min(sums.of.len());
        let mut there = 0;
        for cell in index(at / CELL)..last {
            there = if sums.of[cell] == 0 { 0 } else { there + 1 };
            if there == MANY {
                return end.min((cell + 1 - MANY) as u64 * CELL).max(at);
            }
        }
        end
    }

    /// Reads at least `range` into `buffer`, and answers what it has then. `None` if a cell is not there, or is not what was
    /// written: then it is not there any more.
    pub(super) fn read(&self, range: ByteRange, buffer: &mut Buffer) -> io::Result<Option<ByteRange>> {
        let around = unit::cells_around(range, self.size);
        let cells = index(around.start() / CELL)..index(around.end().div_ceil(CELL));
        let _nobody_takes_them = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        let (is_there, is_checked) = {
            let sums = self.sums();
            (
                sums.of[cells.clone()].iter().all(|sum| *sum != 0),
                sums.checked[cells.clone()].iter().all(|checked| *checked),
            )
        };
        if !is_there {
            return Ok(None);
        }
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
    fn check(&self, bytes: &[u8], cells: Range<usize>) -> io::Result<bool> {
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
                tracing::warn!(cell, "bytes in the disk cache are damaged: they are fetched again");
                self.file.write_all_at(&[0; SUM as usize], sums_at(self.size) + cell as u64 * SUM)?;
                all_right = false;
            }
        }
        Ok(all_right)
    }

    /// Writes those whole cells of `bytes`, which are those of `range`, that are not there. Answers how many bytes these are.
    pub(super) fn write(&self, range: ByteRange, bytes: &[u8], keep_for: KeepFor) -> io::Result<u64> {
        let looked = match keep_for {
            KeepFor::Stream => 0,
            KeepFor::Look => LOOK,
            KeepFor::LookOf(number) => NUMBERS.saturating_add(number),
        };
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
                if looked != 0 {
                    self.mark(run.clone(), looked)?;
                }
            }
            // Past the run, and the cell that ended it.
            at = run.end + 1;
        }
        Ok(written)
    }

    /// Cells that follow each other are written at once, and then their sums.
    fn write_run(&self, run: Range<usize>, range: ByteRange, bytes: &[u8]) -> io::Result<u64> {
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

    /// Cells around `range` are looked into.
    pub(super) fn look(&self, range: ByteRange) -> io::Result<()> {
        let around = unit::cells_around(range, self.size);
        let cells = index(around.start() / CELL)..index(around.end().div_ceil(CELL));
        let is_new = !self.sums().looked[cells.clone()].iter().all(|looked| *looked == LOOK);
        if is_new { self.mark(cells, LOOK) } else { Ok(()) }
    }

    /// Cells that were written for looks with this number were read through, it turns out.
    pub(super) fn look_away(&self, number: u32) -> io::Result<()> {
        let mut at = 0;
        loop {
            let run = {
                let looked = &self.sums().looked;
                let is_of = |cell: &usize| looked[*cell] == NUMBERS.saturating_add(number);
                let start = (at..looked.len()).find(is_of).unwrap_or(looked.len());
                start..(start..looked.len()).find(|cell| !is_of(cell)).unwrap_or(looked.len())
            };
            if run.is_empty() {
                return Ok(());
            }
            at = run.end;
            self.mark(run, 0)?;
        }
    }

    fn mark(&self, cells: Range<usize>, looked: u32) -> io::Result<()> {
        let at = looked_at(self.size) + cells.start as u64;
        self.sums().looked[cells.clone()].fill(looked);
        self.file.write_all_at(&vec![u8::from(looked != 0); cells.len()], at)
    }

    /// Takes away the cells that were not looked into. Answers how many bytes the file takes then; 0 if none of them are left.
    pub(super) fn trim(&self) -> io::Result<u64> {
        let _nobody_reads_them = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        let (mut at, mut left) = (0, 0usize);
        loop {
            let run = {
                let sums = self.sums();
                let goes = |cell: &usize| sums.of[*cell] != 0 && sums.looked[*cell] == 0;
                let count = sums.of.len();
                let start = (at..count).find(goes).unwrap_or(count);
                left += (at..start).filter(|cell| sums.of[*cell] != 0).count();
                start..(start..count).find(|cell| !goes(cell)).unwrap_or(count)
            };
            if run.is_empty() {
                return Ok(if left == 0 { 0 } else { self.file.metadata()?.blocks() * 512 });
            }
            at = run.end;
            self.take_away(run)?;
        }
    }

    fn take_away(&self, run: Range<usize>) -> io::Result<()> {
        self.sums().of[run.clone()].fill(0);
        self.file.write_all_at(&vec![0; run.len() * SUM as usize], sums_at(self.size) + run.start as u64 * SUM)?;
        let (start, end) = (run.start as u64 * CELL, self.size.min(run.end as u64 * CELL));
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let signed = |offset: u64| i64::try_from(offset).map_err(io::Error::other);
        Ok(fallocate(&self.file, hole, signed(start)?, signed(end - start)?)?)
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

fn looked_at(size: u64) -> u64 {
    sums_at(size) + size.div_ceil(CELL) * SUM
}

fn len_of(size: u64) -> u64 {
    looked_at(size) + size.div_ceil(CELL) + SIZE
}

fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::super::budget::Budget;
    use super::*;
    use futures::FutureExt;

    const LEN: u64 = 5 * CELL + 100;

    fn range(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    fn body() -> Vec<u8> {
        let mut bytes = vec![0; LEN as usize];
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
        let file = CacheFile::create(&path, LEN).unwrap();
        let part = range(CELL + 1, LEN);
        assert_eq!(file.write(part, &body[CELL as usize + 1..], KeepFor::Look).unwrap(), 3 * CELL + 100);
        assert_eq!(file.write(part, &body[CELL as usize + 1..], KeepFor::Look).unwrap(), 0, "they are there");
        for file in [file, CacheFile::open(&path, LEN).unwrap()] {
            assert_eq!((file.until(CELL, LEN), file.until(2 * CELL + 5, LEN)), (None, Some(LEN)));
            assert_eq!(file.until(3 * CELL, 4 * CELL - 1), Some(4 * CELL - 1));
            let part = range(2 * CELL + 9, LEN);
            assert_eq!(read(&file, part).unwrap().unwrap(), body[part.start() as usize..]);
        }
        assert!(CacheFile::open(&path, LEN + 5000).is_err());
    }

    #[test]
    fn what_was_looked_into_is_left_when_the_rest_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let (path, body) = (dir.path().join("a"), body());
        let file = CacheFile::create(&path, LEN).unwrap();
        file.write(range(0, CELL), &body[..CELL as usize], KeepFor::Look).unwrap();
        file.write(range(0, 2 * CELL), &body[..2 * CELL as usize], KeepFor::LookOf(7)).unwrap();
        file.write(range(0, 4 * CELL), &body[..4 * CELL as usize], KeepFor::Stream).unwrap();
        file.write(range(0, LEN), &body, KeepFor::LookOf(8)).unwrap();
        file.look(range(3 * CELL + 5, 3 * CELL + 6)).unwrap();
        file.look(range(5 * CELL, LEN)).unwrap();
        file.look_away(8).unwrap();
        file.look_away(7).unwrap();
        drop(file);
        let file = CacheFile::open_any(&path).unwrap();
        let before = file.file.metadata().unwrap().blocks();
        assert!((2 * CELL..3 * CELL).contains(&file.trim().unwrap()));
        assert!(file.file.metadata().unwrap().blocks() <= before - 3 * CELL / 512, "the disk has it back");
        for file in [file, CacheFile::open(&path, LEN).unwrap()] {
            let there = |cell: u64| {
                let part = range(cell * CELL, LEN.min((cell + 1) * CELL));
                let is_right = read(&file, part).unwrap()? == body[part.start() as usize..part.end() as usize];
                Some(is_right)
            };
            assert_eq!([0, 1, 2, 3, 4, 5].map(there), [Some(true), None, None, Some(true), None, Some(true)]);
            assert_eq!((file.until(0, LEN), file.until(CELL, LEN)), (Some(CELL), None));
        }
    }

    /// Whatever happens to a file, what is read of it is right or nothing.
    #[test]
    fn damaged_files_never_answer_wrong_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, body) = (dir.path().join("a"), body());
        let mut dice = fastrand::Rng::with_seed(11);
        let (mut right, mut gone) = (0, 0);
        for _ in 0..1000 {
            let file = CacheFile::create(&path, LEN).unwrap();
            file.write(range(0, LEN), &body, KeepFor::Look).unwrap();
            drop(file);
            let raw = OpenOptions::new().write(true).open(&path).unwrap();
            let len = raw.metadata().unwrap().len();
            match dice.u8(0..4) {
                0 => raw.set_len(dice.u64(0..len)).unwrap(),
                1 => raw.write_all_at(&vec![0; dice.usize(1..200_000)], dice.u64(0..len)).unwrap(),
                _ => raw.write_all_at(&dice.u64(..).to_le_bytes(), dice.u64(0..len)).unwrap(),
            }
            let Ok(file) = CacheFile::open(&path, LEN) else {
                gone += 1;
                continue;
            };
            for start in (0..LEN).step_by(CELL as usize) {
                let part = range(start, (start + CELL).min(LEN));
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
