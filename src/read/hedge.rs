//! Requests whose answer takes longer than nearly all others: when they are asked a second time.
//!
//! Owns: how long answers take lately, and the budget for second requests. Does not own: sending them (`fetch`).

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Answers that are remembered.
const REMEMBERED: usize = 200;
/// Answers before which nothing is known of the server.
const ENOUGH: usize = 50;
/// No answer is late before this.
const LATE_MIN: Duration = Duration::from_millis(20);
/// Of the answers, the part that is not late, in percent.
const IN_TIME: usize = 99;
/// Requests for which one may be asked a second time.
const PER_HEDGE: u32 = 50;
/// Second requests that may be saved up.
const SAVED_MAX: u32 = 8;

/// How long answers take lately.
#[derive(Debug, Default)]
pub(super) struct Hedge(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answers: VecDeque<Duration>,
    /// In requests.
    saved: u32,
}

impl Hedge {
    /// An answer has begun after so long.
    pub(super) fn on_answer(&self, took: Duration) {
        let mut state = self.lock();
        if state.answers.len() == REMEMBERED {
            state.answers.pop_front();
        }
        state.answers.push_back(took);
        state.saved = (state.saved + 1).min(SAVED_MAX * PER_HEDGE);
    }

    /// After how long an answer is late. `None` if too little is known.
    pub(super) fn late(&self) -> Option<Duration> {
        let mut sorted: Vec<Duration> = {
            let state = self.lock();
            if state.answers.len() < ENOUGH {
                return None;
            }
            state.answers.iter().copied().collect()
        };
        let index = (sorted.len() * IN_TIME / 100).min(sorted.len() - 1);
        let (_, late, _) = sorted.select_nth_unstable(index);
        // An answer just over the line is on its way already.
        Some((*late * 3 / 2).max(LATE_MIN))
    }

    /// Takes one second request from the budget, if there is one.
    pub(super) fn take(&self) -> bool {
        let mut state = self.lock();
        let has_one = state.saved >= PER_HEDGE;
        if has_one {
            state.saved -= PER_HEDGE;
        }
        has_one
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_is_what_nearly_no_answer_is_and_second_requests_are_few() {
        let hedge = Hedge::default();
        assert!(hedge.late().is_none() && !hedge.take());
        for i in 0..1000 {
            hedge.on_answer(Duration::from_millis(if i % 40 == 0 { 400 } else { 30 + i % 10 }));
        }
        assert_eq!(hedge.late(), Some(Duration::from_millis(600)), "one in forty is no exception");
        for i in 0..REMEMBERED as u64 {
            hedge.on_answer(Duration::from_millis(30 + i % 10));
        }
        assert_eq!(hedge.late(), Some(Duration::from_micros(58_500)));
        assert_eq!((0..100).filter(|_| hedge.take()).count() as u32, SAVED_MAX);
        (0..PER_HEDGE).for_each(|_| hedge.on_answer(Duration::from_micros(100)));
        assert!(hedge.take() && !hedge.take());
    }
}
