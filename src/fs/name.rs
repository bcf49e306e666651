//! Making and removing names of files.
//!
//! Owns: create, mknod, symlink, readlink, unlink. Does not own: directories (`dir`), rename, the data of a deleted file for those who
//! have it open (`orphans`).

use super::begin::to_the_end;
use super::invalidate::Touched;
use super::lookup::is_reserved;
use super::open::Opened;
use super::place::Place;
use super::{Caller, Entry, Fs, FsError, Result};
use crate::meta::InodeRow;
use crate::meta::headers::{TARGET_LEN_MAX, from_user};
use crate::store::{Condition, ErrorKind, ObjectMeta, StoreError};
use crate::types::{ByteRange, FileKind, Ino, Key, Name, Version, WriteId};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// When the journal is asked again to forget a file, after it could not.
const DISCARD_PAUSE: Duration = Duration::from_secs(5);

impl Fs {
    /// Before CREATE, and interruptible, as nothing is changed yet: whether the name is free still. Who neither empties the file nor
    /// insists on a new one (`>>`) means what is there, and a listing that was complete a while ago is not enough to say that
    /// nothing is.
    ///
    /// # Errors
    /// What the store says, unless it cannot be reached.
    pub async fn look_before_create(self: &Arc<Self>, parent: Ino, name: &Name, flags: i32) -> Result<()> {
        self.writable()?;
        let dir = self.dir_row(parent)?;
        // `create` says why not.
        if is_reserved(parent, name) {
            return Ok(());
        }
        if flags & (libc::O_EXCL | libc::O_TRUNC) != 0 || dir.complete_at.is_some_and(|at| self.is_just_confirmed(at)) {
            return Ok(());
        }
        let seen = self.look_at(&self.place(parent, name)?).await;
        seen.or_else(|e| if e.is_outage() { Ok(()) } else { Err(e) })
    }

    /// CREATE: a new file, open, after [`Fs::look_before_create`]. The bucket gets it at close or fsync.
    ///
    /// # Errors
    /// [`FsError::Exists`] if the name is taken by now: the kernel looks again.
    pub async fn create(
        self: &Arc<Self>,
        caller: Caller,
        parent: Ino,
        name: Name,
        mode: u32,
        flags: i32,
    ) -> Result<(Entry, Opened)> {
        self.writable()?;
        let fs = Arc::clone(self);
        to_the_end(async move {
            let dir = fs.dir_row(parent)?;
            fs.check_shown(parent, &name, FileKind::File)?;
            // The kernel believed that the name is free: if it is not, it should look again and open what is there.
            let taken = if flags & libc::O_EXCL != 0 { FsError::Exists } else { FsError::Stale };
            match fs.check_new(&fs.place(parent, &name)?) {
                Err(FsError::Exists) => return Err(taken),
                result => result?,
            }
            let mut row = fs.meta.blank(parent, &name, fs.new_attr(caller, &dir, FileKind::File, mode));
            row.local = true;
            let row = fs.meta.create(row).await?.ok_or(taken)?;
            if let Err(e) = fs.writer.stage(row.ino, None) {
                fs.meta.remove(row.ino).await?;
                return Err(e.into());
            }
            fs.note_made_in(&dir);
            let opened = fs.opened(&row, flags, caller.tid, None);
            Ok((fs.entry(&row), opened))
        })
        .await
    }

