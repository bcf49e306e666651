//! How many bytes may be staged.
//!
//! Owns: the limit, counting against it, waking those who wait for room. Does not own: what is staged (`staging`), the disk's own
//! limit (`disk`).

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Room for staged bytes.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    used: AtomicU64,
    freed: Notify,
}

impl Room {
    /// Room for `limit` bytes.
    pub fn new(limit: u64) -> Room {
        Room { limit, used: AtomicU64::new(0), freed: Notify::new() }
    }

    /// Takes room for `bytes`. `false` if there is not enough: then none is taken.
    pub(super) fn take(&self, bytes: u64) -> bool {
        let taken = |used: u64| used.checked_add(bytes).filter(|sum| bytes == 0 || *sum <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    /// Whether there is room for `bytes` more at this moment, of which none is taken.
    pub fn has(&self, bytes: u64) -> bool {
        bytes == 0 || self.used().checked_add(bytes).is_some_and(|sum| sum <= self.limit)
    }

    /// What takes `before` bytes takes `now` from here on, be there room or not.
    pub(super) fn change(&self, before: u64, now: u64) {
        if now > before {
            self.used.fetch_add(now - before, Ordering::Relaxed);
        } else if now < before {
            self.used.fetch_sub(before - now, Ordering::Relaxed);
            self.freed.notify_waiters();
        }
    }

    /// Bytes that are staged.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes that may be.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Ends when something was given back after this call.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_given_back_is_there_for_others() {
        let room = Room::new(10);
        assert!(room.take(7) && !room.take(4) && room.has(3) && !room.has(4) && !room.has(u64::MAX));
        assert!(room.take(3) && room.take(0) && room.has(0) && !room.has(1));
        let freed = room.freed();
        tokio::pin!(freed);
        freed.as_mut().enable();
        room.change(7, 5);
        freed.await;
        assert_eq!((room.used(), room.take(2), room.take(1)), (8, true, false));
        // What has arrived of a base has to go somewhere.
        room.change(0, 100);
        assert!(!room.take(1) && room.used() == 110);
    }
}
