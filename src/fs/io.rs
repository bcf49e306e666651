//! Reading and writing.
//!
//! Owns: read, write, fsync: staged ranges over remote bytes. Does not own: the bytes themselves (`write`, `read`).

use super::begin::{apart_to_the_end, to_the_end};
use super::commit::is_ours;
use super::databases::is_disturbed;
use super::handle::FileHandle;
use super::promise::Promise;
use super::{Fs, FsError, Result};
use crate::meta::InodeRow;
use crate::read::Reader;
use crate::store::ErrorKind;
use crate::types::{ByteRange, Fh, Ino, ObjectRef};
use crate::write::{Source, Span, Staged};
use bytes::{Bytes, BytesMut};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Files from this size on are copied by the bucket; smaller ones are read and written in less time.
const COPY_SIZE_MIN: u64 = 1 << 20;
/// How long a write waits for room in staging, while uploads go on.
const ROOM_PATIENCE: Duration = Duration::from_secs(30);
/// Looks for a row that shows what is read, and the pause between two.
const SETTLE_LOOKS: u32 = 100;
const SETTLE_LOOK: Duration = Duration::from_millis(10);
/// Pause between two looks for room that nobody says anything of.
const ROOM_LOOK: Duration = Duration::from_millis(200);
/// Bytes of one COPY_FILE_RANGE, whose answer has 32 bits (`fuse_write_out`, include/uapi/linux/fuse.h).
const COPY_LEN_MAX: u64 = 1 << 31;

impl Fs {
    /// READ: fewer bytes than asked for only at the end of the file.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the version that was opened is gone from the bucket.
    pub async fn read(self: &Arc<Self>, fh: Fh, offset: u64, size: u32) -> Result<Bytes> {
        let handle = self.handles.get(fh).ok_or(FsError::BadHandle)?;
        let Some(range) = ByteRange::at(offset, u64::from(size)) else { return Ok(Bytes::new()) };
        if handle.is_first_read() {
            self.on_first_read(&handle);
        }
        let Some(staged) = self.writer.get(handle.ino) else { return self.read_object(&handle, range).await };
        match self.read_staged(&handle, &staged, range).await {
            // Our own commit replaced the base between looking and reading.
            Err(FsError::Stale) => {
                self.find_base(&staged).await?;
                self.read_staged(&handle, &staged, range).await
            }
            result => result,
        }
    }

    /// The version that a staged file changes is not in the bucket any more. If a commit of ours replaced it, even one whose answer
    /// was lost, what was not changed is found in what that has made.
    pub(super) async fn find_base(&self, staged: &Staged) -> Result<()> {
        let before = staged.content().base().cloned();
        let Some(row) = self.meta.get(staged.ino())? else { return Ok(()) };
        let Some(Ok(key)) = self.meta.key(&row)? else { return Ok(()) };
        // A commit under way ends first.
        let _claim = self.claims.claim(vec![Span::Key(key.clone())]).await;
        if staged.content().base() != before.as_ref() || before.is_none_or(|before| before.key != key) {
            return Ok(());
        }
        if let Some(now) = self.remote.head(&key).await?.filter(|now| is_ours(staged, now)) {
            staged.replace_base(ObjectRef { key, version: now.version });
        }
        Ok(())
    }

