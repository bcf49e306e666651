//! Staging files: local bytes not yet in the bucket.
//!
//! Owns: reading and writing the file of a dirty inode together with its [`Content`].
//! Does not own: the disk (`disk`), when it is committed (`fs`), the journal row (`write`).

use super::attempts::Attempts;
use super::content::{Content, Source};
use super::disk::DiskFile;
use super::guarded::{Guarded, Locked};
use super::moments::Moments;
use super::place::StagingFile;
use super::room::Room;
use super::row::Journaled;
use super::sending::{AHEAD_FROM, Sending};
use super::urgency::Urgency;
use crate::types::{ByteRange, Ino, ObjectRef, Timestamp, WriteId};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

/// A staged file: its bytes on the disk and their make-up.
#[derive(Debug)]
pub struct Staged {
    ino: Ino,
    pub(super) file: Arc<StagingFile>,
    pub(super) room: Arc<Room>,
    /// Bytes of room that it takes; changed under `content`.
    pub(super) held: AtomicU64,
    content: Guarded,
    pub(super) journaled: Journaled,
    /// Ids of commits whose outcome is not known to be a success: an object that carries one of them is ours.
    pub(super) attempts: Mutex<Attempts>,
    /// The same of an earlier mount that left attributes only: what these have made has other bytes.
    pub(super) left_attempts: Mutex<Vec<WriteId>>,
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
    /// Grows with every change.
    pub(super) changes: AtomicU64,
    /// Which of them the bucket has.
    pub(super) carried: AtomicU64,
    pub(super) moments: Moments,
    pub(super) urgency: Arc<Urgency>,
    /// The bucket's version is about to go, and whoever has the file open reads on here.
    is_last_copy: AtomicBool,
    /// Its mode may have bits that a write by somebody else takes away: nobody has looked since it was staged, or the mode was set.
    may_have_set_ids: AtomicBool,
}

/// Where bytes of a staged file come from at one moment.
#[derive(Debug)]
pub struct Sources {
    /// The pieces, in order.
    pub pieces: Vec<(ByteRange, Source)>,
    /// The version that pieces of the base are read from.
    pub base: Option<ObjectRef>,
    file: Arc<dyn DiskFile>,
}

impl Sources {
    /// Bytes of a piece that is in the file.
    ///
    /// # Errors
    /// What the disk says.
    pub fn read_file(&self, piece: ByteRange) -> io::Result<Bytes> {
        read(&*self.file, piece)
    }
}

