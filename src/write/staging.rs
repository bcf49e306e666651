//! Staging files: local bytes not yet in the bucket.
//!
//! Owns: the seam to the disk (trait [`Disk`]), one sparse file per dirty inode, reading and writing it together with its
//! [`Content`]. Does not own: when it is committed (`fs`), the journal row (`write`).

use super::content::{Content, Source};
use super::sending::{AHEAD_FROM, Sending};
use crate::types::{ByteRange, Ino, ObjectRef, Timestamp, WriteId};
use bytes::{Bytes, BytesMut};
use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

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

/// A staged file: its bytes on the disk and their make-up.
#[derive(Debug)]
pub struct Staged {
    ino: Ino,
    name: String,
    file: Arc<dyn DiskFile>,
    content: Mutex<Content>,
    journaled: AtomicBool,
    /// Ids of commits whose outcome is not known to be a success: an object that carries one of them is ours.
    attempts: Mutex<Vec<WriteId>>,
    /// Whoever writes or clears the journal's row waits for its turn: a row must not be cleared that tells of newer bytes.
    journal_turn: Semaphore,
    /// When it was last written, until that is in the catalogue.
    written_at: Mutex<Option<Timestamp>>,
    /// An upload of it that is under way, unless a commit has taken it over. Locked under `content`, if both are.
    sending: Mutex<Option<Arc<Sending>>>,
    /// Who begins an upload, or commits, waits for its turn.
    upload_turn: Semaphore,
    /// At this size there is something to send ahead of the commit.
    next_ahead: AtomicU64,
    /// Grows with every change, and which of them the journal has.
    changes: AtomicU64,
    recorded: AtomicU64,
    /// How long its upload waits after it was acknowledged, in ms.
    delay_ms: AtomicU64,
}

/// What a write has made of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grown {
    /// Its size in bytes.
    pub size: u64,
    /// Whether a part of it can be sent ahead of its commit. Said once for each part.
    pub is_part_full: bool,
}

impl Staged {
    pub(super) fn new(
        ino: Ino,
        name: String,
        file: Arc<dyn DiskFile>,
        content: Content,
        attempts: Vec<WriteId>,
    ) -> Staged {
        Staged {
            ino,
            name,
            file,
            content: Mutex::new(content),
            journaled: AtomicBool::new(false),
            attempts: Mutex::new(attempts),
            journal_turn: Semaphore::new(1),
            written_at: Mutex::new(None),
            sending: Mutex::new(None),
            upload_turn: Semaphore::new(1),
            next_ahead: AtomicU64::new(AHEAD_FROM),
            changes: AtomicU64::new(1),
            recorded: AtomicU64::new(0),
            delay_ms: AtomicU64::new(0),
        }
    }

    /// Whether the journal has the file as it is now.
    pub fn is_recorded(&self) -> bool {
        self.is_journaled() && self.recorded.load(Ordering::SeqCst) == self.changes.load(Ordering::SeqCst)
    }

