//! Times of last access.
//!
//! Owns: which reads move an atime (relatime), and the atimes that the catalogue does not have yet. None of that asks the bucket
//! for anything: what writes an object's headers next takes the atime along. Does not own: rows (`meta`).
//!
//! The kernel leaves the atimes of a FUSE file alone (fs/fuse/inode.c sets S_NOATIME). After a READ it asks for the one that we
//! show (fs/fuse/dir.c, fuse_invalidate_atime); after what its own pages have answered it does not, and we hear nothing of that.

use super::handle::FileHandle;
use super::{Fs, Result};
use crate::meta::InodeRow;
use crate::types::{Attr, Ino, Timestamp};
use futures::FutureExt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One that is older moves in any case (fs/inode.c, relatime_need_update).
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long atimes wait for others, which are written in the same transaction.
const PAUSE: Duration = Duration::from_secs(1);
/// Atimes in one transaction: bounds how long others wait for the catalogue.
const AT_ONCE: usize = 500;
/// Atimes that wait, at most. Beyond that reading moves none.
const WAITING_MAX: usize = 100_000;

/// Whether reading a file at `now` moves its atime (fs/inode.c, relatime_need_update). Pure.
fn is_due(attr: &Attr, now: Timestamp) -> bool {
    attr.atime <= attr.mtime || attr.atime <= attr.ctime || now.since(attr.atime) >= DAY
}

#[derive(Debug, Default)]
struct Waiting {
    atimes: HashMap<Ino, Timestamp>,
    /// Somebody sees to their being written.
    is_attended: bool,
}

/// Atimes that the catalogue does not have yet.
#[derive(Debug, Default)]
pub(super) struct Accessed {
    waiting: Mutex<Waiting>,
    /// How many they are: mostly none, and then nobody takes the lock.
    count: AtomicUsize,
}

impl Accessed {
    /// The atime of this inode that waits.
    pub(super) fn of(&self, ino: Ino) -> Option<Timestamp> {
        if self.count.load(Ordering::Acquire) == 0 { None } else { self.lock().atimes.get(&ino).copied() }
    }

