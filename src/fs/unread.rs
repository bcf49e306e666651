//! Headers that nobody has read yet: read in the background, where they are worth it.
//!
//! Owns: finding out whether the bucket's objects carry attributes in their headers, and reading those of directories that
//! are shown; which directories somebody goes through name by name. Does not own: reading one (`lookup`), what headers mean
//! (`meta::headers`).
//!
//! A listing shows no headers, and a HEAD for each object of a bucket that has none of ours would cost money for nothing.
//! Lookups and opens read headers anyway: once any of them shows attributes, the bucket is one of those that carry them,
//! and the directories that somebody lists are read to the end, a few objects at a time.

use super::Fs;
use crate::meta::headers::from_user;
use crate::store::ObjectHeaders;
use crate::types::{Ino, Pos, Timestamp};
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Objects whose headers are read at once, in all directories together.
const AT_ONCE: usize = 4;
/// Objects that one listing has read, at most. The next goes on with the others.
const READ_MAX: usize = 2000;
/// Rows that are looked up together.
const PAGE: usize = 64;
/// How long after a readdir lookups in the directory count as part of it, and after the removal of a name that it showed.
const SHOWN: Duration = Duration::from_secs(30);
/// Lookups after a readdir that read headers all the same.
const SAMPLES: u32 = 8;
/// The same for all directories together: by then it is known whether the bucket's objects carry attributes.
const SAMPLES_MAX: u32 = 64;
/// Names of a large directory that are asked for alone, until it is listed again.
const ALONE_MAX: u32 = 64;
/// Directories that are remembered as read.
const DIRS_MAX: usize = 10_000;
/// Where the catalogue keeps that the bucket's objects carry attributes.
const CARRIES: &str = "attributes";

/// A directory that was read, and its names that were looked up since.
#[derive(Debug, Default)]
struct Shown {
    /// When somebody last read it, or removed a name: nanoseconds since the epoch.
    at: AtomicI64,
    /// Names of which only a listing has told.
    unread: AtomicU32,
    /// Names of which nothing fresh was known.
    alone: AtomicU32,
}

/// What is known of unread headers.
#[derive(Debug)]
pub(super) struct Unread {
    carries: AtomicBool,
    /// Directories that were read, or are being read, by the listing that showed them.
    read: Mutex<HashMap<Ino, Timestamp>>,
    permits: Semaphore,
    /// Directories that somebody reads or empties just now, and such as somebody has read before.
    shown: moka::sync::Cache<Ino, Arc<Shown>>,
    /// Lookups after a readdir that read headers.
    samples: AtomicU32,
}

impl Unread {
    /// `carries`: whether an earlier mount found attributes.
    fn new(carries: bool) -> Unread {
        let shown = moka::sync::Cache::builder()
            .max_capacity(DIRS_MAX as u64)
            // TinyLFU, the default, refuses newcomers.
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        let (carries, read, permits) = (AtomicBool::new(carries), Mutex::default(), Semaphore::new(AT_ONCE));
        Unread { carries, read, permits, shown, samples: AtomicU32::new(0) }
    }

    /// The directory, if somebody reads or empties it just now.
    fn shown(&self, dir: Ino, now: Timestamp) -> Option<Arc<Shown>> {
        let shown = self.shown.get(&dir)?;
        (now.since(Timestamp::from_nanos(shown.at.load(Ordering::Relaxed))) < SHOWN).then_some(shown)
    }

    /// Whether the directory is to be read now, as its listing of this time shows it.
    fn begin(&self, dir: Ino, listed_at: Timestamp) -> bool {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= DIRS_MAX {
            read.clear();
        }
        read.insert(dir, listed_at) != Some(listed_at)
    }

    /// Somebody reads the directory: `ls -l` or the like may follow, which looks up every name.
    pub(super) fn showing(&self, dir: Ino, now: Timestamp) {
        match self.shown(dir, now) {
            Some(shown) => shown.at.store(now.nanos(), Ordering::Relaxed),
            None => self.shown.insert(dir, Arc::new(Shown { at: AtomicI64::new(now.nanos()), ..Shown::default() })),
        }
    }

    /// A name of the directory was removed of which only a listing had told. Whoever empties a directory that he has read (`rm -r`)
    /// looks up each name before, for as long as it takes, and nobody wants the headers of what is about to go.
    pub(super) fn removed_from(&self, dir: Ino, now: Timestamp) {
        if let Some(shown) = self.shown(dir, now) {
            shown.at.store(now.nanos(), Ordering::Relaxed);
        }
    }

    /// Whether a name of the directory is looked up for itself. After a readdir all names may be, and then a few tell whether
    /// headers are worth reading; the others are shown as the listing has them.
    pub(super) fn is_worth_asking(&self, dir: Ino, now: Timestamp) -> bool {
        let Some(shown) = self.shown(dir, now) else { return true };
        shown.unread.fetch_add(1, Ordering::Relaxed) < SAMPLES
            && self.samples.fetch_add(1, Ordering::Relaxed) < SAMPLES_MAX
    }

