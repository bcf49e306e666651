//! How much of it, and with which dice.
//!
//! Owns: the variables of the environment, one test at a time. Does not own: what is done with the numbers.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long each test goes on that was given no number.
const TIME: Duration = Duration::from_secs(30);
/// Kills in each mode of a full run.
const KILLS_FULL: u64 = 250;

/// A process that is started while another thread has files open holds them for a moment, and its end of them counts as
/// a close by a stranger. So nothing else may run in this process.
static ALONE: Mutex<()> = Mutex::new(());

/// Nobody else runs until it is dropped.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// When a test has done enough.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Budget {
    Times(u64),
    Until(Instant),
}

impl Budget {
    /// Whether there is something left after so many.
    pub(crate) fn allows(self, done: u64) -> bool {
        match self {
            Budget::Times(times) => done < times,
            Budget::Until(end) => Instant::now() < end,
        }
    }
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// Whether the long tests run.
pub(crate) fn is_full() -> bool {
    std::env::var_os("OBJFS_TEST_FULL").is_some_and(|v| !v.is_empty())
}

/// The seed of all dice.
pub(crate) fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    number("OBJFS_CRASH_SEED").unwrap_or_else(|| u64::try_from(now() % 1_000_000_007).unwrap())
}

/// How many kills.
pub(crate) fn kills() -> Budget {
    match number("OBJFS_CRASH_KILLS") {
        Some(times) => Budget::Times(times),
        None if is_full() => Budget::Times(KILLS_FULL),
        None => Budget::Until(Instant::now() + TIME),
    }
}

/// At which operations power is lost.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Moments {
    /// Every so many.
    Every(u64),
    /// This one.
    Only(u64),
    /// Spread evenly, until then.
    Spread(Instant),
}

/// At which operations power is lost.
pub(crate) fn moments() -> Moments {
    match (number("OBJFS_CRASH_K"), number("OBJFS_CRASH_EVERY_K")) {
        (Some(k), _) => Moments::Only(k),
        (None, Some(step)) => Moments::Every(step.max(1)),
        (None, None) if is_full() => Moments::Every(1),
        (None, None) => Moments::Spread(Instant::now() + TIME),
    }
}

/// Whether names last only once their directory was synced.
pub(crate) fn is_strict() -> bool {
    number("OBJFS_CRASH_STRICT").is_some_and(|n| n > 0)
}
