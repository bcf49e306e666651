//! Renaming directories: every key below moves.
//!
//! Owns: the order (journal, copy all, then the catalogue, then delete the old keys), undoing copies when one fails, or when the
//! catalogue refuses the new name.
//! Does not own: renaming files (`rename`), what an earlier mount did not end (`resume`), what may go of what is there twice
//! (`doubles`).

use super::doubles::{Double, Outcome};
use super::place::Place;
use super::rename::SETTLE_ATTEMPTS;
use super::{Fs, FsError, Result};
use crate::meta::{InodeRow, Marker, Moved, Renamed, key_of};
use crate::store::{Condition, CopyRequest, ErrorKind, ListRequest, ListedObject, ObjectHeaders, StoreError};
use crate::types::{ETag, FileKind, Ino, Key, KeyError, Name, ObjectRef, Version, WriteId};
use crate::write::{RenamePhase, RenameRow};
use futures::StreamExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Copies and deletes under way at once.
const IN_FLIGHT: usize = 16;

/// A key that was copied.
#[derive(Debug)]
struct Copied {
    /// What was copied.
    source: ObjectRef,
    to: Key,
    version: Version,
    headers: ObjectHeaders,
}

impl Copied {
    /// The copy is to go again.
    fn taken_back(&self) -> Double {
        let gone = ObjectRef { key: self.to.clone(), version: self.version.clone() };
        Double { gone, stays: self.source.clone() }
    }
}

/// The names that lead from the directory `tree` to a key at or below it. `None` if no path can express the key.
fn path_below(tree: &Key, key: &Key) -> Option<Vec<Name>> {
    let rest = key.as_str().strip_prefix(tree.as_str())?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    rest.strip_suffix('/').unwrap_or(rest).split('/').map(|component| Name::from_component(component).ok()).collect()
}

/// What was copied to below the directory `tree`, with its path there. A key that no path can express moves along in the
/// bucket, and the catalogue has no row of it.
fn shown<'a>(tree: &'a Key, copied: &'a [Copied]) -> impl Iterator<Item = (Vec<Name>, &'a Copied)> {
    copied.iter().filter_map(move |one| Some((path_below(tree, &one.to)?, one)))
}

impl Fs {
    pub(super) async fn rename_dir(
        self: &Arc<Self>,
        row: InodeRow,
        from: (Ino, Name),
        to: (Ino, Name),
        no_replace: bool,
    ) -> Result<()> {
        let spans = |a: &Place, b: &Place| [a.as_tree(), b.as_tree()].concat();
        for _ in 0..SETTLE_ATTEMPTS {
            self.commit_below(row.ino).await?;
            let (a, b, _claim) = self.claim_both(&from, &to, spans).await?;
            let (old, new) = (a.tree()?, b.tree()?);
            if new.is_under(&old) && new != old {
                return Err(FsError::Invalid);
            }
            if self.dirty_objects_below(row.ino).await?.is_empty() {
                return self.rename_dir_claimed(&a, &b, no_replace).await;
            }
        }
        Err(FsError::Internal("files below the directory are written to all the time".to_owned()))
    }

    /// Files below that change an object, or may have made one, go to the bucket first; those that the bucket does not have follow
    /// their path, and so does what somebody has half written.
    async fn commit_below(self: &Arc<Self>, dir: Ino) -> Result<()> {
        for ino in self.dirty_objects_below(dir).await? {
            self.settle_renamed(ino).await?;
        }
        Ok(())
    }

    /// Files below that cannot follow their path as they are.
    async fn dirty_objects_below(&self, dir: Ino) -> Result<Vec<Ino>> {
        let mut dirty = Vec::new();
        for ino in self.owed_below(dir)? {
            let (Some(row), Some(staged)) = (self.meta.get(ino)?, self.writer.get(ino)) else { continue };
            staged.copy_ended().await;
            if staged.has_attempts() || row.version.is_some() && !staged.is_half_written() {
                dirty.push(ino);
            }
        }
        Ok(dirty)
    }

    /// Whether the bucket can have all that is below under its new key: its objects, and the files that it does not have yet.
    fn check_len_below(&self, dir: Ino, objects: &[ListedObject], (from, to): (&Key, &Key)) -> Result<()> {
        for object in objects {
            self.check_len(&object.key.rebase(from, to)?)?;
        }
        let depth = self.meta.path(dir)?.ok_or(FsError::Stale)?.len();
        for ino in self.owed_below(dir)? {
            let path = self.meta.path(ino)?;
            // By its path, not by its key: it may have a name that is too long as it is.
            if let Some(below) = path.as_deref().and_then(|path| path.get(depth..)) {
                self.check_len(&key_of(below, FileKind::File)?.rebase(&Key::root(), to)?)?;
            }
        }
        Ok(())
    }

