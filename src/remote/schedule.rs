//! Which directory the poller lists next, and how often it can list each.
//!
//! Owns: the arithmetic of interval and budget. Pure: time and what the kernel holds are arguments.
//! Does not own: listing (`listing`), who holds or watches what (`fs`).

use crate::types::{Ino, Timestamp};
use std::time::Duration;

/// Of the budget, what watched directories may take while others wait, in percent.
const WATCHED_SHARE: u32 = 75;

/// A directory that the kernel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The directory.
    pub dir: Ino,
    /// Whether a program waits for events of it.
    pub watched: bool,
    /// LIST requests that its last listing took, 1 at least.
    pub pages: u32,
    /// When its last listing began.
    pub listed_at: Timestamp,
}

/// What polling may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// How often each directory is to be listed.
    pub interval: Duration,
    /// LIST requests in that time, at most.
    pub lists: u32,
}

/// How often directories are listed in fact, if the budget does not suffice for the interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Periods {
    /// Those that somebody watches.
    pub watched: Duration,
    /// All others.
    pub others: Duration,
}

impl Periods {
    /// That of one directory.
    pub fn of(&self, held: &Held) -> Duration {
        if held.watched { self.watched } else { self.others }
    }
}

/// The whole tree, listed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    /// LIST requests that it takes, as far as is known.
    pub pages: u32,
    /// When its last listing began.
    pub listed_at: Timestamp,
}

/// What the poller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Lists this directory.
    List(Ino),
    /// Lists the whole tree, and gives up beyond so many LISTs: then it is not cheaper.
    ListWhole(u32),
    /// Waits: nothing is due before.
    Wait(Duration),
}

impl Budget {
    /// How long the poller rests after so many LISTs, so that they are spread over the interval.
    pub fn rest(&self, pages: u32) -> Duration {
        self.interval * pages.max(1) / self.lists.max(1)
    }

    /// How many LISTs the whole tree may take to be listed at once: no more than the budget, and fewer than the directories
    /// that are held would take one by one.
    fn whole_max(&self, held: &[Held]) -> u32 {
        let pages = held.iter().fold(0u32, |sum, h| sum.saturating_add(h.pages.max(1)));
        self.lists.min(pages.saturating_sub(1))
    }

    /// Whether the whole tree is listed at once.
    pub fn covers_whole(&self, held: &[Held], whole: Whole) -> bool {
        whole.pages <= self.whole_max(held)
    }

    /// How often directories are listed: at the interval if the budget allows it. Where it does not, watched ones go first,
    /// but leave something to the others.
    pub fn periods(&self, held: &[Held], whole: Whole) -> Periods {
        if self.covers_whole(held, whole) {
            return Periods { watched: self.interval, others: self.interval };
        }
        let pages = |watched| held.iter().filter(|h| h.watched == watched).map(|h| u64::from(h.pages.max(1))).sum();
        let (watched, others): (u64, u64) = (pages(true), pages(false));
        let budget = u64::from(self.lists.max(1));
        let share = if others == 0 { budget } else { (budget * u64::from(WATCHED_SHARE) / 100).max(1) };
        let for_watched = watched.min(share);
        let for_others = budget.saturating_sub(for_watched).max(1);
        Periods { watched: self.stretched(watched, share), others: self.stretched(others, for_others) }
    }

