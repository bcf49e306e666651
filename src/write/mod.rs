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
mod origin;
mod parts;
mod place;
mod plan;
mod queue;
mod record;
mod recover;
mod room;
mod row;
mod sending;
mod small;
mod snapshot;
mod staging;
mod sum;
#[cfg(test)]
pub(crate) mod testing;
mod unattended;
mod urgency;

use crate::db::DbError;
use crate::read::Reader;
use crate::store::{ObjectStore, StoreError, Upload};
use crate::types::{Ino, Key, ObjectRef};
use place::StagingFile;
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
pub use place::InPlace;
pub use plan::{Layout, Plan, TooLarge, plan_upload};
pub use queue::{CommitQueue, Prospect, Waiting};
pub use recover::Recovered;
pub use room::Room;
pub use staging::{Grown, Sources, Staged};
pub use unattended::{for_bystander, is_for_bystander, is_unattended, unattended};
pub use urgency::Asked;

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
    copies: copied::Copies,
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
            copies: copied::Copies::default(),
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

    /// Whether another file than `ino` is being uploaded.
    pub fn is_uploading_other(&self, ino: Ino) -> bool {
        self.lock().values().any(|staged| staged.ino() != ino && staged.is_uploading())
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
    /// A journal that could not be written; then the file is owed still, until it is discarded again.
    pub async fn discard(&self, ino: Ino) -> Result<(), DbError> {
        let Some(known) = self.lock().remove(&ino) else { return Ok(()) };
        let cleared = self.disown(&known).await;
        if cleared.is_err() {
            // As long as there is a row, somebody has to know of it: it would bring the file back.
            self.lock().entry(ino).or_insert(known);
            return cleared;
        }
        known.remove_files();
        Ok(())
    }

    /// Inodes that have a staged file.
    pub fn inodes(&self) -> Vec<Ino> {
        self.lock().keys().copied().collect()
    }

    /// Inodes of which the bucket lacks something, or whose journal row still says so.
    pub fn owed(&self) -> Vec<Ino> {
        self.lock().values().filter(|s| s.is_owed()).map(|s| s.ino()).collect()
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