    /// The same for extended attributes, of which a listing tells nothing, where objects are known to carry attributes.
    pub(super) fn is_worth_listing(&self, dir: Ino, now: Timestamp) -> bool {
        self.carries.load(Ordering::Relaxed) || self.is_worth_asking(dir, now)
    }

    /// A name of a large directory, of which nothing fresh is known, is asked for alone. Whether to list the directory as well,
    /// because whoever has read it goes through all its names.
    pub(super) fn is_worth_listing_again(&self, dir: Ino, now: Timestamp) -> bool {
        let Some(shown) = self.shown(dir, now) else { return false };
        shown.alone.fetch_add(1, Ordering::Relaxed) % ALONE_MAX == ALONE_MAX - 1
    }

    fn again(&self, dir: Ino) {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).remove(&dir);
    }
}

impl Fs {
    pub(super) fn unread_of(meta: &crate::meta::Meta) -> Unread {
        Unread::new(meta.kv(CARRIES).is_ok_and(|known| known.is_some()))
    }

    /// Somebody read these headers.
    pub(super) fn note_headers(self: &Arc<Self>, headers: &ObjectHeaders) {
        let said = from_user(&headers.user);
        let carries = said.perm.is_some() || said.mtime.is_some() || said.uid.is_some() || said.target.is_some();
        if !carries || self.unread.carries.swap(true, Ordering::Relaxed) {
            return;
        }
        let fs = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(e) = fs.meta.set_kv(CARRIES, "1".to_owned()).await {
                tracing::debug!(error = %e, "found again by the next mount");
            }
        });
    }

    /// The directory is shown, by its last listing: what that does not tell of its entries is read in the background.
    pub(super) fn read_headers_of_shown(self: &Arc<Self>, dir: Ino) {
        if let Ok(Some(row)) = self.meta.get(dir)
            && let Some(listed_at) = row.complete_at
        {
            self.read_headers_later(dir, listed_at);
        }
    }

    fn read_headers_later(self: &Arc<Self>, dir: Ino, listed_at: Timestamp) {
        let is_worth_it = self.kept().in_objects() && self.unread.carries.load(Ordering::Relaxed);
        if !is_worth_it || !self.unread.begin(dir, listed_at) {
            return;
        }
        let fs = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(e) = fs.read_unread(dir).await {
                tracing::debug!(dir = %dir, error = %e, "headers could not be read");
                fs.unread.again(dir);
            }
        });
    }

    async fn read_unread(self: &Arc<Self>, dir: Ino) -> super::Result<()> {
        let (mut after, mut left) = (Pos::START, READ_MAX);
        loop {
            let rows = self.meta.unread(dir, after, PAGE.min(left))?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.pos();
            left -= rows.len();
            let reads = rows.into_iter().map(|row| async move {
                // Never closed, so that a failure to acquire cannot be.
                let _permit = self.unread.permits.acquire().await;
                let now = match self.read_headers(&row).await {
                    // Refused for this one: the others may be read.
                    Err(e) if !e.is_outage() => {
                        tracing::debug!(inode = %row.ino, error = %e, "headers could not be read");
                        return Ok(());
                    }
                    result => result?,
                };
                if let (Some(now), Some(kernel)) = (now, self.kernel.get())
                    && now.attr != row.attr
                {
                    kernel.forget_attr(now.ino);
                }
                super::Result::Ok(())
            });
            let mut reads = futures::stream::iter(reads).buffer_unordered(AT_ONCE);
            while let Some(read) = reads.next().await {
                read?;
            }
            if left == 0 {
                self.unread.again(dir);
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ManualClock, WallClock};

    const DIR: Ino = Ino(7);

    #[test]
    fn a_directory_that_was_read_counts_as_read_for_as_long_as_it_is_emptied() {
        let (unread, clock) = (Unread::new(false), ManualClock::new(Timestamp::from_parts(1000, 0)));
        let is_worth_asking = || unread.is_worth_asking(DIR, clock.now());
        unread.removed_from(DIR, clock.now());
        assert!(is_worth_asking(), "nobody has read it");
        unread.showing(DIR, clock.now());
        assert!((0..SAMPLES).all(|_| is_worth_asking()) && !is_worth_asking());
        for _ in 0..3 {
            clock.advance(SHOWN - Duration::from_nanos(1));
            assert!(!is_worth_asking(), "it is being emptied");
            unread.removed_from(DIR, clock.now());
        }
        clock.advance(SHOWN);
        unread.removed_from(DIR, clock.now());
        assert!(is_worth_asking(), "nobody has removed anything for a while");
        unread.showing(DIR, clock.now());
        assert!((0..SAMPLES).all(|_| is_worth_asking()) && !is_worth_asking(), "they are counted anew");
    }

    #[test]
    fn one_directory_more_is_remembered_although_there_are_many() {
        let (unread, now) = (Unread::new(false), Timestamp::from_parts(1000, 0));
        let last = Ino(DIRS_MAX as u64 + 100);
        for ino in 1..=last.0 {
            unread.showing(Ino(ino), now);
        }
        unread.shown.run_pending_tasks();
        assert!(unread.shown(last, now).is_some());
    }
}
