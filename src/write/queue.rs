//! Commits that are due in the background: when, and after a failure when again. Pure.
//!
//! Owns: due times, backoff, parking of what fails for good. Does not own: doing the commits (`fs::commit`).

use crate::types::{Ino, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// First and longest pause between attempts.
const BACKOFF_MIN: Duration = Duration::from_secs(2);
const BACKOFF_MAX: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// To be committed at this time.
    Due(Timestamp),
    /// Being committed; `again` if it was pushed meanwhile.
    Running { again: bool },
    /// Failed for good, and waits for somebody to do something about it.
    Parked,
}

/// What is to be expected of another try of a commit that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    /// It may pass by itself.
    Passing,
    /// It passes once somebody has done something elsewhere, as with keys that have run out.
    Unlikely,
    /// It never passes, unless somebody asks for another try.
    Never,
}

#[derive(Debug, Clone)]
struct Entry {
    state: State,
    attempts: u32,
    reason: Option<String>,
    /// It has failed, and fails again unless somebody does something.
    is_helpless: bool,
}

/// What waits to be committed.
#[derive(Debug, Default)]
pub struct CommitQueue {
    entries: BTreeMap<Ino, Entry>,
    /// Those that are due at a time, the earliest first: there may be many thousands.
    due: BTreeSet<(Timestamp, Ino)>,
    /// How many are helpless.
    helpless: usize,
}

/// An entry for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// The inode.
    pub ino: Ino,
    /// How often it has failed.
    pub attempts: u32,
    /// Why it failed last.
    pub reason: Option<String>,
    /// Whether it waits for somebody to do something.
    pub parked: bool,
}

impl CommitQueue {
    /// `ino` is to be committed at `due`, or earlier if it was to be already.
    pub fn push(&mut self, ino: Ino, due: Timestamp) {
        let state = match self.entries.get(&ino).map(|entry| &entry.state) {
            Some(State::Due(known)) => State::Due(due.min(*known)),
            Some(State::Running { .. }) => State::Running { again: true },
            Some(State::Parked) | None => State::Due(due),
        };
        self.set(ino, state);
        self.set_helpless(ino, false);
    }

    /// Whether `ino` is to be committed, be it that somebody has to do something before.
    pub fn knows(&self, ino: Ino) -> bool {
        self.entries.contains_key(&ino)
    }

    /// An inode whose time has come. It counts as running until [`CommitQueue::on_done`] or [`CommitQueue::on_failed`].
    pub fn next_ready(&mut self, now: Timestamp) -> Option<Ino> {
        let (_, ino) = self.due.first().filter(|(due, _)| *due <= now).copied()?;
        self.set(ino, State::Running { again: false });
        Some(ino)
    }

    /// When the next entry is due, or `None` if none will be by itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The commit of `ino` is not begun yet, but at `due`.
    pub fn postpone(&mut self, ino: Ino, due: Timestamp) {
        if self.entries.contains_key(&ino) {
            self.set(ino, State::Due(due));
        }
    }

    /// What was begun for `ino` has ended, with whatever outcome. Where nobody has said what becomes of it, it is tried at `due`.
    pub fn on_ended(&mut self, ino: Ino, due: Timestamp) {
        if self.entries.get(&ino).is_some_and(|entry| matches!(entry.state, State::Running { .. })) {
            self.set(ino, State::Due(due));
        }
    }

    /// The commit of `ino` succeeded, in the background or elsewhere. An entry that was pushed meanwhile stays: what it
    /// stands for may have come too late for this commit, and a commit with nothing to do costs nothing.
    pub fn on_done(&mut self, ino: Ino, now: Timestamp) {
        let Some(entry) = self.entries.get(&ino) else { return };
        let stays = matches!(entry.state, State::Running { again: true } | State::Due(_));
        self.forget(ino);
        if stays {
            self.set(ino, State::Due(now));
        }
    }

