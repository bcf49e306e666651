//! Attributes.
//!
//! Owns: getattr, setattr (size, mode, owner, times), statfs; writing changed attributes into the object's headers, extended ones
//! as well. Does not own: permission checks (the kernel's, `default_permissions`), the headers' names (`meta::headers`), which
//! extended attributes there are (`xattr`).

use super::begin::apart_to_the_end;
use super::headers::{to_meta, xattrs_of};
use super::invalidate::Touched;
use super::io::change_staged;
use super::open::PinGuard;
use super::{Caller, Entry, Fs, FsError, Result};
use crate::meta::{InodeRow, Marker, xattrs};
use crate::store::{Condition, CopyRequest, ErrorKind, ObjectHeaders, ObjectMeta, StoreError};
use crate::types::{Attr, ByteRange, FileKind, Ino, Key, ObjectRef, Timestamp, Version, WriteId};
use std::sync::Arc;

/// A time to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// To now.
    Now,
    /// To this.
    At(Timestamp),
}

/// What is to be changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
}

/// What statfs(2) shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Statfs {
    /// Bytes in the objects that are known.
    pub used: u64,
    /// Objects and directories that are known.
    pub files: u64,
}

impl Fs {
    /// GETATTR: what the catalogue believes; lookup and open keep it fresh.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the inode is gone.
    pub fn getattr(&self, ino: Ino) -> Result<Entry> {
        Ok(self.entry(&self.row(ino)?))
    }

    /// SETATTR. A changed size is staged and committed at close; without an open handle (truncate(2) by path), at once.
    /// Other attributes are a server-side copy of the object to itself, or travel with the pending commit; or no object has them.
    ///
    /// # Errors
    /// What the store says.
    pub async fn setattr(self: &Arc<Self>, caller: Caller, ino: Ino, set: SetAttr, has_handle: bool) -> Result<Entry> {
        self.writable()?;
        let fs = Arc::clone(self);
        self.changing_attr(ino, async move { fs.set_attr(caller, ino, set, has_handle).await }).await?;
        self.getattr(ino)
    }

    /// Runs `change`, which is about the attributes of `ino`, to its end even if whoever waits for it is interrupted.
    pub(super) async fn changing_attr(
        self: &Arc<Self>,
        ino: Ino,
        change: impl Future<Output = Result<()>> + Send + 'static,
    ) -> Result<()> {
        let fs = Arc::clone(self);
        let touched = Touched { names: Vec::new(), inodes: vec![ino] };
        let its = touched.clone();
        let work = async move {
            // Open for as long as this takes: nobody may drop what is staged meanwhile.
            let pin = PinGuard::new(&fs, ino);
            let result = change.await;
            if result.is_err() {
                // Some of it may be done.
                fs.forget_touched(&its);
            }
            pin.close().await?;
            result
        };
        // It may move many bytes.
        self.changing(touched, apart_to_the_end(work)).await
    }

    async fn set_attr(self: &Arc<Self>, caller: Caller, ino: Ino, set: SetAttr, has_handle: bool) -> Result<()> {
        if let Some(size) = set.size {
            self.truncate(caller, ino, size).await?;
        }
        if set.atime.is_some() {
            self.accessed.forget(ino);
        }
        let row = self.row_with_attr(ino).await?;
        let wanted = Wanted::Attr { set, now: self.meta.now() };
        if set.mtime.is_some()
            && let Some(staged) = self.writer.get(ino)
        {
            staged.set_written_at(None);
        }
        if wanted.applied_to(&row).attr != row.attr {
            let stored = self.store_attr(row, wanted).await;
            // Some of it may be done even if not all is.
            self.note_set_ids(ino, true);
            stored?;
        }
        if set.size.is_some() && !has_handle {
            self.commit(ino).await?;
        }
        Ok(())
    }

    /// The row of an inode whose attributes are about to be changed: with those that the bucket has, not with defaults.
    pub(super) async fn row_with_attr(self: &Arc<Self>, ino: Ino) -> Result<InodeRow> {
        let row = self.row(ino)?;
        if !self.has_unread_attr(&row) || row.parent.is_none() || row.marker == Marker::Owed {
            return Ok(row);
        }
        if row.attr.kind == FileKind::Dir {
            return self.read_headers(&row).await?.filter(|now| now.ino == ino).ok_or(FsError::Stale);
        }
        let key = self.key(&row)?;
        match self.with_attr(row.clone(), &key).await {
            // With changes over a version that is gone: nothing can be read of it any more, and the commit will say so.
            Err(FsError::Stale) if row.local => Ok(row),
            Err(FsError::Stale) => {
                self.look_again(&row, &key).await?;
                Err(FsError::Stale)
            }
            result => result,
        }
    }

