//! Which blocks to fetch ahead of a reader. Pure.
//!
//! Owns: telling a sequential reader from a random one, and how far ahead it is served.
//! Does not own: fetching.

use super::block;
use crate::types::ByteRange;
use std::ops::Range;

/// The reading pattern of one handle.
#[derive(Debug, Default)]
pub struct Sequence {
    /// Where the last read ended.
    end: u64,
    /// Bytes read in sequence up to there.
    run: u64,
    /// Blocks below this were asked for already.
    asked: u64,
}

impl Sequence {
    /// A read of `range` comes in. Answers the indexes of the blocks (of 1 MiB) to fetch ahead that were not answered since
    /// the last seek: none at a seek, then up to twice as many as the run is long, `ahead_max` beyond the read at most.
    pub fn on_read(&mut self, range: ByteRange, ahead_max: u64) -> Range<u64> {
        // The kernel's own read-ahead sends requests side by side, so they may arrive a little out of order.
        let sequential = range.start().abs_diff(self.end) < block::SIZE;
        if sequential {
            self.run += range.len();
        } else {
            self.run = range.len();
            self.asked = 0;
        }
        self.end = if sequential { self.end.max(range.end()) } else { range.end() };
        let next = block::indexes(range).end;
        let window = if sequential { (self.run.div_ceil(block::SIZE) * 2).min(ahead_max) } else { 0 };
        let ahead = next.max(self.asked)..next + window;
        self.asked = self.asked.max(ahead.end);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(s: &mut Sequence, start: u64, len: u64) -> Range<u64> {
        s.on_read(ByteRange::at(start, len).unwrap(), 8)
    }

    #[test]
    fn a_sequential_reader_is_served_ahead_and_each_block_asked_once() {
        let mut s = Sequence::default();
        let mut asked = Vec::new();
        for i in 0..256u64 {
            asked.extend(read(&mut s, i * 131_072, 131_072));
        }
        let mut unique = asked.clone();
        unique.dedup();
        assert_eq!(asked, unique);
        assert_eq!(asked.first(), Some(&1));
        assert_eq!(asked.last(), Some(&39), "32 MiB were read: eight blocks beyond");
    }

    #[test]
    fn a_random_reader_is_not() {
        let mut s = Sequence::default();
        for start in [500 << 20, 3 << 20, 900 << 20, 77 << 20] {
            assert!(read(&mut s, start, 4096).is_empty());
        }
    }
}
