//! Units of reading.
//!
//! Owns: their sizes and the arithmetic on them. Pure.

use crate::types::ByteRange;
use std::ops::Range;

/// Bytes of a cell, the unit that is kept for whoever asks again, and the least that is asked for at once.
pub(super) const CELL: u64 = 64 << 10;
/// Sequential requests begin and end at multiples of this, the kernel's largest READ.
pub(super) const STEP: u64 = 1 << 20;
/// The most that one request asks for.
pub(super) const GET_MAX: u64 = 8 << 20;
/// An object of up to this size is fetched whole: its reader wants the rest a moment later.
pub(super) const SMALL_MAX: u64 = 512 << 10;

/// The whole cells around `range`, in an object of `size` bytes.
pub(super) fn cells_around(range: ByteRange, size: u64) -> ByteRange {
    let (start, end) = (range.start() / CELL * CELL, range.end().div_ceil(CELL) * CELL);
    ByteRange::new(start, end.min(size)).unwrap_or(range)
}

/// Indexes of the cells that lie wholly within `range`, in an object of `size` bytes, whose last cell may be short.
pub(super) fn cells_within(range: ByteRange, size: u64) -> Range<u64> {
    let end = if range.end() == size { size.div_ceil(CELL) } else { range.end() / CELL };
    range.start().div_ceil(CELL)..end
}

/// The bytes of a cell, in an object of `size` bytes.
pub(super) fn cell(index: u64, size: u64) -> Option<ByteRange> {
    let start = index.checked_mul(CELL)?;
    ByteRange::new(start, size.min(start.checked_add(CELL)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_of_ranges() {
        let r = |a, b| ByteRange::new(a, b).unwrap();
        let size = 3 * CELL + 5;
        assert_eq!(cells_around(r(1, 2), size), r(0, CELL));
        assert_eq!(cells_around(r(CELL - 1, 3 * CELL + 1), size), r(0, size));
        assert_eq!(cells_within(r(1, 3 * CELL), size), 1..3);
        assert_eq!(cells_within(r(2 * CELL, size), size), 2..4);
        assert_eq!((cell(3, size), cell(4, size)), (Some(r(3 * CELL, size)), None));
    }
}
