//! Commits that are due in the background: when, and after a failure when again. Pure.
//!
//! Owns: due times, backoff, parking of what fails for good. Does not own: doing the commits (`fs::commit`).

use crate::types::{Ino, Timestamp};
use std::collections::BTreeMap;
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

#[derive(Debug, Clone)]
struct Entry {
    state: State,
    attempts: u32,
    reason: Option<String>,
}

/// What waits to be committed.
#[derive(Debug, Default)]
pub struct CommitQueue {
    entries: BTreeMap<Ino, Entry>,
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
        let entry = self.entries.entry(ino).or_insert(Entry { state: State::Due(due), attempts: 0, reason: None });
        match &mut entry.state {
            State::Due(known) => *known = due.min(*known),
            State::Running { again } => *again = true,
            State::Parked => entry.state = State::Due(due),
        }
    }

    /// An inode whose time has come. It counts as running until [`CommitQueue::on_done`] or [`CommitQueue::on_failed`].
    pub fn next_ready(&mut self, now: Timestamp) -> Option<Ino> {
        let (ino, entry) = self.entries.iter_mut().find(|(_, e)| matches!(e.state, State::Due(due) if due <= now))?;
        entry.state = State::Running { again: false };
        Some(*ino)
    }

    /// When the next entry is due, or `None` if none will be by itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.entries.values().filter_map(|e| if let State::Due(due) = e.state { Some(due) } else { None }).min()
    }

    /// The commit of `ino` is not begun yet, but at `due`.
    pub fn postpone(&mut self, ino: Ino, due: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&ino) {
            entry.state = State::Due(due);
        }
    }

    /// What was begun for `ino` has ended, with whatever outcome. Where nobody has said what becomes of it, it is tried at `due`.
    pub fn on_ended(&mut self, ino: Ino, due: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&ino)
            && matches!(entry.state, State::Running { .. })
        {
            entry.state = State::Due(due);
        }
    }

    /// The commit of `ino` succeeded, in the background or elsewhere. An entry that was pushed meanwhile stays: what it
    /// stands for may have come too late for this commit, and a commit with nothing to do costs nothing.
    pub fn on_done(&mut self, ino: Ino, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(&ino) else { return };
        match entry.state {
            State::Running { again: true } | State::Due(_) => {
                *entry = Entry { state: State::Due(now), attempts: 0, reason: None };
            }
            State::Running { again: false } | State::Parked => drop(self.entries.remove(&ino)),
        }
    }

    /// The commit of `ino` failed: again after a pause that doubles, or never for what will not pass by itself. `jitter`
    /// from 0 to 1 spreads the pauses.
    pub fn on_failed(&mut self, ino: Ino, now: Timestamp, reason: String, permanent: bool, jitter: f64) {
        let entry = self.entries.entry(ino).or_insert(Entry { state: State::Parked, attempts: 0, reason: None });
        let pause = BACKOFF_MIN.saturating_mul(1 << entry.attempts.min(16)).min(BACKOFF_MAX);
        entry.attempts += 1;
        entry.reason = Some(reason);
        entry.state = match entry.state {
            // Somebody has asked for it since it began: what it failed of may be over.
            State::Running { again: true } if permanent => State::Due(now),
            _ if permanent => State::Parked,
            _ => State::Due(now.plus(pause.mul_f64(0.5 + jitter / 2.0))),
        };
    }

    /// The file is gone: nothing is to be committed any more.
    pub fn forget(&mut self, ino: Ino) {
        self.entries.remove(&ino);
    }

    /// Makes everything that waits due now: somebody unmounts, or asks to try again.
    pub fn hurry(&mut self, now: Timestamp, parked_too: bool) {
        for entry in self.entries.values_mut() {
            match &mut entry.state {
                State::Due(due) => *due = now.min(*due),
                State::Parked if parked_too => entry.state = State::Due(now),
                _ => {}
            }
        }
    }

    /// How many are not parked.
    pub fn active(&self) -> usize {
        self.entries.values().filter(|e| e.state != State::Parked).count()
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
            q.on_failed(Ino(1), now, "503".into(), false, 1.0);
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
    fn what_fails_for_good_is_parked_until_somebody_acts() {
        let mut q = CommitQueue::default();
        q.push(Ino(1), at(0));
        q.next_ready(at(0)).unwrap();
        q.on_failed(Ino(1), at(0), "403".into(), true, 0.0);
        q.hurry(at(9), false);
        assert_eq!((q.next_due(), q.active(), q.waiting()[0].parked), (None, 0, true));
        q.hurry(at(9), true);
        assert_eq!(q.next_ready(at(9)), Some(Ino(1)));
    }
}
