//! Opening and closing files.
//!
//! Owns: open, flush, release; when a close commits and when it only journals; whether the kernel's pages are still good.
//! Does not own: the commit itself (`commit`).

use super::begin::{apart_to_the_end, to_the_end};
use super::handle::{FileHandle, Opener, is_for_writing};
use super::promise::{Closing, Promise};
use super::sqlite::Role;
use super::{Caller, Fs, FsError, Result, SEEN_MAX};
use crate::meta::InodeRow;
use crate::types::{ByteRange, Fh, FileKind, Ino, ObjectRef};
use crate::write::{CommitError, InPlace, Staged};
use std::sync::Arc;
use std::time::Duration;

/// An opened file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// Its handle.
    pub fh: Fh,
    /// Whether what the kernel has cached of it is still good.
    pub keep_cache: bool,
    /// Whether a FLUSH at close would mean nothing.
    pub no_flush: bool,
}

impl Fs {
    /// OPEN: asks whether the version is still the one in the bucket, and pins it.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the name belongs to another inode by now; [`FsError::ReadOnly`].
    pub async fn open(self: &Arc<Self>, caller: Caller, ino: Ino, flags: i32) -> Result<Opened> {
        let writes = flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0;
        if writes {
            self.writable()?;
        }
        let row = self.row(ino)?;
        match row.attr.kind {
            FileKind::Dir => return Err(FsError::IsDir),
            FileKind::File => {}
            // The kernel opens pipes, sockets and devices itself.
            _ => return Err(FsError::Invalid),
        }
        self.revalidate(row).await?;
        let pin = PinGuard::new(self, ino);
        match self.open_pinned(caller, ino, flags).await {
            Ok(opened) => {
                pin.keep();
                Ok(opened)
            }
            Err(e) => {
                pin.close().await?;
                Err(e)
            }
        }
    }

    async fn open_pinned(self: &Arc<Self>, caller: Caller, ino: Ino, flags: i32) -> Result<Opened> {
        self.wait_if_going(ino).await?;
        let row = self.row(ino)?;
        let known = self.handles.of(ino);
        if row.parent.is_none() && known.is_empty() {
            // The last handle of a file without a name is being closed: nothing is left of it but the row, in a moment.
            return Err(FsError::Stale);
        }
        if flags & libc::O_TRUNC != 0 {
            let staged = self.stage_for_write(&row).await?;
            staged.truncate(0)?;
            staged.set_written_at(Some(self.meta.now()));
            if caller.uid != 0 {
                self.clear_suid(ino).await?;
            }
        }
        let object = match self.object(&row) {
            // Opened through /proc/self/fd after its name was taken away: the copy or the pinned version still serves. If nobody has
            // it open, the name has gone in this moment.
            Err(FsError::Stale) => known.first().ok_or(FsError::Stale)?.object(),
            result => result?,
        };
        let has_pages = self.may_have_pages(&row);
        let opened = self.handle_for(&row, flags, caller.tid, object);
        if let Some(handle) = self.handles.get(opened.fh) {
            self.turn_late(&handle);
            if has_pages && flags & libc::O_TRUNC == 0 {
                self.on_open_with_pages(&row, &handle);
            }
        }
        Ok(opened)
    }

    /// A handle on a file that was just made.
    pub(super) fn opened(&self, row: &InodeRow, flags: i32, tid: u32, object: Option<ObjectRef>) -> Opened {
        self.meta.pins().pin(row.ino);
        self.handle_for(row, flags, tid, object)
    }

    fn handle_for(&self, row: &InodeRow, flags: i32, tid: u32, object: Option<ObjectRef>) -> Opened {
        let place = row.parent.map(|dir| (dir, row.pos()));
        let moves_atime = self.may_move_atime(row, flags);
        let opener = Opener { tid, tgid: if is_for_writing(flags) { tgid_of(tid) } else { 0 } };
        let handle = FileHandle::new((row.ino, place), flags, opener, object, moves_atime);
        let no_flush = !handle.writable;
        let fh = self.handles.insert(handle);
        Opened { fh, keep_cache: self.is_seen_version(row), no_flush }
    }

    /// Whether the kernel may answer reads of what is opened now by itself.
    fn may_have_pages(&self, row: &InodeRow) -> bool {
        match &row.version {
            Some(version) => self.seen.get(&row.ino).is_some_and(|seen| seen.same(version)),
            None => true,
        }
    }

    /// Whether the kernel's pages are of the version that is opened now; from now on they are. An inode that this mount has
    /// not opened before has no pages: dropping them all the same would wait, deaf to signals, for what another process
    /// that opened it in the same moment is reading already.
    fn is_seen_version(&self, row: &InodeRow) -> bool {
        let Some(version) = &row.version else { return true };
        let keep = match self.seen.get(&row.ino) {
            Some(seen) => seen.same(version),
            None => self.seen.entry_count() < SEEN_MAX / 2,
        };
        self.seen.insert(row.ino, version.clone());
        keep
    }

