//! Memory for the bytes of objects.
//!
//! Owns: the count of all bytes that buffers of the read path hold, in flight, waiting for their reader or cached, and giving
//! them back when the last slice of a buffer is dropped. Does not own: what is kept (`cells`, `stream`).

use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What one permit stands for, in bytes.
const UNIT: u64 = 4096;
/// The least that a mount can read with: two buffers of the largest size that is asked for at once.
const MEMORY_MIN: u64 = 32 << 20;
/// Of all, the part that cells take.
const CELLS: u64 = 8;
/// Of all, the part that is left for those who wait for bytes: reading ahead may not take it.
const FOR_DEMAND: u64 = 4;

/// Counts bytes.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    permits: Arc<Semaphore>,
    total: u64,
}

impl Budget {
    /// So many bytes in all.
    pub(super) fn new(memory: u64) -> Budget {
        let total = memory.max(MEMORY_MIN);
        // Cells are bounded by themselves.
        let buffers = total - total / CELLS;
        Budget { permits: Arc::new(Semaphore::new(units(buffers) as usize)), total }
    }

    /// Bytes that reading ahead may have, for all streams together.
    pub(super) fn for_ahead(&self) -> u64 {
        self.total / 2
    }

    /// Bytes that are kept for whoever asks again.
    pub(super) fn for_cells(&self) -> u64 {
        self.total / CELLS
    }

    /// Bytes that may wait to be written to the disk.
    pub(super) fn for_disk(&self) -> u64 {
        self.total / 8
    }

    /// Bytes that nobody has.
    #[cfg(test)]
    pub(super) fn free(&self) -> u64 {
        self.permits.available_permits() as u64 * UNIT
    }

    /// Room for `len` bytes, for somebody who waits for them: waits until there is some.
    pub(super) async fn reserve(&self, len: u64) -> Room {
        // More than there is will never be free.
        let count = units(len.min(self.total - self.total / CELLS));
        // Never closed, so that a failure to acquire cannot be; without a permit the buffer would only not be counted.
        let permit = Arc::clone(&self.permits).acquire_many_owned(count).await.ok();
        Room(permit)
    }

    /// The same for bytes that nobody has asked for yet. `None` if others need the room.
    pub(super) fn reserve_ahead(&self, len: u64) -> Option<Room> {
        let count = units(len);
        let left = (self.permits.available_permits() as u64).checked_sub(u64::from(count))?;
        if left < u64::from(units(self.total / FOR_DEMAND)) {
            return None;
        }
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(count).ok()?;
        Some(Room(Some(permit)))
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
}

/// Room for bytes that do not exist yet.
#[derive(Debug)]
pub(super) struct Room(Option<OwnedSemaphorePermit>);

impl Room {
    /// None: what is made with it is not counted.
    pub(super) fn none() -> Room {
        Room(None)
    }

    /// The part of it for `len` bytes, as far as there is any.
    pub(super) fn part(&mut self, len: u64) -> Room {
        let part = self.0.as_mut().and_then(|permit| permit.split(units(len) as usize));
        Room(part.or_else(|| self.0.take()))
    }

    /// An empty buffer for `len` bytes, which takes as much of the room, as far as there is any.
    pub(super) fn buffer(&mut self, len: u64) -> Buffer {
        Buffer::new(len, self.part(len).0)
    }
}

/// Bytes that count. As [`bytes::Bytes`] they count until the last slice is dropped. They begin at a page, as writes past the
/// page cache want it.
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    /// Bytes before the first page.
    skip: usize,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    fn new(len: u64, permit: Option<OwnedSemaphorePermit>) -> Buffer {
        let mut bytes: Vec<u8> = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + UNIT as usize);
        let skip = bytes.as_ptr().align_offset(UNIT as usize).min(UNIT as usize);
        bytes.resize(skip, 0);
        Buffer { bytes, skip, _permit: permit }
    }

    /// Makes it `len` zeros, to be overwritten.
    pub(super) fn zeroed(&mut self, len: u64) -> &mut [u8] {
        self.bytes.truncate(self.skip);
        self.bytes.resize(self.skip + usize::try_from(len).unwrap_or(0), 0);
        &mut self.bytes[self.skip..]
    }

    /// Takes more bytes.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[self.skip..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::FutureExt;

    #[test]
    fn reading_ahead_leaves_room_for_those_who_wait_and_slices_keep_what_they_are_of() {
        const MIB: u64 = 1 << 20;
        let budget = Budget::new(32 * MIB);
        let mut ahead: Vec<Room> = std::iter::from_fn(|| budget.reserve_ahead(8 * MIB)).collect();
        assert_eq!(ahead.len(), 2);
        let mut room = budget.reserve(12 * MIB).now_or_never().unwrap();
        assert!(budget.reserve(1).now_or_never().is_none(), "all is taken");
        let mut waited_for = room.buffer(8 * MIB);
        drop(room.buffer(4 * MIB));
        drop(budget.reserve(4 * MIB).now_or_never().unwrap());
        drop(room);
        let taken = budget.reserve(4 * MIB).now_or_never().unwrap();
        waited_for.extend(b"bytes");
        assert_eq!((waited_for.as_ref(), waited_for.as_ref().as_ptr().align_offset(4096)), (&b"bytes"[..], 0));
        let slice = Bytes::from_owner(waited_for).slice(1..3);
        assert!(budget.reserve(1).now_or_never().is_none());
        drop(slice);
        drop(taken);
        assert!(budget.reserve(8 * MIB).now_or_never().is_some());
        ahead.clear();
        assert!(budget.reserve(99 * MIB).now_or_never().is_some(), "what can never be free is not waited for");
    }
}
