//! The make-up of a staged file behind its lock.
//!
//! Owns: the lock, under which a large file may be copied, and what is told without waiting for it: all that others ask who neither
//! read nor write the file. Does not own: the make-up (`content`), the bytes (`staging`).

use super::content::Content;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A make-up that is changed under a lock.
#[derive(Debug)]
pub(super) struct Guarded {
    content: Mutex<Content>,
    /// Those of `content` when it was let go last.
    size: AtomicU64,
    changed: AtomicBool,
    /// Attributes have changed, of which `content` does not know yet.
    touched: AtomicBool,
}

/// The make-up, for the one who has its lock.
pub(super) struct Locked<'a> {
    guarded: &'a Guarded,
    content: MutexGuard<'a, Content>,
}

impl Guarded {
    pub(super) fn new(content: Content) -> Guarded {
        Guarded {
            size: AtomicU64::new(content.size()),
            changed: AtomicBool::new(content.is_changed()),
            touched: AtomicBool::new(false),
            content: Mutex::new(content),
        }
    }

    pub(super) fn lock(&self) -> Locked<'_> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        if self.touched.load(Ordering::SeqCst) {
            // In this order: at each moment one of the two says so.
            self.changed.store(true, Ordering::SeqCst);
            self.touched.store(false, Ordering::SeqCst);
            content.on_attributes();
        }
        Locked { guarded: self, content }
    }

    /// Size in bytes.
    pub(super) fn size(&self) -> u64 {
        self.size.load(Ordering::SeqCst)
    }

    /// Whether the bucket lacks anything of it.
    pub(super) fn is_changed(&self) -> bool {
        self.touched.load(Ordering::SeqCst) || self.changed.load(Ordering::SeqCst)
    }

    /// Attributes that travel with the object changed.
    pub(super) fn touch(&self) {
        self.touched.store(true, Ordering::SeqCst);
    }

    /// Whoever has the lock begins a change that may take its time: a commit that ends now must hear of it.
    pub(super) fn announce_change(&self) {
        self.changed.store(true, Ordering::SeqCst);
    }
}

impl Deref for Locked<'_> {
    type Target = Content;

    fn deref(&self) -> &Content {
        &self.content
    }
}

impl DerefMut for Locked<'_> {
    fn deref_mut(&mut self) -> &mut Content {
        &mut self.content
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // The lock is held still.
        self.guarded.size.store(self.content.size(), Ordering::SeqCst);
        self.guarded.changed.store(self.content.is_changed(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, Key, ObjectRef, Version};

    #[test]
    fn what_is_told_without_the_lock_is_what_was_left_under_it() {
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: 9 };
        let guarded = Guarded::new(Content::new(Some(ObjectRef { key: Key::parse("k").unwrap(), version })));
        let told = || (guarded.size(), guarded.is_changed());
        assert_eq!(told(), (9, false));
        {
            let mut content = guarded.lock();
            content.on_truncate(4);
            assert_eq!(told(), (9, false));
            guarded.announce_change();
            assert_eq!(told(), (9, true));
        }
        assert_eq!(told(), (4, true));
        guarded.lock().on_commit_began();
        // During a commit, and while somebody has the lock.
        let content = guarded.lock();
        guarded.touch();
        drop(content);
        let object = guarded.lock().base().cloned().unwrap();
        guarded.lock().on_committed(object);
        assert_eq!(told(), (4, true), "the next commit carries the attributes");
        guarded.lock().on_commit_began();
        let object = guarded.lock().base().cloned().unwrap();
        guarded.lock().on_committed(object);
        assert_eq!(told(), (4, false));
    }
}
