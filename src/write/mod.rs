//! Getting local changes into the bucket.
//!
//! Owns: staging files and their make-up, the journal of what is owed, planning and carrying out commits, claims on keys,
//! the queue of commits that are due in the background, names of conflict copies.
//! Does not own: POSIX rules, the catalogue, what a conflict means for names (`fs`).
//!
//! Durability: what close or fsync acknowledged is in the bucket, or in a staging file that was synced and has a row in
//! `journal.db` (in that order). A row is cleared only after the bucket has the bytes.

mod allocate;
mod attempts;
mod attributes;
mod buffers;
mod claims;
mod commit;
mod conflict;
mod content;
mod copied;
mod descriptors;
mod disk;
mod guarded;
mod kept;
mod moments;
mod parts;
mod plan;
mod queue;
mod recover;
mod room;
mod sending;
mod small;
mod snapshot;
mod staging;
mod sum;

use crate::db::{DbError, StagedRow};
use crate::read::Reader;
use crate::store::{ObjectHeaders, ObjectStore, StoreError, Upload};
use crate::types::{Ino, Key, ObjectRef, Timestamp};
use disk::StagingFile;
use snapshot::Snapshot;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Semaphore, SemaphorePermit};

pub use crate::db::{Journal, RenamePhase, RenameRow};
pub use claims::{Claim, Claims, Span};
pub use commit::{CommitError, Committed};
pub use conflict::conflict_name;
pub use content::{Content, Source};
pub use disk::{DirDisk, Disk, DiskFile};
pub use moments::{Bound, Moment};
pub use plan::{Layout, Plan, TooLarge, plan_upload};
pub use queue::{CommitQueue, Waiting};
pub use recover::Recovered;
pub use room::Room;
pub use staging::{Grown, Sources, Staged};

/// Files up to this size are kept in the journal's row itself: one sync makes both durable.
const BODY_SIZE_MAX: u64 = 128 << 10;

/// What tunes writing.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Bytes of parts that may be in memory at once, over all files.
    pub memory: u64,
    /// Bytes that may be staged.
    pub staging: u64,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { memory: 96 << 20, staging: u64::MAX }
    }
}

/// A name for a staging file. Not the inode number: a recovered file may have been made under a number that another inode has by now.
fn new_name() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Whether a row of the journal holds the bytes itself.
fn has_body(content: &Content) -> bool {
    content.size() <= BODY_SIZE_MAX && content.missing().is_empty()
}