    async fn rename_dir_claimed(self: &Arc<Self>, from: &Place, to: &Place, no_replace: bool) -> Result<()> {
        let row = self.meta.child(from.parent, &from.name)?.ok_or(FsError::NotFound)?;
        let (old, new) = (from.tree()?, to.tree()?);
        if old == new {
            return Ok(());
        }
        if row.attr.kind != FileKind::Dir {
            return Err(FsError::Stale);
        }
        let (replaced, marker) = match self.resolve(to.parent, &to.name).await? {
            Some(replaced) => {
                self.check_replaceable(&replaced, &new, no_replace).await?;
                (Some(replaced.ino), self.remote.head(&new).await?.map(|m| m.version.etag))
            }
            None => {
                self.check_new(to)?;
                (None, None)
            }
        };
        let objects = self.list_below(&old).await?;
        self.check_len_below(row.ino, &objects, (&old, &new))?;
        let id = WriteId::random();
        let is_recorded = !objects.is_empty();
        if is_recorded {
            let each = |object: &ListedObject| {
                let version = &object.version;
                (object.key.to_string(), version.etag.as_str().to_owned(), version.last_modified.map(|at| at.secs()))
            };
            let objects = objects.iter().map(each).collect();
            let (source, target) = (old.clone(), new.clone());
            let row = RenameRow { id: id.as_str().to_owned(), source, target, objects, phase: RenamePhase::Copying };
            self.writer.journal().record_rename(row).await?;
        }
        let copied = self.copy_all(objects, (&old, &new), marker.as_ref(), &id).await?;
        let leaving = self.meta.leave(from.parent, from.name.clone());
        let renamed = self.take_over(&row, (to, replaced), &new, &copied).await;
        let renamed = match renamed {
            Ok(renamed) => renamed,
            Err(e) => {
                self.undo_copies(copied, (&new, marker.as_ref()), &id, e.is_outage()).await;
                return Err(e);
            }
        };
        // The new names are shown: from here on nothing leads back.
        let followed = self.follow_names(&row, &new, renamed, &copied, marker.is_some()).await;
        let journaled = self.journal_below(row.ino).await.and(followed);
        let advanced = if is_recorded {
            self.writer.journal().advance_rename(id.as_str(), RenamePhase::Deleting).await
        } else {
            Ok(())
        };
        let finished = match advanced {
            Ok(()) => self.delete_sources(copied).await.and(journaled),
            // As far as the journal knows nothing has gone so far, and the next mount may take all of it back.
            Err(e) => Err(e.into()),
        };
        if is_recorded && finished.is_ok() {
            self.writer.journal().forget_rename(id.as_str()).await?;
        }
        drop(leaving);
        self.owe_marker_if_emptied(from.parent).await;
        self.renamed(finished, from, to)
    }

    /// The catalogue shows the new names with their new versions, all at once. `replaced` had the name when the rename began.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the name cannot be taken any more. Then nothing has changed, as with every error here.
    async fn take_over(
        &self,
        row: &InodeRow,
        (to, replaced): (&Place, Option<Ino>),
        tree: &Key,
        copied: &[Copied],
    ) -> Result<Renamed> {
        let with_path = shown(tree, copied);
        let moved = with_path.map(|(path, one)| Moved {
            path,
            is_dir: one.to.is_dir(),
            from: one.source.version.clone(),
            version: one.version.clone(),
            headers: super::headers::to_meta(&one.headers),
            storage_class: one.headers.storage_class.clone(),
        });
        let (name, moved) = ((to.parent, to.name.clone()), moved.collect());
        self.meta.rename_over(row.ino, name, replaced, moved).await?.ok_or(FsError::Stale)
    }

    /// Handles and staged files follow the names that the catalogue shows.
    async fn follow_names(
        &self,
        row: &InodeRow,
        tree: &Key,
        renamed: Renamed,
        copied: &[Copied],
        has_marker: bool,
    ) -> Result<()> {
        let shown: Vec<&Copied> = shown(tree, copied).map(|(_, one)| one).collect();
        for (before, index) in renamed.followed.iter().filter(|(row, _)| row.attr.kind != FileKind::Dir) {
            if let Some(one) = shown.get(*index) {
                self.note_rewritten(before, &one.source, &one.to, &one.version);
            }
        }
        self.announce(renamed.changes);
        let moved_marker = copied.iter().any(|c| c.to == *tree);
        let implied = !copied.is_empty();
        self.meta
            .change(row.ino, move |row| {
                if !moved_marker {
                    row.version = None;
                    row.marker = match (has_marker, implied) {
                        (true, _) => Marker::Present,
                        (false, true) => Marker::Implied,
                        // Nothing in the bucket shows the directory at its new name.
                        (false, false) => Marker::Owed,
                    };
                }
            })
            .await?;
        Ok(())
    }

