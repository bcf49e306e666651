//! Attributes that are owed of a file, and none of its bytes.
//!
//! Owns: making them durable, by a row of the journal that tells of them only where there is none that has bytes as well; which version
//! they are of.
//! Does not own: rows with bytes (`record`, `snapshot`), what the attributes are (`fs`).

use super::content::Content;
use super::record::turns;
use super::row::Kind;
use super::staging::Staged;
use super::{JournalError, Writer};
use crate::db::StagedRow;
use crate::store::ObjectHeaders;
use crate::types::{Key, ObjectRef, RangeSet, Timestamp, WriteId};
use std::io;
use std::sync::PoisonError;

impl Staged {
    /// An earlier mount's journal has attributes of it, and nothing else. It may have made another version by these `attempts`.
    pub(super) fn set_attributes_recovered(&self, attempts: Vec<WriteId>) {
        *self.left_attempts.lock().unwrap_or_else(PoisonError::into_inner) = attempts;
        self.set_recovered(Kind::Attributes);
    }

    /// Whether nothing but attributes is owed of it: its row tells of no more, and its bytes are those of the version before. Of an empty
    /// file, which somebody may have emptied once more, only as long as it is as an earlier mount left it.
    pub fn has_only_attributes(&self) -> bool {
        let content = self.content();
        self.owes_only_attributes(&content)
    }

    fn owes_only_attributes(&self, content: &Content) -> bool {
        let is_as_before = !content.has_own_bytes() && (content.size() > 0 || self.is_recorded());
        is_as_before && self.is_journaled_without_bytes()
    }

    /// What an earlier mount tried that left attributes of it.
    pub(super) fn left_attempts(&self) -> Vec<WriteId> {
        self.left_attempts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether an object that carries `id` was written by a commit of this file that got no answer, be it that it has other bytes.
    pub fn may_have_made(&self, id: &WriteId) -> bool {
        self.is_own(id) || self.left_attempts().contains(id)
    }
}

/// What this mount and an earlier one have tried of a file without an answer.
fn all_attempts(staged: &Staged) -> Vec<String> {
    staged.attempts().into_iter().chain(staged.left_attempts()).map(|id| id.as_str().to_owned()).collect()
}

/// Whether a row of the journal tells of attributes only. An older objfs has named a staging file in these as well.
pub(super) fn is_of_attributes(row: &StagedRow) -> bool {
    let is_without_file = row.file.is_empty() || row.size > 0;
    let is_whole = |base: &ObjectRef| base.version.size == row.size && row.base_len == row.size;
    let is_base = row.base.as_ref().is_some_and(is_whole) && row.dirty.is_empty() && row.local.is_empty();
    is_without_file && is_base && row.body.as_ref().is_some_and(Vec::is_empty)
}

impl Writer {
    /// Makes attributes durable that were set of a file with changes, and none of the bytes that were written to it. If the journal has
    /// the file, its row gets the headers. Else there is one from now on that says of the version in the bucket which it is to have.
    /// What neither of them has goes with this daemon, and so do its attributes. `describe` as in [`Writer::record`].
    ///
    /// # Errors
    /// Those of `describe`, and [`JournalError`]: then nothing may be acknowledged.
    pub async fn record_attributes<E: From<JournalError>>(
        &self,
        staged: &Staged,
        now: Timestamp,
        describe: impl FnOnce() -> Result<Option<(Key, ObjectHeaders)>, E>,
    ) -> Result<(), E> {
        let Some(_turns) = turns(staged, None).await else { return Ok(()) };
        let Some((key, headers)) = describe()? else { return Ok(()) };
        Ok(self.record_headers(staged, None, (key, &headers), now).await?)
    }

    /// A commit is about to be tried of a file that the journal has no owed bytes of: its row, if there is one, learns of that. If the
    /// answer is lost together with this process, the next one must know that the attributes are owed of what the commit has made.
    ///
    /// # Errors
    /// What SQLite says.
    pub(super) async fn record_attempts(&self, staged: &Staged) -> Result<(), crate::db::DbError> {
        let _turn = staged.journal_turn().await;
        if !staged.is_journaled() {
            return Ok(());
        }
        self.journal.add_attempts(staged.ino(), all_attempts(staged)).await
    }

    pub(super) async fn record_headers(
        &self,
        staged: &Staged,
        replaced: Option<&Staged>,
        (key, headers): (Key, &ObjectHeaders),
        now: Timestamp,
    ) -> Result<(), JournalError> {
        let (ino, headers) = (staged.ino(), serde_json::to_string(headers)?);
        // Of a row that SQLite seemed not to clear nobody knows whether it is there.
        if replaced.is_none() && staged.is_acknowledged() && self.journal.set_headers(ino, headers.clone()).await? {
            return Ok(());
        }
        // In this order: a commit that ends meanwhile first has a new base, and then forgets what it has tried.
        let attempts = all_attempts(staged);
        let base = staged.content().base().filter(|base| base.key == key).cloned();
        let Some(size) = base.as_ref().map(|base| base.version.size) else {
            return Ok(self.clear_row(staged).await?);
        };
        // Without a file it cannot be taken for that of an empty one that somebody was told is safe.
        let (file, body) = (String::new(), Some(Vec::new()));
        let (dirty, local, recorded) = (RangeSet::new(), RangeSet::new(), now);
        let row =
            StagedRow { ino, key, file, size, base, base_len: size, dirty, local, headers, attempts, recorded, body };
        // Before it is there: a row that nobody knows of would come back after a crash.
        staged.announce_attributes();
        self.journal.record(row, replaced.map(|replaced| replaced.ino())).await?;
        staged.keep_no_bytes();
        if let Some(replaced) = replaced {
            replaced.set_replaced_by(staged);
        }
        Ok(())
    }

