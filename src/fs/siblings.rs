//! Small files that are read one after another in the order of their directory: the next ones are fetched ahead.
//!
//! Owns: seeing that, and how many are fetched ahead. Does not own: fetching (`read`), the order of a directory (`meta`: the one in
//! which readdir gives it).

use super::{Fs, Result};
use crate::meta::InodeRow;
use crate::read::Reader;
use crate::types::{FileKind, Ino, ObjectRef, Pos};
use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Siblings that are looked up at once.
const LOOK: usize = 32;
/// Siblings that a reader may leave out.
const SKIP: usize = 4;
/// Files that are fetched ahead, at most: as many hide 30 ms from a reader that takes 2 ms for each.
const AHEAD_MAX: usize = 16;
/// Directories that are remembered.
const DIRS_MAX: usize = 64;

/// Who reads small files in a directory.
#[derive(Debug)]
struct Run {
    last: Pos,
    /// Small files that follow the last one.
    expected: VecDeque<(Pos, ObjectRef)>,
    /// Of these, how many were fetched ahead.
    asked: usize,
    /// Siblings up to this one were looked up.
    looked_up: Pos,
    /// How many are fetched ahead now.
    window: usize,
}

impl Run {
    fn new(last: Pos) -> Run {
        Run { last, expected: VecDeque::new(), asked: 0, looked_up: last, window: 0 }
    }

    /// Whether siblings have to be looked up before [`Run::on_read`].
    fn is_curious(&self, pos: Pos) -> bool {
        pos > self.last && self.expected.len() <= self.window
    }

    fn learn(&mut self, siblings: impl IntoIterator<Item = (Pos, Option<ObjectRef>)>) {
        for (pos, object) in siblings {
            self.looked_up = self.looked_up.max(pos);
            self.expected.extend(object.map(|object| (pos, object)));
        }
    }

    /// The file at this place is read: which others are to be fetched ahead. Pure.
    fn on_read(&mut self, pos: Pos) -> Vec<ObjectRef> {
        if pos == self.last {
            return Vec::new();
        }
        let Some(place) = self.expected.iter().take(SKIP + 1).position(|(expected, _)| *expected == pos) else {
            *self = Run::new(pos);
            return Vec::new();
        };
        self.last = pos;
        self.expected.drain(..=place);
        self.asked = self.asked.saturating_sub(place + 1);
        self.window = if place == 0 { (self.window * 2).clamp(1, AHEAD_MAX) } else { (self.window / 2).max(1) };
        let from = self.asked;
        self.asked = from.max(self.window.min(self.expected.len()));
        self.expected.range(from..self.asked).map(|(_, object)| object.clone()).collect()
    }
}

/// Runs by directory.
#[derive(Debug, Default)]
pub(super) struct Siblings(Mutex<HashMap<Ino, Run>>);

impl Siblings {
    fn with<T>(&self, dir: Ino, change: impl FnOnce(&mut Run) -> T, pos: Pos) -> T {
        let mut runs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.len() >= DIRS_MAX && !runs.contains_key(&dir) {
            runs.clear();
        }
        change(runs.entry(dir).or_insert_with(|| Run::new(pos)))
    }
}

impl Fs {
    /// The small file at this place begins to be read: if others of its directory were before it, those that follow are fetched
    /// ahead.
    pub(super) fn on_small_read(&self, dir: Ino, pos: Pos) {
        let looked_up = self.siblings.with(dir, |run| run.is_curious(pos).then_some(run.looked_up), pos);
        if let Some(after) = looked_up {
            match self.siblings_after(dir, after) {
                Ok(siblings) => self.siblings.with(
                    dir,
                    |run| {
                        if run.looked_up == after {
                            run.learn(siblings)
                        }
                    },
                    pos,
                ),
                Err(e) => tracing::debug!(error = %e, "nothing is fetched ahead"),
            }
        }
        for next in self.siblings.with(dir, |run| run.on_read(pos), pos) {
            self.reader.fetch_ahead(next);
        }
    }

    /// Places in a directory, and the objects of those that are small files.
    fn siblings_after(&self, dir: Ino, after: Pos) -> Result<Vec<(Pos, Option<ObjectRef>)>> {
        let key = self.key(&self.row(dir)?)?;
        let small = |row: InodeRow| {
            let is_clean_file = row.attr.kind == FileKind::File && !row.local;
            let version = row.version.filter(|v| is_clean_file && Reader::is_small(v.size))?;
            Some(ObjectRef { key: key.child(&row.name?).ok()?, version })
        };
        Ok(self.meta.children(dir, after, LOOK)?.into_iter().map(|row| (row.pos(), small(row))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ETag, Key, Version};

    fn object(n: u64) -> ObjectRef {
        let version = Version { etag: ETag::parse("e"), last_modified: None, size: n };
        ObjectRef { key: Key::parse(&n.to_string()).unwrap(), version }
    }

    /// Reads, in a directory of a thousand small files. Answers what is fetched ahead.
    fn read(run: &mut Run, pos: u64) -> Vec<u64> {
        if run.is_curious(Pos(pos)) {
            let after = run.looked_up.0;
            run.learn((after + 1..after + 1 + LOOK as u64).filter(|n| *n < 1000).map(|n| (Pos(n), Some(object(n)))));
        }
        run.on_read(Pos(pos)).iter().map(|object| object.version.size).collect()
    }

    #[test]
    fn who_reads_in_order_finds_the_next_files_there() {
        let mut run = Run::new(Pos(10));
        assert_eq!(read(&mut run, 11), [12]);
        assert_eq!(read(&mut run, 12), [13, 14]);
        assert_eq!(read(&mut run, 13), [15, 16, 17]);
        assert!(read(&mut run, 13).is_empty(), "it was read a moment ago");
        let mut fetched = 17;
        for pos in 14..1000 {
            for next in read(&mut run, pos) {
                assert_eq!(next, fetched + 1, "each once");
                fetched = next;
            }
            assert!(fetched == 999 || fetched <= pos + AHEAD_MAX as u64);
        }
        assert_eq!(fetched, 999);
    }

    #[test]
    fn who_does_not_read_in_order_fetches_nothing_else() {
        let mut run = Run::new(Pos(10));
        for pos in [500, 3, 400, 30, 29, 28, 100, 90] {
            assert!(read(&mut run, pos).is_empty(), "{pos}");
        }
        assert_eq!(read(&mut run, 92), [93], "one was left out");
        assert_eq!(read(&mut run, 94), [95], "and again");
        assert_eq!(read(&mut run, 95), [96, 97]);
    }
}
