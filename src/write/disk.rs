//! The disk under the staging files.
//!
//! Owns: the seam to it (trait [`Disk`]), and the real one. Does not own: which file a staged file has (`place`), which files are open
//! (`descriptors`), bytes in memory (`small`).

use super::descriptors::{Descriptor, Descriptors};
use super::small::Small;
use crate::types::ByteRange;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::collections::HashMap;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes that are written where there are no holes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The disk under the staging files, as a seam: tests put one there that fails or forgets.
pub trait Disk: Send + Sync + Debug {
    /// Makes a file, or opens the one that is there. A new name is durable once its file was synced.
    ///
    /// # Errors
    /// What the disk says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a file under a name that nobody has. It need not be on the disk before it is synced.
    ///
    /// # Errors
    /// What the disk says.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.open(name)
    }
    /// Takes a file away. One that is not there is no error.
    ///
    /// # Errors
    /// What the disk says.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Names of all files.
    ///
    /// # Errors
    /// What the disk says.
    fn names(&self) -> io::Result<Vec<String>>;
}

/// A file of a [`Disk`].
pub trait DiskFile: Send + Sync + Debug {
    /// Fills `buffer` from `offset` on; what is past the end of the file is zero.
    ///
    /// # Errors
    /// What the disk says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the disk says.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Makes `range` zeros, with its blocks given back where that can be done. The file keeps its length.
    ///
    /// # Errors
    /// What the disk says; some of it may be zeros then.
    fn punch(&self, range: ByteRange) -> io::Result<()>;
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// What the disk says.
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Makes what was written durable, and the name with it.
    ///
    /// # Errors
    /// What the disk says; so does each one that follows.
    fn sync_data(&self) -> io::Result<()>;
    /// Whether that has failed. The kernel says so once, and takes what it could not write for written (fsync(2), "Linux notes"): it can
    /// still be read for a while, and what the disk has nobody knows.
    fn has_lost(&self) -> bool {
        false
    }
    /// The file of this machine that it is, if it is one: of two such the kernel copies one into the other.
    fn plain(&self) -> Option<Arc<File>> {
        None
    }
}

/// The real disk: a directory.
#[derive(Debug)]
pub struct DirDisk {
    dir: PathBuf,
    in_memory: Arc<AtomicU64>,
    open: Arc<Descriptors>,
    /// Files that somebody may have, by their names.
    known: Mutex<HashMap<String, Weak<Descriptor>>>,
}

impl DirDisk {
    /// Staging files in `dir`, which is made, 0700, if it is not there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(dir: &Path) -> io::Result<DirDisk> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(DirDisk { dir: dir.to_owned(), in_memory: Arc::default(), open: Arc::default(), known: Mutex::default() })
    }
}

