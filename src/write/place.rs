//! The file of one staged file.
//!
//! Owns: which of its bytes the journal counts on, and that a change of these goes on in another file, which gets what it needs of the
//! one before. Does not own: the disk (`disk`), what the bytes are (`content`, `staging`).

use super::disk::{Disk, DiskFile};
use crate::types::{ByteRange, RangeSet};
use nix::errno::Errno;
use nix::fcntl::copy_file_range;
use nix::unistd::{Whence, lseek};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Bytes that are copied at once to another file.
const COPY_SIZE: u64 = 1 << 20;

/// What of a file may be overwritten although the journal counts on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InPlace {
    /// Nothing.
    #[default]
    Nothing,
    /// Any part, as a database does that has a journal of its own. Whoever empties the whole file is somebody else, and has none.
    Parts,
    /// All of it, as of such a journal.
    All,
}

/// The file of a staged file. The journal's row names a file and ranges of it: until there is a newer row, these bytes stay, and
/// who changes them goes on in another file.
#[derive(Debug)]
pub(super) struct StagingFile {
    disk: Arc<dyn Disk>,
    current: Mutex<(String, Arc<dyn DiskFile>)>,
    /// Bytes of the current file that the journal counts on.
    kept: Mutex<RangeSet>,
    /// Which of them may be overwritten all the same.
    in_place: Mutex<InPlace>,
    /// What is here is being copied to another file.
    copying: watch::Sender<bool>,
    /// Files that the journal may still name.
    retired: Mutex<Vec<String>>,
    /// The file that has taken the place of one that was lost, as long as it was not synced: no row names it.
    unsynced: Mutex<Option<String>>,
}

impl StagingFile {
    pub(super) fn new(disk: Arc<dyn Disk>, name: String, file: Arc<dyn DiskFile>) -> StagingFile {
        StagingFile {
            disk,
            current: Mutex::new((name, file)),
            kept: Mutex::default(),
            in_place: Mutex::default(),
            copying: watch::Sender::new(false),
            retired: Mutex::default(),
            unsynced: Mutex::default(),
        }
    }

