//! A range of an object whose bytes arrive.
//!
//! Owns: handing out what has arrived to whoever waits for it, and no later. Does not own: where bytes come from (`fetch`), who
//! else asks for them (`in_flight`).

use super::budget::Buffer;
use crate::store::{ErrorKind, Op, StoreError};
use crate::types::ByteRange;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Bytes that arrive in order. Dropped, it stops the request that fetches them: nobody wants them any more.
#[derive(Debug)]
pub(super) struct Fill {
    range: ByteRange,
    state: Mutex<State>,
    arrived: Notify,
    request: OnceLock<AbortHandle>,
    /// Bytes that somebody has read, or waits for.
    taken: AtomicU64,
}

#[derive(Debug)]
enum State {
    Arriving(Buffer),
    Whole(Bytes),
    Failed(StoreError),
}

/// What became of a range when more bytes arrived.
#[derive(Debug)]
pub(super) enum Arrived {
    /// There is more to come.
    Part,
    /// That was the last of it; this is all.
    Whole(Bytes),
    /// These are more than were asked for.
    TooMuch,
}

impl Fill {
    /// The bytes of `range`, to be written to `buffer`.
    pub(super) fn new(range: ByteRange, buffer: Buffer) -> Fill {
        let (state, arrived, request) = (Mutex::new(State::Arriving(buffer)), Notify::new(), OnceLock::new());
        Fill { range, state, arrived, request, taken: AtomicU64::new(0) }
    }

    /// The task that fetches, to be stopped with this.
    pub(super) fn stops(&self, request: AbortHandle) {
        if self.request.set(request).is_err() {
            tracing::debug!("a range is fetched by two tasks");
        }
    }

    /// Which bytes.
    pub(super) fn range(&self) -> ByteRange {
        self.range
    }

    /// Somebody reads so many of its bytes.
    pub(super) fn take(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether a reader that reads each byte once has had all of it.
    pub(super) fn is_used_up(&self) -> bool {
        self.taken.load(Ordering::Relaxed) >= self.range.len()
    }

    /// Whether it will never have them all.
    pub(super) fn has_failed(&self) -> bool {
        matches!(*self.state(), State::Failed(_))
    }

    /// More bytes have arrived.
    pub(super) fn extend(&self, bytes: &[u8]) -> Arrived {
        let mut state = self.state();
        let State::Arriving(buffer) = &mut *state else { return Arrived::TooMuch };
        let len = (buffer.as_ref().len() + bytes.len()) as u64;
        if len > self.range.len() {
            return Arrived::TooMuch;
        }
        buffer.extend(bytes);
        let arrived = if len == self.range.len() { Arrived::Whole(take_whole(&mut state)) } else { Arrived::Part };
        drop(state);
        self.arrived.notify_waiters();
        arrived
    }

    /// No more will arrive.
    pub(super) fn fail(&self, error: StoreError) {
        let mut state = self.state();
        if matches!(*state, State::Arriving(_)) {
            *state = State::Failed(error);
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// The bytes of `part`, if they have arrived, or why they never will.
    pub(super) fn ready(&self, part: ByteRange) -> Option<Result<Bytes, StoreError>> {
        let (from, to) = (self.index(part.start()), self.index(part.end()));
        match &*self.state() {
            State::Whole(bytes) if to <= bytes.len() => Some(Ok(bytes.slice(from..to))),
            State::Whole(_) => Some(Err(not_in(self.range, part))),
            State::Arriving(buffer) => buffer.as_ref().get(from..to).map(|part| Ok(Bytes::copy_from_slice(part))),
            State::Failed(e) => Some(Err(e.clone())),
        }
    }

    /// Whether reading `part` would not wait.
    pub(super) fn has(&self, part: ByteRange) -> bool {
        match &*self.state() {
            State::Arriving(buffer) => buffer.as_ref().len() >= self.index(part.end()),
            State::Whole(_) | State::Failed(_) => true,
        }
    }

    /// The bytes of `part`, as soon as they have arrived.
    pub(super) async fn read(&self, part: ByteRange) -> Result<Bytes, StoreError> {
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            // Before looking: what arrives between looking and waiting must wake us.
            arrived.as_mut().enable();
            if let Some(result) = self.ready(part) {
                return result;
            }
            arrived.await;
        }
    }

    fn index(&self, offset: u64) -> usize {
        usize::try_from(offset.saturating_sub(self.range.start())).unwrap_or(usize::MAX)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn not_in(range: ByteRange, part: ByteRange) -> StoreError {
    StoreError::new(ErrorKind::Invalid, Op::Get, None, format!("{part:?} is not in {range:?}"))
}

fn take_whole(state: &mut State) -> Bytes {
    let before = std::mem::replace(state, State::Whole(Bytes::new()));
    let bytes = match before {
        State::Arriving(buffer) => Bytes::from_owner(buffer),
        State::Whole(bytes) => bytes,
        State::Failed(_) => Bytes::new(),
    };
    *state = State::Whole(bytes.clone());
    bytes
}

impl Drop for Fill {
    fn drop(&mut self) {
        if let Some(request) = self.request.get() {
            request.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use futures::FutureExt;

    fn fill(start: u64, end: u64) -> Fill {
        let buffer = Budget::new(0).reserve(end - start).now_or_never().unwrap();
        Fill::new(ByteRange::new(start, end).unwrap(), buffer)
    }

    fn part(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    #[tokio::test]
    async fn whoever_waits_waits_for_its_own_bytes_only() {
        let fill = fill(100, 110);
        let mut first = Box::pin(fill.read(part(100, 104)));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(matches!(fill.extend(b"abcde"), Arrived::Part));
        assert_eq!(first.await.unwrap(), "abcd");
        assert!(fill.ready(part(104, 106)).is_none());
        assert!(matches!(fill.extend(b"too many bytes"), Arrived::TooMuch));
        assert!(matches!(fill.extend(b"fghij"), Arrived::Whole(all) if all == "abcdefghij"));
        assert_eq!(fill.read(part(103, 110)).await.unwrap(), "defghij");
        fill.fail(StoreError::new(ErrorKind::Broken, Op::Get, None, "after all had arrived"));
        assert!(fill.read(part(100, 101)).await.is_ok());
    }

    #[tokio::test]
    async fn a_failure_wakes_all_who_wait() {
        let fill = fill(0, 10);
        let waiting = futures::future::join(fill.read(part(0, 1)), fill.read(part(5, 9)));
        let failing = async { fill.fail(StoreError::new(ErrorKind::Precondition, Op::Get, None, "changed")) };
        let ((a, b), ()) = futures::future::join(waiting, failing).await;
        assert_eq!([a, b].map(|r| r.unwrap_err().kind), [ErrorKind::Precondition; 2]);
    }
}
