//! A range of an object whose bytes arrive.
//!
//! Owns: handing out what has arrived to whoever waits for it, and no later. Does not own: where bytes come from (`fetch`), who
//! else asks for them (`in_flight`).

use super::budget::{Buffer, Room};
use super::unit::{CELL, STEP};
use crate::store::{ErrorKind, Op, StoreError};
use crate::types::ByteRange;
use bytes::{Bytes, BytesMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Whoever keeps bytes.
type Keep = Box<dyn Fn(ByteRange, Bytes) + Send + Sync>;

/// Bytes that arrive in order. Dropped, it stops the request that fetches them: nobody wants them any more.
pub(super) struct Fill {
    range: ByteRange,
    state: Mutex<State>,
    arrived: Notify,
    request: OnceLock<AbortHandle>,
    /// Bytes that somebody has read, or waits for.
    taken: AtomicU64,
    /// Who keeps what has arrived of a segment that will not be whole: somebody may have read it.
    rest: OnceLock<Keep>,
}

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fill").field("range", &self.range).finish_non_exhaustive()
    }
}

/// What has arrived, cut at multiples of [`STEP`]: who reads in such steps is answered without a copy, and what has been read is
/// given back before the rest.
#[derive(Debug)]
struct State {
    /// Segments that are whole.
    whole: Vec<Bytes>,
    /// The one that arrives.
    arriving: Option<Buffer>,
    room: Room,
    /// Up to where bytes have arrived.
    end: u64,
    /// Whoever waits, waits for bytes up to here, or for more.
    wanted: u64,
    failed: Option<StoreError>,
}

/// More bytes arrived than were asked for.
#[derive(Debug)]
pub(super) struct TooMuch;

impl Fill {
    /// The bytes of `range`, to be kept in `room`.
    pub(super) fn new(range: ByteRange, room: Room) -> Fill {
        let end = range.start();
        let state = State { whole: Vec::new(), arriving: None, room, end, wanted: u64::MAX, failed: None };
        let (state, arrived, request) = (Mutex::new(state), Notify::new(), OnceLock::new());
        Fill { range, state, arrived, request, taken: AtomicU64::new(0), rest: OnceLock::new() }
    }

    /// What has arrived of a segment when this is dropped goes to `keep`.
    pub(super) fn leaves_rest_to(&self, keep: Keep) {
        if self.rest.set(keep).is_err() {
            tracing::debug!("a range is kept twice");
        }
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
        self.state().failed.is_some()
    }