    /// A clean file: the pinned version. Our own commit or rename may have moved the inode on to another version or key
    /// since this handle last read; then it follows.
    async fn read_object(self: &Arc<Self>, handle: &FileHandle, range: ByteRange) -> Result<Bytes> {
        let pinned = handle.object();
        let Some(object) = pinned.map_or_else(|| self.current_object(handle.ino), |o| Ok(Some(o)))? else {
            return Ok(Bytes::new());
        };
        if let Some((dir, pos)) = handle.dir.filter(|_| range.start() == 0 && Reader::is_small(object.version.size)) {
            self.on_small_read(dir, pos);
        }
        match self.reader.read(&object, range, Some(&handle.stream)).await {
            Err(e) if matches!(e.kind, ErrorKind::Precondition | ErrorKind::NotFound) => {
                // Only our own commits and renames turn a handle to another version. One that is under way ends first.
                drop(self.claims.claim(vec![Span::Key(object.key.clone())]).await);
                match handle.object() {
                    Some(now) if now != object => Ok(self.reader.read(&now, range, Some(&handle.stream)).await?),
                    _ => {
                        // Changed or deleted elsewhere: who opens it next should see that at once.
                        if let Some(row) = self.meta.get(handle.ino)? {
                            self.look_again(&row, &object.key).await?;
                        }
                        Err(FsError::Stale)
                    }
                }
            }
            result => Ok(result?),
        }
    }

    fn current_object(&self, ino: Ino) -> Result<Option<ObjectRef>> {
        match self.object(&self.row(ino)?) {
            Err(FsError::Stale) => Ok(None),
            result => result,
        }
    }

    async fn read_staged(&self, handle: &FileHandle, staged: &Arc<Staged>, range: ByteRange) -> Result<Bytes> {
        staged.copy_ended().await;
        let sources = staged.sources(range);
        if let [(only, Source::File)] = sources.pieces[..] {
            return Ok(sources.read_file(only)?);
        }
        let mut out = BytesMut::with_capacity(usize::try_from(range.len()).unwrap_or(0));
        for (piece, source) in sources.pieces.iter().copied() {
            match (source, &sources.base) {
                (Source::File, _) => out.extend_from_slice(&sources.read_file(piece)?),
                (Source::Base, Some(base)) => {
                    let bytes = self.reader.read(base, piece, Some(&handle.stream)).await.map_err(stale)?;
                    out.extend_from_slice(&bytes);
                }
                _ => out.resize(out.len() + usize::try_from(piece.len()).unwrap_or(0), 0),
            }
        }
        Ok(out.freeze())
    }

    /// WRITE to a file that is staged already, on the calling thread and without a copy. `None` if it is not staged yet, its mode may
    /// have to change, or much that the journal counts on has to be copied first: then [`Fs::write`] is to be called.
    pub fn write_staged(
        self: &Arc<Self>,
        fh: Fh,
        offset: Option<u64>,
        data: &[u8],
        kill_suid: bool,
    ) -> Option<Result<()>> {
        let handle = self.handles.get(fh)?;
        let staged = self.writer.get(handle.ino)?;
        if written_range(&staged, offset, data).is_some_and(|range| staged.waits_for_copy(range)) {
            return None;
        }
        // A clean staged file first becomes local in the catalogue: that is a transaction, and not for this thread.
        if !handle.writable || !staged.is_changed() || self.meta.pins().is_lost(handle.ino) {
            return None;
        }
        if kill_suid && staged.may_have_set_ids() {
            return None;
        }
        match self.write_now(&staged, offset, data) {
            // There may be room in a moment, which is not to be waited for here.
            Err(e) if e.errno() == libc::ENOSPC => None,
            written => Some(written),
        }
    }

    /// WRITE at `offset`, or at the end. `kill_suid`: the writer may not keep set-user-ID and set-group-ID bits.
    ///
    /// # Errors
    /// What the staging disk says: ENOSPC before anything is lost.
    pub async fn write(self: &Arc<Self>, fh: Fh, offset: Option<u64>, data: &[u8], kill_suid: bool) -> Result<()> {
        let handle = self.handles.get(fh).filter(|h| h.writable).ok_or(FsError::BadHandle)?;
        self.with_room(handle.ino, || self.write_once(handle.ino, offset, data, kill_suid)).await
    }

    async fn write_once(self: &Arc<Self>, ino: Ino, offset: Option<u64>, data: &[u8], kill_suid: bool) -> Result<()> {
        let staged = self.stage_for_write(&self.row(ino)?).await?;
        if kill_suid {
            self.clear_suid(ino).await?;
        }
        if let Some(range) = written_range(&staged, offset, data) {
            change_staged(&staged, range, move |staged| staged.copy_before(range)).await?;
        }
        self.write_now(&staged, offset, data)
    }