    /// FLUSH, at every close(2) of a descriptor. The process that opened the file waits for what the mount promises (the bucket, or
    /// with `write=back` and for temporary names the journal) and hears the answer. Another's close (a child's, of an inherited
    /// descriptor) makes the bytes durable in the journal, unless too much would have to be fetched for that; they are committed at
    /// RELEASE, so that a shell redirection with several children is one upload. So is the close of a new file that nobody has written
    /// to yet.
    ///
    /// # Errors
    /// Why the file could not be committed. It stays staged and journaled, and is tried again.
    pub async fn flush(self: &Arc<Self>, caller: Caller, fh: Fh) -> Result<()> {
        let handle = self.handles.get(fh).ok_or(FsError::BadHandle)?;
        let Some(staged) = self.writer.get(handle.ino).filter(|_| handle.writable) else { return Ok(()) };
        if !staged.is_changed() {
            return self.without_old_row(&staged).await;
        }
        let is_heir = handle.opener.is_other(caller.tid, tgid_of);
        let fs = Arc::clone(self);
        apart_to_the_end(async move {
            let closing = Closing { is_heir, ..fs.closing(&staged).await? };
            fs.keep_promise(&staged, closing.role, fs.settings.writes.on_close(closing)).await
        })
        .await
    }

    /// What matters of a file that is closed or synced.
    pub(super) async fn closing(&self, staged: &Staged) -> Result<Closing> {
        staged.copy_ended().await;
        let content = staged.content();
        let row = self.meta.get(staged.ino())?;
        let role = row.as_ref().map_or(Ok(Role::None), |row| self.role_of(staged, row))?;
        let is_in_transaction = match &row {
            Some(row) if role != Role::None => self.is_in_transaction(row)?,
            _ => false,
        };
        // SQLite can deal with a file of which a part was overwritten; a copy for each transaction would take too long.
        let is_of_database = row.as_ref().map_or(Ok(false), |row| self.is_of_database(staged, row, role))?;
        staged.overwrite_in_place(match role {
            Role::Database if is_of_database => InPlace::Parts,
            Role::Companion if is_of_database => InPlace::All,
            _ => InPlace::Nothing,
        });
        let name = row.and_then(|row| row.name);
        Ok(Closing {
            role,
            is_in_transaction,
            is_temp: name.is_some_and(|name| self.settings.writes.temp_names.contains(&name)),
            is_heir: false,
            is_unwritten: content.size() == 0 && content.base().is_none(),
            missing: content.missing().into_iter().map(ByteRange::len).sum(),
            waiting: self.queue().active(),
        })
    }

    /// Makes the changes of a file as durable as `promise` says.
    ///
    /// # Errors
    /// Why it could not; [`FsError::Stale`] if what was written meanwhile has no name to go to.
    pub(super) async fn keep_promise(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        role: Role,
        promise: Promise,
    ) -> Result<()> {
        match promise {
            Promise::Bucket => {
                staged.set_delay(Duration::ZERO);
                let database = if role == Role::Database { self.meta.get(staged.ino())? } else { None };
                let committed = match database {
                    Some(row) => self.commit_database(&row, false).await,
                    None => self.commit(staged.ino()).await,
                };
                match committed {
                    // Another connection goes on with the database: it is tried again.
                    Err(FsError::Commit(CommitError::Disturbed)) => {
                        self.keep_in_journal(staged, self.settings.writes.database_delay()).await
                    }
                    committed => committed,
                }?;
            }
            Promise::Journal(delay) => self.keep_in_journal(staged, delay).await?,
        }
        // Neither a commit nor the journal has anything to say of a file without a name.
        if staged.is_changed() && self.is_out_of_reach(staged.ino())? { Err(FsError::Stale) } else { Ok(()) }
    }

    async fn keep_in_journal(self: &Arc<Self>, staged: &Arc<Staged>, delay: Duration) -> Result<()> {
        staged.set_delay(delay);
        self.keep_whole(staged).await
    }

    /// Makes a file durable on this machine, with what its base has of it.
    pub(super) async fn keep_whole(self: &Arc<Self>, staged: &Arc<Staged>) -> Result<()> {
        // What is acknowledged here must not depend on a base that somebody else may replace before the commit.
        let mut filled = self.writer.fill(staged).await;
        if matches!(filled, Err(CommitError::BaseLost)) {
            self.find_base(staged).await?;
            filled = self.writer.fill(staged).await;
        }
        self.journal_if_changed(staged.ino()).await?;
        self.without_old_row(staged).await?;
        Ok(filled?)
    }

