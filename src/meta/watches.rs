//! What somebody watches, and which new names are not shown yet.
//!
//! Owns: the set of watched inodes, and the names whose appearance is still to be replayed as an event: until then nobody
//! is shown them, because a name that the kernel knows already raises no CREATE.
//! Does not own: finding the watchers (`fuse`), replaying (`fs`), rows (`db`).

use crate::types::{Ino, Name, Timestamp};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A name is shown after this at the latest, whatever became of its event.
const HIDDEN_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
struct State {
    /// Every directory counts as watched (`events=all`).
    all: bool,
    watched: HashSet<Ino>,
    /// Directories that appeared in watched ones: whoever watches recursively is about to watch them too.
    fresh: HashSet<Ino>,
    hidden: HashMap<Ino, HashMap<Name, Timestamp>>,
}

/// Watched inodes and hidden names.
#[derive(Debug, Default)]
pub struct Watches {
    state: Mutex<State>,
    /// How many names are hidden: mostly none, and then nobody takes the lock.
    count: AtomicUsize,
}

impl Watches {
    /// These inodes are watched now.
    pub fn set(&self, watched: HashSet<Ino>) {
        self.lock().watched = watched;
    }

    /// Every directory counts as watched from now on.
    pub fn watch_all(&self) {
        self.lock().all = true;
    }

    /// Whether somebody watches the inode.
    pub fn is_watched(&self, ino: Ino) -> bool {
        let state = self.lock();
        state.all || state.watched.contains(&ino)
    }

    /// Whether anything is watched.
    pub fn any(&self) -> bool {
        let state = self.lock();
        state.all || !state.watched.is_empty() || !state.fresh.is_empty()
    }

    /// Whether changes of what is in the directory are to be replayed: somebody watches it, or is about to.
    pub fn is_watched_or_fresh(&self, dir: Ino) -> bool {
        let state = self.lock();
        state.all || state.watched.contains(&dir) || state.fresh.contains(&dir)
    }

    /// Whether the directory has just appeared in a watched one.
    pub fn is_fresh(&self, dir: Ino) -> bool {
        self.lock().fresh.contains(&dir)
    }

    /// Whoever wanted to watch the directory does by now.
    pub fn settled(&self, dir: Ino) {
        self.lock().fresh.remove(&dir);
    }

    /// Nobody watches the directory: what is in it is shown from now on, without events.
    pub fn unhide(&self, dir: Ino) {
        let mut state = self.lock();
        state.fresh.remove(&dir);
        if let Some(names) = state.hidden.remove(&dir) {
            self.count.fetch_sub(names.len(), Ordering::Release);
        }
    }

    /// The watched inodes.
    pub fn watched(&self) -> HashSet<Ino> {
        self.lock().watched.clone()
    }

    /// The directory `ino` has just appeared in a watched one.
    pub(super) fn freshen(&self, ino: Ino) {
        self.lock().fresh.insert(ino);
    }

    /// The name is not shown before its event.
    pub(super) fn hide(&self, parent: Ino, name: &Name, now: Timestamp) {
        let mut state = self.lock();
        if state.hidden.entry(parent).or_default().insert(name.clone(), now).is_none() {
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    /// The name is shown from now on. Answers whether it was hidden.
    pub fn show(&self, parent: Ino, name: &Name) -> bool {
        if self.count.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut state = self.lock();
        let Some(names) = state.hidden.get_mut(&parent) else { return false };
        let was_hidden = names.remove(name).is_some();
        if names.is_empty() {
            state.hidden.remove(&parent);
        }
        if was_hidden {
            self.count.fetch_sub(1, Ordering::Release);
        }
        was_hidden
    }

    /// Whether the name is hidden.
    pub fn is_hidden(&self, parent: Ino, name: &Name, now: Timestamp) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.lock().hidden.get(&parent).and_then(|names| names.get(name)).is_some_and(|at| is_young(*at, now))
    }

    /// The hidden names of a directory. Nothing if it has none.
    pub fn hidden_in(&self, parent: Ino, now: Timestamp) -> Option<HashSet<Name>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let state = self.lock();
        let names = state.hidden.get(&parent)?;
        Some(names.iter().filter(|(_, at)| is_young(**at, now)).map(|(name, _)| name.clone()).collect())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_young(at: Timestamp, now: Timestamp) -> bool {
    at.plus(HIDDEN_MAX) > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_name_is_shown_once_asked_for_or_after_its_time() {
        let (watches, name) = (Watches::default(), Name::parse("a").unwrap());
        let t = |secs| Timestamp::from_parts(secs, 0);
        watches.hide(Ino(1), &name, t(0));
        watches.hide(Ino(1), &name, t(0));
        assert!(watches.is_hidden(Ino(1), &name, t(59)) && !watches.is_hidden(Ino(2), &name, t(0)));
        assert!(!watches.is_hidden(Ino(1), &name, t(60)), "whatever became of its event");
        assert_eq!(watches.hidden_in(Ino(1), t(1)).unwrap().len(), 1);
        assert!(watches.show(Ino(1), &name) && !watches.show(Ino(1), &name));
        assert!(watches.hidden_in(Ino(1), t(1)).is_none());
    }

    #[test]
    fn directories_are_fresh_until_settled() {
        let watches = Watches::default();
        watches.set(HashSet::from([Ino(1)]));
        watches.freshen(Ino(2));
        watches.set(HashSet::from([Ino(3)]));
        assert!(watches.is_watched(Ino(3)) && !watches.is_watched(Ino(1)));
        assert!(watches.is_watched_or_fresh(Ino(2)) && !watches.is_watched(Ino(2)));
        watches.settled(Ino(2));
        assert!(!watches.is_watched_or_fresh(Ino(2)));
        watches.watch_all();
        assert!(watches.is_watched(Ino(7)));
    }
}
