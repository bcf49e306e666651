//! Copies that serve readers of files which were deleted or replaced while open.
//!
//! Owns: making them, turning readers to them, deleting them after the last close, and the list of them that outlives the daemon;
//! whoever opens a file of which no copy is made any more. Does not own: taking names away (`name`, `rename`), which close is the
//! last one (`open`).
//!
//! A copy is on the list before it is made and until it is deleted, so that no crash and no failure leaves one behind for ever.
//!
//! Whoever takes an object away notes that it goes, and then asks who has the file open; whoever opens the file pins it, and then asks
//! whether it goes. So one of the two sees the other: there is a copy, or the open waits and finds the file gone.

use super::handle::FileHandle;
use super::place::Place;
use super::{Fs, FsError, Result};
use crate::meta::InodeRow;
use crate::remote::OWN_DIR;
use crate::store::{Condition, CopyRequest, ErrorKind, StoreError};
use crate::types::{FileKind, Ino, Key, ObjectRef, Version, WriteId};
use crate::write::Span;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Where the catalogue keeps the list.
const LIST: &str = "orphans";
/// How long a copy waits that could not be deleted.
pub(super) const ORPHAN_PAUSE: Duration = Duration::from_secs(60);
/// How long the end of a mount waits for copies to be deleted: the next mount does that as well.
const END_PATIENCE: Duration = Duration::from_secs(10);

/// The copies of this mount, and those that an earlier one left.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    copies: Mutex<Copies>,
    /// Inodes whose object is about to go, and of which there will be no copy. Nearly always none.
    going: Mutex<HashSet<Ino>>,
    /// Whoever writes the list: what is written last has to be what there is.
    list_turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Copies {
    /// Under way, or made, and nobody reads them yet.
    begun: Vec<Key>,
    /// By the inode whose readers have them.
    read: HashMap<Ino, ObjectRef>,
    /// Nobody needs them.
    left: Vec<Key>,
}

impl Copies {
    /// Nobody needs the copy any more.
    fn leave(&mut self, key: &Key) {
        self.begun.retain(|other| other != key);
        self.read.retain(|_, object| object.key != *key);
        if !self.left.contains(key) {
            self.left.push(key.clone());
        }
    }
}

impl Orphans {
    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there are copies to be deleted.
    pub(super) fn has_left(&self) -> bool {
        !self.copies().left.is_empty()
    }

    fn going(&self) -> MutexGuard<'_, HashSet<Ino>> {
        self.going.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object of `ino` is about to go. The claim of its key keeps others from taking it away at the same time.
    fn note_going(&self, ino: Ino) -> Going<'_> {
        self.going().insert(ino);
        Going { orphans: self, ino, copy: None }
    }
}

/// A file whose object is about to be deleted or replaced. To be dropped when its name is gone, or when the deed came to nothing: until
/// then whoever opens it waits.
#[derive(Debug)]
pub(super) struct Going<'a> {
    orphans: &'a Orphans,
    ino: Ino,
    /// The copy for those who have it open, if they need one.
    copy: Option<ObjectRef>,
}

impl Going<'_> {
    /// Whoever opens the file from now on reads the copy in the end, and need not wait.
    fn admit(&self) {
        self.orphans.going().remove(&self.ino);
    }
}

impl Drop for Going<'_> {
    fn drop(&mut self) {
        self.admit();
    }
}