    /// If the bucket has all of a file, the journal's row is of an earlier moment. It goes before anybody is told that what there is now
    /// is safe: after a crash it would be taken for something newer.
    async fn without_old_row(self: &Arc<Self>, staged: &Arc<Staged>) -> Result<()> {
        // If somebody writes to it again, a row that has more than the bucket stays, and so does one of attributes.
        let is_owed = || staged.is_acknowledged() || staged.has_only_attributes();
        if !staged.is_journaled() || staged.is_changed() && is_owed() {
            return Ok(());
        }
        self.clear_row(staged).await
    }

    /// RELEASE: the last descriptor of a handle is closed. What is still dirty (mmap stores after close, a close by
    /// another process) is journaled and committed in the background.
    pub async fn release(self: &Arc<Self>, fh: Fh) {
        let Some(handle) = self.handles.remove(fh) else { return };
        let ino = handle.ino;
        let last = self.meta.pins().unpin(ino);
        let fs = Arc::clone(self);
        if let Err(e) = to_the_end(async move { fs.let_go(ino, last).await }).await {
            tracing::error!(inode = %ino, error = %e, "after the last close");
        }
    }

    /// A handle is gone, the last one or not: what is owed of the file is journaled and committed in the background.
    async fn let_go(self: &Arc<Self>, ino: Ino, last: bool) -> Result<()> {
        let mut journaled = Ok(());
        let staged = self.writer.get(ino);
        let owed = staged.as_ref().is_some_and(|s| s.is_owed());
        // What another handle has half written is acknowledged by its own close.
        let is_written_to = self.handles.of(ino).iter().any(|handle| handle.writable);
        if owed && !self.settings.read_only && self.meta.get(ino)?.is_some_and(|row| row.parent.is_some()) {
            if !is_written_to {
                journaled = self.journal_if_changed(ino).await;
            }
            // What has failed has its time, or waits for somebody: whoever reads the file does not change that.
            if staged.is_some_and(|staged| staged.is_worth_trying()) || !self.queue().knows(ino) {
                self.queue_commit_after(ino, self.delay_of(ino));
            }
        }
        if last {
            self.last_closed(ino).await?;
        }
        journaled
    }

    /// Nobody has the inode open any more.
    pub(super) async fn last_closed(&self, ino: Ino) -> Result<()> {
        let row = self.meta.get(ino)?;
        if row.as_ref().is_some_and(|row| row.parent.is_some()) {
            self.drop_clean(ino);
            if self.writer.get(ino).is_none() && !self.meta.pins().is_pinned(ino) {
                // A rename over it has failed, and the name shows what there is now.
                self.drop_orphan(ino).await;
            }
            return Ok(());
        }
        self.drop_seen_version(ino);
        self.forget_staged(ino).await?;
        self.drop_orphan(ino).await;
        if row.is_some() {
            self.meta.drop_nameless(ino).await?;
        }
        Ok(())
    }

    /// We have taken the name of an inode away: what is staged of it is dropped, unless somebody has it open. Whoever closed it last
    /// while that was under way has still seen the name, and left everything as it was.
    pub(super) async fn lost_name(&self, ino: Ino) -> Result<()> {
        self.forget_staged(ino).await?;
        if self.meta.pins().is_pinned(ino) { Ok(()) } else { self.last_closed(ino).await }
    }
}

/// Pins an inode for a handle that is about to be made, and lets go of it if that comes to nothing: because of an error, or
/// because the caller was interrupted.
pub(super) struct PinGuard(Option<(Arc<Fs>, Ino)>);

impl PinGuard {
    pub(super) fn new(fs: &Arc<Fs>, ino: Ino) -> PinGuard {
        fs.meta.pins().pin(ino);
        PinGuard(Some((Arc::clone(fs), ino)))
    }

    fn keep(mut self) {
        self.0 = None;
    }

    /// Lets go as the close of a handle does.
    pub(super) async fn close(mut self) -> Result<()> {
        let Some((fs, ino)) = self.0.take() else { return Ok(()) };
        if fs.meta.pins().unpin(ino) { fs.let_go(ino, true).await } else { Ok(()) }
    }
}

impl Drop for PinGuard {
    fn drop(&mut self) {
        if let Some((fs, ino)) = self.0.take()
            && fs.meta.pins().unpin(ino)
        {
            let runtime = fs.runtime.clone();
            // It may have been emptied half.
            runtime.spawn(async move {
                if let Err(e) = fs.let_go(ino, true).await {
                    tracing::error!(inode = %ino, error = %e, "after an open that was given up");
                }
            });
        }
    }
}

/// The process that a thread belongs to, or 0 if it is gone or not ours to see.
fn tgid_of(tid: u32) -> u32 {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{tid}/status")) else { return 0 };
    let line = status.lines().find_map(|l| l.strip_prefix("Tgid:"));
    line.and_then(|t| t.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_belong_to_their_process() {
        let of_thread = std::thread::spawn(|| tgid_of(nix::unistd::gettid().as_raw() as u32)).join().unwrap();
        assert_eq!(of_thread, std::process::id());
        assert_eq!(tgid_of(u32::MAX), 0);
    }
}
