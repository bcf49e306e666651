//! Small staging files in memory.
//!
//! Owns: their bytes, and how many there may be. Does not own: when they go to the disk (`disk`).

use crate::types::ByteRange;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that is no larger stays in memory until it is synced: most small ones are in the bucket, or in the journal's row, before
/// that, and to make a file and take it away takes longer than to send it.
pub(super) const SMALL_MAX: u64 = 64 << 10;
/// Bytes that such files take together.
pub(super) const SMALL_TOTAL_MAX: u64 = 16 << 20;

/// The bytes of a small file in memory.
#[derive(Debug)]
pub(super) struct Small {
    bytes: Vec<u8>,
    /// Of all such files.
    total: Arc<AtomicU64>,
}

impl Small {
    /// No bytes yet. `total` counts those of all such files.
    pub(super) fn new(total: Arc<AtomicU64>) -> Small {
        Small { bytes: Vec::new(), total }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) {
        read_from(&self.bytes, buffer, offset);
    }

    /// `false` if there is no room for it here.
    pub(super) fn write_at(&mut self, bytes: &[u8], offset: u64) -> bool {
        let Some(end) = offset.checked_add(bytes.len() as u64) else { return false };
        if end > self.bytes.len() as u64 && !self.set_len(end) {
            return false;
        }
        // Within what is in memory.
        let start = offset as usize;
        self.bytes[start..start + bytes.len()].copy_from_slice(bytes);
        true
    }

    /// `false` if there is no room for it here.
    pub(super) fn set_len(&mut self, size: u64) -> bool {
        let before = self.bytes.len() as u64;
        if size > before {
            let grown = size - before;
            let total = self.total.fetch_add(grown, Ordering::Relaxed) + grown;
            if size > SMALL_MAX || total > SMALL_TOTAL_MAX {
                self.total.fetch_sub(grown, Ordering::Relaxed);
                return false;
            }
        } else {
            self.total.fetch_sub(before - size, Ordering::Relaxed);
        }
        self.bytes.resize(size as usize, 0);
        true
    }

    pub(super) fn punch(&mut self, range: ByteRange) {
        let at = |end: u64| usize::try_from(end).unwrap_or(usize::MAX).min(self.bytes.len());
        let (start, end) = (at(range.start()), at(range.end()));
        self.bytes[start..end].fill(0);
    }

    pub(super) fn forget(&mut self) {
        self.total.fetch_sub(self.bytes.len() as u64, Ordering::Relaxed);
        self.bytes = Vec::new();
    }
}

/// Fills `buffer` with `bytes` from `offset` on; what is past their end is zero.
pub(super) fn read_from(bytes: &[u8], buffer: &mut [u8], offset: u64) {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    let len = buffer.len().min(bytes.len() - start);
    buffer[..len].copy_from_slice(&bytes[start..start + len]);
    buffer[len..].fill(0);
}

impl Drop for Small {
    fn drop(&mut self) {
        self.forget();
    }
}
