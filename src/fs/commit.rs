//! Commits of staged files.
//!
//! Owns: the order of a commit (claim, settle attributes, upload, catalogue, journal), what a lost answer and a lost base mean.
//! Does not own: the upload (`write::commit`), conflicts (`conflict`).

use super::databases::is_disturbed;
use super::{Fs, FsError, Result};
use crate::meta::InodeRow;
use crate::store::{Condition, ObjectHeaders, ObjectMeta};
use crate::types::{ContentSum, Ino, Key, ObjectRef, WriteId};
use crate::write::{CommitError, Committed, Span, Staged, for_bystander, is_for_bystander, is_unattended};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Fs {
    /// Makes what is staged of `ino` the object's new version. Returns when the bucket has it.
    ///
    /// # Errors
    /// Why not. The file stays staged, is journaled, and is tried again in the background unless that is hopeless.
    pub(super) async fn commit(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let asked_for = self.writer.get(ino).map_or(0, |staged| staged.last_change());
        let result = self.commit_now(ino).await;
        let now = self.meta.now();
        match &result {
            Ok(()) => {
                self.queue().on_done(ino, now);
                // Nobody may be there who would do it later.
                self.drop_clean(ino);
            }
            // Nothing was sent: it waits for its close, as it did.
            Err(e) if is_for_bystander() && is_disturbed(e) => {}
            Err(e) => {
                // Whoever has begun to write it anew meanwhile was told nothing.
                let is_safe = |staged: Arc<Staged>| {
                    // Nor was he if it is none of his that has failed.
                    let is_of_others = is_for_bystander() || is_unattended() && is_disturbed(e);
                    staged.is_acknowledged_up_to(asked_for) || is_of_others
                };
                if !self.writer.get(ino).is_some_and(is_safe)
                    && let Err(unsafe_now) = self.keep_failed(ino).await
                {
                    tracing::error!(inode = %ino, error = %unsafe_now, "a failed commit could not be journaled");
                }
                if let Some(staged) = self.writer.get(ino).filter(|_| !is_disturbed(e)) {
                    staged.note_failed(asked_for);
                }
                let jitter = fastrand::f64();
                self.queue().on_failed(ino, now, e.to_string(), e.prospect(), jitter);
                self.queue_changed.notify_one();
            }
        }
        result
    }

    /// A commit has failed: the file is kept in the journal, with the bytes of the object that it is a copy of, if it is one.
    pub(super) async fn keep_failed(self: &Arc<Self>, ino: Ino) -> Result<()> {
        match self.writer.get(ino).filter(|staged| staged.content().copied().is_some()) {
            Some(copy) => Box::pin(self.keep_whole(&copy)).await,
            None => self.journal(ino).await,
        }
    }

    /// The same for somebody who does not write the file, but changes its name or syncs its directory.
    ///
    /// # Errors
    /// [`CommitError::Disturbed`] if somebody has half written it, and else as [`Fs::commit`]. Nothing was sent then: who wants more than
    /// what was acknowledged finds that in the journal or in the bucket.
    pub(super) async fn commit_for_bystander(self: &Arc<Self>, ino: Ino) -> Result<()> {
        if let Some(staged) = self.writer.get(ino) {
            staged.copy_ended().await;
            if staged.is_half_written() {
                return Err(CommitError::Disturbed.into());
            }
        }
        // It is large.
        for_bystander(Box::pin(self.commit(ino))).await
    }

    async fn commit_now(self: &Arc<Self>, ino: Ino) -> Result<()> {
        loop {
            let Some(staged) = self.writer.get(ino).filter(|s| s.is_owed()) else {
                return Ok(());
            };
            let Some(row) = self.meta.get(ino)? else {
                if !self.handles.of(ino).is_empty() {
                    return Err(FsError::Stale);
                }
                // Replaced by a rename after which the journal could not be written.
                return self.forget_staged(ino).await;
            };
            let Some(key) = self.meta.key(&row)? else {
                // The journal could not forget it when it lost its name.
                let is_left = row.parent.is_none() && !self.meta.pins().is_pinned(ino);
                return if is_left { self.last_closed(ino).await } else { Ok(()) };
            };
            let key = key?;
            let _claim = self.claims.claim(vec![Span::Key(key.clone())]).await;
            // Renamed, removed or committed while we waited?
            if self.meta.get(ino)?.map(|row| self.meta.key(&row)).transpose()?.flatten() != Some(Ok(key.clone())) {
                continue;
            }
            // Dropped meanwhile, be it that the name is the same?
            if !self.writer.get(ino).is_some_and(|now| Arc::ptr_eq(&now, &staged)) {
                continue;
            }
            if !staged.is_changed() {
                // Somebody else's commit carried it while we waited; a row written meanwhile has nothing left to say.
                return self.clear_row(&staged).await;
            }
            self.learn_attr(ino, &key).await?;
            let row = self.settled(&staged)?;
            return self.commit_claimed(&staged, row, key).await;
        }
    }

    async fn commit_claimed(self: &Arc<Self>, staged: &Arc<Staged>, row: InodeRow, key: Key) -> Result<()> {
        let headers = self.headers_for_commit(&row, &key).await?;
        self.writer.keep_copies_of(&key).await?;
        let done = match self.upload(staged, &key, headers.clone(), condition_of(staged)).await {
            Err(CommitError::BaseLost) if !staged.has_only_attributes() && self.find_own(staged, &key).await? => {
                self.upload(staged, &key, headers.clone(), condition_of(staged)).await
            }
            done => done,
        };
        match done {
            Ok(done) => self.uploaded(staged, &row, &key, &headers, done).await,
            Err(CommitError::Conflict | CommitError::BaseDeleted | CommitError::BaseLost)
                if staged.has_only_attributes() =>
            {
                self.settle_attributes(staged, &row, &key).await
            }
            Err(CommitError::Conflict) => self.on_conflict(staged, row, key, headers).await,
            Err(CommitError::BaseDeleted) => self.recreate(staged, &row, &key, &headers).await,
            Err(CommitError::BaseLost) if !staged.content().has_own_bytes() => {
                self.give_up_attributes(&row, &key).await
            }
            Err(CommitError::BaseLost) => {
                self.keep_apart(staged, row, &key).await?;
                Err(CommitError::BaseLost.into())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Nothing but attributes is owed, of a version that is gone. If a commit of ours that got no answer has taken its place, they are
    /// owed of what that made.
    async fn settle_attributes(self: &Arc<Self>, staged: &Arc<Staged>, row: &InodeRow, key: &Key) -> Result<()> {
        let is_ours = |there: &ObjectMeta| there.headers.write_id().is_some_and(|id| staged.may_have_made(&id));
        let Some(own) = self.remote.head(key).await?.filter(is_ours) else {
            if !self.writer.give_up_attributes(staged, || self.meta.pins().is_pinned(row.ino)).await? {
                // Somebody has written to it meanwhile: those bytes are owed, and meet the other version.
                return Err(CommitError::Conflict.into());
            }
            let shown = self.show_theirs(row, key).await;
            // Not before: whoever drains waits for it.
            self.queue().forget(row.ino);
            return shown;
        };
        let object = ObjectRef { key: key.clone(), version: own.version.clone() };
        if !self.writer.follow_own(staged, object.clone()).await? {
            // Somebody has written to it in this moment.
            return Err(CommitError::Conflict.into());
        }
        tracing::info!(%key, "the answer to an earlier commit was lost: what it made gets the attributes that were set meanwhile");
        self.note_committed(row.ino, &object);
        let row = self.take_own(row, own).await?;
        let headers = self.headers_for_commit(&row, key).await?;
        let done = self.upload(staged, key, headers, condition_of(staged)).await?;
        self.committed(staged, &row, done).await
    }

    /// The row shows the version that a commit of ours has made, with the attributes that it has. Answers it.
    async fn take_own(&self, row: &InodeRow, own: ObjectMeta) -> Result<InodeRow> {
        let mtime_in = |headers: &ObjectHeaders| crate::meta::headers::from_user(&headers.user).mtime;
        let modified = row.version.as_ref().and_then(|version| version.last_modified);
        let before = super::headers::known(row).as_ref().and_then(mtime_in).or(modified);
        let (size, written_at) = (own.version.size, mtime_in(&own.headers));
        let settle = move |now: &mut InodeRow| {
            now.attr.size = size;
            // Unless somebody has set it since.
            if let Some(at) = written_at.filter(|_| before.is_none_or(|before| before == now.attr.mtime)) {
                now.attr.mtime = at;
            }
        };
        self.note_settled(row, own.version, &own.headers, settle).await?;
        if let Some(kernel) = self.kernel.get() {
            kernel.forget_content(row.ino);
        }
        self.forget_attr(row.ino);
        self.row(row.ino)
    }

    /// Nothing but attributes was changed here, of a version that is gone: as with chmod of a clean file.
    pub(super) async fn give_up_attributes(self: &Arc<Self>, row: &InodeRow, key: &Key) -> Result<()> {
        self.forget_staged(row.ino).await?;
        self.show_theirs(row, key).await
    }

    async fn show_theirs(self: &Arc<Self>, row: &InodeRow, key: &Key) -> Result<()> {
        self.meta.change(row.ino, |row| row.local = false).await?;
        self.look_again(row, key).await?;
        Err(FsError::Stale)
    }

    /// Bytes of the version before are missing. `true` if they are found in what an earlier commit of ours, whose answer was lost,
    /// has made of it.
    async fn find_own(&self, staged: &Staged, key: &Key) -> Result<bool> {
        let Some(own) = self.remote.head(key).await?.filter(|there| is_ours(staged, there)) else { return Ok(false) };
        tracing::info!(%key, "the answer to an earlier commit was lost: what it did not change is found there");
        staged.replace_base(ObjectRef { key: key.clone(), version: own.version });
        Ok(true)
    }

    /// The bucket has it. An upload that began while the file was still being written has the headers of that time. What was said
    /// explicitly since (mode, owner, times) is stored by a commit that has nothing else to send, a copy of the object to itself; the
    /// time of the last write only in the catalogue, as the bucket has one of its own.
    pub(super) async fn uploaded(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: &InodeRow,
        key: &Key,
        wanted: &ObjectHeaders,
        done: Committed,
    ) -> Result<()> {
        if !lacks(&done.headers, wanted, staged.written_at().is_none()) {
            return self.committed(staged, row, done).await;
        }
        // Before the journal's row goes: attributes that somebody was told are safe are owed still.
        staged.touch();
        self.committed(staged, row, done).await?;
        if staged.content().has_own_bytes() {
            // Somebody has begun to write it anew: his close carries both.
            return Ok(());
        }
        let row = self.settled(staged)?;
        let headers = self.headers_for_commit(&row, key).await?;
        let done = self.upload(staged, key, headers, condition_of(staged)).await?;
        self.committed(staged, &row, done).await
    }

    /// The commit writes all attributes: those that only the object knows are read first. Of a version that is gone none can be,
    /// and the commit's condition decides what that means.
    pub(super) async fn learn_attr(&self, ino: Ino, key: &Key) -> Result<()> {
        let Some(row) = self.meta.get(ino)? else { return Ok(()) };
        match self.with_attr(row, key).await {
            Ok(_) | Err(FsError::Stale) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// The row with size and times that only the staged file knows. They are stored together with what becomes of it.
    fn settled(&self, staged: &Staged) -> Result<InodeRow> {
        let mut row = self.meta.get(staged.ino())?.ok_or(FsError::Stale)?;
        settle(&mut row, staged.size(), staged.written_at());
        Ok(row)
    }

    pub(super) async fn upload(
        &self,
        staged: &Arc<Staged>,
        key: &Key,
        headers: ObjectHeaders,
        condition: Condition,
    ) -> std::result::Result<Committed, CommitError> {
        self.writer.commit(staged, key, headers, condition, self.meta.now()).await
    }

    pub(super) async fn committed(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: &InodeRow,
        done: Committed,
    ) -> Result<()> {
        let version = done.object.version.clone();
        self.note_committed(row.ino, &done.object);
        // After stores through mmap the kernel has a time of its own.
        self.forget_attr(row.ino);
        let (kept, sent, size) = (Arc::clone(staged), row.clone(), done.object.version.size);
        let in_objects = self.kept().in_objects();
        // Times that somebody has set meanwhile, or a write that belongs to the next commit, count more.
        let settle = move |now: &mut InodeRow| {
            if in_objects && is_set_since(now, &sent, kept.written_at().is_none()) {
                // After the headers were made, and before the bytes counted as sent.
                kept.touch();
            }
            let written_at = kept.written_at().filter(|at| *at == sent.attr.mtime || !kept.is_changed());
            settle(now, size, written_at);
        };
        if let Err(e) = self.note_settled(row, version, &done.headers, settle).await {
            // The catalogue shows the version before: the file is owed until it knows better.
            staged.touch();
            return Err(e);
        }
        if staged.is_changed() && staged.is_journaled() {
            // Written again meanwhile: the journal must not remember the old base.
            return self.journal_anew(staged, None).await;
        }
        self.clear_row(staged).await
    }

    /// The bucket has all of it: the journal's row goes; or, if it was written to in this moment, says what is owed still, and not
    /// what was before the commit.
    pub(super) async fn clear_row(self: &Arc<Self>, staged: &Arc<Staged>) -> Result<()> {
        if self.writer.clear(staged).await? { Ok(()) } else { self.journal_anew(staged, None).await }
    }

    /// What the journal has of a file is of another version or name: from now on it is of those that there are. What was written since
    /// it was acknowledged stays out of it. `replaced` as in [`Fs::journal_over`].
    pub(super) async fn journal_anew(&self, staged: &Arc<Staged>, replaced: Option<&Staged>) -> Result<()> {
        let describe = || {
            let is_known = staged.is_recorded();
            let row = if is_known { self.settled(staged) } else { self.row(staged.ino()) };
            self.described(&row?)
        };
        let recorded = self.writer.record_anew(staged, replaced, self.meta.now(), describe);
        let kept = Arc::clone(staged);
        // It may have been written in the moment in which a commit ended.
        let stored = self.meta.change(staged.ino(), move |row| row.local |= kept.is_changed());
        let (recorded, stored) = tokio::join!(recorded, stored);
        stored?;
        recorded
    }

    /// Handles and the kernel's pages follow our own commit.
    fn note_committed(&self, ino: Ino, object: &ObjectRef) {
        self.handles.of(ino).iter().for_each(|h| h.set_object(Some(object.clone())));
        self.seen.insert(ino, object.version.clone());
    }

    /// What was changed here is not in the bucket any more: it is a new file there.
    pub(super) async fn recreate(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: &InodeRow,
        key: &Key,
        headers: &ObjectHeaders,
    ) -> Result<()> {
        tracing::warn!(%key, "was deleted elsewhere while it was changed here: it is created again");
        staged.rebase_on_nothing();
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        let done = self.upload(staged, key, headers.clone(), Condition::IfAbsent).await?;
        self.uploaded(staged, row, key, headers, done).await
    }

    /// Makes what is staged of `ino` durable on this machine, so that it may be acknowledged before the bucket has it.
    pub(super) async fn journal(&self, ino: Ino) -> Result<()> {
        self.journal_over(ino, None).await
    }

    /// The same, unless the journal has it as it is.
    pub(super) async fn journal_if_changed(&self, ino: Ino) -> Result<()> {
        match self.writer.get(ino) {
            Some(staged) if staged.is_recorded() => Ok(()),
            _ => self.journal(ino).await,
        }
    }

    /// The same of a file that has taken the name of `replaced`, of which the journal then says nothing any more.
    pub(super) async fn journal_over(&self, ino: Ino, replaced: Option<&Staged>) -> Result<()> {
        let Some(staged) = self.writer.get(ino).filter(|s| s.is_changed()) else { return Ok(()) };
        let describe = || {
            let row = self.settled(&staged)?;
            self.described(&row)
        };
        let (size, written_at) = (staged.size(), staged.written_at());
        let recorded = self.writer.record(&staged, replaced, self.meta.now(), describe);
        let kept = Arc::clone(&staged);
        let stored = self.meta.change(ino, move |row| {
            settle(row, size, written_at);
            // What is acknowledged is ours, also if it was written in the moment in which a commit ended.
            row.local |= kept.is_changed();
        });
        let (recorded, stored) = tokio::join!(recorded, stored);
        stored?;
        recorded
    }

    /// Makes the attributes of a file with changes durable on this machine. What was written to it is acknowledged by a close or fsync
    /// only.
    pub(super) async fn journal_attr(&self, staged: &Staged) -> Result<()> {
        let describe = || self.described(&self.row(staged.ino())?);
        self.writer.record_attributes(staged, self.meta.now(), describe).await
    }

    /// Key and headers of a file for the journal. `None` if it has no name.
    fn described(&self, row: &InodeRow) -> Result<Option<(Key, ObjectHeaders)>> {
        let Some(key) = self.meta.key(row)? else { return Ok(None) };
        // No HEAD here: what is not known of the old object's headers is kept by the commit, which asks.
        let known = super::headers::known(row).unwrap_or_default();
        Ok(Some((key?, super::headers::for_journal(known, row))))
    }
}

/// Size and time of the last write go into the row.
fn settle(row: &mut InodeRow, size: u64, written_at: Option<crate::types::Timestamp>) {
    row.attr.size = size;
    if let Some(at) = written_at {
        row.attr.mtime = at;
        row.attr.ctime = row.attr.ctime.max(at);
    }
}

/// Whether somebody has set what the headers say otherwise that were made of `sent`. An atime that was only moved by reading, which
/// leaves the ctime alone, is no reason to send anything.
fn is_set_since(now: &InodeRow, sent: &InodeRow, is_time_set: bool) -> bool {
    let said = |row: &InodeRow| (row.attr.perm, row.attr.uid, row.attr.gid);
    let is_atime_set = now.attr.atime != sent.attr.atime && now.attr.ctime > sent.attr.ctime;
    let is_mtime_set = is_time_set && now.attr.mtime != sent.attr.mtime;
    said(now) != said(sent) || now.xattrs != sent.xattrs || is_atime_set || is_mtime_set
}

/// Whether an earlier commit of the staged file, whose answer was lost, made the object.
pub(super) fn is_ours(staged: &Staged, object: &ObjectMeta) -> bool {
    object.headers.write_id().is_some_and(|id| staged.is_own(&id))
}

/// Whether an object that was made with `made` lacks something of `wanted`, times only if somebody has set them.
fn lacks(made: &ObjectHeaders, wanted: &ObjectHeaders, is_time_set: bool) -> bool {
    let comparable = |headers: &ObjectHeaders| {
        let mut headers = headers.clone();
        headers.user.remove(WriteId::HEADER);
        headers.user.remove(ContentSum::HEADER);
        if !is_time_set {
            crate::meta::headers::remove_times(&mut headers.user);
        }
        headers
    };
    comparable(made) != comparable(wanted)
}

/// A staged file may replace just the version that it changes.
pub(super) fn condition_of(staged: &Staged) -> Condition {
    match staged.content().base() {
        Some(base) => Condition::IfMatch(base.version.etag.clone()),
        None => Condition::IfAbsent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meta::Marker;
    use crate::types::{Attr, FileKind, Timestamp};

    fn row(atime: i64, ctime: i64) -> InodeRow {
        let [atime, mtime, ctime] = [atime, 5, ctime].map(Timestamp::from_nanos);
        let attr = Attr { kind: FileKind::File, perm: 0o644, uid: 0, gid: 0, rdev: 0, size: 1, atime, mtime, ctime };
        InodeRow {
            ino: Ino(2),
            parent: Some(Ino::ROOT),
            name: None,
            attr,
            version: None,
            storage_class: None,
            symlink: None,
            headers: None,
            xattrs: None,
            local: true,
            checked_at: Timestamp::default(),
            complete_at: None,
            marker: Marker::Implied,
            place: None,
        }
    }

    #[test]
    fn an_atime_is_sent_once_more_if_somebody_has_set_it_and_not_if_somebody_has_read_the_file() {
        let sent = row(5, 5);
        assert!(!is_set_since(&row(9, 5), &sent, false), "read during the upload");
        assert!(is_set_since(&row(1, 9), &sent, false), "set during the upload");
        assert!(!is_set_since(&row(5, 9), &sent, false));
    }
}