    /// Does `work` on a file, and again each time when there is more room if staging is too full for it. What was staged before may
    /// have been committed meanwhile.
    pub(super) async fn with_room<F: Future<Output = Result<()>>>(
        &self,
        ino: Ino,
        mut work: impl FnMut() -> F,
    ) -> Result<()> {
        let until = tokio::time::Instant::now() + ROOM_PATIENCE;
        loop {
            match work().await {
                Err(e) if e.errno() == libc::ENOSPC && self.make_room(ino, until).await => {}
                done => return done,
            }
        }
    }

    /// Staging is full: gives back what the bucket has, or waits until it has more. `false` if there is nothing to wait for: of the
    /// file itself nothing goes as long as it is written.
    async fn make_room(&self, ino: Ino, until: tokio::time::Instant) -> bool {
        let room = self.writer.room();
        let mut is_hurried = false;
        loop {
            let before = room.used();
            self.writer.give_room();
            if room.used() < before {
                return true;
            }
            let freed = room.freed();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.queue().active() == 0 && !self.writer.is_uploading_other(ino) {
                return false;
            }
            if !std::mem::replace(&mut is_hurried, true) {
                self.queue().hurry(self.meta.now(), false);
                self.queue_changed.notify_one();
            }
            // The end of a commit gives nothing back of a file that is open: somebody has to ask for it.
            let look = tokio::time::Instant::now() + ROOM_LOOK;
            if tokio::time::timeout_at(look.min(until), freed).await.is_ok() {
                return true;
            }
            if look >= until {
                return false;
            }
        }
    }

    fn write_now(self: &Arc<Self>, staged: &Arc<Staged>, offset: Option<u64>, data: &[u8]) -> Result<()> {
        let grown = staged.write(offset, data)?;
        staged.set_written_at(Some(self.meta.now()));
        if grown.is_part_full {
            self.send_ahead(staged);
        }
        Ok(())
    }

    /// COPY_FILE_RANGE from a file that the bucket has as it is here into an empty one, at the same place: the commit has the bucket
    /// copy it, if it is the whole file in the end. Answers how many bytes, or `None` for what has to be read and written.
    ///
    /// # Errors
    /// [`FsError::BadHandle`], [`FsError::Stale`]; what the staging disk says.
    pub async fn copy_range(self: &Arc<Self>, from: (Fh, u64), to: (Fh, u64), len: u64) -> Result<Option<u64>> {
        let source = self.handles.get(from.0).ok_or(FsError::BadHandle)?;
        let target = self.handles.get(to.0).filter(|h| h.writable).ok_or(FsError::BadHandle)?;
        if from.1 != to.1 || source.ino == target.ino || self.writer.get(source.ino).is_some_and(|s| s.is_changed()) {
            return Ok(None);
        }
        // One answer cannot tell of more.
        let range = ByteRange::at(from.1, len.min(COPY_LEN_MAX));
        let (Some(object), Some(range)) = (source.object(), range) else { return Ok(None) };
        if object.version.size < COPY_SIZE_MIN {
            return Ok(None);
        }
        let staged = self.stage_for_write(&self.row(target.ino)?).await?;
        // Replaced, renamed or removed meanwhile?
        let is_there = || source.object().as_ref() == Some(&object) && self.writer.is_base(source.ino, &object);
        let copied = self.writer.copy_of(&staged, &object, range, is_there)?;
        if copied.is_some() {
            staged.set_written_at(Some(self.meta.now()));
        }
        Ok(copied)
    }

