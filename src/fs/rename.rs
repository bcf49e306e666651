//! Renaming files.
//!
//! Owns: what rename(2) means for files, not yet uploaded ones included. Does not own: directories (`rename_dir`).
//!
//! The bucket has both names before the old one goes: a rename that fails half way leaves at least one of them.

use super::dir::new_write_id;
use super::lookup::is_reserved;
use super::{Fs, FsError, Result, to_the_end};
use crate::meta::InodeRow;
use crate::store::{Condition, CopyRequest, ErrorKind, ObjectHeaders, StoreError};
use crate::types::{FileKind, Ino, Key, Name, ObjectRef, Version};
use crate::write::Span;
use std::sync::Arc;

/// One side of a rename: a name in a directory, and the keys that it has as a file and as a directory.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) file: Key,
    pub(super) tree: Key,
}

impl Fs {
    /// RENAME. `no_replace`: fail if the new name is taken (RENAME_NOREPLACE).
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::NotEmpty`], [`FsError::IsDir`], [`FsError::NotDir`] as rename(2) says;
    /// [`FsError::Stale`] if either side was changed elsewhere.
    pub async fn rename(self: &Arc<Self>, from: (Ino, Name), to: (Ino, Name), no_replace: bool) -> Result<()> {
        self.writable()?;
        let fs = Arc::clone(self);
        to_the_end(async move {
            if is_reserved(to.0, &to.1) {
                return Err(FsError::Reserved);
            }
            let (from, to) = (fs.place(from)?, fs.place(to)?);
            let row = fs.resolve(from.parent, &from.name).await?.ok_or(FsError::NotFound)?;
            if row.attr.kind == FileKind::Dir {
                fs.rename_dir(row, from, to, no_replace).await
            } else {
                fs.rename_file(row, from, to, no_replace).await
            }
        })
        .await
    }

    fn place(&self, (parent, name): (Ino, Name)) -> Result<Place> {
        let dir = self.dir_key(&self.dir_row(parent)?)?;
        let file = dir.child(&name)?;
        let tree = file.to_dir()?;
        Ok(Place { parent, name, file, tree })
    }

    async fn rename_file(self: &Arc<Self>, row: InodeRow, from: Place, to: Place, no_replace: bool) -> Result<()> {
        // What is dirty over an object goes to the bucket first; a file that the bucket does not have is renamed here only.
        if row.version.is_some() {
            self.commit(row.ino).await?;
        }
        let spans = vec![Span::Key(from.file.clone()), Span::Tree(to.tree.clone()), Span::Key(to.file.clone())];
        let _claim = self.claims.claim(spans).await;
        let row = self.meta.child(from.parent, &from.name)?.ok_or(FsError::NotFound)?;
        let replaced = self.resolve(to.parent, &to.name).await?;
        match &replaced {
            Some(_) if no_replace => return Err(FsError::Exists),
            Some(old) if old.ino == row.ino => return Ok(()),
            Some(old) if old.attr.kind == FileKind::Dir => return Err(FsError::IsDir),
            _ => {}
        }
        if let Some(old) = &replaced {
            self.keep_for_readers(old, &to.file).await?;
        }
        if row.version.is_none() {
            self.rename_local(&row, &to, replaced.as_ref()).await?;
        } else {
            self.rename_object(&row, &from, &to, replaced.as_ref()).await?;
        }
        if let Some(old) = replaced {
            self.forget_staged(old.ino).await?;
        }
        self.owe_marker_if_emptied(from.parent).await
    }

    /// The bucket does not have the file yet: its commit will go to the new name, and replace what is there now. So saving
    /// by rename costs one PUT.
    async fn rename_local(&self, row: &InodeRow, to: &Place, replaced: Option<&InodeRow>) -> Result<()> {
        let object = replaced.and_then(|old| Some(ObjectRef { key: to.file.clone(), version: old.version.clone()? }));
        if let (Some(object), Some(staged)) = (&object, self.writer.get(row.ino)) {
            staged.rebase(object.clone());
        }
        self.meta.rename(row.ino, to.parent, to.name.clone()).await?;
        if let Some(object) = object {
            self.meta.change(row.ino, move |row| row.version = Some(object.version)).await?;
        }
        // A journal row remembers the key: it must name the new one.
        if self.writer.get(row.ino).is_some_and(|s| s.is_journaled()) {
            self.queue_commit(row.ino);
        }
        Ok(())
    }

    async fn rename_object(
        self: &Arc<Self>,
        row: &InodeRow,
        from: &Place,
        to: &Place,
        replaced: Option<&InodeRow>,
    ) -> Result<()> {
        let condition = match replaced.and_then(|old| old.version.as_ref()) {
            Some(version) => Condition::IfMatch(version.etag.clone()),
            None => Condition::IfAbsent,
        };
        let (version, headers) = match self.copy_object(row, &from.file, &to.file, condition).await {
            Err(FsError::Store(StoreError { kind: ErrorKind::Precondition | ErrorKind::NotFound, .. }))
            | Err(FsError::Stale) => {
                self.look_again(row, &from.file).await?;
                if let Some(old) = replaced {
                    self.look_again(old, &to.file).await?;
                }
                return Err(FsError::Stale);
            }
            result => result?,
        };
        self.meta.rename(row.ino, to.parent, to.name.clone()).await?;
        self.note_rewritten(row, &to.file, &version);
        self.note_written(row, version, &headers).await?;
        self.delete_source(row, &from.file).await
    }

    /// The new name is in the bucket; the old one goes if it still is what was copied. What somebody else wrote there
    /// meanwhile stays, and shows up again under the old name.
    async fn delete_source(&self, row: &InodeRow, key: &Key) -> Result<()> {
        let etag = row.version.as_ref().map(|v| &v.etag);
        match self.store.delete(key, etag).await {
            Err(StoreError { kind: ErrorKind::NotFound | ErrorKind::Precondition, .. }) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Copies an object to another key with all its headers. Answers the version and headers that it has there.
    pub(super) async fn copy_object(
        &self,
        row: &InodeRow,
        from: &Key,
        to: &Key,
        condition: Condition,
    ) -> Result<(Version, ObjectHeaders)> {
        let version = row.version.clone().ok_or(FsError::Stale)?;
        let headers = self.headers_of(row, from).await?.with_write_id(&new_write_id());
        let written = self
            .store
            .copy(&CopyRequest {
                source: from.clone(),
                source_if_match: Some(version.etag.clone()),
                source_size: version.size,
                destination: to.clone(),
                headers: headers.clone(),
                condition,
            })
            .await?;
        Ok((Version { etag: written.etag, last_modified: written.last_modified, size: version.size }, headers))
    }
}
