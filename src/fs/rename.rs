//! Renaming files.
//!
//! Owns: what rename(2) means for files, not yet uploaded ones included. Does not own: directories (`rename_dir`).
//!
//! The bucket has both names before the old one goes: a rename that fails half way leaves at least one of them.

use super::begin::apart_to_the_end;
use super::databases::is_disturbed;
use super::headers::to_meta;
use super::invalidate::Touched;
use super::lookup::is_reserved;
use super::orphans::Going;
use super::place::Place;
use super::promise::{Closing, Promise};
use super::{Fs, FsError, Result};
use crate::meta::headers::set_ctime;
use crate::meta::{InodeRow, Moved};
use crate::store::{Condition, CopyRequest, ErrorKind, ObjectHeaders, StoreError};
use crate::types::{FileKind, Ino, Key, Name, ObjectRef, Version, WriteId};
use crate::write::{Claim, CommitError, Span};
use std::sync::Arc;
use std::time::Duration;

/// Times that what is owed of files is committed before a rename gives up on one that is written to all the time.
pub(super) const SETTLE_ATTEMPTS: u32 = 5;

/// What a rename has come to that did not leave the new name as it was.
#[derive(Debug)]
enum Outcome {
    /// The file has the new name.
    Renamed,
    /// It has failed, and what had the new name has lost its object all the same, or its name.
    Replaced(FsError),
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
        let touched = Touched { names: vec![from.clone(), to.clone()], inodes: Vec::new() };
        let work = async move {
            if is_reserved(to.0, &to.1) {
                return Err(FsError::Reserved);
            }
            let row = fs.resolve(from.0, &from.1).await?.ok_or(FsError::NotFound)?;
            fs.check_shown(to.0, &to.1, row.attr.kind)?;
            if row.attr.kind == FileKind::Dir {
                fs.rename_dir(row, from, to, no_replace).await
            } else {
                fs.rename_file(row, from, to, no_replace).await
            }
        };
        // It may move many bytes.
        self.changing(touched, apart_to_the_end(work)).await
    }

    /// Claims both places of a rename, which are what they were once the claim is granted.
    pub(super) async fn claim_both(
        &self,
        from: &(Ino, Name),
        to: &(Ino, Name),
        spans: impl Fn(&Place, &Place) -> Vec<Span>,
    ) -> Result<(Place, Place, Claim)> {
        loop {
            let (a, b) = (self.place(from.0, &from.1)?, self.place(to.0, &to.1)?);
            let claim = self.claims.claim(spans(&a, &b)).await;
            if self.place(from.0, &from.1)? == a && self.place(to.0, &to.1)? == b {
                return Ok((a, b, claim));
            }
        }
    }

    async fn rename_file(
        self: &Arc<Self>,
        row: InodeRow,
        from: (Ino, Name),
        to: (Ino, Name),
        no_replace: bool,
    ) -> Result<()> {
        // A file that the bucket does not have is renamed here only.
        let is_there = row.version.is_some();
        if is_there {
            self.settle_renamed(row.ino).await?;
        }
        self.settle_replaced(&to, is_there).await?;
        let spans = |a: &Place, b: &Place| [a.as_file(), b.as_tree()].concat();
        let (from, to, _claim) = self.claim_both(&from, &to, spans).await?;
        let asked_for = row.ino;
        let row = self.meta.child(from.parent, &from.name)?.ok_or(FsError::NotFound)?;
        if row.ino != asked_for {
            // The commit found a conflict: the name is theirs by now. The kernel, which would move ours, looks again.
            return Err(FsError::Stale);
        }
        let mut replaced = self.resolve(to.parent, &to.name).await?;
        if let Some(old) = replaced.take_if(|old| !old.local && self.is_of_earlier_mount(old.checked_at)) {
            // That mount may have been killed while it wrote it: the version that is to be replaced is the one in the bucket.
            replaced = Some(self.revalidate(old).await?);
        }
        match &replaced {
            Some(_) if no_replace => return Err(FsError::Exists),
            Some(old) if old.ino == row.ino => return Ok(()),
            Some(old) if old.attr.kind == FileKind::Dir => return Err(FsError::IsDir),
            Some(_) => {}
            None => self.check_new(&to)?,
        }
        let replaced = match replaced {
            Some(old) => {
                let going = self.copy_aside(&old, &to.file).await?;
                Some((old, going))
            }
            None => None,
        };
        let old = replaced.as_ref().map(|(old, _)| old);
        let leaving = self.meta.leave(from.parent, from.name.clone());
        let renamed = match row.version {
            None => self.rename_local(&row, &to, old).await,
            Some(_) => self.rename_object(&row, &from, &to, old).await,
        };
        match renamed {
            Ok(Outcome::Renamed) => {}
            Ok(Outcome::Replaced(e)) => return self.half_renamed(e, replaced, &from, &to).await,
            Err(e) => {
                if let Some((_, going)) = replaced {
                    self.drop_aside(going).await;
                }
                return Err(e);
            }
        }
        let finished = self.finish_rename(&row, &from, &to.file, replaced).await;
        drop(leaving);
        self.owe_marker_if_emptied(from.parent).await;
        self.renamed(finished, &from, &to)
    }

    /// The catalogue has the new name, and so have handles: what is left of the old one goes.
    async fn finish_rename(
        self: &Arc<Self>,
        row: &InodeRow,
        from: &Place,
        key: &Key,
        mut replaced: Option<(InodeRow, Going<'_>)>,
    ) -> Result<()> {
        // Before anything can fail: what it has replaced is gone, or goes with the next upload.
        if let Some((old, going)) = &mut replaced {
            self.turn_readers(old, key, going);
        }
        let old = replaced.as_ref().map(|(old, _)| old);
        if row.version.is_none() {
            self.journal_renamed(row.ino, old).await?;
        }
        // Written and acknowledged meanwhile: the journal must name the new key and version.
        let moved = self.writer.get(row.ino).filter(|staged| row.version.is_some() && staged.is_journaled());
        let journaled = match moved {
            Some(staged) => self.journal_anew(&staged, None).await,
            None => Ok(()),
        };
        if let Some(old) = old {
            self.lost_name(old.ino).await?;
        }
        journaled?;
        if row.version.is_some() {
            return self.delete_source(row, &from.file).await;
        }
        self.forget_attempt_at(row, &from.file);
        Ok(())
    }

    /// A rename has failed that has replaced something all the same: whoever has that open reads on, and the names show what they have
    /// now.
    async fn half_renamed(
        self: &Arc<Self>,
        failed: FsError,
        replaced: Option<(InodeRow, Going<'_>)>,
        from: &Place,
        to: &Place,
    ) -> Result<()> {
        if let Some((old, going)) = replaced {
            self.half_taken(&old, to, going).await;
        }
        self.renamed(Err(failed), from, to)
    }

    /// What an upload that got no answer may have made under the old name goes. Nobody waits for that: there may be no network.
    fn forget_attempt_at(self: &Arc<Self>, row: &InodeRow, key: &Key) {
        // Now: a commit under the new name forgets them.
        let attempts = self.attempts_of(row.ino);
        if attempts.is_empty() {
            return;
        }
        let (fs, key) = (Arc::clone(self), key.clone());
        self.runtime.spawn(async move {
            let _claim = fs.claims.claim(vec![Span::Key(key.clone())]).await;
            if let Err(e) = fs.delete_attempt(&attempts, &key).await {
                tracing::warn!(%key, error = %e, "what an upload that got no answer may have made under the old name stays");
            }
        });
    }

    /// The journal remembers key and base of a file: it must name the new ones, in the same moment in which it forgets the file
    /// that had the name before. Under its own name a file that waited for it is uploaded.
    async fn journal_renamed(&self, ino: Ino, replaced: Option<&InodeRow>) -> Result<()> {
        let Some(staged) = self.writer.get(ino) else { return Ok(()) };
        let replaced = replaced.and_then(|old| self.writer.get(old.ino)).filter(|old| old.is_journaled());
        if !staged.is_journaled() && replaced.is_none() {
            return Ok(());
        }
        let delay = match self.settings.writes.on_close(Closing::default()) {
            Promise::Journal(delay) => delay,
            Promise::Bucket => Duration::ZERO,
        };
        staged.set_delay(delay);
        self.queue_commit_after(ino, delay);
        if staged.is_acknowledged() {
            return self.journal_anew(&staged, replaced.as_deref()).await;
        }
        self.journal_over(ino, replaced.as_deref()).await
    }

    /// The end of a rename whose names have changed here. If it failed after that, the kernel, which then keeps the old ones, has
    /// to look again.
    pub(super) fn renamed(&self, finished: Result<()>, from: &Place, to: &Place) -> Result<()> {
        if finished.is_err() {
            let names = [from, to].map(|place| (place.parent, place.name.clone())).to_vec();
            self.forget_touched(&Touched { names, inodes: Vec::new() });
        }
        finished
    }

    /// What is owed over an object goes to the bucket before its name changes, and what somebody has half written goes along here: unless
    /// a commit may have been carried out without an answer, as only the file knows what that made for its own.
    pub(super) async fn settle_renamed(self: &Arc<Self>, ino: Ino) -> Result<()> {
        for _ in 0..SETTLE_ATTEMPTS {
            let Err(e) = self.commit_for_bystander(ino).await else { return Ok(()) };
            if !is_disturbed(&e) {
                return Err(e);
            }
            let Some(staged) = self.writer.get(ino).filter(|staged| staged.has_attempts()) else { return Ok(()) };
            let Some(row) = self.meta.get(ino)?.filter(|_| staged.is_uploading()) else { return Err(e) };
            // Somebody waits for an upload, and another one has begun to write: what becomes of it is known when that has ended.
            drop(self.claims.claim(vec![Span::Key(self.key(&row)?)]).await);
        }
        Err(CommitError::Disturbed.into())
    }

    /// A file with changes over an object is about to be replaced: they go to the bucket first, so that what somebody else
    /// wrote there meanwhile is a conflict now, and not a rename that fails for ever. If an object is copied over it
    /// (`by_object`), so does a file that the bucket does not have: were the daemon killed after the copy, its own commit would
    /// take that for somebody else's.
    async fn settle_replaced(self: &Arc<Self>, to: &(Ino, Name), by_object: bool) -> Result<()> {
        let is_tried = |row: &InodeRow| self.writer.get(row.ino).is_some_and(|staged| staged.has_attempts());
        let is_settled = |row: &InodeRow| !by_object && row.version.is_none() && !is_tried(row);
        let Some(old) = self.meta.child(to.0, &to.1)?.filter(|row| row.local && !is_settled(row)) else {
            return Ok(());
        };
        if let Err(e) = self.commit(old.ino).await {
            tracing::info!(inode = %old.ino, error = %e, "what is about to be replaced could not be committed");
        }
        Ok(())
    }

    /// The bucket does not have the file yet: its commit will go to the new name, and replace what is there now. So saving
    /// by rename costs one PUT.
    async fn rename_local(
        self: &Arc<Self>,
        row: &InodeRow,
        to: &Place,
        replaced: Option<&InodeRow>,
    ) -> Result<Outcome> {
        let object = replaced.and_then(|old| Some(ObjectRef { key: to.file.clone(), version: old.version.clone()? }));
        let staged = self.writer.get(row.ino);
        if let Some(staged) = staged.as_ref().filter(|staged| staged.content().copied().is_some()) {
            // Neither the journal nor a commit over another version can say whose copy it is.
            self.writer.fill(staged).await?;
        }
        if object.is_some() && staged.as_ref().is_some_and(|staged| !staged.content().missing().is_empty()) {
            // Bytes of it are lost: it was kept apart from what it could not be completed with, and must not replace that.
            return Err(FsError::Stale);
        }
        if let (Some(object), Some(staged)) = (&object, &staged) {
            staged.rebase(object.clone());
        }
        if let (Some(staged), Some(old)) = (&staged, replaced.and_then(|old| self.writer.get(old.ino))) {
            staged.inherit_attempts(&old);
        }
        let headers = match replaced {
            Some(old) if object.is_some() => Some(self.headers_to_keep(old, row, &to.file).await),
            _ => None,
        };
        let name = (to.parent, to.name.clone());
        let seen = replaced.map(|old| old.ino);
        self.meta.rename_over(row.ino, name, seen, Vec::new()).await?.ok_or(FsError::Stale)?;
        let Some(object) = object else { return Ok(Outcome::Renamed) };
        let changed = self.meta.change(row.ino, move |row| {
            row.version = Some(object.version);
            // They are known from here on: nobody is to read the old file's mode and times out of them.
            row.headers = headers;
        });
        Ok(match changed.await {
            Ok(_) => Outcome::Renamed,
            Err(e) => Outcome::Replaced(e.into()),
        })
    }

    /// The headers that the commit of `row` keeps of the object that it replaces: all that are not attributes of the file. What is
    /// acknowledged has to be uploaded: user metadata that does not fit beside those goes.
    async fn headers_to_keep(&self, old: &InodeRow, row: &InodeRow, key: &Key) -> String {
        let mut headers = match self.headers_of(old, key).await {
            Ok(headers) => headers,
            Err(e) => {
                tracing::debug!(%key, error = %e, "the headers of what is replaced are not known: it gets those of a new file");
                self.for_new(row, key)
            }
        };
        if self.needed_len(&headers, row) > self.store.capabilities().user_metadata_max {
            tracing::warn!(%key, "the user metadata of what is replaced does not fit beside that of the new file: it is dropped");
            headers.user.clear();
        }
        to_meta(&headers).json
    }

    async fn rename_object(
        self: &Arc<Self>,
        row: &InodeRow,
        from: &Place,
        to: &Place,
        replaced: Option<&InodeRow>,
    ) -> Result<Outcome> {
        let there = replaced.and_then(|old| old.version.as_ref());
        let condition = match there {
            Some(version) => Condition::IfMatch(version.etag.clone()),
            None => Condition::IfAbsent,
        };
        let (version, headers) = match self.copy_object(row, &from.file, &to.file, condition).await {
            Err(FsError::Store(StoreError { kind: ErrorKind::Precondition | ErrorKind::NotFound, .. }))
            | Err(FsError::Stale) => {
                self.look_again(row, &from.file).await?;
                self.look_at(to).await?;
                return Err(FsError::Stale);
            }
            // It may have been carried out all the same.
            Err(e) if e.is_outage() => {
                return if self.is_gone(there, &to.file).await { Ok(Outcome::Replaced(e)) } else { Err(e) };
            }
            result => result?,
        };
        let from_version = row.version.as_ref().ok_or(FsError::Stale)?;
        let moved = Moved {
            path: Vec::new(),
            is_dir: false,
            from: from_version.clone(),
            version: version.clone(),
            headers: to_meta(&headers),
            storage_class: headers.storage_class.clone(),
        };
        let name = (to.parent, to.name.clone());
        let renamed = self.meta.rename_over(row.ino, name, replaced.map(|old| old.ino), vec![moved]).await;
        if let Err(e) = renamed.map_err(FsError::from).and_then(|renamed| renamed.ok_or(FsError::Stale)) {
            if there.is_some() {
                // What it has replaced is gone: then it stays.
                return Ok(Outcome::Replaced(e));
            }
            self.undo_copy(&headers, &to.file).await;
            return Err(e);
        }
        if let Some(copied) = row.version.clone() {
            self.note_rewritten(row, &ObjectRef { key: from.file.clone(), version: copied }, &to.file, &version);
        }
        Ok(Outcome::Renamed)
    }

    /// Whether the bucket does not have the version `there` at `key` any more. If it does not answer, it is believed to have it.
    pub(super) async fn is_gone(&self, there: Option<&Version>, key: &Key) -> bool {
        let Some(there) = there else { return false };
        let now = self.patiently(async { Ok(self.remote.head(key).await?) }).await;
        now.is_ok_and(|now| now.is_none_or(|now| now.version.etag != there.etag))
    }

    /// The name was refused to what the bucket has a copy of there already: that goes again, unless somebody has written over it.
    async fn undo_copy(&self, headers: &ObjectHeaders, key: &Key) {
        let ours: Vec<WriteId> = headers.write_id().into_iter().collect();
        if let Err(e) = self.delete_attempt(&ours, key).await {
            tracing::warn!(%key, error = %e, "a copy made for a rename that failed could not be deleted");
        }
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

    /// Copies an object to another key with all its headers, and with the ctime of now where they tell one, unless nobody goes by that
    /// (`nometa`). Answers the version and headers that it has there.
    async fn copy_object(
        &self,
        row: &InodeRow,
        from: &Key,
        to: &Key,
        condition: Condition,
    ) -> Result<(Version, ObjectHeaders)> {
        let version = row.version.clone().ok_or(FsError::Stale)?;
        let mut headers = self.headers_of(row, from).await?.with_write_id(&WriteId::random());
        if self.kept().in_objects() {
            set_ctime(&mut headers.user, self.meta.now());
        }
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