impl Fs {
    /// The object of a file is about to be deleted or replaced: if it is open, copies it aside, server-side, for those who read it.
    /// A file whose bytes are all staged needs none. The readers are turned to it once the deed is done.
    pub(super) async fn copy_aside(&self, row: &InodeRow, key: &Key) -> Result<Going<'_>> {
        // Before anybody is asked who has it open.
        let mut going = self.orphans.note_going(row.ino);
        match &row.version {
            Some(version) => going.copy = self.copy_for_readers(row, (key, version), &going).await?,
            // All that there is of it is here.
            None => going.admit(),
        }
        Ok(going)
    }

    async fn copy_for_readers(
        &self,
        row: &InodeRow,
        (key, version): (&Key, &Version),
        going: &Going<'_>,
    ) -> Result<Option<ObjectRef>> {
        let is_open = self.meta.pins().is_pinned(row.ino);
        if let Some(staged) = self.writer.get(row.ino) {
            staged.copy_ended().await;
        }
        // It may have been dropped meanwhile.
        let all_local = is_open && self.writer.get(row.ino).is_some_and(|staged| staged.keep_last_copy());
        // From here on no file becomes a copy of what is here anyway.
        if let Err(e) = self.writer.keep_copies_of(key).await {
            self.give_up_last_copy(row.ino);
            return Err(e.into());
        }
        if !is_open || all_local || row.attr.kind != FileKind::File || version.size == 0 {
            return Ok(None);
        }
        going.admit();
        let headers = match self.headers_of(row, key).await {
            Err(FsError::Stale) => return Ok(None),
            Err(FsError::Store(StoreError { kind: ErrorKind::NotFound, .. })) => return Ok(None),
            result => result?.with_write_id(&WriteId::random()),
        };
        let orphan = Key::parse(&format!("{OWN_DIR}/orphan/{}", uuid::Uuid::new_v4()))?;
        self.orphans.copies().begun.push(orphan.clone());
        let copy = CopyRequest {
            source: key.clone(),
            source_if_match: Some(version.etag.clone()),
            source_size: version.size,
            destination: orphan.clone(),
            headers,
            condition: Condition::IfAbsent,
        };
        let copied = match self.remember_orphans().await {
            Ok(()) => self.store.copy(&copy).await.map_err(FsError::Store),
            Err(e) => Err(e),
        };
        match copied {
            Ok(w) => {
                let version = Version { etag: w.etag, last_modified: w.last_modified, size: version.size };
                Ok(Some(ObjectRef { key: orphan, version }))
            }
            Err(e) => {
                // It may have been made all the same.
                self.orphans.copies().leave(&orphan);
                match e {
                    // Deleted or changed elsewhere already: there is nothing left to keep.
                    FsError::Store(StoreError { kind: ErrorKind::NotFound | ErrorKind::Precondition, .. }) => Ok(None),
                    e => Err(e),
                }
            }
        }
    }

    /// The deed came to nothing: the copy is not needed.
    pub(super) async fn drop_aside(&self, mut going: Going<'_>) {
        self.give_up_last_copy(going.ino);
        if let Some(object) = going.copy.take() {
            self.delete_orphan(&object.key).await;
        }
    }

    fn give_up_last_copy(&self, ino: Ino) {
        if let Some(staged) = self.writer.get(ino) {
            staged.give_up_last_copy();
        }
    }

    /// Readers of a deleted or replaced file go on with the copy.
    pub(super) fn turn_readers(&self, row: &InodeRow, key: &Key, going: &mut Going<'_>) {
        let Some(object) = going.copy.take() else { return };
        let ino = row.ino;
        // What was copied, which need not be what each of them reads.
        let copied = row.version.clone().map(|version| ObjectRef { key: key.clone(), version });
        if let Some(copied) = &copied {
            self.reader.carry(copied, &object);
        }
        {
            let mut copies = self.orphans.copies();
            copies.begun.retain(|other| *other != object.key);
            if let Some(before) = copies.read.insert(ino, object.clone()) {
                // Of a rename that failed after it had replaced the object.
                copies.left.push(before.key);
            }
        }
        self.handles.of(ino).iter().for_each(|h| h.set_object(Some(object.clone())));
        if let Some(copied) = &copied {
            self.writer.move_copies(copied, &object);
        }
        if let Some(staged) = self.writer.get(ino) {
            staged.replace_base(object);
        }
    }

    /// The object of `row` is gone, and yet the deed has failed: whoever has it open reads on, and the name shows what is there now.
    pub(super) async fn half_taken(self: &Arc<Self>, row: &InodeRow, place: &Place, mut going: Going<'_>) {
        self.turn_readers(row, &place.file, &mut going);
        if let Err(e) = self.look_at(place).await {
            tracing::warn!(key = %place.file, error = %e, "what is there after a request that failed shows later");
        }
        if !self.meta.pins().is_pinned(row.ino) {
            // Its last reader has gone meanwhile.
            self.drop_orphan(row.ino).await;
        }
    }

    /// A handle on a file was made, perhaps in the moment in which those that there were have been turned to a copy: it follows them.
    pub(super) fn turn_late(&self, handle: &FileHandle) {
        let copy = self.orphans.copies().read.get(&handle.ino).cloned();
        let is_nameless = |row: InodeRow| row.parent.is_none();
        // After a rename that failed the name may show another version by now.
        if copy.is_some() && self.meta.get(handle.ino).is_ok_and(|row| row.is_some_and(is_nameless)) {
            handle.set_object(copy);
        }
    }

    /// An inode is about to be opened, and is pinned. If its object is just being deleted or replaced, and nobody had it open when that
    /// began, there will be nothing to be read of it: waits for the end of that. Not for whoever holds a claim.
    ///
    /// # Errors
    /// [`FsError::Stale`] if the inode is gone.
    pub(super) async fn wait_if_going(&self, ino: Ino) -> Result<()> {
        if !self.orphans.going().contains(&ino) {
            return Ok(());
        }
        // Without a name it has gone already.
        if let Some(Ok(key)) = self.meta.key(&self.row(ino)?)? {
            drop(self.claims.claim(vec![Span::Key(key)]).await);
        }
        Ok(())
    }

    /// The last reader is gone: the copy goes too.
    pub(super) async fn drop_orphan(&self, ino: Ino) {
        let orphan = self.orphans.copies().read.get(&ino).map(|object| object.key.clone());
        if let Some(key) = orphan {
            self.delete_orphan(&key).await;
        }
    }

    /// Nobody needs the copy any more. If it cannot be deleted, the background tries again.
    async fn delete_orphan(&self, key: &Key) {
        self.orphans.copies().leave(key);
        let deleted = match self.try_delete_orphan(key).await {
            Ok(()) => self.remember_orphans().await,
            Err(e) => Err(e),
        };
        if let Err(e) = deleted {
            tracing::warn!(%key, error = %e, "a copy that nobody reads any more is deleted later");
        }
    }

    async fn try_delete_orphan(&self, key: &Key) -> Result<()> {
        self.writer.keep_copies_of(key).await?;
        match self.store.delete(key, None).await {
            Ok(()) | Err(StoreError { kind: ErrorKind::NotFound, .. }) => {}
            Err(e) => return Err(e.into()),
        }
        self.orphans.copies().left.retain(|other| other != key);
        Ok(())
    }

    /// The list of copies is kept in the catalogue, so that a daemon that was killed leaves none behind for ever.
    async fn remember_orphans(&self) -> Result<()> {
        let _turn = self.orphans.list_turn.lock().await;
        let keys: Vec<String> = {
            let copies = self.orphans.copies();
            let read = copies.read.values().map(|object| &object.key);
            copies.begun.iter().chain(read).chain(&copies.left).map(ToString::to_string).collect()
        };
        self.meta.set_kv(LIST, keys.join("\n")).await?;
        Ok(())
    }

    /// Notes what an earlier mount left, before this one makes copies of its own.
    pub(super) fn find_left_orphans(&self) -> Result<()> {
        let list = self.meta.kv(LIST)?.unwrap_or_default();
        self.orphans.copies().left = list.lines().filter_map(|key| Key::parse(key).ok()).collect();
        Ok(())
    }

    /// Deletes the copies that nobody needs: those of an earlier daemon, and those that could not be deleted before.
    ///
    /// # Errors
    /// Why some of them are still there.
    pub(super) async fn delete_left_orphans(&self) -> Result<()> {
        let left = self.orphans.copies().left.clone();
        if left.is_empty() {
            return Ok(());
        }
        let mut outcome = Ok(());
        for key in left {
            let deleted = self.try_delete_orphan(&key).await;
            let is_over = deleted.as_ref().is_err_and(FsError::is_outage);
            if deleted.is_err() {
                outcome = deleted;
            }
            if is_over {
                break;
            }
        }
        self.remember_orphans().await?;
        outcome
    }

    /// Everything is about to end: copies that nobody reads any more go, also if the last close was never heard of.
    pub(super) async fn delete_unread_orphans(&self, until: Instant) {
        let readers: Vec<Ino> = self.orphans.copies().read.keys().copied().collect();
        for ino in readers.into_iter().filter(|ino| !self.meta.pins().is_pinned(*ino)) {
            let mut copies = self.orphans.copies();
            let key = copies.read.remove(&ino).map(|object| object.key);
            copies.left.extend(key);
        }
        let until = until.min(Instant::now() + END_PATIENCE);
        match tokio::time::timeout_at(until, self.delete_left_orphans()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "copies that nobody reads any more are left to the next mount"),
            Err(_) => tracing::warn!("copies that nobody reads any more are left to the next mount: no answer in time"),
        }
    }
}
