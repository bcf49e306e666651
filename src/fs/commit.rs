//! Commits of staged files, and conflicts.
//!
//! Owns: the order of a commit (claim, settle attributes, upload, catalogue, journal), and what a failed condition means:
//! theirs keeps the name, ours becomes a conflict copy that keeps our inode.
//! Does not own: the upload (`write::commit`), names of conflict copies (`write::conflict`).

use super::headers::{for_new, found_object};
use super::{Fs, FsError, Result};
use crate::meta::{Change, InodeRow};
use crate::store::{Condition, ObjectHeaders, ObjectMeta};
use crate::types::{Ino, Key, Name, ObjectRef, WriteId};
use crate::write::{CommitError, Committed, Span, Staged, conflict_name};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Names that are tried for a conflict copy before the conflict is reported instead.
const CONFLICT_NAMES_MAX: u32 = 20;

impl Fs {
    /// Makes what is staged of `ino` the object's new version. Returns when the bucket has it.
    ///
    /// # Errors
    /// Why not. The file stays staged, is journaled, and is tried again in the background unless that is hopeless.
    pub(super) async fn commit(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let result = self.commit_now(ino).await;
        let now = self.meta.now();
        match &result {
            Ok(()) => self.queue().on_done(ino, now),
            Err(e) => {
                if let Err(unsafe_now) = self.journal(ino).await {
                    tracing::error!(inode = %ino, error = %unsafe_now, "a failed commit could not be journaled");
                }
                let jitter = fastrand::f64();
                self.queue().on_failed(ino, now, e.to_string(), e.is_permanent(), jitter);
                self.queue_changed.notify_one();
            }
        }
        result
    }

    async fn commit_now(self: &Arc<Self>, ino: Ino) -> Result<()> {
        loop {
            let Some(staged) = self.writer.get(ino).filter(|s| s.is_changed() || s.is_journaled()) else {
                return Ok(());
            };
            let Some(row) = self.meta.get(ino)? else { return Ok(()) };
            let Some(key) = self.meta.key(&row)? else { return Ok(()) };
            let key = key?;
            let _claim = self.claims.claim(vec![Span::Key(key.clone())]).await;
            // Renamed, removed or committed while we waited?
            if self.meta.get(ino)?.map(|row| self.meta.key(&row)).transpose()?.flatten() != Some(Ok(key.clone())) {
                continue;
            }
            if !staged.is_changed() {
                // Somebody else's commit carried it while we waited; a row written meanwhile has nothing left to say.
                return Ok(self.writer.clear(&staged).await?);
            }
            self.learn_attr(ino, &key).await?;
            let row = self.settle(&staged).await?;
            return self.commit_claimed(&staged, row, key).await;
        }
    }

