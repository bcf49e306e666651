//! What is in the disk cache, and what goes first. Pure.
//!
//! Owns: sizes, who was used when, the order of eviction. Does not own: files.
//!
//! Objects that were looked into (headers of films, directories of archives, small files) and objects that were read through are
//! told apart: the latter go first, and never push the former below half of the cache, so that a scan of large files does not cost
//! what a library needs for its next look.

use super::super::in_flight::VersionId;
use std::collections::{BTreeSet, HashMap};

/// One object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    bytes: u64,
    /// Larger is later.
    used: u64,
    is_stream: bool,
}

/// Objects by when they were used.
#[derive(Debug, Default)]
struct Pool {
    order: BTreeSet<(u64, VersionId)>,
    bytes: u64,
}

/// What is in the cache.
#[derive(Debug, Default)]
pub(super) struct Usage {
    entries: HashMap<VersionId, Entry>,
    looked_into: Pool,
    streams: Pool,
}

impl Usage {
    /// Whether anything of the object is there.
    pub(super) fn has(&self, id: VersionId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Bytes of all.
    pub(super) fn bytes(&self) -> u64 {
        self.looked_into.bytes + self.streams.bytes
    }

    /// So many bytes more of the object are there, used at `now`. Whoever was read through once counts as that. Answers whether
    /// it has just become that.
    pub(super) fn add(&mut self, id: VersionId, bytes: u64, is_stream: bool, now: u64) -> bool {
        let before = self.remove(id);
        let was_stream = before.is_some_and(|e| e.is_stream);
        let bytes = bytes + before.map_or(0, |e| e.bytes);
        let used = before.map_or(now, |e| e.used.max(now));
        self.insert(id, Entry { bytes, used, is_stream: is_stream || was_stream });
        is_stream && !was_stream
    }

    /// The object was used.
    pub(super) fn touch(&mut self, id: VersionId, now: u64) {
        if let Some(before) = self.remove(id) {
            self.insert(id, Entry { used: before.used.max(now), ..before });
        }
    }

    /// Bytes of an object that was read through. `None` if it was not, or is not there.
    pub(super) fn stream_bytes(&self, id: VersionId) -> Option<u64> {
        self.entries.get(&id).filter(|e| e.is_stream).map(|e| e.bytes)
    }

    /// Of an object that was read through, only what was looked into is left.
    pub(super) fn look_again(&mut self, id: VersionId, bytes: u64) {
        if let Some(before) = self.remove(id) {
            self.insert(id, Entry { bytes, is_stream: false, ..before });
        }
    }

    /// What there is of one object is of another one now.
    pub(super) fn carry(&mut self, from: VersionId, to: VersionId) {
        if let Some(entry) = self.remove(from) {
            self.remove(to);
            self.insert(to, entry);
        }
    }

    /// The object is gone. Answers the bytes that it had.
    pub(super) fn forget(&mut self, id: VersionId) -> u64 {
        self.remove(id).map_or(0, |e| e.bytes)
    }

    /// What goes next for `more` bytes to fit into `max`, but for `keep`. `None` if they fit, or if nothing is left to go.
    pub(super) fn next_to_go(&self, more: u64, max: u64, keep: VersionId) -> Option<VersionId> {
        if self.bytes() + more <= max { None } else { self.first_to_go(max, keep) }
    }

    /// What goes first of a cache that may have `max` bytes, but for `keep`.
    pub(super) fn first_to_go(&self, max: u64, keep: VersionId) -> Option<VersionId> {
        let first = |pool: &Pool| pool.order.iter().map(|(_, id)| *id).find(|id| *id != keep);
        let looked_into = || first(&self.looked_into);
        if self.looked_into.bytes > max / 2 {
            return looked_into().or_else(|| first(&self.streams));
        }
        first(&self.streams).or_else(looked_into)
    }

    fn insert(&mut self, id: VersionId, entry: Entry) {
        let pool = if entry.is_stream { &mut self.streams } else { &mut self.looked_into };
        pool.order.insert((entry.used, id));
        pool.bytes += entry.bytes;
        self.entries.insert(id, entry);
    }

    fn remove(&mut self, id: VersionId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        let pool = if entry.is_stream { &mut self.streams } else { &mut self.looked_into };
        pool.order.remove(&(entry.used, id));
        pool.bytes -= entry.bytes;
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u128) -> VersionId {
        VersionId::from_number(n)
    }

    /// Makes room as the cache does. Answers what went.
    fn make_room(usage: &mut Usage, more: u64, max: u64, keep: VersionId) -> Vec<VersionId> {
        let mut gone = Vec::new();
        while let Some(next) = usage.next_to_go(more, max, keep) {
            usage.forget(next);
            gone.push(next);
        }
        gone
    }

    #[test]
    fn what_was_read_through_goes_first_and_the_oldest_of_it() {
        let mut usage = Usage::default();
        for n in 0..4 {
            usage.add(id(n), 10, false, n as u64);
            usage.add(id(10 + n), 20, true, n as u64);
        }
        usage.touch(id(10), 9);
        assert_eq!(make_room(&mut usage, 30, 120, id(99)), [id(11), id(12)]);
        assert_eq!(usage.bytes(), 80);
        assert_eq!(make_room(&mut usage, 90, 120, id(99)), [id(13), id(10), id(0)]);
    }

    #[test]
    fn what_was_looked_into_keeps_half_and_no_more() {
        let mut usage = Usage::default();
        for n in 0..8 {
            usage.add(id(n), 10, false, n as u64);
        }
        usage.add(id(20), 20, true, 50);
        assert_eq!(make_room(&mut usage, 10, 100, id(99)), [id(0)], "over its half");
        assert!(!usage.add(id(1), 0, false, 60) && usage.add(id(2), 0, true, 61) && !usage.add(id(2), 5, true, 62));
        assert_eq!(
            make_room(&mut usage, 50, 100, id(2)),
            [id(3), id(20), id(4), id(5)],
            "the one that is written stays"
        );
    }

    #[test]
    fn what_does_not_fit_beside_itself_takes_nothing_for_ever() {
        let mut usage = Usage::default();
        usage.add(id(1), 90, true, 1);
        assert_eq!(usage.next_to_go(20, 100, id(1)), None);
        assert_eq!(usage.forget(id(1)), 90);
        assert_eq!((usage.bytes(), usage.has(id(1))), (0, false));
    }
}
