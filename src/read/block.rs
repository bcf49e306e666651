//! Block arithmetic.
//!
//! Owns: the size of a block and which blocks a range touches. Pure.

use crate::types::ByteRange;
use std::ops::Range;

/// Bytes of a block. The kernel's largest READ is 1 MiB, and an aligned one is then one slice of one block.
pub(super) const SIZE: u64 = 1 << 20;

/// Indexes of the blocks that `range` touches.
pub(super) fn indexes(range: ByteRange) -> Range<u64> {
    range.start() / SIZE..range.end().div_ceil(SIZE)
}

/// The bytes of block `index` in an object of `size` bytes, or `None` past its end.
pub(super) fn range_of(index: u64, size: u64) -> Option<ByteRange> {
    let start = index.checked_mul(SIZE)?;
    ByteRange::new(start, size.min(start.checked_add(SIZE)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_ranges() {
        let r = |a, b| ByteRange::new(a, b).unwrap();
        assert_eq!(indexes(r(0, 1)), 0..1);
        assert_eq!(indexes(r(SIZE - 1, SIZE + 1)), 0..2);
        assert_eq!(indexes(r(SIZE, 2 * SIZE)), 1..2);
        assert_eq!(range_of(1, SIZE + 5), ByteRange::new(SIZE, SIZE + 5));
        assert_eq!(range_of(2, SIZE + 5), None);
    }
}