    /// The staged file of an inode that is about to be changed. From here on the catalogue says that it holds changes.
    ///
    /// # Errors
    /// [`FsError::Stale`] if what is written to it would reach nobody.
    pub(super) async fn stage_for_write(&self, row: &InodeRow) -> Result<Arc<Staged>> {
        let settled;
        let row = if self.writer.get(row.ino).is_none() && self.is_read_otherwise(row)? {
            settled = self.row_as_read(row.ino).await?;
            &settled
        } else {
            row
        };
        let base = self.base_of(row)?;
        // Of changes that have a name nobody takes it away: a user's every write asks this.
        let is_held = row.local && row.parent.is_some() && !self.meta.pins().is_lost(row.ino);
        if !is_held && self.is_out_of_reach(row.ino)? {
            return Err(FsError::Stale);
        }
        let staged = self.writer.stage(row.ino, base)?;
        staged.copy_ended().await;
        let was_clean = !staged.is_changed();
        if was_clean || staged.is_uploading() {
            // Before the row says so: a commit that ends just now asks whether anything waits, and must hear yes.
            staged.touch();
        }
        if was_clean || !row.local {
            self.meta.change(row.ino, |row| row.local = true).await?;
            if self.is_out_of_reach(row.ino)? {
                return Err(FsError::Stale);
            }
        }
        Ok(staged)
    }

    /// The object that a change of an inode is made over.
    fn base_of(&self, row: &InodeRow) -> Result<Option<ObjectRef>> {
        match self.object(row) {
            Err(FsError::Stale) => Ok(self.handles.of(row.ino).first().and_then(|h| h.object())),
            result => result,
        }
    }

    /// Whether somebody who has the file open reads another version than the row shows.
    fn is_read_otherwise(&self, row: &InodeRow) -> Result<bool> {
        let Some(base) = self.base_of(row)? else { return Ok(false) };
        let is_other = |object: ObjectRef| !object.version.same(&base.version);
        Ok(self.handles.of(row.ino).iter().any(|handle| handle.object().is_some_and(is_other)))
    }

    /// The row, once it shows what is read. A chmod or a rename tells row and handles of a new version one after the other. If they go on
    /// naming different ones, a listing has shown another in the moment of the open: bytes of the one do not go over the other.
    async fn row_as_read(&self, ino: Ino) -> Result<InodeRow> {
        for _ in 0..SETTLE_LOOKS {
            let row = self.row(ino)?;
            if !self.is_read_otherwise(&row)? {
                return Ok(row);
            }
            tokio::time::sleep(SETTLE_LOOK).await;
        }
        Err(FsError::Stale)
    }

    /// Whether a commit of the inode would have no name to go to, and yet somebody might expect one: it was changed or deleted
    /// elsewhere while it was open, or its last handle is being closed. What we deleted ourselves lives on for those who hold it.
    pub(super) fn is_out_of_reach(&self, ino: Ino) -> Result<bool> {
        let Some(row) = self.meta.get(ino)? else { return Ok(true) };
        match row.parent {
            None => Ok(self.meta.pins().is_lost(ino) || self.handles.of(ino).is_empty()),
            // Its directory may be gone.
            Some(_) => Ok(self.meta.path(ino)?.is_none()),
        }
    }

    /// Set-user-ID and set-group-ID do not survive a write by somebody else (chmod(2), "set-user-ID mode bits").
    pub(super) async fn clear_suid(&self, ino: Ino) -> Result<()> {
        self.note_set_ids(ino, false);
        let cleared = self.clear_set_ids(ino).await;
        if cleared.is_err() {
            self.note_set_ids(ino, true);
        }
        cleared
    }

    /// Whether writes to a staged file have to look at its mode.
    pub(super) fn note_set_ids(&self, ino: Ino, may_have: bool) {
        if let Some(staged) = self.writer.get(ino) {
            staged.set_may_have_set_ids(may_have);
        }
    }

