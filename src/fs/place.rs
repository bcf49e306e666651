//! A name in a directory, as a place in the bucket, claimed.
//!
//! Owns: the keys of a name, claiming them, and making sure that they still are its keys once the claim is granted: a
//! rename of a directory above may have held them until then. Does not own: claims themselves (`write::claims`).

use super::headers::{known, to_meta};
use super::lookup::is_reserved;
use super::{Fs, FsError, Result};
use crate::meta::{Found, InodeRow};
use crate::types::{Attr, FileKind, Ino, Key, KeyError, Name};
use crate::write::{Claim, Span};
use std::sync::Arc;

/// A name in a directory, and the key that it has as a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) parent: Ino,
    pub(super) name: Name,
    pub(super) file: Key,
}

impl Place {
    /// The key that it has as a directory. A file's key may be too long to be a directory's.
    pub(super) fn tree(&self) -> std::result::Result<Key, KeyError> {
        self.file.to_dir()
    }

    /// To be claimed for a file.
    pub(super) fn as_file(&self) -> Vec<Span> {
        vec![Span::Key(self.file.clone())]
    }

    /// To be claimed for a directory and all that is below it; the file's key as well.
    pub(super) fn as_tree(&self) -> Vec<Span> {
        let tree = self.tree().ok().map(Span::Tree);
        tree.into_iter().chain([Span::Key(self.file.clone())]).collect()
    }
}

impl Fs {
    /// The place of a name.
    pub(super) fn place(&self, parent: Ino, name: &Name) -> Result<Place> {
        let dir = self.dir_key(&self.dir_row(parent)?)?;
        Ok(Place { parent, name: name.clone(), file: dir.child(name)? })
    }

    /// Claims a place.
    pub(super) async fn claim_place(
        &self,
        parent: Ino,
        name: &Name,
        spans: impl Fn(&Place) -> Vec<Span>,
    ) -> Result<(Place, Claim)> {
        loop {
            let place = self.place(parent, name)?;
            let claim = self.claims.claim(spans(&place)).await;
            if self.place(parent, name)? == place {
                return Ok((place, claim));
            }
        }
    }

    /// Claims the key of an inode. Answers its row as it is under the claim.
    pub(super) async fn claim_inode(&self, ino: Ino) -> Result<(InodeRow, Key, Claim)> {
        loop {
            let key = self.key(&self.row(ino)?)?;
            let claim = self.claims.claim(vec![Span::Key(key.clone())]).await;
            let row = self.row(ino)?;
            if self.has_key(&row, &key) {
                return Ok((row, key, claim));
            }
        }
    }

    /// Whether the path of `row` makes `key`.
    pub(super) fn has_key(&self, row: &InodeRow, key: &Key) -> bool {
        matches!(self.meta.key(row), Ok(Some(Ok(k))) if k == *key)
    }

    /// Whether a name may be made at a place: not taken, not ours, not too long.
    pub(super) fn check_new(&self, place: &Place) -> Result<()> {
        if is_reserved(place.parent, &place.name) {
            return Err(FsError::Reserved);
        }
        self.check_len(&place.file)?;
        match self.meta.child(place.parent, &place.name)? {
            Some(_) => Err(FsError::Exists),
            None => Ok(()),
        }
    }

    /// Whether the bucket can have the key, the mount's prefix included.
    pub(super) fn check_len(&self, key: &Key) -> Result<()> {
        if key.fits_behind(self.settings.prefix_len) { Ok(()) } else { Err(KeyError::KeyTooLong.into()) }
    }

    /// A write that found the place taken shows at once what is there: ENOENT beside EEXIST confuses everybody.
    pub(super) async fn seeing_what_is_there<T>(self: &Arc<Self>, result: Result<T>, place: &Place) -> Result<T> {
        if matches!(result, Err(FsError::Exists)) {
            self.look_at(place).await?;
        }
        result
    }

    /// Asks the bucket for a place, and takes over what is there.
    pub(super) async fn look_at(self: &Arc<Self>, place: &Place) -> Result<()> {
        let asked = self.meta.observe_in(place.parent)?;
        let dir = self.key(&self.dir_row(place.parent)?)?;
        let found =
            self.remote.lookup(&dir, &place.name, self.kept().in_objects()).await?.map(super::headers::to_found);
        self.apply_found(place.parent, place.name.clone(), found, asked).await.map(drop)
    }

    /// Makes the row of an object that we just wrote. A listing may have shown it first: then that row is its.
    pub(super) async fn create_or_find(self: &Arc<Self>, row: InodeRow) -> Result<InodeRow> {
        let ours = row.clone();
        match self.meta.create(row).await? {
            Some(made) => Ok(made),
            None => self.find_made(ours).await,
        }
    }

    /// The row of an object that we just wrote, and that a listing has shown first: as a plain file with a default mode, or as a
    /// directory with one. It gets what `ours` says, and a new inode if it is of another kind: the kernel refuses one that is not
    /// what it has asked for.
    async fn find_made(self: &Arc<Self>, ours: InodeRow) -> Result<InodeRow> {
        let (Some(parent), Some(name), Some(version)) = (ours.parent, ours.name.clone(), ours.version.clone()) else {
            return Err(FsError::Exists);
        };
        let asked = self.meta.observe_in(parent)?;
        let is_dir = ours.attr.kind == FileKind::Dir;
        let is_alike = |row: &InodeRow| row.version.as_ref().is_none_or(|v| v.same(&version));
        let is_ours = |row: &InodeRow| is_alike(row) && (row.attr.kind == FileKind::Dir) == is_dir;
        if !self.meta.child(parent, &name)?.as_ref().is_some_and(is_ours) {
            return Err(FsError::Exists);
        }
        let headers = known(&ours).as_ref().map(to_meta);
        let found = match ours.attr.kind {
            FileKind::Dir => Found::Dir { marker: Some(true), read: headers.map(|h| (version.clone(), h)) },
            _ => Found::Object { version: version.clone(), storage_class: None, headers },
        };
        let there = self.apply_found(parent, name, Some(found), asked).await?;
        let there = there.filter(|row| is_ours(row) && row.attr.kind == ours.attr.kind).ok_or(FsError::Exists)?;
        let told = move |row: &mut InodeRow| {
            // Somebody may write to it already.
            if !row.local {
                let (mtime, ctime) = (row.attr.mtime.max(ours.attr.mtime), row.attr.ctime.max(ours.attr.ctime));
                row.attr = Attr { mtime, ctime, ..ours.attr };
                row.symlink = ours.symlink;
            }
        };
        self.meta.change(there.ino, told).await?.ok_or(FsError::Exists)
    }
}
