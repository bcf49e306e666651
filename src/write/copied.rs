//! Staged files that are copies of an object.
//!
//! Owns: becoming one, and a file like others again; which there are, so that none loses its bytes together with the object.
//! Does not own: what a copy consists of (`content`), who asks for one, and when an object goes (`fs`).

use super::Writer;
use super::commit::CommitError;
use super::staging::Staged;
use crate::types::{ByteRange, Ino, Key, ObjectRef};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Files that have bytes of other objects, each with the key of its object. Some are files like others by now: nobody takes the lock of
/// a file for that, which may be being copied.
#[derive(Debug, Default)]
pub(super) struct Copies(Mutex<Vec<(Key, Weak<Staged>)>>);

impl Copies {
    /// Those that there are, among which no file comes as long as the answer is held.
    fn lock(&self) -> MutexGuard<'_, Vec<(Key, Weak<Staged>)>> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(_, staged)| staged.strong_count() > 0);
        known
    }

    fn of(&self, key: &Key) -> Vec<Arc<Staged>> {
        self.lock().iter().filter(|(of, _)| of == key).filter_map(|(_, staged)| staged.upgrade()).collect()
    }
}

impl Staged {
    fn copy_of(&self, object: &ObjectRef, range: ByteRange) -> io::Result<Option<u64>> {
        let mut content = self.lock();
        let copied = content.on_copied(object, range);
        if copied.is_some() {
            self.file.file().set_len(content.size())?;
            self.note_bytes(0);
        }
        Ok(copied)
    }

    /// A copy, all of which is here, is a file like others from now on.
    pub(super) fn become_file(&self) {
        let mut content = self.lock();
        // A commit that is under way makes it one, or finds all bytes here.
        if content.copied().is_some() && !content.is_committing() {
            let base = content.base().cloned();
            content.on_rebased(base);
            self.note_change();
        }
    }
}

impl Writer {
    /// `range` of `object` becomes a part of a file, at the same place, of which nothing is fetched as long as nobody needs it here.
    /// Answers how many bytes, or `None` if they have to be written: also if the object is not `is_there` any more, which is asked
    /// while nobody says of it that it goes or moves.
    ///
    /// # Errors
    /// What the disk says.
    pub fn copy_of(
        &self,
        staged: &Arc<Staged>,
        object: &ObjectRef,
        range: ByteRange,
        is_there: impl FnOnce() -> bool,
    ) -> io::Result<Option<u64>> {
        let mut known = self.copies.lock();
        if !is_there() {
            return Ok(None);
        }
        let copied = staged.copy_of(object, range)?;
        let is_known = |(of, other): &(Key, Weak<Staged>)| *of == object.key && other.as_ptr() == Arc::as_ptr(staged);
        if copied.is_some() && !known.iter().any(is_known) {
            known.push((object.key.clone(), Arc::downgrade(staged)));
        }
        Ok(copied)
    }

    /// What is at `key` is about to be deleted or replaced: files that are copies of it, and that nobody has closed yet, get their
    /// bytes before that.
    ///
    /// # Errors
    /// [`CommitError`]: then it has to stay.
    pub async fn keep_copies_of(&self, key: &Key) -> Result<(), CommitError> {
        for staged in self.copies.of(key) {
            staged.copy_ended().await;
            if staged.content().copied().is_none_or(|object| object.key != *key) {
                continue;
            }
            match self.fill(&staged).await {
                Ok(()) => staged.become_file(),
                // Somebody else was first: whoever closes the copy hears of it.
                Err(CommitError::BaseLost) => tracing::warn!(%key, "what a copy of it has not read yet is gone"),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// The same bytes are found elsewhere from now on.
    pub fn move_copies(&self, from: &ObjectRef, to: &ObjectRef) {
        for (of, staged) in self.copies.lock().iter_mut().filter(|(of, _)| *of == from.key) {
            if staged.upgrade().is_some_and(|staged| staged.lock().on_source_moved(from, to)) {
                of.clone_from(&to.key);
            }
        }
    }

    /// Whether an object still is what an inode's staged file, if it has one, was made of, and stays in the bucket.
    pub fn is_base(&self, ino: Ino, object: &ObjectRef) -> bool {
        let is_it = |base: &ObjectRef| base.key == object.key && base.version.same(&object.version);
        let is_there = |staged: &Staged| !staged.is_changed() && !staged.is_last_copy();
        self.get(ino).is_none_or(|staged| is_there(&staged) && staged.content().base().is_some_and(is_it))
    }
}