    /// The interval, or what so many pages take with so many LISTs in an interval.
    fn stretched(&self, pages: u64, lists: u64) -> Duration {
        let nanos = self.interval.as_nanos().saturating_mul(u128::from(pages)) / u128::from(lists.max(1));
        self.interval.max(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// What to list now: the whole tree if that costs less, else the directory that is overdue by most of its period.
    pub fn next(&self, held: &[Held], whole: Whole, now: Timestamp) -> Next {
        if self.covers_whole(held, whole) {
            let due = whole.listed_at.plus(self.interval);
            return if due <= now { Next::ListWhole(self.whole_max(held)) } else { Next::Wait(due.since(now)) };
        }
        let periods = self.periods(held, whole);
        let due = |h: &Held| h.listed_at.plus(periods.of(h));
        match held.iter().map(|h| (due(h), !h.watched, h.dir)).min() {
            Some((due, _, dir)) if due <= now => Next::List(dir),
            Some((due, ..)) => Next::Wait(due.since(now)),
            None => Next::Wait(self.interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { interval: Duration::from_secs(60), lists: 20 };

    const HUGE: Whole = Whole { pages: u32::MAX, listed_at: Timestamp::from_nanos(0) };

    fn held(dir: u64, watched: bool, pages: u32, listed: i64) -> Held {
        Held { dir: Ino(dir), watched, pages, listed_at: Timestamp::from_parts(listed, 0) }
    }

    fn secs(periods: Periods) -> (u64, u64) {
        (periods.watched.as_secs(), periods.others.as_secs())
    }

    #[test]
    fn within_the_budget_everything_is_listed_at_the_interval() {
        let some: Vec<Held> = (0..20).map(|i| held(i, i < 5, 1, 0)).collect();
        assert_eq!(secs(BUDGET.periods(&some, HUGE)), (60, 60));
        assert_eq!(secs(BUDGET.periods(&[], HUGE)), (60, 60));
    }

    #[test]
    fn beyond_it_watched_directories_keep_the_interval_as_long_as_they_can() {
        let many = |watched, others| -> Vec<Held> {
            (0..watched).map(|i| held(i, true, 1, 0)).chain((0..others).map(|i| held(1000 + i, false, 1, 0))).collect()
        };
        assert_eq!(secs(BUDGET.periods(&many(10, 100), HUGE)), (60, 600));
        assert_eq!(secs(BUDGET.periods(&many(30, 100), HUGE)), (120, 1200), "a quarter is left to the others");
        assert_eq!(secs(BUDGET.periods(&many(40, 0), HUGE)), (120, 60), "nobody else needs it");
        assert_eq!(
            secs(BUDGET.periods(&[held(1, true, 100, 0)], HUGE)),
            (300, 60),
            "a large directory costs its pages"
        );
    }

    #[test]
    fn the_most_overdue_comes_first() {
        let at = |s| Timestamp::from_parts(s, 0);
        let dirs = [held(1, false, 1, 100), held(2, false, 1, 90), held(3, true, 1, 95)];
        assert_eq!(BUDGET.next(&dirs, HUGE, at(100)), Next::Wait(Duration::from_secs(50)));
        assert_eq!(BUDGET.next(&dirs, HUGE, at(150)), Next::List(Ino(2)));
        let tied = [held(1, false, 1, 90), held(3, true, 1, 90)];
        assert_eq!(BUDGET.next(&tied, HUGE, at(150)), Next::List(Ino(3)), "watched ones first");
        assert_eq!(BUDGET.next(&[], HUGE, at(0)), Next::Wait(Duration::from_secs(60)));
    }

    /// A simulated hour: the number of LISTs stays within the budget, and nothing waits longer than its period and one rest.
    #[test]
    fn an_hour_of_polling_keeps_budget_and_periods() {
        // Found one after another, as somebody opened them.
        let found_at = |i: u64| if i.is_multiple_of(9) { 0 } else { 12 * i as i64 - 1080 };
        let mut dirs: Vec<Held> = (0..90).map(|i| held(i, i % 9 == 0, 1 + (i % 3) as u32, found_at(i))).collect();
        let periods = BUDGET.periods(&dirs, HUGE);
        let (mut now, mut lists, mut latest) = (Timestamp::from_parts(0, 0), 0, Duration::ZERO);
        while now < Timestamp::from_parts(3600, 0) {
            let step = match BUDGET.next(&dirs, HUGE, now) {
                Next::List(dir) => {
                    let dir = dirs.iter_mut().find(|d| d.dir == dir).unwrap();
                    let period = periods.of(dir);
                    latest = latest.max(now.since(dir.listed_at).saturating_sub(period));
                    dir.listed_at = now;
                    lists += dir.pages;
                    BUDGET.rest(dir.pages)
                }
                Next::ListWhole(_) => unreachable!("it is huge"),
                Next::Wait(time) => time,
            };
            now = now.plus(step);
        }
        assert!(lists <= 60 * 20 + 3, "{lists}");
        assert!(latest <= periods.others / 4, "late by {latest:?}");
    }

    #[test]
    fn a_small_tree_of_many_directories_is_listed_as_a_whole() {
        let at = |s| Timestamp::from_parts(s, 0);
        let dirs: Vec<Held> = (0..500).map(|i| held(i, i == 3, 1, 0)).collect();
        let whole = |pages| Whole { pages, listed_at: at(10) };
        assert_eq!(BUDGET.next(&dirs, whole(5), at(69)), Next::Wait(Duration::from_secs(1)));
        assert_eq!(BUDGET.next(&dirs, whole(5), at(70)), Next::ListWhole(20));
        assert_eq!(secs(BUDGET.periods(&dirs, whole(20))), (60, 60));
        assert!(matches!(BUDGET.next(&dirs, whole(21), at(70)), Next::List(_)), "more than the budget");
        assert_eq!(BUDGET.next(&dirs[..4], whole(3), at(70)), Next::ListWhole(3));
        assert!(matches!(BUDGET.next(&dirs[..4], whole(4), at(70)), Next::List(_)), "not cheaper");
        assert!(!BUDGET.covers_whole(&[], whole(1)), "nobody looks");
    }
}
