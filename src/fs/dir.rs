//! Directories: reading, making, removing.
//!
//! Owns: opendir, readdir, mkdir, rmdir; when a marker is owed.
//! Does not own: listing (`listing`), writing owed markers (`background`).

use super::invalidate::Touched;
use super::links::links;
use super::place::Place;
use super::{Caller, Entry, Fs, FsError, Result};
use crate::meta::{Child, InodeRow, Marker};
use crate::store::{Condition, ErrorKind, StoreError};
use crate::types::{Attr, ETag, FileKind, Ino, Key, Name, Pos, Timestamp, Version, WriteId};
use bytes::Bytes;
use std::sync::Arc;

/// An entry as readdir shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name; `.` and `..` included.
    pub name: &'a [u8],
    /// The inode, as LOOKUP would show it.
    pub entry: Entry,
    /// Where a later readdir goes on after this entry.
    pub cookie: u64,
}

/// Cookies of `.` and `..`. An entry's cookie is its place in the directory and this: stable for as long as the name is there,
/// whichever inode has it. So whoever reads a directory that changes meets what is there all the time once (readdir(3p)).
const COOKIE_DOT: u64 = 1;
const COOKIE_DOTDOT: u64 = 2;

impl Fs {
    /// OPENDIR: the directory is listed unless that happened within the poll interval. What an earlier mount knew is shown at
    /// once, and listed in the background. While the bucket does not answer, a directory that was complete once is shown as
    /// it was. One that was never listed can be read as soon as its first page is there: `false` if there is more to come, for
    /// which whoever reads has to [`Fs::follow`] the listing.
    ///
    /// # Errors
    /// [`FsError`].
    pub async fn opendir(self: &Arc<Self>, ino: Ino) -> Result<bool> {
        let dir = self.dir_row(ino)?;
        if dir.parent.is_none() && ino != Ino::ROOT {
            return Ok(true);
        }
        let Some(complete_at) = dir.complete_at else { return self.list_first(&dir).await };
        self.freshen_dir(&dir, complete_at).await?;
        self.read_headers_of_shown(ino);
        Ok(true)
    }

    async fn freshen_dir(self: &Arc<Self>, dir: &InodeRow, complete_at: Timestamp) -> Result<()> {
        let ino = dir.ino;
        if self.is_fresh(complete_at) {
            self.polled.shown(ino, complete_at);
            return self.walk_past(dir);
        }
        if self.is_of_earlier_mount(complete_at) {
            // Should too many wait for that already, the poller gets to it.
            self.polled.shown(ino, complete_at);
            self.list_later(ino);
            return Ok(());
        }
        match self.patiently(self.list_on_open(dir)).await {
            Err(e) if e.is_outage() => {
                tracing::warn!(dir = %ino, error = %e, "the bucket does not answer: showing the directory as it was");
                Ok(())
            }
            result => result,
        }
    }