    /// Files below that the bucket does not have yet have followed their path: the journal must name the new ones.
    async fn journal_below(&self, dir: Ino) -> Result<()> {
        let mut all = Ok(());
        for ino in self.owed_below(dir)? {
            if let Some(staged) = self.writer.get(ino).filter(|staged| staged.is_journaled())
                && let Err(e) = self.journal_anew(&staged, None).await
            {
                tracing::error!(inode = %ino, error = %e, "the journal names it by its old path");
                all = Err(e);
            }
        }
        all
    }

    async fn check_replaceable(&self, old: &InodeRow, tree: &Key, no_replace: bool) -> Result<()> {
        if no_replace {
            return Err(FsError::Exists);
        }
        if old.attr.kind != FileKind::Dir {
            return Err(FsError::NotDir);
        }
        if self.meta.holds_local(old.ino)? || self.remote.has_keys_below(tree).await? {
            return Err(FsError::NotEmpty);
        }
        Ok(())
    }

    async fn list_below(&self, tree: &Key) -> Result<Vec<ListedObject>> {
        let mut objects = Vec::new();
        let mut continuation = None;
        loop {
            let request = ListRequest { prefix: tree.clone(), delimited: false, continuation, max_keys: 1000 };
            let page = self.store.list(&request).await?;
            if !page.invalid.is_empty() {
                // It could not be taken along.
                return Err(KeyError::KeyTooLong.into());
            }
            objects.extend(page.objects);
            continuation = page.next;
            if continuation.is_none() {
                return Ok(objects);
            }
        }
    }

    /// Copies every key. If one fails, no other copy is begun, those that were made are deleted again, and nothing has changed.
    /// `marker`: the ETag of the marker that the directory at the new name has already.
    async fn copy_all(
        self: &Arc<Self>,
        objects: Vec<ListedObject>,
        (from, to): (&Key, &Key),
        marker: Option<&ETag>,
        id: &WriteId,
    ) -> Result<Vec<Copied>> {
        let has_failed = &AtomicBool::new(false);
        let copies = futures::stream::iter(objects).map(|object| async move {
            if has_failed.load(Ordering::Relaxed) {
                return None;
            }
            let copied = self.copy_one(object, (from, to), marker, id).await;
            has_failed.fetch_or(copied.is_err(), Ordering::Relaxed);
            Some(copied)
        });
        let results: Vec<Option<Result<Copied>>> = copies.buffer_unordered(IN_FLIGHT).collect().await;
        let (mut copied, mut failed) = (Vec::new(), Vec::new());
        for result in results.into_iter().flatten() {
            match result {
                Ok(one) => copied.push(one),
                Err(e) => failed.push(e),
            }
        }
        let may_have_made = failed.iter().any(FsError::is_outage);
        let Some(error) = failed.into_iter().next() else { return Ok(copied) };
        self.undo_copies(copied, (to, marker), id, may_have_made).await;
        Err(error)
    }

    /// The rename has failed, and no name has changed: the copies are deleted again, but for those that somebody has begun to change.
    /// `marker` as in [`Fs::copy_all`]. Requests without an answer `may_have_made` others: the next mount looks, as it does for what could
    /// not be deleted.
    async fn undo_copies(
        self: &Arc<Self>,
        copied: Vec<Copied>,
        (to, marker): (&Key, Option<&ETag>),
        id: &WriteId,
        may_have_made: bool,
    ) {
        let told = self.writer.journal().advance_rename(id.as_str(), RenamePhase::Undone).await;
        let is_down = &AtomicBool::new(false);
        // A marker that was replaced stays: an empty directory is there as it was before.
        let made = copied.into_iter().filter(|one| marker.is_none() || one.to != *to);
        let undone = futures::stream::iter(made).map(|one| async move {
            let deleted = self.delete_double(&one.taken_back(), is_down).await;
            if let Err(e) = &deleted {
                tracing::warn!(key = %one.to, error = %e, "a copy made for a rename that failed could not be deleted");
            }
            deleted.is_ok_and(|outcome| outcome != Outcome::NotTried)
        });
        let is_undone = undone.buffer_unordered(IN_FLIGHT).fold(true, |all, one| std::future::ready(all && one)).await;
        let is_forgotten = is_undone && !may_have_made && self.forget_failed(id).await;
        match told {
            _ if is_forgotten => {}
            // Soon: if he who has asked for it goes on by hand, the copies may be the last ones one day.
            Ok(_) => self.note_left_rename(id),
            Err(e) => {
                // The next mount would carry it out.
                tracing::error!(%to, error = %e, "a rename has failed, which the journal could not be told: it is tried again");
                self.note_failed_rename(id);
            }
        }
    }

