//! What is being fetched, and what waits for its reader.
//!
//! Owns: finding it, so that each byte is fetched once however many readers ask. Does not own: keeping it (`stream`, or whoever
//! reads), fetching (`fetch`).

use super::budget::Room;
use super::fill::Fill;
use super::unit::GET_MAX;
use crate::types::{ByteRange, ObjectRef};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Objects from which on those of which nothing is left are forgotten.
const OBJECTS_MAX: usize = 256;

/// A version of an object, as a number: a digest of key, ETag and size. Last-Modified is left out: it may become known later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct VersionId(u128);

impl std::fmt::Display for VersionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl VersionId {
    /// As it is displayed.
    pub(super) fn parse(digits: &str) -> Option<VersionId> {
        let id = u128::from_str_radix(digits, 16).ok().map(VersionId)?;
        (id.to_string() == digits).then_some(id)
    }

    #[cfg(test)]
    pub(super) fn from_number(number: u128) -> VersionId {
        VersionId(number)
    }

    pub(super) fn of(object: &ObjectRef) -> VersionId {
        let (key, etag) = (object.key.as_str().as_bytes(), object.version.etag.as_str().as_bytes());
        let mut digest = Sha256::new();
        for part in [key, &[0], etag, &[0], &object.version.size.to_le_bytes()] {
            digest.update(part);
        }
        let mut id = [0; 16];
        id.copy_from_slice(&digest.finalize()[..16]);
        VersionId(u128::from_le_bytes(id))
    }
}

/// By version and first byte. An entry is worth as much as the fill that it names: nobody keeps that for the table's sake.
#[derive(Debug, Default)]
pub(super) struct InFlight(Mutex<HashMap<VersionId, BTreeMap<u64, Weak<Fill>>>>);

impl InFlight {
    /// What has, or will have, the byte at `offset`.
    pub(super) fn find(&self, id: VersionId, offset: u64) -> Option<Arc<Fill>> {
        find(&self.lock(), id, offset)
    }

    /// The first byte from `range.start()` on that something has, or will have. Its end if nothing has.
    pub(super) fn next(&self, id: VersionId, range: ByteRange) -> u64 {
        let table = self.lock();
        let of_object = table.get(&id);
        let mut later = of_object.into_iter().flat_map(|fills| fills.range(range.start()..range.end()));
        later.find(|(_, fill)| fill.strong_count() > 0).map_or(range.end(), |(start, _)| *start)
    }

    /// Enters what is about to be fetched for the byte at `offset` and others in `range`, unless somebody else has been first with
    /// that byte: then his is answered, and `false`. Of two who ask at the same time the later asks for what the first does not.
    pub(super) fn enter(&self, id: VersionId, offset: u64, range: ByteRange, room: Room) -> (Arc<Fill>, bool) {
        let mut table = self.lock();
        if let Some(found) = find(&table, id, offset) {
            return (found, false);
        }
        if table.len() >= OBJECTS_MAX {
            table.retain(|_, fills| fills.values().any(|fill| fill.strong_count() > 0));
        }
        let of_object = table.entry(id).or_default();
        of_object.retain(|_, fill| fill.strong_count() > 0);
        let next = of_object.range(offset + 1..).next().map_or(range.end(), |(start, _)| *start);
        let range = ByteRange::new(range.start(), range.end().min(next)).unwrap_or(range);
        let fill = Arc::new(Fill::new(range, room));
        of_object.insert(fill.range().start(), Arc::downgrade(&fill));
        (fill, true)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VersionId, BTreeMap<u64, Weak<Fill>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(table: &HashMap<VersionId, BTreeMap<u64, Weak<Fill>>>, id: VersionId, offset: u64) -> Option<Arc<Fill>> {
    // None is longer, so none that begins earlier has it.
    let around = table.get(&id)?.range(offset.saturating_sub(GET_MAX)..=offset).rev();
    around.filter_map(|(_, fill)| fill.upgrade()).find(|fill| fill.range().end() > offset && !fill.has_failed())
}