impl Disk for DirDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.dir.join(name);
        let is_new = !path.exists();
        let file =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let opened = self.file(name);
        opened.open.take(&opened.descriptor, file);
        opened.is_on_disk.store(true, Ordering::SeqCst);
        opened.is_new.store(is_new, Ordering::SeqCst);
        Ok(Arc::new(opened))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(self.file(name)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let known = self.known().get(name).and_then(Weak::upgrade);
        if let Some(known) = known {
            known.outlive_name()?;
        }
        self.known().remove(name);
        match fs::remove_file(self.dir.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

impl DirDisk {
    fn file(&self, name: &str) -> DirFile {
        let descriptor = Arc::new(Descriptor::new(self.dir.join(name)));
        self.known().insert(name.to_owned(), Arc::downgrade(&descriptor));
        DirFile {
            small: Mutex::new(Small::new(Arc::clone(&self.in_memory))),
            is_on_disk: AtomicBool::new(false),
            descriptor,
            open: Arc::clone(&self.open),
            is_new: AtomicBool::new(true),
            has_lost: AtomicBool::new(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Weak<Descriptor>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file of a [`DirDisk`].
#[derive(Debug)]
struct DirFile {
    /// Its bytes, as long as it is not on the disk.
    small: Mutex<Small>,
    is_on_disk: AtomicBool,
    descriptor: Arc<Descriptor>,
    open: Arc<Descriptors>,
    /// The directory was not synced since the file was made.
    is_new: AtomicBool,
    has_lost: AtomicBool,
}

/// Where the bytes of a [`DirFile`] are.
enum Place<'a> {
    Disk(Arc<File>),
    /// They stay there as long as they are locked.
    Memory(MutexGuard<'a, Small>),
}

impl DirFile {
    fn place(&self) -> io::Result<Place<'_>> {
        if !self.is_on_disk.load(Ordering::SeqCst) {
            let small = self.small.lock().unwrap_or_else(PoisonError::into_inner);
            // It may have gone to the disk meanwhile.
            if !self.is_on_disk.load(Ordering::SeqCst) {
                return Ok(Place::Memory(small));
            }
        }
        Ok(Place::Disk(self.open.file(&self.descriptor)?))
    }

    /// The file on the disk, with what was in memory.
    fn on_disk(&self, mut small: MutexGuard<'_, Small>) -> io::Result<Arc<File>> {
        let path = self.descriptor.path();
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        if let Err(e) = file.write_all_at(small.bytes(), 0) {
            fs::remove_file(path)?;
            return Err(e);
        }
        small.forget();
        let file = self.open.take(&self.descriptor, file);
        self.is_on_disk.store(true, Ordering::SeqCst);
        Ok(file)
    }
}

impl DiskFile for DirFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let file = match self.place()? {
            Place::Disk(file) => file,
            Place::Memory(small) => {
                small.read_at(buffer, offset);
                return Ok(());
            }
        };
        let mut done = 0;
        while done < buffer.len() {
            match file.read_at(&mut buffer[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        buffer[done..].fill(0);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let file = match self.place()? {
            Place::Disk(file) => file,
            Place::Memory(mut small) => {
                if small.write_at(bytes, offset) {
                    return Ok(());
                }
                self.on_disk(small)?
            }
        };
        file.write_all_at(bytes, offset)
    }

    fn punch(&self, range: ByteRange) -> io::Result<()> {
        let file = match self.place()? {
            Place::Disk(file) => file,
            Place::Memory(mut small) => {
                small.punch(range);
                return Ok(());
            }
        };
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let signed = |number: u64| i64::try_from(number).map_err(io::Error::other);
        let (start, len) = (signed(range.start())?, signed(range.len())?);
        loop {
            match fallocate(&*file, hole, start, len) {
                Err(Errno::EINTR) => {}
                // Not every file system has holes (fallocate(2)).
                Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return write_zeros(&file, range),
                punched => return Ok(punched?),
            }
        }
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        let file = match self.place()? {
            Place::Disk(file) => file,
            Place::Memory(mut small) => {
                if small.set_len(size) {
                    return Ok(());
                }
                self.on_disk(small)?
            }
        };
        file.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        let file = match self.place()? {
            Place::Disk(file) => file,
            Place::Memory(small) => self.on_disk(small)?,
        };
        if self.has_lost() {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if let Err(e) = file.sync_data() {
            self.has_lost.store(true, Ordering::SeqCst);
            return Err(e);
        }
        if self.is_new.load(Ordering::SeqCst) {
            let dir = self.descriptor.path().parent().ok_or(io::ErrorKind::NotFound)?;
            File::open(dir)?.sync_all()?;
            self.is_new.store(false, Ordering::SeqCst);
        }
        Ok(())
    }

    fn has_lost(&self) -> bool {
        self.has_lost.load(Ordering::SeqCst)
    }

    fn plain(&self) -> Option<Arc<File>> {
        match self.place() {
            // The kernel would share blocks that have not what is read.
            Ok(Place::Disk(file)) if !self.has_lost() => Some(file),
            _ => None,
        }
    }
}

/// Zeros in the place of what the file has of `range`; past its end it has nothing.
fn write_zeros(file: &File, range: ByteRange) -> io::Result<()> {
    let end = range.end().min(file.metadata()?.len());
    for at in (range.start()..end).step_by(ZEROS.len()) {
        let len = usize::try_from(end - at).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
        file.write_all_at(&ZEROS[..len], at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::small::{SMALL_MAX, SMALL_TOTAL_MAX};
    use super::super::testing::bytes;
    use super::*;

    #[test]
    fn small_files_are_on_the_disk_once_they_are_synced_or_grow() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::new(dir.path()).unwrap();
        let on_disk = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        let (synced, grown, cut) =
            (disk.create("synced").unwrap(), disk.create("grown").unwrap(), disk.create("cut").unwrap());
        for file in [&synced, &grown, &cut] {
            file.write_at(b"small", 3).unwrap();
            file.set_len(6).unwrap();
            file.set_len(7).unwrap();
            file.punch(ByteRange::new(5, 90).unwrap()).unwrap();
            assert_eq!(bytes(&**file, 9).unwrap(), b"\0\0\0sm\0\0\0\0");
            file.write_at(b"a", 5).unwrap();
        }
        assert!(disk.names().unwrap().is_empty());
        synced.sync_data().unwrap();
        assert_eq!(on_disk("synced"), b"\0\0\0sma\0");
        synced.write_at(b"l", 6).unwrap();
        assert_eq!(on_disk("synced"), b"\0\0\0smal");
        grown.write_at(b"!", SMALL_MAX).unwrap();
        assert_eq!(
            (on_disk("grown").len() as u64, &bytes(&*grown, 7).unwrap()[..]),
            (SMALL_MAX + 1, &b"\0\0\0sma\0"[..])
        );
        cut.set_len(SMALL_MAX + 1).unwrap();
        cut.set_len(4).unwrap();
        assert_eq!(on_disk("cut"), b"\0\0\0s");
        assert_eq!(disk.in_memory.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn small_files_do_not_take_more_memory_than_they_may() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::new(dir.path()).unwrap();
        let body = vec![7; SMALL_MAX as usize];
        let (fit, many) = (SMALL_TOTAL_MAX / SMALL_MAX, SMALL_TOTAL_MAX / SMALL_MAX + 3);
        let files: Vec<_> = (0..many).map(|i| disk.create(&i.to_string()).unwrap()).collect();
        files.iter().for_each(|file| file.write_at(&body, 0).unwrap());
        assert_eq!(disk.names().unwrap().len() as u64, many - fit);
        assert!(files.iter().all(|file| bytes(&**file, body.len()).unwrap() == body));
        drop(files);
        assert_eq!(disk.in_memory.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_small_file_that_finds_no_room_on_the_disk_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::new(&dir.path().join("gone")).unwrap();
        let file = disk.create("a").unwrap();
        file.write_at(b"bytes", 0).unwrap();
        std::fs::remove_dir(dir.path().join("gone")).unwrap();
        file.write_at(b"!", SMALL_MAX).unwrap_err();
        file.sync_data().unwrap_err();
        assert_eq!(bytes(&*file, 5).unwrap(), b"bytes");
    }

    #[test]
    fn a_file_that_cannot_be_opened_for_those_who_read_on_keeps_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::new(dir.path()).unwrap();
        let _file = disk.create("a").unwrap();
        // Whoever opens it fails (ELOOP), and whoever takes its name away does not.
        let path = dir.path().join("a");
        std::os::unix::fs::symlink("a", &path).unwrap();
        assert_eq!(disk.remove("a").unwrap_err().raw_os_error(), Some(libc::ELOOP));
        assert!(path.symlink_metadata().is_ok());
        disk.remove("a").unwrap_err();
        fs::remove_file(&path).unwrap();
        disk.remove("a").unwrap();
    }

    #[test]
    fn what_is_punched_is_zeros_with_and_without_holes() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::new(dir.path()).unwrap();
        let file = disk.open("f").unwrap();
        let len = 3 * ZEROS.len() + 5;
        let mut wanted = vec![7; len];
        file.write_at(&wanted, 0).unwrap();
        let range = |start: usize, end: usize| ByteRange::new(start as u64, end as u64).unwrap();
        file.punch(range(10, len - 10)).unwrap();
        wanted[10..len - 10].fill(0);
        let on_disk = || std::fs::read(dir.path().join("f")).unwrap();
        assert!(on_disk() == wanted);
        file.punch(range(len - 3, len + 100)).unwrap();
        wanted[len - 3..].fill(0);
        assert!(on_disk() == wanted, "its length stays");
        wanted.fill(8);
        file.write_at(&wanted, 0).unwrap();
        let plain = fs::OpenOptions::new().write(true).open(dir.path().join("f")).unwrap();
        write_zeros(&plain, range(1, len - 2)).unwrap();
        write_zeros(&plain, range(len - 1, len + 100)).unwrap();
        wanted[1..len - 2].fill(0);
        wanted[len - 1] = 0;
        assert!(on_disk() == wanted);
    }
}
