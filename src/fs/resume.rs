//! Renames of directories that an earlier mount began and did not end.
//!
//! Owns: ending them, by the list in the journal: what was not copied is copied, and what was copied goes from its old key; or,
//! if the rename had failed, taking the copies away again. Does not own: the rename itself (`rename_dir`), when it is tried again
//! (`background`).
//!
//! Nobody waits for the answer any more, and both directories may have changed since. So each object is moved only if it still
//! is the one that was to be moved, and never onto something else. Nothing goes before all was copied: until then the rename can be
//! taken back, and is if the list lacks something that was acknowledged below the directory.

use super::{Fs, FsError, Result};
use crate::store::{Condition, CopyRequest, ErrorKind, ObjectMeta, StoreError};
use crate::types::{ETag, Ino, Key, Name, WriteId};
use crate::write::{RenamePhase, RenameRow, Span};
use futures::{StreamExt, TryStreamExt};
use std::sync::{Arc, PoisonError};

/// Objects that are moved at once.
const IN_FLIGHT: usize = 16;

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
}

impl Fs {
    /// Finds the renames that an earlier mount left, before anything that it acknowledged is uploaded: those whose list lacks some of that
    /// are taken back.
    pub(super) async fn find_left_renames(&self) -> Result<()> {
        let mut left = self.writer.journal().renames()?;
        for rename in &mut left {
            self.take_back_if_owed(rename).await?;
        }
        let ids = left.into_iter().map(|rename| rename.id).collect();
        *self.left_renames.lock().unwrap_or_else(PoisonError::into_inner) = ids;
        Ok(())
    }

    /// What the journal has acknowledged below a directory is not in the list of its objects, or newer than it. Moved without that, the
    /// directory would be in two halves, and show old bytes under the new name.
    async fn take_back_if_owed(&self, rename: &mut RenameRow) -> Result<()> {
        if rename.phase != RenamePhase::Copying {
            return Ok(());
        }
        let Some(dir) = self.known_at(rename.source.as_str()) else { return Ok(()) };
        if self.owed_below(dir)?.is_empty() {
            return Ok(());
        }
        tracing::info!(from = %rename.source, to = %rename.target, "a rename is taken back: files below were written meanwhile");
        self.writer.journal().advance_rename(&rename.id, RenamePhase::Undone).await?;
        rename.phase = RenamePhase::Undone;
        Ok(())
    }

    /// Tries to end the renames that an earlier mount left, and none that this one has begun. Answers whether nothing is left of them.
    pub(super) async fn end_left_renames(self: &Arc<Self>) -> bool {
        let ids = self.left_renames.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if ids.is_empty() {
            return true;
        }
        let left = match self.writer.journal().renames() {
            Ok(left) => left,
            Err(e) => {
                tracing::error!(error = %e, "renames that an earlier mount left could not be read");
                return false;
            }
        };
        let mut is_done = true;
        for rename in left.into_iter().filter(|rename| ids.contains(&rename.id)) {
            let (from, to) = (rename.source.clone(), rename.target.clone());
            tracing::info!(%from, %to, phase = ?rename.phase, "ends a rename that an earlier mount left");
            if let Err(e) = self.end_rename(rename).await {
                is_done = false;
                tracing::error!(%from, %to, error = %e, "a rename could not be ended: it is tried again soon, and by the next mount");
            }
        }
        is_done
    }

    async fn end_rename(self: &Arc<Self>, mut rename: RenameRow) -> Result<()> {
        let spans = vec![Span::Tree(rename.source.clone()), Span::Tree(rename.target.clone())];
        let _claim = self.claims.claim(spans).await;
        // Somebody may have gone on in the directory since it was tried last.
        self.take_back_if_owed(&mut rename).await?;
        let objects = std::mem::take(&mut rename.objects);
        let rename = &rename;
        let ended = futures::stream::iter(objects).map(|(key, etag, modified)| async move {
            let from = Key::parse(&key)?;
            let to = from.rebase(&rename.source, &rename.target)?;
            let moved = Moving { from, to, etag: ETag::parse(&etag), modified };
            self.end_move(rename, moved).await
        });
        let going: Vec<Option<(Key, ETag)>> = ended.buffer_unordered(IN_FLIGHT).try_collect().await?;
        if rename.phase == RenamePhase::Copying {
            self.writer.journal().advance_rename(&rename.id, RenamePhase::Deleting).await?;
        }
        futures::stream::iter(going.into_iter().flatten().map(Ok))
            .try_for_each_concurrent(IN_FLIGHT, |(key, etag): (Key, ETag)| async move {
                gone(self.store.delete(&key, Some(&etag)).await)
            })
            .await?;
        self.list_around(&rename.source).await;
        self.list_around(&rename.target).await;
        Ok(self.writer.journal().forget_rename(&rename.id).await?)
    }

