//! Renames of directories that an earlier mount began and did not end.
//!
//! Owns: ending them, by the list in the journal: what was not copied is copied, and what was copied goes from its old key; or,
//! if the rename had failed, taking the copies away again. Does not own: the rename itself (`rename_dir`).
//!
//! Nobody waits for the answer any more, and both directories may have changed since. So each object is moved only if it still
//! is the one that was to be moved, and never onto something else.

use super::{Fs, FsError, Result};
use crate::store::{Condition, CopyRequest, ErrorKind, StoreError};
use crate::types::{ETag, Key, WriteId};
use crate::write::{RenameRow, Span};
use futures::TryStreamExt;
use std::sync::Arc;

/// Objects that are moved at once.
const IN_FLIGHT: usize = 16;

impl Fs {
    /// Ends the renames that an earlier mount left. What fails is tried again by the next one.
    pub(super) async fn end_left_renames(self: &Arc<Self>) {
        let left = match self.writer.left_renames() {
            Ok(left) => left,
            Err(e) => {
                tracing::error!(error = %e, "renames that an earlier mount left could not be read");
                return;
            }
        };
        for rename in left {
            let (from, to) = (rename.source.clone(), rename.target.clone());
            tracing::info!(%from, %to, undo = rename.is_undone, "ends a rename that an earlier mount left");
            if let Err(e) = self.end_rename(rename).await {
                tracing::error!(%from, %to, error = %e, "a rename could not be ended; the next mount tries again");
            }
        }
    }

    async fn end_rename(self: &Arc<Self>, rename: RenameRow) -> Result<()> {
        let spans = vec![Span::Tree(rename.source.clone()), Span::Tree(rename.target.clone())];
        let _claim = self.claims.claim(spans).await;
        let id = WriteId::new(&rename.id);
        futures::stream::iter(rename.objects.iter().map(Ok))
            .try_for_each_concurrent(IN_FLIGHT, |(key, etag)| {
                let (rename, id) = (&rename, &id);
                async move {
                    let from = Key::parse(key)?;
                    let to = from.rebase(&rename.source, &rename.target)?;
                    let etag = ETag::parse(etag);
                    // A marker may have replaced that of an empty directory, which then stays.
                    if rename.is_undone && to == rename.target {
                        return Ok(());
                    }
                    if rename.is_undone {
                        self.unmove_object(&to, id).await
                    } else {
                        self.move_object(&from, &to, &etag, id).await
                    }
                }
            })
            .await?;
        self.list_around(&rename.source).await;
        self.list_around(&rename.target).await;
        Ok(self.writer.forget_rename(&rename.id).await?)
    }

    /// Moves an object, if it still is the one that was to be moved.
    async fn move_object(&self, from: &Key, to: &Key, etag: &ETag, id: &WriteId) -> Result<()> {
        let is_there = match self.remote.head(to).await? {
            Some(copy) if copy.headers.write_id().as_ref() == Some(id) => true,
            // Somebody has made something else there: what was to be moved stays where it is.
            Some(_) => return Ok(()),
            None => false,
        };
        if !is_there {
            let source = match self.remote.head(from).await? {
                Some(source) if source.version.etag == *etag => source,
                _ => return Ok(()),
            };
            let copy = CopyRequest {
                source: from.clone(),
                source_if_match: Some(etag.clone()),
                source_size: source.version.size,
                destination: to.clone(),
                headers: source.headers.with_write_id(id),
                condition: Condition::IfAbsent,
            };
            match self.store.copy(&copy).await {
                Err(StoreError { kind: ErrorKind::Precondition | ErrorKind::NotFound, .. }) => return Ok(()),
                copied => copied?,
            };
        }
        gone(self.store.delete(from, Some(etag)).await)
    }

    /// Takes a copy away that was made for a rename which failed.
    async fn unmove_object(&self, to: &Key, id: &WriteId) -> Result<()> {
        match self.remote.head(to).await? {
            Some(copy) if copy.headers.write_id().as_ref() == Some(id) => {
                gone(self.store.delete(to, Some(&copy.version.etag)).await)
            }
            _ => Ok(()),
        }
    }

    /// Lists the directory that a directory is in, as far as it is known: it has come or gone there.
    async fn list_around(self: &Arc<Self>, dir: &Key) {
        let mut names: Vec<&str> = dir.as_str().trim_end_matches('/').split('/').collect();
        names.pop();
        let mut at = crate::types::Ino::ROOT;
        for name in names {
            let known = crate::types::Name::parse(name).ok().and_then(|name| self.meta.child(at, &name).ok().flatten());
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