    /// More bytes have arrived. Answers the segments that are whole now.
    pub(super) fn extend(&self, mut bytes: &[u8]) -> Result<Vec<(ByteRange, Bytes)>, TooMuch> {
        let mut state = self.state();
        if state.failed.is_some() || state.end + bytes.len() as u64 > self.range.end() {
            return Err(TooMuch);
        }
        let mut whole = Vec::new();
        while let Some(segment) = segment(self.range, state.end).filter(|_| !bytes.is_empty()) {
            let left = usize::try_from(segment.end() - state.end).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(left));
            state.extend(segment, now);
            if state.end == segment.end()
                && let Some(done) = state.arriving.take()
            {
                let done = Bytes::from_owner(done);
                state.whole.push(done.clone());
                whole.push((segment, done));
            }
            bytes = later;
        }
        let wakes = state.end >= state.wanted;
        if wakes {
            // Those who wait for more say so again.
            state.wanted = u64::MAX;
        }
        drop(state);
        if wakes {
            self.arrived.notify_waiters();
        }
        Ok(whole)
    }

    /// The next segment, `len` bytes, is to arrive at once: its buffer. `None` if it has arrived, or if it never will.
    pub(super) fn next_buffer(&self, len: impl Fn(ByteRange) -> u64) -> Option<(ByteRange, Buffer)> {
        let mut state = self.state();
        let segment = segment(self.range, state.end)?;
        (state.failed.is_none() && state.end == segment.start()).then(|| (segment, state.room.buffer(len(segment))))
    }

    /// What is still to arrive has this room.
    pub(super) fn set_room(&self, room: Room) {
        self.state().room = room;
    }

    /// The segment has arrived, all of it.
    pub(super) fn put(&self, segment: ByteRange, bytes: Bytes) {
        let mut state = self.state();
        if state.end == segment.start() && bytes.len() as u64 == segment.len() {
            state.whole.push(bytes);
            state.end = segment.end();
            state.wanted = u64::MAX;
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// No more will arrive.
    pub(super) fn fail(&self, error: StoreError) {
        let mut state = self.state();
        if state.end < self.range.end() {
            state.failed.get_or_insert(error);
        }
        drop(state);
        self.arrived.notify_waiters();
    }

    /// Whether reading `part` would not wait.
    pub(super) fn has(&self, part: ByteRange) -> bool {
        let state = self.state();
        state.end >= part.end() || state.failed.is_some()
    }

    /// The bytes of `part`, as soon as they have arrived, or why they never will.
    pub(super) async fn read(&self, part: ByteRange) -> Result<Bytes, StoreError> {
        if part.intersect(self.range) != Some(part) {
            let message = format!("{part:?} is not in {:?}", self.range);
            return Err(StoreError::new(ErrorKind::Invalid, Op::Get, None, message));
        }
        loop {
            let mut arrived = std::pin::pin!(self.arrived.notified());
            // Before looking: what arrives between looking and waiting must wake us.
            arrived.as_mut().enable();
            {
                let mut state = self.state();
                if state.end >= part.end() {
                    return Ok(state.copy(self.range, part));
                }
                if let Some(error) = &state.failed {
                    return Err(error.clone());
                }
                state.wanted = state.wanted.min(part.end());
            }
            arrived.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn extend(&mut self, segment: ByteRange, bytes: &[u8]) {
        let room = &mut self.room;
        self.arriving.get_or_insert_with(|| room.buffer(segment.len())).extend(bytes);
        self.end += bytes.len() as u64;
    }

    /// Bytes that have arrived: a slice, if they are of one segment that is whole.
    fn copy(&self, range: ByteRange, part: ByteRange) -> Bytes {
        let mut copy = BytesMut::new();
        let mut at = part.start();
        while let Some((segment, rest)) = segment(range, at).zip(ByteRange::new(at, part.end())) {
            let Some(now) = segment.intersect(rest) else { break };
            let place = |offset: u64| usize::try_from(offset - segment.start()).unwrap_or(usize::MAX);
            let place = place(now.start())..place(now.end());
            let index = usize::try_from(at / STEP - range.start() / STEP).unwrap_or(usize::MAX);
            match (self.whole.get(index), &self.arriving) {
                (Some(whole), _) if now == part => return whole.slice(place),
                (Some(whole), _) => copy.extend_from_slice(&whole[place]),
                (None, Some(arriving)) => copy.extend_from_slice(&arriving.as_ref()[place]),
                (None, None) => break,
            }
            at = now.end();
        }
        copy.freeze()
    }
}

/// The segment of `range` that `offset` is in.
fn segment(range: ByteRange, offset: u64) -> Option<ByteRange> {
    ByteRange::at(offset / STEP * STEP, STEP)?.intersect(range)
}

impl Drop for Fill {
    fn drop(&mut self) {
        if let Some(request) = self.request.get() {
            request.abort();
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let (Some(keep), Some(arriving)) = (self.rest.get(), state.arriving.take()) {
            let start = state.end - arriving.as_ref().len() as u64;
            if let Some(range) = ByteRange::new(start, state.end).filter(|range| range.len() >= CELL) {
                // A few bytes would hold the room of all the segment.
                let is_little = range.len() < STEP / 2;
                let copy = || Bytes::copy_from_slice(arriving.as_ref());
                let bytes = if is_little { copy() } else { Bytes::from_owner(arriving) };
                keep(range, bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::*;
    use futures::FutureExt;

    fn fill(start: u64, end: u64) -> Fill {
        let room = Budget::new(0).reserve(end - start).now_or_never().unwrap();
        Fill::new(ByteRange::new(start, end).unwrap(), room)
    }

    fn part(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    #[tokio::test]
    async fn whoever_waits_waits_for_its_own_bytes_only() {
        let fill = fill(100, 110);
        let mut first = Box::pin(fill.read(part(100, 104)));
        let mut second = Box::pin(fill.read(part(103, 108)));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(fill.extend(b"abcde").unwrap().is_empty());
        assert_eq!(first.await.unwrap(), "abcd");
        assert!(second.as_mut().now_or_never().is_none());
        assert!(fill.read(part(104, 106)).now_or_never().is_none());
        assert!(fill.extend(b"too many bytes").is_err());
        assert_eq!(fill.extend(b"fghij").unwrap(), [(part(100, 110), Bytes::from("abcdefghij"))]);
        assert_eq!(second.await.unwrap(), "defgh");
        assert_eq!(fill.read(part(103, 110)).await.unwrap(), "defghij");
        fill.fail(StoreError::new(ErrorKind::Broken, Op::Get, None, "after all had arrived"));
        assert!(fill.read(part(100, 101)).await.is_ok());
        assert_eq!(fill.read(part(99, 101)).await.unwrap_err().kind, ErrorKind::Invalid);
    }

    #[tokio::test]
    async fn segments_are_whole_one_after_another_and_reads_may_cross_them() {
        let (start, end) = (STEP - 3, 2 * STEP + 5);
        let (fill, body) = (fill(start, end), Bytes::from_iter((start..end).map(|i| (i * 7 % 251) as u8)));
        let of = |p: ByteRange| body.slice((p.start() - start) as usize..(p.end() - start) as usize);
        let mut whole = Vec::new();
        for frame in body.chunks(300_000) {
            whole.extend(fill.extend(frame).unwrap());
            let arrived = (start + 1).max(fill.state().end - 1);
            assert_eq!(fill.read(part(start, arrived)).await.unwrap(), of(part(start, arrived)));
        }
        let segments = [part(start, STEP), part(STEP, 2 * STEP), part(2 * STEP, end)];
        assert_eq!(whole, segments.map(|segment| (segment, of(segment))));
        for (from, to) in [(start, end), (STEP, 2 * STEP), (STEP + 5, STEP + 6), (STEP - 1, STEP + 1)] {
            assert_eq!(fill.read(part(from, to)).await.unwrap(), of(part(from, to)));
        }
        let once = fill.read(part(STEP, 2 * STEP)).await.unwrap();
        assert_eq!(once.as_ptr(), whole[1].1.as_ptr(), "no copy");
    }

    #[test]
    fn what_has_arrived_of_a_segment_is_kept_although_nobody_waits_for_the_rest() {
        for more in [0, 200_000, 700_000] {
            let (kept, fill) = (std::sync::Arc::new(Mutex::new(Vec::new())), fill(STEP - 3, 2 * STEP));
            let own = std::sync::Arc::clone(&kept);
            fill.leaves_rest_to(Box::new(move |range, bytes| own.lock().unwrap().push((range, bytes))));
            let body = Bytes::from_iter((0..3 + more).map(|i| (i % 251) as u8));
            assert_eq!(fill.extend(&body).unwrap(), [(part(STEP - 3, STEP), body.slice(..3))]);
            drop(fill);
            let rest = ByteRange::at(STEP, more as u64).map(|range| (range, body.slice(3..)));
            assert_eq!(*kept.lock().unwrap(), rest.into_iter().collect::<Vec<_>>());
        }
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