    /// Copies an object if that is to be done still. Answers the key and version that are to go then.
    async fn end_move(&self, rename: &RenameRow, moved: Moving) -> Result<Option<(Key, ETag)>> {
        let id = WriteId::new(&rename.id);
        // Of what is gone from its old key the copy is the last one.
        let Some(source) = self.remote.head(&moved.from).await? else { return Ok(None) };
        // A copy that is taken back goes, be it that somebody has written to what was copied: nobody is to find the old bytes there.
        if rename.phase != RenamePhase::Undone && !moved.is_source(&source) {
            return Ok(None);
        }
        let copy = self.remote.head(&moved.to).await?;
        let ours = copy.as_ref().filter(|copy| copy.headers.write_id().as_ref() == Some(&id));
        match (rename.phase, &copy, ours) {
            // A marker may have replaced that of an empty directory, which then stays.
            (RenamePhase::Undone, _, Some(ours)) if moved.to != rename.target => {
                // Of what somebody has begun to change there, it has bytes.
                if let Some(staged) = self.known_at(moved.to.as_str()).and_then(|ino| self.writer.get(ino)) {
                    self.writer.fill(&staged).await?;
                }
                let etag = ours.version.etag.clone();
                Ok(Some((moved.to, etag)))
            }
            (RenamePhase::Copying, None, _) => match self.copy_moved(&moved, source, &id).await {
                Err(StoreError { kind: ErrorKind::Precondition | ErrorKind::NotFound, .. }) => Ok(None),
                copied => {
                    copied?;
                    Ok(Some((moved.from, moved.etag)))
                }
            },
            (RenamePhase::Copying | RenamePhase::Deleting, _, Some(_)) => Ok(Some((moved.from, moved.etag))),
            // Somebody has made something else there, or taken it away: what was to be moved stays where it is.
            _ => Ok(None),
        }
    }

    async fn copy_moved(
        &self,
        moved: &Moving,
        source: ObjectMeta,
        id: &WriteId,
    ) -> std::result::Result<(), StoreError> {
        let copy = CopyRequest {
            source: moved.from.clone(),
            source_if_match: Some(moved.etag.clone()),
            source_size: source.version.size,
            destination: moved.to.clone(),
            headers: source.headers.with_write_id(id),
            condition: Condition::IfAbsent,
        };
        self.store.copy(&copy).await.map(drop)
    }

    /// Lists the directory that a directory is in, as far as it is known: it has come or gone there.
    async fn list_around(self: &Arc<Self>, dir: &Key) {
        let around = dir.as_str().trim_end_matches('/').rsplit_once('/').map_or("", |(around, _)| around);
        let Some(at) = self.known_at(around) else { return };
        if let Err(e) = self.list(at).await {
            tracing::debug!(dir = %at, error = %e, "could not be listed after a rename was ended");
        }
    }

    /// The inode at a path of key components, as far as the catalogue knows.
    fn known_at(&self, path: &str) -> Option<Ino> {
        path.split('/').filter(|component| !component.is_empty()).try_fold(Ino::ROOT, |at, component| {
            let name = Name::from_component(component).ok()?;
            Some(self.meta.child(at, &name).ok()??.ino)
        })
    }
}

/// What is not there, or is something else by now, stays.
fn gone(deleted: std::result::Result<(), StoreError>) -> Result<()> {
    match deleted {
        Err(StoreError { kind: ErrorKind::NotFound | ErrorKind::Precondition, .. }) => Ok(()),
        deleted => deleted.map_err(FsError::Store),
    }
}
