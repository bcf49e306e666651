//! What a handle keeps of the object that it reads.
//!
//! Owns: its readers' sequences, and the ranges that were fetched ahead of them, until they have been read or the reader went
//! elsewhere: then the requests stop. Does not own: which ranges these are (`prefetch`), fetching (`mod`).

use super::disk::KeepFor;
use super::fill::Fill;
use super::in_flight::VersionId;
use super::prefetch::{Advice, Sequence};
use crate::types::ByteRange;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// What a handle is for: as far as is known, now and later.
#[derive(Debug)]
pub(super) struct Purpose {
    /// It reads the object through, and does not only look into it.
    is_read_through: AtomicBool,
    /// Until that is known, what it fetches is kept under this number.
    number: u32,
}

impl Default for Purpose {
    fn default() -> Purpose {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Purpose { is_read_through: AtomicBool::new(false), number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

impl Purpose {
    /// What bytes are kept for that it fetches.
    pub(super) fn keep_for(&self) -> KeepFor {
        if self.is_read_through.load(Ordering::Relaxed) { KeepFor::Stream } else { KeepFor::LookOf(self.number) }
    }

    /// The number of its looks.
    pub(super) fn number(&self) -> u32 {
        self.number
    }
}

/// The state of one handle.
#[derive(Debug, Default)]
pub struct Stream(Arc<Mutex<State>>);

#[derive(Debug, Default)]
pub(super) struct State {
    /// The version that is read: sequence and window are of that one.
    id: Option<VersionId>,
    sequence: Sequence,
    window: Vec<Arc<Fill>>,
    /// Whether it is among those that are asked to give memory back.
    is_listed: bool,
    /// When it was last read from.
    used: Option<Instant>,
    purpose: Arc<Purpose>,
    /// Whether anything was read that was not here.
    has_missed: bool,
    /// Counts among the streams that share the memory for reading ahead, as long as it has any.
    share: Option<Arc<()>>,
}

impl Stream {
    /// The state, for reads of this version.
    pub(super) fn of(&self, id: VersionId) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if state.id != Some(id) {
            *state = State { id: Some(id), is_listed: state.is_listed, ..State::default() };
        }
        state
    }

    /// The reader had to wait.
    pub(super) fn on_wait(&self, advice: &Advice) {
        self.lock().sequence.on_wait(advice);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream as others see it.
    pub(super) fn seen(&self) -> Seen {
        Seen(Arc::downgrade(&self.0))
    }
}

/// A stream as long as somebody has it open.
#[derive(Debug)]
pub(super) struct Seen(Weak<Mutex<State>>);

impl Seen {
    pub(super) fn is_open(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// Drops what it has ahead if nobody has read from it for so long: others wait for the memory. `false` if it has nothing, and
    /// need not be asked again.
    pub(super) fn reclaim(&self, idle: Duration) -> bool {
        let Some(state) = self.0.upgrade() else { return false };
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.used.is_some_and(|used| used.elapsed() >= idle) {
            state.window.clear();
            state.share = None;
        }
        state.is_listed = state.share.is_some();
        state.is_listed
    }
}

impl State {
    /// A read comes in. Ranges that nobody is to come to any more are dropped.
    pub(super) fn on_read(&mut self, range: ByteRange, size: u64, window_max: u64) -> Advice {
        let advice = self.sequence.on_read(range, size, window_max);
        self.used = Some(Instant::now());
        let sequence = &self.sequence;
        self.window.retain(|fill| sequence.wants(fill.range()) && !fill.is_used_up() && !fill.has_failed());
        if self.window.is_empty() {
            self.share = None;
        }
        advice
    }

    /// Whether this is the read that shows that the object is read through.
    pub(super) fn begins_to_read_through(&mut self, advice: &Advice) -> bool {
        advice.is_stream && !self.purpose.is_read_through.swap(true, Ordering::Relaxed)
    }

    /// Something is read that is not here.
    pub(super) fn on_miss(&mut self) {
        self.has_missed = true;
    }

    /// Whether the bucket had to be asked. Who looks at what is here makes no requests for what he may not want.
    pub(super) fn has_missed(&self) -> bool {
        self.has_missed
    }

    /// What the handle is for.
    pub(super) fn purpose(&self) -> Arc<Purpose> {
        Arc::clone(&self.purpose)
    }

    /// A range was asked for ahead of the reader, or has what it will read next.
    pub(super) fn keep(&mut self, fill: Arc<Fill>) {
        if !self.window.iter().any(|kept| Arc::ptr_eq(kept, &fill)) {
            self.window.push(fill);
        }
    }

    /// Counts from now on among the streams that have something ahead. `true` if it is not among those that are asked to give it
    /// back.
    pub(super) fn join(&mut self, share: &Arc<()>) -> bool {
        self.share.get_or_insert_with(|| Arc::clone(share));
        !std::mem::replace(&mut self.is_listed, true)
    }

    /// Up to where bytes were asked for by now.
    pub(super) fn asked(&self, advice: &Advice) -> u64 {
        self.sequence.asked(advice)
    }

    pub(super) fn on_read_from_disk(&mut self, advice: &Advice, to: u64) {
        self.sequence.on_read_from_disk(advice, to);
    }

    pub(super) fn on_asked(&mut self, advice: &Advice, to: u64) {
        self.sequence.on_asked(advice, to);
    }
}