    /// The inode has another atime than that of its last read.
    pub(super) fn forget(&self, ino: Ino) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut waiting = self.lock();
            waiting.atimes.remove(&ino);
            self.count.store(waiting.atimes.len(), Ordering::Release);
        }
    }

    /// One more. `true` if nobody sees to its being written yet: the caller has to.
    fn add(&self, ino: Ino, at: Timestamp) -> bool {
        let mut waiting = self.lock();
        if waiting.atimes.len() >= WAITING_MAX && !waiting.atimes.contains_key(&ino) {
            return false;
        }
        waiting.atimes.insert(ino, at);
        self.count.store(waiting.atimes.len(), Ordering::Release);
        !std::mem::replace(&mut waiting.is_attended, true)
    }

    /// Some of those that wait, `max` at most. They are shown until [`Accessed::written`].
    fn some(&self, max: usize) -> Vec<(Ino, Timestamp)> {
        self.lock().atimes.iter().take(max).map(|(ino, at)| (*ino, *at)).collect()
    }

    /// The catalogue has these.
    fn written(&self, atimes: &[(Ino, Timestamp)]) {
        let mut waiting = self.lock();
        for (ino, at) in atimes {
            if waiting.atimes.get(ino) == Some(at) {
                waiting.atimes.remove(ino);
            }
        }
        self.count.store(waiting.atimes.len(), Ordering::Release);
    }

    /// Whether none waits any more. Then nobody sees to the next one.
    fn is_over(&self) -> bool {
        let mut waiting = self.lock();
        let is_over = waiting.atimes.is_empty();
        if is_over {
            *waiting = Waiting::default();
        }
        is_over
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fs {
    /// Whether reading through a handle that is opened with `flags` may move the atime of `row`. Who can also write may make it
    /// due later.
    pub(super) fn may_move_atime(&self, row: &InodeRow, flags: i32) -> bool {
        let access = flags & libc::O_ACCMODE;
        let is_asked_for = access != libc::O_WRONLY && flags & libc::O_NOATIME == 0;
        let is_kept = self.settings.read_only || self.settings.noatime;
        is_asked_for && !is_kept && (access != libc::O_RDONLY || self.is_access_due(row))
    }

    /// Whether reading the file now moves its atime.
    fn is_access_due(&self, row: &InodeRow) -> bool {
        is_due(&self.shown(row.ino, row.attr.clone()), self.meta.now())
    }

    /// The first READ of a handle that may move the atime.
    pub(super) fn on_first_read(self: &Arc<Self>, handle: &FileHandle) {
        let is_due = |row: Option<InodeRow>| row.is_some_and(|row| self.is_access_due(&row));
        if !handle.writable || self.meta.get(handle.ino).is_ok_and(is_due) {
            self.note_access(handle.ino);
        }
    }

    /// A file is opened of which the kernel has pages: reads that they answer are not heard of, so this counts as the first one.
    pub(super) fn on_open_with_pages(self: &Arc<Self>, row: &InodeRow, handle: &FileHandle) {
        if self.is_access_due(row) && handle.is_first_read() {
            self.note_access(row.ino);
            self.forget_attr(row.ino);
        }
    }

    fn note_access(self: &Arc<Self>, ino: Ino) {
        if !self.accessed.add(ino, self.meta.now()) {
            return;
        }
        let fs = Arc::clone(self);
        self.runtime.spawn(async move {
            loop {
                tokio::time::sleep(PAUSE).await;
                fs.write_atimes().await;
                if fs.accessed.is_over() {
                    return;
                }
            }
        });
    }

    /// Writes the atimes that wait into the catalogue.
    pub(super) async fn write_atimes(&self) {
        loop {
            let some = self.accessed.some(AT_ONCE);
            if some.is_empty() {
                return;
            }
            let accessed = Arc::clone(&self.accessed);
            // Set to another one meanwhile, perhaps.
            let is_current = move |ino: Ino, at: Timestamp| accessed.of(ino) == Some(at);
            note_failure(self.meta.accessed(some.clone(), is_current).await.map_err(Into::into));
            self.accessed.written(&some);
        }
    }

    /// The same at the end, without waiting.
    pub(super) fn send_atimes(&self) {
        let all = self.accessed.some(WAITING_MAX);
        if !all.is_empty() {
            // The first step sends it, and the catalogue does what was sent before it is closed.
            let sent = self.meta.accessed(all, |_, _| true).now_or_never();
            note_failure(sent.unwrap_or(Ok(())).map_err(Into::into));
        }
    }
}

/// No reader is told.
fn note_failure(written: Result<()>) {
    if let Err(e) = written {
        tracing::debug!(error = %e, "atimes of files that were read are lost");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::FileKind;

    fn file(atime: i64, mtime: i64, ctime: i64) -> Attr {
        let [atime, mtime, ctime] = [atime, mtime, ctime].map(|secs| Timestamp::from_parts(secs, 0));
        Attr { kind: FileKind::File, perm: 0o644, uid: 0, gid: 0, rdev: 0, size: 0, atime, mtime, ctime }
    }

    #[test]
    fn an_atime_moves_after_a_change_and_after_a_day() {
        let at = |secs| Timestamp::from_parts(secs, 0);
        assert!(is_due(&file(10, 10, 5), at(20)), "nobody has read it since it was written");
        assert!(is_due(&file(10, 5, 10), at(20)), "nor since its attributes were changed");
        assert!(!is_due(&file(11, 10, 10), at(20)));
        assert!(!is_due(&file(11, 10, 10), at(11 + 86_399)));
        assert!(is_due(&file(11, 10, 10), at(11 + 86_400)));
        assert!(!is_due(&file(11, 10, 10), at(1)), "by a clock that was set back");
    }

    #[test]
    fn who_adds_the_first_one_sees_to_all() {
        let (accessed, at) = (Accessed::default(), Timestamp::from_nanos);
        assert!(accessed.add(Ino(2), at(1)) && !accessed.add(Ino(3), at(1)));
        let some = accessed.some(10);
        assert!(!accessed.add(Ino(3), at(2)), "read again meanwhile");
        accessed.written(&some);
        assert_eq!((accessed.of(Ino(2)), accessed.of(Ino(3))), (None, Some(at(2))));
        assert!(!accessed.is_over());
        accessed.forget(Ino(3));
        assert!(accessed.is_over() && accessed.add(Ino(2), at(3)));
    }
}
