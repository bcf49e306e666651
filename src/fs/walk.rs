//! Listing ahead of whoever goes through the tree: find, du, rsync, a media scanner.
//!
//! Owns: recognising a walk, and which directories are listed before they are opened. Does not own: listing (`listing`).
//!
//! A walk opens the subdirectories of a directory one after another in the order of readdir, which is that of their places.
//! From the second on, the next ones are listed ahead, several at once, each with all that is below it in one LIST if that
//! fits into a page.

use super::{Fs, Result};
use crate::meta::InodeRow;
use crate::types::{Ino, Pos};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// Directories in which walks are followed at once.
const WALKS_MAX: u64 = 64;
/// Subdirectories that are listed ahead: at first, and at most.
const WINDOW_MIN: usize = 4;
const WINDOW_MAX: usize = 32;
/// Listings ahead that run at once.
const AT_ONCE: usize = 16;

/// One walk through the subdirectories of a directory.
#[derive(Debug, Default)]
struct Walk {
    last: Option<Pos>,
    steps: u32,
    /// Up to this one all were listed ahead.
    ahead: Option<Pos>,
    /// Listed ahead and not opened yet.
    waiting: VecDeque<Pos>,
}

/// What the opening of a subdirectory means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Next {
    /// Somebody walks: what is below is wanted too.
    is_walk: bool,
    /// List so many of those that come after this one.
    ahead: Option<(Pos, usize)>,
}

impl Walk {
    /// Somebody opens the subdirectory at `dir`, which `was_listed` before. Pure.
    fn on_open(&mut self, dir: Pos, was_listed: bool) -> Next {
        if Some(dir) <= self.last {
            *self = Walk { last: Some(dir), steps: u32::from(!was_listed), ..Walk::default() };
            return Next::default();
        }
        self.last = Some(dir);
        let was_ahead = Some(dir) <= self.ahead;
        if was_listed && !was_ahead {
            // Known from before: nothing is gained by going ahead.
            return Next::default();
        }
        self.steps += 1;
        while self.waiting.front().is_some_and(|pos| *pos <= dir) {
            self.waiting.pop_front();
        }
        if self.steps < 2 {
            return Next::default();
        }
        let window = (WINDOW_MIN << (self.steps - 2).min(8)).min(WINDOW_MAX);
        let missing = window - self.waiting.len().min(window);
        // A few at a time: what is listed together is answered together, and somebody waits for the first.
        let ahead = (missing * 8 >= window).then(|| (self.ahead.map_or(dir, |ahead| ahead.max(dir)), missing));
        Next { is_walk: true, ahead }
    }

    fn listing_ahead(&mut self, dirs: impl IntoIterator<Item = Pos>) {
        for pos in dirs {
            self.ahead = self.ahead.max(Some(pos));
            self.waiting.push_back(pos);
        }
    }
}

/// Walks under way, by the directory through whose subdirectories they go.
#[derive(Debug)]
pub(super) struct Walks {
    walks: moka::sync::Cache<Ino, Arc<Mutex<Walk>>>,
    permits: Arc<Semaphore>,
}

impl Default for Walks {
    fn default() -> Walks {
        Walks { walks: moka::sync::Cache::new(WALKS_MAX), permits: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl Fs {
    /// Somebody opens a directory that is known well enough: it may be one that was listed ahead.
    pub(super) fn walk_past(self: &Arc<Self>, dir: &InodeRow) -> Result<()> {
        self.walk(dir, true).map(drop)
    }

    /// Lists a directory that somebody opens, and, for who walks, what is below it and what comes next.
    pub(super) async fn list_on_open(self: &Arc<Self>, dir: &InodeRow) -> Result<()> {
        if self.walk(dir, false)? { self.list_with_below(dir.ino).await } else { self.list(dir.ino).await }
    }

    /// Follows a walk, and lists ahead. Answers whether it is one.
    pub(super) fn walk(self: &Arc<Self>, dir: &InodeRow, was_listed: bool) -> Result<bool> {
        let Some(parent) = dir.parent else { return Ok(false) };
        let walk = match (self.walks.walks.get(&parent), was_listed) {
            (Some(walk), _) => walk,
            (None, true) => return Ok(false),
            (None, false) => self.walks.walks.get_with(parent, Arc::default),
        };
        let next = walk.lock().unwrap_or_else(PoisonError::into_inner).on_open(dir.pos(), was_listed);
        let Some((after, count)) = next.ahead else { return Ok(next.is_walk) };
        let fresh_since = self.meta.now().minus(self.settings.poll_interval);
        let dirs = self.meta.unlisted_dirs(parent, after, fresh_since, count)?;
        walk.lock().unwrap_or_else(PoisonError::into_inner).listing_ahead(dirs.iter().map(|(pos, _)| *pos));
        for (_, ino) in dirs {
            let (fs, permits) = (Arc::clone(self), Arc::clone(&self.walks.permits));
            tokio::spawn(async move {
                // Never closed, so that a failure to acquire cannot be.
                let _permit = permits.acquire_owned().await;
                if fs.is_listed_since(ino, fresh_since) {
                    return;
                }
                if let Err(e) = fs.list_with_below(ino).await {
                    tracing::debug!(dir = %ino, error = %e, "could not be listed ahead");
                }
            });
        }
        Ok(next.is_walk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens directories one after another, each listed already if it was listed ahead. Answers what was listed ahead each time.
    fn walk(walk: &mut Walk, dirs: impl IntoIterator<Item = u64>) -> Vec<Vec<u64>> {
        let mut all = Vec::new();
        for dir in dirs {
            let next = walk.on_open(Pos(dir), Some(Pos(dir)) <= walk.ahead);
            let ahead = next.ahead.map_or(vec![], |(after, n)| (after.0 + 1..=after.0 + n as u64).collect());
            walk.listing_ahead(ahead.iter().map(|n| Pos(*n)));
            all.push(ahead);
        }
        all
    }

    #[test]
    fn the_window_grows_and_is_filled_up_when_half_of_it_is_gone() {
        let mut state = Walk::default();
        let ahead = walk(&mut state, 10..60);
        assert!(ahead[0].is_empty(), "one directory is no walk");
        assert_eq!(ahead[1], [12, 13, 14, 15]);
        assert_eq!(ahead[2], [16, 17, 18, 19, 20]);
        let total: Vec<u64> = ahead.iter().flatten().copied().collect();
        assert_eq!(total, (12..12 + total.len() as u64).collect::<Vec<_>>(), "each once");
        assert!(state.waiting.len() <= WINDOW_MAX && ahead.iter().all(|a| a.len() <= WINDOW_MAX));
        assert!(state.ahead.unwrap().0 >= 59 + WINDOW_MAX as u64 / 2);
    }

    #[test]
    fn going_back_or_here_and_there_is_no_walk() {
        let mut state = Walk::default();
        assert_eq!(walk(&mut state, [50, 40, 30, 20]), vec![Vec::<u64>::new(); 4]);
        assert_eq!(state.on_open(Pos(25), true), Next::default(), "known from before");
        assert!(state.on_open(Pos(26), false).is_walk);
    }

    #[test]
    fn who_skips_some_does_not_stop_the_walk() {
        let mut state = Walk::default();
        let ahead = walk(&mut state, (10..400).step_by(7));
        assert!(ahead.iter().flatten().count() > 300);
    }
}
