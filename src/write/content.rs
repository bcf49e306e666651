//! What a staged file consists of: written ranges over a base version. Pure.
//!
//! Owns: which bytes come from the staging file, from the base, or are zero, and what a write during a commit means.
//! Does not own: the bytes (`staging`), the upload (`commit`).
//!
//! Invariants: `dirty` and `local` lie within `size`; `base_len <= size`; what is beyond `base_len` and not dirty is zero.

use crate::types::{ByteRange, ObjectRef, RangeSet};

/// Where a piece of a staged file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The staging file.
    File,
    /// The base version in the bucket.
    Base,
    /// Nowhere: zeros.
    Zero,
}

/// The make-up of a staged file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    size: u64,
    base: Option<ObjectRef>,
    /// Another object of which the file is a copy: the bytes up to `base_len` are its, and not the base's.
    copied: Option<ObjectRef>,
    base_len: u64,
    dirty: RangeSet,
    local: RangeSet,
    changed: bool,
    commit: Option<Running>,
}

/// What has happened since the running commit began.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Running {
    size: u64,
    written: RangeSet,
    shrunk_to: u64,
}

impl Content {
    /// A file over `base`, not changed yet. `None` for a new file, which counts as changed: the bucket owes it an object.
    pub fn new(base: Option<ObjectRef>) -> Content {
        let size = base.as_ref().map_or(0, |b| b.version.size);
        let changed = base.is_none();
        Content {
            size,
            base,
            copied: None,
            base_len: size,
            dirty: RangeSet::new(),
            local: RangeSet::new(),
            changed,
            commit: None,
        }
    }

    /// A file as the journal remembers it. It counts as changed.
    pub fn restore(size: u64, base: Option<ObjectRef>, base_len: u64, dirty: RangeSet, local: RangeSet) -> Content {
        Content { size, base, copied: None, base_len, dirty, local, changed: true, commit: None }
    }

    /// Size of the file in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The version that the file changes, and that its commit replaces.
    pub fn base(&self) -> Option<&ObjectRef> {
        self.base.as_ref()
    }

    /// The object of which the file is a copy, if it is one that was not committed yet.
    pub fn copied(&self) -> Option<&ObjectRef> {
        self.copied.as_ref()
    }

    /// Where bytes that are neither written nor here come from.
    pub fn source(&self) -> Option<&ObjectRef> {
        self.copied.as_ref().or(self.base.as_ref())
    }

    /// How many leading bytes of the base are still a part of the file.
    pub fn base_len(&self) -> u64 {
        self.base_len
    }

    /// What was written and is not in the bucket.
    pub fn dirty(&self) -> &RangeSet {
        &self.dirty
    }

    /// What of the base the staging file has.
    pub fn local(&self) -> &RangeSet {
        &self.local
    }

    /// Bytes of the staging file that a row of it in the journal names.
    pub fn journaled(&self) -> RangeSet {
        // The row of a copy says that all of it was written.
        let all = self.copied.as_ref().and_then(|_| ByteRange::new(0, self.size));
        self.dirty.iter().chain(self.local.iter()).chain(all).collect()
    }

    /// Whether the bucket lacks anything of it, as far as is known: what a running commit carries is not there yet.
    pub fn is_changed(&self) -> bool {
        self.changed || self.commit.is_some()
    }

    /// Bytes that are in the staging file.
    pub fn held(&self) -> u64 {
        self.dirty.size() + self.local.size()
    }

    /// Bytes of `range` that are not in the staging file.
    pub fn uncovered(&self, range: ByteRange) -> u64 {
        range.len() - self.dirty.covered(range) - self.local.covered(range)
    }

    /// Whether every byte of `range` was written here.
    pub fn is_written(&self, range: ByteRange) -> bool {
        self.dirty.contains(range)
    }

    /// Whether the file differs from its base in more than attributes.
    pub fn has_own_bytes(&self) -> bool {
        let is_base =
            self.base.as_ref().is_some_and(|base| base.version.size == self.size && self.base_len == self.size);
        !is_base || !self.dirty.is_empty() || self.copied.is_some()
    }

    /// The object that the file is as a whole, byte for byte: the base, or the one that was copied.
    pub fn whole(&self) -> Option<&ObjectRef> {
        let is_whole = |source: &&ObjectRef| source.version.size == self.size && self.base_len == self.size;
        self.source().filter(is_whole).filter(|_| self.dirty.is_empty() && self.size > 0)
    }

