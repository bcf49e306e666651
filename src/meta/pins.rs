//! Which inodes are open, and which names went away lately.
//!
//! Owns: the count of open handles per inode (an open inode stays pinned to its version), which inodes have lost their name to
//! somebody else, the names that we removed while the bucket was being asked, so that an older answer does not bring them
//! back, and whose objects we wrote anew meanwhile, so that none of them is taken for gone.
//! Does not own: the handles (`fs`), rows (`db`).

use crate::types::{Ino, Name, Timestamp, WallClock};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Pin {
    handles: u32,
    rewritten: bool,
}

#[derive(Debug, Default)]
struct Open {
    pins: HashMap<Ino, Pin>,
    /// Outlives the last handle: until the row is gone, the inode can be opened again.
    lost: HashSet<Ino>,
}

/// Inodes that are open, with how many handles, and those whose name went to somebody else's version meanwhile.
#[derive(Debug, Default)]
pub struct Pins {
    open: Mutex<Open>,
    recent: RecentlyGone,
}

impl Pins {
    /// Nothing is open. What is written anew while the bucket is asked is noted in `recent`.
    pub(super) fn new(recent: RecentlyGone) -> Pins {
        Pins { open: Mutex::default(), recent }
    }

    /// One more handle.
    pub fn pin(&self, ino: Ino) {
        self.lock().pins.entry(ino).or_default().handles += 1;
    }

    /// One handle less; true when it was the last.
    pub fn unpin(&self, ino: Ino) -> bool {
        let pins = &mut self.lock().pins;
        let Some(pin) = pins.get_mut(&ino) else { return false };
        pin.handles -= 1;
        let last = pin.handles == 0;
        if last {
            pins.remove(&ino);
        }
        last
    }

    /// Whether any handle is open.
    pub fn is_pinned(&self, ino: Ino) -> bool {
        self.lock().pins.contains_key(&ino)
    }

    /// Whether the inode's name went, while it was open, to a version that somebody else wrote, or somebody else deleted it: what
    /// is written to it now would reach nobody.
    pub fn is_lost(&self, ino: Ino) -> bool {
        self.lock().lost.contains(&ino)
    }

    /// The name of an open inode went to somebody else.
    pub(super) fn mark_lost(&self, ino: Ino) {
        self.lock().lost.insert(ino);
    }

    /// The inode is gone.
    pub(super) fn forget_lost(&self, ino: Ino) {
        self.lock().lost.remove(&ino);
    }

    /// The open inode's object is written anew with other headers until the guard is dropped: what others see of it meanwhile is
    /// ours.
    pub fn rewrite(&self, ino: Ino) -> Rewrite<'_> {
        self.set_rewritten(ino, true);
        Rewrite { pins: self, ino }
    }

    pub(super) fn is_rewritten(&self, ino: Ino) -> bool {
        self.lock().pins.get(&ino).is_some_and(|pin| pin.rewritten)
    }

    /// Whether the inode's object is written anew just now, or was at any moment since the question with the number `asked`.
    pub(super) fn was_rewritten(&self, ino: Ino, asked: u64) -> bool {
        self.is_rewritten(ino) || self.recent.was_rewritten(ino, asked)
    }

    fn set_rewritten(&self, ino: Ino, rewritten: bool) {
        if let Some(pin) = self.lock().pins.get_mut(&ino) {
            pin.rewritten = rewritten;
        }
    }

    /// Nothing is open any more: the session is over.
    pub fn clear(&self) {
        *self.lock() = Open::default();
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An inode whose object is being written anew.
#[derive(Debug)]
pub struct Rewrite<'a> {
    pins: &'a Pins,
    ino: Ino,
}

impl Drop for Rewrite<'_> {
    fn drop(&mut self) {
        // First: whoever asks in between is to hear of it.
        self.pins.recent.note_rewritten(self.ino);
        self.pins.set_rewritten(self.ino, false);
    }
}

#[derive(Debug, Default)]
struct Recent {
    next: u64,
    /// Observations under way, with when they began.
    running: BTreeMap<u64, Timestamp>,
    /// Names removed while any was under way, with when.
    gone: HashMap<(Ino, Name), Timestamp>,
    /// Inodes whose objects were written anew while any was under way, with the number of the first that was asked after that.
    rewritten: HashMap<Ino, u64>,
    /// Names that have moved away here, while the bucket still has their old keys.
    leaving: HashSet<(Ino, Name)>,
}

/// Names that were removed through the mount, and inodes whose objects were written anew, while an observation of the bucket was
/// under way.
#[derive(Debug, Clone, Default)]
pub(super) struct RecentlyGone(Arc<Mutex<Recent>>);

/// A question to the bucket that is under way: what it will answer is as old as `began`.
#[derive(Debug)]
pub struct Observation {
    id: u64,
    began: Timestamp,
    recent: RecentlyGone,
    /// The path of the directory that it is about, if it is about one name.
    pub(super) path: Option<Vec<Name>>,
}

impl Observation {
    /// When the question was asked.
    pub fn began(&self) -> Timestamp {
        self.began
    }

    /// Its number: later ones have higher numbers.
    pub(super) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let mut recent = self.recent.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.running.remove(&self.id);
        match recent.running.values().min().copied() {
            Some(oldest) => recent.gone.retain(|_, at| *at >= oldest),
            None => recent.gone.clear(),
        }
        match recent.running.first_key_value().map(|(oldest, _)| *oldest) {
            Some(oldest) => recent.rewritten.retain(|_, next| *next > oldest),
            None => recent.rewritten.clear(),
        }
    }
}