    /// Attributes are owed of a file, of a version that is gone: nothing is any more, and unless it `is_pinned` it is not staged either.
    /// `false` if more is owed by now.
    ///
    /// # Errors
    /// A journal that could not be written.
    pub async fn give_up_attributes(
        &self,
        staged: &Staged,
        is_pinned: impl Fn() -> bool,
    ) -> Result<bool, crate::db::DbError> {
        // Who closes the file journals it before or after this, and not meanwhile.
        let _turn = staged.journal_turn().await;
        if !staged.has_only_attributes() {
            return Ok(false);
        }
        self.clear_row(staged).await?;
        if staged.content().has_own_bytes() {
            return Ok(false);
        }
        // Under the lock that every writer passes after he has opened the file.
        let mut all = self.lock();
        if !is_pinned() && all.get(&staged.ino()).is_some_and(|known| std::ptr::eq(&**known, staged)) {
            all.remove(&staged.ino());
            drop(all);
            staged.remove_files();
        }
        Ok(true)
    }

    /// Attributes are owed of a file, and a commit of it that got no answer has made `own`: from now on they are owed of that one, as it
    /// is. `false` if more is owed by now.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn follow_own(&self, staged: &Staged, own: ObjectRef) -> io::Result<bool> {
        // A row that is being written may name the staging file.
        let _turn = staged.journal_turn().await;
        let follows = staged.start_over(own, |content| staged.owes_only_attributes(content))?;
        if follows {
            staged.touch();
        }
        Ok(follows)
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Row;
    use super::super::{CommitError, DirDisk, Journal, Settings, unattended};
    use super::*;
    use crate::read::{self, Reader};
    use crate::store::{Condition, MemoryStore, ObjectStore};
    use crate::types::{ETag, Ino, Version};
    use std::sync::Arc;
    use std::time::Duration;

    /// A file over an object, and a writer of it.
    fn writer_of(dir: &tempfile::TempDir) -> (Writer, Arc<Staged>, ObjectRef) {
        let store: Arc<dyn ObjectStore> = Arc::new(MemoryStore::new());
        let reader = Reader::new(Arc::clone(&store), read::Settings::default());
        let disk = Arc::new(DirDisk::new(&dir.path().join("staging")).unwrap());
        let journal = Journal::open(&dir.path().join("journal.db")).unwrap();
        let writer = Writer::new(store, reader, disk, journal, Settings::default());
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 7 };
        let base = ObjectRef { key: Key::parse("k").unwrap(), version };
        let staged = writer.stage(Ino(2), Some(base.clone())).unwrap();
        (writer, staged, base)
    }

    #[tokio::test]
    async fn an_upload_of_owed_attributes_takes_no_half_written_bytes_along() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, staged, base) = writer_of(&dir);
        staged.touch();
        staged.set_recovered(Kind::Attributes);
        let turn = staged.journal_turn().await;
        let condition = Condition::IfMatch(base.version.etag.clone());
        let (headers, now) = (ObjectHeaders::default(), Timestamp::from_nanos(9));
        let committing = unattended(writer.commit(&staged, &base.key, headers, condition, now));
        tokio::pin!(committing);
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut committing).await.is_err());
        // It has found nobody who writes to it.
        staged.truncate(0).unwrap();
        staged.write(Some(0), b"half").unwrap();
        drop(turn);
        assert!(matches!(committing.await, Err(CommitError::Disturbed)));
    }

    #[tokio::test]
    async fn whoever_opens_a_file_while_its_attributes_are_given_up_writes_to_one_that_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, staged, base) = writer_of(&dir);
        let writer = Arc::new(writer);
        staged.touch();
        staged.set_recovered(Kind::Attributes);
        let opening = std::sync::Mutex::new(None);
        let is_pinned = || {
            // In the moment after this somebody opens it.
            let (writer, base) = (Arc::clone(&writer), base.clone());
            *opening.lock().unwrap() = Some(std::thread::spawn(move || writer.stage(Ino(2), Some(base)).unwrap()));
            std::thread::sleep(Duration::from_millis(50));
            false
        };
        assert!(writer.give_up_attributes(&staged, is_pinned).await.unwrap());
        let opened = opening.into_inner().unwrap().unwrap().join().unwrap();
        assert!(!Arc::ptr_eq(&opened, &staged) && Arc::ptr_eq(&opened, &writer.get(Ino(2)).unwrap()));
    }

    #[tokio::test]
    async fn attributes_are_in_the_journal_although_it_has_lost_the_row_that_was_to_tell_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let (writer, staged, base) = writer_of(&dir);
        let (ino, key) = (staged.ino(), base.key.clone());
        staged.touch();
        staged.set_row(Some(Row { change: staged.last_change(), ..Row::default() }));
        let describe = || Ok::<_, JournalError>(Some((key, ObjectHeaders::default())));
        writer.record_attributes(&staged, Timestamp::from_nanos(9), describe).await.unwrap();
        let row = writer.journal().row(ino).unwrap().unwrap();
        assert_eq!((row.size, row.base, row.body), (7, Some(base), Some(Vec::new())));
        assert!(!staged.is_acknowledged());
    }
}