    /// `range` of `object` is to be copied to the same place of the file. That is done for an empty file, from the beginning on, and
    /// for what follows. Answers how many bytes are copied, or `None` if they have to be written.
    pub fn on_copied(&mut self, object: &ObjectRef, range: ByteRange) -> Option<u64> {
        if self.commit.is_some() {
            // What the running commit makes has nothing of the copy, and what is written during it counts as bytes of the file.
            return None;
        }
        let goes_on = self.size > 0 && self.copied.as_ref() == Some(object) && self.base_len == self.size;
        let begins = self.size == 0 && range.start() == 0;
        if !(begins || goes_on && self.dirty.is_empty() && range.start() == self.size) {
            return None;
        }
        let range = ByteRange::new(range.start(), range.end().min(object.version.size))?;
        self.size = range.end();
        self.base_len = self.size;
        self.copied = Some(object.clone());
        self.changed = true;
        Some(range.len())
    }

    /// Bytes were written at `range`.
    pub fn on_write(&mut self, range: ByteRange) {
        self.dirty.insert(range);
        self.local.remove(range);
        self.size = self.size.max(range.end());
        self.changed = true;
        if let Some(running) = &mut self.commit {
            running.written.insert(range);
        }
    }

    /// The file was cut or extended to `size`.
    pub fn on_truncate(&mut self, size: u64) {
        self.changed |= size != self.size;
        self.size = size;
        self.base_len = self.base_len.min(size);
        self.dirty.truncate(size);
        self.local.truncate(size);
        if let Some(running) = &mut self.commit {
            running.written.truncate(size);
            running.shrunk_to = running.shrunk_to.min(size);
        }
    }

    /// Attributes that travel with the object changed.
    pub fn on_attributes(&mut self) {
        self.changed = true;
    }

    /// Bytes of the base arrived in the staging file. Answers which of them to write there: not those that were written
    /// or cut off meanwhile, be it that they were committed since, and the base that they were asked of is an earlier one.
    pub fn on_fetched(&mut self, range: ByteRange) -> Vec<ByteRange> {
        let missing: Vec<_> = self.missing().into_iter().filter_map(|gap| gap.intersect(range)).collect();
        missing.iter().for_each(|r| self.local.insert(*r));
        missing
    }

    /// Bytes of the base that the staging file lacks.
    pub fn missing(&self) -> Vec<ByteRange> {
        let Some(base) = ByteRange::new(0, self.base_len) else { return Vec::new() };
        self.dirty.gaps(base).into_iter().flat_map(|gap| self.local.gaps(gap)).collect()
    }

    /// Bytes of the file that are zeros, and that nobody has written.
    pub fn zeros(&self) -> Vec<ByteRange> {
        ByteRange::new(self.base_len, self.size).map_or_else(Vec::new, |rest| self.dirty.gaps(rest))
    }

    /// Where the bytes of `range` come from, in order, cut at the end of the file.
    pub fn sources(&self, range: ByteRange) -> Vec<(ByteRange, Source)> {
        let Some(range) = ByteRange::new(0, self.size).and_then(|w| w.intersect(range)) else { return Vec::new() };
        let mut present: RangeSet = self.dirty.overlaps(range).into_iter().collect();
        self.local.overlaps(range).into_iter().for_each(|r| present.insert(r));
        let mut out: Vec<_> = present.overlaps(range).into_iter().map(|r| (r, Source::File)).collect();
        for gap in present.gaps(range) {
            let base = ByteRange::new(0, self.base_len).and_then(|b| b.intersect(gap));
            let zero = ByteRange::new(self.base_len, u64::MAX).and_then(|z| z.intersect(gap));
            out.extend(base.map(|r| (r, Source::Base)));
            out.extend(zero.map(|r| (r, Source::Zero)));
        }
        out.sort();
        out
    }

    /// Bytes of `range` that the file has and that may be something else than zeros.
    pub fn data(&self, range: ByteRange) -> RangeSet {
        self.sources(range).into_iter().filter(|(_, source)| *source != Source::Zero).map(|(piece, _)| piece).collect()
    }

    /// A commit of all that is here begins. What is written from now on belongs to the next one.
    pub fn on_commit_began(&mut self) {
        self.changed = false;
        self.commit = Some(Running { size: self.size, written: RangeSet::new(), shrunk_to: u64::MAX });
    }

    /// Whether a commit is running.
    pub fn is_committing(&self) -> bool {
        self.commit.is_some()
    }

    /// Whether the file has changed since the running commit began.
    pub fn is_disturbed(&self) -> bool {
        self.commit.as_ref().is_some_and(|running| !running.written.is_empty() || running.shrunk_to != u64::MAX)
    }

