//! Renaming directories: every key below moves.
//!
//! Owns: the order (copy all, then the catalogue, then delete the old keys), undoing copies when one fails.
//! Does not own: renaming files (`rename`). A journal that resumes after a crash is to come.

use super::dir::new_write_id;
use super::rename::Place;
use super::{Fs, FsError, Result};
use crate::meta::{InodeRow, Marker};
use crate::store::{Condition, CopyRequest, ErrorKind, ListRequest, ListedObject, ObjectHeaders, StoreError};
use crate::types::{ETag, FileKind, Ino, Key, Name, Version};
use crate::write::Span;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// Copies and deletes under way at once.
const IN_FLIGHT: usize = 16;
/// Times that dirty files below are committed before the rename gives up on a directory that is written to all the time.
const SETTLE_ATTEMPTS: u32 = 5;

/// A key that was copied.
#[derive(Debug)]
struct Copied {
    from: Key,
    from_etag: ETag,
    to: Key,
    version: Version,
    headers: ObjectHeaders,
}

impl Fs {
    pub(super) async fn rename_dir(
        self: &Arc<Self>,
        row: InodeRow,
        from: Place,
        to: Place,
        no_replace: bool,
    ) -> Result<()> {
        if to.tree.is_under(&from.tree) && to.tree != from.tree {
            return Err(FsError::Invalid);
        }
        let spans = vec![Span::Tree(from.tree.clone()), Span::Tree(to.tree.clone()), Span::Key(to.file.clone())];
        for attempt in 1.. {
            self.commit_below(row.ino).await?;
            let claim = self.claims.claim(spans.clone()).await;
            if !self.is_dirty_below(row.ino)? {
                let renamed = self.rename_dir_claimed(&from, &to, no_replace).await;
                drop(claim);
                return renamed;
            }
            if attempt == SETTLE_ATTEMPTS {
                break;
            }
        }
        Err(FsError::Internal("files below the directory are written to all the time".to_owned()))
    }

    /// Files below that change an object go to the bucket first; those that the bucket does not have follow their path.
    async fn commit_below(self: &Arc<Self>, dir: Ino) -> Result<()> {
        for ino in self.dirty_objects_below(dir)? {
            self.commit(ino).await?;
        }
        Ok(())
    }

    fn is_dirty_below(&self, dir: Ino) -> Result<bool> {
        Ok(!self.dirty_objects_below(dir)?.is_empty())
    }

    fn dirty_objects_below(&self, dir: Ino) -> Result<Vec<Ino>> {
        let changed = self.writer.owed();
        if changed.is_empty() {
            return Ok(changed);
        }
        let below = self.meta.descendants(dir)?;
        let mut dirty = Vec::new();
        for ino in changed.into_iter().filter(|ino| below.contains(ino)) {
            if self.meta.get(ino)?.is_some_and(|row| row.version.is_some()) {
                dirty.push(ino);
            }
        }
        Ok(dirty)
    }

    async fn rename_dir_claimed(self: &Arc<Self>, from: &Place, to: &Place, no_replace: bool) -> Result<()> {
        let row = self.meta.child(from.parent, &from.name)?.ok_or(FsError::NotFound)?;
        if from.tree == to.tree {
            return Ok(());
        }
        let replaced = self.resolve(to.parent, &to.name).await?;
        if let Some(old) = &replaced {
            self.check_replaceable(old, &to.tree, no_replace).await?;
        }
        let objects = self.list_below(&from.tree).await?;
        for object in &objects {
            object.key.rebase(&from.tree, &to.tree)?;
        }
        if let Some(old) = &replaced {
            self.delete_marker(old, &to.tree).await?;
        }
        let copied = self.copy_all(objects, from, to).await?;
        self.meta.rename(row.ino, to.parent, to.name.clone()).await?;
        for one in &copied {
            self.note_moved(row.ino, &to.tree, one).await?;
        }
        self.note_marker_moved(&row, to, &copied).await?;
        self.delete_sources(copied).await?;
        self.owe_marker_if_emptied(from.parent).await
    }

    async fn check_replaceable(&self, old: &InodeRow, tree: &Key, no_replace: bool) -> Result<()> {
        if no_replace {
            return Err(FsError::Exists);
        }
        if old.attr.kind != FileKind::Dir {
            return Err(FsError::NotDir);
        }
        if self.holds_local_entries(old.ino)? || self.remote.has_keys_below(tree).await? {
            return Err(FsError::NotEmpty);
        }
        Ok(())
    }

