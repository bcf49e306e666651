//! What this daemon knows of the journal's row of a staged file.
//!
//! Owns: whether there is one, or may be, and which bytes, name and commits it has. Does not own: writing it (`record`,
//! `attributes`), the bytes that stay because of it (`snapshot`).

use super::staging::Staged;
use crate::types::{Key, WriteId};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The journal's row of a file, if there is one. Nothing else is locked by whoever has it locked.
#[derive(Debug, Default)]
pub(super) struct Journaled(Mutex<Option<Row>>);

/// A row that is in the journal, or is about to be: one that nobody knows of would come back after a crash.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// The last change of the file that it has; 0 as long as that is not known.
    pub(super) change: u64,
    /// The moment of the bytes that it has.
    pub(super) bytes: u64,
    /// It tells of attributes only, which the version in the bucket is to have.
    pub(super) has_only_attributes: bool,
    /// The version that it takes the bytes from that it lacks has made way for another one, which does not have them.
    pub(super) is_base_lost: bool,
    /// The key that it names, and the commits that may have been tried.
    pub(super) named: Option<(Key, Vec<WriteId>)>,
}

/// What a row has of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The name of the staging file that has its bytes.
    File,
    /// All bytes.
    Body,
    /// Attributes only.
    Attributes,
}

impl Journaled {
    fn lock(&self) -> MutexGuard<'_, Option<Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Staged {
    fn of_row<T>(&self, ask: impl FnOnce(&Row) -> T) -> Option<T> {
        self.journaled.lock().as_ref().map(ask)
    }

    /// Whether the journal has a row of it.
    pub fn is_journaled(&self) -> bool {
        self.journaled.lock().is_some()
    }

    /// Whether the bucket lacks something of it, or the journal's row still says so.
    pub fn is_owed(&self) -> bool {
        self.is_changed() || self.is_journaled()
    }

    /// Whether the journal has the file as it is now.
    pub fn is_recorded(&self) -> bool {
        self.recorded() == Some(self.last_change())
    }

    /// Whether the journal has bytes of it that somebody was told are safe, and that the bucket does not have: not attributes only, and
    /// not what a commit has carried there.
    pub fn is_acknowledged(&self) -> bool {
        self.is_acknowledged_up_to(self.carried() + 1)
    }

    /// Whether these are all up to a change.
    pub fn is_acknowledged_up_to(&self, change: u64) -> bool {
        let least = change.max(self.carried() + 1);
        self.of_row(|row| !row.has_only_attributes && row.change >= least) == Some(true)
    }

    /// Whether the row, if there is one, tells of attributes only.
    pub(super) fn is_journaled_without_bytes(&self) -> bool {
        self.of_row(|row| row.has_only_attributes) == Some(true)
    }

    /// The last change that the journal has.
    pub(super) fn recorded(&self) -> Option<u64> {
        self.of_row(|row| row.change)
    }

    /// The moment of the bytes that the journal has.
    pub(super) fn recorded_bytes(&self) -> Option<u64> {
        self.of_row(|row| row.bytes)
    }

    /// Whether nothing was written since these.
    pub(super) fn has_recorded_bytes(&self) -> bool {
        self.recorded_bytes() == Some(self.bytes_moment())
    }

    /// Whether the bytes that the row lacks are nowhere any more.
    pub(super) fn is_base_lost(&self) -> bool {
        self.of_row(|row| row.is_base_lost) == Some(true)
    }

    /// They are not: the file replaces something else from now on.
    pub(super) fn set_base_lost(&self) {
        if let Some(row) = &mut *self.journaled.lock() {
            row.is_base_lost = true;
        }
    }

    /// Whether the journal has the file as it is now, and that its commit to `key` with this id may have been tried.
    pub(super) fn is_recorded_with(&self, key: &Key, id: &WriteId) -> bool {
        let has = |(named, ids): &(Key, Vec<WriteId>)| named == key && ids.contains(id);
        let is_named = |row: &Row| row.named.as_ref().is_some_and(has);
        self.is_acknowledged() && self.is_recorded() && self.of_row(is_named) == Some(true)
    }

    /// A row is about to be written. Answers whether there was one already.
    pub(super) fn announce_row(&self) -> bool {
        let mut known = self.journaled.lock();
        let was_there = known.is_some();
        known.get_or_insert_default();
        was_there
    }

    /// The same of one that tells of attributes only.
    pub(super) fn announce_attributes(&self) {
        let mut known = self.journaled.lock();
        if !known.as_ref().is_some_and(|row| row.has_only_attributes) {
            *known = Some(Row { has_only_attributes: true, ..Row::default() });
        }
    }

    /// The row names `key` now, and has these commits; of the bytes it says what it said.
    pub(super) fn set_row_named(&self, key: Key, ids: Vec<WriteId>) {
        if let Some(row) = &mut *self.journaled.lock() {
            row.named = Some((key, ids));
        }
    }

    /// The journal has this row, or none.
    pub(super) fn set_row(&self, row: Option<Row>) {
        *self.journaled.lock() = row;
    }
}