    async fn truncate(self: &Arc<Self>, caller: Caller, ino: Ino, size: u64) -> Result<()> {
        let row = self.row(ino)?;
        match row.attr.kind {
            FileKind::File => {}
            FileKind::Dir => return Err(FsError::IsDir),
            _ => return Err(FsError::Invalid),
        }
        let staged = self.stage_for_write(&row).await?;
        match ByteRange::new(size, u64::MAX) {
            Some(rest) => change_staged(&staged, rest, move |staged| staged.truncate(size)).await?,
            None => staged.truncate(size)?,
        }
        staged.touch();
        staged.set_written_at(Some(self.meta.now()));
        if caller.uid != 0 {
            self.clear_suid(ino).await?;
        }
        Ok(())
    }

    /// Writes changed attributes: into the row if a commit will carry them or no object has them, else into the object's headers
    /// first.
    pub(super) async fn store_attr(self: &Arc<Self>, row: InodeRow, wanted: Wanted) -> Result<()> {
        let ino = row.ino;
        let staged = self.writer.get(ino).filter(|s| s.is_changed());
        let in_objects = self.kept().in_objects();
        // Without a name (unlinked, still open) or an object (the bucket's root), and with `nometa`, only we remember.
        if staged.is_none() && in_objects && row.parent.is_some() {
            return match row.attr.kind {
                FileKind::Dir => self.rewrite_marker(row, wanted).await,
                _ => self.rewrite_headers(row, wanted).await,
            };
        }
        let change = move |row: &mut InodeRow| {
            wanted.apply(row);
            if row.ino == Ino::ROOT && wanted.is_of_access() {
                // From now on they are not those of the mount's options.
                row.headers.get_or_insert_with(|| "{}".to_owned());
            }
        };
        self.meta.change(ino, change).await?;
        let Some(staged) = staged else { return Ok(()) };
        if in_objects {
            staged.touch();
        }
        if self.handles.of(ino).iter().any(|handle| handle.writable) {
            return self.journal_attr(&staged).await;
        }
        // The commit under way may be past its headers, and no close of a writer will follow.
        self.journal(ino).await?;
        self.queue_commit_after(ino, self.delay_of(ino));
        Ok(())
    }

    /// A copy of the object to itself with new headers. All that is not ours stays.
    async fn rewrite_headers(self: &Arc<Self>, row: InodeRow, wanted: Wanted) -> Result<()> {
        // A commit may have come first: the version counts that is there under the claim.
        let (row, key, _claim) = self.claim_inode(row.ino).await?;
        let read = async {
            let row = self.with_attr(row.clone(), &key).await?;
            Ok((self.headers_of(&row, &key).await?, row))
        };
        let (headers, row) = match read.await {
            Err(FsError::Stale) => {
                self.look_again(&row, &key).await?;
                return Err(FsError::Stale);
            }
            result => result?,
        };
        let headers = self.for_rewrite(headers, &wanted.applied_to(&row));
        let headers = headers.fitting(self.store.capabilities().user_metadata_max);
        self.copy_to_itself(row, key, headers, move |row| wanted.apply(row)).await
    }