    async fn list_below(&self, tree: &Key) -> Result<Vec<ListedObject>> {
        let mut objects = Vec::new();
        let mut continuation = None;
        loop {
            let request = ListRequest { prefix: tree.clone(), delimited: false, continuation, max_keys: 1000 };
            let page = self.store.list(&request).await?;
            objects.extend(page.objects);
            continuation = page.next;
            if continuation.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Copies every key. If one fails, those that were made are deleted again, and nothing has changed.
    async fn copy_all(&self, objects: Vec<ListedObject>, from: &Place, to: &Place) -> Result<Vec<Copied>> {
        let results: Vec<Result<Copied>> = futures::stream::iter(objects)
            .map(|object| self.copy_one(object, &from.tree, &to.tree))
            .buffer_unordered(IN_FLIGHT)
            .collect()
            .await;
        let (mut copied, mut failed) = (Vec::new(), None);
        for result in results {
            match result {
                Ok(one) => copied.push(one),
                Err(e) => failed = Some(e),
            }
        }
        let Some(error) = failed else { return Ok(copied) };
        for one in copied {
            if let Err(e) = self.store.delete(&one.to, Some(&one.version.etag)).await {
                tracing::warn!(key = %one.to, error = %e, "a copy made for a rename that failed could not be deleted");
            }
        }
        Err(error)
    }

    async fn copy_one(&self, object: ListedObject, from: &Key, to: &Key) -> Result<Copied> {
        let target = object.key.rebase(from, to)?;
        let meta = self.store.head(&object.key).await?;
        if meta.version.etag != object.version.etag {
            return Err(FsError::Stale);
        }
        let headers = meta.headers.with_write_id(&new_write_id());
        let written = self
            .store
            .copy(&CopyRequest {
                source: object.key.clone(),
                source_if_match: Some(object.version.etag.clone()),
                source_size: object.version.size,
                destination: target.clone(),
                headers: headers.clone(),
                condition: Condition::IfAbsent,
            })
            .await
            .map_err(|e| match e.kind {
                ErrorKind::Precondition | ErrorKind::NotFound => FsError::Stale,
                _ => FsError::Store(e),
            })?;
        let version = Version { etag: written.etag, last_modified: written.last_modified, size: object.version.size };
        Ok(Copied { from: object.key, from_etag: object.version.etag, to: target, version, headers })
    }

    /// The row of a moved key, if the catalogue has one, shows the version that it has at its new place.
    async fn note_moved(&self, dir: Ino, tree: &Key, moved: &Copied) -> Result<()> {
        let rest = moved.to.as_str().strip_prefix(tree.as_str()).unwrap_or("");
        let mut ino = dir;
        for component in rest.split('/').filter(|c| !c.is_empty()) {
            let Ok(name) = Name::parse(component) else { return Ok(()) };
            let Some(row) = self.meta.child(ino, &name)? else { return Ok(()) };
            ino = row.ino;
        }
        let Some(row) = self.meta.get(ino)?.filter(|_| ino != dir) else { return Ok(()) };
        if moved.to.is_dir() != (row.attr.kind == FileKind::Dir) {
            return Ok(());
        }
        self.note_rewritten(&row, &moved.to, &moved.version);
        self.note_written(&row, moved.version.clone(), &moved.headers).await
    }

    /// The moved directory's own row: with its marker's new version, or without one.
    async fn note_marker_moved(&self, row: &InodeRow, to: &Place, copied: &[Copied]) -> Result<()> {
        let marker = copied.iter().find(|c| c.to == to.tree);
        let version = marker.map(|c| c.version.clone());
        let is_empty = copied.is_empty();
        self.meta
            .change(row.ino, move |row| {
                row.marker = match (&version, row.marker) {
                    (Some(_), _) => Marker::Present,
                    // Nothing in the bucket implies the directory at its new name.
                    (None, _) if is_empty => Marker::Owed,
                    (None, _) => Marker::Implied,
                };
                row.version = version;
            })
            .await?;
        Ok(())
    }

    /// What somebody else wrote under an old key meanwhile stays, and shows up again under the old name.
    async fn delete_sources(&self, copied: Vec<Copied>) -> Result<()> {
        futures::stream::iter(copied.into_iter().map(Ok))
            .try_for_each_concurrent(IN_FLIGHT, |one| async move {
                match self.store.delete(&one.from, Some(&one.from_etag)).await {
                    Err(StoreError { kind: ErrorKind::NotFound | ErrorKind::Precondition, .. }) => Ok(()),
                    result => Ok(result?),
                }
            })
            .await
    }
}
