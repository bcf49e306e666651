//! Conflicts: somebody else wrote, and so did we.
//!
//! Owns: what becomes of both versions. Theirs keeps the name, and ours becomes a conflict copy that keeps our inode, unless the
//! mount says otherwise. Does not own: finding out (`commit`), names of conflict copies (`write::conflict`).

use super::commit::{condition_of, is_ours};
use super::headers::{found_object, known, written_len};
use super::{Fs, FsError, Result};
use crate::meta::{Change, InodeRow};
use crate::store::{Condition, ObjectHeaders, ObjectMeta};
use crate::types::{ContentSum, FileKind, Ino, Key, Name, ObjectRef, Pos};
use crate::write::{CommitError, Committed, Staged, conflict_name};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Names that are tried for a conflict copy before the conflict is reported instead.
const CONFLICT_NAMES_MAX: u32 = 20;
/// Versions that are replaced one after another under `conflict=ours`, before the conflict is reported instead.
const REPLACE_ATTEMPTS: u32 = 5;
/// User metadata of a conflict copy: the name that it had, percent-encoded.
const CONFLICT_HEADER: &str = "objfs-conflict";

/// What becomes of a conflict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conflicts {
    /// Both versions stay.
    #[default]
    KeepBoth,
    /// Theirs; ours is dropped, and close says so.
    Theirs,
    /// Ours.
    Ours,
}

