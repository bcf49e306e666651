//! Open files.
//!
//! Owns: the table of file handles and what each remembers. Does not own: pins of inodes (`meta::Pins`).

use crate::read::Stream;
use crate::types::{Fh, Ino, ObjectRef, Pos};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Who opened a file, as /proc names them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Opener {
    /// The thread.
    pub(super) tid: u32,
    /// Its process. 0 if that is not known, or nobody will ask, as nothing is written through the handle.
    pub(super) tgid: u32,
}

impl Opener {
    /// Whether a thread is one of another process. `tgid_of` is asked only if it is not the thread that opened the file: that costs a
    /// file of /proc at each close.
    pub(super) fn is_other(&self, tid: u32, tgid_of: impl FnOnce(u32) -> u32) -> bool {
        tid != self.tid && self.tgid != 0 && tgid_of(tid) != self.tgid
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct FileHandle {
    /// Its inode.
    pub(super) ino: Ino,
    /// The directory that it was opened in, and its place there.
    pub(super) dir: Option<(Ino, Pos)>,
    /// Opened for writing, or emptied by being opened.
    pub(super) writable: bool,
    /// Who opened it.
    pub(super) opener: Opener,
    /// What is fetched for it.
    pub(super) stream: Stream,
    /// Nothing was read yet, and the first read may move the atime.
    moves_atime: AtomicBool,
    object: Mutex<Option<ObjectRef>>,
}

impl FileHandle {
    /// A handle on `ino` at its place in `dir`, at `object`.
    pub(super) fn new(
        (ino, dir): (Ino, Option<(Ino, Pos)>),
        flags: i32,
        opener: Opener,
        object: Option<ObjectRef>,
        moves_atime: bool,
    ) -> FileHandle {
        FileHandle {
            ino,
            dir,
            writable: is_for_writing(flags),
            opener,
            stream: Stream::default(),
            moves_atime: AtomicBool::new(moves_atime),
            object: Mutex::new(object),
        }
    }

    /// Whether the atime may move, because nothing was read yet. From now on it may not.
    pub(super) fn is_first_read(&self) -> bool {
        self.moves_atime.load(Ordering::Relaxed) && self.moves_atime.swap(false, Ordering::Relaxed)
    }

    /// The version that is read. `None` for a file that the bucket does not have yet.
    pub(super) fn object(&self) -> Option<ObjectRef> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads go to `object` from now on.
    pub(super) fn set_object(&self, object: Option<ObjectRef>) {
        *self.object.lock().unwrap_or_else(PoisonError::into_inner) = object;
    }
}

/// Whether a file that is opened with `flags` has to be committed when it is closed.
pub(super) fn is_for_writing(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0
}

/// All open files.
#[derive(Debug, Default)]
pub(super) struct Handles {
    next: AtomicU64,
    files: Mutex<HashMap<Fh, Arc<FileHandle>>>,
}

impl Handles {
    /// Gives the handle a number.
    pub(super) fn insert(&self, handle: FileHandle) -> Fh {
        let fh = Fh(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        self.files.lock().unwrap_or_else(PoisonError::into_inner).insert(fh, Arc::new(handle));
        fh
    }

    /// The handle of this number.
    pub(super) fn get(&self, fh: Fh) -> Option<Arc<FileHandle>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).get(&fh).cloned()
    }

    /// Takes the handle out.
    pub(super) fn remove(&self, fh: Fh) -> Option<Arc<FileHandle>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&fh)
    }

    /// Every handle on `ino`.
    pub(super) fn of(&self, ino: Ino) -> Vec<Arc<FileHandle>> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.values().filter(|h| h.ino == ino).cloned().collect()
    }

    /// Forgets them all.
    pub(super) fn clear(&self) {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_opened_a_file_is_known_by_its_thread_and_others_by_their_process() {
        let opener = Opener { tid: 7, tgid: 5 };
        assert!(!opener.is_other(7, |_| unreachable!("nothing is read for the thread that opened it")));
        assert!(!opener.is_other(8, |_| 5), "another thread of the process");
        assert!(opener.is_other(9, |tid| tid));
        assert!(opener.is_other(9, |_| 0), "gone, or not ours to see");
        assert!(!Opener { tgid: 0, ..opener }.is_other(9, |tid| tid), "nothing is known of the opener");
    }
}