    /// The commit of `ino` failed: again after a pause that doubles, or never for what will not pass. `jitter` from 0 to 1 spreads the
    /// pauses.
    pub fn on_failed(&mut self, ino: Ino, now: Timestamp, reason: String, prospect: Prospect, jitter: f64) {
        let known = self.entries.get(&ino);
        let attempts = known.map_or(0, |entry| entry.attempts);
        let pause = BACKOFF_MIN.saturating_mul(1 << attempts.min(16)).min(BACKOFF_MAX);
        let is_asked_for = known.is_some_and(|entry| entry.state == State::Running { again: true });
        let later = now.plus(pause.mul_f64(0.5 + jitter / 2.0));
        let state = match prospect {
            Prospect::Passing => State::Due(later),
            // Somebody has asked for it since it began: what it failed of may be over.
            _ if is_asked_for => State::Due(now),
            Prospect::Unlikely => State::Due(later),
            Prospect::Never => State::Parked,
        };
        let entry = self.set(ino, state);
        entry.attempts += 1;
        entry.reason = Some(reason);
        self.set_helpless(ino, prospect != Prospect::Passing && !is_asked_for);
    }

    /// Whether the commit of `ino` failed for good, and nobody has asked for another.
    pub fn is_parked(&self, ino: Ino) -> bool {
        self.entries.get(&ino).is_some_and(|entry| entry.state == State::Parked)
    }

    /// Whether it has failed, and will go on failing as long as nobody does anything.
    pub fn is_helpless(&self, ino: Ino) -> bool {
        self.entries.get(&ino).is_some_and(|entry| entry.is_helpless)
    }

    /// The file is gone: nothing is to be committed any more.
    pub fn forget(&mut self, ino: Ino) {
        self.set_helpless(ino, false);
        if let Some(entry) = self.entries.remove(&ino) {
            self.left(ino, &entry.state);
        }
    }

    /// Makes everything that waits due now: somebody unmounts, or asks to try again.
    pub fn hurry(&mut self, now: Timestamp, parked_too: bool) {
        let is_late = |state: &State| match state {
            State::Due(due) => *due > now,
            State::Parked => parked_too,
            State::Running { .. } => false,
        };
        let late: Vec<Ino> = self.entries.iter().filter(|(_, e)| is_late(&e.state)).map(|(ino, _)| *ino).collect();
        for ino in late {
            self.set(ino, State::Due(now));
            if parked_too {
                self.set_helpless(ino, false);
            }
        }
    }

    /// How many may get into the bucket although nobody does anything.
    pub fn active(&self) -> usize {
        self.entries.len() - self.helpless
    }

    /// The entry of `ino`, which is in this state from now on.
    fn set(&mut self, ino: Ino, state: State) -> &mut Entry {
        if let Some(entry) = self.entries.get(&ino) {
            let before = entry.state.clone();
            self.left(ino, &before);
        }
        match state {
            State::Due(due) => drop(self.due.insert((due, ino))),
            State::Parked | State::Running { .. } => {}
        }
        let entry = self.entries.entry(ino).or_insert(Entry {
            state: State::Parked,
            attempts: 0,
            reason: None,
            is_helpless: false,
        });
        entry.state = state;
        entry
    }

    fn set_helpless(&mut self, ino: Ino, helpless: bool) {
        let Some(entry) = self.entries.get_mut(&ino) else { return };
        let was = std::mem::replace(&mut entry.is_helpless, helpless);
        self.helpless = self.helpless + usize::from(helpless) - usize::from(was);
    }

    fn left(&mut self, ino: Ino, state: &State) {
        match state {
            State::Due(due) => drop(self.due.remove(&(*due, ino))),
            State::Parked | State::Running { .. } => {}
        }
    }

