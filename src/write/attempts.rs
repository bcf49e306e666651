//! What was sent of a staged file, and got no answer.
//!
//! Owns: the ids of such writes: an object that carries one of them is ours; under which name a conflict copy was tried, which only
//! this daemon knows. Does not own: sending (`commit`), which of the ids the journal's row has (`row`), what is done about it (`fs`).

use super::staging::Staged;
use crate::types::{Ino, Name, WriteId};
use std::sync::{MutexGuard, PoisonError};

/// Commits of a file, by the ids of their writes.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// They may have been carried out without an answer.
    tried: Vec<WriteId>,
    /// The one that the next commit is going to have.
    planned: Option<WriteId>,
    /// Directory and name of the conflict copy that was tried last.
    copy: Option<(Ino, Name)>,
}

impl Attempts {
    pub(super) fn new(tried: Vec<WriteId>) -> Attempts {
        Attempts { tried, ..Attempts::default() }
    }

    fn note(&mut self, id: &WriteId) {
        if !self.tried.contains(id) {
            self.tried.push(id.clone());
        }
    }
}

impl Staged {
    fn known_attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ids of the commits of this file that may have been carried out without an answer.
    pub fn attempts(&self) -> Vec<WriteId> {
        self.known_attempts().tried.clone()
    }

    /// A request that makes the object anew is about to be sent.
    pub fn note_attempt(&self, id: &WriteId) {
        self.known_attempts().note(id);
    }

    /// The ids that a row of the journal is to have. Of a file that the bucket does not have, also the one of the commit that is to come:
    /// the row need not be written once more for that. Of others it is, with all headers that the object has.
    pub(super) fn attempts_for_row(&self) -> Vec<WriteId> {
        let is_new = self.lock().base().is_none();
        let mut known = self.known_attempts();
        let mut all = known.tried.clone();
        if is_new {
            all.push(known.planned.get_or_insert_with(WriteId::random).clone());
        }
        all
    }

    /// A request that makes the object anew is about to be sent, by an upload that has this id already, if any. Answers the id. No other
    /// request gets it: two bodies under one id would pass for each other.
    pub(super) fn begin_attempt(&self, of_upload: Option<WriteId>) -> WriteId {
        // A row that has other bytes by now does not lend its id.
        let is_in_row = self.is_recorded();
        let mut known = self.known_attempts();
        let planned = if is_in_row { known.planned.take() } else { None };
        let id = of_upload.or(planned).unwrap_or_else(WriteId::random);
        known.note(&id);
        id
    }

    /// What became of all of them is known.
    pub fn forget_attempts(&self) {
        let mut known = self.known_attempts();
        known.tried.clear();
        known.copy = None;
    }

    /// A conflict copy is about to be made under this name of a directory.
    pub fn note_copy(&self, dir: Ino, name: Name) {
        self.known_attempts().copy = Some((dir, name));
    }

    /// The name in `dir` under which a conflict copy was tried, and may have been made.
    pub fn tried_copy(&self, dir: Ino) -> Option<Name> {
        let tried = self.known_attempts().copy.clone();
        tried.filter(|(parent, _)| *parent == dir).map(|(_, name)| name)
    }

    /// Whether a commit of this file may have been carried out without an answer.
    pub fn has_attempts(&self) -> bool {
        !self.known_attempts().tried.is_empty()
    }

    /// The file takes the place of `other`: what that one may have written is ours as well.
    pub fn inherit_attempts(&self, other: &Staged) {
        let theirs = other.attempts();
        let mut known = self.known_attempts();
        theirs.iter().for_each(|id| known.note(id));
        drop(known);
        self.note_change();
    }

    /// Whether an object that carries `id` was written by an earlier commit of this file, whose answer was lost.
    pub fn is_own(&self, id: &WriteId) -> bool {
        self.known_attempts().tried.contains(id)
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::Content;
    use super::super::disk::{DirDisk, Disk};
    use super::super::place::StagingFile;
    use super::super::room::Room;
    use super::*;
    use crate::types::{ETag, Key, ObjectRef, Version};
    use std::sync::Arc;

    fn staged(dir: &tempfile::TempDir, base: Option<ObjectRef>) -> Staged {
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::new(dir.path()).unwrap());
        let file = StagingFile::new(Arc::clone(&disk), "file".to_owned(), disk.create("file").unwrap());
        Staged::new(Ino(2), file, Arc::new(Room::new(u64::MAX)), Content::new(base), Vec::new())
    }

    fn key(name: &str) -> Key {
        Key::parse(name).unwrap()
    }

    fn record(staged: &Staged) -> Vec<WriteId> {
        let snapshot = staged.snapshot(|_| true).unwrap();
        staged.set_recorded(&snapshot, key("k"));
        snapshot.attempts
    }

    #[test]
    fn the_row_of_a_new_file_knows_its_first_commit_and_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let staged = staged(&dir, None);
        staged.write(Some(0), b"a").unwrap();
        let planned = record(&staged);
        assert_eq!((planned.len(), staged.has_attempts()), (1, false), "nothing was tried");
        assert_eq!(record(&staged), planned);
        let first = staged.begin_attempt(None);
        assert_eq!((staged.attempts(), std::slice::from_ref(&first)), (planned.clone(), &planned[..]));
        assert!(staged.is_recorded_with(&key("k"), &first));
        assert!(!staged.is_recorded_with(&key("a conflict copy"), &first), "the row names another");
        // It may be there, so the next one is another.
        let second = staged.begin_attempt(None);
        assert!(second != first && !staged.is_recorded_with(&key("k"), &second));
        assert_eq!(record(&staged)[..2], [first.clone(), second.clone()]);
        assert!([&first, &second].into_iter().all(|id| staged.is_recorded_with(&key("k"), id)));
        staged.write(Some(1), b"b").unwrap();
        assert!(!staged.is_recorded_with(&key("k"), &second), "the journal has other bytes");
    }

    #[test]
    fn the_row_of_a_file_that_the_bucket_has_is_written_again_before_its_commit() {
        let dir = tempfile::tempdir().unwrap();
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 3 };
        let staged = staged(&dir, Some(ObjectRef { key: key("k"), version }));
        staged.write(Some(0), b"new").unwrap();
        assert!(record(&staged).is_empty());
        let id = staged.begin_attempt(None);
        assert!(!staged.is_recorded_with(&key("k"), &id));
        let of_upload = WriteId::new("of an upload");
        assert_eq!(staged.begin_attempt(Some(of_upload.clone())), of_upload);
    }
}