    /// Copies the object that `row` shows to itself with these headers, and changes the row as goes with them. The caller holds the
    /// claim on the key.
    pub(super) async fn copy_to_itself(
        self: &Arc<Self>,
        row: InodeRow,
        key: Key,
        headers: ObjectHeaders,
        change: impl FnOnce(&mut InodeRow) + Send + 'static,
    ) -> Result<()> {
        let Some(version) = row.version.clone() else { return Err(FsError::Stale) };
        let id = WriteId::random();
        let headers = headers.with_write_id(&id);
        let note_attempt = || {
            if let Some(staged) = self.writer.get(row.ino) {
                // If its answer is lost, the next commit must know it for ours.
                staged.note_attempt(&id);
            }
        };
        note_attempt();
        // Until the row knows the new version, whoever lists or opens would take it for somebody else's.
        let rewrite = self.meta.pins().rewrite(row.ino);
        let copied = self
            .store
            .copy(&CopyRequest {
                source: key.clone(),
                source_if_match: Some(version.etag.clone()),
                source_size: version.size,
                destination: key.clone(),
                headers: headers.clone(),
                condition: Condition::IfMatch(version.etag.clone()),
            })
            .await;
        match copied {
            Ok(written) => {
                let before = version.clone();
                let version = Version { etag: written.etag, last_modified: written.last_modified, ..version };
                self.meta.change(row.ino, change).await?;
                // The row first: who stages the file now must find the new version.
                self.note_written(&row, version.clone(), &headers).await?;
                self.note_rewritten(&row, &ObjectRef { key: key.clone(), version: before }, &key, &version);
                let Some(staged) = self.writer.get(row.ino) else { return Ok(()) };
                staged.forget_attempts();
                // Written and acknowledged meanwhile: the journal must name the new version.
                if staged.is_journaled() { self.journal_anew(&staged, None).await } else { Ok(()) }
            }
            Err(StoreError { kind: ErrorKind::Precondition | ErrorKind::NotFound, .. }) => {
                drop(rewrite);
                self.look_again(&row, &key).await?;
                Err(FsError::Stale)
            }
            Err(e) => {
                // Somebody may have begun to write to it meanwhile.
                note_attempt();
                // It may have been done: whoever opens the file next asks.
                self.meta.change(row.ino, |row| row.checked_at = Timestamp::default()).await?;
                Err(e.into())
            }
        }
    }

    /// The same bytes have another version or another key now: the kernel's pages stay good, open handles read on there,
    /// what is staged over it replaces that one, and what was fetched need not be fetched again.
    /// `copied` is what the server copied, which need not be what the row knew.
    pub(super) fn note_rewritten(&self, row: &InodeRow, copied: &ObjectRef, key: &Key, version: &Version) {
        let object = ObjectRef { key: key.clone(), version: version.clone() };
        self.reader.carry(copied, &object);
        self.handles.of(row.ino).iter().for_each(|h| h.set_object(Some(object.clone())));
        self.writer.move_copies(copied, &object);
        if let Some(staged) = self.writer.get(row.ino) {
            staged.replace_base(object);
        }
        if let (Some(seen), Some(old)) = (self.seen.get(&row.ino), &row.version)
            && seen.same(old)
        {
            self.seen.insert(row.ino, version.clone());
        }
    }

    /// Directories keep their attributes in their marker, which is made if there is none.
    async fn rewrite_marker(self: &Arc<Self>, row: InodeRow, wanted: Wanted) -> Result<()> {
        let (mut row, key, _claim) = self.claim_inode(row.ino).await?;
        let marker = self.remote.head(&key).await?;
        if let Some(marker) = &marker {
            row = self.learn_marker(row, marker).await?;
        }
        let after = wanted.applied_to(&row);
        let size = marker.as_ref().map_or(0, |marker| marker.version.size);
        let (headers, condition) = match marker {
            Some(m) => (self.for_rewrite(m.headers, &after), Condition::IfMatch(m.version.etag)),
            None => (self.for_new(&after, &key), Condition::IfAbsent),
        };
        let headers = headers.with_write_id(&WriteId::random());
        let _rewrite = self.meta.pins().rewrite(row.ino);
        let written = match &condition {
            // It keeps its tags, and what some programs have put into it.
            Condition::IfMatch(etag) => {
                let (source_if_match, source, destination) = (Some(etag.clone()), key.clone(), key.clone());
                let headers = headers.clone();
                let copy = CopyRequest { source, source_if_match, source_size: size, destination, headers, condition };
                self.store.copy(&copy).await?
            }
            _ => self.store.put(&key, bytes::Bytes::new(), &headers, &condition).await?,
        };
        let version = Version { etag: written.etag, last_modified: written.last_modified, size };
        self.meta
            .change(row.ino, move |row| {
                // Not all as it was written: names that were made meanwhile have moved the mtime.
                wanted.apply(row);
                row.marker = Marker::Present;
            })
            .await?;
        self.note_written(&row, version, &headers).await
    }

