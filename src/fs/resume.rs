//! Renames of directories that an earlier mount began and did not end.
//!
//! Owns: ending them, by the list in the journal: what was not copied is copied, and what was copied goes from its old key; or,
//! if the rename had failed, taking the copies away again. Does not own: the rename itself (`rename_dir`).
//!
//! Nobody waits for the answer any more, and both directories may have changed since. So each object is moved only if it still
//! is the one that was to be moved, and never onto something else.

use super::{Fs, FsError, Result};
use crate::store::{Condition, CopyRequest, ErrorKind, ObjectMeta, StoreError};
use crate::types::{ETag, Ino, Key, Name, WriteId};
use crate::write::{RenamePhase, RenameRow, Span};
use futures::TryStreamExt;
use std::sync::Arc;

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
    /// Ends the renames that an earlier mount left. What fails is tried again by the next one.
    pub(super) async fn end_left_renames(self: &Arc<Self>) {
        let left = match self.writer.journal().renames() {
            Ok(left) => left,
            Err(e) => {
                tracing::error!(error = %e, "renames that an earlier mount left could not be read");
                return;
            }
        };
        for rename in left {
            let (from, to) = (rename.source.clone(), rename.target.clone());
            tracing::info!(%from, %to, phase = ?rename.phase, "ends a rename that an earlier mount left");
            if let Err(e) = self.end_rename(rename).await {
                tracing::error!(%from, %to, error = %e, "a rename could not be ended; the next mount tries again");
            }
        }
    }

    async fn end_rename(self: &Arc<Self>, rename: RenameRow) -> Result<()> {
        let spans = vec![Span::Tree(rename.source.clone()), Span::Tree(rename.target.clone())];
        let _claim = self.claims.claim(spans).await;
        futures::stream::iter(rename.objects.iter().map(Ok))
            .try_for_each_concurrent(IN_FLIGHT, |(key, etag, modified)| {
                let rename = &rename;
                async move {
                    let from = Key::parse(key)?;
                    let to = from.rebase(&rename.source, &rename.target)?;
                    let moved = Moving { from, to, etag: ETag::parse(etag), modified: *modified };
                    self.end_move(rename, &moved).await
                }
            })
            .await?;
        self.list_around(&rename.source).await;
        self.list_around(&rename.target).await;
        Ok(self.writer.journal().forget_rename(&rename.id).await?)
    }

    async fn end_move(&self, rename: &RenameRow, moved: &Moving) -> Result<()> {
        let id = WriteId::new(&rename.id);
        let there = self.remote.head(&moved.from).await?;
        let Some(source) = there.filter(|source| moved.is_source(source)) else { return Ok(()) };
        let copy = self.remote.head(&moved.to).await?;
        let ours = copy.as_ref().filter(|copy| copy.headers.write_id().as_ref() == Some(&id));
        match (rename.phase, &copy, ours) {
            // A marker may have replaced that of an empty directory, which then stays.
            (RenamePhase::Undone, _, Some(ours)) if moved.to != rename.target => {
                gone(self.store.delete(&moved.to, Some(&ours.version.etag)).await)
            }
            (RenamePhase::Copying, None, _) => match self.copy_moved(moved, source, &id).await {
                Err(StoreError { kind: ErrorKind::Precondition | ErrorKind::NotFound, .. }) => Ok(()),
                copied => {
                    copied?;
                    gone(self.store.delete(&moved.from, Some(&moved.etag)).await)
                }
            },
            (RenamePhase::Copying | RenamePhase::Deleting, _, Some(_)) => {
                gone(self.store.delete(&moved.from, Some(&moved.etag)).await)
            }
            // Somebody has made something else there, or taken it away: what was to be moved stays where it is.
            _ => Ok(()),
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
        let mut names: Vec<&str> = dir.as_str().trim_end_matches('/').split('/').collect();
        names.pop();
        let mut at = Ino::ROOT;
        for name in names {
            let known = Name::from_component(name).ok().and_then(|name| self.meta.child(at, &name).ok().flatten());
            let Some(row) = known else { return };
            at = row.ino;
        }
        if let Err(e) = self.list(at).await {
            tracing::debug!(dir = %at, error = %e, "could not be listed after a rename was ended");
        }
    }
}

/// What is not there, or is something else by now, stays.
fn gone(deleted: std::result::Result<(), StoreError>) -> Result<()> {
    match deleted {
        Err(StoreError { kind: ErrorKind::NotFound | ErrorKind::Precondition, .. }) => Ok(()),
        deleted => deleted.map_err(FsError::Store),
    }
}