/// Why the journal could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// SQLite refused.
    #[error(transparent)]
    Db(#[from] DbError),
    /// The staging disk failed.
    #[error("staging: {0}")]
    Disk(#[from] io::Error),
    /// The file is a copy of an object that it does not have all bytes of, which no row can say.
    #[error("not all of it is here")]
    Incomplete,
    /// The inode has a staged file of its own.
    #[error("inode {0} has a staged file of its own")]
    Taken(Ino),
    /// A row whose headers make no sense.
    #[error("headers in the journal: {0}")]
    Headers(#[from] serde_json::Error),
}

/// Why the uploads of the bucket cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum UploadsError {
    /// The journal.
    #[error("journal: {0}")]
    Journal(#[from] DbError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Staged files and the way into the bucket.
#[derive(Debug)]
pub struct Writer {
    store: Arc<dyn ObjectStore>,
    reader: Reader,
    disk: Arc<dyn Disk>,
    room: Arc<Room>,
    journal: Arc<Journal>,
    staged: Mutex<HashMap<Ino, Arc<Staged>>>,
    memory: Semaphore,
    memory_max: u32,
    buffers: buffers::Buffers,
}

impl Writer {
    /// Stages on `disk`, journals in `journal`, commits to `store`, reads base bytes through `reader`.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        reader: Reader,
        disk: Arc<dyn Disk>,
        journal: Journal,
        settings: Settings,
    ) -> Writer {
        let memory_max = u32::try_from(settings.memory).unwrap_or(u32::MAX);
        Writer {
            store,
            reader,
            disk,
            room: Arc::new(Room::new(settings.staging)),
            journal: Arc::new(journal),
            staged: Mutex::default(),
            memory: Semaphore::new(memory_max as usize),
            memory_max,
            buffers: buffers::Buffers::default(),
        }
    }

    /// Room for staged bytes.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The staged file of `ino`, if it has one.
    pub fn get(&self, ino: Ino) -> Option<Arc<Staged>> {
        self.lock().get(&ino).cloned()
    }

    /// Gives back the room of files that are open, and of which the bucket has every byte.
    pub fn give_room(&self) {
        let staged: Vec<_> = self.lock().values().cloned().collect();
        staged.iter().for_each(|staged| staged.give_room());
    }

    /// The staged file of `ino`, made over `base` if it has none.
    ///
    /// # Errors
    /// What the disk says.
    pub fn stage(&self, ino: Ino, base: Option<ObjectRef>) -> io::Result<Arc<Staged>> {
        let mut staged = self.lock();
        if let Some(known) = staged.get(&ino) {
            return Ok(Arc::clone(known));
        }
        let name = new_name();
        let file = self.disk.create(&name)?;
        let place = StagingFile::new(Arc::clone(&self.disk), name, file);
        let new = Arc::new(Staged::new(ino, place, Arc::clone(&self.room), Content::new(base), Vec::new()));
        staged.insert(ino, Arc::clone(&new));
        Ok(new)
    }

    /// Drops the staged file of `ino` if the bucket has all of it and nobody has the inode open. `is_open` is asked under
    /// the lock that every writer passes after it has opened the file: who opens it later stages it anew.
    pub fn drop_clean(&self, ino: Ino, is_open: impl FnOnce() -> bool) {
        let mut staged = self.lock();
        let Some(known) = staged.get(&ino).cloned() else { return };
        // A row that is being written may name its file.
        let Some(_turn) = known.try_journal_turn() else { return };
        if is_open() || known.is_changed() || known.is_journaled() {
            return;
        }
        known.remove_files();
        self.give_up_sending(&known);
        staged.remove(&ino);
    }

    /// Nothing is to be sent of the file any more.
    fn give_up_sending(&self, staged: &Staged) {
        staged.set_next_ahead(u64::MAX);
        if let Some(sending) = staged.set_sending(None) {
            self.give_up(&sending);
        }
    }

    /// Takes away every staging file that the bucket has all of: at the end, when nobody reads any more.
    pub fn drop_all_clean(&self) {
        self.inodes().into_iter().for_each(|ino| self.drop_clean(ino, || false));
    }

    /// Drops the staged file of `ino` with all that is in it: the file was deleted.
    ///
    /// # Errors
    /// A journal that could not be written; the bytes are dropped all the same.
    pub async fn discard(&self, ino: Ino) -> Result<(), DbError> {
        let Some(known) = self.lock().remove(&ino) else { return Ok(()) };
        let cleared = self.disown(&known).await;
        known.remove_files();
        cleared
    }

    /// Makes the staged file durable and records what is owed, so that it outlives this daemon. `describe` tells its key and
    /// headers, if it has a name, once nobody else writes the row: whoever renames the file first changes its name and then
    /// looks whether it is journaled, so one of the two writes the new name. The row of `replaced`, a file whose name it has
    /// taken, goes in the same moment.
    ///
    /// # Errors
    /// Those of `describe`, and [`JournalError`]: then nothing may be acknowledged.
    pub async fn record<E: From<JournalError>>(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        now: Timestamp,
        describe: impl FnOnce() -> Result<Option<(Key, ObjectHeaders)>, E>,
    ) -> Result<(), E> {
        let _turn = staged.journal_turn().await;
        if !staged.is_changed() {
            // Committed while we waited: nothing is owed.
            return Ok(());
        }
        let _its_turn = match replaced {
            Some(replaced) => replaced.journal_turn().await,
            None => None,
        };
        // Before it is there: a row that nobody knows of would come back after a crash.
        let was_journaled = staged.set_journaled(true);
        let recorded = match describe() {
            Ok(Some((key, headers))) => {
                let recorded = self.record_as(staged, replaced, (key, headers), now).await;
                // What SQLite could not write may be there all the same.
                if matches!(recorded, Ok(()) | Err(JournalError::Db(_))) {
                    return Ok(recorded?);
                }
                recorded.map_err(E::from)
            }
            Ok(None) => Ok(()),
            Err(e) => Err(e),
        };
        staged.set_journaled(was_journaled);
        recorded
    }

    async fn record_as(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        described: (Key, ObjectHeaders),
        now: Timestamp,
    ) -> Result<(), JournalError> {
        staged.copy_ended().await;
        let (key, headers) = &described;
        if staged.has_only_attributes() && staged.content().base().is_some_and(|base| base.key == *key) {
            // There is nothing else to say.
            return self.record_headers(staged, replaced, (key.clone(), headers), now).await;
        }
        // What is written after this moment is not a part of what is acknowledged.
        let snapshot = staged.snapshot(has_body)?;
        self.record_snapshot(staged, replaced, snapshot, described, now).await
    }

    async fn record_snapshot(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        snapshot: Snapshot,
        (key, headers): (Key, ObjectHeaders),
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let (mut content, body) = (snapshot.content.clone(), snapshot.body.clone());
        if content.copied().is_some() {
            if !content.missing().is_empty() {
                return Err(JournalError::Incomplete);
            }
            // The row says whose bytes are replaced, and that none is taken from there.
            content.on_rebased(content.base().cloned());
        }
        if body.is_none() {
            let file = Arc::clone(&snapshot.file.1);
            tokio::task::spawn_blocking(move || file.sync_data()).await.map_err(io::Error::other)??;
        }
        let row = StagedRow {
            ino: staged.ino(),
            key,
            file: snapshot.file.0.clone(),
            size: content.size(),
            base: content.base().cloned(),
            base_len: content.base_len(),
            dirty: content.dirty().clone(),
            local: content.local().clone(),
            headers: serde_json::to_string(&headers)?,
            attempts: snapshot.attempts.iter().map(|id| id.as_str().to_owned()).collect(),
            recorded: now,
            body,
        };
        self.journal.record(row, replaced.map(|replaced| replaced.ino())).await?;
        staged.set_recorded(&snapshot);
        if let Some(replaced) = replaced {
            replaced.set_replaced_by(staged);
        }
        Ok(())
    }

    /// What the journal has of a file is of another name or version: from now on its row tells of those that it has. Nothing is
    /// acknowledged by that: what was written since stays out of it, and of bytes that the bucket has by now nothing but the attributes
    /// is owed. `replaced` and `describe` as in [`Writer::record`].
    ///
    /// # Errors
    /// As [`Writer::record`].
    pub async fn record_anew<E: From<JournalError>>(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        now: Timestamp,
        describe: impl FnOnce() -> Result<Option<(Key, ObjectHeaders)>, E>,
    ) -> Result<(), E> {
        let _turn = staged.journal_turn().await;
        if !staged.is_changed() {
            // Committed while we waited.
            return Ok(());
        }
        let _its_turn = match replaced {
            Some(replaced) => replaced.journal_turn().await,
            None => None,
        };
        let Some((key, headers)) = describe()? else { return Ok(()) };
        if !staged.is_acknowledged() {
            return Ok(self.record_headers(staged, replaced, (key, &headers), now).await?);
        }
        Ok(self.record_moved(staged, replaced, (key, headers), now).await?)
    }

    async fn record_moved(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        (key, headers): (Key, ObjectHeaders),
        now: Timestamp,
    ) -> Result<(), JournalError> {
        if staged.is_recorded() {
            let snapshot = staged.snapshot(has_body)?;
            // It may have been written to in this moment.
            if snapshot.change == staged.recorded() {
                return self.record_snapshot(staged, replaced, snapshot, (key, headers), now).await;
            }
        }
        // In this order: a commit that ends meanwhile first has a new base, and then forgets what it has tried.
        let attempts = staged.attempts().iter().map(|id| id.as_str().to_owned()).collect();
        let Some(before) = self.journal.row(staged.ino())? else {
            return self.record_headers(staged, replaced, (key, &headers), now).await;
        };
        let (mut dirty, mut local) = (before.dirty.clone(), before.local.clone());
        let lacks = !Content::restore(before.size, before.base.clone(), before.base_len, dirty.clone(), local.clone())
            .missing()
            .is_empty();
        // Of a file that is kept apart the base is lost, and no other one has the bytes that the row lacks.
        let is_lost = lacks && before.base.as_ref().is_some_and(|base| base.key != before.key);
        let base = if is_lost { before.base.clone() } else { staged.content().base().cloned() };
        if base != before.base {
            // What the staging file has of the version before need not be what this one has there.
            std::mem::take(&mut local).iter().for_each(|range| dirty.insert(range));
        }
        let headers = serde_json::to_string(&headers)?;
        let row = StagedRow { key, base, dirty, local, headers, attempts, recorded: now, ..before };
        self.journal.record(row, replaced.map(|replaced| replaced.ino())).await?;
        if let Some(replaced) = replaced {
            replaced.set_replaced_by(staged);
        }
        Ok(())
    }

    /// Takes the journal's row of a file away if the bucket has all of it. `false` if it has not, and there is a row.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn clear(&self, staged: &Staged) -> Result<bool, DbError> {
        let _turn = staged.journal_turn().await;
        if staged.is_changed() {
            return Ok(!staged.is_journaled());
        }
        self.clear_row(staged).await.map(|()| true)
    }

    /// Takes the journal's row of a file away whatever the bucket has: it was deleted.
    ///
    /// # Errors
    /// What SQLite says.
    pub async fn disown(&self, staged: &Staged) -> Result<(), DbError> {
        self.give_up_sending(staged);
        let _turn = staged.journal_turn().await;
        self.clear_row(staged).await
    }

    /// What was changed of a file is dropped, and what the journal has of it: it is `object` again. A row that was being written until
    /// now would name bytes that are gone.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn start_over(&self, staged: &Staged, object: ObjectRef) -> Result<(), JournalError> {
        let _turn = staged.journal_turn().await;
        self.clear_row(staged).await?;
        staged.copy_ended().await;
        staged.start_over(object, |_| true)?;
        Ok(())
    }

    pub(super) async fn clear_row(&self, staged: &Staged) -> Result<(), DbError> {
        if staged.is_journaled() {
            self.journal.clear(staged.ino()).await?;
            staged.set_not_recorded();
        }
        Ok(())
    }

    /// Inodes that have a staged file.
    pub fn inodes(&self) -> Vec<Ino> {
        self.lock().keys().copied().collect()
    }

    /// Inodes of which the bucket lacks something, or whose journal row still says so.
    pub fn owed(&self) -> Vec<Ino> {
        self.lock().values().filter(|s| s.is_changed() || s.is_journaled()).map(|s| s.ino()).collect()
    }

    /// Closes the journal.
    pub fn close(&self) {
        self.journal.close();
    }

    /// Waits for room in memory for a body of `size` bytes. One that is larger than all of it gets all of it.
    async fn memory_for(&self, size: u64) -> Option<SemaphorePermit<'_>> {
        let permits = u32::try_from(size).unwrap_or(u32::MAX).min(self.memory_max);
        self.memory.acquire_many(permits).await.ok()
    }

    /// The journal, which knows of renames of directories as well.
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// Uploads in the bucket that are not complete, those of others included: key, id, and whether it is one of this mount's.
    ///
    /// # Errors
    /// What the store or the journal says.
    pub async fn uploads(&self) -> Result<Vec<(Upload, bool)>, UploadsError> {
        let known = self.journal.uploads()?;
        let uploads = self.store.list_uploads(&Key::root()).await?;
        let with_owner = |upload: Upload| {
            let is_ours = known.iter().any(|(_, id)| *id == upload.id);
            (upload, is_ours)
        };
        Ok(uploads.into_iter().map(with_owner).collect())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ino, Arc<Staged>>> {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