    async fn clear_set_ids(&self, ino: Ino) -> Result<()> {
        let before = self.row(ino)?.attr.perm;
        if before & 0o6000 == 0 {
            return Ok(());
        }
        let row = self.meta.change(ino, |row| {
            row.attr.perm &= !0o4000;
            // Without group execution the bit means mandatory locking, not set-group-ID.
            if row.attr.perm & 0o010 != 0 {
                row.attr.perm &= !0o2000;
            }
        });
        // The kernel leaves it to us (HANDLE_KILLPRIV_V2), and takes no mode from the answer to a WRITE.
        if row.await?.is_some_and(|row| row.attr.perm != before) {
            self.forget_attr(ino);
        }
        Ok(())
    }

    /// FSYNC: the bucket has the file when this returns, or the journal, with `fsync=local` and for temporary names.
    ///
    /// # Errors
    /// Why it could not be committed.
    pub async fn fsync(self: &Arc<Self>, fh: Fh) -> Result<()> {
        let handle = self.handles.get(fh).ok_or(FsError::BadHandle)?;
        let fs = Arc::clone(self);
        apart_to_the_end(async move {
            let Some(staged) = fs.writer.get(handle.ino).filter(|_| !fs.settings.read_only) else { return Ok(()) };
            let closing = fs.closing(&staged).await?;
            let promise = fs.settings.writes.on_fsync(closing);
            fs.keep_promise(&staged, closing.role, promise).await?;
            if let Promise::Journal(delay) = promise {
                // The close may be days away.
                fs.queue_commit_after(handle.ino, delay);
            }
            Ok(())
        })
        .await
    }

    /// FSYNCDIR: the directory's owed marker is in the bucket when this returns, and so are the files in it whose close or rename
    /// was acknowledged earlier than that; other names always are.
    ///
    /// # Errors
    /// What the store says.
    pub async fn fsyncdir(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let fs = Arc::clone(self);
        to_the_end(async move {
            if !fs.settings.writes.fsync_local {
                for file in fs.acknowledged_in(ino)? {
                    match fs.commit_for_bystander(file).await {
                        // Somebody goes on writing to it: the journal keeps what was acknowledged.
                        Err(e) if is_disturbed(&e) => {}
                        committed => committed?,
                    }
                }
            }
            fs.write_owed_marker(ino).await
        })
        .await
    }

    /// Files in a directory that are in the journal, and not temporary.
    fn acknowledged_in(&self, dir: Ino) -> Result<Vec<Ino>> {
        let mut files = Vec::new();
        for ino in self.owed() {
            let is_acknowledged = self.writer.get(ino).is_some_and(|staged| staged.is_acknowledged());
            if let Some(row) = self.meta.get(ino)?.filter(|row| is_acknowledged && row.parent == Some(dir))
                && !row.name.is_some_and(|name| self.settings.writes.temp_names.contains(&name))
                // SQLite syncs the directory in the midst of its transactions.
                && !self.belongs_to_database(ino)
            {
                files.push(ino);
            }
        }
        Ok(files)
    }
}

/// Makes a change within `range` of a staged file: on a thread of its own if much has to be copied before it.
pub(super) async fn change_staged(
    staged: &Arc<Staged>,
    range: ByteRange,
    change: impl FnOnce(&Staged) -> io::Result<()> + Send + 'static,
) -> Result<()> {
    if !staged.waits_for_copy(range) {
        return Ok(change(staged)?);
    }
    let changed = Arc::clone(staged);
    let made = tokio::task::spawn_blocking(move || {
        // A commit may end before the change is made, and must hear of it.
        changed.touch();
        change(&changed)
    });
    Ok(made.await.map_err(io::Error::other)??)
}

/// Where a write goes; at the end for `None`.
fn written_range(staged: &Staged, offset: Option<u64>, data: &[u8]) -> Option<ByteRange> {
    ByteRange::at(offset.unwrap_or_else(|| staged.size()), data.len() as u64)
}

pub(super) fn stale(error: crate::store::StoreError) -> FsError {
    match error.kind {
        ErrorKind::Precondition | ErrorKind::NotFound => FsError::Stale,
        _ => FsError::Store(error),
    }
}
