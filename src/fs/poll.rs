//! Listing again without being asked: the poller, and what an earlier mount knew.
//!
//! Owns: which directories the kernel holds, the poller's loop, listings in the background. Does not own: when which is due
//! (`remote::schedule`), what a listing changes (`meta`).

use super::Fs;
use crate::remote::{Budget, Held, Next};
use crate::types::{Ino, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Directories that are polled at most. Any others are listed when somebody opens them.
const HELD_MAX: usize = 100_000;
/// How long the poller sleeps at most: directories may have come meanwhile.
const LOOK: Duration = Duration::from_secs(1);
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
    /// To be listed in the background, or being listed.
    later: Mutex<HashSet<Ino>>,
    permits: Semaphore,
}

impl Default for Polled {
    fn default() -> Polled {
        Polled { held: Mutex::default(), later: Mutex::default(), permits: Semaphore::new(LATER_AT_ONCE) }
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

    /// The kernel holds nothing of it any more.
    pub(super) fn forget(&self, ino: Ino) {
        self.held().remove(&ino);
    }

    fn snapshot(&self) -> Vec<Held> {
        let each =
            |(dir, h): (&Ino, &HeldDir)| Held { dir: *dir, watched: false, pages: h.pages, listed_at: h.listed_at };
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
    /// How often each of them is listed.
    pub period: Duration,
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
            let rest = match budget.next(&self.polled.snapshot(), self.meta.now()) {
                Next::Wait(time) => time.min(LOOK),
                Next::List(dir) => budget.rest(self.poll(dir).await),
            };
            tokio::time::sleep(rest).await;
        }
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
        let fs = Arc::clone(self);
        tokio::spawn(async move {
            // Never closed, so that a failure to acquire cannot be.
            let _permit = fs.polled.permits.acquire().await;
            if let Err(e) = fs.list(dir).await {
                tracing::warn!(dir = %fs.path_of(dir), error = %e, "could not be listed again: showing it as it was");
            }
            fs.polled.later().remove(&dir);
        });
    }

    /// What polling does now.
    pub fn polling(&self) -> Polling {
        let held = self.polled.snapshot();
        let (budget, is_on) = (self.budget(), self.settings.poll_budget > 0);
        let period = budget.periods(&held).others;
        let pages: f64 = held.iter().map(|h| f64::from(h.pages)).sum();
        let lists_per_hour = if is_on { pages * 3600.0 / period.as_secs_f64() } else { 0.0 };
        Polling { directories: if is_on { held.len() } else { 0 }, period, lists_per_hour }
    }
}
