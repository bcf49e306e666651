//! Bytes that are kept in memory for whoever asks again: what random readers and readers of small files have asked for.
//!
//! Owns: the cache of cells. Does not own: what is in it (`mod`), how large it may be (`budget`).
//!
//! What a sequential reader has read is not kept: the kernel has it.

use super::in_flight::VersionId;
use super::unit;
use crate::types::ByteRange;
use bytes::Bytes;

/// Cells of one object that are carried over, at most: the names of many may change at once.
const CARRIED_MAX: u64 = 64;

/// Cells by version and index.
#[derive(Debug, Clone)]
pub(super) struct Cells(moka::sync::Cache<(VersionId, u64), Bytes>);

impl Cells {
    /// With room for so many bytes.
    pub(super) fn new(memory: u64) -> Cells {
        let cells = moka::sync::Cache::builder()
            .max_capacity(memory)
            .weigher(|_, cell: &Bytes| u32::try_from(cell.len()).unwrap_or(u32::MAX))
            // TinyLFU, the default, refuses newcomers.
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .build();
        Cells(cells)
    }

    /// A cell.
    pub(super) fn get(&self, id: VersionId, index: u64) -> Option<Bytes> {
        self.0.get(&(id, index))
    }

    /// Whether a cell is there.
    pub(super) fn has(&self, id: VersionId, index: u64) -> bool {
        self.0.contains_key(&(id, index))
    }

    /// The bytes of one object of `size` bytes are those of another one now. Of large objects only the beginning is carried over.
    pub(super) fn carry(&self, from: VersionId, to: VersionId, size: u64) {
        for index in 0..size.div_ceil(unit::CELL).min(CARRIED_MAX) {
            if let Some(cell) = self.0.remove(&(from, index)) {
                self.0.insert((to, index), cell);
            }
        }
    }

    /// Keeps the bytes of `range` of an object of `size` bytes, as far as they are whole cells.
    pub(super) fn keep(&self, id: VersionId, range: ByteRange, bytes: &Bytes, size: u64) {
        for index in unit::cells_within(range, size) {
            if let Some(cell) = unit::cell(index, size) {
                let at = |offset: u64| usize::try_from(offset - range.start()).unwrap_or(usize::MAX);
                // A slice would hold all of the buffer that it is of.
                let own = Bytes::copy_from_slice(&bytes[at(cell.start())..at(cell.end())]);
                self.0.insert((id, index), own);
            }
        }
        // Evicts now, and not at some time.
        self.0.run_pending_tasks();
    }
}
