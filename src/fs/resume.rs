//! Renames of directories that an earlier mount began and did not end.
//!
//! Owns: ending them, by the list in the journal: what was not copied is copied, and what was copied goes from its old key; or,
//! if the rename had failed, taking the copies away again. Telling the journal of those that failed in this mount, if it could not
//! be told then. Does not own: the rename itself (`rename_dir`), what may go (`doubles`), when it is tried again (`background`).
//!
//! Nobody waits for the answer any more, and both directories may have changed since. So each object is moved only if it still
//! is the one that was to be moved, and never onto something else. Nothing goes before all was copied: until then the rename can be
//! taken back, and is if somebody has written below the directory what the list lacks. What is written to later stays where it is.

use super::doubles::{Double, Outcome};
use super::{Fs, Result};
use crate::meta::InodeRow;
use crate::store::{Condition, CopyRequest, ErrorKind, ObjectMeta, StoreError};
use crate::types::{ETag, Ino, Key, Name, ObjectRef, Version, WriteId};
use crate::write::{RenamePhase, RenameRow, Span};
use futures::{StreamExt, TryStreamExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Objects that are moved at once.
const IN_FLIGHT: usize = 16;

/// Key, ETag and time of the last change of what is to be moved, as the journal has them.
type Listed = (String, String, Option<i64>);

/// An object that is to be moved.
struct Moving {
    from: Key,
    to: Key,
    etag: ETag,
    modified: Option<i64>,
}

impl Moving {
    /// Whether this is it still. The ETag alone does not tell: whoever writes the same bytes again has the same one.
    fn is_source(&self, there: &ObjectMeta) -> bool {
        let modified = there.version.last_modified.map(|at| at.secs());
        there.version.etag == self.etag && (self.modified.is_none() || modified == self.modified)
    }

    /// The version under the old key, of which there is this copy.
    fn source_of(&self, copy: &Version) -> ObjectRef {
        ObjectRef { key: self.from.clone(), version: Version { etag: self.etag.clone(), ..copy.clone() } }
    }

    /// The copy.
    fn copied(&self, version: Version) -> ObjectRef {
        ObjectRef { key: self.to.clone(), version }
    }
}

/// Whether an object is a copy that the rename of this id has made.
fn is_made_by(copy: &ObjectMeta, id: &WriteId) -> bool {
    copy.headers.write_id().as_ref() == Some(id)
}

impl Fs {
    /// Finds the renames that an earlier mount left, before anything that it acknowledged is uploaded: those whose list lacks some of that
    /// are taken back.
    pub(super) async fn find_left_renames(&self) -> Result<()> {
        let mut left = self.writer.journal().renames()?;
        for rename in &mut left {
            self.take_back_if_owed(rename).await?;
        }
        *self.left_renames() = left.into_iter().map(|rename| rename.id).collect();
        Ok(())
    }

    /// Renames that are to be ended, by their ids.
    fn left_renames(&self) -> MutexGuard<'_, Vec<String>> {
        self.left_renames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed_renames(&self) -> MutexGuard<'_, Vec<String>> {
        self.failed_renames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many renames are to be ended.
    pub(super) fn left_renames_count(&self) -> usize {
        self.left_renames().len()
    }

    /// A rename has failed, and copies may be left of it.
    pub(super) fn note_left_rename(&self, id: &WriteId) {
        self.left_renames().push(id.as_str().to_owned());
    }

    /// A rename has failed, and the journal, which has it as one that goes on, could not be told.
    pub(super) fn note_failed_rename(&self, id: &WriteId) {
        self.failed_renames().push(id.as_str().to_owned());
    }

    /// Tells the journal of the renames that have failed, as far as it could not be told before: the next mount would carry them out. From
    /// then on they are ended like those that an earlier mount left. Before that nobody does, as nobody may go on with them.
    pub(super) async fn tell_failed_renames(&self) {
        let failed = self.failed_renames().clone();
        for id in failed {
            if let Err(e) = self.writer.journal().advance_rename(&id, RenamePhase::Undone).await {
                tracing::debug!(error = %e, "the journal cannot be told of a rename that failed");
                return;
            }
            self.failed_renames().retain(|other| *other != id);
            self.left_renames().push(id);
        }
    }

    /// What was written below a directory, or is being written, is not in the list of its objects, or newer than it. Moved without that,
    /// the directory would be in two halves, and show old bytes under the new name.
    async fn take_back_if_owed(&self, rename: &mut RenameRow) -> Result<()> {
        if rename.phase != RenamePhase::Copying {
            return Ok(());
        }
        let Some(dir) = self.known_at(rename.source.as_str())? else { return Ok(()) };
        if self.owed_below(dir)?.is_empty() {
            return Ok(());
        }
        tracing::info!(from = %rename.source, to = %rename.target, "a rename is taken back: files below were written meanwhile");
        self.writer.journal().advance_rename(&rename.id, RenamePhase::Undone).await?;
        rename.phase = RenamePhase::Undone;
        Ok(())
    }

    /// Tries to end the renames that an earlier mount left, and none that this one has begun, unless it has failed. Those that could not be
    /// ended are left still.
    pub(super) async fn end_left_renames(self: &Arc<Self>) {
        let ids = self.left_renames().clone();
        let known = match self.writer.journal().renames() {
            Ok(known) => known,
            Err(e) => {
                tracing::error!(error = %e, "renames that an earlier mount left could not be read");
                return;
            }
        };
        let mut failed = Vec::new();
        for rename in known.into_iter().filter(|rename| ids.contains(&rename.id)) {
            let (id, from, to) = (rename.id.clone(), rename.source.clone(), rename.target.clone());
            tracing::info!(%from, %to, phase = ?rename.phase, "ends a rename that an earlier mount left, or that has failed");
            if let Err(e) = self.end_rename(rename).await {
                tracing::error!(%from, %to, error = %e, "a rename could not be ended: it is tried again soon, and by the next mount");
                failed.push(id);
            }
        }
        // Others may have come meanwhile.
        self.left_renames().retain(|id| failed.contains(id) || !ids.contains(id));
    }

    async fn end_rename(self: &Arc<Self>, mut rename: RenameRow) -> Result<()> {
        let spans = vec![Span::Tree(rename.source.clone()), Span::Tree(rename.target.clone())];
        let _claim = self.claims.claim(spans).await;
        // Somebody may have gone on in the directory since it was tried last.
        self.take_back_if_owed(&mut rename).await?;
        let objects = std::mem::take(&mut rename.objects);
        let mut doubles = self.find_doubles(&rename, &objects).await?;
        if rename.phase == RenamePhase::Copying {
            // And while the copies were made, which may have taken long.
            self.take_back_if_owed(&mut rename).await?;
            if rename.phase == RenamePhase::Undone {
                doubles = self.find_doubles(&rename, &objects).await?;
            } else {
                self.writer.journal().advance_rename(&rename.id, RenamePhase::Deleting).await?;
            }
        }
        // A mount that had come to the deletes has shown the new names: they stay, whatever becomes of the old ones.
        self.delete_doubles(doubles, rename.phase == RenamePhase::Copying).await?;
        self.list_around(&rename.source).await;
        self.list_around(&rename.target).await;
        // Something may have stayed where all else has gone.
        let left = if rename.phase == RenamePhase::Undone { &rename.target } else { &rename.source };
        self.list_known(left.as_str()).await;
        Ok(self.writer.journal().forget_rename(&rename.id).await?)
    }

    /// Looks at each object, and copies what is to be copied still. Answers those that are to go then.
    async fn find_doubles(self: &Arc<Self>, rename: &RenameRow, objects: &[Listed]) -> Result<Vec<Double>> {
        let found = futures::stream::iter(0..objects.len()).map(|index| async move {
            let (key, etag, modified) = &objects[index];
            let from = Key::parse(key)?;
            let to = from.rebase(&rename.source, &rename.target)?;
            let moved = Moving { from, to, etag: ETag::parse(etag), modified: *modified };
            self.find_double(rename, moved).await
        });
        let found: Vec<Option<Double>> = found.buffer_unordered(IN_FLIGHT).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Copies an object if that is to be done still. Answers what is to go then.
    async fn find_double(self: &Arc<Self>, rename: &RenameRow, moved: Moving) -> Result<Option<Double>> {
        let id = WriteId::new(&rename.id);
        let Some(source) = self.remote.head(&moved.from).await? else {
            // The copy is the last one.
            self.turn_to_copy(&moved, &id).await?;
            return Ok(None);
        };
        let is_source = moved.is_source(&source);
        // Somebody has made something else there, perhaps after he had taken away what was copied: the copy may be the last one.
        if !is_source {
            return Ok(None);
        }
        let copy = self.remote.head(&moved.to).await?;
        let ours = copy.as_ref().filter(|copy| is_made_by(copy, &id)).map(|copy| copy.version.clone());
        match (rename.phase, copy, ours) {
            // A marker may have replaced that of an empty directory, which then stays.
            (RenamePhase::Undone, _, Some(ours)) if moved.to != rename.target => {
                Ok(Some(Double { gone: moved.copied(ours), stays: moved.source_of(&source.version) }))
            }
            (RenamePhase::Copying, None, _) => match self.copy_moved(&moved, source, &id).await {
                Err(StoreError { kind: ErrorKind::Precondition | ErrorKind::NotFound, .. }) => Ok(None),
                copied => {
                    let copied = copied?;
                    Ok(Some(Double { gone: moved.source_of(&copied), stays: moved.copied(copied) }))
                }
            },
            (RenamePhase::Copying | RenamePhase::Deleting, _, Some(ours)) => {
                Ok(Some(Double { gone: moved.source_of(&source.version), stays: moved.copied(ours) }))
            }
            // Somebody has made something else there, or taken it away: what was to be moved stays where it is.
            _ => Ok(None),
        }
    }

    /// The old key is gone. Somebody may have begun to write there when it went, and the journal may know his file with bytes of the
    /// version that was there: the copy has them.
    async fn turn_to_copy(self: &Arc<Self>, moved: &Moving, id: &WriteId) -> Result<()> {
        let is_it = |row: &InodeRow| row.version.as_ref().is_some_and(|known| known.etag == moved.etag);
        let Some(row) = self.file_at(&moved.from)?.filter(is_it) else { return Ok(()) };
        let Some(copy) = self.remote.head(&moved.to).await?.filter(|copy| is_made_by(copy, id)) else { return Ok(()) };
        let double = Double { gone: moved.source_of(&copy.version), stays: moved.copied(copy.version) };
        self.turn_to_other(Some(row), &double).await
    }

    /// Deletes what is to go. What somebody changes here stays, and then its copy goes instead, if so wanted (`or_copies`): there is one
    /// name for it.
    async fn delete_doubles(self: &Arc<Self>, doubles: Vec<Double>, or_copies: bool) -> Result<()> {
        let (is_down, is_in_vain) = (&AtomicBool::new(false), &AtomicBool::new(false));
        let deleted = futures::stream::iter(doubles).map(|double| async move {
            if is_in_vain.load(Ordering::Relaxed) {
                return Ok(Outcome::NotTried);
            }
            let outcome = self.delete_double(&double, is_down).await?;
            if or_copies && outcome == Outcome::InUse {
                return self.delete_double(&double.turned(), is_down).await;
            }
            Ok(outcome)
        });
        // Those that are under way come to their end: whoever has their objects open is turned to others. One that cannot be deleted does
        // not keep the others; if none can, no more are begun.
        let mut deleted = std::pin::pin!(deleted.buffer_unordered(IN_FLIGHT));
        let (mut done, mut failed) = (0, Vec::new());
        while let Some(one) = deleted.next().await {
            match one {
                Ok(Outcome::NotTried) => {}
                Ok(_) => done += 1,
                Err(e) => failed.push(e),
            }
            is_in_vain.store(done == 0 && failed.len() >= IN_FLIGHT, Ordering::Relaxed);
        }
        failed.pop().map_or(Ok(()), Err)
    }

    async fn copy_moved(
        &self,
        moved: &Moving,
        source: ObjectMeta,
        id: &WriteId,
    ) -> std::result::Result<Version, StoreError> {
        let size = source.version.size;
        let copy = CopyRequest {
            source: moved.from.clone(),
            source_if_match: Some(moved.etag.clone()),
            source_size: size,
            destination: moved.to.clone(),
            headers: source.headers.with_write_id(id),
            condition: Condition::IfAbsent,
        };
        let written = self.store.copy(&copy).await?;
        Ok(Version { etag: written.etag, last_modified: written.last_modified, size })
    }

    /// Lists the directory that a directory is in, as far as it is known: it has come or gone there.
    async fn list_around(self: &Arc<Self>, dir: &Key) {
        let around = dir.as_str().trim_end_matches('/').rsplit_once('/').map_or("", |(around, _)| around);
        self.list_known(around).await;
    }

    async fn list_known(self: &Arc<Self>, dir: &str) {
        let Ok(Some(at)) = self.known_at(dir) else { return };
        if let Err(e) = self.list(at).await {
            tracing::debug!(dir = %at, error = %e, "could not be listed after a rename was ended");
        }
    }

    /// The inode at a path of key components, as far as the catalogue knows.
    pub(super) fn known_at(&self, path: &str) -> Result<Option<Ino>> {
        let mut at = Ino::ROOT;
        let path = path.strip_suffix('/').unwrap_or(path);
        for component in path.split('/').filter(|_| !path.is_empty()) {
            let Ok(name) = Name::from_component(component) else { return Ok(None) };
            let Some(row) = self.meta.child(at, &name)? else { return Ok(None) };
            at = row.ino;
        }
        Ok(Some(at))
    }
}
