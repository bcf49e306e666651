//! Byte ranges and sets of them.
//!
//! Owns: half-open ranges `[start, end)` that are never empty, and sorted, disjoint, coalesced sets of them.
//! Does not own: what a range means (dirty, present, wanted).

use std::collections::BTreeMap;
use std::fmt;

/// A half-open range of bytes `[start, end)`, never empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// `[start, end)`, or `None` when that is empty.
    pub fn new(start: u64, end: u64) -> Option<ByteRange> {
        (start < end).then_some(ByteRange { start, end })
    }

    /// The `len` bytes from `offset` on, or `None` when `len` is 0 or the end overflows.
    pub fn at(offset: u64, len: u64) -> Option<ByteRange> {
        ByteRange::new(offset, offset.checked_add(len)?)
    }

    /// The first byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// One past the last byte.
    pub fn end(self) -> u64 {
        self.end
    }

    /// How many bytes; at least 1.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// The bytes that are in both, if any.
    pub fn intersect(self, other: ByteRange) -> Option<ByteRange> {
        ByteRange::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// From the first byte of this one to the last byte of `other`, which begins no earlier.
    #[must_use]
    pub fn through(self, other: ByteRange) -> ByteRange {
        ByteRange { start: self.start, end: self.end.max(other.end) }
    }

    /// The value of an HTTP `Range` header (RFC 9110, section 14.1.2: both ends inclusive).
    pub fn to_http(self) -> String {
        format!("bytes={}-{}", self.start, self.end - 1)
    }
}

impl fmt::Debug for ByteRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

/// A set of bytes, kept as sorted, disjoint, non-touching ranges.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct RangeSet {
    /// start -> end. Invariant: every end is less than the next start.
    ranges: BTreeMap<u64, u64>,
}

impl RangeSet {
    /// The empty set.
    pub fn new() -> RangeSet {
        RangeSet::default()
    }

    /// Whether the set has no byte.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many separate ranges the set has.
    pub fn count(&self) -> usize {
        self.ranges.len()
    }

    /// How many bytes the set has.
    pub fn size(&self) -> u64 {
        self.iter().map(ByteRange::len).sum()
    }

    /// Adds every byte of `range`.
    pub fn insert(&mut self, range: ByteRange) {
        let (mut start, mut end) = (range.start, range.end);
        // A range that begins at or before `end` and reaches `start` touches or overlaps the new one.
        while let Some((&s, &e)) = self.ranges.range(..=end).next_back() {
            if e < start {
                break;
            }
            start = start.min(s);
            end = end.max(e);
            self.ranges.remove(&s);
        }
        self.ranges.insert(start, end);
    }

    /// Takes every byte of `range` out.
    pub fn remove(&mut self, range: ByteRange) {
        while let Some((&s, &e)) = self.ranges.range(..range.end).next_back() {
            if e <= range.start {
                break;
            }
            self.ranges.remove(&s);
            if s < range.start {
                self.ranges.insert(s, range.start);
            }
            if e > range.end {
                self.ranges.insert(range.end, e);
            }
        }
    }

    /// Takes out every byte at or after `size`.
    pub fn truncate(&mut self, size: u64) {
        if let Some(tail) = ByteRange::new(size, u64::MAX) {
            self.remove(tail);
        }
    }

    /// Whether every byte of `range` is in the set.
    pub fn contains(&self, range: ByteRange) -> bool {
        self.ranges.range(..=range.start).next_back().is_some_and(|(_, &e)| e >= range.end)
    }

    /// The parts of `range` that are in the set, in order.
    pub fn overlaps(&self, range: ByteRange) -> Vec<ByteRange> {
        self.within(range).collect()
    }

    /// How many bytes of `range` are in the set.
    pub fn covered(&self, range: ByteRange) -> u64 {
        self.within(range).map(ByteRange::len).sum()
    }

    fn within(&self, range: ByteRange) -> impl Iterator<Item = ByteRange> + '_ {
        let first = self.ranges.range(..=range.start).next_back().map_or(range.start, |(&s, _)| s);
        self.ranges.range(first..range.end).filter_map(move |(&s, &e)| ByteRange::new(s, e)?.intersect(range))
    }

    /// The parts of `range` that are not in the set, in order.
    pub fn gaps(&self, range: ByteRange) -> Vec<ByteRange> {
        let mut gaps = Vec::new();
        let mut at = range.start;
        for r in self.overlaps(range) {
            gaps.extend(ByteRange::new(at, r.start));
            at = r.end;
        }
        gaps.extend(ByteRange::new(at, range.end));
        gaps
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.ranges.iter().map(|(&start, &end)| ByteRange { start, end })
    }
}

impl fmt::Debug for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl FromIterator<ByteRange> for RangeSet {
    fn from_iter<I: IntoIterator<Item = ByteRange>>(iter: I) -> RangeSet {
        let mut set = RangeSet::new();
        iter.into_iter().for_each(|r| set.insert(r));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn r(start: u64, end: u64) -> ByteRange {
        ByteRange::new(start, end).unwrap()
    }

    #[test]
    fn http_ranges_are_inclusive() {
        assert_eq!(r(0, 10).to_http(), "bytes=0-9");
        assert!(ByteRange::new(5, 5).is_none());
        assert!(ByteRange::at(u64::MAX, 2).is_none());
    }

    #[test]
    fn touching_ranges_coalesce() {
        let set: RangeSet = [r(0, 5), r(10, 15), r(5, 10)].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), vec![r(0, 15)]);
    }

    proptest! {
        /// The set behaves as an array of booleans, whatever is inserted, removed and cut.
        #[test]
        fn prop_set_equals_bitmap(ops in prop::collection::vec((0u8..3, 0u64..64, 1u64..32), 0..40), q in (0u64..64, 1u64..40)) {
            let mut set = RangeSet::new();
            let mut bits = [false; 128];
            for (op, start, len) in ops {
                let range = ByteRange::at(start, len).unwrap();
                match op {
                    0 => { set.insert(range); bits[start as usize..(start + len) as usize].fill(true); }
                    1 => { set.remove(range); bits[start as usize..(start + len) as usize].fill(false); }
                    _ => { set.truncate(start); bits[start as usize..].fill(false); }
                }
            }
            prop_assert_eq!(set.size(), bits.iter().filter(|b| **b).count() as u64);
            let ends: Vec<_> = set.iter().collect();
            prop_assert!(ends.windows(2).all(|w| w[0].end() < w[1].start()));
            let query = ByteRange::at(q.0, q.1).unwrap();
            let slice = &bits[q.0 as usize..(q.0 + q.1) as usize];
            prop_assert_eq!(set.contains(query), slice.iter().all(|b| *b));
            let inside: u64 = set.overlaps(query).iter().map(|r| r.len()).sum();
            prop_assert_eq!(inside, slice.iter().filter(|b| **b).count() as u64);
            let outside: u64 = set.gaps(query).iter().map(|r| r.len()).sum();
            prop_assert_eq!(inside + outside, query.len());
        }
    }
}