    fn current(&self) -> MutexGuard<'_, (String, Arc<dyn DiskFile>)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn name(&self) -> String {
        self.current().0.clone()
    }

    pub(super) fn file(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.current().1)
    }

    fn kept(&self) -> MutexGuard<'_, RangeSet> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The journal is about to name these bytes of the file, which are being synced. Those of the row before stay as well.
    pub(super) fn keep(&self, named: &RangeSet) {
        if !self.is_in_place() {
            let mut kept = self.kept();
            named.iter().for_each(|range| kept.insert(range));
        }
    }

    /// The journal names none of its bytes any more.
    pub(super) fn keep_nothing(&self) {
        *self.kept() = RangeSet::new();
    }

    /// Whether the journal counts on one of these bytes.
    pub(super) fn is_kept(&self, range: ByteRange) -> bool {
        self.kept().covered(range) > 0
    }

    /// Whether what is here is being copied to another file just now.
    pub(super) fn is_copying(&self) -> bool {
        *self.copying.borrow()
    }

    /// Waits until it is not.
    pub(super) async fn copy_ended(&self) {
        if self.is_copying() {
            drop(self.copying.subscribe().wait_for(|copying| !*copying).await);
        }
    }

    fn in_place(&self) -> MutexGuard<'_, InPlace> {
        self.in_place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_in_place(&self) -> bool {
        *self.in_place() != InPlace::Nothing
    }

    pub(super) fn overwrite_in_place(&self, in_place: InPlace) {
        if std::mem::replace(&mut *self.in_place(), in_place) != in_place {
            self.keep_nothing();
        }
    }

    /// The file is about to be emptied: a database goes on in another file, as long as the journal may have this one. The caller holds
    /// the lock under which the file is written.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub(super) fn emptying(&self) -> io::Result<()> {
        if *self.in_place() == InPlace::Parts { self.go_on_elsewhere(std::iter::empty(), None) } else { Ok(()) }
    }

    /// The ranges `changed` are about to change: if the journal counts on one of their bytes, they change in another file, which has
    /// what there is of the `present` ranges, and is `len` bytes long, if that is said. The caller holds the lock under which the file is
    /// written.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub(super) fn changing(
        &self,
        mut changed: impl Iterator<Item = ByteRange>,
        present: impl Iterator<Item = ByteRange>,
        len: Option<u64>,
    ) -> io::Result<()> {
        if !changed.any(|range| self.is_kept(range)) {
            return Ok(());
        }
        self.go_on_with(present, len)
    }

    /// Goes on in another file, which whoever waits for the copy is told of.
    fn go_on_with(&self, present: impl Iterator<Item = ByteRange>, len: Option<u64>) -> io::Result<()> {
        self.copying.send_replace(true);
        let copied = self.go_on_elsewhere(present, len);
        self.copying.send_replace(false);
        copied
    }

    /// If what the disk has of it is not known since a sync failed, goes on in another file that can be synced, with what there is of the
    /// `present` ranges. The caller holds the lock under which the file is written.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub(super) fn leave_unsafe(&self, present: &RangeSet) -> io::Result<()> {
        if !self.file().has_lost() {
            return Ok(());
        }
        let before = self.name();
        self.go_on_with(present.iter(), None)?;
        let unsynced = self.unsynced().replace(self.name());
        if unsynced.is_some_and(|name| name == before) {
            self.retired.lock().unwrap_or_else(PoisonError::into_inner).retain(|name| *name != before);
            self.remove(&before);
        }
        Ok(())
    }

    /// The file was synced: a row that names it may be written from now on.
    pub(super) fn note_synced(&self) {
        *self.unsynced() = None;
    }

    fn unsynced(&self) -> MutexGuard<'_, Option<String>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn go_on_elsewhere(&self, present: impl Iterator<Item = ByteRange>, len: Option<u64>) -> io::Result<()> {
        let name = uuid::Uuid::new_v4().to_string();
        let (old, new) = (self.file(), self.disk.create(&name)?);
        let made = copy(&*old, &*new, present).and_then(|()| len.map_or(Ok(()), |len| new.set_len(len)));
        if let Err(e) = made {
            self.disk.remove(&name)?;
            return Err(e);
        }
        let before = std::mem::replace(&mut *self.current(), (name, new));
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(before.0);
        self.keep_nothing();
        Ok(())
    }

    /// Goes on with an empty file. Whoever reads the one before has it open.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub(super) fn start_over(&self) -> io::Result<()> {
        let name = uuid::Uuid::new_v4().to_string();
        let new = self.disk.create(&name)?;
        let before = std::mem::replace(&mut *self.current(), (name, new));
        self.keep_nothing();
        self.remove(&before.0);
        Ok(())
    }

    /// The journal names `name`, or nothing any more: the files before it go.
    pub(super) fn drop_retired(&self, name: Option<&str>) {
        let retired = std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        let (stays, goes): (Vec<_>, Vec<_>) = retired.into_iter().partition(|file| Some(file.as_str()) == name);
        goes.iter().for_each(|file| self.remove(file));
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).extend(stays);
    }

    /// Takes all of it away.
    pub(super) fn remove_all(&self) {
        self.drop_retired(None);
        self.remove(&self.name());
    }

    fn remove(&self, name: &str) {
        if let Err(e) = self.disk.remove(name) {
            tracing::warn!(file = %name, error = %e, "a staging file could not be removed");
        }
    }
}

fn copy(old: &dyn DiskFile, new: &dyn DiskFile, present: impl Iterator<Item = ByteRange>) -> io::Result<()> {
    let mut buffer = Vec::new();
    for range in present {
        let mut at = range.start();
        while at < range.end() {
            // The new file has holes everywhere so far.
            at = data_from(old, at).map_or(at, |data| data.min(range.end()));
            if at == range.end() {
                break;
            }
            let end = hole_from(old, at).map_or(range.end(), |hole| hole.clamp(at + 1, range.end()));
            if let Some(copied) = copy_in_kernel(old, new, at, end) {
                at += copied;
                continue;
            }
            let len = COPY_SIZE.min(end - at);
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            old.read_at(&mut buffer, at)?;
            new.write_at(&buffer, at)?;
            at += len;
        }
    }
    Ok(())
}

