//! Who looks at what it reads: a process that stats every name of a directory, or one that only wants the names.
//!
//! Owns: telling the two apart, per thread, by the LOOKUPs that follow a short READDIRPLUS. Does not own: what either is given
//! (`readdir`).
//!
//! The kernel asks with attributes at the beginning of each directory, and goes on so only if somebody looked at one of those
//! before the next READDIR (fs/fuse/readdir.c, fuse_use_readdirplus). Who reads all names first and looks at them then (find
//! -size, du, chmod -R) is given too little so; who never looks (find) makes the kernel build an inode for each name that comes
//! with attributes, which takes a third of its time.

use crate::types::Ino;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// LOOKUPs in a directory of which little was given, from which on its reader counts as one who looks at what it reads.
const ENOUGH: u32 = 8;
/// Directories that such a reader is given whole, until it is tested again.
const BETWEEN_TESTS: u32 = 16;
/// Threads that are remembered.
const THREADS_MAX: usize = 1024;

/// What is known of one thread.
#[derive(Debug, Default)]
struct Walker {
    looks: bool,
    /// The directory of which little was given, to see what follows.
    test: Option<Ino>,
    looked_up: u32,
    since_test: u32,
}

impl Walker {
    /// It begins to read a large directory: whether it is to be given all that fits. Pure, as all here.
    fn on_read(&mut self, dir: Ino) -> bool {
        if self.test.is_some() {
            self.looks = self.looked_up >= ENOUGH;
        }
        let is_given_all = self.looks && self.since_test < BETWEEN_TESTS;
        self.test = (!is_given_all).then_some(dir);
        self.since_test = if is_given_all { self.since_test + 1 } else { 0 };
        self.looked_up = 0;
        is_given_all
    }

    fn on_lookup(&mut self, dir: Ino) {
        if self.test == Some(dir) {
            self.looked_up += 1;
            self.looks |= self.looked_up >= ENOUGH;
        }
    }
}

/// Threads that read directories.
#[derive(Debug, Default)]
pub(super) struct Walkers(Mutex<HashMap<u32, Walker>>);

impl Walkers {
    /// The thread begins to read a large directory: whether it is to be given all that fits.
    pub(super) fn on_read(&self, tid: u32, dir: Ino) -> bool {
        let mut walkers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if walkers.len() >= THREADS_MAX && !walkers.contains_key(&tid) {
            walkers.clear();
        }
        walkers.entry(tid).or_default().on_read(dir)
    }

    /// The thread looks up a name in a directory.
    pub(super) fn on_lookup(&self, tid: u32, dir: Ino) {
        if let Some(walker) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&tid) {
            walker.on_lookup(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Walks through directories, with so many lookups in each that was not given whole. Answers how many were.
    fn walk(walker: &mut Walker, dirs: std::ops::Range<u64>, lookups: u32) -> usize {
        let mut whole = 0;
        for dir in dirs.map(Ino) {
            if walker.on_read(dir) {
                whole += 1;
            } else {
                (0..lookups).for_each(|_| walker.on_lookup(dir));
            }
        }
        whole
    }

    #[test]
    fn who_looks_is_given_all_but_for_a_test_now_and_then() {
        let mut walker = Walker::default();
        assert_eq!(walk(&mut walker, 0..100, 900), 94);
        assert!(walk(&mut walker, 100..200, 0) < 17, "and no more once it no longer looks");
        assert!(walk(&mut walker, 200..220, 900) > 17);
    }

    #[test]
    fn who_wants_names_only_is_given_no_more() {
        let mut walker = Walker::default();
        assert_eq!(walk(&mut walker, 0..100, ENOUGH - 1), 0);
        walker.on_lookup(Ino(7));
        assert!(!walker.on_read(Ino(500)), "what it looks up elsewhere does not count");
    }
}
