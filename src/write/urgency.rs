//! When the upload of a staged file is due.
//!
//! Owns: how long it waits, who waits for it, and whether another try can end otherwise than the last one. Does not own: the queue
//! (`queue`), the upload.

use super::staging::Staged;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Urgency {
    /// How long its upload waits after it was acknowledged, in ms.
    delay_ms: AtomicU64,
    /// How many wait for it.
    waiting: AtomicUsize,
    /// It was committed since the last of them asked.
    answered: AtomicBool,
    /// The last change before its last commit that failed began.
    failed: AtomicU64,
}

/// Somebody waits for the upload of a file, until this is dropped. It keeps nothing of the file.
#[derive(Debug)]
pub struct Asked(Arc<Urgency>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Staged {
    /// How long its upload waits after it was acknowledged.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.urgency.delay_ms.load(Ordering::Relaxed))
    }

    /// Somebody waits for its upload, be it that it is being written to: until it was committed, or he gives up.
    pub fn ask_for(&self) -> Asked {
        self.urgency.waiting.fetch_add(1, Ordering::SeqCst);
        self.urgency.answered.store(false, Ordering::SeqCst);
        Asked(Arc::clone(&self.urgency))
    }

    /// Whether somebody does.
    pub fn is_asked_for(&self) -> bool {
        self.urgency.waiting.load(Ordering::SeqCst) > 0 && !self.urgency.answered.load(Ordering::SeqCst)
    }

    /// A commit of it has failed that began after `change`.
    pub fn note_failed(&self, change: u64) {
        self.urgency.failed.store(change, Ordering::SeqCst);
    }

    /// Whether it has changed since, or none has failed.
    pub fn is_worth_trying(&self) -> bool {
        self.last_change() > self.urgency.failed.load(Ordering::SeqCst)
    }

    /// Its upload waits so long from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.urgency.delay_ms.store(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// It was committed: whoever has waited until now has got what he wanted.
    pub(super) fn note_answered(&self) {
        self.urgency.answered.store(true, Ordering::SeqCst);
    }
}