    /// The row of a directory with what its marker says. One attribute is about to be changed: all others that somebody else has set
    /// there since stay.
    async fn learn_marker(&self, row: InodeRow, marker: &ObjectMeta) -> Result<InodeRow> {
        let learned = self.meta.learn(row.ino, marker.version.clone(), to_meta(&marker.headers)).await?;
        let learned = learned.ok_or(FsError::Stale)?;
        if learned.attr != row.attr {
            self.forget_attr(row.ino);
        }
        Ok(learned)
    }

    /// STATFS: what the catalogue knows; answers without the network.
    ///
    /// # Errors
    /// [`FsError::Catalogue`].
    pub fn statfs(&self) -> Result<Statfs> {
        let (files, used) = self.meta.totals()?;
        Ok(Statfs { used, files })
    }
}

/// What an operation makes of whatever attributes there are.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// A SETATTR.
    Attr { set: SetAttr, now: Timestamp },
    /// An extended attribute with this value, or none.
    Xattr { name: Vec<u8>, value: Option<Vec<u8>>, now: Timestamp },
}

impl Wanted {
    /// Changes a row so. Pure.
    pub(super) fn apply(&self, row: &mut InodeRow) {
        match self {
            Wanted::Attr { set, now } => row.attr = changed(&row.attr, *set, *now),
            Wanted::Xattr { name, value, now } => {
                row.xattrs = Some(xattrs::with(&xattrs_of(row), name, value.as_deref()));
                row.attr.ctime = *now;
            }
        }
    }

    /// Whether it sets what the mount's options say of the root: mode, owner or group.
    fn is_of_access(&self) -> bool {
        matches!(self, Wanted::Attr { set, .. } if set.mode.is_some() || set.uid.is_some() || set.gid.is_some())
    }

    /// The row as it will be.
    pub(super) fn applied_to(&self, row: &InodeRow) -> InodeRow {
        let mut after = row.clone();
        self.apply(&mut after);
        after
    }
}

/// The attributes after a SETATTR. Pure.
fn changed(attr: &Attr, set: SetAttr, now: Timestamp) -> Attr {
    let time = |set: Option<SetTime>, old: Timestamp| match set {
        None => old,
        Some(SetTime::Now) => now,
        Some(SetTime::At(at)) => at,
    };
    let mut new = attr.clone();
    if let Some(mode) = set.mode {
        new.perm = (mode & 0o7777) as u16;
    }
    let chowned = set.uid.is_some() || set.gid.is_some();
    if chowned && set.mode.is_none() && attr.kind != FileKind::Dir {
        // Whoever changes the owner, root too, takes set-user-ID and set-group-ID away (fs/open.c, chown_common), and with
        // HANDLE_KILLPRIV_V2 that is left to us (fs/fuse/dir.c, fuse_setattr).
        new.perm &= if attr.perm & 0o010 != 0 { !0o6000 } else { !0o4000 };
    }
    new.uid = set.uid.unwrap_or(attr.uid);
    new.gid = set.gid.unwrap_or(attr.gid);
    new.atime = time(set.atime, attr.atime);
    new.mtime = time(set.mtime, attr.mtime);
    if new != *attr || chowned || set.mode.is_some() || set.mtime.is_some() || set.atime.is_some() {
        new.ctime = now;
    }
    new
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ctime_moves_with_every_change_and_suid_goes_with_the_owner() {
        let t = Timestamp::from_nanos;
        let old = Attr {
            kind: FileKind::File,
            perm: 0o6755,
            uid: 1,
            gid: 1,
            rdev: 0,
            size: 0,
            atime: t(1),
            mtime: t(1),
            ctime: t(1),
        };
        let group = SetAttr { gid: Some(2), ..SetAttr::default() };
        let new = changed(&old, group, t(5));
        assert_eq!((new.perm, new.gid, new.ctime, new.mtime), (0o755, 2, t(5), t(1)));
        let dir = Attr { kind: FileKind::Dir, ..old.clone() };
        assert_eq!(changed(&dir, group, t(5)).perm, 0o6755, "of a directory they mean something else");
        let touched = changed(&old, SetAttr { mtime: Some(SetTime::At(t(3))), ..SetAttr::default() }, t(5));
        assert_eq!((touched.mtime, touched.ctime), (t(3), t(5)));
        assert_eq!(changed(&old, SetAttr::default(), t(5)), old);
    }
}