    /// The commit succeeded: the bucket has the file as `version`.
    pub fn on_committed(&mut self, version: ObjectRef) {
        let running = self.commit.take().unwrap_or_default();
        // The bucket copied these from the base: the object has them, and the staging file does not.
        let missing = self.missing();
        let mut kept = self.dirty.clone();
        self.local.iter().for_each(|r| kept.insert(r));
        self.base_len = running.size.min(running.shrunk_to).min(self.size);
        // Holes within the committed size are zeros in the staging file and in the object alike.
        if let Some(all) = ByteRange::new(0, self.base_len) {
            kept.insert(all);
        }
        missing.into_iter().chain(running.written.iter()).for_each(|r| kept.remove(r));
        kept.truncate(self.base_len);
        self.local = kept;
        self.dirty = running.written;
        self.base = Some(version);
        self.copied = None;
    }

    /// The staging file is to be emptied. `false` if it has something that the bucket has not.
    pub fn on_forgotten(&mut self) -> bool {
        let is_whole = self.base.as_ref().is_some_and(|base| base.version.size == self.size);
        if self.is_changed() || !is_whole || self.copied.is_some() || !self.dirty.is_empty() {
            return false;
        }
        self.local = RangeSet::new();
        self.base_len = self.size;
        true
    }

    /// The commit failed: all is as changed as before. Answers what was written since it began, and how far the file was cut.
    pub fn on_commit_failed(&mut self) -> (RangeSet, u64) {
        self.changed = true;
        self.commit.take().map_or((RangeSet::new(), u64::MAX), |running| (running.written, running.shrunk_to))
    }

    /// The base has moved: the same bytes are found elsewhere. Those that it has not there were cut off before, and are zeros.
    pub fn on_base_moved(&mut self, object: ObjectRef) {
        if self.base.is_some() {
            if self.copied.is_none() {
                self.base_len = self.base_len.min(object.version.size);
                self.local.truncate(self.base_len);
            }
            self.base = Some(object);
        }
    }

    /// The bytes of `from` are found at `to`. Answers whether the file is a copy of it.
    pub fn on_source_moved(&mut self, from: &ObjectRef, to: &ObjectRef) -> bool {
        let is_it = |object: &ObjectRef| object.key == from.key && object.version.etag == from.version.etag;
        let is_copy = self.copied.as_ref().is_some_and(is_it);
        if is_copy {
            self.copied = Some(to.clone());
        }
        is_copy
    }

    /// The file replaces `base` from now on, and takes no byte from it. Only when nothing is [`Content::missing`]: otherwise
    /// nothing happens, and the commit that follows finds out that bytes are lost.
    pub fn on_rebased(&mut self, base: Option<ObjectRef>) {
        if !self.missing().is_empty() {
            return;
        }
        self.base = base;
        self.copied = None;
        if let Some(all) = ByteRange::new(0, self.size) {
            self.dirty.insert(all);
        }
        self.local = RangeSet::new();
        self.base_len = 0;
        self.changed = true;
    }
}

impl PartialOrd for Source {
    fn partial_cmp(&self, other: &Source) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Source {
    fn cmp(&self, other: &Source) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, Key, Version};
    use proptest::prelude::*;

    fn base(size: u64, etag: &str) -> ObjectRef {
        ObjectRef {
            key: Key::parse("k").unwrap(),
            version: Version { etag: ETag::parse(etag), last_modified: None, size },
        }
    }

    fn r(a: u64, b: u64) -> ByteRange {
        ByteRange::new(a, b).unwrap()
    }

    #[test]
    fn a_write_during_a_commit_belongs_to_the_next() {
        let mut c = Content::new(None);
        c.on_write(r(0, 10));
        c.on_commit_began();
        c.on_write(r(4, 6));
        c.on_committed(base(10, "1"));
        assert!(c.is_changed());
        assert_eq!(c.dirty().iter().collect::<Vec<_>>(), [r(4, 6)]);
        assert!(c.missing().is_empty(), "the staging file still has every byte");
    }

    #[test]
    fn bytes_that_arrive_late_replace_nothing() {
        let mut c = Content::new(Some(base(10, "1")));
        c.on_write(r(2, 4));
        assert_eq!(c.on_fetched(r(0, 6)), [r(0, 2), r(4, 6)]);
        assert_eq!(c.on_fetched(r(0, 10)), [r(6, 10)]);
        c.on_commit_began();
        c.on_committed(base(10, "2"));
        assert_eq!(c.on_fetched(r(0, 10)), [], "what was written is in the bucket by now, and not what arrives");
    }