/// A name that moves away here: until this is dropped the bucket may still show its old keys, and that does not count.
#[derive(Debug)]
pub struct Leaving {
    place: (Ino, Name),
    recent: RecentlyGone,
    clock: Arc<dyn WallClock>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let now = self.clock.now();
        // An answer under way may be older than the last delete.
        self.recent.note(self.place.0, &self.place.1, now);
        self.recent.0.lock().unwrap_or_else(PoisonError::into_inner).leaving.remove(&self.place);
    }
}

impl RecentlyGone {
    pub(super) fn observe(&self, began: Timestamp) -> Observation {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let id = recent.next;
        recent.next += 1;
        recent.running.insert(id, began);
        Observation { id, began, recent: self.clone(), path: None }
    }

    pub(super) fn note(&self, parent: Ino, name: &Name, at: Timestamp) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !recent.running.is_empty() {
            recent.gone.insert((parent, name.clone()), at);
        }
    }

    fn note_rewritten(&self, ino: Ino) {
        let mut recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !recent.running.is_empty() {
            let next = recent.next;
            recent.rewritten.insert(ino, next);
        }
    }

    fn was_rewritten(&self, ino: Ino, asked: u64) -> bool {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        recent.rewritten.get(&ino).is_some_and(|next| *next > asked)
    }

    /// Whether the name was removed at or after `began`, or is about to be, so that an answer of that age does not count.
    pub(super) fn is_newer(&self, parent: Ino, name: &Name, began: Timestamp) -> bool {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.gone.is_empty() && recent.leaving.is_empty() {
            return false;
        }
        let place = (parent, name.clone());
        recent.leaving.contains(&place) || recent.gone.get(&place).is_some_and(|at| *at >= began)
    }

    pub(super) fn leave(&self, parent: Ino, name: Name, clock: Arc<dyn WallClock>) -> Leaving {
        let place = (parent, name);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).leaving.insert(place.clone());
        Leaving { place, recent: self.clone(), clock }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_answer_does_not_bring_a_removed_name_back() {
        let gone = RecentlyGone::default();
        let name = Name::parse("a").unwrap();
        let t = Timestamp::from_nanos;
        gone.note(Ino(1), &name, t(5));
        assert!(!gone.is_newer(Ino(1), &name, t(4)), "nothing was under way, so nothing was kept");
        let old = gone.observe(t(10));
        gone.note(Ino(1), &name, t(12));
        let new = gone.observe(t(13));
        assert!(gone.is_newer(Ino(1), &name, old.began()));
        assert!(!gone.is_newer(Ino(1), &name, new.began()));
        drop(old);
        assert!(!gone.is_newer(Ino(1), &name, t(10)), "forgotten with the last question that could bring it back");
        drop(new);
    }

    #[test]
    fn a_name_that_leaves_is_not_shown_again_before_its_keys_are_gone() {
        let (gone, name) = (RecentlyGone::default(), Name::parse("a").unwrap());
        let clock = Arc::new(crate::types::ManualClock::new(Timestamp::from_nanos(10)));
        let wall: Arc<dyn WallClock> = Arc::<crate::types::ManualClock>::clone(&clock);
        let leaving = gone.leave(Ino(1), name.clone(), wall);
        clock.advance(std::time::Duration::from_nanos(10));
        let during = gone.observe(clock.now());
        assert!(gone.is_newer(Ino(1), &name, during.began()), "whenever the question was asked");
        clock.advance(std::time::Duration::from_nanos(10));
        drop(leaving);
        assert!(gone.is_newer(Ino(1), &name, during.began()), "its answer may still show it");
        let after = gone.observe(Timestamp::from_nanos(31));
        assert!(!gone.is_newer(Ino(1), &name, after.began()));
    }

    #[test]
    fn an_object_that_was_written_anew_since_a_question_was_asked_is_known_until_its_answer_came() {
        let gone = RecentlyGone::default();
        let pins = Pins::new(gone.clone());
        let was = |asked: &Observation| pins.was_rewritten(Ino(2), asked.id());
        let now = Timestamp::from_nanos(1);
        pins.pin(Ino(2));
        drop(pins.rewrite(Ino(2)));
        let first = gone.observe(now);
        assert!(!was(&first), "before it was asked");
        let rewrite = pins.rewrite(Ino(2));
        let second = gone.observe(now);
        assert!(was(&first) && was(&second), "just now");
        drop(rewrite);
        let third = gone.observe(now);
        assert!(was(&first) && was(&second) && !was(&third));
        drop(first);
        assert!(was(&second) && !was(&third));
        drop(second);
        assert!(gone.0.lock().unwrap().rewritten.is_empty());
    }

    #[test]
    fn pins_count_handles() {
        let pins = Pins::default();
        pins.pin(Ino(2));
        pins.pin(Ino(2));
        pins.mark_lost(Ino(2));
        assert!(!pins.unpin(Ino(2)) && pins.is_pinned(Ino(2)) && pins.is_lost(Ino(2)));
        assert!(pins.unpin(Ino(2)) && !pins.is_pinned(Ino(2)));
        assert!(!pins.unpin(Ino(2)));
        assert!(pins.is_lost(Ino(2)), "until its row is gone");
        pins.forget_lost(Ino(2));
        assert!(!pins.is_lost(Ino(2)));
    }
}