fn read(file: &dyn DiskFile, range: ByteRange) -> io::Result<Bytes> {
    let len = usize::try_from(range.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut buffer = BytesMut::zeroed(len);
    file.read_at(&mut buffer, range.start())?;
    Ok(buffer.freeze())
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
        file: StagingFile,
        room: Arc<Room>,
        content: Content,
        attempts: Vec<WriteId>,
    ) -> Staged {
        Staged::over(ino, Arc::new(file), room, content, attempts)
    }

    fn over(ino: Ino, file: Arc<StagingFile>, room: Arc<Room>, content: Content, attempts: Vec<WriteId>) -> Staged {
        let held = content.held();
        room.change(0, held);
        Staged {
            ino,
            file,
            room,
            held: AtomicU64::new(held),
            content: Guarded::new(content),
            journaled: Journaled::default(),
            attempts: Mutex::new(Attempts::new(attempts)),
            left_attempts: Mutex::default(),
            journal_turn: Semaphore::new(1),
            written_at: Mutex::new(None),
            sending: Mutex::new(None),
            upload_turn: Semaphore::new(1),
            next_ahead: AtomicU64::new(AHEAD_FROM),
            changes: AtomicU64::new(1),
            carried: AtomicU64::new(0),
            moments: Moments::default(),
            urgency: Arc::default(),
            is_last_copy: AtomicBool::new(false),
            may_have_set_ids: AtomicBool::new(true),
        }
    }

    /// Whether a write by somebody else may have to take set-user-ID and set-group-ID away.
    pub fn may_have_set_ids(&self) -> bool {
        self.may_have_set_ids.load(Ordering::SeqCst)
    }

    /// Says so. That it need not is said before the mode is looked at, and that it may after it was set: so it is never missed.
    pub fn set_may_have_set_ids(&self, may_have: bool) {
        self.may_have_set_ids.store(may_have, Ordering::SeqCst);
    }

    /// Takes its files away.
    pub(super) fn remove_files(&self) {
        self.file.remove_all();
    }

    /// The ranges `changed` are about to change; what there is of the `present` ranges is needed further on. The caller has the lock.
    ///
    /// # Errors
    /// What the disk says; nothing has changed then.
    pub(super) fn changing(
        &self,
        changed: impl Iterator<Item = ByteRange>,
        present: impl Iterator<Item = ByteRange>,
    ) -> io::Result<()> {
        self.content.announce_change();
        self.file.changing(changed, present, None)
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
        Staged::over(ino, Arc::clone(&self.file), Arc::clone(&self.room), self.content(), self.attempts())
    }

    /// The inode that it belongs to.
    pub fn ino(&self) -> Ino {
        self.ino
    }

    /// Its make-up as of now.
    pub fn content(&self) -> Content {
        self.lock().clone()
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.content.size()
    }

    /// Whether the bucket lacks anything of it.
    pub fn is_changed(&self) -> bool {
        self.content.is_changed()
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        self.content.lock()
    }

    pub(super) async fn journal_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.journal_turn.acquire().await.ok()
    }

    pub(super) fn try_journal_turn(&self) -> Option<SemaphorePermit<'_>> {
        self.journal_turn.try_acquire().ok()
    }

    /// `object` is what this file replaces now, byte for byte: its own earlier commit, or a file it was renamed over.
    pub fn rebase(&self, object: ObjectRef) {
        self.lock().on_rebased(Some(object));
        self.note_change();
    }

    /// The same of an object that somebody else has put in the place of what this file changed.
    pub fn rebase_on_theirs(&self, object: ObjectRef) {
        self.set_base_lost();
        self.rebase(object);
    }

    /// The base's bytes are found at `object` from now on.
    pub fn replace_base(&self, object: ObjectRef) {
        self.lock().on_base_moved(object);
        self.note_change();
    }

    /// What this file changed is gone from the bucket: it is a new file now. Only when every byte is local.
    pub fn rebase_on_nothing(&self) {
        self.set_base_lost();
        self.lock().on_rebased(None);
        self.note_change();
    }

    /// What was changed is dropped, if it `may` be: the file is `object` then, and nothing else.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn start_over(&self, object: ObjectRef, may: impl FnOnce(&Content) -> bool) -> io::Result<bool> {
        let mut content = self.lock();
        if !may(&content) {
            return Ok(false);
        }
        self.file.start_over()?;
        *content = Content::new(Some(object));
        self.note_held(&content);
        self.note_bytes(0);
        self.set_written_at(None);
        self.set_may_have_set_ids(true);
        Ok(true)
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
        let more = content.uncovered(range);
        if !self.room.take(more) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.held.fetch_add(more, Ordering::Relaxed);
        let present = content.dirty().iter().chain(content.local().iter());
        let written =
            self.changing(std::iter::once(range), present).and_then(|()| self.file.file().write_at(bytes, offset));
        if let Err(e) = written {
            // Some of it may have arrived. Past the end it is cut off again; within the file it counts as written, so that
            // what is read is what will be sent. Not where the file had nothing: there the base stays what it is.
            let cut = self.file.file().set_len(content.size());
            for (piece, source) in content.sources(range) {
                if source != Source::Base {
                    self.note_written(&mut content, piece);
                }
            }
            self.note_held(&content);
            cut?;
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

    /// The bucket has it as `object`, with all changes up to `carried`.
    pub(super) fn on_committed(&self, object: ObjectRef, carried: u64) {
        let mut content = self.lock();
        self.carried.store(carried, Ordering::SeqCst);
        self.note_answered();
        content.on_committed(object);
        self.commit_ended();
        self.note_held(&content);
    }

    /// The bucket's version is about to be deleted or replaced. `true` if all bytes are here, and stay.
    pub fn keep_last_copy(&self) -> bool {
        let content = self.lock();
        self.is_last_copy.store(content.missing().is_empty(), Ordering::SeqCst);
        content.missing().is_empty()
    }

    /// Whether that one is about to go, or gone.
    pub(super) fn is_last_copy(&self) -> bool {
        self.is_last_copy.load(Ordering::SeqCst)
    }

    /// The version in the bucket stays.
    pub fn give_up_last_copy(&self) {
        self.is_last_copy.store(false, Ordering::SeqCst);
    }

    /// Gives back the room of a file of which the bucket has every byte. What is read of it from now on comes from there.
    pub(super) fn give_room(&self) {
        // A row that is being written may name its file.
        let Some(_turn) = self.try_journal_turn() else { return };
        if self.is_changed() {
            // Whoever wants room writes another file, and need not wait for this one.
            return;
        }
        let mut content = self.lock();
        let mut emptied = content.clone();
        if self.is_last_copy() {
            return;
        }
        if !self.is_journaled() && emptied.on_forgotten() && content.held() > 0 && self.file.start_over().is_ok() {
            *content = emptied;
            self.note_held(&content);
        }
    }

    /// Counts anew what it takes.
    pub(super) fn note_held(&self, content: &Content) {
        let now = content.held();
        self.room.change(self.held.swap(now, Ordering::Relaxed), now);
    }

    pub(super) fn note_written(&self, content: &mut Content, range: ByteRange) {
        content.on_write(range);
        self.note_bytes(range.start());
        if let Some(sending) = self.sending() {
            sending.on_changed(range);
        }
    }

    /// Cuts or extends the file to `size` bytes.
    ///
    /// # Errors
    /// What the disk says.
    pub fn truncate(&self, size: u64) -> io::Result<()> {
        self.resize(&mut self.lock(), size)
    }

    pub(super) fn resize(&self, content: &mut Content, size: u64) -> io::Result<()> {
        if size < content.size() {
            let cut = |range: ByteRange| ByteRange::new(range.start(), range.end().min(size));
            let changed = ByteRange::new(size, u64::MAX).into_iter();
            let stays = content.dirty().iter().chain(content.local().iter()).filter_map(cut);
            self.content.announce_change();
            // The one that goes on has its length before it counts: it has nothing of what was cut off.
            self.file.changing(changed, stays, Some(size))?;
            if size == 0 && self.is_journaled() {
                self.file.emptying()?;
            }
        }
        self.file.file().set_len(size)?;
        content.on_truncate(size);
        self.note_held(content);
        self.note_bytes(size);
        if let Some(sending) = self.sending() {
            sending.on_cut(size);
        }
        Ok(())
    }

    /// Whether a commit of it is under way, or waits for its turn.
    pub fn is_uploading(&self) -> bool {
        self.upload_turn.available_permits() == 0
    }

    /// Attributes that travel with the object changed. Waits for nobody: transactions of the catalogue call it.
    pub fn touch(&self) {
        self.content.touch();
        self.note_change();
    }

    /// Where the bytes of `range` come from at this moment.
    pub fn sources(&self, range: ByteRange) -> Sources {
        let content = self.lock();
        Sources { pieces: content.sources(range), base: content.source().cloned(), file: self.file.file() }
    }

    /// Bytes of the file, which the caller knows to be there.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn read_file(&self, range: ByteRange) -> io::Result<Bytes> {
        read(&*self.file.file(), range)
    }

    /// Bytes of `base` arrived: puts those into the file that nobody has overwritten meanwhile, and none if what is missing comes from
    /// elsewhere by now.
    ///
    /// # Errors
    /// What the disk says.
    pub fn fill(&self, base: &ObjectRef, range: ByteRange, bytes: &Bytes) -> io::Result<()> {
        if (bytes.len() as u64) < range.len() {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the version before has fewer bytes than it should",
            ));
        }
        let mut content = self.lock();
        if content.source() != Some(base) {
            return Ok(());
        }
        let mut tentative = content.clone();
        for piece in tentative.on_fetched(range) {
            let at = |offset: u64| usize::try_from(offset - range.start()).unwrap_or(usize::MAX);
            self.file.file().write_at(&bytes[at(piece.start())..at(piece.end())], piece.start())?;
        }
        *content = tentative;
        self.note_held(&content);
        self.note_change();
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.room.change(self.held.load(Ordering::Relaxed), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::{DirDisk, Disk};
    use super::super::place::InPlace;
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

        fn punch(&self, _: ByteRange) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Ok(())
        }

        fn sync_data(&self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk for Full {
        fn open(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
            Ok(Arc::new(Full))
        }

        fn remove(&self, _: &str) -> io::Result<()> {
            Ok(())
        }

        fn names(&self) -> io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }

    /// A disk on which no file but the first gets another length.
    #[derive(Debug)]
    struct Short(DirDisk);

    #[derive(Debug)]
    struct ShortFile(Arc<dyn DiskFile>);

    impl Disk for Short {
        fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
            let file = self.0.open(name)?;
            Ok(if name == "first" { file } else { Arc::new(ShortFile(file)) })
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.remove(name)
        }

        fn names(&self) -> io::Result<Vec<String>> {
            self.0.names()
        }
    }

    impl DiskFile for ShortFile {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
            self.0.read_at(buffer, offset)
        }

        fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            self.0.write_at(bytes, offset)
        }

        fn punch(&self, range: ByteRange) -> io::Result<()> {
            self.0.punch(range)
        }

        fn set_len(&self, _: u64) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(libc::ENOSPC))
        }

        fn sync_data(&self) -> io::Result<()> {
            self.0.sync_data()
        }
    }

    #[test]
    fn what_could_not_be_cut_off_is_what_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(Short(DirDisk::new(dir.path()).unwrap()));
        let first = StagingFile::new(Arc::clone(&disk), "first".to_owned(), disk.open("first").unwrap());
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 300_000 };
        let content = Content::new(Some(ObjectRef { key: Key::parse("k").unwrap(), version }));
        let staged = Staged::new(Ino(2), first, Arc::new(Room::new(1 << 20)), content, Vec::new());
        staged.write(Some(200_000), b"acknowledged").unwrap();
        staged.set_recorded(&staged.snapshot(|_| false).unwrap(), Key::root());
        assert_eq!(staged.truncate(100_000).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
        let tail = ByteRange::at(200_000, 12).unwrap();
        assert_eq!((staged.size(), staged.read_file(tail).unwrap()), (300_000, "acknowledged".into()));
    }

    #[test]
    fn what_the_journal_counts_on_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::new(dir.path()).unwrap());
        let first = StagingFile::new(Arc::clone(&disk), "first".to_owned(), disk.open("first").unwrap());
        let room = Arc::new(Room::new(1000));
        let staged = Staged::new(Ino(2), first, Arc::clone(&room), Content::new(None), Vec::new());
        staged.write(Some(0), b"acknowledged").unwrap();
        let snapshot = staged.snapshot(|_| false).unwrap();
        staged.set_recorded(&snapshot, Key::root());
        let on_disk = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        let bytes = |len| staged.read_file(ByteRange::new(0, len).unwrap()).unwrap();
        staged.write(Some(12), b", more").unwrap();
        assert_eq!(disk.names().unwrap(), ["first"], "what is appended changes nothing");
        staged.write(Some(2), b"KN").unwrap();
        assert_eq!((on_disk("first"), bytes(18)), (b"acknowledged, more".to_vec(), "acKNowledged, more".into()));
        let second = staged.snapshot(|_| false).unwrap();
        let sync = || staged.file.file().sync_data().unwrap();
        sync();
        assert_eq!(disk.names().unwrap().len(), 2);
        staged.set_recorded(&second, Key::root());
        assert_eq!(disk.names().unwrap(), [second.file.0.as_str()], "the journal names the second");
        staged.truncate(3).unwrap();
        staged.truncate(5).unwrap();
        sync();
        assert_eq!((on_disk(&second.file.0), bytes(5)), (b"acKNowledged, more".to_vec(), "acK\0\0".into()));
        staged.set_not_recorded();
        assert_eq!(disk.names().unwrap().len(), 1);
        staged.write(Some(0), b"A").unwrap();
        assert_eq!((disk.names().unwrap().len(), bytes(5)), (1, "AcK\0\0".into()));
    }

    #[test]
    fn whoever_empties_a_database_leaves_the_journal_what_it_names() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::new(dir.path()).unwrap());
        for (in_place, stays) in [(InPlace::Parts, true), (InPlace::All, false)] {
            let file = StagingFile::new(Arc::clone(&disk), "first".to_owned(), disk.create("first").unwrap());
            let staged = Staged::new(Ino(2), file, Arc::new(Room::new(1000)), Content::new(None), Vec::new());
            staged.write(Some(0), b"acknowledged").unwrap();
            let snapshot = staged.snapshot(|_| false).unwrap();
            snapshot.file.1.sync_data().unwrap();
            staged.set_recorded(&snapshot, Key::root());
            staged.overwrite_in_place(in_place);
            staged.write(Some(0), b"A").unwrap();
            staged.truncate(0).unwrap();
            staged.write(Some(0), b"half").unwrap();
            let first = std::fs::read(dir.path().join("first")).unwrap();
            assert_eq!(first == b"Acknowledged", stays, "{in_place:?}");
            staged.set_not_recorded();
            assert_eq!(staged.read_file(ByteRange::new(0, 4).unwrap()).unwrap(), "half");
            staged.remove_files();
            assert!(disk.names().unwrap().is_empty());
        }
    }

    #[test]
    fn a_write_that_fails_leaves_the_bytes_of_the_base() {
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 10 };
        let base = ObjectRef { key: Key::parse("k").unwrap(), version };
        let file = StagingFile::new(Arc::new(Full), "n".to_owned(), Arc::new(Full));
        let room = Arc::new(Room::new(1000));
        let staged = Staged::new(Ino(2), file, Arc::clone(&room), Content::new(Some(base)), Vec::new());
        staged.write(Some(4), b"more").unwrap_err();
        staged.zero(ByteRange::new(2, 100).unwrap()).unwrap_err();
        assert_eq!(
            staged.sources(ByteRange::new(0, 10).unwrap()).pieces,
            [(ByteRange::new(0, 10).unwrap(), Source::Base)]
        );
        assert!(!staged.is_changed() && room.used() == 0);
    }

    #[test]
    fn what_is_staged_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::new(dir.path()).unwrap());
        let room = Arc::new(Room::new(20));
        let staged = |name: &str| {
            let file = StagingFile::new(Arc::clone(&disk), name.to_owned(), disk.open(name).unwrap());
            Staged::new(Ino(2), file, Arc::clone(&room), Content::new(None), Vec::new())
        };
        let (a, b) = (staged("a"), staged("b"));
        a.write(Some(0), &[1; 10]).unwrap();
        a.write(Some(5), &[2; 10]).unwrap();
        assert_eq!(room.used(), 15);
        let full = b.write(Some(100), &[3; 6]).unwrap_err();
        assert_eq!((full.raw_os_error(), b.size(), room.used()), (Some(libc::ENOSPC), 0, 15));
        a.write(Some(0), &[4; 15]).unwrap();
        a.truncate(3).unwrap();
        b.write(Some(100), &[3; 17]).unwrap();
        assert_eq!(room.used(), 20);
        drop(a);
        assert_eq!(room.used(), 17);
    }
}
