//! Changes of a staged file, counted, and the moment of it that a commit carries.
//!
//! Owns: the numbers of changes, whether a file is half written, and that a commit of one that is bound to a moment carries nothing else.
//! Does not own: the changes (`staging`), which moments of several files fit together (`fs`).

use super::content::Content;
use super::staging::Staged;
use super::unattended::{acknowledges_nothing, is_for_bystander, is_unattended};
use crate::types::ByteRange;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes at the beginning of a file that are its head: as many as the header of SQLite's log has.
const HEAD_LEN: u64 = 32;

/// A moment of a file, as far as it matters to whoever names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// All bytes are what they were then.
    Bytes(u64),
    /// The head is. Anything may have been written behind it.
    Head(u64),
}

/// How often the bytes of a file have changed, and the moment that its commits are bound to.
#[derive(Debug, Default)]
pub(super) struct Moments {
    bytes: AtomicU64,
    heads: AtomicU64,
    bound: Mutex<Option<Moment>>,
}

/// A file whose commits are bound to a moment, until this is dropped.
#[derive(Debug)]
pub struct Bound(Arc<Staged>);

impl Drop for Bound {
    fn drop(&mut self) {
        self.0.set_bound(None);
    }
}

impl Staged {
    pub(super) fn note_change(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Bytes have changed, the first of them at `start`, or the file was cut there. The caller has the lock.
    pub(super) fn note_bytes(&self, start: u64) {
        self.moments.bytes.fetch_add(1, Ordering::SeqCst);
        if start < HEAD_LEN {
            self.moments.heads.fetch_add(1, Ordering::SeqCst);
        }
        self.note_change();
    }

    /// The number of its last change.
    pub fn last_change(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    /// The last change that a commit has carried into the bucket.
    pub(super) fn carried(&self) -> u64 {
        self.carried.load(Ordering::SeqCst)
    }

    /// The moment of all its bytes.
    pub fn moment(&self) -> Moment {
        Moment::Bytes(self.bytes_moment())
    }

    pub(super) fn bytes_moment(&self) -> u64 {
        self.moments.bytes.load(Ordering::SeqCst)
    }

    /// Whether the commit that asks, because it is none of whoever writes the file, may send nothing but what the journal has. A database
    /// has moments of its own.
    pub(super) fn is_to_be_as_recorded(&self) -> bool {
        acknowledges_nothing() && self.is_acknowledged() && self.is_any_file()
    }

    /// Whether it is not one of a database's.
    fn is_any_file(&self) -> bool {
        !self.file.is_in_place() && self.bound().is_none()
    }

    /// Whether somebody has written to it since it was acknowledged, or since the bucket has it, and has not come to his end. What its
    /// last close could not make safe counts as that. Waits for its lock.
    pub fn is_half_written(&self) -> bool {
        let content = self.lock();
        self.is_half(&content)
    }

    /// The same, for whoever has the lock.
    fn is_half(&self, content: &Content) -> bool {
        if content.is_committing() {
            // What there was when that began is somebody's end.
            return content.is_disturbed();
        }
        if self.is_acknowledged() {
            return !self.has_recorded_bytes();
        }
        content.is_changed() && content.has_own_bytes()
    }

    /// Whether the commit that asks may not send the file as it is, because somebody has half written it. To be asked under the lock.
    pub(super) fn is_too_early(&self, content: &Content) -> bool {
        (is_for_bystander() || is_unattended() && self.is_any_file()) && self.is_half(content)
    }

    /// The moment of its head.
    pub fn head_moment(&self) -> Moment {
        Moment::Head(self.moments.heads.load(Ordering::SeqCst))
    }

    /// Whether it still is what it was at a moment.
    pub fn is_of(&self, moment: Moment) -> bool {
        let now = match moment {
            Moment::Bytes(_) => self.moment(),
            Moment::Head(_) => self.head_moment(),
        };
        now == moment
    }

    /// Whether its head is not that of the version in the bucket, if that has one, or may not be.
    pub fn has_new_head(&self) -> bool {
        let content = self.lock();
        let is_cut = content.base().is_none_or(|base| content.base_len() < base.version.size);
        let head = ByteRange::new(0, HEAD_LEN);
        is_cut || content.copied().is_some() || head.is_some_and(|head| content.dirty().covered(head) > 0)
    }

    /// Its commits carry what it was at `moment` or are given up as disturbed, until the answer is dropped.
    pub fn bind(self: &Arc<Self>, moment: Moment) -> Bound {
        self.set_bound(Some(moment));
        Bound(Arc::clone(self))
    }

    fn set_bound(&self, moment: Option<Moment>) {
        *self.moments.bound.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    /// The moment that its commits are bound to, if they are.
    pub(super) fn bound(&self) -> Option<Moment> {
        *self.moments.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether they are bound to a moment that is over. To be asked under the lock, so that no write is half done.
    pub(super) fn is_past_bound(&self) -> bool {
        self.bound().is_some_and(|moment| !self.is_of(moment))
    }
}

#[cfg(test)]
mod tests {
    use super::super::content::Content;
    use super::super::disk::{DirDisk, Disk};
    use super::super::place::StagingFile;
    use super::super::room::Room;
    use super::*;
    use crate::types::{ETag, Ino, Key, ObjectRef, Version};

    fn staged(dir: &tempfile::TempDir) -> Arc<Staged> {
        let disk: Arc<dyn Disk> = Arc::new(DirDisk::new(dir.path()).unwrap());
        let file = StagingFile::new(Arc::clone(&disk), "file".to_owned(), disk.open("file").unwrap());
        Arc::new(Staged::new(Ino(2), file, Arc::new(Room::new(u64::MAX)), Content::new(None), Vec::new()))
    }

    #[test]
    fn what_is_appended_changes_the_bytes_and_not_the_head() {
        let dir = tempfile::tempdir().unwrap();
        let staged = staged(&dir);
        staged.write(Some(0), &[1; 40]).unwrap();
        let moments = || (staged.moment(), staged.head_moment());
        let before = moments();
        staged.touch();
        assert_eq!(moments(), before, "attributes are no bytes");
        staged.write(Some(32), &[2; 40]).unwrap();
        assert!(!staged.is_of(before.0) && staged.is_of(before.1));
        staged.truncate(32).unwrap();
        assert!(staged.is_of(before.1));
        staged.write(Some(31), &[3; 2]).unwrap();
        assert!(!staged.is_of(before.1));
        let before = moments();
        staged.truncate(31).unwrap();
        assert!(!staged.is_of(before.1));
    }

    #[test]
    fn a_head_is_new_that_was_written_or_cut_off_since_the_commit() {
        let dir = tempfile::tempdir().unwrap();
        let staged = staged(&dir);
        let commit = || {
            let version = Version { etag: ETag::parse("e"), last_modified: None, size: staged.size() };
            staged.lock().on_commit_began();
            staged.on_committed(ObjectRef { key: Key::parse("k").unwrap(), version }, staged.last_change());
        };
        staged.write(Some(0), &[1; 40]).unwrap();
        assert!(staged.has_new_head(), "the bucket has none");
        commit();
        staged.write(Some(40), &[2; 40]).unwrap();
        assert!(!staged.has_new_head());
        commit();
        staged.write(Some(0), &[3; 32]).unwrap();
        assert!(staged.has_new_head());
        commit();
        staged.truncate(40).unwrap();
        assert!(staged.has_new_head());
    }

    #[test]
    fn a_bound_file_is_past_its_moment_once_it_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let staged = staged(&dir);
        staged.write(Some(0), &[1; 40]).unwrap();
        let bound = staged.bind(staged.head_moment());
        staged.write(Some(40), &[2; 40]).unwrap();
        assert!(staged.bound().is_some() && !staged.is_past_bound());
        staged.write(Some(0), &[3; 40]).unwrap();
        assert!(staged.is_past_bound());
        drop(bound);
        assert!(staged.bound().is_none() && !staged.is_past_bound());
    }
}