impl Fs {
    /// Somebody else wrote `key`, or an answer to an earlier commit of ours was lost.
    pub(super) async fn on_conflict(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: InodeRow,
        key: Key,
        headers: ObjectHeaders,
    ) -> Result<()> {
        let Some(theirs) = self.remote.head(&key).await? else {
            return self.recreate(staged, &row, &key, &headers).await;
        };
        if is_ours(staged, &theirs) {
            tracing::info!(%key, "the answer to an earlier commit was lost: going on from what it made");
            staged.rebase(ObjectRef { key: key.clone(), version: theirs.version });
            let done = self.upload(staged, &key, headers.clone(), condition_of(staged)).await?;
            return self.uploaded(staged, &row, &key, &headers, done).await;
        }
        let content = staged.content();
        if !content.has_own_bytes() && content.size() > 0 && !self.meta.pins().is_pinned(row.ino) {
            return self.give_up_attributes(&row, &key).await;
        }
        match self.settings.writes.conflict {
            Conflicts::KeepBoth => {}
            Conflicts::Ours => return self.replace_theirs(staged, &row, &key, headers, theirs).await,
            Conflicts::Theirs => return self.take_theirs(staged, &row, &key, &theirs).await,
        }
        let (copy, place) = match self.commit_copy(staged, &row, &key).await {
            Ok(made) => made,
            Err(e) => {
                // The attempt has its name in the journal: that of the copy.
                if let Err(unsafe_now) = self.journal_anew(staged, None).await {
                    tracing::error!(%key, error = %unsafe_now, "the journal has it under the name of a conflict copy");
                }
                return Err(FsError::ConflictUnresolved(Box::new(e)));
            }
        };
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%key, copy = %copy, "conflict: changed elsewhere while it was changed here; both are kept");
        self.give_name_to(&row, theirs, place).await
    }

    /// `conflict=ours`: their version is replaced, knowingly.
    async fn replace_theirs(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: &InodeRow,
        key: &Key,
        headers: ObjectHeaders,
        mut theirs: ObjectMeta,
    ) -> Result<()> {
        for _ in 0..REPLACE_ATTEMPTS {
            self.conflicts.fetch_add(1, Ordering::Relaxed);
            let etag = theirs.version.etag.as_str();
            tracing::warn!(%key, %etag, "conflict: what was changed elsewhere meanwhile is replaced, as conflict=ours says");
            staged.rebase_on_theirs(ObjectRef { key: key.clone(), version: theirs.version.clone() });
            match self.upload(staged, key, headers.clone(), condition_of(staged)).await {
                Err(CommitError::Conflict) => {}
                done => return self.uploaded(staged, row, key, &headers, done?).await,
            }
            match self.remote.head(key).await? {
                Some(newer) => theirs = newer,
                None => return self.recreate(staged, row, key, &headers).await,
            }
        }
        Err(CommitError::Conflict.into())
    }

    /// `conflict=theirs`: what was changed here is dropped, and whoever closes hears of it. Whoever has the file open keeps its inode
    /// and what was written to it, and theirs gets another one: what he writes next was meant for ours, and would be mixed with theirs.
    async fn take_theirs(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: &InodeRow,
        key: &Key,
        theirs: &ObjectMeta,
    ) -> Result<()> {
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Err(FsError::Stale) };
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%key, "conflict: what was changed here is dropped, as conflict=theirs says");
        self.queue().forget(row.ino);
        let is_open = || self.meta.pins().is_pinned(row.ino);
        let is_dropped = self.writer.drop_changes(staged, is_open).await;
        let asked = self.meta.observe();
        self.announce(self.meta.give_up(row.ino, (parent, name), found_object(theirs), &asked).await?);
        // It may have been closed meanwhile. Of what is open still, a row in the journal would bring it back after a crash.
        if !is_dropped? && !self.writer.drop_changes(staged, is_open).await? {
            self.writer.disown(staged).await?;
        }
        Err(FsError::Stale)
    }

    /// The version that was changed here is gone, and bytes of it are missing: what was written cannot be completed. Theirs keeps
    /// the name; ours stays staged under that of a conflict copy, where what there is of it can be read.
    pub(super) async fn keep_apart(self: &Arc<Self>, staged: &Arc<Staged>, row: InodeRow, key: &Key) -> Result<()> {
        // What is missing is of another object that was copied: nobody has changed this one.
        if staged.content().copied().is_some() {
            return Ok(());
        }
        // Tried again: it has a name of its own already. The base's key does not tell: a directory may have been renamed since.
        if row.version.is_none() || staged.content().base().is_none() {
            return Ok(());
        }
        let theirs = self.remote.head(key).await?;
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Ok(()) };
        if theirs.as_ref().is_some_and(|theirs| is_ours(staged, theirs)) {
            return Ok(());
        }
        let (own_name, _) = self.free_conflict_name(parent, &name, 0)?;
        let place = self.meta.make_way(row.ino, parent, own_name.clone()).await?.ok_or(FsError::Stale)?.left;
        // The bucket has no version of it: it is a file that only we know, and can be renamed and deleted as one.
        self.meta.change(row.ino, |row| row.version = None).await?;
        self.forget_attr(row.ino);
        self.conflicts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(%key, kept_as = %own_name, "changed elsewhere while it was changed here, and bytes of the version before are gone: what was written here is kept apart");
        let (kind, ghost) = (row.attr.kind, Box::new(row.clone()));
        let gone = Change::Removed { parent, name: name.clone(), ghost };
        self.announce(vec![gone, Change::Added { parent, name: own_name, kind, is_news: true }]);
        if let Some(theirs) = theirs {
            self.give_name_to(&row, theirs, place).await?;
        }
        self.journal_anew(staged, None).await
    }

    /// Commits our version under a conflict name, which our inode then has. Answers that name, and the place in the directory that
    /// stays with the old one.
    async fn commit_copy(
        self: &Arc<Self>,
        staged: &Arc<Staged>,
        row: &InodeRow,
        key: &Key,
    ) -> Result<(Name, Option<Pos>)> {
        let (Some(parent), Some(name)) = (row.parent, &row.name) else { return Err(FsError::Stale) };
        let dir = self.dir_key(&self.dir_row(parent)?)?;
        let headers = match known(row) {
            Some(headers) => self.for_rewrite(headers, row),
            None => self.for_new(row, key),
        };
        let headers = marked(headers, name, self.store.capabilities().user_metadata_max);
        let mut left = self.left_copy(staged, parent)?;
        let mut attempt = 0;
        // What kept its bytes of the base is complete by now: the failed commit fetched them.
        loop {
            let copy_name = match left.take() {
                Some(left) => left,
                None => {
                    let (free, tried) = self.free_conflict_name(parent, name, attempt)?;
                    attempt = tried + 1;
                    free
                }
            };
            staged.note_copy(parent, copy_name.clone());
            let copy_key = dir.child(&copy_name)?;
            if let Some(done) = self.commit_as_copy(staged, &copy_key, &headers).await? {
                let place = self.meta.make_way(row.ino, parent, copy_name.clone()).await?.ok_or(FsError::Stale)?.left;
                self.committed(staged, row, done).await?;
                return Ok((copy_name, place));
            }
        }
    }

    /// The name of a conflict copy that an earlier try may have made, whose answer was lost. It may be shown already, as somebody
    /// else's, and is not ours to take if something else has been made of it since.
    fn left_copy(&self, staged: &Staged, parent: Ino) -> Result<Option<Name>> {
        let Some(name) = staged.tried_copy(parent) else { return Ok(None) };
        let is_ours_to_take = |there: &InodeRow| there.attr.kind == FileKind::File && !there.local;
        Ok(self.meta.child(parent, &name)?.as_ref().is_none_or(is_ours_to_take).then_some(name))
    }

    /// Commits our version to the key of a conflict copy, be it over what an earlier try has made. `None` if somebody else has it.
    async fn commit_as_copy(
        &self,
        staged: &Arc<Staged>,
        key: &Key,
        headers: &ObjectHeaders,
    ) -> Result<Option<Committed>> {
        let mut done = self.upload(staged, key, headers.clone(), Condition::IfAbsent).await;
        if matches!(done, Err(CommitError::Conflict)) {
            let there = self.remote.head(key).await?;
            let Some(own) = there.filter(|there| is_ours(staged, there)) else { return Ok(None) };
            done = self.upload(staged, key, headers.clone(), Condition::IfMatch(own.version.etag)).await;
        }
        match done {
            Err(CommitError::Conflict) => Ok(None),
            done => Ok(Some(done?)),
        }
    }

    /// A name for a conflict copy that is not known here, and which attempt it is: the first from `attempt` on.
    ///
    /// # Errors
    /// [`FsError::Exists`] if all are taken.
    pub(super) fn free_conflict_name(&self, parent: Ino, name: &Name, attempt: u32) -> Result<(Name, u32)> {
        let date = date_for_names(self.meta.now());
        for attempt in attempt..CONFLICT_NAMES_MAX {
            let own_name = conflict_name(name, &self.settings.host, &date, attempt)?;
            // One that was kept apart may have it, of which the bucket knows nothing.
            if self.meta.child(parent, &own_name)?.is_none() {
                return Ok((own_name, attempt));
            }
        }
        Err(FsError::Exists)
    }

    /// Their version gets the name and its place in the directory, with an inode of its own.
    async fn give_name_to(&self, row: &InodeRow, theirs: ObjectMeta, place: Option<Pos>) -> Result<()> {
        let (Some(parent), Some(name)) = (row.parent, row.name.clone()) else { return Ok(()) };
        let asked = self.meta.observe();
        let theirs = self.meta.take_place((parent, name.clone()), found_object(&theirs), place, &asked).await?;
        if let Some(theirs) = theirs {
            self.announce(vec![Change::Replaced { parent, name, ino: theirs.ino }]);
        }
        Ok(())
    }

    /// The name that a conflict copy had before. `None` for any other file.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the inode is gone.
    pub(super) fn conflict_of(&self, ino: Ino) -> Result<Option<Vec<u8>>> {
        let name = known(&self.row(ino)?).and_then(|headers| headers.user.get(CONFLICT_HEADER).cloned());
        Ok(name.map(|name| percent_decode_str(&name).collect()))
    }
}

/// The headers of a conflict copy of `name`, which they tell unless they are full of other metadata: better a copy that does not say
/// whose than none.
fn marked(mut headers: ObjectHeaders, name: &Name, user_metadata_max: usize) -> ObjectHeaders {
    // It is that of the version before.
    headers.user.remove(ContentSum::HEADER);
    headers.user.insert(CONFLICT_HEADER.to_owned(), percent_encode(name.as_bytes(), NON_ALPHANUMERIC).to_string());
    if written_len(&headers) > user_metadata_max {
        headers.user.remove(CONFLICT_HEADER);
    }
    headers
}

/// Local readers sort names: year first, and no colon, which other systems refuse.
fn date_for_names(now: crate::types::Timestamp) -> String {
    let format = time::macros::format_description!("[year]-[month]-[day] [hour].[minute].[second]");
    time::OffsetDateTime::from(now.to_system()).format(&format).unwrap_or_else(|_| now.secs().to_string())
}