    /// READDIR: gives `add` entries after `cookie`, 0 for the first, until it says that its buffer is full. Nothing beyond
    /// is read: the kernel's buffer may hold 20 entries of a directory of a million.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn readdir(&self, ino: Ino, cookie: u64, add: &mut dyn FnMut(DirEntry<'_>) -> bool) -> Result<()> {
        let now = self.meta.now();
        if cookie < COOKIE_DOTDOT {
            let dir = self.dir_row(ino)?;
            let parent = match dir.parent {
                Some(parent) => self.row(parent)?,
                None => dir.clone(),
            };
            let dots = [(".", dir, COOKIE_DOT), ("..", parent, COOKIE_DOTDOT)];
            self.polled.note_told();
            for (name, row, own) in dots {
                // The kernel takes the number and the kind of these two, and nothing else (fs/fuse/readdir.c,
                // fuse_direntplus_link): the subdirectories of a large one are not counted for each that is below it.
                let entry = self.entry_of(row.ino, row.attr.clone(), 1, (&row).into(), now);
                if cookie < own && add(DirEntry { name: name.as_bytes(), entry, cookie: own }) {
                    return Ok(());
                }
            }
        }
        let after = Pos(cookie.saturating_sub(COOKIE_DOTDOT));
        self.show_if_unwatched(ino);
        self.unread.showing(ino, now);
        let hidden = self.meta.watches().hidden_in(ino, self.meta.now());
        let (filter, path) = (&self.settings.filter, self.filter_path(ino));
        let is_shown = |name: &[u8], kind| {
            let Ok(name) = Name::parse(name) else { return false };
            let is_hidden = hidden.as_ref().is_some_and(|names| names.contains(&name));
            !is_hidden && filter.shows(&name, &path, kind)
        };
        let all_shown = hidden.is_none() && filter.is_off();
        self.meta.each_child(ino, after, |child| {
            let Child { ino, pos, name, attr, known, subdirs } = child;
            if !all_shown && !is_shown(name, attr.kind) {
                return false;
            }
            let nlink = links(attr.kind, subdirs);
            add(DirEntry { name, entry: self.entry_of(ino, attr, nlink, known, now), cookie: pos.0 + COOKIE_DOTDOT })
        })?;
        Ok(())
    }

    /// Whether the directory is known to have more entries than `count`.
    pub fn has_more_entries_than(&self, ino: Ino, count: usize) -> bool {
        self.meta.has_more_children_than(ino, count).unwrap_or(false)
    }

    /// MKDIR: a marker object, made only if there is none.
    ///
    /// # Errors
    /// [`FsError::Exists`], or what the store says.
    pub async fn mkdir(self: &Arc<Self>, caller: Caller, parent: Ino, name: Name, mode: u32) -> Result<Entry> {
        self.writable()?;
        let fs = Arc::clone(self);
        self.changing(Touched::name(parent, &name), async move {
            fs.check_shown(parent, &name, FileKind::Dir)?;
            let (place, _claim) = fs.claim_place(parent, &name, Place::as_tree).await?;
            fs.check_new(&place)?;
            let (dir, key) = (fs.dir_row(parent)?, place.tree()?);
            fs.check_len(&key)?;
            let attr = fs.new_attr(caller, &dir, FileKind::Dir, mode);
            let mut row = fs.meta.blank(parent, &name, attr);
            let marker = fs.put_marker(&key, &row, Condition::IfAbsent).await;
            row.version = Some(fs.seeing_what_is_there(marker, &place).await?);
            row.marker = Marker::Present;
            row.complete_at = Some(fs.meta.now());
            row.headers = Some(super::headers::to_meta(&fs.for_new(&row, &key)).json);
            let row = fs.create_or_find(row).await?;
            Ok(fs.entry(&row))
        })
        .await
    }

    /// Writes the marker object of a directory.
    pub(super) async fn put_marker(&self, key: &Key, row: &InodeRow, condition: Condition) -> Result<Version> {
        let headers = self.for_new(row, key).with_write_id(&WriteId::random());
        let written = self.store.put(key, Bytes::new(), &headers, &condition).await.map_err(|e| match e.kind {
            ErrorKind::Precondition if condition == Condition::IfAbsent => FsError::Exists,
            _ => FsError::Store(e),
        })?;
        Ok(Version { etag: written.etag, last_modified: written.last_modified, size: 0 })
    }

    /// RMDIR: only if the bucket has no key below, whatever we believe.
    ///
    /// # Errors
    /// [`FsError::NotEmpty`], or what the store says.
    pub async fn rmdir(self: &Arc<Self>, parent: Ino, name: Name) -> Result<()> {
        self.writable()?;
        let fs = Arc::clone(self);
        self.changing(Touched::name(parent, &name), async move {
            let (place, _claim) = fs.claim_place(parent, &name, Place::as_tree).await?;
            let key = place.tree()?;
            let row = fs.meta.child(parent, &name)?.ok_or(FsError::NotFound)?;
            if row.attr.kind != FileKind::Dir {
                return Err(FsError::NotDir);
            }
            // Of what is below it the bucket could not be asked.
            fs.check_len(&key)?;
            if fs.meta.holds_local(row.ino)? {
                return Err(FsError::NotEmpty);
            }
            let below = fs.remote.below(&key).await?;
            if below.has_keys {
                return Err(FsError::NotEmpty);
            }
            fs.delete_marker(&row, &key, below.marker).await?;
            if !fs.meta.remove_empty(row.ino).await? {
                // A file was made in it meanwhile: whoever waited for this was interrupted. Its attributes go into a new marker.
                let is_without_one = |row: &mut InodeRow| {
                    row.version = None;
                    true
                };
                fs.owe_marker_if(row.ino, is_without_one).await?;
                return Err(FsError::NotEmpty);
            }
            fs.owe_marker_if_emptied(parent).await;
            Ok(())
        })
        .await
    }

    /// Deletes the marker of a directory, if it has one. Another one than was seen, made elsewhere, is taken over first: the kernel,
    /// which then looks again, asks for that to be deleted. `listed`: the ETag of what there was a moment ago.
    async fn delete_marker(self: &Arc<Self>, row: &InodeRow, key: &Key, listed: Option<ETag>) -> Result<()> {
        let etag = match (&row.version, row.marker) {
            (Some(version), _) => Some(version.etag.clone()),
            // It may have been written, and the answer lost.
            (None, Marker::Owed) => listed,
            (None, _) => self.remote.head(key).await?.map(|m| m.version.etag),
        };
        let Some(etag) = etag else { return Ok(()) };
        match self.store.delete(key, Some(&etag)).await {
            Ok(()) | Err(StoreError { kind: ErrorKind::NotFound, .. }) => Ok(()),
            Err(StoreError { kind: ErrorKind::Precondition, .. }) => {
                self.read_headers(row).await?;
                Err(FsError::Stale)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// A directory emptied through the mount stays: if no key implies it any more, its marker is owed. The name that was the
    /// last one is gone by now, so that a failure here is none of its removal.
    pub(super) async fn owe_marker_if_emptied(&self, ino: Ino) {
        if let Err(e) = self.owe_marker(ino).await {
            tracing::warn!(dir = %self.path_of(ino), error = %e, "whether it needs a marker to stay is not known");
        }
    }

    async fn owe_marker(&self, ino: Ino) -> Result<()> {
        if ino == Ino::ROOT || self.meta.has_children(ino)? {
            return Ok(());
        }
        // A directory that was never listed may have entries that nobody has asked for. A marker too many does no harm.
        let Some(dir) = self.meta.get(ino)?.filter(|dir| dir.marker == Marker::Implied) else { return Ok(()) };
        let key = self.dir_key(&dir)?;
        if dir.complete_at.is_none() && self.remote.has_keys_below(&key).await.unwrap_or(false) {
            return Ok(());
        }
        self.owe_marker_if(ino, |row| row.marker == Marker::Implied).await
    }

    /// The directory owes a marker from now on, if its row is such `that` it does.
    async fn owe_marker_if(&self, ino: Ino, that: impl FnOnce(&mut InodeRow) -> bool + Send + 'static) -> Result<()> {
        let now = self.meta.now();
        self.meta
            .change(ino, move |row| {
                if that(row) {
                    row.marker = Marker::Owed;
                    row.checked_at = now;
                }
            })
            .await?;
        self.queue_changed.notify_one();
        Ok(())
    }

    /// Attributes of a new inode: the caller's, but a setgid directory hands its group on (inode(7)).
    pub(super) fn new_attr(&self, caller: Caller, dir: &InodeRow, kind: FileKind, mode: u32) -> Attr {
        let defaults = self.meta.defaults();
        let now = self.meta.now();
        let dir = defaults.shown(dir.attr.clone());
        let inherits = dir.perm & 0o2000 != 0;
        let mut perm = (mode & 0o7777) as u16;
        if inherits && kind == FileKind::Dir {
            perm |= 0o2000;
        }
        let gid = if inherits { dir.gid } else { caller.gid };
        Attr {
            kind,
            perm,
            uid: if defaults.uid_forced { defaults.uid } else { caller.uid },
            gid: if defaults.gid_forced { defaults.gid } else { gid },
            rdev: 0,
            size: 0,
            atime: now,
            mtime: now,
            ctime: now,
        }
    }
}