/// Where the first data of a file is at `at` or behind (lseek(2)); at the end of a hole that goes on for ever if there is none. `None` if
/// nobody can tell.
fn data_from(file: &dyn DiskFile, at: u64) -> Option<u64> {
    match lseek(&*file.plain()?, i64::try_from(at).ok()?, Whence::SeekData) {
        Ok(data) => u64::try_from(data).ok(),
        Err(Errno::ENXIO) => Some(u64::MAX),
        Err(_) => None,
    }
}

/// Where the hole behind data at `at` begins. `None` as in [`data_from`].
fn hole_from(file: &dyn DiskFile, at: u64) -> Option<u64> {
    let hole = lseek(&*file.plain()?, i64::try_from(at).ok()?, Whence::SeekHole).ok()?;
    u64::try_from(hole).ok()
}

/// Some file systems share the blocks, and others copy within the kernel (copy_file_range(2)). Answers how many bytes of those from
/// `at` to `end` were copied; `None` if they have to be read and written, which tells why it cannot be done, if it cannot.
fn copy_in_kernel(old: &dyn DiskFile, new: &dyn DiskFile, at: u64, end: u64) -> Option<u64> {
    let (old, new) = (old.plain()?, new.plain()?);
    let (mut from, len) = (i64::try_from(at).ok()?, usize::try_from(end - at).ok()?);
    let mut to = from;
    let copied = copy_file_range(&*old, Some(&mut from), &*new, Some(&mut to), len).ok()?;
    if copied > 0 { Some(copied as u64) } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::disk::DirDisk;
    use super::super::testing::bytes;
    use super::*;

    #[test]
    fn what_is_copied_to_another_file_is_all_of_the_ranges_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::new(dir.path()).unwrap();
        let len = 3 * COPY_SIZE as usize + 5;
        let mut wanted = vec![0; len];
        fastrand::Rng::with_seed(1).fill(&mut wanted);
        let range = |start: usize, end: usize| ByteRange::new(start as u64, end as u64).unwrap();
        // The last one goes beyond the end of the file, where it has zeros.
        let (hole, end) = (2 * COPY_SIZE as usize, len + 10);
        let ranges = [range(10, hole), range(hole + 70_000, end)];
        for is_on_disk in [true, false] {
            let (old, new) = (disk.create("old").unwrap(), disk.create("new").unwrap());
            old.write_at(&wanted, 0).unwrap();
            if is_on_disk {
                new.sync_data().unwrap();
            }
            copy(&*old, &*new, ranges.into_iter()).unwrap();
            let mut copied = wanted.clone();
            copied[..10].fill(0);
            copied[hole..hole + 70_000].fill(0);
            copied.resize(end, 0);
            assert!(bytes(&*new, end).unwrap() == copied, "{is_on_disk}");
            disk.remove("old").unwrap();
            disk.remove("new").unwrap();
        }
    }

    #[test]
    fn a_copy_of_holes_takes_no_room() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::new(dir.path()).unwrap();
        let (old, new) = (disk.create("old").unwrap(), disk.create("new").unwrap());
        let (at, size) = (1 << 30, 1 << 34);
        old.write_at(b"data", at).unwrap();
        old.set_len(size).unwrap();
        new.sync_data().unwrap();
        copy(&*old, &*new, ByteRange::new(0, size).into_iter()).unwrap();
        let mut there = [0; 6];
        new.read_at(&mut there, at - 1).unwrap();
        assert_eq!(&there, b"\0data\0");
        let blocks = std::fs::metadata(dir.path().join("new")).unwrap().blocks();
        assert!(blocks * 512 < 1 << 20, "{blocks}");
    }
}