    /// How long its upload waits after it was acknowledged.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms.load(Ordering::Relaxed))
    }

    /// Its upload waits so long from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Its make-up as of now, and which change was the last.
    pub(super) fn snapshot(&self) -> (Content, u64) {
        let content = self.lock();
        (content.clone(), self.changes.load(Ordering::SeqCst))
    }

    /// The journal has the file as it was after this change.
    pub(super) fn set_recorded(&self, change: u64) {
        self.recorded.store(change, Ordering::SeqCst);
        self.set_journaled(true);
    }

    fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// The upload that is under way, if any.
    pub(super) fn sending(&self) -> Option<Arc<Sending>> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts an upload there. Answers the one before.
    pub(super) fn set_sending(&self, sending: Option<Arc<Sending>>) -> Option<Arc<Sending>> {
        std::mem::replace(&mut *self.sending.lock().unwrap_or_else(PoisonError::into_inner), sending)
    }

    pub(super) async fn upload_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.upload_turn.acquire().await.ok()
    }

    pub(super) fn try_upload_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.upload_turn.try_acquire().ok()
    }

    /// At which size a write says again that a part is full.
    pub(super) fn set_next_ahead(&self, size: u64) {
        self.next_ahead.store(size, Ordering::Relaxed);
    }

    /// The same file under another inode number.
    pub(super) fn with_ino(&self, ino: Ino) -> Staged {
        Staged::new(ino, self.name.clone(), Arc::clone(&self.file), self.content(), self.attempts())
    }

    /// The inode that it belongs to.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Name of its file in the staging directory.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its make-up as of now.
    pub fn content(&self) -> Content {
        self.lock().clone()
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.lock().size()
    }

    /// Whether the bucket lacks anything of it.
    pub fn is_changed(&self) -> bool {
        self.lock().is_changed()
    }

    /// Whether the journal has a row of it.
    pub fn is_journaled(&self) -> bool {
        self.journaled.load(Ordering::SeqCst)
    }

    pub(super) fn set_journaled(&self, journaled: bool) {
        self.journaled.store(journaled, Ordering::SeqCst);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn journal_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.journal_turn.acquire().await.ok()
    }

    pub(super) fn attempts(&self) -> Vec<WriteId> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn note_attempt(&self, id: &WriteId) {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        if !attempts.contains(id) {
            attempts.push(id.clone());
        }
    }

    pub(super) fn forget_attempts(&self) {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether an object that carries `id` was written by an earlier commit of this file, whose answer was lost.
    pub fn is_own(&self, id: &WriteId) -> bool {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    /// `object` is what this file replaces now, byte for byte: its own earlier commit, or a file it was renamed over.
    pub fn rebase(&self, object: ObjectRef) {
        self.lock().on_rebased(Some(object));
        self.note_change();
    }

    /// The base's bytes are found at `object` from now on.
    pub fn replace_base(&self, object: ObjectRef) {
        self.lock().on_base_moved(object);
        self.note_change();
    }

    /// What this file changed is gone from the bucket: it is a new file now. Only when every byte is local.
    pub fn rebase_on_nothing(&self) {
        self.lock().on_rebased(None);
        self.note_change();
    }

    /// When it was last written, if the catalogue does not know yet.
    pub fn written_at(&self) -> Option<Timestamp> {
        *self.written_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers when it was last written, or that the catalogue knows.
    pub fn set_written_at(&self, at: Option<Timestamp>) {
        *self.written_at.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// Writes `bytes` at `offset`, or at the end for `None` (O_APPEND).
    ///
    /// # Errors
    /// What the disk says; the file has not grown then.
    pub fn write(&self, offset: Option<u64>, bytes: &[u8]) -> io::Result<Grown> {
        let mut content = self.lock();
        let offset = offset.unwrap_or_else(|| content.size());
        let Some(range) = ByteRange::at(offset, bytes.len() as u64) else {
            return Ok(Grown { size: content.size(), is_part_full: false });
        };
        if let Err(e) = self.file.write_at(bytes, offset) {
            // Some of it may have arrived. Past the end it is cut off again; within the file it counts as written, so that
            // what is read is what will be sent. Not where the file had nothing: there the base stays what it is.
            self.file.set_len(content.size())?;
            for (piece, source) in content.sources(range) {
                if source != Source::Base {
                    self.note_written(&mut content, piece);
                }
            }
            return Err(e);
        }
        self.note_written(&mut content, range);
        let size = content.size();
        let next = self.next_ahead.load(Ordering::Relaxed);
        // What keeps bytes of an earlier version is sent when it is known which.
        let is_part_full = size >= next && content.base_len() == 0;
        if is_part_full {
            self.set_next_ahead(u64::MAX);
        }
        Ok(Grown { size, is_part_full })
    }

    fn note_written(&self, content: &mut Content, range: ByteRange) {
        content.on_write(range);
        self.note_change();
        if let Some(sending) = self.sending() {
            sending.on_changed(range);
        }
    }

    /// Cuts or extends the file to `size` bytes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn truncate(&self, size: u64) -> io::Result<()> {
        let mut content = self.lock();
        self.file.set_len(size)?;
        content.on_truncate(size);
        self.note_change();
        if let Some(sending) = self.sending() {
            sending.on_cut(size);
        }
        Ok(())
    }

    /// Attributes that travel with the object changed.
    pub fn touch(&self) {
        self.lock().on_attributes();
        self.note_change();
    }

    /// Where the bytes of `range` come from, and the version that the base pieces are read from.
    pub fn sources(&self, range: ByteRange) -> (Vec<(ByteRange, Source)>, Option<ObjectRef>) {
        let content = self.lock();
        (content.sources(range), content.base().cloned())
    }

    /// Bytes that [`Staged::sources`] says are in the file.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_file(&self, range: ByteRange) -> io::Result<Bytes> {
        let len = usize::try_from(range.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut buffer = BytesMut::zeroed(len);
        self.file.read_at(&mut buffer, range.start())?;
        Ok(buffer.freeze())
    }

    /// Bytes of the base arrived: puts those into the file that nobody has overwritten meanwhile.
    ///
    /// # Errors
    /// What the disk says.
    pub fn fill(&self, range: ByteRange, bytes: &Bytes) -> io::Result<()> {
        if (bytes.len() as u64) < range.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the version before has fewer bytes than it should",
            ));
        }
        let mut content = self.lock();
        let mut tentative = content.clone();
        for piece in tentative.on_fetched(range) {
            let at = |offset: u64| usize::try_from(offset - range.start()).unwrap_or(usize::MAX);
            self.file.write_at(&bytes[at(piece.start())..at(piece.end())], piece.start())?;
        }
        *content = tentative;
        self.note_change();
        Ok(())
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, Key, Version};

    /// A disk that is full.
    #[derive(Debug)]
    struct Full;

    impl DiskFile for Full {
        fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<()> {
            Ok(())
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_bytes_of_the_base() {
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 10 };
        let base = ObjectRef { key: Key::parse("k").unwrap(), version };
        let staged = Staged::new(Ino(2), "n".to_owned(), Arc::new(Full), Content::new(Some(base)), Vec::new());
        staged.write(Some(4), b"more").unwrap_err();
        assert_eq!(staged.sources(ByteRange::new(0, 10).unwrap()).0, [(ByteRange::new(0, 10).unwrap(), Source::Base)]);
        assert!(!staged.is_changed());
    }
}
