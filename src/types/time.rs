//! The wall clock as a seam.
//!
//! Owns: the trait, the system's clock, and a clock that tests move by hand. Does not own: timers (tokio's).

use super::Timestamp;
use std::fmt::Debug;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Tells the time of day. Everything that compares its own past with the bucket's asks one of these.
pub trait WallClock: Send + Sync + Debug {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The system's clock, but that it never goes back: after somebody sets it back, time goes on from where it was. What was
/// learned before would otherwise look as if it came from the future, and never be asked for again.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

/// When this process first asked, and how far the time of day was ahead of the time since then, at most, in ns.
static STARTED: OnceLock<Instant> = OnceLock::new();
static AHEAD: AtomicI64 = AtomicI64::new(i64::MIN);

impl WallClock for SystemClock {
    fn now(&self) -> Timestamp {
        let elapsed = STARTED.get_or_init(Instant::now).elapsed();
        let elapsed = i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX);
        let ahead = Timestamp::from_system(SystemTime::now()).nanos().saturating_sub(elapsed);
        Timestamp::from_nanos(elapsed.saturating_add(AHEAD.fetch_max(ahead, Ordering::Relaxed).max(ahead)))
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// A clock that shows `start`.
    pub fn new(start: Timestamp) -> ManualClock {
        ManualClock(AtomicI64::new(start.nanos()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(i64::try_from(by.as_nanos()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl WallClock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_clock_tells_the_time_and_does_not_go_back() {
        let first = SystemClock.now();
        assert!(Timestamp::from_system(SystemTime::now()).since(first) < Duration::from_secs(60));
        // Somebody sets the clock: an hour ahead, and back again.
        AHEAD.fetch_add(3_600_000_000_000, Ordering::Relaxed);
        let ahead = SystemClock.now();
        assert!(ahead.since(first) >= Duration::from_secs(3600));
        assert!(SystemClock.now() >= ahead, "it goes on from there");
        AHEAD.store(i64::MIN, Ordering::Relaxed);
    }
}