    #[test]
    fn a_cut_and_an_extension_leave_zeros_not_old_bytes() {
        let mut c = Content::new(Some(base(10, "1")));
        c.on_truncate(4);
        c.on_truncate(8);
        assert_eq!(c.sources(r(0, 100)), [(r(0, 4), Source::Base), (r(4, 8), Source::Zero)]);
    }

    #[test]
    fn what_is_known_to_be_zeros_need_not_become_zeros() {
        let mut c = Content::new(Some(base(10, "1")));
        c.on_truncate(30);
        c.on_write(r(20, 24));
        assert_eq!(c.data(r(0, 100)).iter().collect::<Vec<_>>(), [r(0, 10), r(20, 24)]);
        assert_eq!(c.data(r(4, 22)).iter().collect::<Vec<_>>(), [r(4, 10), r(20, 22)]);
        assert!(c.data(r(24, 100)).is_empty());
    }

    proptest! {
        /// Against a model of bytes: whatever is written, made zeros, cut, fetched and committed, reading through `sources` gives the
        /// model's bytes, and so would an upload.
        #[test]
        fn prop_sources_give_the_bytes(ops in prop::collection::vec((0u8..9, 0u64..48, 1u64..24), 0..60)) {
            let mut object: Vec<u8> = (0..20).map(|i| 100 + i).collect();
            let (mut file, mut model) = (vec![0u8; 0], object.clone());
            let mut c = Content::new(Some(base(20, "0")));
            let (mut stamp, mut upload) = (0u8, None::<Vec<u8>>);
            let other: Vec<u8> = (0..30).map(|i| 200 + i).collect();
            for (op, at, len) in ops {
                let range = ByteRange::at(at, len).unwrap();
                let (a, b) = (at as usize, (at + len) as usize);
                match op {
                    0 | 1 => {
                        stamp = stamp.wrapping_add(1);
                        if file.len() < b { file.resize(b, 0); }
                        if model.len() < b { model.resize(b, 0); }
                        file[a..b].fill(stamp);
                        model[a..b].fill(stamp);
                        c.on_write(range);
                    }
                    2 => { file.resize(a, 0); model.resize(a, 0); c.on_truncate(at); }
                    3 if at % 5 == 0 => if c.on_forgotten() { file.clear(); },
                    3 => for piece in c.on_fetched(range) {
                        let (x, y) = (piece.start() as usize, piece.end() as usize);
                        if file.len() < y { file.resize(y, 0); }
                        let source = if c.copied().is_some() { &other } else { &object };
                        file[x..y].copy_from_slice(&source[x..y]);
                    },
                    6 => if let Some(copied) = c.on_copied(&base(30, "other"), r(c.size(), c.size() + len)) {
                        let end = c.size() as usize;
                        file.resize(end, 0);
                        model.extend_from_slice(&other[end - copied as usize..end]);
                    },
                    // What is punched does not make the staging file longer.
                    8 => {
                        for piece in c.data(range).iter() {
                            let (x, y) = (piece.start() as usize, piece.end() as usize);
                            let end = y.min(file.len());
                            file[x.min(end)..end].fill(0);
                            c.on_write(piece);
                        }
                        let end = b.min(model.len());
                        model[a.min(end)..end].fill(0);
                    }
                    // A cut to nothing, so that the next may be a copy.
                    7 => { file.clear(); model.clear(); c.on_truncate(0); }
                    // What is missing the bucket copies: the new object has it.
                    4 if upload.is_none() => { c.on_commit_began(); upload = Some(model.clone()); }
                    _ => if let Some(bytes) = upload.take() {
                        if at % 3 == 0 { c.on_commit_failed(); } else {
                            c.on_committed(base(bytes.len() as u64, "n"));
                            object = bytes;
                        }
                    },
                }
                prop_assert_eq!(c.size(), model.len() as u64);
                let mut read = Vec::new();
                for (piece, source) in c.sources(r(0, 1000)) {
                    let (x, y) = (piece.start() as usize, piece.end() as usize);
                    prop_assert_eq!(read.len(), x);
                    match source {
                        Source::File => { let mut f = file.clone(); f.resize(y.max(f.len()), 0); read.extend_from_slice(&f[x..y]); }
                        Source::Base if c.copied().is_some() => read.extend_from_slice(&other[x..y]),
                        Source::Base => read.extend_from_slice(&object[x..y]),
                        Source::Zero => read.resize(y, 0),
                    }
                }
                prop_assert_eq!(&read, &model);
                prop_assert!(c.is_changed() || upload.is_none());
                if !c.is_changed() { prop_assert_eq!(&object, &model); }
            }
        }
    }
}