    /// Every entry.
    pub fn waiting(&self) -> Vec<Waiting> {
        let waiting = |(ino, e): (&Ino, &Entry)| Waiting {
            ino: *ino,
            attempts: e.attempts,
            reason: e.reason.clone(),
            parked: e.state == State::Parked,
        };
        self.entries.iter().map(waiting).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_parts(secs, 0)
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let mut q = CommitQueue::default();
        q.push(Ino(1), at(0));
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            assert_eq!(q.next_ready(now), Some(Ino(1)));
            q.on_failed(Ino(1), now, "503".into(), Prospect::Passing, 1.0);
            let due = q.next_due().unwrap();
            pauses.push((due.nanos() - now.nanos()) / 1_000_000_000);
            assert_eq!(q.next_ready(now), None);
            now = due;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn a_push_while_running_is_not_lost() {
        let mut q = CommitQueue::default();
        q.push(Ino(1), at(0));
        q.next_ready(at(0)).unwrap();
        q.push(Ino(1), at(5));
        q.on_done(Ino(1), at(1));
        assert_eq!(q.next_ready(at(1)), Some(Ino(1)));
        q.on_done(Ino(1), at(1));
        assert_eq!(q.active(), 0);
    }

    #[test]
    fn what_is_due_first_comes_first_and_the_counts_agree() {
        let mut q = CommitQueue::default();
        for (ino, due) in [(1, 30), (2, 10), (3, 20)] {
            q.push(Ino(ino), at(due));
        }
        q.push(Ino(1), at(40));
        assert_eq!((q.next_due(), q.next_ready(at(9)), q.active()), (Some(at(10)), None, 3));
        assert_eq!([q.next_ready(at(30)), q.next_ready(at(30))], [Some(Ino(2)), Some(Ino(3))]);
        q.on_failed(Ino(2), at(30), "403".into(), Prospect::Never, 0.0);
        q.on_ended(Ino(3), at(31));
        q.postpone(Ino(3), at(50));
        assert_eq!((q.active(), q.next_ready(at(30)), q.next_ready(at(49))), (2, Some(Ino(1)), None));
        q.forget(Ino(2));
        q.on_done(Ino(1), at(50));
        assert_eq!((q.active(), q.waiting().len(), q.next_due()), (1, 1, Some(at(50))));
        q.hurry(at(45), false);
        assert_eq!(q.next_ready(at(45)), Some(Ino(3)));
    }

    #[test]
    fn what_fails_for_good_is_parked_until_somebody_acts() {
        let mut q = CommitQueue::default();
        q.push(Ino(1), at(0));
        q.next_ready(at(0)).unwrap();
        q.on_failed(Ino(1), at(0), "403".into(), Prospect::Never, 0.0);
        q.hurry(at(9), false);
        assert_eq!((q.next_due(), q.active(), q.waiting()[0].parked), (None, 0, true));
        assert!(q.is_parked(Ino(1)) && !q.is_parked(Ino(2)));
        q.hurry(at(9), true);
        assert!(!q.is_parked(Ino(1)));
        assert_eq!(q.next_ready(at(9)), Some(Ino(1)));
    }

    #[test]
    fn what_needs_somebody_elsewhere_is_tried_again_and_is_not_waited_for() {
        let mut q = CommitQueue::default();
        q.push(Ino(1), at(0));
        q.next_ready(at(0)).unwrap();
        q.on_failed(Ino(1), at(0), "expired".into(), Prospect::Unlikely, 1.0);
        assert_eq!((q.active(), q.next_due(), q.waiting()[0].parked), (0, Some(at(2)), false));
        assert!(q.is_helpless(Ino(1)) && !q.is_parked(Ino(1)));
        // Others are tried for the first time while it is tried again: all of them have failed at no moment.
        q.push(Ino(2), at(2));
        q.hurry(at(1), false);
        assert_eq!((q.next_ready(at(1)), q.active(), q.is_helpless(Ino(1))), (Some(Ino(1)), 1, true));
        q.next_ready(at(2)).unwrap();
        q.on_failed(Ino(2), at(2), "expired".into(), Prospect::Unlikely, 1.0);
        assert_eq!(q.active(), 0);
        q.on_failed(Ino(1), at(2), "503".into(), Prospect::Passing, 1.0);
        assert_eq!((q.active(), q.is_helpless(Ino(1))), (1, false));
        q.push(Ino(2), at(9));
        assert_eq!(q.active(), 2);
        q.forget(Ino(1));
        q.forget(Ino(2));
        assert_eq!((q.active(), q.next_due()), (0, None));
    }
}
