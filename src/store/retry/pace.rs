//! When a failed request is tried again.
//!
//! Owns: the settings, the delay before an attempt, the verdict on a failure: all pure. Does not own: sleeping, asking.

use super::super::ErrorKind;
use std::time::Duration;

/// How persistent the retries are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Most attempts of one request, the first included.
    pub attempts: u32,
    /// Upper bound of the first delay; it doubles with each attempt.
    pub base: Duration,
    /// Upper bound of any delay.
    pub cap: Duration,
    /// No attempt begins later than this after the first. A running attempt has its own timeouts.
    pub deadline: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            attempts: 8,
            base: Duration::from_millis(100),
            cap: Duration::from_secs(5),
            deadline: Duration::from_secs(30),
        }
    }
}

impl Settings {
    /// The delay after failure number `attempt` (from 1), or `None` when enough was tried. `elapsed` counts from the
    /// first attempt. Full jitter: anywhere between nothing and an exponentially growing bound, so that clients that
    /// failed together do not return together (Brooker, "Exponential Backoff And Jitter").
    pub fn next_delay(&self, attempt: u32, elapsed: Duration, seed: u64) -> Option<Duration> {
        if attempt >= self.attempts {
            return None;
        }
        let doubled = self.base.saturating_mul(1u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
        let bound = u64::try_from(doubled.min(self.cap).as_nanos()).unwrap_or(u64::MAX);
        let delay = Duration::from_nanos(fastrand::Rng::with_seed(seed).u64(0..=bound));
        (elapsed + delay <= self.deadline).then_some(delay)
    }
}

/// What to do about a failed write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Give the failure to the caller.
    Fail,
    /// Nothing was written: try again.
    Retry,
    /// It may have been written: look first, and try again if not.
    LookThenRetry,
    /// It may have been written: look first, and fail if not.
    LookThenFail,
}

/// Decides about a write that failed with `kind`. `maybe_written`: whether an earlier attempt may have been carried out,
/// so that a refusal can be the echo of our own success.
pub(super) fn classify_write(kind: ErrorKind, maybe_written: bool) -> Verdict {
    match kind {
        // What is there has our id, and not our bytes: neither to be found nor to be met again under the same condition.
        ErrorKind::Damaged => Verdict::Fail,
        // The upload is gone: completed by an earlier attempt or an earlier run of ours, or aborted.
        ErrorKind::NoSuchUpload => Verdict::LookThenFail,
        ErrorKind::Precondition | ErrorKind::NotFound if maybe_written => Verdict::LookThenFail,
        kind if kind.is_ambiguous() && kind.is_retryable() => Verdict::LookThenRetry,
        kind if kind.is_retryable() => Verdict::Retry,
        _ => Verdict::Fail,
    }
}

/// Decides about a write that was not sent, because the look before it failed with `kind`.
pub(super) fn classify_unsent(kind: ErrorKind) -> Verdict {
    if kind.is_retryable() { Verdict::Retry } else { Verdict::Fail }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind::*;

    #[test]
    fn delays_grow_within_their_bounds() {
        let settings = Settings { attempts: 50, ..Settings::default() };
        for attempt in 1..50 {
            for seed in 0..20 {
                let delay = settings.next_delay(attempt, Duration::ZERO, seed).unwrap();
                assert!(delay <= settings.cap);
                assert!(attempt > 1 || delay <= settings.base);
            }
        }
        let mean = (0..1000).map(|seed| settings.next_delay(3, Duration::ZERO, seed).unwrap()).sum::<Duration>() / 1000;
        assert!(mean > settings.base && mean < 3 * settings.base, "{mean:?}");
    }

    #[test]
    fn attempts_and_deadline_end_it() {
        let settings = Settings::default();
        assert_eq!(settings.next_delay(8, Duration::ZERO, 1), None);
        assert_eq!(settings.next_delay(1, settings.deadline + Duration::from_millis(1), 1), None);
        assert_eq!(settings.deadline, Duration::from_secs(30));
    }

    #[test]
    fn refusals_are_looked_into_only_after_an_ambiguous_answer() {
        assert_eq!(classify_write(Precondition, false), Verdict::Fail);
        assert_eq!(classify_write(Precondition, true), Verdict::LookThenFail);
        assert_eq!(classify_write(NotFound, true), Verdict::LookThenFail);
        assert_eq!(classify_write(NoSuchUpload, false), Verdict::LookThenFail);
        assert_eq!(classify_write(Broken, false), Verdict::LookThenRetry);
        assert_eq!(classify_write(Conflict, false), Verdict::LookThenRetry);
        assert_eq!(classify_write(Unreachable, true), Verdict::Retry);
        assert_eq!(classify_write(Throttled, false), Verdict::Retry);
        assert_eq!(classify_write(AccessDenied, true), Verdict::Fail);
        assert_eq!([false, true].map(|maybe| classify_write(Damaged, maybe)), [Verdict::Fail; 2]);
        assert_eq!(classify_unsent(Timeout), Verdict::Retry);
        assert_eq!(classify_unsent(AccessDenied), Verdict::Fail);
    }
}
