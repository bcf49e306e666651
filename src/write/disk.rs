//! The disk under the staging files.
//!
//! Owns: the seam to it (trait [`Disk`]), the real one, and the file of one staged file, of which bytes that the journal counts on
//! are not overwritten. Does not own: what the bytes are (`content`, `staging`), the journal (`write`).

use crate::types::ByteRange;
use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that are copied at once to another file.
const COPY_SIZE: u64 = 1 << 20;

/// The disk under the staging files, as a seam: tests put one there that fails or forgets.
pub trait Disk: Send + Sync + Debug {
    /// Makes a file, or opens the one that is there. A new name is durable once its file was synced.
    ///
    /// # Errors
    /// What the disk says.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
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
    /// Cuts or extends the file.
    ///
    /// # Errors
    /// What the disk says.
    fn set_len(&self, size: u64) -> io::Result<()>;
    /// Makes what was written durable, and the name with it.
    ///
    /// # Errors
    /// What the disk says.
    fn sync_data(&self) -> io::Result<()>;
}

/// The real disk: a directory.
#[derive(Debug)]
pub struct DirDisk(PathBuf);

impl DirDisk {
    /// Staging files in `dir`, which is made, 0700, if it is not there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(dir: &Path) -> io::Result<DirDisk> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        Ok(DirDisk(dir.to_owned()))
    }
}

impl Disk for DirDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.0.join(name);
        let is_new = !path.exists();
        let file =
            fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        Ok(Arc::new(DirFile { file, dir: self.0.clone(), is_new: AtomicBool::new(is_new) }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }
}

/// A file of a [`DirDisk`].
#[derive(Debug)]
struct DirFile {
    file: File,
    dir: PathBuf,
    /// The directory was not synced since the file was made.
    is_new: AtomicBool,
}

impl DiskFile for DirFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            match self.file.read_at(&mut buffer[done..], offset + done as u64) {
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
        self.file.write_all_at(bytes, offset)
    }

    fn set_len(&self, size: u64) -> io::Result<()> {
        self.file.set_len(size)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.is_new.load(Ordering::SeqCst) {
            File::open(&self.dir)?.sync_all()?;
            self.is_new.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// The file of a staged file. The journal's row names a file and ranges of it: until there is a newer row, these bytes stay, and
/// who changes them goes on in another file.
#[derive(Debug)]
pub(super) struct StagingFile {
    disk: Arc<dyn Disk>,
    current: Mutex<(String, Arc<dyn DiskFile>)>,
    /// Bytes from the beginning of the current file that the journal counts on.
    kept_len: AtomicU64,
    /// They may be overwritten all the same.
    in_place: AtomicBool,
    /// Files that the journal may still name.
    retired: Mutex<Vec<String>>,
}

impl StagingFile {
    pub(super) fn new(disk: Arc<dyn Disk>, name: String, file: Arc<dyn DiskFile>) -> StagingFile {
        StagingFile {
            disk,
            current: Mutex::new((name, file)),
            kept_len: AtomicU64::new(0),
            in_place: AtomicBool::new(false),
            retired: Mutex::default(),
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

    /// The journal is about to name `len` bytes of the file, which were synced. 0: none any more.
    pub(super) fn keep(&self, len: u64) {
        let len = if self.in_place.load(Ordering::SeqCst) { 0 } else { len };
        self.kept_len.store(len, Ordering::SeqCst);
    }

    pub(super) fn is_in_place(&self) -> bool {
        self.in_place.load(Ordering::SeqCst)
    }

    pub(super) fn overwrite_in_place(&self, in_place: bool) {
        if self.in_place.swap(in_place, Ordering::SeqCst) != in_place {
            self.keep(0);
        }
    }

    /// Bytes from `from` on are about to change: if the journal counts on one of them, they change in another file, which has what
    /// there is of the `present` ranges. The caller holds the lock under which the file is written.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub(super) fn changing(&self, from: u64, present: impl Iterator<Item = ByteRange>) -> io::Result<()> {
        if from >= self.kept_len.load(Ordering::SeqCst) {
            return Ok(());
        }
        let name = uuid::Uuid::new_v4().to_string();
        let (old, new) = (self.file(), self.disk.open(&name)?);
        if let Err(e) = copy(&*old, &*new, present) {
            self.disk.remove(&name)?;
            return Err(e);
        }
        let before = std::mem::replace(&mut *self.current(), (name, new));
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(before.0);
        self.keep(0);
        Ok(())
    }

    /// Goes on with an empty file. Whoever reads the one before has it open.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub(super) fn start_over(&self) -> io::Result<()> {
        let name = uuid::Uuid::new_v4().to_string();
        let new = self.disk.open(&name)?;
        let before = std::mem::replace(&mut *self.current(), (name, new));
        self.keep(0);
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
            let len = COPY_SIZE.min(range.end() - at);
            buffer.resize(usize::try_from(len).unwrap_or(0), 0);
            old.read_at(&mut buffer, at)?;
            new.write_at(&buffer, at)?;
            at += len;
        }
    }
    Ok(())
}