    async fn commit_claimed(self: &Arc<Self>, staged: &Arc<Staged>, row: InodeRow, key: Key) -> Result<()> {
        let headers = self.headers_for_commit(&row, &key).await?;
        let done = match self.upload(staged, &key, headers.clone(), condition_of(staged)).await {
            Err(CommitError::BaseLost) if self.find_own(staged, &key).await? => {
                self.upload(staged, &key, headers.clone(), condition_of(staged)).await
            }
            done => done,
        };
        match done {
            Ok(done) => {
                let made = done.headers.clone();
                self.committed(staged, &row, done).await?;
                self.complete_headers(staged, key, &made, &headers).await
            }
            Err(CommitError::Conflict) => self.on_conflict(staged, row, key, headers).await,
            Err(CommitError::BaseDeleted) => {
                tracing::warn!(%key, "was deleted elsewhere while it was changed here: it is created again");
                self.recreate(staged, &row, &key, headers).await
            }
            Err(CommitError::BaseLost) if !staged.content().has_own_bytes() => {
                // Nothing but attributes was changed here, of a version that is gone: as with chmod of a clean file.
                self.forget_staged(row.ino).await?;
                self.meta.change(row.ino, |row| row.local = false).await?;
                self.look_again(&row, &key).await?;
                Err(FsError::Stale)
            }
            Err(CommitError::BaseLost) => {
                self.keep_apart(staged, row, &key).await?;
                Err(CommitError::BaseLost.into())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// Bytes of the version before are missing. `true` if they are found in what an earlier commit of ours, whose answer was lost,
    /// has made of it.
    async fn find_own(&self, staged: &Staged, key: &Key) -> Result<bool> {
        let Some(own) = self.remote.head(key).await?.filter(|there| is_ours(staged, there)) else { return Ok(false) };
        tracing::info!(%key, "the answer to an earlier commit was lost: what it did not change is found there");
        staged.replace_base(ObjectRef { key: key.clone(), version: own.version });
        Ok(true)
    }

    /// An upload that began while the file was still being written has the headers of that time. What was said explicitly since
    /// (mode, owner, times) is stored by a copy of the object to itself; the time of the last write only in the catalogue, as the
    /// bucket has one of its own.
    async fn complete_headers(
        self: &Arc<Self>,
        staged: &Staged,
        key: Key,
        made: &ObjectHeaders,
        wanted: &ObjectHeaders,
    ) -> Result<()> {
        let is_time_set = staged.written_at().is_none();
        if !lacks(made, wanted, is_time_set) {
            return Ok(());
        }
        let Some(row) = self.meta.get(staged.ino())?.filter(|row| self.has_key(row, &key)) else { return Ok(()) };
        let attr = row.attr.clone();
        self.copy_to_itself(row, key, wanted.clone(), move |_| attr.clone()).await
    }

    /// The commit writes all attributes: those that only the object knows are read first. Of a version that is gone none can be,
    /// and the commit's condition decides what that means.
    async fn learn_attr(&self, ino: Ino, key: &Key) -> Result<()> {
        let Some(row) = self.meta.get(ino)? else { return Ok(()) };
        match self.with_attr(row, key).await {
            Ok(_) | Err(FsError::Stale) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Size and times that only the staged file knew go into the row.
    async fn settle(&self, staged: &Arc<Staged>) -> Result<InodeRow> {
        let (size, written_at) = (staged.size(), staged.written_at());
        let row = self.meta.change(staged.ino(), move |row| {
            row.attr.size = size;
            if let Some(at) = written_at {
                row.attr.mtime = at;
                row.attr.ctime = row.attr.ctime.max(at);
            }
        });
        row.await?.ok_or(FsError::Stale)
    }

    async fn upload(
        &self,
        staged: &Arc<Staged>,
        key: &Key,
        headers: ObjectHeaders,
        condition: Condition,
    ) -> std::result::Result<Committed, CommitError> {
        self.writer.commit(staged, key, headers, condition, self.meta.now()).await
    }

    async fn committed(self: &Arc<Self>, staged: &Arc<Staged>, row: &InodeRow, done: Committed) -> Result<()> {
        let version = done.object.version.clone();
        self.note_committed(row.ino, &done.object);
        // After stores through mmap the kernel has a time of its own.
        self.forget_attr(row.ino);
        self.note_written(row, version, &done.headers).await?;
        if staged.is_changed() && staged.is_journaled() {
            // Written again meanwhile: the journal must not remember the old base.
            return self.journal(row.ino).await;
        }
        Ok(self.writer.clear(staged).await?)
    }

    /// Handles and the kernel's pages follow our own commit.
    fn note_committed(&self, ino: Ino, object: &ObjectRef) {
        self.handles.of(ino).iter().for_each(|h| h.set_object(Some(object.clone())));
        self.seen.insert(ino, object.version.clone());
    }

    async fn recreate(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: &InodeRow,
        key: &Key,
        headers: ObjectHeaders,
    ) -> Result<()> {
        staged.rebase_on_nothing();
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        let done = self.upload(staged, key, headers, Condition::IfAbsent).await?;
        self.committed(staged, row, done).await
    }

    /// Somebody else wrote `key`, or an answer to an earlier commit of ours was lost.
    async fn on_conflict(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: InodeRow,
        key: Key,
        headers: ObjectHeaders,
    ) -> Result<()> {
        let Some(theirs) = self.remote.head(&key).await? else {
            return self.recreate(staged, &row, &key, headers).await;
        };
        if is_ours(staged, &theirs) {
            tracing::info!(%key, "the answer to an earlier commit was lost: going on from what it made");
            staged.rebase(ObjectRef { key: key.clone(), version: theirs.version });
            let done = self.upload(staged, &key, headers, condition_of(staged)).await?;
            return self.committed(staged, &row, done).await;
        }
        let unresolved = |e: FsError| FsError::ConflictUnresolved(Box::new(e));
        let copy = self.commit_copy(staged, &row, &key).await.map_err(unresolved)?;
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%key, copy = %copy, "conflict: changed elsewhere while it was changed here; both are kept");
        self.give_name_to(&row, theirs).await
    }

    /// The version that was changed here is gone, and bytes of it are missing: what was written cannot be completed. Theirs keeps
    /// the name; ours stays staged under that of a conflict copy, where what there is of it can be read.
    async fn keep_apart(self: &Arc<Self>, staged: &Arc<Staged>, row: InodeRow, key: &Key) -> Result<()> {
        // Tried again: it has a name of its own already.
        if staged.content().base().is_none_or(|base| base.key != *key) {
            return Ok(());
        }
        let theirs = self.remote.head(key).await?;
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Ok(()) };
        if theirs.as_ref().is_some_and(|theirs| is_ours(staged, theirs)) {
            return Ok(());
        }
        let date = date_for_names(self.meta.now());
        for attempt in 0..CONFLICT_NAMES_MAX {
            let own_name = conflict_name(&name, &self.settings.host, &date, attempt)?;
            if self.meta.child(parent, &own_name)?.is_some() {
                continue;
            }
            self.meta.rename(row.ino, parent, own_name.clone(), Vec::new()).await?;
            // The bucket has no version of it: it is a file that only we know, and can be renamed and deleted as one.
            self.meta.change(row.ino, |row| row.version = None).await?;
            self.forget_attr(row.ino);
            self.conflicts.fetch_add(1, Ordering::Relaxed);
            tracing::error!(%key, kept_as = %own_name, "changed elsewhere while it was changed here, and bytes of the version before are gone: what was written here is kept apart");
            let (kind, ghost) = (row.attr.kind, Box::new(row.clone()));
            let gone = Change::Removed { parent, name: name.clone(), ghost };
            self.announce(vec![gone, Change::Added { parent, name: own_name, kind, is_news: true }]);
            return match theirs {
                Some(theirs) => self.give_name_to(&row, theirs).await,
                None => Ok(()),
            };
        }
        Ok(())
    }

    /// Commits our version under a conflict name, which our inode then has.
    async fn commit_copy(self: &Arc<Self>, staged: &Arc<Staged>, row: &InodeRow, key: &Key) -> Result<Name> {
        let (Some(parent), Some(name)) = (row.parent, &row.name) else { return Err(FsError::Stale) };
        let dir = self.dir_key(&self.dir_row(parent)?)?;
        let date = date_for_names(self.meta.now());
        // What kept its bytes of the base is complete by now: the failed commit fetched them.
        for attempt in 0..CONFLICT_NAMES_MAX {
            let copy_name = conflict_name(name, &self.settings.host, &date, attempt)?;
            let copy_key = dir.child(&copy_name)?;
            let known = row.headers.as_deref().and_then(|json| serde_json::from_str::<ObjectHeaders>(json).ok());
            let headers = match known {
                Some(headers) => super::headers::for_rewrite(headers, &row.attr),
                None => for_new(&row.attr, key),
            };
            match self.upload(staged, &copy_key, headers, Condition::IfAbsent).await {
                Ok(done) => {
                    self.meta.rename(row.ino, parent, copy_name.clone(), Vec::new()).await?;
                    self.committed(staged, row, done).await?;
                    return Ok(copy_name);
                }
                Err(CommitError::Conflict) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Err(FsError::Exists)
    }

    /// Their version gets the name, with an inode of its own.
    async fn give_name_to(&self, row: &InodeRow, theirs: ObjectMeta) -> Result<()> {
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Ok(()) };
        let asked = self.meta.observe();
        let (theirs, _) = self.meta.apply_lookup(parent, name.clone(), Some(found_object(&theirs)), &asked).await?;
        if let Some(theirs) = theirs {
            self.announce(vec![Change::Replaced { parent, name, ino: theirs.ino }]);
        }
        Ok(())
    }

    /// The same, unless the journal has it as it is.
    pub(super) async fn journal_if_changed(self: &Arc<Self>, ino: Ino) -> Result<()> {
        match self.writer.get(ino) {
            Some(staged) if staged.is_recorded() => Ok(()),
            _ => self.journal(ino).await,
        }
    }

    /// Makes what is staged of `ino` durable on this machine, so that it may be acknowledged before the bucket has it.
    pub(super) async fn journal(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let Some(staged) = self.writer.get(ino).filter(|s| s.is_changed()) else { return Ok(()) };
        let row = self.settle(&staged).await?;
        let Some(key) = self.meta.key(&row)? else { return Ok(()) };
        let key = key?;
        // No HEAD here: what is not known of the old object's headers is kept by the commit, which asks.
        let known = row.headers.as_deref().and_then(|json| serde_json::from_str::<ObjectHeaders>(json).ok());
        let headers = super::headers::for_rewrite(known.unwrap_or_default(), &row.attr);
        self.writer.record(&staged, &key, &headers, self.meta.now()).await?;
        Ok(())
    }
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
        if !is_time_set {
            crate::meta::headers::remove_times(&mut headers.user);
        }
        headers
    };
    comparable(made) != comparable(wanted)
}

/// A staged file may replace just the version that it changes.
fn condition_of(staged: &Staged) -> Condition {
    match staged.content().base() {
        Some(base) => Condition::IfMatch(base.version.etag.clone()),
        None => Condition::IfAbsent,
    }
}

/// Local readers sort names: year first, and no colon, which other systems refuse.
fn date_for_names(now: crate::types::Timestamp) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour].[minute].[second]");
    time::OffsetDateTime::from(now.to_system()).format(&format).unwrap_or_else(|_| now.secs().to_string())
}
