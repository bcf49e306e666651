//! Listing again without being asked: the poller, and what an earlier mount knew.
//!
//! Owns: which directories the kernel holds, the poller's loop, listings in the background. Does not own: when which is due
//! (`remote::schedule`), what a listing changes (`meta`).

use super::Fs;
use crate::remote::{Budget, Held, Next, Periods, Whole};
use crate::types::{Ino, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Directories that are polled at most. Any others are listed when somebody opens them.
const HELD_MAX: usize = 100_000;
/// How long the poller sleeps at most: directories may have come meanwhile.
const LOOK: Duration = Duration::from_secs(1);
/// How long a count of the tree's pages is believed.
const WHOLE_BELIEVED: Duration = Duration::from_secs(3600);
/// Objects in a page of a LIST.
const PAGE: u64 = 1000;
/// Listings in the background at once, and waiting at most.
const LATER_AT_ONCE: usize = 4;
const LATER_MAX: usize = 10_000;

/// What the poller knows of a directory.
#[derive(Debug, Clone, Copy)]
struct HeldDir {
    pages: u32,
    listed_at: Timestamp,
}

/// Directories that were listed since the mount, and that the kernel has not forgotten.
#[derive(Debug)]
pub(super) struct Polled {
    held: Mutex<HashMap<Ino, HeldDir>>,
    /// The kernel was told of a directory, and whoever knows its name can watch it without opening it.
    told: AtomicBool,
    /// The whole tree, if its pages were counted: until when that is believed.
    whole: Mutex<Option<(Whole, Timestamp)>>,
    /// To be listed in the background, or being listed.
    later: Mutex<HashSet<Ino>>,
    permits: Semaphore,
}

impl Default for Polled {
    fn default() -> Polled {
        Polled {
            held: Mutex::default(),
            told: AtomicBool::new(false),
            whole: Mutex::default(),
            later: Mutex::default(),
            permits: Semaphore::new(LATER_AT_ONCE),
        }
    }
}

impl Polled {
    fn held(&self) -> MutexGuard<'_, HashMap<Ino, HeldDir>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn later(&self) -> MutexGuard<'_, HashSet<Ino>> {
        self.later.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A listing that began at `listed_at` took so many requests.
    pub(super) fn listed(&self, dir: Ino, pages: u32, listed_at: Timestamp) {
        let mut held = self.held();
        if held.len() < HELD_MAX || held.contains_key(&dir) {
            held.insert(dir, HeldDir { pages, listed_at });
        }
    }

    /// The kernel shows the directory, which was listed at `listed_at`.
    pub(super) fn shown(&self, dir: Ino, listed_at: Timestamp) {
        let mut held = self.held();
        if held.len() < HELD_MAX {
            held.entry(dir).or_insert(HeldDir { pages: 1, listed_at });
        }
    }

    /// A listing of the whole tree that began at `listed_at` took so many requests.
    pub(super) fn listed_whole(&self, pages: u32, listed_at: Timestamp) {
        self.count_whole(Whole { pages, listed_at });
        self.held().values_mut().for_each(|h| h.listed_at = h.listed_at.max(listed_at));
    }

    fn count_whole(&self, whole: Whole) {
        let until = whole.listed_at.plus(WHOLE_BELIEVED);
        *self.whole.lock().unwrap_or_else(PoisonError::into_inner) = Some((whole, until));
    }

    /// The whole tree, if its pages were counted and that is still believed.
    fn whole(&self, now: Timestamp) -> Option<Whole> {
        let whole = *self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.filter(|(_, until)| *until > now).map(|(whole, _)| whole)
    }

    /// The kernel is told of a directory.
    pub(super) fn note_told(&self) {
        // Nearly always it is set: others' caches keep it then.
        if !self.told.load(Ordering::Relaxed) {
            self.told.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the kernel may hold any directory.
    pub(super) fn may_hold_any(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// The kernel holds nothing of it any more.
    pub(super) fn forget(&self, ino: Ino) {
        self.held().remove(&ino);
    }

    fn snapshot(&self, is_watched: impl Fn(Ino) -> bool) -> Vec<Held> {
        let each = |(dir, h): (&Ino, &HeldDir)| Held {
            dir: *dir,
            watched: is_watched(*dir),
            pages: h.pages,
            listed_at: h.listed_at,
        };
        self.held().iter().map(each).collect()
    }

    /// A directory that could not be listed has its turn again after the others.
    fn postpone(&self, dir: Ino, now: Timestamp) -> u32 {
        let mut held = self.held();
        let Some(h) = held.get_mut(&dir) else { return 1 };
        h.listed_at = now;
        h.pages
    }

    /// Whether the directory is about to be listed in the background.
    pub(super) fn is_later(&self, dir: Ino) -> bool {
        self.later().contains(&dir)
    }
}

/// What polling does, for status.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Polling {
    /// Directories that are polled.
    pub directories: usize,
    /// Of those, how many somebody watches.
    pub watched: usize,
    /// How often each of them is listed.
    pub periods: Periods,
    /// For how long what was listed counts as fresh: no longer than any period.
    pub lifetime: Duration,
    /// LIST requests in an hour.
    pub lists_per_hour: f64,
}

impl Fs {
    fn budget(&self) -> Budget {
        Budget { interval: self.settings.poll_interval, lists: self.settings.poll_budget }
    }

    /// Lists what the kernel holds, again and again. Runs until the task is dropped.
    pub(super) async fn run_poller(self: &Arc<Self>) {
        let budget = self.budget();
        if budget.lists == 0 {
            return;
        }
        loop {
            let rest = match budget.next(&self.held(), self.whole_tree(), self.meta.now()) {
                Next::Wait(time) => time.min(LOOK),
                Next::List(dir) => budget.rest(self.poll(dir).await),
                Next::ListWhole(pages_max) => budget.rest(self.poll_whole(pages_max).await),
            };
            tokio::time::sleep(rest).await;
        }
    }

    fn held(&self) -> Vec<Held> {
        self.polled.snapshot(|dir| self.meta.watches().is_watched(dir))
    }

    /// The whole tree: as counted by its last listing, or by what is known of it.
    fn whole_tree(&self) -> Whole {
        let now = self.meta.now();
        if let Some(whole) = self.polled.whole(now) {
            return whole;
        }
        let known = self.meta.totals().map_or(u64::MAX, |(files, _)| files);
        let pages = u32::try_from(known / PAGE + 1).unwrap_or(u32::MAX);
        // Listed when the mount was: the first listing of all comes an interval later.
        let whole = Whole { pages, listed_at: self.meta.defaults().mounted_at };
        // A count that is only a guess is made again soon: directories are found as they are opened.
        *self.polled.whole.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((whole, now.plus(self.settings.poll_interval)));
        whole
    }

    /// Lists the whole tree, and answers how many requests that took.
    async fn poll_whole(self: &Arc<Self>, pages_max: u32) -> u32 {
        let now = self.meta.now();
        let (pages, counted) = match self.list_whole(pages_max).await {
            Ok(Some(pages)) => return pages,
            // Larger than was known. How much is not worth the requests.
            Ok(None) => (pages_max, u32::MAX),
            Err(e) => {
                tracing::warn!(error = %e, "the tree could not be listed again");
                (1, self.whole_tree().pages)
            }
        };
        self.polled.count_whole(Whole { pages: counted, listed_at: now });
        pages
    }

    /// Lists one directory, and answers how many requests that took.
    async fn poll(self: &Arc<Self>, dir: Ino) -> u32 {
        if let Err(e) = self.list(dir).await {
            match self.meta.get(dir) {
                Ok(Some(row)) if row.parent.is_some() || dir == Ino::ROOT => {
                    tracing::warn!(dir = %self.path_of(dir), error = %e, "could not be listed again");
                }
                _ => self.polled.forget(dir),
            }
        }
        self.polled.postpone(dir, self.meta.now())
    }

    /// Lists the directory in the background, for whoever was shown what an earlier mount knew of it.
    pub(super) fn list_later(self: &Arc<Self>, dir: Ino) {
        let is_new = {
            let mut later = self.polled.later();
            later.len() < LATER_MAX && later.insert(dir)
        };
        if !is_new {
            return;
        }
        let (fs, since) = (Arc::clone(self), self.meta.now());
        tokio::spawn(async move {
            // Never closed, so that a failure to acquire cannot be.
            let _permit = fs.polled.permits.acquire().await;
            // The poller may have been first.
            if !fs.is_listed_since(dir, since)
                && let Err(e) = fs.list(dir).await
            {
                tracing::warn!(dir = %fs.path_of(dir), error = %e, "could not be listed again: showing it as it was");
            }
            fs.polled.later().remove(&dir);
        });
    }

    /// Whether the directory was listed since then, or is gone.
    pub(super) fn is_listed_since(&self, dir: Ino, since: Timestamp) -> bool {
        self.meta.get(dir).is_ok_and(|row| row.is_none_or(|row| row.complete_at.is_some_and(|at| at >= since)))
    }

    /// What polling does now.
    pub fn polling(&self) -> Polling {
        let (held, whole) = (self.held(), self.whole_tree());
        let (budget, is_on) = (self.budget(), self.settings.poll_budget > 0);
        let periods = budget.periods(&held, whole);
        let each_hour = |pages: u32, period: Duration| f64::from(pages) * 3600.0 / period.as_secs_f64();
        let lists_per_hour = match (is_on, budget.covers_whole(&held, whole)) {
            (false, _) => 0.0,
            (true, true) => each_hour(whole.pages, periods.others),
            (true, false) => held.iter().map(|h| each_hour(h.pages, periods.of(h))).sum(),
        };
        let watched = held.iter().filter(|h| h.watched).count();
        let directories = if is_on { held.len() } else { 0 };
        Polling { directories, watched, periods, lifetime: self.settings.poll_interval, lists_per_hour }
    }
}
