//! Objects of a directory that moves: for a while each is in the bucket twice, and one of the two goes.
//!
//! Owns: that nothing goes which somebody changes here; whoever has open or has copied what goes, goes on with the other one.
//! Does not own: which of the two is to go (`rename_dir`, `resume`).
//!
//! The caller has claimed both keys, which keeps commits away. It keeps nobody from opening a file and writing to it.

use super::{Fs, FsError, Result};
use crate::meta::InodeRow;
use crate::store::{ErrorKind, StoreError};
use crate::types::{FileKind, Ino, Key, ObjectRef};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// An object that is to go.
#[derive(Debug)]
pub(super) struct Double {
    /// What there is of it.
    pub(super) gone: ObjectRef,
    /// The same bytes under the other key.
    pub(super) stays: ObjectRef,
}

impl Double {
    /// The other one is to go instead.
    pub(super) fn turned(self) -> Double {
        Double { gone: self.stays, stays: self.gone }
    }
}

/// What became of an object that was to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is not there any more, or something else is.
    Gone,
    /// It stays: somebody changes it here, or has it open to do so.
    InUse,
    /// The bucket does not answer.
    NotTried,
}

impl Fs {
    /// Deletes one of many objects that are there twice, unless somebody changes it here, or the bucket was found not to answer
    /// (`is_down`): each of the others would wait for that as long. What somebody else has made of it stays.
    ///
    /// # Errors
    /// What the store says, the catalogue or the journal.
    pub(super) async fn delete_double(self: &Arc<Self>, double: &Double, is_down: &AtomicBool) -> Result<Outcome> {
        if is_down.load(Ordering::Relaxed) {
            return Ok(Outcome::NotTried);
        }
        let deleted = self.delete_unless_in_use(double).await;
        is_down.fetch_or(deleted.as_ref().is_err_and(FsError::is_outage), Ordering::Relaxed);
        deleted
    }

    async fn delete_unless_in_use(self: &Arc<Self>, double: &Double) -> Result<Outcome> {
        let Double { gone, stays } = double;
        let known = self.file_at(&gone.key)?;
        if known.as_ref().is_some_and(|row| self.is_in_use(row.ino)) {
            tracing::info!(key = %gone.key, "is being changed here: it stays where it is");
            return Ok(Outcome::InUse);
        }
        // Before it goes: nobody who is about to close a copy of it may look for its bytes there.
        self.writer.move_copies(gone, stays);
        match self.store.delete(&gone.key, Some(&gone.version.etag)).await {
            Err(StoreError { kind: ErrorKind::Precondition, .. }) => return Ok(Outcome::Gone),
            Err(StoreError { kind: ErrorKind::NotFound, .. }) => {}
            deleted => deleted?,
        }
        self.turn_to_other(known, double).await?;
        Ok(Outcome::Gone)
    }

    /// An object is gone, which the catalogue shows as `known`: its name goes, and whoever has it open reads on where its bytes are.
    /// So does whoever has begun to write to it in this moment: he keeps the name, and his commit makes the object again, with what it
    /// keeps of these bytes.
    ///
    /// # Errors
    /// What the catalogue or the journal says.
    pub(super) async fn turn_to_other(self: &Arc<Self>, known: Option<InodeRow>, double: &Double) -> Result<()> {
        let Double { gone, stays } = double;
        // Somebody may have looked it up since.
        let known = if known.is_none() { self.file_at(&gone.key)? } else { known };
        let Some(row) = known else { return Ok(()) };
        // The name first: whoever writes to it after this hears that it is gone, and whoever was earlier is seen below.
        if let (Some(parent), Some(name)) = (row.parent, row.name.clone()) {
            let asked = self.meta.observe_in(parent)?;
            match self.apply_found(parent, name, None, asked).await {
                // Its directory is gone as well.
                Err(FsError::Stale) => {}
                told => drop(told?),
            }
        }
        let is_known = row.version.as_ref().is_some_and(|version| version.etag == gone.version.etag);
        if !is_known {
            return Ok(());
        }
        self.note_rewritten(&row, gone, &stays.key, &stays.version);
        let Some(staged) = self.writer.get(row.ino) else { return Ok(()) };
        // As long as nobody can take it away: of what he keeps of that object nobody else knows.
        if staged.is_changed()
            && let Err(e) = self.writer.fill(&staged).await
        {
            tracing::warn!(key = %gone.key, error = %e, "bytes of a file that is being changed are in the bucket still");
        }
        if staged.is_journaled() {
            // It must name the bytes that are there: what it lacks of them is found nowhere else.
            self.journal_anew(&staged, None).await?;
        }
        Ok(())
    }

    /// The file that the catalogue shows at a key.
    pub(super) fn file_at(&self, key: &Key) -> Result<Option<InodeRow>> {
        let Some(ino) = self.known_at(key.as_str())? else { return Ok(None) };
        Ok(self.meta.get(ino)?.filter(|row| row.attr.kind != FileKind::Dir && self.has_key(row, key)))
    }

    /// Whether somebody changes a file here, or may begin to at any moment.
    fn is_in_use(&self, ino: Ino) -> bool {
        let is_owed = self.writer.get(ino).is_some_and(|staged| staged.is_owed());
        is_owed || self.meta.pins().is_pinned(ino) && self.handles.of(ino).iter().any(|handle| handle.writable)
    }
}