    /// Nothing is left of a rename that failed. Answers whether the journal has forgotten it.
    async fn forget_failed(&self, id: &WriteId) -> bool {
        let forgotten = self.writer.journal().forget_rename(id.as_str()).await;
        if let Err(e) = &forgotten {
            tracing::warn!(error = %e, "a rename that failed stays in the journal");
        }
        forgotten.is_ok()
    }

    /// Deletes one of many objects, unless the bucket was found not to answer (`is_down`): each of the others would wait for that as long.
    /// `false`: so it was not tried.
    async fn delete_while_up(&self, key: &Key, etag: &ETag, is_down: &AtomicBool) -> Result<bool> {
        if is_down.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let deleted = self.store.delete(key, Some(etag)).await.map_err(FsError::from);
        is_down.fetch_or(deleted.as_ref().is_err_and(FsError::is_outage), Ordering::Relaxed);
        deleted.map(|()| true)
    }

    async fn copy_one(
        &self,
        object: ListedObject,
        (from, to): (&Key, &Key),
        marker: Option<&ETag>,
        id: &WriteId,
    ) -> Result<Copied> {
        let target = object.key.rebase(from, to)?;
        let meta = self.store.head(&object.key).await?;
        if meta.version.etag != object.version.etag {
            return Err(FsError::Stale);
        }
        // A HEAD names no default class.
        let class = meta.headers.storage_class.clone().or(object.storage_class);
        let headers = ObjectHeaders { storage_class: class, ..meta.headers }.with_write_id(id);
        let written = self
            .store
            .copy(&CopyRequest {
                source: object.key.clone(),
                source_if_match: Some(object.version.etag.clone()),
                source_size: object.version.size,
                destination: target.clone(),
                headers: headers.clone(),
                condition: match marker {
                    Some(etag) if target == *to => Condition::IfMatch(etag.clone()),
                    _ => Condition::IfAbsent,
                },
            })
            .await
            .map_err(|e| match e.kind {
                ErrorKind::Precondition | ErrorKind::NotFound => FsError::Stale,
                _ => FsError::Store(e),
            })?;
        let version = Version { etag: written.etag, last_modified: written.last_modified, size: object.version.size };
        let source = ObjectRef { key: object.key, version: meta.version };
        Ok(Copied { source, to: target, version, headers })
    }

    /// What somebody else wrote under an old key meanwhile stays, and shows up again under the old name. One that cannot be
    /// deleted does not keep the others, unless the bucket does not answer: then the next mount deletes the rest.
    async fn delete_sources(&self, copied: Vec<Copied>) -> Result<()> {
        let is_down = &AtomicBool::new(false);
        let deleted = futures::stream::iter(copied).map(|one| async move {
            match self.delete_while_up(&one.source.key, &one.source.version.etag, is_down).await {
                Err(FsError::Store(StoreError { kind: ErrorKind::NotFound | ErrorKind::Precondition, .. })) => Ok(true),
                result => result,
            }
        });
        let failed = deleted.buffer_unordered(IN_FLIGHT).filter_map(|deleted| std::future::ready(deleted.err()));
        failed.collect::<Vec<_>>().await.pop().map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_below_is_a_path_or_is_left_out() {
        let names = |key: &str| {
            let path = path_below(&Key::parse("t/").unwrap(), &Key::parse(key).unwrap())?;
            Some(path.iter().map(ToString::to_string).collect::<Vec<_>>().join(":"))
        };
        let some = |path: &str| Some(path.to_owned());
        assert_eq!(
            [names("t/"), names("t/a"), names("t/a/b"), names("t/a/b/")],
            [some(""), some("a"), some("a:b"), some("a:b")]
        );
        assert_eq!(
            [names("t//"), names("t//x"), names("t/a//"), names("t/a//x"), names("t/../x")],
            [const { None }; 5]
        );
    }
}