    /// MKNOD: an empty file, pipe, socket or device node, at once in the bucket.
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::Impossible`] where nothing would tell what it is, or what the store says.
    pub async fn mknod(
        self: &Arc<Self>,
        caller: Caller,
        parent: Ino,
        name: Name,
        mode: u32,
        rdev: u32,
    ) -> Result<Entry> {
        let kind = FileKind::from_mode(mode).unwrap_or(FileKind::File);
        self.make_special(caller, parent, name, kind, mode, rdev, Bytes::new()).await
    }

    /// SYMLINK: an object whose body is the target and whose mode says S_IFLNK (s3fs form).
    ///
    /// # Errors
    /// As [`Fs::mknod`].
    pub async fn symlink(self: &Arc<Self>, caller: Caller, parent: Ino, name: Name, target: Bytes) -> Result<Entry> {
        self.make_special(caller, parent, name, FileKind::Symlink, 0o777, 0, target).await
    }

    #[expect(clippy::too_many_arguments, reason = "what mknod(2) and symlink(2) say of a new file, and who asks")]
    async fn make_special(
        self: &Arc<Self>,
        caller: Caller,
        parent: Ino,
        name: Name,
        kind: FileKind,
        mode: u32,
        rdev: u32,
        body: Bytes,
    ) -> Result<Entry> {
        self.writable()?;
        if !self.kept().has_kind(kind) {
            return Err(FsError::Impossible);
        }
        let fs = Arc::clone(self);
        self.changing(Touched::name(parent, &name), async move {
            fs.check_shown(parent, &name, kind)?;
            let (place, _claim) = fs.claim_place(parent, &name, Place::as_file).await?;
            fs.check_new(&place)?;
            let (dir, key) = (fs.dir_row(parent)?, place.file.clone());
            let mut attr = fs.new_attr(caller, &dir, kind, mode);
            attr.rdev = rdev;
            attr.size = body.len() as u64;
            let mut row = fs.meta.blank(parent, &name, attr);
            let headers = fs.for_new(&row, &key).with_write_id(&WriteId::random());
            row.symlink = (kind == FileKind::Symlink).then(|| body.to_vec());
            let written = fs.store.put(&key, body, &headers, &Condition::IfAbsent).await.map_err(|e| match e.kind {
                ErrorKind::Precondition => FsError::Exists,
                _ => FsError::Store(e),
            });
            let written = fs.seeing_what_is_there(written, &place).await?;
            let size = row.attr.size;
            row.version = Some(Version { etag: written.etag, last_modified: written.last_modified, size });
            row.headers = Some(super::headers::to_meta(&headers).json);
            let row = fs.create_or_find(row).await?;
            Ok(fs.entry(&row))
        })
        .await
    }

    /// READLINK.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if it is no symbolic link, or what the store says.
    pub async fn readlink(self: &Arc<Self>, ino: Ino) -> Result<Bytes> {
        let row = self.row(ino)?;
        if row.attr.kind != FileKind::Symlink {
            return Err(FsError::Invalid);
        }
        if let Some(target) = row.symlink {
            return Ok(Bytes::from(target));
        }
        let object = self.object(&row)?.ok_or(FsError::Stale)?;
        let target = match ByteRange::new(0, object.version.size.min(TARGET_LEN_MAX)) {
            Some(range) => self.reader.read(&object, range, None).await?,
            // That of an empty object is among its headers.
            None => from_user(&self.headers_of(&row, &object.key).await?.user).target.unwrap_or_default().into(),
        };
        let kept = target.to_vec();
        self.meta.change(ino, move |row| row.symlink = Some(kept)).await?;
        Ok(target)
    }

    /// UNLINK: the object is deleted if it still is the one that was shown.
    ///
    /// # Errors
    /// [`FsError::Stale`] if it was changed elsewhere: the kernel looks it up again, and then it is deleted as it is now.
    pub async fn unlink(self: &Arc<Self>, parent: Ino, name: Name) -> Result<()> {
        self.writable()?;
        let fs = Arc::clone(self);
        self.changing(Touched::name(parent, &name), async move {
            fs.settle_database_of(parent, &name).await;
            let (place, _claim) = fs.claim_place(parent, &name, Place::as_file).await?;
            let key = &place.file;
            let row = fs.meta.child(parent, &name)?.ok_or(FsError::NotFound)?;
            if row.attr.kind == FileKind::Dir {
                return Err(FsError::IsDir);
            }
            let mut going = fs.copy_aside(&row, key).await?;
            let theirs_stays = match fs.delete_object(&row, key).await {
                // Ours, with changes that nobody else has seen, goes; what somebody else wrote there meanwhile stays.
                Err(FsError::Stale) if row.local => true,
                // Carried out all the same: whoever has it open reads on.
                Err(e) if e.is_outage() && fs.is_gone(row.version.as_ref(), key).await => {
                    fs.half_taken(&row, &place, going).await;
                    return Err(e);
                }
                Err(e) => {
                    fs.drop_aside(going).await;
                    return Err(e);
                }
                Ok(()) => false,
            };
            let removed = fs.meta.remove(row.ino).await;
            // After that: whoever has opened it by its name until now is one of them.
            fs.turn_readers(&row, key, &mut going);
            removed?;
            if fs.has_unread_attr(&row) {
                fs.unread.removed_from(parent, fs.meta.now());
            }
            fs.lost_name(row.ino).await?;
            if theirs_stays && let Err(e) = fs.look_at(&place).await {
                tracing::debug!(key = %place.file, error = %e, "what somebody else wrote there shows with the next listing");
            }
            fs.owe_marker_if_emptied(parent).await;
            Ok(())
        })
        .await
    }

    /// Deletes the object that `row` shows, if the bucket has it.
    pub(super) async fn delete_object(self: &Arc<Self>, row: &InodeRow, key: &Key) -> Result<()> {
        let Some(version) = &row.version else {
            return self.delete_attempt(&self.attempts_of(row.ino), key).await.map(drop);
        };
        match self.store.delete(key, Some(&version.etag)).await {
            Ok(()) | Err(StoreError { kind: ErrorKind::NotFound, .. }) => Ok(()),
            Err(StoreError { kind: ErrorKind::Precondition, .. }) => {
                if self.delete_attempt(&self.attempts_of(row.ino), key).await? {
                    return Ok(());
                }
                self.look_again(row, key).await?;
                Err(FsError::Stale)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The commits of a file that may have been carried out without an answer.
    pub(super) fn attempts_of(&self, ino: Ino) -> Vec<WriteId> {
        self.writer.get(ino).map_or_else(Vec::new, |staged| staged.attempts())
    }

    /// Deletes what one of these commits of a file may have made. `true` if there is nothing of it any more.
    pub(super) async fn delete_attempt(&self, attempts: &[WriteId], key: &Key) -> Result<bool> {
        if attempts.is_empty() {
            return Ok(false);
        }
        let is_own = |made: &ObjectMeta| made.headers.write_id().is_some_and(|id| attempts.contains(&id));
        let Some(made) = self.remote.head(key).await?.filter(is_own) else { return Ok(false) };
        match self.store.delete(key, Some(&made.version.etag)).await {
            Err(StoreError { kind: ErrorKind::Precondition, .. }) => Ok(false),
            Err(StoreError { kind: ErrorKind::NotFound, .. }) => Ok(true),
            deleted => Ok(deleted.map(|()| true)?),
        }
    }

    /// The bucket has another version than `row` shows: takes that over.
    pub(super) async fn look_again(self: &Arc<Self>, row: &InodeRow, key: &Key) -> Result<()> {
        // Renamed meanwhile: what is at the old key says nothing of it.
        let Some(row) = self.meta.get(row.ino)?.filter(|row| self.has_key(row, key)) else { return Ok(()) };
        let (Some(parent), Some(name)) = (row.parent, row.name) else { return Ok(()) };
        let asked = self.meta.observe_in(parent)?;
        let found = self.remote.head(key).await?.as_ref().map(super::headers::found_object);
        self.apply_found(parent, name, found, asked).await.map(drop)
    }

    /// The file has no name any more: what is staged of it is dropped, unless somebody has it open.
    pub(super) async fn forget_staged(&self, ino: Ino) -> Result<()> {
        self.queue().forget(ino);
        if !self.meta.pins().is_pinned(ino) {
            if let Err(e) = self.writer.discard(ino).await {
                // The background tries again, as with a file that was replaced.
                self.queue_commit_after(ino, DISCARD_PAUSE);
                return Err(e.into());
            }
        } else if let Some(staged) = self.writer.get(ino) {
            // Nothing is owed any more: a journal row would bring the deleted file back after a crash.
            self.writer.disown(&staged).await?;
        }
        Ok(())
    }
}
